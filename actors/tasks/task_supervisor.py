"""Where tasks run: an actor that owns them, and the functions that start them.

```python
with ActorSystem() as system:
    tasks = Tasks.start(system)
    task = tasks.async_(sum, [1, 2, 3])
    task.result()                                        # 6
    for outcome in tasks.async_stream(urls, fetch, max_concurrency=4): ...
```

Starting a task is one step in the caller; the supervisor is not asked. When it ends, its tasks are stopped, each with
the time it was given.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeVar, Unpack, get_args

import msgspec

from mlld_sdk.actors.core.actor import Actor, current_actor
from mlld_sdk.actors.core.directives import Stop
from mlld_sdk.actors.core.errors import ActorKilled, NoSuchActor
from mlld_sdk.actors.core.exits import NORMAL, Reason
from mlld_sdk.actors.core.names import Name
from mlld_sdk.actors.core.ref import Down, monitor
from mlld_sdk.actors.core.services import Ref, kill, offer, spawn, still_in_effect
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.tasks.errors import TooManyTasks
from mlld_sdk.actors.tasks.streams import StreamOptions, StreamPlan, TaskStream
from mlld_sdk.actors.tasks.task_actor import TaskActor, TaskCall, name_of, reason_of
from mlld_sdk.actors.tasks.tasks import BRUTAL_KILL, ShutdownTime, Task, check_shutdown, longest
from mlld_sdk.base.durations import seconds
from mlld_sdk.base.options import check_callable, one_of, refuse_unknown, whole

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - the input
Restart = Literal["temporary", "transient", "permanent"]


class TooManyRestarts(Reason, frozen=True, tag="too_many_restarts"):
    """A task supervisor gave up: its tasks ended too often.

    Attributes:
        limit: Restarts that were allowed.
        within: ... in so many seconds.
    """

    limit: int
    within: float

    def __str__(self) -> str:
        return f"more than {self.limit} restarts in {self.within} s"


@dataclass(eq=False)
class _Child:
    """What the supervisor remembers of a task: how to start it again and how to end it."""

    make: Callable[[], TaskCall]
    restart: Restart
    shutdown: ShutdownTime
    stopping: bool = False

    def comes_back_after(self, reason: Reason) -> bool:
        if self.stopping or self.restart == "temporary":
            return False
        return self.restart == "permanent" or not reason.is_normal_family


class _RunAgain(msgspec.Struct, frozen=True):
    child: _Child


class _GetTasks(msgspec.Struct, frozen=True):
    pass


class Tasks:
    """Starts tasks under one `TaskSupervisor`. Any thread and any actor may use it."""

    def __init__(self, system: ActorSystem, ref: Ref, max_children: int) -> None:
        self.ref = ref
        self.max_children = max_children
        self._system = system
        self._lock = threading.Lock()
        self._children: dict[Ref, _Child] = {}
        self._count = 0
        self._numbers = count(1)

    @classmethod
    def start(
        cls,
        system: ActorSystem,
        *,
        max_children: int = 100_000,
        max_restarts: int = 3,
        within: float = 5.0,
        name: Name | None = None,
        parent: Ref | None = None,
    ) -> "Tasks":
        """Start a `TaskSupervisor` with these options and return the way to use it."""
        _check_limits(max_children, max_restarts, within)
        options = {"max_children": max_children, "max_restarts": max_restarts, "within": within}
        return cls.of(system.start(TaskSupervisor, kwargs=options, name=name, parent=parent))

    @classmethod
    def of(cls, ref: Ref) -> "Tasks":
        """Find the way to use a running `TaskSupervisor`."""
        found = ref.call(_GetTasks())
        assert isinstance(found, cls)
        return found

    def async_(self, function: Callable[..., T], /, *args: Any, shutdown: ShutdownTime = 5.0, **kwargs: Any) -> Task[T]:
        """Run `function(*args, **kwargs)` as a task linked to the caller: the crash of either ends the other.

        Code outside actors has nothing to link; for it this is `async_nolink`.

        Raises:
            TooManyTasks: `max_children` tasks are running.
        """
        check_callable("function", function)
        return self._task(name_of(function), lambda: function(*args, **kwargs), shutdown, link=current_actor())

    def async_nolink(
        self, function: Callable[..., T], /, *args: Any, shutdown: ShutdownTime = 5.0, **kwargs: Any
    ) -> Task[T]:
        """Run `function(*args, **kwargs)` as a task whose crash is only seen by the one that waits for it."""
        check_callable("function", function)
        return self._task(name_of(function), lambda: function(*args, **kwargs), shutdown, link=None)

    def start_child(
        self,
        function: Callable[..., object],
        /,
        *args: Any,
        restart: Restart = "temporary",
        shutdown: ShutdownTime = 5.0,
        **kwargs: Any,
    ) -> Ref:
        """Run `function(*args, **kwargs)` for its effects, without waiting for it.

        Args:
            function: What to run.
            *args: Its arguments.
            restart: Whether it is run again when it ends: never (`temporary`), after an abnormal end (`transient`),
                always (`permanent`).
            shutdown: Seconds it gets to end when it is stopped, or `BRUTAL_KILL`.
            **kwargs: Its keyword arguments.

        Raises:
            TooManyTasks: `max_children` tasks are running.
        """
        check_callable("function", function)
        one_of("restart", restart, *get_args(Restart))
        check_shutdown(shutdown)
        child = _Child(lambda: TaskCall(name_of(function), lambda: function(*args, **kwargs), None), restart, shutdown)
        self._reserve()
        return self.run(child)[0]

    def async_stream(
        self, source: Iterable[I], function: Callable[..., T], /, *args: Any, **options: Unpack[StreamOptions]
    ) -> TaskStream[I, T]:
        """Apply `function(item, *args)` to every item by tasks, lazily; see `StreamOptions` for the options.

        A task that fails ends the iteration with `TaskExited`, unless an actor that traps exits iterates.
        """
        return self._stream(source, function, args, options, linked=True)

    def async_stream_nolink(
        self, source: Iterable[I], function: Callable[..., T], /, *args: Any, **options: Unpack[StreamOptions]
    ) -> TaskStream[I, T]:
        """Do the same, but give a task that fails as `Exited` and go on."""
        return self._stream(source, function, args, options, linked=False)

    def children(self) -> list[Ref]:
        """List the tasks that are running."""
        with self._lock:
            return [ref for ref in self._children if ref.reason is None]

    def terminate_child(self, ref: Ref) -> None:
        """End a task for good, within the time it was given.

        Raises:
            NoSuchActor: It is no running task of this supervisor.
        """
        with self._lock:
            child = self._children.get(ref)
        if child is None:
            raise NoSuchActor(f"{ref} is no running task of {self.ref}")
        _end({ref: child})

    def end_all(self) -> None:
        """End every task, all at once, each within its time. The supervisor does this when it ends."""
        with self._lock:
            children = dict(self._children)
        _end(children)

    def _stream(
        self,
        source: Iterable[I],
        function: Callable[..., T],
        args: tuple[Any, ...],
        options: StreamOptions,
        *,
        linked: bool,
    ) -> TaskStream[I, T]:
        check_callable("function", function)
        refuse_unknown(options, StreamOptions)
        plan, what = StreamPlan(**options, linked=linked), name_of(function)

        def spawn(item: I) -> Task[T]:
            return self._task(what, lambda: function(item, *args), plan.shutdown, link=None)

        return TaskStream(self._system, source, spawn, plan)

    def _task(self, what: str, function: Callable[[], T], shutdown: ShutdownTime, *, link: Ref | None) -> Task[T]:
        check_shutdown(shutdown)
        self._reserve()
        ref, call = self.run(_Child(lambda: TaskCall(what, function, link), "temporary", shutdown))
        if link is not None:
            # The link alone would wait for the function to return before it ends the task.
            def caller_ended(down: Down) -> None:
                if reason_of(down) != NORMAL:
                    kill(ref, "its caller has ended")

            watch = link.monitor(caller_ended)
            call.answer.on_done(lambda _: watch.cancel())
        return Task(ref, current_actor(), call.answer)

    def _reserve(self) -> None:
        still_in_effect()
        with self._lock:
            if self._count >= self.max_children:
                raise TooManyTasks(
                    f"{self.ref} runs its limit of {self.max_children} tasks",
                    hint="wait for some, or raise max_children",
                )
            self._count += 1

    def run(self, child: _Child) -> tuple[Ref, TaskCall]:
        """Start a task whose place is reserved. For the supervisor."""
        try:
            call = child.make()
            label = f"{call.what}-{next(self._numbers)}"
            ref = spawn(self._system, TaskActor, (call,), parent=self.ref, label=label)
        except BaseException:
            with self._lock:
                self._count -= 1
            raise
        call.answer.target = ref.cell  # so that a task and its caller that wait for each other are told
        with self._lock:
            self._children[ref] = child
        monitor(ref, None, self._ended, first=True)
        try:
            ref.monitor(call.ended)
        except ActorKilled:
            ref.kill("the code that started it was killed meanwhile")
            raise
        return ref, call

    def _ended(self, down: Down) -> None:
        with self._lock:
            child = self._children.pop(down.ref)
            again = child.comes_back_after(reason_of(down))
            if not again:
                self._count -= 1
        if again:
            offer(self.ref, _RunAgain(child), beyond_limit=True)


def _check_limits(max_children: int, max_restarts: int, within: float) -> None:
    whole("max_children", max_children)
    whole("max_restarts", max_restarts)
    seconds(within, "within", above=0, infinite=False)


def _end(children: dict[Ref, _Child]) -> None:
    for ref, child in children.items():
        child.stopping = True
        if child.shutdown == BRUTAL_KILL:
            ref.kill("its task supervisor ends it")
        else:
            ref.shutdown(float(child.shutdown))
    for ref, child in children.items():
        ref.join(longest(child.shutdown))


class TaskSupervisor(Actor):
    """Owns tasks; started by `Tasks.start`, or as a child in a tree and then found with `Tasks.of`.

    Args:
        max_children: Tasks that may run at once.
        max_restarts: How often tasks may be run again ...
        within: ... in so many seconds, before the supervisor gives up with `TooManyRestarts`.
    """

    trap_exit = True
    urgent_exits = True

    def __init__(self, *, max_children: int = 100_000, max_restarts: int = 3, within: float = 5.0) -> None:
        super().__init__()
        _check_limits(max_children, max_restarts, within)
        self._max_children = max_children
        self._max_restarts = max_restarts
        self._within = within
        self._restarts: deque[float] = deque()

    def on_start(self) -> None:
        """Prepare the way in."""
        self._tasks = Tasks(self.system, self.actor_ref, self._max_children)

    def on_receive(self, message: Any) -> Any:
        """Return the way to start tasks, and run again those that ended and should not have."""
        match message:
            case _GetTasks():
                return self._tasks
            case _RunAgain(child):
                now = self.system.env.now()
                self._restarts.append(now)
                while now - self._restarts[0] > self._within:
                    self._restarts.popleft()
                if len(self._restarts) > self._max_restarts:
                    return Stop(TooManyRestarts(self._max_restarts, self._within))
                self._tasks.run(child)
        return None

    def on_terminate(self, _: Reason) -> None:
        """Stop the tasks, all at once, each with its own time."""
        self._tasks.end_all()
