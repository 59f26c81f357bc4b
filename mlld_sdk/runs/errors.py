"""What a run, a step of it, or waiting for it can fail with."""

from dataclasses import dataclass

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError, TaskError
from mlld_sdk.journal.records import ErrorRecord


class OwnerGone(InfrastructureError):
    """The agent or pool that did the work ended; the request was not finished, a run goes on when it is back."""

    code = "AGENT_GONE"


class WaitsForItself(ConfigurationError):
    """A run waits for another run of its own agent, which works on one at a time: neither would ever end."""

    code = "WAITS_FOR_ITSELF"
    hint = "raise its concurrency, give the work to another agent, or make it steps of this run"


class RunFailed(TaskError):
    """The run ended with an error; `code` is the error's own.

    Attributes:
        run_id: The run.
        record: The error as it was recorded, with its traceback, which is also a note of this exception.
    """

    code = "RUN_FAILED"

    def __init__(self, run_id: str, record: ErrorRecord) -> None:
        kind = f"{record.type}: " if record.type and record.code == "EXCEPTION" else ""
        super().__init__(f"run {run_id} failed: {kind}{record.message}", code=record.code, hint=record.hint)
        if record.traceback:
            self.add_note(f"In the run it was raised here:\n{record.traceback}")
        self.run_id = run_id
        self.record = record


class RunCancelled(MlldError):
    """The run was cancelled before it had a result.

    Attributes:
        run_id: The run.
    """

    code = "ABORTED"

    def __init__(self, run_id: str, record: ErrorRecord | None) -> None:
        super().__init__(f"run {run_id} was cancelled" + (f": {record.message}" if record else ""))
        self.run_id = run_id


class StepFailed(TaskError):
    """A step failed, now or with an earlier owner of the run; the first time and every replay raise the same.

    Attributes:
        step: Name of the step.
        type: Name of the exception's class.
    """

    code = "STEP_FAILED"

    def __init__(self, step: str, error: ErrorRecord) -> None:
        super().__init__(error.message, code=error.code, hint=error.hint)
        self.step = step
        self.type: str = error.type


@dataclass(eq=False, repr=False)
class StepNotAccepted(TaskError):
    """A step gave what its `accept=` does not take; that is not its result, and `retry=` tries it again.

    Attributes:
        step: Name of the step.
        value: What it gave, as text, cut.
        predicate: Name of the predicate.
    """

    code = "STEP_NOT_ACCEPTED"
    message = "{step} gave {value}, which {predicate} does not accept"
    hint = "ask again with retry=, or look at what the step is asked"
    step: str
    value: str
    predicate: str


class JobCancelled(MlldError):
    """The run was cancelled, or its deadline passed; the job takes no more steps."""

    code = "ABORTED"


class StepsOverlap(ConfigurationError):
    """A step was begun while another step of the same job was under way: on replay they could change places.

    Steps side by side need `parallel` or `map`, and a step's function begins no steps of its own.
    """

    code = "STEPS_OVERLAP"
    hint = "side by side goes with map and parallel, each branch with its own job; a step has no steps"


@dataclass(eq=False, repr=False)
class StepIsAsync(ConfigurationError):
    """A run that is not async was given a coroutine function as a step, which nothing there could await."""

    code = "STEP_IS_ASYNC"
    message = "step {step} is to be awaited, and the code of the run is not async"
    hint = "make it `async def run` and await its steps, or give the step a function that returns a value"
    step: str
