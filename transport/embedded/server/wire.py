"""Messages in and out: lines of JSON, read as JavaScript reads them and written as it writes them."""

import json
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mlld_sdk.transport.embedded.errors import RequestError
from mlld_sdk.transport.javascript import json_text

READ_SIZE = 1 << 16
_MARGIN = "\ufeff \t\r\n\x0b\x0c\xa0"


def _number(text: str) -> float:
    value = int(text)
    return value if abs(value) <= 2**53 else float(text)


def _refuse(name: str) -> Any:
    raise ValueError(name)


def read_json(text: str) -> Any:
    """Read one line.

    Raises:
        RequestError: With the message the real engine would give.
    """
    try:
        return json.loads(text, parse_int=_number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        from mlld_sdk.transport.embedded.server.json_faults import explain

        raise RequestError("INVALID_JSON", explain(text)) from None


def read_lines(descriptor: int, wake: int, caught_up: Callable[[], None]) -> Iterator[str]:
    """Yield every line as text, trimmed; the last one counts without its line end. Invalid UTF-8 is replaced.

    Args:
        descriptor: Where to read.
        wake: Becomes readable when a signal has arrived. Any thread may have taken it, so waiting for the requests
            alone could go on for ever.
        caught_up: Called when all lines that have arrived together are handled, before the next ones are waited for.
    """
    pieces: list[bytes] = []  # of a line whose end has not come yet
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    poll.register(wake, select.POLLIN)
    while True:
        caught_up()
        ready = [number for number, _ in poll.poll()]
        if wake in ready:
            os.read(wake, READ_SIZE)
        if descriptor not in ready:
            continue
        piece = os.read(descriptor, READ_SIZE)
        if not piece:
            break
        if b"\n" not in piece and b"\r" not in piece:
            pieces.append(piece)
            continue
        lines = b"".join([*pieces, piece]).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        pieces = [lines.pop()]
        for line in lines:
            yield line.decode("utf-8", "replace").strip(_MARGIN)
    if rest := b"".join(pieces):
        yield rest.decode("utf-8", "replace").strip(_MARGIN)


def write_json(message: Any) -> bytes:
    """Write a message as one line without its end."""
    try:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), default=_unknown, allow_nan=False)
        if ("." not in text and "e" not in text) or not _has_float(message):
            return text.encode("utf-8")
    except ValueError:  # not-a-number, a lone surrogate
        pass
    return json_text(message).encode("utf-8", "backslashreplace")


def _has_float(value: Any) -> bool:
    if isinstance(value, float):
        return True
    if isinstance(value, dict):
        return any(_has_float(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_has_float(item) for item in value)


def _unknown(value: Any) -> Any:
    raise ValueError(f"not plain data: {type(value).__name__}")


class LineWriter:
    """Writes lines, whole and one after the other, from any thread; tells when the other end has been closed."""

    def __init__(self, descriptor: int, on_broken: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        view = memoryview(data)
        try:
            with self._lock:
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError:
            self._on_broken()


def id_text(request_id: Any) -> str:
    """Return an id as it stands inside a message."""
    return request_id if isinstance(request_id, str) else json_text(request_id)
