"""How a script, a request or the engine itself can fail, and under which code and name the client hears of it."""

from functools import partial
from typing import Any


class ScriptFailure(Exception):
    """A script failed while it ran.

    Args:
        message: What the client reads.
        code: The engine's own code for `process`; `execute` of the real engine flattens it to `RUNTIME_ERROR`.
        name: The class name the real engine would report.
    """

    def __init__(self, message: str, code: str = "RUNTIME_ERROR", name: str = "Error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.name = name


class ScriptParseError(ScriptFailure):
    """The text is not a script; nothing ran."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "PARSE_ERROR", "MlldParseError")


class UnsupportedConstruct(ScriptFailure):
    """The script uses something outside the embedded engine's subset of mlld; nothing ran."""

    def __init__(self, construct: str, line: int) -> None:
        reason = "is outside the embedded engine's subset of mlld; run this script on the real engine"
        super().__init__(f"{construct} (line {line}) {reason}", "UNSUPPORTED_CONSTRUCT", "UnsupportedConstruct")


class CommandFailure(ScriptFailure):
    """A command in an `llm` function failed, and the request asked to fail then.

    Args:
        message: What happened.
        unanswered: The same as fields.
    """

    def __init__(self, message: str, unanswered: dict[str, Any]) -> None:
        super().__init__(message, "COMMAND_FAILED", "CommandFailed")
        self.unanswered = unanswered


class RequestError(Exception):
    """A request the engine refuses without running anything; it has no stack and no name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


invalid_request = partial(RequestError, "INVALID_REQUEST")

# What the real engine calls its own kinds of errors.

directive_failure = partial(ScriptFailure, code="VALIDATION_FAILED", name="MlldDirectiveError")
"""A statement was given what it cannot work with."""
interpreter_failure = partial(ScriptFailure, code="INTERPRETATION_FAILED", name="MlldInterpreterError")
"""Something was called that cannot be called."""
field_failure = partial(ScriptFailure, code="FIELD_ACCESS_ERROR", name="FieldAccessError")
"""A field was read that a value cannot have."""
redefinition = partial(ScriptFailure, code="VARIABLE_REDEFINITION", name="VariableRedefinitionError")
"""A name was defined twice."""
bailed = partial(ScriptFailure, code="BAIL_EXIT", name="MlldBailError")
"""The script ended itself with `bail`."""
aborted = partial(ScriptFailure, "StreamExecution aborted", "ABORTED")
"""The request was cancelled, timed out, or the engine is going down."""


def outside_project(path: str, root: str) -> ScriptFailure:
    """Return the failure of a path that leaves the project of a script that has to stay in it."""
    message = f"{path} is outside the project {root}, where a request with allowAbsolutePaths: false has to stay"
    return ScriptFailure(message, "PATH_OUTSIDE_PROJECT", "PathOutsideProject")


def output_failure(reason: str) -> ScriptFailure:
    """Return the failure of writing something somewhere."""
    message = f"Output error (unknown): Failed to process output: {reason}"
    return ScriptFailure(message, "OUTPUT_GENERATION_FAILED", "MlldOutputError")
