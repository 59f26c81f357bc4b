"""Names of actors: a plain string, kept in the system's own table, or a key that another service keeps."""

from typing import Any

import msgspec


class Via(msgspec.Struct, frozen=True):
    """A name kept by another service than the system's own table: by a `Registry`, or another `NameService`.

    Attributes:
        service: The `NameService` that keeps it.
        key: The name there.
        value: Stored with it, for services that keep values.
    """

    service: Any
    key: Any
    value: Any = None


Name = str | Via
