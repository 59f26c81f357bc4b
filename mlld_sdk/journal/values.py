"""User values as bytes that come back the same, or a refusal that names the field.

Plain JSON values are written as JSON. A msgspec `Struct` is written as `{"$type": tag, "$data": {...}}` with the tag it
was registered under: a class may move or be renamed, its tag stays. All that would come back as something else (a set,
a date, a `Decimal`, a number JSON cannot say, an object of an unknown class) is refused before anything is written. The
one exception is a tuple, which comes back as a list; callers go on with what was written, so the first time and a
replay see the same.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.texts import shorten
from mlld_sdk.journal.errors import LimitExceeded, RecordUnknown, ValueNotStorable
from mlld_sdk.journal.records import TYPE_MARK

TYPE, DATA = "$type", "$data"
_ESCAPED = "dict"
"""Tag of a plain dict that happens to have a key `$type`."""
_MAX_DEPTH = 100
_SHOWN = 200
"""Characters of a fingerprint that are kept for people."""

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class Fingerprint(msgspec.Struct, frozen=True):
    """What a step was asked for: a digest to compare, a short text to show.

    Attributes:
        digest: 32 hexadecimal characters; equal for equal values.
        asked: The beginning of the value as JSON.
    """

    digest: str
    asked: str


class Values:
    """Writes and reads user values, and knows the registered types."""

    def __init__(self) -> None:
        self._types: dict[str, type[msgspec.Struct]] = {}
        self._tags: dict[type, str] = {}
        self._upgrades: dict[str, Callable[[Any], Any]] = {}

    def register(self, kind: type[msgspec.Struct], tag: str | None = None) -> None:
        """Allow values of a Struct class to be stored, under a tag of its own.

        Args:
            kind: The class.
            tag: The name written with the data, the class's name by default. Put a version into it if the fields may
                change incompatibly: `review.v2`.
        """
        if not issubclass(kind, msgspec.Struct):
            raise ConfigurationError(f"{kind!r} is not a msgspec Struct class")
        name = tag or kind.__name__
        if not name or name == _ESCAPED or name in self._upgrades or self._types.get(name, kind) is not kind:
            raise ConfigurationError(f"the tag {name!r} is taken or reserved", hint="give another tag")
        self._types[name] = kind
        self._tags[kind] = name

    def upgrade(self, tag: str, convert: Callable[[Any], Any]) -> None:
        """Register how data of an old tag is read: `convert` gets the plain data and returns the value."""
        if not tag or tag == _ESCAPED or tag in self._types or tag in self._upgrades:
            raise ConfigurationError(f"the tag {tag!r} is taken or reserved", hint="give another tag")
        self._upgrades[tag] = convert

    def encode(self, value: Any, where: str, limit: int) -> msgspec.Raw:
        """Write a value as JSON bytes.

        Args:
            value: The value.
            where: Its name, the start of the path in a refusal: `input`, `result of step 3 (fetch)`.
            limit: Bytes it may take.

        Raises:
            ValueNotStorable: It would not come back the same.
            LimitExceeded: It is longer than `limit`.
        """
        return self.encode_both(value, where, limit)[0]

    def encode_both(self, value: Any, where: str, limit: int) -> tuple[msgspec.Raw, Any]:
        """Write a value, and return also what a reader will get for it."""
        data, back = _there_and_back(_encode, value)
        if data is None:
            plain = self._plain(value, where, _MAX_DEPTH)
            data = _encode(plain)
            back = self._revive(plain, where)
        if len(data) > limit:
            raise LimitExceeded(f"{where} takes {len(data)} bytes", "value_bytes", limit)
        return msgspec.Raw(data), back

    def decode(self, data: msgspec.Raw | msgspec.UnsetType, where: str) -> Any:
        """Read a value back; no value at all is `None`.

        Raises:
            RecordUnknown: It holds a type that is not registered, or whose fields no longer fit.
        """
        if data is msgspec.UNSET:
            return None
        value = _decode(data)
        return self._revive(value, where) if TYPE_MARK in bytes(data) else value

    def canonical(self, data: msgspec.Raw) -> bytes:
        """Return the same bytes for all encoded values that are equal, in any order of their keys."""
        return _encode_sorted(_decode(data))

    def fingerprint(self, *parts: Any) -> Fingerprint:
        """Digest what a step asks for. Equal values give equal digests, in any order of their keys.

        Leave out what changes from run to run without mattering: times, random ids, stack traces.
        """
        plain: Any = list(parts)
        data, _ = _there_and_back(_encode_sorted, plain)
        if data is None:
            plain = [self._plain(part, f"part {n} of the fingerprint", _MAX_DEPTH) for n, part in enumerate(parts, 1)]
            data = _encode_sorted(plain)
        shown = _encode(plain[0] if len(plain) == 1 else plain).decode()
        return Fingerprint(digest_of(data), shown if len(shown) <= _SHOWN else shorten(shown, _SHOWN))

    def _plain(self, value: Any, where: str, depth: int) -> Any:
        """Turn a value into what JSON can say, or name the field that cannot be said."""
        if value is None or isinstance(value, bool):
            return value
        if depth == 0:
            raise ValueNotStorable(where, f"it is nested deeper than {_MAX_DEPTH} levels, or contains itself")
        if isinstance(value, str):
            return _text(value, where)
        if isinstance(value, int):
            if not -(2**63) <= value < 2**64 and _there_and_back(_encode, value)[0] is None:
                raise ValueNotStorable(where, "the integer is too long")
            return int(value)
        if isinstance(value, float):
            if value != value or value in (float("inf"), float("-inf")):
                raise ValueNotStorable(where, f"{value} is not a JSON number")
            return float(value)
        if isinstance(value, list | tuple):
            return [self._plain(item, f"{where}[{n}]", depth - 1) for n, item in enumerate(value)]
        if isinstance(value, dict):
            plain = dict(self._items(value, where, depth))
            return {TYPE: _ESCAPED, DATA: plain} if TYPE in plain else plain
        if isinstance(value, msgspec.Struct):
            return self._tagged(value, where)
        first = ", which has to be awaited first" if isinstance(value, Awaitable) else ""
        raise ValueNotStorable(where, f"it is {_a(type(value).__name__)}{first}")

    def _items(self, value: dict[Any, Any], where: str, depth: int) -> Iterator[tuple[str, Any]]:
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueNotStorable(f"the key {key!r} of {where}", f"it is {_a(type(key).__name__)}, not text")
            yield _text(key, f"a key of {where}"), self._plain(item, f"{where}.{key}", depth - 1)

    def _tagged(self, value: msgspec.Struct, where: str) -> dict[str, Any]:
        tag = self._tags.get(type(value))
        if tag is None:
            raise ValueNotStorable(where, f"the Struct class {type(value).__name__} is not registered")
        try:
            data = _decode(_encode(value))
            same = msgspec.convert(data, type(value)) == value
        except Exception as error:
            raise ValueNotStorable(where, f"{type(value).__name__} cannot be written: {error}") from error
        if not same:
            raise ValueNotStorable(where, f"{type(value).__name__} does not come back as it was; check its field types")
        return {TYPE: tag, DATA: data}

    def _revive(self, value: Any, where: str) -> Any:
        """Turn tagged dicts back into what they were."""
        if isinstance(value, list):
            return [self._revive(item, where) for item in value]
        if not isinstance(value, dict):
            return value
        if TYPE not in value:
            return {key: self._revive(item, where) for key, item in value.items()}
        tag, data = value[TYPE], value.get(DATA)
        if tag == _ESCAPED and isinstance(data, dict):
            return {key: self._revive(item, where) for key, item in data.items()}
        if tag in self._upgrades:
            try:
                return self._upgrades[tag](data)
            except Exception as error:
                raise RecordUnknown(f"{where} holds a {tag!r} that could not be upgraded: {error}") from error
        if tag not in self._types:
            raise RecordUnknown(
                f"{where} holds a value of type {tag!r}, which is not registered",
                hint=f"register the class under the tag {tag!r}, or say with upgrade({tag!r}, ...) how to read it",
            )
        try:
            return msgspec.convert(data, self._types[tag])
        except msgspec.ValidationError as error:
            raise RecordUnknown(
                f"{where} holds a {tag!r} whose fields no longer fit {self._types[tag].__name__}: {error}",
                hint=f"give the class a new tag and say with upgrade({tag!r}, ...) how to read the old data",
            ) from error


def digest_of(data: bytes) -> str:
    """Digest bytes into 32 hexadecimal characters."""
    return hashlib.sha256(data).hexdigest()[:32]


def _there_and_back(encode: Callable[[Any], bytes], value: Any) -> tuple[bytes | None, Any]:
    """Write a value and read it again; gives no bytes if it is no plain value that comes back the same."""
    try:
        data = encode(value)
        back = _decode(data)
        same = TYPE_MARK not in data and bool(back == value)
    except Exception:  # noqa: BLE001 - a foreign object may raise anything; `Values._plain` finds and names it
        return None, None
    return (data if same else None), back


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueNotStorable(where, "the text holds half of a surrogate pair") from None
    return str(value)


def _a(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
