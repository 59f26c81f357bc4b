"""A Pykka future that is cheap until it is waited for.

No condition, event or lock belongs to a future; a thread that really has to wait brings a lock of its own. "Answered
exactly once" rests on one atomic step: the thread that removes the opening token from the list of hooks may answer.
"""

import queue
import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pykka

from mlld_sdk.actors.core.context import context
from mlld_sdk.actors.core.errors import ActorError, AskCancelled, AskTimeout
from mlld_sdk.actors.core.protocols import AnyCell
from mlld_sdk.base.durations import LONGEST_WAIT
from mlld_sdk.base.errors import InvalidOption

if TYPE_CHECKING:
    import concurrent.futures

T = TypeVar("T")
M = TypeVar("M")
R = TypeVar("R")

PENDING, VALUE, ERROR, CANCELLED, TIMED_OUT = range(5)


def _open() -> None:
    """Stand first among the hooks while a future is unanswered."""


class Future(pykka.Future[T]):
    """The answer to a call, now or later. It is everything `pykka.Future` is, and more.

    - no lock or condition exists until a thread really waits;
    - `await` works on any running event loop and never blocks it; cancelling the await cancels the call;
    - `on_done` calls back exactly once, in the thread that answered (or at once, when the answer is there);
    - a thread that waits inside an actor lets the scheduler run others meanwhile.
    """

    __slots__ = ("_hook", "_hooks", "sources", "state", "target", "value", "wraps_crash")

    sources: "tuple[Future[Any], ...]"
    value: Any

    def __init__(self, target: AnyCell | None = None, *, wraps_crash: bool = False) -> None:
        # Pykka's own __init__ only prepares its get hook, which is kept here instead: this runs for every call.
        self._hooks: list[Callable[[], object]] = [_open]
        self.state: int = PENDING
        self.target: AnyCell | None = target
        self._hook: Callable[[float | None], Any] | None = None
        self.wraps_crash: bool = wraps_crash

    def __repr__(self) -> str:
        return f"<Future {('pending', 'answered', 'failed', 'cancelled', 'timed out')[self.state]}>"

    # -- asking

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the answer.

        Args:
            timeout: Seconds to wait; `None` waits without limit, which a caller has to mean.

        Raises:
            AskTimeout: No answer in time (also a `pykka.Timeout`). The call itself goes on.
            DeadlockDetected: Waiting would close a ring of waiting actors.
            CallingSelf: The actor that should answer is the one that waits.
        """
        if self.state == PENDING:
            if self._hook is not None:
                return self._derive(timeout)
            self._wait(timeout)
        if self.state == VALUE:
            return self.value
        error, trace = self.value
        raise error if error.__traceback__ is trace else error.with_traceback(trace)

    def _derive(self, timeout: float | None) -> Any:
        """Compute the value of a future that has a get hook, once."""
        value = cast("Callable[[float | None], Any]", self._hook)(timeout)
        self.try_set(value)
        return self.value if self.state == VALUE else value

    def _wait(self, timeout: float | None) -> None:
        if context.on_loop:
            raise ActorError("a blocking wait on the event loop's thread", hint="await the future instead")
        me = context.cell
        if me is not None:
            me.before_waiting(self)
        lock = allocate_lock()
        lock.acquire()
        wake = lock.release
        self._hooks.append(wake)
        worker = context.worker
        try:
            if me is not None:
                me.waits(self, wake)
            if self.state == PENDING:
                if worker is not None:
                    worker.enter_blocking()
                try:
                    lock.acquire(True, -1 if timeout is None else min(max(timeout, 0.0), LONGEST_WAIT))
                except TypeError:
                    raise InvalidOption("timeout", timeout, "seconds, or None") from None
                finally:
                    if worker is not None:
                        worker.exit_blocking()
        finally:
            if me is not None:
                me.waited()
            if self.state == PENDING:
                self.forget_hook(wake)
        if self.state == PENDING:
            if self._hook is not None:
                self._derive(timeout)
                return
            raise AskTimeout(f"no answer within {timeout} seconds", timeout=timeout)

    @property
    def done(self) -> bool:
        """Whether there is an answer (or the call was given up)."""
        return self.state != PENDING

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled before it was answered."""
        return self.state == CANCELLED

    def exception(self) -> BaseException | None:
        """Return the exception answered, or `None`. Raises `AskTimeout` when there is no answer yet."""
        if self.state == PENDING:
            raise AskTimeout("not answered yet", timeout=0.0)
        if self.state == VALUE:
            return None
        return cast("BaseException", self.value[0])

    # -- answering

    def set(self, value: Any = None) -> None:
        """Answer with a value.

        Raises:
            queue.Full: It has an answer or a get hook already (Pykka's own choice of exception).
        """
        if self._hook is not None or not self.try_set(value):
            raise queue.Full

    def set_exception(self, exc_info: Any = None) -> None:
        """Answer with an exception: an `exc_info` triple, or by default the one being handled."""
        kind, error, trace = exc_info if exc_info is not None else sys.exc_info()
        if error is None and kind is not None:
            error = kind()
        if error is None:
            raise ValueError("set_exception() needs an exception: none was given and none is being handled")
        if self._hook is not None or not self._settle(ERROR, (error, trace)):
            raise queue.Full

    def set_get_hook(self, func: Callable[[float | None], Any]) -> None:
        """Compute the value in `get`, by calling `func(timeout)` once."""
        if self.state != PENDING:
            raise queue.Full
        self._hook = func
        for wake in self._hooks[1:]:
            self.forget_hook(wake)
            wake()

    def try_set(self, value: Any = None) -> bool:
        """Answer with a value; return whether this was the first answer."""
        try:
            self._hooks.remove(_open)
        except ValueError:
            return False
        self.value = value
        self.state = VALUE
        if self._hooks:
            self._run_hooks()
        return True

    def try_set_exception(self, error: BaseException) -> bool:
        """Answer with an exception; return whether this was the first answer."""
        return self._settle(ERROR, (error, error.__traceback__))

    def cancel(self) -> bool:
        """Return the call up: a request still queued is not executed, an `async` handler is cancelled.

        Returns:
            Whether it was still unanswered.
        """
        target = self.target
        if not self._settle(CANCELLED, (AskCancelled("the call was cancelled by its caller"), None)):
            return False
        if target is not None:
            target.call_cancelled(self)
        return True

    def give_up(self, error: AskTimeout) -> bool:
        """Stop waiting for good: what is answered later is dropped. Returns whether there was no answer yet."""
        return self._settle(TIMED_OUT, (error, None))

    def _settle(self, state: int, value: Any) -> bool:
        """Answer in whatever way, unless there is an answer; return whether this was the first."""
        if not self.forget_hook(_open):
            return False
        self.value = value
        self.state = state
        self._run_hooks()
        return True

    def _run_hooks(self) -> None:
        hooks = self._hooks
        while hooks:
            try:
                hook = hooks.pop(0)
            except IndexError:
                return
            hook()

    def forget_hook(self, hook: Callable[[], object]) -> bool:
        """Take a hook back; return whether it was there, so that only one of two threads calls it."""
        try:
            self._hooks.remove(hook)
        except ValueError:
            return False
        return True

    # -- being told

    def on_done(self, callback: "Callable[[Future[T]], object]") -> None:
        """Call `callback(self)` once answered, in the answering thread; at once if it is answered already.

        It must be quick and must not block. What it raises is reported as an event and otherwise ignored.
        """
        hook = partial(self._call, callback)
        sources: tuple[Future[Any], ...] | None = getattr(self, "sources", None)
        if sources and self.state == PENDING:
            _when_all(sources, hook)
            return
        self._hooks.append(hook)
        if self.state != PENDING and self.forget_hook(hook):
            hook()

    def _call(self, callback: "Callable[[Future[T]], object]") -> None:
        try:
            callback(self)
        except BaseException as error:  # noqa: BLE001 - a listener is never felt by whom it listens to
            report_callback_failure(error, self.target)

    def to_concurrent(self) -> "concurrent.futures.Future[T]":
        """Bridge to the standard library's thread futures; cancelling that one cancels this one."""
        import concurrent.futures

        bridge: concurrent.futures.Future[T] = concurrent.futures.Future()

        def settle(_: Future[T]) -> None:
            if not bridge.set_running_or_notify_cancel():
                return
            try:
                bridge.set_result(self.get(timeout=0))
            except BaseException as error:  # noqa: BLE001 - whatever was answered is passed on
                bridge.set_exception(error)

        self.on_done(settle)
        bridge.add_done_callback(lambda done: self.cancel() if done.cancelled() else None)
        return bridge

    def __await__(self) -> Generator[Any, None, T]:
        if self.state == PENDING:
            yield from self._awaited()
        return cast("T", self.get(timeout=0))

    __iter__ = __await__

    def _awaited(self) -> Generator[Any, None, None]:
        import asyncio

        loop = asyncio.get_running_loop()
        if self._hook is not None and not getattr(self, "sources", None):
            # A get hook of unknown making may block, so it blocks a helper thread.
            yield from loop.run_in_executor(None, self._quietly_derive).__await__()
            return
        waiter: asyncio.Future[None] = loop.create_future()

        def ready() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def wake(_: Future[T]) -> None:
            try:
                loop.call_soon_threadsafe(ready)
            except RuntimeError:
                if not loop.is_closed():
                    raise

        self.on_done(wake)
        try:
            yield from waiter
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _quietly_derive(self) -> None:
        try:
            self._derive(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the get() that follows
            self.try_set_exception(error)

    # -- derived futures: Pykka's own, with their sources known so that waiting for them never needs a thread

    def filter(self: "Future[Any]", func: Callable[[Any], bool]) -> "Future[Any]":
        """Make a future of those items that pass `func`."""
        return _derived(super().filter(func), (self,))

    def join(self: "Future[Any]", *futures: pykka.Future[Any]) -> "Future[Any]":
        """Make a future of the list of this and the other futures' values."""
        ours = tuple(future for future in futures if isinstance(future, Future))
        return _derived(super().join(*futures), (self, *ours) if len(ours) == len(futures) else ())

    def map(self, func: Callable[[T], M]) -> "Future[M]":
        """Make a future of `func(value)`."""
        return _derived(super().map(func), (self,))

    def reduce(self: "Future[Any]", func: Callable[[Any, Any], Any], *args: Any) -> "Future[Any]":
        """Make a future of the items folded into one by `func`."""
        return _derived(super().reduce(func, *args), (self,))


def _derived(future: pykka.Future[Any], sources: tuple[Future[Any], ...]) -> Future[Any]:
    assert isinstance(future, Future)
    future.sources = sources
    return future


def _when_all(futures: tuple[Future[Any], ...], action: Callable[[], object]) -> None:
    """Run `action` once every one of `futures` is answered."""
    tokens = list(range(len(futures)))

    def one(_: Future[Any]) -> None:
        # `pop` is atomic: the call that gets the first token is the last to come.
        if tokens.pop() == 0:
            action()

    for future in futures:
        future.on_done(one)


def report_callback_failure(error: BaseException, target: AnyCell | None) -> None:
    """Report that a callback raised: as an event of the system concerned, else where Python reports a thread's end."""
    cell = target or context.cell
    if cell is not None:
        cell.system.callback_failed(error)
    else:
        threading.excepthook(
            threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        )
