"""What supervision raises.

```
MlldError
├── ConfigurationError
│   └── DuplicateChild           two children of one supervisor under one name
└── InfrastructureError
    ├── ChildError               a management call that cannot be carried out
    │   ├── ChildNotFound · ChildAlreadyStarted · ChildAlreadyPresent · ChildRunning · ChildRestarting
    │   ├── ChildStartFailed     the child's start failed; `reason` says why
    │   ├── TooManyChildren      a dynamic supervisor is full
    │   └── NotSupported         the call makes no sense for this kind of supervisor
    ├── SupervisorBusy           a child called the supervisor that is waiting for that very child
    ├── SupervisorStopping       the supervisor no longer takes requests
    ├── ChildUnavailable         the child exists but does not run now
    └── BreakerOpen              refused: the circuit breaker is open, try again after `retry_after`
```
"""

from collections.abc import Sequence
from typing import Any

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError


class DuplicateChild(ConfigurationError):
    """Two children of one supervisor carry the same name; names are how children are found again."""

    code = "DUPLICATE_CHILD"

    def __init__(self, name: str) -> None:
        super().__init__(f"two children are named `{name}`", hint="give each child of a supervisor its own name")
        self.name = name


class ChildError(InfrastructureError):
    """A management call could not be carried out.

    Attributes:
        child: Name of the child the call was about.
    """

    code = "CHILD_ERROR"

    def __init__(self, child: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.child = child


class ChildNotFound(ChildError):
    """The supervisor has no such child, or several of that name."""

    code = "CHILD_NOT_FOUND"

    def __init__(self, child: str, among: Sequence[str] = ()) -> None:
        if among:
            message, hint = f"`{child}` is ambiguous: {', '.join(among)}", "say which by its path"
        else:
            message, hint = f"there is no child `{child}`", "the printed tree shows the names there are"
        super().__init__(child, message, hint=hint)


class ChildAlreadyStarted(ChildError):
    """A child of that name is running.

    Attributes:
        ref: The running child.
    """

    code = "CHILD_ALREADY_STARTED"

    def __init__(self, child: str, ref: Any = None) -> None:
        super().__init__(child, f"`{child}` is already running", hint="use the running one, or terminate it first")
        self.ref = ref


class ChildAlreadyPresent(ChildError):
    """A child of that name is declared and does not run at the moment."""

    code = "CHILD_ALREADY_PRESENT"

    def __init__(self, child: str) -> None:
        super().__init__(
            child, f"`{child}` is declared already", hint="`restart_child` starts it, `delete_child` drops it"
        )


class ChildRunning(ChildError):
    """The call needs a child that does not run."""

    code = "CHILD_RUNNING"

    def __init__(self, child: str) -> None:
        super().__init__(child, f"`{child}` is running", hint="restart it in place, or terminate it first")


class ChildRestarting(ChildError):
    """The child waits for its next start attempt."""

    code = "CHILD_RESTARTING"

    def __init__(self, child: str) -> None:
        super().__init__(child, f"`{child}` is being restarted", hint="wait for it, or `terminate_child` to give it up")


class ChildStartFailed(ChildError):
    """The child did not start.

    Attributes:
        reason: Why, as the exit reason of the attempt.
    """

    code = "CHILD_START_FAILED"

    def __init__(self, child: str, reason: Any) -> None:
        super().__init__(child, f"`{child}` did not start: {reason}", hint=getattr(reason, "hint", None))
        self.reason = reason


class TooManyChildren(ChildError):
    """A dynamic supervisor holds as many children as it may.

    Attributes:
        limit: Its `max_children`.
    """

    code = "TOO_MANY_CHILDREN"

    def __init__(self, child: str, limit: int) -> None:
        super().__init__(
            child, f"the supervisor is full: {limit} children", hint="raise max_children or wait for one to end"
        )
        self.limit = limit


class NotSupported(ChildError):
    """This kind of supervisor does not know the call."""

    code = "NOT_SUPPORTED"


class SupervisorBusy(InfrastructureError):
    """A child called its supervisor while that supervisor waits for this very child.

    In OTP the two would wait for each other for ever.
    """

    code = "SUPERVISOR_BUSY"

    def __init__(self, supervisor: str, child: str, phase: str) -> None:
        super().__init__(
            f"`{supervisor}` is waiting for `{child}` to {phase}, and `{child}` called it",
            hint="call the supervisor after init has returned, not from init or the stop hook",
        )
        self.supervisor = supervisor
        self.child = child
        self.phase = phase


class SupervisorStopping(InfrastructureError):
    """The supervisor is stopping and takes no requests any more."""

    code = "SUPERVISOR_STOPPING"

    def __init__(self, supervisor: str) -> None:
        super().__init__(f"`{supervisor}` is stopping", hint="start the child under another supervisor")
        self.supervisor = supervisor


class ChildUnavailable(InfrastructureError):
    """The place in the tree exists, but nobody is there at the moment.

    Attributes:
        path: The place.
        state: Why: `waiting` for its restart, `parked`, `stopped`, `starting`, ...
        retry_after: Seconds until its next start attempt, when one is planned.
    """

    code = "CHILD_UNAVAILABLE"

    def __init__(self, path: str, state: str, retry_after: float | None = None) -> None:
        hint = f"retry in {retry_after:.1f} s" if retry_after is not None else None
        super().__init__(f"`{path}` is not running: {state}", hint=hint)
        self.path = path
        self.state = state
        self.retry_after = retry_after


class BreakerOpen(InfrastructureError):
    """The circuit breaker refuses calls at the moment, so as not to hammer what is broken.

    Attributes:
        breaker: Name of the breaker.
        retry_after: Seconds until it is worth trying again.
    """

    code = "BREAKER_OPEN"

    def __init__(self, breaker: str, retry_after: float) -> None:
        super().__init__(f"circuit breaker `{breaker}` is open", hint=f"retry in {retry_after:.1f} s")
        self.breaker = breaker
        self.retry_after = retry_after
