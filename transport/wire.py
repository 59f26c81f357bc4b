"""The words of the live protocol: pure functions between bytes and messages, for both dialects.

A request is `{"method", "id", "params"}`. mlld 2.0.5 answers `{"event": {"id", "type", ...}}` and
`{"result": {"id", ...}}`; the 2.1 line also says `{"id", "result"}` and `{"id", "error"}`, and its events have a
`requestId`. A whole block of lines is decoded at once, and only as far as routing needs: bodies stay bytes until
they are decoded where they are asked for, on the thread that asks.

Scripts can print onto the same channel, so a line may be anything. What is no message is handed back as noise; a
message with noise glued in front of it is salvaged.
"""

import json
import math
import re
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

import msgspec

from mlld_sdk.base.texts import text_of
from mlld_sdk.transport.errors import AnswerUnreadable, UnserialisableParams
from mlld_sdk.transport.truncation import Cut, find_cuts

T = TypeVar("T")

_BRACE = ord("{")
_DEBUG = b'"type":"debug:'
_DEBUG_EVENT = re.compile(rb'\{"event":\{(?:"(?:id|requestId)":(?:"(?:[^"\\]|\\.)*"|[^,"{\[]*),)*"type":"debug:')
_MESSAGE_START = re.compile(rb'\{\s*"(?:event|result|id)"\s*:')
_SALVAGE_TRIES = 16
_SALVAGE_WINDOW = 1 << 20
"""Bytes at either end of a line in which the start of a message is looked for."""
_SALVAGE_BYTES = 64 << 20
"""Bytes that are read at most to find out which start is one."""
_ANSWER_START = re.compile(rb'\{"(?:result":\{"id":(\d{1,16})[,}]|id":(\d{1,16}),"(?:result|error)":)')
_TOO_DEEP = {"code": "TOO_DEEP", "message": "the answer is nested deeper than can be read"}
_UNREADABLE = {"code": AnswerUnreadable.code, "message": "the answer is no JSON", "hint": AnswerUnreadable.hint}
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class EngineEvent(msgspec.Struct, gc=False):
    """One event of a running request, its body not yet decoded.

    Attributes:
        type: `effect`, `state:write`, `guard_denial`, `stream:chunk`, `execution:complete`, ...
        id: What stands under `id`: the request's id, but a tool call's id in some events.
        request_id: The request's id, if the engine's dialect says it apart.
        line: The whole protocol line, `{"event": {...}}`.
    """

    type: str
    id: Any = None
    request_id: Any = msgspec.field(default=None, name="requestId")
    # Set after decoding; no event has a field of this name.
    line: bytes = msgspec.field(default=b"", name="(the line itself)")

    @property
    def body(self) -> dict[str, Any]:
        """The event's fields as plain values (decoded anew on every use); none if nobody can read them."""
        try:
            body: dict[str, Any] = _plain(self.line)["event"]
        except (AnswerUnreadable, KeyError):
            return {}
        return body


class ResultHead(msgspec.Struct, gc=False):
    """As much of a result as routing needs. An `error` of text is an ordinary field, as in a signature's verdict."""

    id: Any = None
    error: Any = None


class Head(msgspec.Struct, gc=False):
    """As much of a message as routing needs."""

    id: Any = msgspec.UNSET
    event: EngineEvent | None = None
    result: ResultHead | list[msgspec.Raw] | str | int | float | bool | msgspec.UnsetType | None = msgspec.UNSET
    error: Any = None

    @property
    def is_message(self) -> bool:
        """Whether it is exactly one of the protocol's envelopes, and no other JSON object a script printed."""
        if self.event is not None:
            return self.result is msgspec.UNSET and self.error is None
        if self.id is msgspec.UNSET:
            return type(self.result) is ResultHead and self.error is None
        return self.result is not msgspec.UNSET or type(self.error) is dict

    @property
    def request_id(self) -> Any:
        """The request this answers."""
        own = self.id
        if own is not msgspec.UNSET:
            return own
        result = self.result
        return result.id if type(result) is ResultHead else None


class Decoded(msgspec.Struct):
    """What a block of lines said.

    Attributes:
        heads: The messages, in order.
        lines: The line of each message, in the same order.
        noise: Lines, and pieces in front of salvaged messages, that are no protocol.
        dropped: How many debug events were left out undecoded.
        salvaged: How many messages had noise glued in front of them.
    """

    heads: list[Head]
    lines: list[bytes]
    noise: list[bytes] = []
    dropped: int = 0
    salvaged: int = 0


