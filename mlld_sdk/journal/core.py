"""What a journal and the leases it gives out share: the store, one session in it, and how to write there."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from mlld_sdk.base.env import Env
from mlld_sdk.journal import crashpoints, writes
from mlld_sdk.journal.errors import JournalRefusal
from mlld_sdk.journal.options import JournalLimits
from mlld_sdk.journal.records import ErrorRecord, EventRecord, shorten
from mlld_sdk.journal.rows import Tx
from mlld_sdk.journal.store import Store
from mlld_sdk.journal.upkeep import Upkeep
from mlld_sdk.journal.values import Values

T = TypeVar("T")


class JournalCore:
    """One session in a store.

    Attributes:
        store: Where records are kept.
        read: Reads one consistent state of it.
        session: Name of the session, which ends with the journal or with its process.
        upkeep: The leases held here and the callbacks that wait here.
        env: Clocks and randomness.
        limits: How large things may become.
        values: How user values are written and read.
    """

    def __init__(self, store: Store, upkeep: Upkeep, env: Env, limits: JournalLimits, values: Values) -> None:
        self.store = store
        self.upkeep = upkeep
        self.env = env
        self.limits = limits
        self.values = values
        self.read = store.read
        self.session = store.join(upkeep)
        store.wake()

    def write(self, name: str, work: Callable[[Tx], T | JournalRefusal]) -> T:
        """Run a transaction by the name of its crash points.

        Raises:
            JournalRefusal: What the transaction returned, if it returned a refusal: then what it wrote is durable.
        """
        if crashpoints.armed:
            crashpoints.reach(f"{name}.before")
        result = self.store.write(self.session, work, self.limits.write_timeout)
        if crashpoints.armed:
            crashpoints.reach(f"{name}.after")
        if isinstance(result, JournalRefusal):
            raise result
        return result

    def encode(self, value: Any, where: str) -> msgspec.Raw:
        """Write a user's value as JSON bytes, within the limits; `where` names it in a refusal."""
        return self.values.encode(value, where, self.limits.value_bytes)

    def append_event(self, holder: writes.Holder | None, name: str, data: Any, run_id: str) -> EventRecord:
        """Add an event to a run as its owner, or without an owner to a run or the common stream."""
        raw = msgspec.UNSET if data is None else self.encode(data, f"the event {name}")
        record = EventRecord(n=0, at=self.env.wall(), name=name, run_id=run_id, data=raw)
        return self.write("append_event", lambda tx: writes.append_event(tx, holder, record, self.limits))

    def error_record(self, error: BaseException | ErrorRecord) -> ErrorRecord:
        """Make an error storable, within the limits."""
        limit = self.limits.error_chars
        if isinstance(error, BaseException):
            return ErrorRecord.of(error, limit)
        return msgspec.structs.replace(
            error, message=shorten(error.message, limit), traceback=shorten(error.traceback, limit)
        )
