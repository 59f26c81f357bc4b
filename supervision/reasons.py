"""Exit reasons and exceptions that supervision adds to those of actors, and what decisions see of any of them.

An actor ends itself for good with `raise StopAgent("done for ever")`, and takes its supervisor down on purpose with
`raise EscalateFailure("the licence has expired")`. Both are judged by what they are, whatever the child's spec says.
"""

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from mlld_sdk.actors.core import exits
from mlld_sdk.actors.core.exits import Crash, Killed, NoProc, Normal, Reason, Shutdown
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError
from mlld_sdk.base.texts import shorten

NAMED = 400
"""Characters of a path that are kept in a reason."""


class StopForGood(Reason, frozen=True, tag="stop_for_good"):
    """The child wants no restart, even if it is permanent."""

    detail: str = ""
    is_normal_family: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"stopped for good: {self.detail}" if self.detail else "stopped for good"


class Escalation(Reason, frozen=True, tag="escalation"):
    """The child wants its supervisor to give up."""

    detail: str = ""

    def __str__(self) -> str:
        return f"escalated: {self.detail}" if self.detail else "escalated"


class Misconfigured(Reason, frozen=True, tag="misconfigured"):
    """A start failed on a wrong option or a missing program; trying again cannot help."""

    detail: str = ""

    def __str__(self) -> str:
        return self.detail or "misconfigured"


class Wedged(Reason, frozen=True, tag="wedged"):
    """The child had work and finished nothing for so many seconds."""

    idle: float = 0.0

    def __str__(self) -> str:
        return f"no progress for {self.idle:.1f} s"


class GaveUp(Reason, frozen=True, tag="gave_up"):
    """A supervisor gave up. Abnormal for its parent, so that a transient supervisor is restarted too.

    Attributes:
        path: The supervisor.
        culprit: The child whose end was one too many.
        why: `limit`, `escalated`, `configuration` or `ladder`.
        last: The culprit's last reason, in words.
    """

    path: str = ""
    culprit: str = ""
    why: str = "limit"
    last: str = ""

    def __str__(self) -> str:
        return f"gave up on `{shorten(self.culprit, NAMED)}` ({self.why}): {self.last}"


class ChildFailedToStart(Reason, frozen=True, tag="child_failed_to_start"):
    """A supervisor's own start failed because a child's did.

    Attributes:
        child: Name of the child.
        reason: Why it did not start.
    """

    child: str
    reason: Reason

    def __str__(self) -> str:
        path, first = self.child, self.reason
        while isinstance(first, ChildFailedToStart):
            path, first = f"{path}/{first.child}", first.reason
        return f"child `{shorten(path, NAMED)}` failed to start: {first}"


class StopAgent(InfrastructureError):
    """Raise it inside an actor to end it for good: no restart, whatever its spec says, and no failure either."""

    code = "STOP_AGENT"

    @property
    def exit_reason(self) -> Reason:
        """The reason the actor ends with."""
        return StopForGood(self.message)


class EscalateFailure(InfrastructureError):
    """Raise it inside an actor whose failure its supervisor cannot mend: the supervisor gives up at once."""

    code = "ESCALATE_FAILURE"

    @property
    def exit_reason(self) -> Reason:
        """The reason the actor ends with."""
        return Escalation(self.message)


Kind: TypeAlias = Literal[
    "normal", "shutdown", "crash", "killed", "wedged", "gave_up", "configuration", "stop", "escalate", "noproc"
]
"""Families of exit reasons.

`normal` and `shutdown` are expected. `stop` is a child that wants to end for good, whatever its spec says; `escalate`
one that wants its supervisor to give up. `configuration` is a failure that trying again cannot mend.
"""

EXPECTED = frozenset({"normal", "shutdown", "stop"})


class ChildExit(msgspec.Struct, frozen=True):
    """How an incarnation ended, or why it did not start.

    Attributes:
        kind: Family of the reason.
        text: The reason in one line.
        trace: Formatted traceback, bounded; empty when there is none.
        reason: The reason itself, as actors know it. Not looked at by decisions.
    """

    kind: Kind
    text: str = ""
    trace: str = ""
    reason: Any = None

    @property
    def expected(self) -> bool:
        """Whether it belongs to the normal family: no failure."""
        return self.kind in EXPECTED

    def __str__(self) -> str:
        return self.text or self.kind


NORMAL = ChildExit("normal", "normal", reason=exits.NORMAL)
SHUTDOWN = ChildExit("shutdown", "shutdown", reason=exits.SHUTDOWN)
KILLED = ChildExit("killed")


def as_exit(reason: Reason | None, error: BaseException | None = None) -> ChildExit:
    """See a reason as decisions do.

    Args:
        reason: Why an actor ended or did not start.
        error: The exception behind a failed start, when there is one.
    """
    if isinstance(error, ConfigurationError):
        text = str(error)
        return ChildExit("configuration", text, reason=Misconfigured(text))
    if reason is exits.SHUTDOWN:  # how nearly all children end that are told to
        return SHUTDOWN
    if reason is None:
        return NORMAL
    if isinstance(reason, ChildFailedToStart):
        first = reason.reason
        while isinstance(first, ChildFailedToStart):  # the child of a child, as deep as the tree is
            first = first.reason
        kind: Kind = "configuration" if isinstance(first, Misconfigured) else "crash"
        return ChildExit(kind, str(reason), getattr(first, "trace", ""), reason)
    kind = _KINDS.get(type(reason)) or _kind_of(reason)
    return ChildExit(kind, str(reason), getattr(reason, "trace", ""), reason)


_KINDS: dict[type[Reason], Kind] = {
    Normal: "normal",
    Shutdown: "shutdown",
    Killed: "killed",
    Crash: "crash",
    StopForGood: "stop",
    Escalation: "escalate",
    Misconfigured: "configuration",
    Wedged: "wedged",
    GaveUp: "gave_up",
    NoProc: "noproc",
}


def _kind_of(reason: Reason) -> Kind:
    """Find the family of a reason that is defined elsewhere."""
    for known, kind in _KINDS.items():
        if isinstance(reason, known):
            return kind
    return "shutdown" if reason.is_normal_family else "crash"