class EngineReply(msgspec.Struct, gc=False):
    """The successful answer to a request, its payload not yet decoded.

    Attributes:
        line: The whole protocol line.
    """

    line: bytes

    @property
    def payload(self) -> Any:
        """The payload as plain values: without envelope, without `value` wrapping, without the request's id."""
        message = _plain(self.line)
        payload = message["result"]
        if not isinstance(payload, dict):
            return payload
        if "id" in message:
            if payload.get("id") == message["id"]:
                payload.pop("id")
            return payload
        if payload.keys() == {"id", "value"}:
            return payload["value"]
        payload.pop("id", None)
        return payload

    def decode(self, as_: type[T]) -> T:
        """Decode the payload into `as_`, a msgspec type. Raises `msgspec.ValidationError` if it does not fit.

        A struct is decoded straight from the line; it should have no field `id`, where the request's id may stand.
        """
        decoder = _result_decoders.get(as_) or _result_decoder(as_)
        if decoder is None or self.line.find(b'"value":', 0, 96) > 0:  # perhaps wrapped: the slow way finds out
            return msgspec.convert(self.payload, as_)
        envelope: _ResultEnvelope[T]
        try:
            envelope = decoder.decode(self.line)
        except msgspec.ValidationError:
            raise
        except _UNDECODABLE:  # a lone surrogate, or worse
            return msgspec.convert(self.payload, as_)
        return envelope.result

    @property
    def cuts(self) -> list[Cut]:
        """Where the live engine cut something out of this answer; empty if nowhere."""
        return find_cuts(self.payload)


class _ResultEnvelope(msgspec.Struct, Generic[T]):
    result: T


_heads = msgspec.json.Decoder(Head)


_result_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_DECODERS_KEPT = 256


def _result_decoder(as_: Any) -> msgspec.json.Decoder[Any] | None:
    """Make the decoder that goes straight from the line to a struct; nothing for any other type."""
    if not (isinstance(as_, type) and issubclass(as_, msgspec.Struct)):
        return None
    if len(_result_decoders) >= _DECODERS_KEPT:
        _result_decoders.clear()
    decoder = _result_decoders[as_] = msgspec.json.Decoder(_ResultEnvelope[as_])
    return decoder


def _plain(line: bytes) -> Any:
    """Decode a line; raises `AnswerUnreadable` if nothing here can."""
    try:
        return msgspec.json.decode(line)
    except _UNDECODABLE:  # a lone surrogate: the engine escapes it, msgspec refuses it, `json` does not
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AnswerUnreadable(f"the engine's answer cannot be read: {text_of(error, 200)}") from None


def decode_block(block: bytes) -> Decoded:
    """Understand a block of whole lines (the last byte is a newline)."""
    lines = block.split(b"\n")
    lines.pop()
    dropped = 0
    if block.find(_DEBUG) >= 0:
        kept = [line for line in lines if _DEBUG_EVENT.match(line) is None]
        dropped = len(lines) - len(kept)
        if dropped:
            lines = kept
            block = b"\n".join(lines)
    try:
        heads = _heads.decode_lines(block)
    except _UNDECODABLE:
        return _one_by_one(lines, dropped)
    # Blank lines, values over several lines, several on one: only where every line break stands between two messages
    # does each line hold one.
    count = len(lines)
    if len(heads) != count or (count > 1 and not (block[0] == _BRACE and block.count(b"}\n{") == count - 1)):
        return _one_by_one(lines, dropped)
    for head in heads:  # the common shapes first: this loop is what a message costs
        if head.error is None:
            if head.event is None:
                if type(head.result) is ResultHead and head.id is msgspec.UNSET:
                    continue
            elif head.result is msgspec.UNSET:
                continue
        if not head.is_message:
            return _one_by_one(lines, dropped)
    return Decoded(heads, lines, dropped=dropped)


def _one_by_one(lines: list[bytes], dropped: int) -> Decoded:
    """Understand each line for itself: the way taken as soon as one line of a block is not a message."""
    found = Decoded([], [], [], dropped)
    for line in lines:
        if not line.strip():
            continue
        message, head = line, _head(line)
        if head is None:
            glued = _glued(line)
            if glued is None:
                found.noise.append(line)
                continue
            message, head = glued
            found.noise.append(line[: -len(message)])
            found.salvaged += 1
            if _DEBUG_EVENT.match(message):
                found.dropped += 1
                continue
        found.heads.append(head)
        found.lines.append(message)
    return found


def _head(line: bytes) -> Head | None:
    """Decode one line, or return nothing if it is not a message."""
    try:
        head = _heads.decode(line)
    except RecursionError:
        return _failure_for(line, _TOO_DEEP)
    except _UNDECODABLE:
        surrogates = b"\\u" in line
        if not surrogates and _ANSWER_START.match(line) is None:
            return None
        try:
            message = json.loads(line)
            if not surrogates:  # it says NaN or Infinity, which are no JSON
                return _failure_for(line, _UNREADABLE)
            head = _head_of(message)
        except RecursionError:
            return _failure_for(line, _TOO_DEEP)
        except ValueError:
            return None
    return head if head.is_message else None


