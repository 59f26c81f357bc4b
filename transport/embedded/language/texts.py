"""Reading texts with holes: the four quotings of mlld, command bodies and file names."""

import re
from itertools import groupby
from typing import Any, NamedTuple

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language.scanner import LETTERS, Scanner
from mlld_sdk.transport.embedded.language.syntax import FieldAccess, FileRead, Hole, Literal, Reference, Template

PLAIN_ESCAPES = {char: char for char in "@\\[]{}\"'`$"}
ESCAPES = {**PLAIN_ESCAPES, "n": "\n", "t": "\t", "r": "\r", "0": "\0", ".": "."}
FILE_MARKS = frozenset("./*@")
_KEPT_BACKSLASHES = frozenset(("n", "t", "r", "`", '"', "'", "0"))
_PLAIN = re.compile(r"[\w ,.]+|[\s\S]")
"""Characters that mean nothing special in any text, or one that does."""


class Quoting(NamedTuple):
    """What a kind of text is called, what it ends with and which rules hold inside."""

    name: str
    closing: str
    escapes: bool = True
    newlines: bool = True


DOUBLE = Quoting("string", '"', newlines=False)
BACKTICK = Quoting("backtick template", "`")
COLONS = Quoting("template", "::", escapes=False)


class TextParser(Scanner):
    """Reads quoted texts, command bodies and file names."""

    def fields(self, target: Any, start: int, *, tight: bool) -> Any:
        """Read what clings to a value; `ExpressionParser` knows how."""
        raise NotImplementedError

    def quoted(self) -> Literal | Template:
        """Read a quoted text of any kind."""
        start = self.pos
        if self.take("'"):
            return Literal(self._single(start))
        if self.take('"'):
            return self._holed(DOUBLE, start)
        if self.take("`"):
            return self._holed(BACKTICK, start)
        if self.looking_at(":::"):
            raise self.error("Templates in ::: are not part of this subset")
        self.expect("::", "to open a template")
        return self._holed(COLONS, start)

    def _single(self, start: int) -> str:
        chars: list[str] = []
        while not self.take("'"):
            char = self.peek()
            if not char:
                raise self.error("Unclosed string. Expected closing single quote (').", start)
            if (char == "\\" and self.peek(1) in PLAIN_ESCAPES) or self.looking_at("@@"):
                self.pos += 1
            chars.append(self.peek())
            self.pos += 1
        return "".join(chars)

    def _holed(self, quoting: Quoting, start: int) -> Literal | Template:
        parts: list[Any] = []
        escapes = ESCAPES if quoting.escapes else {"@": "@"}
        while not self.take(quoting.closing):
            char, following = self.peek(), self.peek(1)
            if not char or (char == "\n" and not quoting.newlines):
                raise self.error(f"Unclosed {quoting.name}. Expected closing {quoting.closing}", start)
            if char == "\\" and following in escapes:
                parts.append(escapes[following])
                self.pos += 2
            elif char == "@" and following == "@":
                parts.append("@")
                self.pos += 2
            elif char == "@" and following in LETTERS:
                parts.append(self._hole(quoting))
                parts += self._boundary()
            elif char == "<" and (quoting.newlines or not _ends_in_text(parts)) and (read := self._file_read_in_text()):
                parts.append(read)
            else:
                parts.append(self.read(_PLAIN))
        whole = _joined(parts)
        return _text_of(_trimmed(whole) if quoting is COLONS else whole)

    def _hole(self, quoting: Quoting | None = None) -> Hole:
        """Read `@name` and what clings to it inside a text."""
        start = self.pos
        self.pos += 1
        value = self.fields(Reference(self.identifier(), self.span(start)), start, tight=True)
        raw = self.text[start : self.pos]
        if self.looking_at("|@"):
            raise UnsupportedConstruct("a pipe inside a text", self.line(start))
        if self.looking_at(('??"', "??'")):
            self.pos += 2
            return Hole(value, raw, default=self.quoted())
        if quoting is None or not self.take("?"):
            return Hole(value, raw)
        inner = DOUBLE if quoting is DOUBLE else BACKTICK
        if not self._opens(inner):
            return Hole(value, raw, omit=True)
        self.pos += 1
        text = self._holed(inner, self.pos - 1)
        return Hole(value, raw, when=text if isinstance(text, Template) else Template((text.data,)))

    def _opens(self, quoting: Quoting) -> bool:
        """Return whether the quote behind `@x?` opens a snippet, which has one line, instead of closing the text."""
        if self.peek() != quoting.closing:
            return False
        closing = self.text.find(quoting.closing, self.pos + 1)
        if closing < 0 or "\n" in self.text[self.pos : closing]:
            return False
        return quoting is BACKTICK or self.text.find(quoting.closing, closing + 1) >= 0

    def _boundary(self) -> str:
        """Read the backslash that ends a name inside a text, and return what stays of it."""
        if self.take("\\\\"):
            return "\\"
        if self.take("\\@"):
            return "@"
        if self.peek() == "\\" and self.peek(1) not in _KEPT_BACKSLASHES:
            self.pos += 1
        return ""

    # -- files

    def _file_read_in_text(self) -> FileRead | None:
        """Read `<path>` inside a text if it looks like a file name, as `<b>` does not."""
        text, start = self.text, self.pos + 1
        close = text.find(">", start)
        inner = text[start:close] if close >= 0 else ""
        if not inner or "\n" in inner or "<" in inner or " " in inner.strip():
            return None
        if inner[0] in "!/ " or inner[-1] == "/" or not FILE_MARKS & set(inner):
            return None
        return self.file_read()

    def file_read(self) -> FileRead:
        """Read `<path>`."""
        start = self.pos
        self.expect("<", "to open a file name")
        parts: list[Any] = []
        while not self.take(">"):
            char = self.peek()
            if not char or char == "\n":
                raise self.error("Unclosed file name. Expected closing >", start)
            if char == "#":
                raise self.error("Sections of files are not part of this subset")
            if char == "@" and self.peek(1) in LETTERS:
                parts.append(self._path_hole())
            else:
                parts.append(self.read(_PLAIN))
        path = _joined(parts)
        if path and isinstance(path[0], str):
            path[0] = path[0].lstrip()
        if path and isinstance(path[-1], str):
            path[-1] = path[-1].rstrip()
        return FileRead(Template(tuple(path)), self.take("?"), self.span(start))

    def _path_hole(self) -> Hole:
        """Read `@name.field` inside a path; an extension begins with a dot behind a backslash."""
        start = self.pos
        self.pos += 1
        value: Any = Reference(self.identifier(), self.span(start))
        while self.peek() == "." and self.peek(1) in LETTERS:
            self.pos += 1
            value = FieldAccess(value, Literal(self.identifier()))
        raw = self.text[start : self.pos]
        self._boundary()
        return Hole(value, raw)

    # -- bodies of commands

    def shell_body(self) -> str:
        """Read a shell body between braces; braces inside must pair up, quoted texts may hold any."""
        start = self.pos
        self.expect("{", "to open the body")
        depth, begin = 1, self.pos
        while self.pos < self.end:
            char = self.text[self.pos]
            if char in "\"'":
                self.pos = self._behind_quoted(char)
                continue
            depth += (char == "{") - (char == "}")
            self.pos += 1
            if depth == 0:
                return self.text[begin : self.pos - 1]
        raise self.error("Unterminated code block. Expected '}'", start)

    def _behind_quoted(self, quote: str) -> int:
        """Return the end of a quoted text in a shell body; a quote without a partner is a plain character."""
        text, at = self.text, self.pos + 1
        while at < len(text) and text[at] != quote:
            at += 2 if text[at] == "\\" and quote == '"' else 1
        return at + 1 if at < len(text) else self.pos + 1

    def command_body(self) -> Template:
        """Read the body of `cmd`: text with holes, where single quotes protect.

        The holes are pairs of `Hole` and whether it stands in double quotes.
        """
        start = self.pos
        self.expect("{", "to open the command")
        parts: list[Any] = []
        quote = ""
        while True:
            char = self.peek()
            if not char:
                raise self.error("Unterminated command. Expected '}'", start)
            if char == "\\" and (quote != "'" or self.peek(1) == "@"):
                parts.append("@" if self.peek(1) == "@" else self.text[self.pos : self.pos + 2])
                self.pos += 2
                continue
            if char == "@" and self.peek(1) in LETTERS and quote != "'":
                parts.append((self._hole(), quote == '"'))
                continue
            if quote:
                quote = "" if char == quote else quote
            elif char in "\"'":
                quote = char
            elif self.take("}"):
                return Template(tuple(_joined(parts)))
            elif char in "{;&<>" or self.looking_at("||"):
                raise self.error(f"Shell operator {char} is not allowed in cmd {{ }}. Use sh {{ }} instead.")
            parts.append(self.read(_PLAIN))


def _ends_in_text(parts: list[Any]) -> bool:
    return bool(parts) and isinstance(parts[-1], str)


def _joined(parts: list[Any]) -> list[Any]:
    """Make neighbouring texts one."""
    joined: list[Any] = []
    for is_text, row in groupby(parts, lambda part: isinstance(part, str)):
        if is_text:
            joined.append("".join(row))
        else:
            joined.extend(row)
    return joined


def _text_of(parts: list[Any]) -> Literal | Template:
    """Return parts as a plain text if they are one."""
    if not parts:
        return Literal("")
    return Literal(parts[0]) if len(parts) == 1 and isinstance(parts[0], str) else Template(tuple(parts))


def _trimmed(parts: list[Any]) -> list[Any]:
    """Drop the line ends right behind the opening and right before the closing colons."""
    if parts and isinstance(parts[0], str):
        parts[0] = parts[0].removeprefix("\n")
    if parts and isinstance(parts[-1], str):
        parts[-1] = parts[-1].removesuffix("\n")
    return [part for part in parts if part != ""]
