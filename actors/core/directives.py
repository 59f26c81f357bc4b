"""What a hook may return to tell the runtime more than a plain value.

`on_start` may return `IGNORE`, `Stop`, `Continue` or `Idle`; `on_receive` may return `Reply`, `NO_REPLY`, `Stop`,
`Continue` or `Idle`; any other value returned by `on_receive` is the answer. `on_continue` and `on_idle` may return
`Stop`, `Continue` or `Idle`.
"""

from typing import Any, Final

from mlld_sdk.actors.core.exits import NORMAL, Reason

__all__ = ["IGNORE", "NO_REPLY", "UNSET", "Continue", "Idle", "Ignore", "NoReply", "Reply", "Stop", "Unset"]


class Unset:
    """The type of `UNSET`: no answer was given here."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


class Ignore:
    """The type of `IGNORE`."""

    __slots__ = ()


IGNORE: Final = Ignore()
"""Returned by `on_start`: there is nothing to do here; end normally, and do not call it a failure."""


class NoReply:
    """The type of `NO_REPLY`."""

    __slots__ = ()


NO_REPLY: Final = NoReply()
"""Returned by `on_receive`: the answer comes later, through the `ReplyTo` that `self.reply_to()` gave."""


class Continue:
    """Run `on_continue(value)` before any other message, those already waiting too."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        self.value: Any = value


class Idle:
    """Run `on_idle()` unless a message arrives within `after` seconds."""

    __slots__ = ("after",)

    def __init__(self, after: float) -> None:
        self.after: float = after


class Stop:
    """End this actor with `reason`; `reply`, if given, answers the current message after the stop hook has run."""

    __slots__ = ("reason", "reply")

    def __init__(self, reason: Reason = NORMAL, reply: Any = UNSET) -> None:
        self.reason: Reason = reason
        self.reply: Any = reply


class Reply:
    """Answer `value` and then do `then`."""

    __slots__ = ("then", "value")

    def __init__(self, value: Any, then: Continue | Idle | Stop | None = None) -> None:
        self.value: Any = value
        self.then: Continue | Idle | Stop | None = then
