"""What the journal can refuse and what can break under it.

A `JournalError` is the store's failure: nothing is known about the task. A `JournalRefusal` is an answer: the same call
gets the same one again. `NotAJournal`, `JournalExposed` and `JournalTooNew` are about the path that was
given.
"""

from dataclasses import dataclass

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, TaskError


class JournalError(InfrastructureError):
    """The store could not do what it was asked; the message names the file."""

    code = "JOURNAL_ERROR"


class JournalClosed(JournalError):
    """The journal was closed; open it again."""

    code = "JOURNAL_CLOSED"
    hint = "open it again"


class JournalBusy(JournalError):
    """A write did not get its turn before its deadline and was withdrawn: it is certain that it was not written."""

    code = "JOURNAL_BUSY"


class JournalUncertain(JournalError):
    """A write was being committed when its deadline passed: read before you assume either way."""

    code = "JOURNAL_UNCERTAIN"


class JournalLocked(JournalError):
    """Another process held the file for longer than the deadline allows; nothing was written."""

    code = "JOURNAL_LOCKED"
    hint = "find it with lsof; the write can be repeated"


class JournalFull(JournalError):
    """There is no room for the write; nothing of it was written, and what was there before is intact."""

    code = "JOURNAL_FULL"
    hint = "free space; writes go on by themselves then"


class JournalReadOnly(JournalError):
    """The file or the folder it lies in cannot be written by this user."""

    code = "JOURNAL_READ_ONLY"
    hint = "check owner and mode of the file and of its folder"


class JournalUnreadable(JournalError):
    """The operating system reports an input or output error for the file."""

    code = "JOURNAL_UNREADABLE"


class JournalGone(JournalError):
    """The file was deleted or replaced while it was open; what is written now would be lost."""

    code = "JOURNAL_GONE"


class JournalCorrupt(JournalError):
    """The file is damaged. What cannot be decoded is an error, never an empty value."""

    code = "JOURNAL_CORRUPT"
    hint = "restore a backup; verify() lists all that is damaged"


class JournalIncomplete(JournalError):
    """The file lacks writes that were confirmed: its `-wal` was deleted or cut, or it was replaced by an older one."""

    code = "JOURNAL_INCOMPLETE"


class RecordUnknown(JournalCorrupt):
    """A record is intact and yet not understood: a newer version wrote it, or its type is not registered here."""

    code = "JOURNAL_RECORD_UNKNOWN"
    hint = "another version of the library wrote it"


@dataclass(eq=False, repr=False)
class LeaseHeld(JournalError):
    """Another owner has the run; its lease runs out in `retry_after` seconds unless it is renewed."""

    code = "LEASE_HELD"
    message = "run {run_id} is owned by {owner}"
    hint = "its lease runs out in {retry_after:.1f} s unless it is renewed; wait for the outcome instead"
    run_id: str
    owner: str
    retry_after: float


@dataclass(eq=False, repr=False)
class RunInQuarantine(JournalError):
    """Processes have died, maybe of this run, and another that is suspected as well is being tried first.

    Attributes:
        other: The run that is being tried.
    """

    code = "RUN_IN_QUARANTINE"
    message = "run {run_id} waits in quarantine, because run {other} is being tried"
    hint = "claim it when that has finished its step; processes died while both had something under way"
    run_id: str
    other: str


@dataclass(eq=False, repr=False)
class LeaseLost(JournalError):
    """This owner's lease was taken over, released or ended with the run; nothing it says is written any more.

    Attributes:
        state: What the run is now (`cancelled`, `running` under another owner, ...), `None` if it is gone.
    """

    code = "LEASE_LOST"
    message = "{owner} (epoch {epoch}) no longer owns run {run_id}: {why}"
    hint = "stop working on it; its next owner goes on from what was finished"
    run_id: str
    owner: str
    epoch: int
    why: str
    state: str | None


class WaitTimeout(JournalError, TimeoutError):
    """The run did not end in the time given; it goes on, and may be waited for again."""

    code = "TIMEOUT"
    hint = "it goes on; wait again, or cancel it"


class NotAJournal(ConfigurationError):
    """The path names a folder, or a file that is something else than a journal. It was left as it is."""

    code = "NOT_A_JOURNAL"


class JournalExposed(ConfigurationError):
    """Another user owns the journal's file or a part of it, or can change it: what it says cannot be relied upon."""

    code = "JOURNAL_EXPOSED"


class JournalTooNew(ConfigurationError):
    """A newer version of the library has written the file; this one would lose what it does not know."""

    code = "JOURNAL_TOO_NEW"


class JournalRefusal(TaskError):
    """The journal works and says no; the same call gets the same answer."""

    code = "JOURNAL_REFUSAL"


@dataclass(eq=False, repr=False)
class RunNotFound(JournalRefusal):
    """No run has this id: it never existed, or retention has pruned it."""

    code = "RUN_NOT_FOUND"
    message = "no run {run_id}"
    hint = "finished runs are pruned by retention; check the id and the file"
    run_id: str


