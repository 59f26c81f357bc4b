"""Exit reasons as decisions see them: a family, a line of text, and the original."""

from typing import Any, Literal, TypeAlias

import msgspec

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


NORMAL = ChildExit("normal")
SHUTDOWN = ChildExit("shutdown")
KILLED = ChildExit("killed")
