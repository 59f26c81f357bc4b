"""Reading texts with holes: the four quotings of mlld, command bodies and file names."""

import re
from collections.abc import Callable
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
    """What a kind of text begins and ends with, how an error names the text and its end, and the rules inside."""

    mark: str
    name: str
    ending: str
    escapes: dict[str, str] = ESCAPES
    newlines: bool = True
    holes: bool = True


SINGLE = Quoting("'", "string", "single quote (').", PLAIN_ESCAPES, holes=False)
DOUBLE = Quoting('"', "string", '"', newlines=False)
BACKTICK = Quoting("`", "backtick template", "`")
COLONS = Quoting("::", "template", "::", {"@": "@"})


class TextParser:
    """Reads quoted texts, command bodies and file names; `fields` reads what clings to a value inside a text."""

    def __init__(self, scan: Scanner, fields: Callable[[Any, int], Any]) -> None:
        self._scan = scan
        self._fields = fields

    def quoted(self) -> Literal | Template:
        """Read the quoted text that begins here, of any kind."""
        scan = self._scan
        start = scan.pos
        if scan.looking_at(":::"):
            raise scan.error("Templates in ::: are not part of this subset")
        quoting = next(quoting for quoting in (SINGLE, DOUBLE, BACKTICK, COLONS) if scan.take(quoting.mark))
        return self._behind(quoting, start)

    def _behind(self, quoting: Quoting, start: int) -> Literal | Template:
        """Read the rest of a quoted text that begins at `start`."""
        scan = self._scan
        parts: list[Any] = []
        while not scan.take(quoting.mark):
            char, following = scan.peek(), scan.peek(1)
            if not char or (char == "\n" and not quoting.newlines):
                raise scan.error(f"Unclosed {quoting.name}. Expected closing {quoting.ending}", start)
            if char == "\\" and following in quoting.escapes:
                parts.append(quoting.escapes[following])
                scan.pos += 2
            elif char == "@" and following == "@":
                parts.append("@")
                scan.pos += 2
            elif not quoting.holes:
                parts.append(scan.read(_PLAIN))
            elif char == "@" and following in LETTERS:
                parts.append(self._hole(quoting))
                parts += self._boundary()
            elif char == "<" and (read := self._file_read_in_text(quoting, parts)):
                parts.append(read)
            else:
                parts.append(scan.read(_PLAIN))
        whole = _joined(parts)
        return _text_of(_trimmed(whole) if quoting is COLONS else whole)

    def _hole(self, quoting: Quoting | None = None) -> Hole:
        """Read `@name` and what clings to it inside a text."""
        scan = self._scan
        start = scan.pos
        scan.pos += 1
        value = self._fields(Reference(scan.identifier()), start)
        raw = scan.text[start : scan.pos]
        if scan.looking_at("|@"):
            raise UnsupportedConstruct("a pipe inside a text", scan.line(start))
        if scan.looking_at(('??"', "??'")):
            scan.pos += 2
            return Hole(value, raw, default=self.quoted())
        if quoting is None or not scan.take("?"):
            return Hole(value, raw)
        inner = DOUBLE if quoting is DOUBLE else BACKTICK
        if not self._opens(inner):
            return Hole(value, raw, omit=True)
        scan.pos += 1
        text = self._behind(inner, scan.pos - 1)
        return Hole(value, raw, when=text if isinstance(text, Template) else Template((text.data,)))

    def _opens(self, quoting: Quoting) -> bool:
        """Return whether the quote behind `@x?` opens a snippet, which has one line, instead of closing the text."""
        scan = self._scan
        if scan.peek() != quoting.mark:
            return False
        closing = scan.text.find(quoting.mark, scan.pos + 1)
        if closing < 0 or "\n" in scan.text[scan.pos : closing]:
            return False
        return quoting is BACKTICK or scan.text.find(quoting.mark, closing + 1) >= 0

    def _boundary(self) -> str:
        """Read the backslash that ends a name inside a text, and return what stays of it."""
        scan = self._scan
        if scan.take("\\\\"):
            return "\\"
        if scan.take("\\@"):
            return "@"
        if scan.peek() == "\\" and scan.peek(1) not in _KEPT_BACKSLASHES:
            scan.pos += 1
        return ""

    def _file_read_in_text(self, quoting: Quoting, before: list[Any]) -> FileRead | None:
        """Read `<path>` inside a text if it looks like a file name, as `<b>` does not."""
        if not quoting.newlines and _ends_in_text(before):
            return None
        text, start = self._scan.text, self._scan.pos + 1
        close = text.find(">", start)
        inner = text[start:close] if close >= 0 else ""
        if not inner or "\n" in inner or "<" in inner or " " in inner.strip():
            return None
        if inner[0] in "! " or inner[-1] == "/" or not FILE_MARKS & set(inner):
            return None
        if inner[0] == "/" and not (quoting.newlines and "." in inner):  # it ends a tag
            return None
        return self.file_read()

    def file_read(self) -> FileRead:
        """Read `<path>`."""
        scan = self._scan
        start = scan.pos
        scan.expect("<", "to open a file name")
        parts: list[Any] = []
        while not scan.take(">"):
            char = scan.peek()
            if not char or char == "\n":
                raise scan.error("Unclosed file name. Expected closing >", start)
            if char == "#":
                raise scan.error("Sections of files are not part of this subset")
            if char == "*":
                raise UnsupportedConstruct("a pattern of file names", scan.line())
            if char == "@" and scan.peek(1) in LETTERS:
                parts.append(self._path_hole())
            else:
                parts.append(scan.read(_PLAIN))
        path = _joined(parts)
        if path and isinstance(path[0], str):
            path[0] = path[0].lstrip()
        if path and isinstance(path[-1], str):
            path[-1] = path[-1].rstrip()
        return FileRead(Template(tuple(path)), scan.take("?"))

    def _path_hole(self) -> Hole:
        """Read `@name.field` inside a path; an extension begins with a dot behind a backslash."""
        scan = self._scan
        start = scan.pos
        scan.pos += 1
        value: Any = Reference(scan.identifier())
        while scan.peek() == "." and scan.peek(1) in LETTERS:
            scan.pos += 1
            value = FieldAccess(value, Literal(scan.identifier()))
        raw = scan.text[start : scan.pos]
        self._boundary()
        return Hole(value, raw)

    def shell_body(self) -> str:
        """Read a shell body between braces; braces inside must pair up, quoted texts may hold any."""
        scan = self._scan
        start = scan.pos
        scan.expect("{", "to open the body")
        depth, begin = 1, scan.pos
        while scan.pos < scan.end:
            char = scan.text[scan.pos]
            if char in "\"'":
                scan.pos = self._behind_quoted(char)
                continue
            depth += (char == "{") - (char == "}")
            scan.pos += 1
            if depth == 0:
                return scan.text[begin : scan.pos - 1]
        raise scan.error("Unterminated code block. Expected '}'", start)

    def _behind_quoted(self, quote: str) -> int:
        """Return the end of a quoted text in a shell body; a quote without a partner is a plain character."""
        text, at = self._scan.text, self._scan.pos + 1
        while at < len(text) and text[at] != quote:
            at += 2 if text[at] == "\\" and quote == '"' else 1
        return at + 1 if at < len(text) else self._scan.pos + 1

    def command_body(self) -> Template:
        """Read the body of `cmd`: text with holes, where single quotes protect.

        The holes are pairs of `Hole` and whether it stands in double quotes.
        """
        scan = self._scan
        start = scan.pos
        scan.expect("{", "to open the command")
        parts: list[Any] = []
        quote = ""
        while True:
            char = scan.peek()
            if not char:
                raise scan.error("Unterminated command. Expected '}'", start)
            if char == "\\" and (quote != "'" or scan.peek(1) == "@"):
                parts.append("@" if scan.peek(1) == "@" else scan.text[scan.pos : scan.pos + 2])
                scan.pos += 2
                continue
            if char == "@" and scan.peek(1) in LETTERS and quote != "'":
                parts.append((self._hole(), quote == '"'))
                continue
            if quote:
                quote = "" if char == quote else quote
            elif char in "\"'":
                quote = char
            elif scan.take("}"):
                return Template(tuple(_joined(parts)))
            elif char in "{;&<>" or scan.looking_at("||"):
                raise scan.error(f"Shell operator {char} is not allowed in cmd {{ }}. Use sh {{ }} instead.")
            parts.append(scan.read(_PLAIN))


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
