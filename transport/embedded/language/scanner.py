"""Reading a text from left to right: where we are, what comes next, and how positions are told to clients."""

from bisect import bisect_right
from itertools import accumulate

from mlld_sdk.transport.embedded.errors import ScriptParseError
from mlld_sdk.transport.embedded.language.syntax import TextSpan

BLANKS = " \t\r\u200b\u200c\u200d"
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
WORD = LETTERS | frozenset("0123456789")
DIGITS = frozenset("0123456789")


class LineMap:
    """Turns character numbers into lines, columns and UTF-16 offsets, as the real engine counts them."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self._wide = [] if text.isascii() else [index for index, char in enumerate(text) if ord(char) > 0xFFFF]

    def _units(self, offset: int) -> int:
        return offset + bisect_right(self._wide, offset - 1) if self._wide else offset

    def point(self, offset: int) -> dict[str, int]:
        """Give offset, line and column of a character."""
        line = bisect_right(self._starts, offset)
        units = self._units(offset)
        return {"offset": units, "line": line, "column": units - self._units(self._starts[line - 1]) + 1}

    def span(self, span: TextSpan) -> dict[str, dict[str, int]]:
        """Give start and end of a part."""
        return {"start": self.point(span.start), "end": self.point(span.end)}


class Scanner:
    """A cursor over a text. The parsers build on it; it knows characters and comments, not mlld."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.end = len(text)

    # -- looking

    def peek(self, ahead: int = 0) -> str:
        """Give the character `ahead` of the cursor, or an empty text behind the end."""
        index = self.pos + ahead
        return self.text[index] if index < self.end else ""

    def looking_at(self, word: str) -> bool:
        """Say whether the text goes on with exactly this."""
        return self.text.startswith(word, self.pos)

    def looking_at_word(self, word: str) -> bool:
        """Say whether the text goes on with this as a whole word."""
        return self.looking_at(word) and self.peek(len(word)) not in WORD and self.peek(len(word)) != "-"

    def at_line_end(self) -> bool:
        """Say whether only blanks and a comment are left on this line."""
        index = self.pos
        while index < self.end and self.text[index] in BLANKS:
            index += 1
        if index >= self.end or self.text[index] == "\n":
            return True
        return self.text.startswith((">>", "<<"), index) and (index == 0 or self.text[index - 1] in BLANKS + "\n")

    # -- moving

    def take(self, word: str) -> bool:
        """Step over `word` if it is next."""
        if not self.looking_at(word):
            return False
        self.pos += len(word)
        return True

    def take_word(self, word: str) -> bool:
        """Step over `word` if it is next as a whole word."""
        if not self.looking_at_word(word):
            return False
        self.pos += len(word)
        return True

    def expect(self, word: str, context: str) -> None:
        """Step over `word` or fail."""
        if not self.take(word):
            found = "end of text" if self.pos >= self.end else repr(self.text[self.pos : self.pos + 12])
            raise self.error(f"Expected {word!r} {context}, found {found}")

    def skip_blanks(self) -> None:
        """Step over blanks on this line."""
        while self.pos < self.end and self.text[self.pos] in BLANKS:
            self.pos += 1

    def skip_space(self) -> None:
        """Step over blanks, line ends and comments."""
        while self.pos < self.end:
            char = self.text[self.pos]
            if char in BLANKS or char == "\n":
                self.pos += 1
            elif self.looking_at(">>") or self.looking_at("<<"):
                self.skip_line()
            else:
                return

    def skip_line(self) -> None:
        """Step to the end of this line, not over it."""
        line_end = self.text.find("\n", self.pos)
        self.pos = self.end if line_end < 0 else line_end

    def finish_line(self) -> None:
        """Step over the rest of a statement's line: blanks, a comment and the line end itself."""
        self.skip_blanks()
        if self.looking_at(">>") or self.looking_at("<<"):
            self.skip_line()
        self.take("\n")

    def identifier(self) -> str:
        """Read a name (letters, digits, `_`, and `-` between them), or give an empty text."""
        if self.peek() not in LETTERS or not self.peek():
            return ""
        start = self.pos
        self.pos += 1
        while self.pos < self.end:
            char = self.text[self.pos]
            if char in WORD:
                self.pos += 1
            elif char == "-" and self.peek(1) and self.peek(1) in WORD:
                self.pos += 2
            else:
                break
        return self.text[start : self.pos]

    # -- failing

    def is_mentioned(self, name: str) -> bool:
        """Say whether a name stands anywhere but as a pipeline's stage, so that the script itself may define it."""
        at = self.text.find("@" + name)
        while at >= 0:
            behind = self.text[at + len(name) + 1 : at + len(name) + 2]
            if behind not in WORD and not self.text[:at].rstrip(BLANKS).endswith("|"):
                return True
            at = self.text.find("@" + name, at + 1)
        return False

    def line(self, offset: int | None = None) -> int:
        """Give the number of the line."""
        return self.text.count("\n", 0, self.pos if offset is None else offset) + 1

    def error(self, message: str, offset: int | None = None) -> ScriptParseError:
        """Make the error for a place in the text."""
        where = self.pos if offset is None else offset
        column = where - self.text.rfind("\n", 0, where)
        return ScriptParseError(f"Parse error: {message} at line {self.line(where)}, column {column}")
