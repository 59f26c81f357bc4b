"""Calls of `llm` functions that gave no answer: a command in them failed, or they came to nothing."""

import signal
from typing import TYPE_CHECKING, NamedTuple

from mlld_sdk.transport.embedded.errors import CommandFailure

if TYPE_CHECKING:
    from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRun

MOST_TOLD = 100
"""Calls without an answer that a result lists; each is an event all the same."""
LONGEST_LINE = 500
"""Characters of a command's last line that are told."""
REFUSED = 1
"""Status of a command that was refused before it ran, as the real engine has it."""


class NoAnswer(NamedTuple):
    """A call without an answer, as it is told.

    Attributes:
        function: Name of the `llm` function, without `@`.
        command: Name of the program that failed, without its arguments, which may hold secrets; empty if none did.
        returncode: Its exit status, negative for a signal; None if no command failed.
        said: The last line it printed: to stderr, or else to stdout.
    """

    function: str
    command: str = ""
    returncode: int | None = None
    said: str = ""

    def message(self) -> str:
        """Say in one line what happened."""
        how = f"exited with status {self.returncode}"
        if self.returncode is not None and self.returncode < 0:
            how = f"was ended by {_signal_name(-self.returncode)}"
        return f"@{self.function}: {self.command} {how}" + (f": {self.said}" if self.said else "")


class ModelCall:
    """The body of an `llm` function being run, which may itself be run by that of another.

    Attributes:
        function: Its name.
        outer: The call around it, if there is one.
        failed: Whether a command in it has failed.
    """

    def __init__(self, function: str, outer: "ModelCall | None") -> None:
        self.function = function
        self.outer = outer
        self.failed = False

    def fail(self, run: "ScriptRun", command: str, returncode: int, said: str) -> None:
        """Note that a command in it has failed; what the calls around it give is no answer either.

        Raises:
            CommandFailure: The request is to fail then.
        """
        call: ModelCall | None = self
        while call is not None:
            call.failed = True
            call = call.outer
        if not run.request.unanswered:
            return
        what = NoAnswer(self.function, command, returncode, said)
        tell(run, what)
        if run.request.unanswered == "fail":
            failure = CommandFailure(what.message(), what._asdict())
            run.abort(failure)
            raise failure


def tell(run: "ScriptRun", what: NoAnswer) -> None:
    """Report a call without an answer, and put it into the result."""
    told = what._asdict()
    if len(run.unanswered) < MOST_TOLD:
        run.unanswered.append(told)
    run.report({"type": "llm:unanswered", "unanswered": told})


def last_line(stderr: str, stdout: str) -> str:
    """Return the last line a command printed, to stderr if it printed there."""
    return (stderr.strip() or stdout.strip()).rpartition("\n")[2].strip()[:LONGEST_LINE]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
