"""The words of the live protocol: pure functions between bytes and messages, for both dialects.

A request is `{"method", "id", "params"}`. mlld 2.0.5 answers `{"event": {"id", "type", ...}}` and
`{"result": {"id", ...}}`; the 2.1 line also says `{"id", "result"}` and `{"id", "error"}`, and its events have a
`requestId`.
"""

from __future__ import annotations

import builtins
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

__all__ = ["Decoded", "EngineEvent", "Reply", "decode_block", "encode_request"]


class EngineEvent(msgspec.Struct, gc=False):
    """One event of a running request, its body not yet decoded.

    Attributes:
        type: `effect`, `state:write`, `guard_denial`, `stream:chunk`, `execution:complete`, ...
        line: The whole protocol line, `{"event": {...}}`.
    """

    type: str
    line: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The event's fields as plain values (decoded anew on every use)."""
        raise NotImplementedError

    def decode(self, as_: builtins.type[T]) -> T:
        """Decode the event's fields into `as_`. Lone surrogates and unknown fields are no obstacle."""
        raise NotImplementedError


class Reply(msgspec.Struct, gc=False):
    """The successful answer to a request, its payload not yet decoded.

    Attributes:
        line: The whole protocol line.
    """

    line: bytes

    @property
    def payload(self) -> Any:
        """The payload as plain values: without envelope, without `value` wrapping, without the request's id."""
        raise NotImplementedError

    def decode(self, as_: builtins.type[T]) -> T:
        """Decode the payload into `as_`, a msgspec type. Raises `msgspec.ValidationError` if it does not fit."""
        raise NotImplementedError

    @property
    def truncated(self) -> tuple[str, ...]:
        """Where the engine cut something out of this answer (see `transport.truncation`); empty if nowhere."""
        raise NotImplementedError


class Decoded(msgspec.Struct):
    """What a block of lines said. To be filled in."""


def decode_block(block: bytes) -> Decoded:
    """Understand a block of whole lines."""
    raise NotImplementedError


def encode_request(method: str, request_id: int, params: Any) -> bytes:
    """Say a request as one line, or raise `UnserialisableParams`."""
    raise NotImplementedError
