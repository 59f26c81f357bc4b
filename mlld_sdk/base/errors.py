"""The root of every error this library raises, and its three branches: configuration, infrastructure and task.

Supervisors restart and retry after an `InfrastructureError`; a `TaskError` is the answer to the call. The leaves live
beside the code that raises them, and `mlld_sdk.errors` has them all. Each has a stable `code`, a `message` of one line
that says what happened, and a `hint` of one line that says what to do.

An error that carries data is declared as a dataclass, in one place: its fields, with `message` and `hint` as templates.
`mlld_sdk.journal.errors.RunParked` is an example; `UnserialisableParams` in `transport.errors` is another.
"""

from dataclasses import dataclass
from typing import Any, Self

from mlld_sdk.base.texts import portable, text_of


class MlldError(Exception):
    """Something went wrong: what happened, in one line, and what to do about it, in another.

    Attributes:
        message: What happened.
        code: Stable name of the kind of failure, for programs. Engine codes pass through unchanged.
        hint: What to do about it, or `None` when there is nothing general to say.
        returncode: Exit status of the process that failed, when a process failed (negative: killed by that signal).
    """

    code: str = "MLLD_ERROR"
    message: str = ""
    hint: str | None = None
    returncode: int | None = None

    def __init__(
        self, message: str, returncode: int | None = None, code: str | None = None, *, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.returncode = returncode
        self.code = code or self.code
        self.hint = self.hint if hint is None else hint

    def __post_init__(self) -> None:
        """Make message and hint of a declared error from its templates and fields."""
        self.message = self.message.format_map(vars(self))
        self.hint = self.hint and self.hint.format_map(vars(self))
        Exception.__init__(self, self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: portable(value) for name, value in self.__dict__.items()}
        return _restored, (type(self), self.args), fields

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self.__copy__()

    def __copy__(self) -> Self:
        """Make one without the traceback, context and cause: the same failure, for another caller."""
        copied: Self = _restored(type(self), self.args)
        copied.__dict__.update(self.__dict__)
        return copied


def _restored(kind: type[Any], args: tuple[Any, ...]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


_SHOWN = 80
"""Characters of a wrong value that are shown."""


class ConfigurationError(MlldError):
    """An option, a command or a declaration is wrong, which the message names; the same call cannot succeed later."""

    code = "INVALID_CONFIGURATION"


class InvalidRequest(ConfigurationError, ValueError):
    """A call was given something that cannot be sent, and nothing was. Fix the argument that the message names."""

    code = "INVALID_REQUEST"


@dataclass(eq=False, repr=False)
class InvalidOption(InvalidRequest):
    """An option has a value that is not allowed.

    Attributes:
        option: Name of the option as the caller wrote it.
        value: What was given.
        allowed: What it must be, in words.
    """

    code = "INVALID_OPTION"
    message = "{option} must be {allowed}, got {shown}"
    option: str
    value: object
    allowed: str

    def __post_init__(self) -> None:
        shown = text_of(self.value, _SHOWN + 1, say=repr)
        self.shown: str = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        super().__post_init__()


@dataclass(eq=False, repr=False)
class UnknownOption(InvalidOption, TypeError):
    """There is no option of that name; `allowed` lists the ones there are. Also a `TypeError`, as for any function."""

    message = "there is no option {option!r}"
    hint = "{allowed}"


@dataclass(eq=False, repr=False)
class ExtraMissing(ConfigurationError, ImportError):
    """Something needs a package that is installed with an extra, and is not there.

    Attributes:
        what: What needs it.
        package: The package.
        extra: Name of the extra.
    """

    code = "EXTRA_MISSING"
    message = "{what} needs {package}, which is not installed"
    hint = "pip install 'mlld-otp[{extra}]'"
    what: str
    package: str
    extra: str


class InfrastructureError(MlldError):
    """An engine, an actor, a pipe or a disk failed, so nothing is known about the task itself."""

    code = "INFRASTRUCTURE_ERROR"


class TaskError(MlldError):
    """The task ran and failed by itself: a script error, a denial, a bail. Running it again gives the same answer.

    Attributes:
        outage: Whether it failed for what it depends on, such as a model that was not to be had. Circuit breakers count
            that, and trying again makes sense.
    """

    code = "RUNTIME_ERROR"
    outage: bool = False
