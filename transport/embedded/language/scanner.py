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
_COMMENTS = (">>", "<<")
_RUN_OF_LETTERS = re.compile("[A-Za-z0-9_-]*")
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*")
_SPACE = re.compile(rf"(?:[{BLANKS}\n]+|(?:>>|<<)[^\n]*)*")
_DIGITS = re.compile("[0-9]*")


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

    Attributes:
        text: The whole text.
        pos: Where the cursor stands.
        end: The length of the text.
    """

    def __init__(self, text: str, pos: int = 0) -> None:
        self.text = text
        self.pos = pos
        self.end = len(text)

    # -- looking

    def peek(self, ahead: int = 0) -> str:
        """Return the character `ahead` of the cursor, or an empty text behind the end."""
        index = self.pos + ahead
        return self.text[index] if index < self.end else ""

    def looking_at(self, word: str | tuple[str, ...]) -> bool:
        """Return whether the text goes on with exactly this, or one of these."""
        return self.text.startswith(word, self.pos)

    def word(self) -> str:
        """Return the letters, digits, `_` and `-` from here on without stepping over them."""
        return self._matched(_RUN_OF_LETTERS)

    def _matched(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.pos)
        return found.group() if found else ""

    def at_quote(self) -> bool:
        """Return whether a quoted text starts here."""
        return self.peek() in _QUOTES or self.looking_at("::")

    def at_line_end(self) -> bool:
        """Return whether only blanks and a comment are left on this line."""
        index = self.pos
        while index < self.end and self.text[index] in BLANKS:
            index += 1
        if index >= self.end or self.text[index] == "\n":
            return True
        return self.text.startswith(_COMMENTS, index) and (index == 0 or self.text[index - 1] in BLANKS + "\n")

    def at_value_end(self) -> bool:
        """Return whether a statement ends here, so that its optional value is missing."""
        return self.at_line_end() or self.peek() == "]"

    def line_rest(self) -> str:
        """Return what is left of this line."""
        line_end = self.text.find("\n", self.pos)
        return self.text[self.pos : self.end if line_end < 0 else line_end]

    # -- moving

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
        self.pos += len(self._matched(_SPACE))

    def finish_line(self) -> None:
        """Step over the rest of a statement's line: blanks, a comment and the line end itself."""
        self.pos += len(self.line_rest())
        self.take("\n")

    def identifier(self) -> str:
        """Read a name (letters, digits, `_`, and `-` between them), or return an empty text."""
        name = self._matched(_IDENTIFIER)
        self.pos += len(name)
        return name

    def digits(self) -> str:
        """Read digits."""
        digits = self._matched(_DIGITS)
        self.pos += len(digits)
        return digits

    def run_of(self, chars: frozenset[str]) -> str:
        """Read as many of these characters as follow."""
        start = self.pos
        while self.peek() in chars:
            self.pos += 1
        return self.text[start : self.pos]

    def items(self, closing: str, read: Callable[[], T], *, of: str = "", start: int = 0) -> tuple[T, ...]:
        """Read items up to and over `closing`.

        Args:
            closing: The character behind the last item.
            read: Reads one item.
            of: What the items are in, for errors. Without it commas between items may be missing.
            start: Where that starts, for errors.
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

    # -- telling

    def span(self, start: int) -> TextSpan:
        """Return the part from `start` to the cursor."""
        return TextSpan(start, self.pos)

    def is_mentioned(self, name: str) -> bool:
        """Return whether a name stands anywhere but as a pipeline's stage, so that the script itself may define it."""
        at = self.text.find("@" + name)
        while at >= 0:
            behind = self.text[at + len(name) + 1 : at + len(name) + 2]
            if behind not in WORD and not self.text[:at].rstrip(BLANKS).endswith("|"):
                return True
            at = self.text.find("@" + name, at + 1)
        return False

    def line(self, offset: int | None = None) -> int:
        """Return the number of the cursor's line, or of the line of `offset`."""
        return self.text.count("\n", 0, self.pos if offset is None else offset) + 1

    def error(self, message: str, offset: int | None = None) -> ScriptParseError:
        """Return the error for a place in the text."""
        where = self.pos if offset is None else offset
        column = where - self.text.rfind("\n", 0, where)
        return ScriptParseError(f"Parse error: {message} at line {self.line(where)}, column {column}")
