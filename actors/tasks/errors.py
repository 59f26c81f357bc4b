"""What can go wrong with tasks; each is an `ActorError`."""

from mlld_sdk.actors.core.errors import ActorError
from mlld_sdk.actors.core.exits import Other, Reason


class TaskExited(ActorError):
    """The task ended and gave no value. The exception it raised, when it raised one, is the cause."""

    code = "TASK_EXITED"
    reason: Reason

    @property
    def exit_reason(self) -> Reason:
        """Why an actor ends that does not catch this: for what ended the task, but never as if all were well."""
        return Other(f"a task gave no value: {self.reason}") if self.reason.is_normal_family else self.reason


class TaskTimeout(ActorError, TimeoutError):
    """The task has not finished in time. It was not told, and its late result is dropped."""

    code = "TASK_TIMEOUT"


class TooManyTasks(ActorError):
    """The task supervisor already runs as many tasks as it may."""

    code = "TOO_MANY_TASKS"
