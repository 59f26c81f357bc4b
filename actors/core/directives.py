"""What a hook may return to tell the runtime more than a plain value.

`on_start` may return `IGNORE`, `Stop`, `Continue` or `Idle`; `on_receive` may return `Reply`, `NO_REPLY`, `Stop`,
`Continue` or `Idle`; any other value returned by `on_receive` is the answer. `on_continue` and `on_idle` may return
`Stop`, `Continue` or `Idle`.
"""

from typing import Any, Final

import msgspec

from mlld_sdk.actors.core.exits import NORMAL, Reason


class Unset:
    """The type of `UNSET`: no answer was given here."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


class Ignore:
    """The type of `IGNORE`."""


IGNORE: Final = Ignore()
"""Returned by `on_start`: there is nothing to do here; end normally, and do not call it a failure."""


class NoReply:
    """The type of `NO_REPLY`."""


NO_REPLY: Final = NoReply()
"""Returned by `on_receive`: the answer comes later, through the `ReplyTo` that `self.reply_to()` gave."""


class Continue(msgspec.Struct, eq=False):
    """Run `on_continue(value)` before any other message, those already waiting too."""

    value: Any = None


class Idle(msgspec.Struct, eq=False):
    """Run `on_idle()` unless a message arrives within `after` seconds."""

    after: float


class Stop(msgspec.Struct, eq=False):
    """End this actor with `reason`; `reply`, if given, answers the current message after the stop hook has run."""

    reason: Reason = NORMAL
    reply: Any = UNSET


class Reply(msgspec.Struct, eq=False):
    """Answer `value` and then do `then`."""

    value: Any
    then: Continue | Idle | Stop | None = None
