"""The protocol over an engine's pipes: bytes to lines to messages, requests to bytes, and the end of stderr."""

import os
from _thread import allocate_lock
from collections.abc import Callable, Sequence

from mlld_sdk.base.secrets import LONGEST, redacted
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.events import EnginePolluted
from mlld_sdk.transport.pipes import LineBuffer, LineTooLong, Outgoing
from mlld_sdk.transport.wire import Decoded, decode_block

_READ = 65536
_DRAIN_ROUNDS = 1024
_NOISE_KEPT = 400


class Channel:
    """An engine's three pipes. Answers are read by one thread at a time, the one that has the reader's lock.

    Attributes:
        outgoing: Requests on their way to the engine.
        is_at_end: The engine has closed its output.
        noise: The last lines that were no protocol.
    """

    def __init__(self, core: EngineCore, outgoing: Outgoing, *, route: Callable[[Decoded], None]) -> None:
        """Open nothing, read nothing: see `read`; `route` takes the messages."""
        self.outgoing = outgoing
        self.is_at_end = False
        self.noise: Sequence[bytes] = ()
        self._core = core
        self._child = core.child
        self._incoming = LineBuffer(core.limits.line_bytes)
        self._stderr_lock = allocate_lock()
        self._route = route

    def read(self) -> None:
        """Read once and act on what came."""
        try:
            data = os.read(self._child.answers, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.is_at_end = True
            self._core.reactor.forget(self._child.answers)

    def read_stderr(self) -> None:
        """Read stderr once; only its end is kept."""
        with self._stderr_lock:
            try:
                data = os.read(self._child.words, _READ)
            except BlockingIOError:
                return
            if data:
                self._core.stderr.feed(data)
            else:
                self._core.reactor.forget(self._child.words)

    def drain(self) -> None:
        """Read both pipes to their end, or until they are empty if another process keeps them open."""
        if not self.is_at_end:
            self._drain(self._child.answers, self._take)
        self._take(b"\n")  # the last line may never have got its own
        with self._stderr_lock:
            self._drain(self._child.words, self._core.stderr.feed)

    def _drain(self, fd: int, take: Callable[[bytes], None]) -> None:
        for _ in range(_DRAIN_ROUNDS):
            try:
                data = os.read(fd, _READ)
            except OSError:
                return
            if not data:
                return
            take(data)

    def _take(self, data: bytes) -> None:
        core = self._core
        try:
            block = self._incoming.feed(data)
            if block is None:
                return
            decoded = decode_block(block)
            if decoded.heads or decoded.dropped:
                core.heard = True
            if decoded.dropped or decoded.noise:
                self._count(decoded)
            self._route(decoded)
        except LineTooLong:
            self._incoming.rest()
            core.fatal = f"a line of more than {core.limits.line_bytes} bytes"
            core.end.kill()
        except Exception as error:  # noqa: BLE001 - answers are lost now, so no caller may go on waiting for them
            core.report("reading", error)
            core.fatal = "something this side stumbled over"
            core.end.kill()

    def _count(self, decoded: Decoded) -> None:
        core, stats = self._core, self._core.stats
        stats.debug_dropped += decoded.dropped
        stats.salvaged += decoded.salvaged
        if decoded.noise:
            if not stats.noise_lines:
                first = _shown(decoded.noise[0]).decode("utf-8", "replace")
                core.sink(EnginePolluted(at=core.env.wall(), engine=core.label, pid=self._child.pid, line=first))
            stats.noise_lines += len(decoded.noise)
            kept = core.limits.noise_lines
            self.noise = [*self.noise, *map(_shown, decoded.noise[-kept:])][-kept:] if kept else ()


def _shown(line: bytes) -> bytes:
    """Return what is kept of a line that is no protocol: its beginning, with secrets hidden in it."""
    text = redacted(line[: _NOISE_KEPT + LONGEST].decode("utf-8", "surrogateescape"))
    return text.encode("utf-8", "surrogateescape")[:_NOISE_KEPT]
