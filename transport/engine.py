"""One engine process and the conversation with it."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import select
import signal
import threading
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from mlld_sdk.base.durations import seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.base.future import LazyFuture
from mlld_sdk.transport import outcomes
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.child import Child, decode_exit
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.conversation import Conversation
from mlld_sdk.transport.errors import CallTimeout, EngineBabbling, EngineClosed, EngineExit, EngineSilent
from mlld_sdk.transport.events import EngineExited, EngineStarted
from mlld_sdk.transport.limits import EngineLimits, EngineStats
from mlld_sdk.transport.processes import Births, descendants_of, kill_surely, mark_of, process, rss_of
from mlld_sdk.transport.reactor import Reactor, shared_reactor
from mlld_sdk.transport.reaper import Burial, bury
from mlld_sdk.transport.wire import decode_block

__all__ = ["Engine", "EngineLimits", "EngineStats"]

_READ = 65536
_DRAIN_ROUNDS = 1024
_DYING = 0.005  # seconds a process takes at most from closing its output to its end, when that is why it closed it
_HEAD_START = 0.1  # seconds a crashed engine's successor gets before this side looks for what the engine left behind
_numbers = itertools.count(1)
_engines: set[Engine] = set()


class Engine(Conversation):
    """One child process, in a session and a TMPDIR of its own, and the requests in flight on it.

    Safe to use from any thread. Nothing here blocks but what says so. Everything about the end of the process happens
    on the I/O thread.

    Attributes:
        label: Name for reports, unique in this process.
        pid: Number of the process, which leads its own session and group.
        command: How it was started.
        exclusive: Whether a cancelled or expired script takes the process with it.
        limits: Bounds and graces.
    """

    def __init__(
        self, child: Child, *, exclusive: bool, label: str, limits: EngineLimits, reactor: Reactor, env: Env, sink: Sink
    ) -> None:
        """Use `Engine.start`."""
        super().__init__(child, exclusive=exclusive, label=label, limits=limits, reactor=reactor, env=env, sink=sink)
        self._killed_hard = False
        self._births = Births(child.birth)
        self._status: int | None = None
        self._in_flight = 0  # when it ended
        self._told = False
        self._burial: Burial | None = Burial(
            mark=child.mark,
            birth=child.birth,
            directory=child.directory,
            patience=limits.burial,
            done=lambda _: reactor.call_soon(self._buried),
        )
        self._gone: LazyFuture[None] = LazyFuture()
        self._exit_callbacks: list[Callable[[Engine], None]] = []

    @classmethod
    def start(
        cls,
        command: EngineCommand,
        *,
        exclusive: bool = False,
        retire_when_tainted: bool = False,
        label: str | None = None,
        limits: EngineLimits | None = None,
        reactor: Reactor | None = None,
        env: Env | None = None,
        sink: Sink = discard,
        on_exit: Callable[[Engine], None] | None = None,
    ) -> Engine:
        """Start the process and return at once; it need not be ready (`wait_ready`), requests may be submitted.

        Args:
            command: What to run (`resolve`, `embedded_command`).
            exclusive: The engine runs one script at a time for one owner, so a cancel or a deadline of a `process` or
                `execute` kills it, with everything it started, before the call gets its outcome. Otherwise the engine
                is shared: such a call ends, the engine stays, and the script may go on unseen (`Engine.tainted`).
            retire_when_tainted: A shared engine is to `retire` by itself when that happens.
            label: Name for reports; a number is added.
            limits: Bounds and graces.
            reactor: The I/O thread; the process-wide one unless given.
            env: Clock and randomness.
            sink: Takes the events.
            on_exit: See `add_exit_callback`.

        Raises:
            CommandNotFound, CommandNotExecutable, WorkingDirectoryMissing: The command is wrong.
            SpawnRefused: The system has nothing left to start it with.
        """
        reactor = reactor or shared_reactor()
        if reactor.is_closed:
            raise EngineClosed("the I/O thread has been closed", hint="start a new one")
        child = Child.spawn(command)
        engine = cls(
            child,
            exclusive=exclusive,
            label=f"{label or command.label}-{next(_numbers)}",
            limits=limits or EngineLimits(),
            reactor=reactor,
            env=env or reactor.env,
            sink=sink,
        )
        engine._retires_when_tainted = retire_when_tainted
        if on_exit is not None:
            engine._exit_callbacks.append(on_exit)
        _engines.add(engine)
        sink(EngineStarted(at=engine._env.wall(), engine=engine.label, pid=child.pid, command=" ".join(command.argv)))
        reactor.inhabitants.add(engine)
        reactor.watch_read(child.words, engine._on_words)
        reactor.watch_read(child.answers, engine._on_readable)
        if child.pidfd is None:
            engine._look_for_exit()
        else:
            reactor.watch_read(child.pidfd, engine._on_exit)
        return engine

    def wait_ready(self, timeout: float | timedelta = 30.0) -> float:
        """Block until the engine answers a probe; return how long that took.

        Raises:
            EngineDiedAtStart: It ended first; the error has the exit and the last words.
            EngineSilent: Nothing came in time. The process still runs: `kill` it.
            EngineBabbling: Only noise came in time.
        """
        call = self.probe(timeout)
        try:
            call.result()
        except CallTimeout:
            if self._noise_count and not self._heard:
                raise EngineBabbling(
                    f"{self.label} writes what is no protocol: {self.noise[-1][:80]!r}",
                    hint="is this program an engine?",
                ) from None
            raise EngineSilent(
                f"{self.label} (pid {self.pid}) did not answer within {seconds(timeout):g} s",
                hint="it hangs, the machine is overloaded, or it is no engine; kill it and look at its stderr",
            ) from None
        assert call.seconds is not None
        return call.seconds

    # -- the end

    def _end_for(self, call: Call) -> None:
        """End an exclusive engine because of one call, unless that has got its answer in the meantime."""
        if call.id in self._pending and self._begin_end(str(call._given_up)):
            self._child.signal_group(signal.SIGTERM)
            self._later(self.limits.term_grace, self._kill_group)

    def close(self, timeout: float | timedelta = 2.0) -> bool:
        """End the engine in order and wait: EOF, SIGTERM, SIGKILL of the group; descendants and TMPDIR are removed.

        Requests in flight end as `EngineClosed`; with any in flight the EOF is left out, since the engine would drop
        them anyway. Returns whether it went without SIGKILL. Does nothing when it has ended, and nothing in a forked
        child. Inside a callback it begins the end and does not wait.
        """
        if self._forked:
            return True
        patience = seconds(timeout)
        if self._begin_end("closed"):
            if self._pending:
                self._child.signal_group(signal.SIGTERM)
                self._later(patience / 2, self._kill_group)
            else:
                self._outgoing.close()
                self._later(patience / 2, lambda: self._child.signal_group(signal.SIGTERM))
                self._later(patience * 3 / 4, self._kill_group)
        if self._is_inside:
            return True
        return self.wait(patience + self.limits.burial) and not self._killed_hard

    def kill(self, because: Callable[[], MlldError] | None = None) -> None:
        """SIGKILL the process group now. Returns at once; requests in flight end as `EngineClosed`.

        Args:
            because: Makes the error they end with instead.
        """
        if self._begin_end("killed"):
            self._because = because
        self._kill_for("killed")

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Block until the process is reaped, its descendants are dead and its TMPDIR is gone; false if not in time."""
        if not self._gone.done():
            self._refuse_inside()
        try:
            self._gone.result(timeout)
        except TimeoutError:
            return False
        return True

    def retire(self) -> None:
        """Take no more requests, and kill the process when those in flight are over; at once if there are none."""
        self._retired = True
        if not self._pending:
            self.kill()

    def add_exit_callback(self, function: Callable[[Engine], None]) -> None:
        """Call the function once when the process has been reaped (at once if it has), on the I/O thread.

        Its whole process group has been killed by then and every request in flight has its outcome, except one whose
        cancel or deadline caused the end: that one waits until descendants are gone.
        """
        self._exit_callbacks.append(function)
        if self._told:
            self._run_exit_callbacks()

    def _run_exit_callbacks(self) -> None:
        while self._exit_callbacks:
            try:
                callback = self._exit_callbacks.pop(0)
            except IndexError:
                return
            try:
                callback(self)
            except BaseException as error:  # noqa: BLE001 - the listener's trouble is not the engine's
                self._report("exit-callback", error)

    def _kill_for(self, why: str) -> None:
        if not self._forked:
            self._begin_end(why)
            self._kill_group()

    def _kill_group(self) -> None:
        if self._child.signal_group(signal.SIGKILL):
            self._killed_hard = True
            self._later(self.limits.burial, self._cannot_be_killed)

    def _conversation_broke(self) -> None:
        """The engine has closed one of its pipes. It is dying, or is made to."""
        if self._finished:
            return
        if self._child.pidfd is None:
            self._look_for_exit()
        self._later(self.limits.term_grace, lambda: self._kill_for("died"))

    def _on_exit(self) -> None:
        """The process has ended: kill its group, collect its status, then read what it has left in its pipes."""
        if self._told or not self._child.has_ended():
            return
        if self._child.pidfd is not None:
            self._reactor.forget(self._child.pidfd)
        self._status = self._child.reap()
        self._finish_wanted = True
        self._finish()

    def _end_while_led(self, call: Call) -> None:
        """Tell the call of who reads that the process has ended, if it has: the reactor sees to all the rest.

        That saves a crashed engine's owner two changes of thread. Only for the holder of the read lock.
        """
        if not self._finish_wanted:
            pidfd = self._child.pidfd
            if pidfd is None or not _is_ready(pidfd, _DYING):  # it has only closed its output, or we cannot know
                self._reactor.call_soon(self._conversation_broke)
                return
            self._status = self._child.reap()
            self._finish_wanted = True
        if not self._finished:
            self._learn_the_end()
        error = self._end_of(call)
        if call._given_up is None:  # else it may have to wait for descendants
            self._settle(call, None, error)

    def _look_for_exit(self) -> None:
        """Ask for the end of the process now and then, where the system cannot tell us by itself."""
        if self._finish_wanted:
            return
        if self._child.has_ended():
            self._on_exit()
        else:
            soon = self._eof or self._ending is not None
            self._reactor.call_at(self._now() + (0.02 if soon else 0.25), self._look_for_exit)

    def _finish(self) -> None:
        """Read what is left, give every call its outcome, and tell. On the I/O thread, once."""
        if self._told:
            return
        if not self._read_lock.acquire(False):
            if self._seat is not None:  # a caller reads: it leaves now and sends us here again
                self._seat.ring()
            return
        try:
            if not self._finished:
                self._learn_the_end()
        finally:
            self._told = True
            self._read_lock.release()
        try:
            self._tell_the_end()
        finally:
            self._clean_up()

    def _learn_the_end(self) -> None:
        """Read what is left in the pipes and tell how the process ended. Only for the holder of the read lock, once."""
        self._begin_end("died")
        try:
            self._drain()
        finally:
            self._in_flight = len(self._pending)
            self._lived = self.lived
            self._exit = decode_exit(
                self._status,
                expected=self._ending != "died" or self._killed_hard,
                wrapped=self.command.wrapped,
                stderr_tail=self._words.text,
            )
            self._finished = True
        self._sink(  # before any call fails, so that a report about the failure knows how the engine ended
            EngineExited(
                at=self._env.wall(),
                engine=self.label,
                pid=self.pid,
                reason=str(self._ending),
                code=self._exit.code,
                signal=self._exit.signal,
                out_of_memory=self._exit.out_of_memory,
                doubtful=self._exit.doubtful,
                in_flight=self._in_flight,
                stderr_tail=self._words.text,
            )
        )

    def _drain(self) -> None:
        """Read the pipes to their end, or until they are empty if somebody else keeps them open."""
        for _ in range(_DRAIN_ROUNDS):
            try:
                data = b"" if self._eof else os.read(self._child.answers, _READ)
            except OSError:
                break
            if not data:
                break
            self._take(data)
        rest = self._incoming.rest()
        if rest:
            self._route(decode_block(rest + b"\n"))
        with self._words_lock:
            for _ in range(_DRAIN_ROUNDS):
                try:
                    data = os.read(self._child.words, _READ)
                except OSError:
                    break
                if not data:
                    break
                self._words.feed(data)

    def _tell_the_end(self) -> None:
        # The errors first: a call that is cancelled from here on waits, too.
        calls = {call: self._end_of(call) for call in list(self._pending.values())}
        # An exclusive engine's cancelled script is over when nothing of it lives, not before.
        waiting = [call for call in calls if self.exclusive and call.is_run and call._given_up is not None]
        for call, error in calls.items():
            if call not in waiting:
                self._settle(call, None, error)
        try:
            self._run_exit_callbacks()  # before the search, so that a successor need not wait for it
        finally:
            if self._ending == "died" and not waiting:
                self._reactor.call_at(self._reactor.now() + _HEAD_START, self._bury)
            else:
                self._bury()

    def _bury(self) -> None:
        """Have removed what is left of the process, unless that is under way."""
        burial, self._burial = self._burial, None
        if burial is not None:
            bury(burial)

    def _clean_up(self) -> None:
        """Give back what the engine held here; nobody waits for that."""
        self._outgoing.close()
        self._child.close_fds(self._reactor.forget)
        if self._seat is not None:
            self._seat.close()
        for timer in self._ladder:
            timer.cancel()
        self._ladder.clear()
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()

    def _buried(self) -> None:
        for call in list(self._pending.values()):
            self._settle(call, None, self._end_of(call))
        self._reactor.inhabitants.discard(self)
        _engines.discard(self)
        self._gone._finish(None, None)

    def _cannot_be_killed(self) -> None:
        """SIGKILL has not worked in time (a process stuck in the kernel): nobody is to wait for it."""
        if not self._finished:
            for call in list(self._pending.values()):
                self._settle(call, None, self._end_of(call))

    def _forget_parent(self) -> None:
        """In a forked child: let go of the parent's pipes, so that it alone holds them, and fail what waits here."""
        self._forked = True
        self._ending = "forked"
        self._finished = self._told = True
        self._lock = threading.Lock()
        self._read_lock = allocate_lock()
        self._outgoing.abandon()
        self._child.close_fds(lambda _: None)
        for call in list(self._pending.values()):
            self._pending.pop(call.id, None)
            call._finish(None, self._refusal())
        self._gone._finish(None, None)

    # -- what can be asked

    def reap_descendants(self) -> int:
        """Kill what the engine has started and left running (shells, MCP servers); return how many.

        For the time between two runs: the engine itself is not touched. Linux only; 0 elsewhere.
        """
        young = self._births.since() if self.alive else []
        if not young:
            return 0
        own = {self.pid}
        if self.command.wrapped:
            own.update(descendants_of(self.pid)[:1])
        me = process(self.pid)
        born = 0 if me is None else me.started
        killed = 0
        for entry in young:
            if entry.started < born or entry.pid in own or entry.is_dead:  # the cheap questions first: there are many
                continue
            if entry.session == self.pid or mark_of(entry.pid) == self._child.mark:
                killed += kill_surely(entry.pid, functools.partial(_is_still, entry.pid, entry.started))
        return killed

    def rss(self, *, tree: bool = False) -> int:
        """Resident memory in bytes, of the process or with all its descendants; 0 when it has ended."""
        if self._finish_wanted or self._forked:
            return 0
        below = descendants_of(self.pid) if tree or self.command.wrapped else []
        if self.command.wrapped and not tree:
            below = below[:1]
        return rss_of(self.pid) + sum(map(rss_of, below))

    @property
    def alive(self) -> bool:
        """Whether the process runs and takes requests."""
        return self._ending is None and not self._eof and not self._retired

    @property
    def is_busy(self) -> bool:
        """Whether a request is in flight."""
        return bool(self._pending)

    @property
    def exit(self) -> EngineExit | None:
        """How the process ended, or `None` while it runs."""
        return self._exit

    @property
    def has_worked(self) -> bool:
        """Whether the process has said anything in the protocol, or has lived too long to have failed at its start."""
        return self._heard or self.lived >= outcomes.START

    @property
    def tainted(self) -> bool:
        """A cancelled or expired script may still be running in this shared engine."""
        return self._tainted

    @property
    def stderr_tail(self) -> str:
        """The end of what the process wrote to stderr."""
        return self._words.text

    @property
    def noise(self) -> Sequence[bytes]:
        """The last lines that were no protocol."""
        return tuple(self._noise or ())

    @property
    def stats(self) -> EngineStats:
        """Counters."""
        return EngineStats(
            submitted=self._finished_calls + len(self._pending),
            finished=self._finished_calls,
            in_flight=len(self._pending),
            events=self._events,
            debug_dropped=self._dropped,
            noise_lines=self._noise_count,
            salvaged=self._salvaged,
            unknown_ids=self._unknown,
            unrouted_events=self._unrouted,
            queued_bytes=self._outgoing.backlog,
        )

    def __repr__(self) -> str:
        state = str(self._exit) if self._exit else self._ending or "running"
        return f"<Engine {self.label} pid {self.pid} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_ready(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _is_still(pid: int, started: int) -> bool:
    entry = process(pid)
    return entry is not None and entry.started == started


def _after_fork() -> None:
    for engine in _engines.copy():
        engine._forget_parent()
    _engines.clear()


def _at_exit() -> None:
    """End what the program has not ended: in order as far as half a second goes, then by force."""
    engines = _engines.copy()
    for engine in engines:
        if engine._told:
            engine._bury()
        elif engine._begin_end("closed"):
            if engine._pending:
                engine._child.signal_group(signal.SIGTERM)
            else:
                engine._outgoing.close()
    for patience, last in ((0.5, False), (1.0, True)):
        until = Env().now() + patience
        for engine in engines:
            if not engine.wait(max(0.0, until - Env().now())) and not last:
                engine._kill_group()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
