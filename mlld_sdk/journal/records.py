"""What the journal keeps, as typed, versioned, checksummed records."""

import traceback
from typing import Any, Final, Literal, TypeVar
from zlib import crc32

import msgspec

from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.secrets import redacted
from mlld_sdk.base.texts import encoded, fit, shorten, text_of_failure
from mlld_sdk.journal.errors import JournalCorrupt, RecordUnknown
from mlld_sdk.journal.options import StepPolicy

RunState = Literal["pending", "running", "finished", "failed", "cancelled", "parked"]
StepState = Literal["started", "finished", "failed", "interrupted"]
OutcomeState = Literal["finished", "failed", "cancelled", "parked"]

TYPE_MARK: Final = b'"$type"'
"""Stands in every encoded value that holds more than plain JSON."""

ENDED: frozenset[str] = frozenset({"finished", "failed", "cancelled"})
"""States a run stays in unless it is retried."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of everything stored: immutable. User values inside stay encoded; `UNSET` is no value at all."""


class ErrorRecord(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """An error as data: no class is imported to read it back.

    Attributes:
        code: Stable name of the kind of failure.
        message: What happened, one line.
        hint: What to do about it.
        type: Name of the exception's class, for people.
        traceback: Formatted and bounded, for people.
    """

    code: str
    message: str
    hint: str | None = None
    type: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, limit: int = 16_000) -> "ErrorRecord":
        """Describe an exception in at most `limit` characters each for message and traceback."""
        text = "".join(traceback.format_exception(error))
        known = error if isinstance(error, MlldError) else None
        return cls(
            code=known.code if known else "EXCEPTION",
            message=shorten(text_of_failure(known.message if known else error, 64 * limit), limit),
            hint=known.hint and text_of_failure(known.hint) if known else None,
            type=type(error).__name__,
            traceback=fit(shorten(redacted(text), limit)),
        )


