"""The root of every error this library raises, and its three branches.

```
MlldError                     everything
├── ConfigurationError        a wrong option, a missing program: retrying the same call cannot help
├── InfrastructureError       an engine, an actor, a pipe or a disk failed; the task itself was not judged
└── TaskError                 the engine did its work and the script failed; running it again gives the same answer
```

Supervisors restart and retry after an `InfrastructureError`; a `TaskError` is answered to whoever asked. The leaves
live beside what raises them (`transport.errors`, `actors.errors`, `supervision.errors`). Every leaf has a stable
`code`, a message of one line that says what happened and a `hint` of one line that says what to do about it.
"""

from typing import ClassVar


class MlldError(Exception):
    """Something went wrong, said in one line, with what to do about it in another.

    Attributes:
        message: What happened.
        code: Stable name of the kind of failure, for programs. Engine codes pass through unchanged.
        hint: What to do about it, or `None` when there is nothing general to say.
        returncode: Exit status of the process that failed, when a process failed (negative: killed by that signal).
    """

    default_code: ClassVar[str] = "MLLD_ERROR"

    def __init__(
        self, message: str, returncode: int | None = None, code: str | None = None, *, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.returncode = returncode
        self.code = code or self.default_code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(MlldError):
    """An option, a command or a declaration is wrong; the message names it, the value and what is allowed."""

    default_code = "INVALID_CONFIGURATION"


class InfrastructureError(MlldError):
    """Something that runs the task failed, so nothing is known about the task itself."""

    default_code = "INFRASTRUCTURE_ERROR"


class TaskError(MlldError):
    """The task ran and failed by itself: a script error, a denial, a bail."""

    default_code = "RUNTIME_ERROR"
