"""What supervision raises: management calls that cannot be carried out, places that are empty, breakers that refuse."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError


@dataclass(eq=False, repr=False)
class DuplicateChild(ConfigurationError):
    """Two children of one supervisor carry the same name; names are how children are found again."""

    code = "DUPLICATE_CHILD"
    message = "two children are named `{name}`"
    hint = "give each child of a supervisor its own name"
    name: str


@dataclass(eq=False, repr=False)
class ChildError(InfrastructureError):
    """A management call could not be carried out.

    Attributes:
        child: Name of the child the call was about.
    """

    code = "CHILD_ERROR"
    child: str


@dataclass(eq=False, repr=False)
class ChildNotFound(ChildError):
    """The supervisor has no such child, or several of that name."""

    code = "CHILD_NOT_FOUND"
    message = "there is no child `{child}`"
    hint = "the printed tree shows the names there are"
    among: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.among:
            self.message, self.hint = "`{child}` is ambiguous: {among}", "say which by its path"
            self.among = ", ".join(self.among)
        super().__post_init__()


@dataclass(eq=False, repr=False)
class ChildAlreadyStarted(ChildError):
    """A child of that name is running.

    Attributes:
        ref: The running child.
    """

    code = "CHILD_ALREADY_STARTED"
    message = "`{child}` is already running"
    hint = "use the running one, or terminate it first"
    ref: Any = None


class ChildAlreadyPresent(ChildError):
    """A child of that name is declared and does not run at the moment."""

    code = "CHILD_ALREADY_PRESENT"
    message = "`{child}` is declared already"
    hint = "`restart_child` starts it, `delete_child` drops it"


class ChildRunning(ChildError):
    """The call needs a child that does not run."""

    code = "CHILD_RUNNING"
    message = "`{child}` is running"
    hint = "restart it in place, or terminate it first"


class ChildRestarting(ChildError):
    """The child waits for its next start attempt."""

    code = "CHILD_RESTARTING"
    message = "`{child}` is being restarted"
    hint = "wait for it, or `terminate_child` to give it up"


@dataclass(eq=False, repr=False)
class ChildStartFailed(ChildError):
    """The child did not start.

    Attributes:
        reason: Why, as the exit reason of the attempt.
    """

    code = "CHILD_START_FAILED"
    message = "`{child}` did not start: {reason}"
    reason: Any


@dataclass(eq=False, repr=False)
class TooManyChildren(ChildError):
    """A dynamic supervisor holds as many children as it may.

    Attributes:
        limit: Its `max_children`.
    """

    code = "TOO_MANY_CHILDREN"
    message = "the supervisor is full: {limit} children"
    hint = "raise max_children or wait for one to end"
    limit: int


@dataclass(eq=False, repr=False)
class NotSupported(ChildError):
    """This kind of supervisor does not know the call."""

    code = "NOT_SUPPORTED"
    message = "a {kind} supervisor does not know `{request}`"
    hint = "a static supervisor knows its children by name; a dynamic one forgets what is stopped: start it again"
    kind: str
    request: str


@dataclass(eq=False, repr=False)
class SupervisorBusy(InfrastructureError):
    """A child called its supervisor while that supervisor waits for this very child.

    In OTP the two would wait for each other for ever.
    """

    code = "SUPERVISOR_BUSY"
    message = "`{supervisor}` is waiting for `{child}` to {phase}, and `{child}` called it"
    hint = "call the supervisor after init has returned, not from init or the stop hook"
    supervisor: str
    child: str
    phase: str


@dataclass(eq=False, repr=False)
class SupervisorStopping(InfrastructureError):
    """The supervisor is stopping and takes no requests any more."""

    code = "SUPERVISOR_STOPPING"
    message = "`{supervisor}` is stopping"
    hint = "start the child under another supervisor"
    supervisor: str


@dataclass(eq=False, repr=False)
class ChildUnavailable(InfrastructureError):
    """The place in the tree exists, but it is empty at the moment.

    Attributes:
        path: The place.
        state: Why: `waiting` for its restart, `parked`, `stopped`, `starting`, ...
        retry_after: Seconds until its next start attempt, when one is planned.
    """

    code = "CHILD_UNAVAILABLE"
    message = "`{path}` is not running: {state}"
    path: str
    state: str
    retry_after: float | None = None

    def __post_init__(self) -> None:
        self.hint = None if self.retry_after is None else "retry in {retry_after:.1f} s"
        super().__post_init__()


@dataclass(eq=False, repr=False)
class BreakerOpen(InfrastructureError):
    """The circuit breaker refuses calls at the moment, so as not to hammer what is broken.

    Attributes:
        breaker: Name of the breaker.
        retry_after: Seconds until it is worth trying again.
        by_hand: Whether it was tripped by hand, and stays open until somebody resets it.
    """

    code = "BREAKER_OPEN"
    message = "circuit breaker `{breaker}` is open"
    breaker: str
    retry_after: float
    by_hand: bool = False

    def __post_init__(self) -> None:
        self.hint = "it was tripped by hand; reset it" if self.by_hand else "retry in {retry_after:.1f} s"
        super().__post_init__()


@dataclass(eq=False, repr=False)
class BreakerNotFound(ConfigurationError, KeyError):
    """The tree has no circuit breaker of that name, or not yet.

    Attributes:
        breaker: The name.
    """

    code = "BREAKER_NOT_FOUND"
    message = "there is no circuit breaker `{breaker}`"
    hint = "it is there from the start of a child that is declared with it, or from the first step that names it"
    breaker: str
