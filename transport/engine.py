"""One engine process, and requests to it."""

from __future__ import annotations

import atexit
import itertools
import os
from _thread import get_ident
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from mlld_sdk.base.durations import FOREVER, Deadline, Duration, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Sink, discard
from mlld_sdk.base.secrets import redacted
from mlld_sdk.transport import outcomes
from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.call_table import CallTable
from mlld_sdk.transport.channel import Channel
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.ending import Ending
from mlld_sdk.transport.errors import CallTimeout, EngineAborted, EngineBabbling, EngineClosed, EngineSilent
from mlld_sdk.transport.events import EngineStarted
from mlld_sdk.transport.exits import EngineExit
from mlld_sdk.transport.inline_reader import InlineReader
from mlld_sdk.transport.limits import EngineLimits, EngineStats
from mlld_sdk.transport.pipes import Outgoing
from mlld_sdk.transport.processes import Births, descendants_of, is_doomed, kill_surely, mark_of, process, rss_of
from mlld_sdk.transport.reactor import Reactor, shared_reactor
from mlld_sdk.transport.wire import EngineReply, cancel_line

_RETRY = 0.025
_BURST = 1e-5
_EMPTY = EngineReply(b'{"id":0,"result":null}')
_numbers = itertools.count(1)
_engines: set[Engine] = set()


