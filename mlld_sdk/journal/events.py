"""What happens in the journal, as events: each is told once, after it has become durable."""

from mlld_sdk.base.events import Event


class RunTransition(Event, frozen=True, kw_only=True):
    """Base of what happens to a run.

    Attributes:
        run_id: The run.
        kind: Whose work it is.
    """

    run_id: str
    kind: str


class RunSubmitted(RunTransition, frozen=True, kw_only=True, tag="run.submitted"):
    """A run was written down for the first time.

    Attributes:
        key: Its idempotency key, if it has one.
    """

    key: str | None = None


class RunClaimed(RunTransition, frozen=True, kw_only=True, tag="run.claimed"):
    """An owner took a run.

    Attributes:
        owner: Who.
        epoch: Number of the ownership, by which what earlier owners still write is refused.
        attempt: Counts owners; from 2 on the run is resumed.
    """

    owner: str
    epoch: int
    attempt: int


class OwnerDied(RunTransition, frozen=True, kw_only=True, tag="run.owner_died"):
    """The owner of a run ended without a word; its steps in flight are interrupted.

    Attributes:
        owner: Who it was.
        reason: How it ended.
        in_flight: Positions of the steps that were interrupted.
        share: What the run had to do with it: `none`; `suspected`, with others; `blamed`; `alone`, when nothing else
            was under way.
        quarantine: The run is tried without others that are suspected, from now on.
    """

    owner: str
    reason: str
    in_flight: tuple[str, ...] = ()
    share: str = "alone"
    quarantine: bool = False


class RunCleared(RunTransition, frozen=True, kw_only=True, tag="run.cleared"):
    """A run is no longer suspected of the deaths of processes: its step came to an end, or another run was it."""


class RunReleased(RunTransition, frozen=True, kw_only=True, tag="run.released"):
    """An owner gave a run back, to be claimed again.

    Attributes:
        owner: Who.
    """

    owner: str


class RunFinished(RunTransition, frozen=True, kw_only=True, tag="run.finished"):
    """A run ended with a result."""


class RunFailedEvent(RunTransition, frozen=True, kw_only=True, tag="run.failed"):
    """A run ended with an error.

    Attributes:
        code: Stable name of the error.
        message: The error in one line.
    """

    code: str
    message: str


class RunCancelledEvent(RunTransition, frozen=True, kw_only=True, tag="run.cancelled"):
    """A run was cancelled, and has no owner any more.

    Attributes:
        reason: Why.
    """

    reason: str


class RunParkedEvent(RunTransition, frozen=True, kw_only=True, tag="run.parked"):
    """A run became a dead letter: it is not worked on until it is retried.

    Attributes:
        code: Stable name of what is wrong.
        reason: The same in one line.
    """

    code: str
    reason: str


class RunRetried(RunTransition, frozen=True, kw_only=True, tag="run.retried"):
    """A run that had stopped was put back into the queue."""


class RunDamaged(RunTransition, frozen=True, kw_only=True, tag="run.damaged"):
    """A run was set aside because its record, or one of its steps, cannot be read; `verify` says more.

    Attributes:
        reason: What is wrong.
    """

    reason: str


class StepEvent(Event, frozen=True, kw_only=True):
    """Base of what happens to a step.

    Attributes:
        run_id: The run.
        position: Where in it.
        name: What the step is called.
    """

    run_id: str
    position: str
    name: str


class AttemptEvent(StepEvent, frozen=True, kw_only=True):
    """Base of what happens to one attempt of a step.

    Attributes:
        attempt: Its number, from 1.
    """

    attempt: int


class StepStarted(AttemptEvent, frozen=True, kw_only=True, tag="step.started"):
    """A step is about to act."""


class StepFinished(AttemptEvent, frozen=True, kw_only=True, tag="step.finished"):
    """A step's result is recorded."""


class StepFailedEvent(AttemptEvent, frozen=True, kw_only=True, tag="step.failed"):
    """A step's failure is recorded.

    Attributes:
        code: Stable name of the error.
        message: The error in one line.
        final: It is the step's answer; otherwise it may be tried again.
    """

    code: str
    message: str
    final: bool


class StepResolved(StepEvent, frozen=True, kw_only=True, tag="step.resolved"):
    """A step's result was recorded by hand."""


class JournalDegraded(Event, frozen=True, kw_only=True, tag="journal.degraded"):
    """Writes fail; each caller is told by an error of its own, this is told once.

    Attributes:
        path: The journal's file.
        code: Stable name of what is wrong.
        reason: The same in one line.
    """

    path: str
    code: str
    reason: str


class JournalRecovered(Event, frozen=True, kw_only=True, tag="journal.recovered"):
    """Writes work again.

    Attributes:
        path: The journal's file.
    """

    path: str


class JournalExposedEvent(Event, frozen=True, kw_only=True, tag="journal.exposed"):
    """A journal was opened that others could read until then, or whose folder they can write into.

    Attributes:
        path: The journal's file.
        reason: What they can do, and what to do about it.
    """

    path: str
    reason: str


class JournalRepaired(Event, frozen=True, kw_only=True, tag="journal.repaired"):
    """Something was found to be wrong with the journal and was put right; nothing was lost.

    Attributes:
        path: The journal's file.
        reason: What it was.
    """

    path: str
    reason: str


class JournalPruned(Event, frozen=True, kw_only=True, tag="journal.pruned"):
    """Retention removed ended runs.

    Attributes:
        runs: How many.
    """

    runs: int


class JournalMigrated(Event, frozen=True, kw_only=True, tag="journal.migrated"):
    """A file of an older version was brought up to date when it was opened.

    Attributes:
        path: The journal's file.
        before: Version it had.
        after: Version it has.
    """

    path: str
    before: int
    after: int


class ListenerFailed(Event, frozen=True, kw_only=True, tag="journal.listener_failed"):
    """A callback waiting for an outcome raised; nothing else was affected.

    Attributes:
        run_id: Whose outcome.
        error: What it raised.
    """

    run_id: str
    error: str
