"""What can go wrong with names and tables; each is an `ActorError`."""

from dataclasses import dataclass
from typing import Any

from mlld_sdk.actors.core.errors import ActorError
from mlld_sdk.actors.core.ref import ActorRef


@dataclass(eq=False, repr=False)
class NameTaken(ActorError):
    """A live actor holds the key of a unique registry."""

    code = "NAME_TAKEN"
    message = "{key!r} is held by {holder}"
    hint = "use the holder, or another key"
    key: object
    holder: ActorRef[Any]


class NotRegistered(ActorError):
    """The caller does not hold this key."""

    code = "NOT_REGISTERED"


class LockTimeout(ActorError, TimeoutError):
    """The lock did not come free in time; the caller has left the queue."""

    code = "LOCK_TIMEOUT"


class TableClosed(ActorError):
    """The table is gone: its owner ended and there was no heir, or it was dropped."""

    code = "TABLE_CLOSED"


class TableFull(ActorError):
    """The table holds as many entries as it may; raise `limit`, delete some, or choose an evicting policy."""

    code = "TABLE_FULL"
