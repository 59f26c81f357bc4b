"""Named points before and after every durable write, where a test can make the process die.

`MLLD_CRASH_AT=begin_step.after` kills the process with SIGKILL the first time it passes that point, and
`MLLD_CRASH_AT=begin_step.after:3` the third time. Without the variable a point costs one look at a constant.
"""

import itertools
import os
import signal
from typing import Final

_WRITES: Final = (
    "submit",
    "claim",
    "claim_unfinished",
    "begin_step",
    "finish_step",
    "fail_step",
    "finish_run",
    "fail_run",
    "park_run",
    "release",
    "abandon",
    "renew",
    "sleep_until",
    "clear",
    "cancel",
    "retry",
    "resolve_step",
    "append_event",
    "prune",
    "commit",
    "backup",
    "migrate",
)

CRASH_POINTS: Final = tuple(f"{write}.{when}" for write in _WRITES for when in ("before", "after"))
"""Every point there is. `before`: asked for, not durable. `after`: durable, the caller does not know it yet.

`commit` is the same within the writer, where one commit carries the writes of many callers.
"""

VARIABLE: Final = "MLLD_CRASH_AT"

armed: Final = os.environ.get(VARIABLE, "")
"""The point to die at, or empty. Callers look at it before they build a name."""

_name, _, _turn = armed.partition(":")
_turns = itertools.count(1)

if armed and (_name not in CRASH_POINTS or not (_turn or "1").isdigit()):
    raise ValueError(f"{VARIABLE}={armed}: not a crash point, see CRASH_POINTS")


def reach(point: str) -> None:
    """Die here if the environment says so."""
    if point == _name and next(_turns) == int(_turn or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
