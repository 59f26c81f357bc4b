"""What tests of supervised agents need: a clock that stands still, a recorder of events, chaos, and a leak check.

With pytest all of it comes as fixtures (`docs/testing.md`); everything here works without pytest too.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.agents.owner import EngineOwner
from mlld_sdk.base.durations import Deadline, now, pause
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.runtime.runtime import Runtime
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.reactor import shared_reactor

__all__ = ["Chaos", "FakeClock", "Leaked", "Recorder", "eventually", "leak_check"]

T = TypeVar("T")
E = TypeVar("E", bound=Event)

PATIENCE: Final = 10.0
"""Seconds that waiting in tests lasts unless something else is said."""

PROCESS_WIDE: Final = ("mlld-shared-",)
"""Beginnings of names of threads that live as long as the process, by design."""


def eventually(check: Callable[[], T], within: float = PATIENCE) -> T:
    """Return the first true value of `check`, asked every few milliseconds.

    Raises:
        AssertionError: It was not true within that many seconds.
    """
    deadline = Deadline(within)
    while True:
        value = check()
        if value:
            return value
        assert not deadline.is_over, f"not so within {within:g} s"
        pause(0.005)


class FakeClock:
    """Time that moves only when a test says so.

    It is for what supervision decides by time: backoff, intensity, breakers, stuck detection, timers of actors.
    Engines are real processes and keep real time.

    Attributes:
        env: Give it to a `Runtime`, an `ActorSystem` or a `Breaker`.
    """

    def __init__(self, start: float | None = None, *, seed: int = 0) -> None:
        """Begin at `start`; by default at the true monotonic time, so that real things can be given deadlines."""
        self._now = now() if start is None else start
        self._begin = self._now
        self._began_at = 1_700_000_000.0
        self._systems: list[ActorSystem] = []
        self.env = Env(now=self.now, wall=self.wall, random=Random(seed))  # noqa: S311 - the same on every run

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Seconds since the epoch; moves along."""
        return self._began_at + self._now - self._begin

    def drive(self, system: ActorSystem) -> None:
        """Wake the timers of this system whenever time is moved."""
        self._systems.append(system)

    def advance(self, seconds: float) -> None:
        """Let time pass; timers that come due fire at once, on their own thread."""
        self._now += seconds
        for system in self._systems:
            system.timers.wake()


