"""How much of everything an engine may use, and what it has used so far."""

from dataclasses import dataclass

import msgspec

from mlld_sdk.base.durations import seconds
from mlld_sdk.base.options import whole


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
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
    line_bytes: int = 256 * 1024 * 1024
    stderr_bytes: int = 16 * 1024
    noise_lines: int = 32
    cancel_grace: float = 0.25
    term_grace: float = 0.2
    burial: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what is no bound."""
        for name, least in (
            ("in_flight", 1),
            ("queued_bytes", 1),
            ("line_bytes", 1),
            ("stderr_bytes", 0),
            ("noise_lines", 0),
        ):
            whole(name, getattr(self, name), least=least)
        for name in ("cancel_grace", "term_grace", "burial"):
            seconds(getattr(self, name), name, infinite=False)


class EngineStats(msgspec.Struct, kw_only=True):
    """What an engine has done so far, in numbers.

    Attributes:
        debug_dropped: Debug events that were dropped unread.
        noise_lines: Lines that were no protocol.
        salvaged: Messages with noise glued in front of them.
        unknown_ids: Answers that named no call.
        unrouted_events: Events that named none.
        queued_bytes: Bytes that wait because the engine does not read.
    """

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