def _failure_for(line: bytes, error: dict[str, str]) -> Head | None:
    """Turn an answer that no decoder here can follow into its request's failure, so that it ends."""
    start = _ANSWER_START.match(line)
    if start is None or not line.endswith(b"}"):
        return None
    return Head(result=ResultHead(int(start[1] or start[2]), error))


def _head_of(message: Any) -> Head:
    """Build the head of a message only the standard library can read, because it holds a lone surrogate."""
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a wrong word on the wire, not a wrong type in the program
    event, result = message.get("event"), message.get("result", msgspec.UNSET)
    head = Head(id=message.get("id", msgspec.UNSET), error=message.get("error"))
    if isinstance(event, dict) and isinstance(event.get("type"), str):
        head.event = EngineEvent(event["type"], event.get("id"), event.get("requestId"))
    elif isinstance(result, dict):
        head.result = ResultHead(result.get("id"), result.get("error"))
    elif isinstance(result, list):
        head.result = []
    else:
        head.result = result
    return head


def _glued(line: bytes) -> tuple[bytes, Head] | None:
    """Find the message behind text that was printed without a newline.

    What looks like the start of one may be a part of it, of which there are many, or of what was printed before. How
    much is looked at has bounds, since a script may print anything of any length meanwhile.
    """
    begin, end = _SALVAGE_WINDOW, max(0, len(line) - _SALVAGE_WINDOW)
    first = [match.start() for match in islice(_MESSAGE_START.finditer(line, 0, begin), _SALVAGE_TRIES)]
    last = [match.start() for match in deque(_MESSAGE_START.finditer(line, end), _SALVAGE_TRIES)]
    budget = len(line) + _SALVAGE_BYTES
    for start in dict.fromkeys([*first, *last]):
        length = len(line) - start
        if length > budget:
            continue
        budget -= length
        message = line[start:]
        head = _head(message) if start else None
        if head is not None:
            return message, head
    return None


def failure_of(head: Head) -> dict[str, Any] | None:
    """Return the error a result head carries; nothing if it is an answer, which may have a field `error` of text."""
    result = head.result
    if type(result) is ResultHead and type(result.error) is dict:
        return result.error
    return head.error if type(head.error) is dict else None


_encode = msgspec.json.Encoder().encode


class _Request(msgspec.Struct, gc=False):
    method: str
    id: int
    params: Any


def encode_request(method: str, request_id: int, params: Any) -> bytes:
    """Encode a request as one line, newline included, or raise `UnserialisableParams`.

    Lone surrogates are escaped, so they arrive as they are.
    """
    request = _Request(method, request_id, params)
    try:
        line = _encode(request) + b"\n"
    except UnicodeEncodeError:
        _refuse_unserialisable(params)
        return json.dumps(msgspec.to_builtins(request), separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
        _refuse_unserialisable(params)
        raise UnserialisableParams("params", str(error)) from None
    # msgspec says null for NaN; where there is no null there was none. (`in` is slower: it tries a number first.)
    if line.find(b"null") >= 0 and params is not None and type(params) is not msgspec.Raw:
        _refuse_unserialisable(params)
    return line


_BEFORE_PARAMS = len(b'{"method":"","id":0,"params":')


def freeze(params: Any) -> msgspec.Raw:
    """Encode the params of a request that is sent later as they are now; raises as `encode_request`."""
    return msgspec.Raw(encode_request("", 0, params)[_BEFORE_PARAMS:-2])


def cancel_line(request_id: int) -> bytes:
    """Encode the cancel of a request. Its answer, if there is one, comes under the id of the request itself."""
    return b'{"method":"cancel","id":%d}\n' % request_id


def _refuse_unserialisable(value: Any, path: str = "", above: tuple[int, ...] = ()) -> None:
    """Raise for the first part of the value JSON has no word for, naming it."""
    name = path or "params"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnserialisableParams(name, f"{value} has no form in JSON")
    elif isinstance(value, (Mapping, list, tuple)):
        if id(value) in above:
            raise UnserialisableParams(name, "it contains itself")
        if len(above) > 200:
            raise UnserialisableParams(name, "nested more than 200 deep")
        inside = (*above, id(value))
        if isinstance(value, Mapping):
            for key, part in value.items():
                _refuse_unserialisable(part, f"{path}.{key}" if path else str(key), inside)
        else:
            for index, part in enumerate(value):
                _refuse_unserialisable(part, f"{name}[{index}]", inside)
    elif not isinstance(value, (str, int, type(None))):
        try:
            built = msgspec.to_builtins(value)
        except (TypeError, ValueError, RecursionError):
            raise UnserialisableParams(name, f"a {type(value).__name__} has no form in JSON") from None
        if not isinstance(built, (str, int, type(None))):
            _refuse_unserialisable(built, path, (*above, id(value)))