class OwnerRecord(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """Who owns a run and until when.

    Attributes:
        name: Who, for people: an agent's path and incarnation.
        session: The open journal that claimed it; a session ends with its process.
        until: Monotonic seconds at which the lease runs out. Only means something while the session lives.
        ttl: Seconds each renewal adds.
    """

    name: str
    session: str
    until: float
    ttl: float


class Death(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """An owner that ended without a word, and what it was doing.

    Attributes:
        at: Wall-clock seconds when it was noticed.
        owner: Who.
        reason: In words.
        in_flight: Positions of steps begun and not finished (the first hundred).
        session: The open journal that ended with its process; empty if only the owner died.
        alone: No other run of that process had anything under way, so it was this one.
    """

    at: float
    owner: str
    reason: str
    in_flight: tuple[str, ...] = ()
    session: str = ""
    alone: bool = False


class RunRecord(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of work that outlives its owners.

    Attributes:
        id: Name of the run.
        kind: Who can work on it: an agent's path.
        state: pending, running, finished, failed, cancelled or parked.
        created: Wall-clock seconds of its submission.
        updated: Wall-clock seconds of the last change of this record.
        queued: Wall-clock seconds since when it waits for an owner; decides whose turn it is.
        digest: Digest of the input, to tell a repeated submission from another one.
        key: Idempotency key, unique within the kind.
        deadline: Wall-clock seconds after which it fails instead of being claimed.
        priority: Higher goes first.
        attempt: How often it was claimed.
        epoch: Grows with each change of owner; a write with an older one is refused.
        owner: Who owns it now.
        deaths: Owners that died on it since it last made progress.
        suspected: Deaths of processes since then that were its doing, or that of another run.
        quarantine: 0 for none; else it runs only while no other run in quarantine does, the lowest number first.
        progress: Finished steps when the last of them died.
        parked: Why it is parked.
        resting: Wall-clock seconds until when it waits on purpose.
    """

    id: str
    kind: str
    state: RunState
    created: float
    updated: float
    queued: float
    digest: str
    key: str | None = None
    deadline: float | None = None
    priority: int = 0
    attempt: int = 0
    epoch: int = 0
    owner: OwnerRecord | None = None
    deaths: tuple[Death, ...] = ()
    suspected: tuple[Death, ...] = ()
    quarantine: int = 0
    progress: int = 0
    parked: ErrorRecord | None = None
    resting: float | None = None

    @property
    def due(self) -> float:
        """Wall-clock seconds since when it can use an owner: when it was queued, or when its sleep is over."""
        return max(self.queued, self.resting or 0.0)


class StepRecord(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a run.

    Attributes:
        run_id: The run.
        position: Where in it: `3`, or `3.1.2` within branches.
        name: What it is called.
        fingerprint: Digest of what was asked.
        asked: The same for people, shortened.
        policy: What to do if it is interrupted.
        state: started, finished, failed or interrupted.
        attempts: How often it was begun.
        forgiven: How many of these were interrupted through no fault of its run.
        deaths: How many owners died of its run while it was in flight.
        started: Wall-clock seconds when it was last begun.
        ended: Wall-clock seconds of its end.
        result: What it gave, encoded.
        error: Why it failed or was interrupted.
        final: For a failed step: whether the failure is its answer, or it may be tried again.
    """

    run_id: str
    position: str
    name: str
    fingerprint: str
    asked: str
    policy: StepPolicy
    state: StepState
    attempts: int
    started: float
    forgiven: int = 0
    deaths: int = 0
    ended: float | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorRecord | None = None
    final: bool = False


class InputRecord(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """What a run was asked to do."""

    run_id: str
    value: msgspec.Raw


class OutcomeRecord(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """How a run ended."""

    run_id: str
    state: OutcomeState
    at: float
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorRecord | None = None


class EventRecord(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a stream: a receipt of a run, or an event of the common stream.

    Attributes:
        n: Its number in the stream, from 1, without gaps at the end (the oldest may be gone).
        at: Wall-clock seconds.
        name: What happened.
        run_id: The run it belongs to, or empty for the common stream.
        data: What is to be said about it, encoded.
    """

    n: int
    at: float
    name: str
    run_id: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run came to rest.

    Attributes:
        run_id: The run.
        state: finished, failed, cancelled, or parked (which a retry may still change).
        at: Wall-clock seconds.
        value: Its result, if it finished.
        error: Why not, otherwise.
    """

    run_id: str
    state: OutcomeState
    at: float
    value: Any = None
    error: ErrorRecord | None = None


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to do for one kind.

    Attributes:
        pending: Runs without an owner.
        waiting: Those of them that could use one now; the others sleep.
        running: Runs with an owner.
        parked: Runs that wait for a person.
        oldest: Wall-clock seconds since when the oldest of the waiting could have used an owner.
    """

    pending: int = 0
    waiting: int = 0
    running: int = 0
    parked: int = 0
    oldest: float | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A parked run and why.

    Attributes:
        run: The run.
        error: Why it is parked.
        deaths: Owners that died on it without progress, oldest first.
        steps: Its steps that did not finish.
    """

    run: RunRecord
    error: ErrorRecord
    deaths: tuple[Death, ...]
    steps: tuple[StepRecord, ...]


Stored = RunRecord | StepRecord | InputRecord | OutcomeRecord | EventRecord
R = TypeVar("R", bound=Stored)


class Replay(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The step was finished before; its effect must not be repeated. Match it as `Replay(value=value)`.

    Attributes:
        recorded: What it gave, as it was written; or the value itself, where it had to be read already.
        value: What it gave. A plain value is decoded each time it is asked for, and costs nothing if it is not.
    """

    recorded: Any = msgspec.field(name="result")

    @property
    def value(self) -> Any:  # noqa: D102 - said above
        return msgspec.json.decode(self.recorded) if isinstance(self.recorded, msgspec.Raw) else self.recorded

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Replay) and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Replay({self.value!r})"


class Recalled(Replay, frozen=True, kw_only=True, eq=False, gc=False):
    """A replay straight from a record, with what has to be compared first: resuming must be fast."""

    recorded: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="result")
    run_id: str
    position: str
    name: str
    fingerprint: str
    state: str


VERSIONS: Final[dict[type, int]] = {RunRecord: 1, StepRecord: 1, InputRecord: 1, OutcomeRecord: 1, EventRecord: 1}
"""Version written for each type. A reader refuses what is newer than what it knows."""

_MAGIC: Final = 0x4A
_FRAME: Final = 6  # magic, version, ..., crc32 of all before it
_RESIDUE: Final = 0x2144DF1C  # crc32 of anything followed by its own crc32, least significant byte first
_encoder = msgspec.json.Encoder()
_decoders: Final[dict[type, msgspec.json.Decoder[Any]]] = {kind: msgspec.json.Decoder(kind) for kind in VERSIONS}
_STEP: Final = bytes((_MAGIC, VERSIONS[StepRecord]))
_DOLLAR: Final = TYPE_MARK[1]
_recall = msgspec.json.Decoder(Recalled).decode


def pack(record: Stored) -> bytes:
    """Write a record as bytes: magic, version, JSON, checksum."""
    body = bytes((_MAGIC, VERSIONS[type(record)])) + encoded(_encoder, record)
    return body + crc32(body).to_bytes(4, "little")


def unpack(kind: type[R], data: bytes, where: str) -> R:
    """Read back what `pack` wrote; `where` names the place in an error.

    Raises:
        JournalCorrupt: The bytes are damaged.
        RecordUnknown: The bytes are intact, and newer than this version of the library.
    """
    if type(data) is not bytes or len(data) <= _FRAME or data[0] != _MAGIC or crc32(data) != _RESIDUE:
        raise JournalCorrupt(f"{where} fails its checksum")
    if data[1] > VERSIONS[kind]:
        raise RecordUnknown(
            f"{where} has version {data[1]}, this library knows up to {VERSIONS[kind]}",
            hint="a newer version of the library wrote it; use that one",
        )
    try:
        record: R = _decoders[kind].decode(data[2:-4])
    except msgspec.MsgspecError as error:
        raise RecordUnknown(f"{where} cannot be read as {kind.__name__}: {error}") from error
    return record


def recall(data: bytes) -> Recalled | None:
    """Read a finished step with a plain value, or `None` if it is anything else, which `unpack` can tell."""
    # One byte is found faster than a text.
    if data[:2] != _STEP or crc32(data) != _RESIDUE or (_DOLLAR in data and TYPE_MARK in data):
        return None
    step = _recall(data[2:-4])
    return step if step.state == "finished" else None
