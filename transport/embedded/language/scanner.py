"""Reading a text from left to right: where we are, what comes next, and how positions are told to clients."""

import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

from mlld_sdk.transport.embedded.errors import ScriptParseError
from mlld_sdk.transport.embedded.language.syntax import TextSpan

T = TypeVar("T")

BLANKS = " \t\r\u200b\u200c\u200d"
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
DIGITS = frozenset("0123456789")
WORD = LETTERS | DIGITS
_QUOTES = frozenset("\"'`")
_RUN_OF_LETTERS = re.compile("[A-Za-z0-9_-]*")
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")
_SPACE = re.compile(rf"(?:[{BLANKS}\n]+|(?:>>|<<)[^\n]*)*")
_LINE_REST = re.compile(r"[^\n]*")
_LINE_END = re.compile(rf"[{BLANKS}]*(?:\n|\Z|(?<![^{BLANKS}\n])(?:>>|<<))")


class LineMap:
    """Turns character numbers into lines, columns and UTF-16 offsets, as the real engine counts them."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self._wide = [] if text.isascii() else [index for index, char in enumerate(text) if ord(char) > 0xFFFF]

    def _units(self, offset: int) -> int:
        return offset + bisect_right(self._wide, offset - 1) if self._wide else offset

    def point(self, offset: int) -> dict[str, int]:
        """Return offset, line and column of a character."""
        line = bisect_right(self._starts, offset)
        units = self._units(offset)
        return {"offset": units, "line": line, "column": units - self._units(self._starts[line - 1]) + 1}

    def span(self, span: TextSpan) -> dict[str, dict[str, int]]:
        """Return the points where a part starts and ends."""
        return {"start": self.point(span.start), "end": self.point(span.end)}


class Scanner:
    """A cursor over a text, shared by the parsers. It knows characters, words and comments, not mlld.

    `lenient` lets the parsers read past what this engine does not run, for `analyze`.
    """

    def __init__(self, text: str, pos: int, *, lenient: bool) -> None:
        self.text = text
        self.pos = pos
        self.end = len(text)
        self.lenient = lenient

    def peek(self, ahead: int = 0) -> str:
        """Return the character `ahead` of the cursor, or an empty text behind the end."""
        index = self.pos + ahead
        return self.text[index] if index < self.end else ""

    def looking_at(self, word: str | tuple[str, ...]) -> bool:
        """Return whether the text goes on with exactly this, or one of these."""
        return self.text.startswith(word, self.pos)

    def word(self) -> str:
        """Return the letters, digits, `_` and `-` from here on without stepping over them."""
        return self.match(_RUN_OF_LETTERS)

    def match(self, pattern: re.Pattern[str]) -> str:
        """Return what fits a pattern from here on, which may be nothing, without stepping over it."""
        found = pattern.match(self.text, self.pos)
        return found.group() if found else ""

    def at_quote(self) -> bool:
        """Return whether a quoted text starts here."""
        return self.peek() in _QUOTES or self.looking_at("::")

    def at_line_end(self) -> bool:
        """Return whether only blanks and a comment are left on this line."""
        return _LINE_END.match(self.text, self.pos) is not None

    def at_value_end(self) -> bool:
        """Return whether a statement ends here, so that its optional value is missing."""
        return self.at_line_end() or self.peek() == "]"

    def line_rest(self) -> str:
        """Return what is left of this line."""
        return self.match(_LINE_REST)

    def read(self, pattern: re.Pattern[str]) -> str:
        """Step over what fits a pattern, which may be nothing, and return it."""
        found = self.match(pattern)
        self.pos += len(found)
        return found

    def take(self, word: str) -> bool:
        """Step over `word` if it is next, and return whether it was."""
        if not self.looking_at(word):
            return False
        self.pos += len(word)
        return True

    def take_word(self, word: str) -> bool:
        """Step over `word` if it is next as a whole word, and return whether it was."""
        if not self.looking_at(word) or self.word() != word:
            return False
        self.pos += len(word)
        return True

    def take_keyword(self, word: str) -> bool:
        """Step over `word` and the blanks behind it if it is next as a whole word, and return whether it was."""
        if not self.take_word(word):
            return False
        self.skip_blanks()
        return True

    def expect(self, word: str, context: str) -> None:
        """Step over `word` or raise the error that it is missing."""
        if not self.take(word):
            found = "end of text" if self.pos >= self.end else repr(self.text[self.pos : self.pos + 12])
            raise self.error(f"Expected {word!r} {context}, found {found}")

    def skip_blanks(self) -> None:
        """Step over blanks on this line."""
        while self.pos < self.end and self.text[self.pos] in BLANKS:
            self.pos += 1

    def skip_space(self) -> None:
        """Step over blanks, line ends and comments."""
        self.read(_SPACE)

    def finish_line(self) -> None:
        """Step over the rest of a statement's line: blanks, a comment and the line end itself."""
        self.read(_LINE_REST)
        self.take("\n")

    def identifier(self) -> str:
        """Read a name (letters, digits, `_`, and `-` between them), or return an empty text."""
        return self.read(_IDENTIFIER)

    def items(self, closing: str, read: Callable[[], T], *, of: str = "", start: int = 0) -> tuple[T, ...]:
        """Read items up to and over `closing`.

        For errors, `of` is what the items are in, and `start` where that starts. Without it commas may be missing.
        """
        found: list[T] = []
        self.skip_space()
        while not self.take(closing):
            if of and self.pos >= self.end:
                raise self.error(f"Unclosed {of}. Expected {closing!r}", start)
            found.append(read())
            self.skip_space()
            if self.take(","):
                self.skip_space()
            elif of and self.peek() != closing:
                raise self.error(f"Expected ',' or {closing!r} in the {of}")
        return tuple(found)

    def span(self, start: int) -> TextSpan:
        """Return the part from `start` to the cursor."""
        return TextSpan(start, self.pos)

    def is_mentioned(self, name: str) -> bool:
        """Return whether a name stands anywhere but as a pipeline's stage, so that the script itself may define it."""
        mentions = re.finditer(rf"@{name}(?![A-Za-z0-9_])", self.text)
        return any(not self.text[: found.start()].rstrip(BLANKS).endswith("|") for found in mentions)

    def line(self, offset: int | None = None) -> int:
        """Return the number of the cursor's line, or of the line of `offset`."""
        return self.text.count("\n", 0, self.pos if offset is None else offset) + 1

    def error(self, message: str, offset: int | None = None) -> ScriptParseError:
        """Return the error for a place in the text."""
        where = self.pos if offset is None else offset
        column = where - self.text.rfind("\n", 0, where)
        return ScriptParseError(f"Parse error: {message} at line {self.line(where)}, column {column}")