class Engine:
    """One child process, in a session and a TMPDIR of its own, and the requests in flight on it.

    Safe to use from any thread. Nothing here blocks but what says so. Everything about the end of the process happens
    on the I/O thread. It has a child process, a channel to it, a table of calls, a reader that lends the channel to
    callers, and an ending; this class sends requests and gives them up.

    Attributes:
        label: Name for reports, unique in this process.
        pid: Number of the process, which leads its own session and group.
        command: How it was started.
        limits: Bounds and graces.
        tainted: A cancelled or expired script may still be running in this shared engine.
    """

    def __init__(self, core: EngineCore, *, retire_when_tainted: bool) -> None:
        """Use `Engine.start`."""
        child, reactor = core.child, core.reactor
        self.label = core.label
        self.pid = child.pid
        self.command = child.command
        self.limits = core.limits
        self.tainted = False
        self._births = Births(child.birth)
        self._retires_when_tainted = retire_when_tainted
        self._last_submitted = -FOREVER
        self._core = core
        self._outgoing = Outgoing(child.requests, reactor, lambda: reactor.call_soon(core.end.on_broken))
        self._table = CallTable(core, self, self._outgoing, failed=self._failed)
        self._channel = Channel(core, self._outgoing, route=self._table.route)
        self._reader = InlineReader(core, self._channel, self._table)
        self.ending = Ending(core, self._channel, self._table, self._reader, self._removed)
        self.wait_inline: Callable[[Call, Duration | None], bool] = self._reader.wait
        self.attend: Callable[[], None] = self._reader.attend
        self.report: Callable[[str, BaseException], None] = core.report

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

        Raises:
            CommandNotFound, CommandNotExecutable, WorkingDirectoryMissing: The command is wrong.
            SpawnRefused: The system has nothing left to start it with.
        """
        reactor = reactor or shared_reactor()
        if reactor.is_closed:
            raise EngineClosed("the I/O thread has been closed", hint="start a new one")
        child, env = Child.spawn(command), (env or reactor.env).going()
        name = f"{label or command.label}-{next(_numbers)}"
        core = EngineCore(child, name, limits or EngineLimits(), reactor, env, sink, exclusive=exclusive)
        engine = cls(core, retire_when_tainted=retire_when_tainted)
        _engines.add(engine)
        sink(EngineStarted(at=env.wall(), engine=engine.label, pid=child.pid, command=redacted(" ".join(command.argv))))
        reactor.inhabitants.add(engine)
        reactor.watch_read(child.words, engine._channel.read_stderr)
        engine._reader.watch()
        engine.ending.watch()
        return engine

    def wait_ready(self, timeout: Duration = 30.0) -> float:
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
            if self.noise and not self._core.heard:
                raise EngineBabbling(
                    f"{self.label} writes what is no protocol: {self.noise[-1][:80]!r}",
                    hint="is this program an engine?",
                ) from None
            raise EngineSilent(
                f"{self.label} (pid {self.pid}) did not answer within {seconds(timeout):g} s",
                hint="it hangs, the machine is overloaded, or it is no engine; kill it and look at its stderr",
            ) from None
        return self._core.now() - call.submitted

    def be_shared(self, shared: bool) -> None:
        """Declare whether requests of several are to come, or of one owner again; while none is in flight.

        A shared engine in which a script may go on unseen retires by itself.
        """
        self._core.exclusive = not shared
        self._retires_when_tainted = shared

    # -- requests

    def submit(
        self, method: str, params: Any = None, *, timeout: Duration | None, on_events: OnEvents | None = None
    ) -> Call:
        """Send a request and return its future. Never blocks.

        The deadline counts from now and covers everything, the writing too; `None` means there is none.

        Raises:
            UnserialisableParams: The params cannot be said in JSON.
            EngineOverloaded: Refused by `EngineLimits`; nothing was sent.
            EngineClosed, EngineDied: There is no engine any more.
            ForkedProcess: The engine belongs to another process.
        """
        if self._core.retired:
            raise outcomes.refusal(self._core)
        call = self._table.admit(method, params, timeout, on_events)
        table, lent = self._table, self._reader.lent
        if lent and lent == table.owner and len(table.pending) > 1 and call.deadline >= table.next_deadline:
            self._reader.leave(call.line)  # nothing else is to be seen to: the shortest way when many are in flight
        else:
            self._send(call)
        return call

    def call(
        self, method: str, params: Any = None, *, timeout: Duration | None, on_events: OnEvents | None = None
    ) -> EngineReply:
        """Send a request and wait for its answer: the fast way for a caller with nothing else in flight.

        Such a caller reads the engine's pipe itself, which saves two changes of thread; `on_events` is then called on
        the caller's thread.
        """
        reader = self._reader
        if self._table.pending or self._core.retired or self._core.reactor.ident == get_ident() or not reader.take():
            return self.submit(method, params, timeout=timeout, on_events=on_events).result()
        try:
            call = self._table.admit(method, params, timeout, on_events)
        except BaseException:
            reader.release()
            raise
        reader.lead(call, None, send=True, lend=False)
        return call.result()

    def probe(self, timeout: Duration = 5.0) -> Call:
        """Ask the engine for a sign of life that needs no interpreter.

        The call ends well as soon as the engine answers anything: the extended protocol says who it is, a live engine
        that it does not know the method (the payload is `None` then). A probe that times out kills nothing.
        """
        probe = self._table.admit("hello", None, timeout, None)
        probe.is_probe = True
        self._send(probe)
        return probe

    def control(self, target: Call, method: str, params: Any, timeout: Duration | None) -> Call:
        """Send a request about another one, again and again while that one is not active yet."""
        call = self._table.admit(method, params, timeout, None)
        if target.done():
            self._table.settle(call, None, outcomes.not_active(target))
            return call
        call.target = target
        call.params = params
        self._send(call)
        return call

    def _control_again(self, call: Call) -> None:
        if self._table.renew(call):
            self._outgoing.send(call.line, patient=True)

    def _send(self, call: Call) -> None:
        table, reader = self._table, self._reader
        if call.deadline < table.next_deadline:
            table.watch_deadline(call.deadline)
        if reader.lent and reader.lent == table.owner:
            self._outgoing.send(call.line, patient=False)
            return
        # What follows so closely belongs to a burst, which the reactor writes at once.
        close = call.submitted - self._last_submitted < _BURST
        self._last_submitted = call.submitted
        self._outgoing.send(call.line, patient=close or len(table.pending) > 1)
        if not reader.is_watched:
            reader.watch()

    def _failed(self, call: Call, error: dict[str, Any]) -> None:
        """Act on an error the engine has answered a request with."""
        code, table = error.get("code"), self._table
        if code == "REQUEST_IN_PROGRESS":  # never true of a unique id, and if it were, the real result is still to come
            self._core.stats.unknown_ids += 1
        elif call.given_up is not None:
            if code == "REQUEST_NOT_FOUND":  # the cancel came before the script had started; it is still to run
                if not self._core.exclusive:
                    self.ending.later(_RETRY, lambda: self._cancel_again(call))
            elif self._core.exclusive:
                self.ending.end_for(call)
            else:
                table.settle(call, None, outcomes.given_up(call, error))
        elif call.is_probe:
            table.settle(call, _EMPTY, None)
        elif code == "REQUEST_NOT_FOUND" and call.target is not None and not call.target.done():
            self.ending.later(_RETRY, lambda: self._control_again(call))
        else:
            told = outcomes.reported(error, call, trusted=self.command.extended)
            # An engine that is being ended gives its requests up by itself; that was us.
            gave_up = isinstance(told, EngineAborted) and self._core.ending is not None
            table.settle(call, None, outcomes.refusal(self._core, call) if gave_up else told)

    # -- giving up

    def give_up(self, call: Call, why: Literal["cancelled", "timeout"]) -> bool:
        """Begin the end of a call for which nothing waits any more; false if it has its outcome."""
        table, outgoing = self._table, self._outgoing
        with self._core.lock:
            if call.given_up is not None or call.id not in table.pending:
                return call.id in table.pending
            call.given_up = why
        if not call.is_run or outgoing.withdraw(call.line):
            table.settle(call, None, outcomes.given_up(call))
            return True
        if not self._core.exclusive:  # the script may go on, since an engine that confirms a cancel runs it on, too
            self.tainted = True
            self._core.retired |= self._retires_when_tainted
            if why == "timeout":
                table.settle(call, None, outcomes.given_up(call))
        outgoing.send(cancel_line(call.id), patient=False)
        if self._core.exclusive:
            self.ending.later(self.limits.cancel_grace, lambda: self.ending.end_for(call))
        elif why == "cancelled":
            self.ending.later(self.limits.cancel_grace, lambda: table.settle(call, None, outcomes.given_up(call)))
        return True

    def _cancel_again(self, call: Call) -> None:
        if call.id in self._table.pending:
            self._outgoing.send(cancel_line(call.id), patient=False)

    # -- the end

    def close(self, timeout: Duration = 2.0) -> bool:
        """End the engine in order and wait: EOF, SIGTERM, SIGKILL of the group; descendants and TMPDIR are removed.

        Requests in flight end as `EngineClosed`; with any in flight the EOF is left out, since the engine would drop
        them anyway. Returns whether it went without SIGKILL. Does nothing when it has ended, and nothing in a forked
        child. Inside a callback it begins the end and does not wait.
        """
        if self._core.ending == "forked":
            return True
        patience = seconds(timeout)
        self.ending.close(patience)
        if self._reader.is_inside:
            return True
        return self.wait(patience + self.limits.burial) and not self.ending.was_killed

    def kill(self, because: Callable[[], MlldError] | None = None) -> None:
        """SIGKILL the process group now. Returns at once; requests in flight end as `EngineClosed`.

        Args:
            because: Makes the error they end with instead.
        """
        if self.ending.begin("killed"):
            self._core.because = because
        self.ending.kill()

    def wait(self, timeout: Duration | None = None) -> bool:
        """Block until the process is reaped, its descendants are dead and its TMPDIR is gone; false if not in time."""
        gone = self.ending.gone
        if not gone.done():
            self._reader.refuse_inside()
        try:
            gone.result(timeout)
        except TimeoutError:
            return False
        return True

    def retire(self) -> None:
        """Take no more requests, and kill the process when those in flight are over; at once if there are none."""
        self._core.retired = True
        if not self._table.pending:
            self.kill()

    def add_exit_callback(self, function: Callable[[Engine], None]) -> None:
        """Call the function once when the process has been reaped (at once if it has), on the I/O thread.

        Its whole process group has been killed by then and every request in flight has its outcome, except one whose
        cancel or deadline caused the end: that one waits until descendants are gone.
        """

        def tell(_: object) -> None:
            try:
                function(self)
            except BaseException as error:  # noqa: BLE001 - the listener's trouble is not the engine's
                self.report("exit-callback", error)

        self.ending.exited.when_over(tell)

    def _removed(self) -> None:
        self._core.reactor.inhabitants.discard(self)
        _engines.discard(self)

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
            if entry.session == self.pid or mark_of(entry.pid) == self._core.child.mark:
                killed += kill_surely(entry)
        return killed

    def rss(self) -> int:
        """Resident memory in bytes, with that of the engine behind a wrapper; 0 when it has ended."""
        if self._core.finish_wanted or self._core.finished:
            return 0
        below = descendants_of(self.pid)[:1] if self.command.wrapped else []
        return rss_of(self.pid) + sum(map(rss_of, below))

    @property
    def alive(self) -> bool:
        """Whether the process runs and takes requests."""
        return self._core.ending is None and not self._channel.is_at_end and not self._core.retired

    @property
    def is_dying(self) -> bool:
        """Whether it has died or is about to, not by us, also if nothing here has noticed: the kernel is asked."""
        ending = self._core.ending
        if ending is not None or self._channel.is_at_end:
            return ending in (None, "died")
        behind = descendants_of(self.pid)[:1] if self.command.wrapped else []
        return any(map(is_doomed, (self.pid, *behind)))

    @property
    def is_busy(self) -> bool:
        """Whether a request is in flight."""
        return bool(self._table.pending)

    @property
    def exit(self) -> EngineExit | None:
        """How the process ended, or `None` while it runs."""
        return self._core.exit

    @property
    def has_worked(self) -> bool:
        """Whether the process has sent anything in the protocol, or has lived too long to have failed at its start."""
        return self._core.heard or self._core.lived >= outcomes.START

    @property
    def lived(self) -> float:
        """Seconds from its start to its end, or until now."""
        return self._core.lived

    @property
    def stderr_tail(self) -> str:
        """The end of what the process wrote to stderr."""
        return self._core.stderr.text

    @property
    def noise(self) -> Sequence[bytes]:
        """The last lines that were no protocol."""
        return self._channel.noise

    @property
    def stats(self) -> EngineStats:
        """Counters, as they are now."""
        stats, in_flight, waiting = self._core.stats, len(self._table.pending), self._outgoing.backlog
        submitted = stats.finished + in_flight
        return msgspec.structs.replace(stats, submitted=submitted, in_flight=in_flight, queued_bytes=waiting)

    def __repr__(self) -> str:
        state = str(self.exit) if self.exit else self._core.ending or "running"
        return f"<Engine {self.label} pid {self.pid} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @staticmethod
    def end_all() -> None:
        """End what the program has not ended: in order as far as half a second goes, then by force."""
        engines = _engines.copy()
        for engine in engines:
            ending = engine.ending
            if ending.told:
                ending.bury()
            elif ending.begin("closed"):
                ending.ask_to_end()
        for patience, last in ((0.5, False), (1.0, True)):
            deadline = Deadline(patience)
            for engine in engines:
                if not engine.wait(deadline.left) and not last:
                    engine.ending.kill_group()

    @staticmethod
    def forget_all() -> None:
        """In a forked child: let go of the engines, which belong to the parent."""
        for engine in _engines.copy():
            engine.ending.abandon()
        _engines.clear()


os.register_at_fork(after_in_child=Engine.forget_all)
atexit.register(Engine.end_all)