class Recorder:
    """Keeps every event, and lets a test wait for one. Attach it with `bus.attach_inline("recorder", recorder)`."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._seen = 0
        self._news = threading.Condition()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    @property
    def all(self) -> list[Event]:
        """Everything so far."""
        with self._news:
            return list(self._events)

    def of(self, *kinds: type[E]) -> list[E]:
        """List the events of these classes so far."""
        return [event for event in self.all if isinstance(event, kinds)]

    def names(self) -> list[str]:
        """List the names of the events so far."""
        return [name_of(event) for event in self.all]

    def next(self, kind: type[E], *, within: float = PATIENCE, **fields: Any) -> E:
        """Return the next event of a class whose fields are as given, waiting for it if need be.

        Each call goes on behind the event the last one returned, so a story can be followed step by step.

        Args:
            kind: Class of the event.
            within: Seconds to wait.
            **fields: Values that fields must have.

        Raises:
            AssertionError: There was none in that time; says what there was instead.
        """
        deadline = Deadline(within)
        at = self._seen
        with self._news:
            while True:
                while at < len(self._events):
                    event = self._events[at]
                    at += 1
                    if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items()):
                        self._seen = at
                        return event
                left = deadline.left
                if left <= 0:
                    since = ", ".join(name_of(event) for event in self._events[self._seen :][-20:]) or "nothing"
                    asked = f"{kind.__name__} {fields}" if fields else kind.__name__
                    before = any(isinstance(event, kind) for event in self._events[: self._seen])
                    passed = "; one came before the event that was asked for last" if before else ""
                    raise AssertionError(f"no {asked} within {within:g} s; there was: {since}{passed}")
                self._news.wait(left)


class Chaos:
    """Breaks things for real. Whatever still is broken when it is closed is mended.

    Places are named as in `runtime[name]`: agents and pools, for all their engines; `kill_actor` takes any place.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stopped: set[int] = set()
        self._healthy: dict[str, Callable[[], Engine]] = {}
        self._bad: dict[str, list[Engine]] = {}

    def kill(self, name: str) -> int:
        """SIGKILL the engines of an agent or pool, and say how many there were."""
        return self._signal(name, signal.SIGKILL)

    def stop(self, name: str) -> int:
        """SIGSTOP them: they live and do nothing, until `resume`."""
        pids = self.engines(name)
        self._stopped.update(pids)
        return self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> int:
        """SIGCONT them."""
        self._stopped -= set(self.engines(name))
        return self._signal(name, signal.SIGCONT)

    def kill_actor(self, name: str, why: str = "chaos") -> None:
        """Kill the actor at a place, whatever it does; it has no chance to clean up."""
        self._runtime.place(self._path(name)).ref().kill(why)

    def garble(self, name: str, every: int = 1) -> None:
        """Let every n-th answer of its engines be broken."""
        self.misbehave(name, f"garble-every={every}")

    def slow(self, name: str, seconds: float) -> None:
        """Let each answer of its engines take so much longer."""
        self.misbehave(name, f"slow={seconds}")

    def flood(self, name: str, size: str = "1m", *, stderr: bool = False) -> None:
        """Let its engines pour noise over the answer channel, or over stderr, at each request."""
        self.misbehave(name, f"flood-{'stderr' if stderr else 'stdout'}={size}")

    def misbehave(self, name: str, how: str) -> None:
        """Replace the engines of an agent or pool by ones that misbehave, until `heal`; idle ones at once.

        Args:
            name: The agent or pool; its engine must be the embedded one.
            how: What they do, as `--misbehave` of the embedded engine takes it: `die-at-request=2,die-with=KILL`.
        """
        path = self._path(name)
        pool = self._runtime.services.engine_pools().get(path)
        owner = self._runtime.place(path).ref().cell.actor
        if pool is None or not isinstance(owner, EngineOwner) or owner.requests.kind != "embedded":
            raise ConfigurationError(
                f"{name} has no embedded engine to misbehave", hint="declare it with engine='embedded', or kill it"
            )
        command = owner.options.engine_command()
        bad = replace(command, environ={**command.environ, "MLLD_EMBEDDED_MISBEHAVE": how})
        services = self._runtime.services

        def start() -> Engine:
            engine = Engine.start(bad, exclusive=True, label=path, env=services.env, sink=services.sink)
            self._bad.setdefault(path, []).append(engine)
            return engine

        self._healthy.setdefault(path, pool._start)
        pool._start = start
        self._end_bad(path)
        pool.sleep_idle(0.0)

    def heal(self, name: str) -> None:
        """Let its engines be well-behaved again; those that are not are killed, busy ones too."""
        self._heal(self._path(name))

    def engines(self, name: str) -> list[int]:
        """List the process ids of the engines of an agent or pool."""
        path = self._path(name)
        return [one.pid for one in self._runtime.history.engines() if one.engine.rpartition("-")[0] == path]

    def close(self) -> None:
        """Wake what is stopped, and heal what misbehaves."""
        for pid in self._stopped:
            _send(pid, signal.SIGCONT)
        self._stopped.clear()
        for path in list(self._healthy):
            self._heal(path)

    def _heal(self, path: str) -> None:
        pool, healthy = self._runtime.services.engine_pools().get(path), self._healthy.pop(path, None)
        if pool is not None and healthy is not None:
            pool._start = healthy
        self._end_bad(path)

    def _end_bad(self, path: str) -> None:
        for engine in self._bad.pop(path, []):
            engine.kill()

    def _signal(self, name: str, number: signal.Signals) -> int:
        return sum(_send(pid, number) for pid in self.engines(name))

    def _path(self, name: str) -> str:
        """Say the whole path of a place."""
        return self._runtime._find(name)[0]


class Leaked(AssertionError):
    """A test left threads, child processes or open files behind."""


@contextlib.contextmanager
def leak_check(*, files: bool = True, within: float = 3.0) -> Iterator[None]:
    """Fail if the block leaves threads, child processes or open files behind.

    Args:
        files: Whether open files count.
        within: Seconds that what is ending may take to be gone.

    Raises:
        Leaked: Something was left; says what.
    """
    if files:
        shared_reactor()  # lives as long as the process, and opens files when it is first needed
    before = _everything(files)
    yield
    deadline = Deadline(within)
    while left := {name: thing for name, thing in _everything(files).items() if name not in before}:
        if deadline.is_over:
            raise Leaked(f"left behind: {', '.join(left.values())}")
        pause(0.01)


def _everything(files: bool) -> dict[tuple[str, Any], str]:
    found: dict[tuple[str, Any], str] = {
        ("thread", thread): f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.name.startswith(PROCESS_WIDE)
    }
    found |= {("child", pid): f"child process {pid}" for pid in _children()}
    if files:
        for entry in _listing("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the descriptor of this very listing
                target = os.readlink(f"/proc/self/fd/{entry}")
                found["file", f"{entry} {target}"] = f"file {target}"
    return found


def _children() -> set[int]:
    """List the pids of this process's children, zombies too (empty where the system has no /proc)."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in task.read_text().split()}
    return found


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except OSError:  # it has gone by itself
        return False
    return True
