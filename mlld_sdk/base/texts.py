"""Texts made from what users define: an exception, a reason, a message may say anything, fail to, or never end.

Whatever becomes part of a record, an event, a log line or an answer goes through here, so that no object can take down
what only describes it.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from mlld_sdk.base.secrets import LONGEST as LONGEST_SECRET
from mlld_sdk.base.secrets import redacted

LONGEST: Final = 1_000
"""Characters that are kept of a text unless somebody asks for more."""

DEEPEST: Final = 64
"""Levels of a value that are looked through for texts."""

_STEERS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
"""Characters a terminal obeys or does not show: controls, marks of direction, what has no width; joiners aside."""


def text_of(value: object, limit: int = LONGEST, *, say: Callable[[Any], str] = str) -> str:
    """Return the text of anything, cut to `limit` characters and fit to be written; never raises.

    Args:
        value: What is described.
        limit: Characters that are kept.
        say: Makes the text; `repr` for values in quotes.
    """
    try:
        text = say(value)
        return fit(str.__str__(text[:limit]))  # a subclass of str may have ideas of its own
    except BaseException as error:  # noqa: BLE001 - what cannot say what it is must not hide that it was there
        return f"<{type(value).__name__} has no text: {type(error).__name__}>"


def text_of_failure(error: object, limit: int = LONGEST) -> str:
    """Return what an exception says, or another failure, as `text_of` does, with secrets hidden in it."""
    return redacted(text_of(error, limit + LONGEST_SECRET))[:limit]


def text_of_error(error: BaseException, limit: int = LONGEST) -> str:
    """Name the class of an exception, and what it says, with secrets hidden in it."""
    return f"{type(error).__name__}: {text_of_failure(error, limit)}"


def shorten(text: str, limit: int) -> str:
    """Cut a text to `limit` characters, keeping both ends and saying how much is missing."""
    if len(text) <= limit:
        return text
    half = max(limit // 2 - 20, 1)
    return f"{text[:half]} ...[{len(text) - 2 * half} characters left out]... {text[-half:]}"


def fit(text: str) -> str:
    """Return a text that can be written as UTF-8: halves of surrogate pairs are spelled out as escapes."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text that can be shown to a person: what would steer a terminal or hide is spelled out as in JSON.

    Escape sequences, returns, and marks that turn the direction of what follows are shown and not obeyed, so that no
    text can pass for what was printed before or after it. What is said in JSON stays the same JSON.

    Args:
        text: The text.
        lines: Whether it is meant to have lines and columns; otherwise their ends are spelled out, too.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return _STEERS.sub(lambda found: found[0] if found[0] in kept else _spelled(found[0]), text)


def _spelled(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    units = character.encode("utf-16-be", "surrogatepass")
    return short or "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def fit_all(value: Any, depth: int = DEEPEST) -> Any:
    """Return a value made of structs, lists, tuples and dicts with all its texts fit to be written."""
    if isinstance(value, str):
        return fit(value)
    if depth == 0:
        return value
    if isinstance(value, msgspec.Struct):
        fields = {name: fit_all(getattr(value, name), depth - 1) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    if isinstance(value, dict):
        return {fit_all(name, depth - 1): fit_all(one, depth - 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(fit_all(one, depth - 1) for one in value)
    return value


def portable(value: Any) -> Any:
    """Return what another process can be sent of a value: itself, or its text if it cannot be pickled."""
    import pickle  # noqa: TID251 - to find out whether others can

    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - an object may refuse with any error
        return text_of(value, say=repr)
    return value


def encoded(encode: msgspec.json.Encoder, value: object) -> bytes:
    """Encode a value as JSON; texts that cannot be written are made fit first."""
    try:
        return encode.encode(value)
    except UnicodeEncodeError:
        return encode.encode(fit_all(value))