@dataclass(eq=False, repr=False)
class RunKeyNotFound(JournalRefusal):
    """No run was submitted with this key, or retention has pruned it.

    Attributes:
        key: The key.
        agent: Path of the agent it was looked for at; `None` when it was looked for at all.
    """

    code = "RUN_KEY_NOT_FOUND"
    message = "no run of {agent} has the key {key!r}"
    hint = "keys are given with `agent.run(..., key=...)`; finished runs are pruned by retention"
    key: str
    agent: str | None = None

    def __post_init__(self) -> None:
        if self.agent is None:
            self.message = "no run of any agent has the key {key!r}"
        super().__post_init__()


@dataclass(eq=False, repr=False)
class RunKeyAmbiguous(JournalRefusal):
    """Runs of several agents have this key, since a key belongs to one agent.

    Attributes:
        key: The key.
        agents: Paths of agents that have it, ten at most.
    """

    code = "RUN_KEY_AMBIGUOUS"
    message = "the key {key!r} belongs to runs of several agents: {named}"
    hint = "say which with `agent=`"
    key: str
    agents: tuple[str, ...]

    def __post_init__(self) -> None:
        self.named: str = ", ".join(self.agents)
        super().__post_init__()


@dataclass(eq=False, repr=False)
class RunEnded(JournalRefusal):
    """The run has its outcome; it cannot be claimed or ended a second time."""

    code = "RUN_ENDED"
    message = "run {run_id} is {state}"
    hint = "read its outcome, or submit a new run"
    run_id: str
    state: str


@dataclass(eq=False, repr=False)
class RunParked(JournalRefusal):
    """The run is a dead letter: it stopped its owners too often, or its owner gave it up."""

    code = "RUN_PARKED"
    message = "run {run_id} is parked: {reason}"
    hint = "look at its steps, then retry it or cancel it"
    run_id: str
    reason: str


@dataclass(eq=False, repr=False)
class RunNotParked(JournalRefusal):
    """Only a run that is parked, failed or cancelled can be retried."""

    code = "RUN_NOT_PARKED"
    message = "run {run_id} is {state}, there is nothing to retry"
    hint = "wait for it, or cancel it first; if it is finished read its result, or submit a new run"
    run_id: str
    state: str


class IdempotencyConflict(JournalRefusal):
    """The same idempotency key (or run id) was used before with another input or kind."""

    code = "IDEMPOTENCY_CONFLICT"


@dataclass(eq=False, repr=False)
class StepMismatch(JournalRefusal):
    """The code asks for something else than what this run has recorded at this position."""

    code = "STEP_MISMATCH"
    message = "run {run_id} has recorded {recorded} at step {position}, and now asks for {asked}"
    hint = (
        "the code or its input changed under an unfinished run: run it with the old code, "
        "cancel it and submit a new one, or make the step ask for the same again"
    )
    run_id: str
    position: str
    recorded: str
    asked: str


@dataclass(eq=False, repr=False)
class StepInterrupted(JournalRefusal):
    """A step was in flight when its owner died; whether its effect happened is unknown, so it is not repeated."""

    code = "STEP_INTERRUPTED"
    message = "step {position} ({name}) of run {run_id} was in flight when its owner died"
    hint = (
        "declare it idempotent if it may run twice, record its result by hand with resolve_step, "
        "or retry the run with rerun_interrupted=True"
    )
    run_id: str
    position: str
    name: str
    attempts: int


@dataclass(eq=False, repr=False)
class StepExhausted(JournalRefusal):
    """A step was interrupted or failed as often as its policy allows."""

    code = "STEP_EXHAUSTED"
    message = "step {position} ({name}) of run {run_id} was begun {attempts} times and never finished; last: {last}"
    hint = "park the run and look at it; retrying the run starts the count again"
    run_id: str
    position: str
    name: str
    attempts: int
    last: str


class StepNotOpen(JournalRefusal):
    """A step was finished that was not begun by this owner, or a position was used twice: a mistake in the program."""

    code = "STEP_NOT_OPEN"


@dataclass(eq=False, repr=False)
class ValueNotStorable(JournalRefusal):
    """A value cannot be written so that it comes back the same; `field` is the path to it: `result.items[3].when`."""

    code = "VALUE_NOT_STORABLE"
    message = "{field} cannot be stored: {why}"
    hint = "use text, numbers, booleans, None, lists and dicts with text keys, or register a msgspec Struct"
    field: str
    why: str


def not_text() -> ValueNotStorable:
    """Make the error about an id, a key or a name that no file can hold, whether it is written or looked for."""
    return ValueNotStorable("an id, key or name", "the text holds half of a surrogate pair")


@dataclass(eq=False, repr=False)
class LimitExceeded(JournalRefusal):
    """A value, a run or a stream is larger than the stated limit."""

    code = "JOURNAL_LIMIT_EXCEEDED"
    message = "{what}: the limit {limit} is {allowed}"
    hint = "keep the large part in a file and record its path, or open the journal with a larger {limit}"
    what: str
    limit: str
    allowed: int
