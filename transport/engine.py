"""One engine process and the conversation with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import msgspec

from mlld_sdk.env import Env
from mlld_sdk.events import Sink, discard

from mlld_sdk.transport.call import Call, OnEvents
from mlld_sdk.transport.command import EngineCommand
from mlld_sdk.transport.errors import EngineExit
from mlld_sdk.transport.reactor import Reactor
from mlld_sdk.transport.wire import Reply

__all__ = ["Engine", "EngineStats", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything an engine may use of this process, and how patient its end is.

    Attributes:
        in_flight: Requests at once; one more is refused with `EngineOverloaded`.
        queued_bytes: Bytes waiting because the engine does not read; beyond it requests are refused.
        line_bytes: Longest protocol line; a longer one ends the engine as `EngineBabbling`.
        stderr_bytes: How much of stderr's end is kept.
        noise_lines: How many lines that are no protocol are kept (the last ones, 400 bytes of each).
        cancel_grace: Seconds an engine gets to confirm a cancel before it is ended (exclusive), or before the call
            ends without the confirmation (shared).
        term_grace: Seconds between SIGTERM and SIGKILL.
        burial: Seconds the reaping of descendants may take before a call is answered without it.
    """

    in_flight: int = 1024
    queued_bytes: int = 16 * 1024 * 1024
    line_bytes: int = 64 * 1024 * 1024
    stderr_bytes: int = 16 * 1024
    noise_lines: int = 32
    cancel_grace: float = 0.25
    term_grace: float = 0.2
    burial: float = 2.0


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine has done so far, in numbers."""

    submitted: int = 0
    finished: int = 0
    in_flight: int = 0
    events: int = 0
    debug_dropped: int = 0
    noise_lines: int = 0
    salvaged: int = 0
    unknown_ids: int = 0
    unrouted_events: int = 0
    queued_bytes: int = 0


class Engine:
    """One child process, in a session and a TMPDIR of its own, and the requests in flight on it.

    Safe to use from any thread. Nothing here blocks but what says so.
    """

    label: str
    """Name for reports, unique in this process."""
    pid: int
    command: EngineCommand
    exclusive: bool

    @classmethod
    def start(
        cls,
        command: EngineCommand,
        *,
        exclusive: bool = False,
        label: str | None = None,
        limits: Limits | None = None,
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
        raise NotImplementedError

    def submit(
        self,
        method: str,
        params: Any = None,
        *,
        timeout: float | timedelta | None,
        on_events: OnEvents | None = None,
    ) -> Call:
        """Send a request and return its future. Never blocks.

        The deadline counts from now and covers everything, the writing too; `None` means there is none.

        Raises:
            UnserialisableParams: The params cannot be said in JSON.
            EngineOverloaded: Refused by `Limits`; nothing was sent.
            EngineClosed, EngineDied: There is no engine any more.
            ForkedProcess: The engine belongs to another process.
        """
        raise NotImplementedError

    def call(
        self,
        method: str,
        params: Any = None,
        *,
        timeout: float | timedelta | None,
        on_events: OnEvents | None = None,
    ) -> Reply:
        """Send a request and wait for its answer: the fast way for a caller with nothing else in flight."""
        raise NotImplementedError

    def probe(self, timeout: float | timedelta = 5.0) -> Call:
        """Ask an unknown method; the call ends well (with an empty payload) as soon as the engine refuses it.

        It shows that the engine is there and how long its event loop takes to look up. A probe that times out kills
        nothing. `Call.seconds` is the lag.
        """
        raise NotImplementedError

    def wait_ready(self, timeout: float | timedelta = 30.0) -> float:
        """Block until the engine answers a probe; return how long that took.

        Raises:
            EngineDiedAtStart: It ended first; the error has the exit and the last words.
            EngineSilent: Nothing came in time. The process still runs: `kill` it.
            EngineBabbling: Only noise came in time.
        """
        raise NotImplementedError

    def close(self, timeout: float | timedelta = 2.0) -> bool:
        """End the engine in order and wait: EOF, SIGTERM, SIGKILL of the group; descendants and TMPDIR are removed.

        Requests in flight end as `EngineClosed`. Returns whether it went without SIGKILL. Does nothing when it has
        ended, and nothing in a forked child. On the I/O thread it begins the end and does not wait.
        """
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL the process group now. Returns at once; requests in flight end as `EngineClosed`."""
        raise NotImplementedError

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Block until the process is reaped, its descendants are dead and its TMPDIR is gone; false if not in time."""
        raise NotImplementedError

    def add_exit_callback(self, function: Callable[[Engine], None]) -> None:
        """Call the function once when the process has been reaped (at once if it has), on the I/O thread.

        Its whole process group has been killed by then and every request in flight has its outcome, except one whose
        cancel or deadline caused the end: that one waits until descendants are gone.
        """
        raise NotImplementedError

    def reap_descendants(self) -> int:
        """Kill what the engine has started and left running (shells, MCP servers); return how many.

        For the time between two runs: the engine itself is not touched. Linux only; 0 elsewhere.
        """
        raise NotImplementedError

    def rss(self, *, tree: bool = False) -> int:
        """Resident memory in bytes, of the process or with all its descendants; 0 when it has ended."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether the process runs and takes requests."""
        raise NotImplementedError

    @property
    def exit(self) -> EngineExit | None:
        """How the process ended, or `None` while it runs."""
        raise NotImplementedError

    @property
    def tainted(self) -> bool:
        """A cancelled or expired script may still be running in this shared engine."""
        raise NotImplementedError

    @property
    def stderr_tail(self) -> str:
        """The end of what the process wrote to stderr."""
        raise NotImplementedError

    @property
    def noise(self) -> Sequence[bytes]:
        """The last lines that were no protocol."""
        raise NotImplementedError

    @property
    def stats(self) -> EngineStats:
        """Counters."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
