"""The end of an engine's process: why, in which steps, what its calls and listeners are told, and what is removed."""

import select
import signal
from collections.abc import Callable

from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.future import LazyFuture
from mlld_sdk.transport import outcomes
from mlld_sdk.transport.call import Call
from mlld_sdk.transport.call_table import CallTable
from mlld_sdk.transport.channel import Channel
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.events import EngineExited
from mlld_sdk.transport.exits import decode_exit
from mlld_sdk.transport.inline_reader import InlineReader
from mlld_sdk.transport.memory import kill_count
from mlld_sdk.transport.reactor import ReactorTimer
from mlld_sdk.transport.reaper import Burial, bury

_DYING = 0.005  # seconds a process takes at most from closing its output to its end, when that is why it closed it
_HEAD_START = 0.1  # seconds a crashed engine's successor gets before this side looks for what the engine left behind


class Ending:
    """The steps from the first reason for an engine's end until nothing of it is left; on the I/O thread, but for some.

    Attributes:
        told: The process is reaped, and all but the calls that wait for descendants have been told.
        was_killed: This side has sent SIGKILL.
        exited: Is finished when the process has been reaped and the calls have their outcomes.
        gone: Is finished when descendants are dead and the TMPDIR is gone.
    """

    def __init__(
        self, core: EngineCore, channel: Channel, table: CallTable, reader: InlineReader, removed: Callable[[], None]
    ) -> None:
        """Begin nothing; `removed` is called when nothing of the engine is left."""
        core.end = self
        self.told = False
        self.exited: LazyFuture[None] = LazyFuture()
        self.gone: LazyFuture[None] = LazyFuture()
        self._core = core
        self._child = core.child
        self._limits = core.limits
        self._reactor = core.reactor
        self._channel = channel
        self._table = table
        self._reader = reader
        self._removed = removed
        self._status: int | None = None
        self.was_killed = False
        self._steps: list[ReactorTimer] = []
        self._is_buried = False

    def watch(self) -> None:
        """Look for the end of the process from now on."""
        if self._child.pidfd is None:
            self._look_for_exit()
        else:
            self._reactor.watch_read(self._child.pidfd, self._on_exit)

    def begin(self, why: str) -> bool:
        """Decide why the engine ends; only the first reason counts, false for any other."""
        with self._core.lock:
            if self._core.ending is not None:
                return False
            self._core.ending = why
        self._reader.watch()  # it may have to write before it can end
        return True

    def later(self, delay: float, function: Callable[[], object]) -> None:
        """Run one step of an ending on the I/O thread after a pause."""
        if not self._core.finished:
            self._steps.append(self._reactor.call_at(self._core.now() + delay, function))
            if len(self._steps) > self._limits.in_flight:
                del self._steps[: self._limits.in_flight // 2]  # long fired

    def close(self, patience: float) -> None:
        """End it in order, within so many seconds: EOF (not while requests are in flight), SIGTERM, SIGKILL."""
        if self.begin("closed"):
            if self.ask_to_end():
                self.later(patience / 2, lambda: self._child.signal_group(signal.SIGTERM))
                self.later(patience * 3 / 4, self.kill_group)
            else:
                self.later(patience / 2, self.kill_group)

    def ask_to_end(self) -> bool:
        """Close its input, or send SIGTERM (false) where requests are in flight, which it would drop anyway."""
        if self._table.pending:
            self._child.signal_group(signal.SIGTERM)
            return False
        self._channel.outgoing.close()
        return True

    def end_for(self, call: Call) -> None:
        """End an exclusive engine because of one call, unless that has got its answer in the meantime."""
        if call.id in self._table.pending and self.begin(str(call.given_up)):
            self._child.signal_group(signal.SIGTERM)
            self.later(self._limits.term_grace, self.kill_group)

    def kill(self, why: str = "killed") -> None:
        """End it by SIGKILL, now."""
        if self._core.ending != "forked":
            self.begin(why)
            self.kill_group()

    def kill_group(self) -> None:
        """SIGKILL the process group, unless the process has been reaped."""
        if self._child.signal_group(signal.SIGKILL):
            self.was_killed = True
            self.later(self._limits.burial, self._on_immortal)

    def on_broken(self) -> None:
        """The engine has closed one of its pipes. It is dying, or is made to."""
        if not self._core.finished:
            if self._child.pidfd is None:
                self._look_for_exit()
            self.later(self._limits.term_grace, lambda: self.kill("died"))

    def _on_exit(self) -> None:
        """The process has ended: kill its group, collect its status, then read what it has left in its pipes."""
        if self.told or not self._child.has_ended():
            return
        if self._child.pidfd is not None:
            self._reactor.forget(self._child.pidfd)
        self._status = self._child.reap()
        self._core.finish_wanted = True
        self.finish()

    def settle_led(self, call: Call) -> None:
        """Settle the call of a caller that reads if the process has ended: the reactor sees to all the rest.

        That saves a crashed engine's owner two changes of thread. Only for the holder of the reader's lock.
        """
        core = self._core
        if not core.finish_wanted:
            pidfd = self._child.pidfd
            if pidfd is None or not _is_ready(pidfd, _DYING):  # it has only closed its output, or we cannot know
                self._reactor.call_soon(self.on_broken)
                return
            self._status = self._child.reap()
            core.finish_wanted = True
        if not core.finished:
            self._learn()
        error = outcomes.ended(core, call)
        if call.given_up is None:  # else it may have to wait for descendants
            self._table.settle(call, None, error)

    def _look_for_exit(self) -> None:
        """Look for the end of the process now and then, where the system cannot tell us by itself."""
        if self._core.finish_wanted:
            return
        if self._child.has_ended():
            self._on_exit()
        else:
            soon = self._channel.is_at_end or self._core.ending is not None
            self._reactor.call_at(self._core.now() + (0.02 if soon else 0.25), self._look_for_exit)

    def finish(self) -> None:
        """Read what is left, give every call its outcome, and tell. On the I/O thread, once."""
        if self.told:
            return
        if not self._reader.lock.acquire(False):
            self._reader.wake()  # a caller reads: it leaves now and sends us here again
            return
        try:
            if not self._core.finished:
                self._learn()
        finally:
            self.told = True
            self._reader.lock.release()
        try:
            self._tell()
        finally:
            self._clean_up()

    def _learn(self) -> None:
        """Read what is left in the pipes and tell how the process ended. Only for the holder of the lock, once."""
        core = self._core
        self.begin("died")
        try:
            self._channel.drain()
        finally:
            in_flight = len(self._table.pending)
            exit_ = decode_exit(
                self._status,
                expected=core.ending != "died" or self.was_killed,
                wrapped=self._child.command.wrapped,
                stderr_tail=core.stderr.text,
                kernel_killed=kill_count.has_grown,
            )
            core.note_exit(exit_)
        core.sink(  # before any call fails, so that a report about the failure knows how the engine ended
            EngineExited(
                at=core.env.wall(),
                engine=core.label,
                pid=self._child.pid,
                reason=str(core.ending),
                code=exit_.code,
                signal=exit_.signal,
                out_of_memory=exit_.out_of_memory,
                doubtful=exit_.doubtful,
                in_flight=in_flight,
                stderr_tail=core.stderr.text,
            )
        )

    def _tell(self) -> None:
        # The errors first: a call that is cancelled from here on waits, too.
        calls = {call: outcomes.ended(self._core, call) for call in list(self._table.pending.values())}
        # An exclusive engine's cancelled script is over when nothing of it lives, not before.
        waiting = [call for call in calls if call.given_up is not None and self._core.exclusive and call.is_run]
        for call, error in calls.items():
            if call not in waiting:
                self._table.settle(call, None, error)
        try:
            self.exited.finish(None, None)  # before the search, so that a successor need not wait for it
        finally:
            if self._core.ending == "died" and not waiting:
                self._reactor.call_at(self._reactor.now() + _HEAD_START, self.bury)
            else:
                self.bury()

    def bury(self) -> None:
        """Start to remove what is left of the process, unless that is under way."""
        if not self._is_buried:
            self._is_buried = True
            deadline = Deadline(self._limits.burial)
            bury(Burial(self._child, deadline, done=lambda: self._reactor.call_soon(self._on_buried)))

    def _clean_up(self) -> None:
        """Close and cancel what the engine held here."""
        self._channel.outgoing.close()
        self._child.close_fds(self._reactor.forget)
        self._reader.close()
        for timer in self._steps:
            timer.cancel()
        self._steps.clear()
        self._table.close()

    def _settle_all(self) -> None:
        for call in list(self._table.pending.values()):
            self._table.settle(call, None, outcomes.ended(self._core, call))

    def _on_buried(self) -> None:
        self._settle_all()
        self._removed()
        self.gone.finish(None, None)

    def _on_immortal(self) -> None:
        """SIGKILL has not worked in time (a process stuck in the kernel): no call is to wait for it."""
        if not self._core.finished:
            self._settle_all()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's pipes, so that it alone holds them, and fail what waits here."""
        core = self._core
        core.abandon()
        self.told = True
        self._reader.abandon()
        self._channel.outgoing.abandon()
        self._child.close_fds(lambda _: None)
        self._table.abandon(lambda: outcomes.refusal(core))
        self.gone.finish(None, None)


def _is_ready(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
