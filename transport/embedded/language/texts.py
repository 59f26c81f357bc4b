"""Reading texts with holes: the four quotings of mlld, command bodies and file names."""

from typing import Any

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language.scanner import LETTERS, Scanner
from mlld_sdk.transport.embedded.language.syntax import (
    FieldAccess,
    FileRead,
    Hole,
    Literal,
    Reference,
    Template,
    TextSpan,
)

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'", ".": "."}
PLAIN_ESCAPES = frozenset("@\\[]{}\"'`$")
FILE_MARKS = frozenset("./*@")


class Quoting:
    """What a kind of text ends with and which rules hold inside."""

    def __init__(
        self,
        name: str,
        closing: str,
        *,
        escapes: bool = True,
        newlines: bool = True,
        holes: bool = True,
        snippets: bool = True,
    ) -> None:
        self.name = name
        self.closing = closing
        self.escapes = escapes
        self.newlines = newlines
        self.holes = holes
        self.snippets = snippets


DOUBLE = Quoting("string", '"', newlines=False)
BACKTICK = Quoting("backtick template", "`")
COLONS = Quoting("template", "::", escapes=False)


class TemplateParser(Scanner):
    """Reads quoted texts. The expression parser adds the hooks `arguments` and `postfix`."""

    def postfix(self, target: Any, start: int, *, tight: bool) -> Any:
        """Read what may stand behind a value; implemented by the expression parser."""
        raise NotImplementedError

    def expression(self) -> Any:
        """Read an expression; implemented by the expression parser."""
        raise NotImplementedError

    def at_quote(self) -> bool:
        """Say whether a quoted text starts here."""
        return (self.peek() in ('"', "'", "`") and self.peek() != "") or self.looking_at("::")

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
        return _trim_newlines(self._holed(COLONS, start))

    def _single(self, start: int) -> str:
        chars: list[str] = []
        while True:
            char = self.peek()
            if not char:
                raise self.error("Unclosed string. Expected closing single quote (').", start)
            if char == "'":
                self.pos += 1
                return "".join(chars)
            if char == "\\" and self.peek(1) in PLAIN_ESCAPES:
                char = self.peek(1)
                self.pos += 1
            elif char == "@" and self.peek(1) == "@":
                self.pos += 1
            chars.append(char)
            self.pos += 1

    def _holed(self, quoting: Quoting, start: int) -> Literal | Template:
        parts: list[Any] = []
        chars: list[str] = []

        def flush() -> None:
            if chars:
                parts.append("".join(chars))
                chars.clear()

        while not self.take(quoting.closing):
            char = self.peek()
            if not char or (char == "\n" and not quoting.newlines):
                raise self.error(f"Unclosed {quoting.name}. Expected closing {quoting.closing}", start)
            if char == "\\" and self.peek(1) == "@":
                chars.append("@")
                self.pos += 2
            elif char == "\\" and quoting.escapes and self.peek(1) in ESCAPES and self.peek(1):
                chars.append(ESCAPES[self.peek(1)])
                self.pos += 2
            elif char == "\\" and quoting.escapes and self.peek(1) in PLAIN_ESCAPES and self.peek(1):
                chars.append(self.peek(1))
                self.pos += 2
            elif char == "@" and self.peek(1) == "@":
                chars.append("@")
                self.pos += 2
            elif char == "@" and self.peek(1) in LETTERS and self.peek(1):
                flush()
                parts.append(self.hole(quoting))
                chars.extend(self._boundary())
            elif char == "<" and (quoting.newlines or not chars) and (read := self.file_read_in_text()) is not None:
                flush()
                parts.append(read)
            else:
                chars.append(char)
                self.pos += 1
        flush()
        if not parts:
            return Literal("")
        if len(parts) == 1 and isinstance(parts[0], str):
            return Literal(parts[0])
        return Template(tuple(parts))

    def hole(self, quoting: Quoting | None = None) -> Hole:
        """Read `@name` and what clings to it inside a text."""
        start = self.pos
        self.pos += 1
        name = self.identifier()
        value = self.postfix(Reference(name, TextSpan(start, self.pos)), start, tight=True)
        raw = self.text[start : self.pos]
        if self.looking_at("|@"):
            raise UnsupportedConstruct("a pipe inside a text", self.line(start))
        if self.looking_at('??"') or self.looking_at("??'"):
            self.pos += 2
            return Hole(value, raw, default=self.quoted())
        if self.peek() == "?" and quoting is not None:
            if quoting.name != "string" and self.peek(1) == "`" and self._snippet_follows():
                self.pos += 2
                return Hole(value, raw, when=_as_template(self._holed(BACKTICK, self.pos - 1)))
            if quoting.name == "string" and self.peek(1) == '"' and self._fragment_follows():
                self.pos += 2
                return Hole(value, raw, when=_as_template(self._holed(DOUBLE, self.pos - 1)))
            self.pos += 1
            return Hole(value, raw, omit=True)
        return Hole(value, raw)

    def _snippet_follows(self) -> bool:
        """Say whether the backtick behind `@x?` opens a snippet, which has one line, instead of closing the text."""
        closing = self.text.find("`", self.pos + 2)
        return closing >= 0 and "\n" not in self.text[self.pos : closing]

    def _fragment_follows(self) -> bool:
        """Say whether the quote behind `@x?` opens a fragment instead of closing the text."""
        closing = self.text.find('"', self.pos + 2)
        line_end = self.text.find("\n", self.pos)
        return closing >= 0 and (line_end < 0 or closing < line_end) and self.text.find('"', closing + 1) >= 0

    def _boundary(self) -> str:
        """Read the backslash that ends a name inside a text."""
        if self.take("\\\\"):
            return "\\"
        if self.take("\\@"):
            return "@"
        if self.peek() == "\\" and self.peek(1) not in ("n", "t", "r", "`", '"', "'", "0"):
            self.pos += 1
        return ""

    def file_read_in_text(self) -> FileRead | None:
        """Read `<path>` inside a text if it looks like a file name, as `<b>` does not."""
        close = self.text.find(">", self.pos)
        if close < 0:
            return None
        inner = self.text[self.pos + 1 : close]
        if (
            not inner
            or "\n" in inner
            or "<" in inner
            or inner[0] in "!/ "
            or not FILE_MARKS & set(inner)
            or inner[-1] == "/"
        ):
            return None
        if " " in inner.strip():
            return None
        return self.file_read()

    def file_read(self) -> FileRead:
        """Read `<path>`."""
        start = self.pos
        self.expect("<", "to open a file name")
        parts: list[Any] = []
        chars: list[str] = []
        while not self.take(">"):
            char = self.peek()
            if not char or char == "\n":
                raise self.error("Unclosed file name. Expected closing >", start)
            if char == "#":
                raise self.error("Sections of files are not part of this subset")
            if char == "@" and self.peek(1) in LETTERS and self.peek(1):
                if chars:
                    parts.append("".join(chars))
                    chars = []
                parts.append(self.path_hole())
                continue
            chars.append(char)
            self.pos += 1
        if chars:
            parts.append("".join(chars))
        if parts and isinstance(parts[0], str):
            parts[0] = parts[0].lstrip()
        if parts and isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip()
        return FileRead(Template(tuple(parts)), self.take("?"), TextSpan(start, self.pos))

    def path_hole(self) -> Hole:
        """Read `@name.field` inside a path; an extension begins with a dot behind a backslash."""
        start = self.pos
        self.pos += 1
        name = self.identifier()
        value: Any = Reference(name, TextSpan(start, self.pos))
        while self.peek() == "." and self.peek(1) in LETTERS and self.peek(1):
            self.pos += 1
            value = FieldAccess(value, Literal(self.identifier()))
        raw = self.text[start : self.pos]
        self._boundary()
        return Hole(value, raw)

    def raw_body(self) -> str:
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
        """Find the end of a quoted text in a shell body; a quote without a partner is a plain character."""
        at = self.pos + 1
        while at < self.end and self.text[at] != quote:
            at += 2 if self.text[at] == "\\" and quote == '"' else 1
        return at + 1 if at < self.end else self.pos + 1

    def command_body(self) -> Template:
        """Read the body of `cmd`: text with holes, where single quotes protect."""
        start = self.pos
        self.expect("{", "to open the command")
        parts: list[Any] = []
        chars: list[str] = []
        quote = ""
        while True:
            char = self.peek()
            if not char:
                raise self.error("Unterminated command. Expected '}'", start)
            if char == "\\" and self.peek(1) == "@":
                chars.append("@")
                self.pos += 2
                continue
            if char == "\\" and quote != "'":
                chars.append(self.text[self.pos : self.pos + 2])
                self.pos += 2
                continue
            if char == "@" and self.peek(1) in LETTERS and self.peek(1) and quote != "'":
                if chars:
                    parts.append("".join(chars))
                    chars = []
                parts.append((self.hole(), quote == '"'))
                continue
            if quote and char == quote:
                quote = ""
            elif not quote and char in "\"'":
                quote = char
            elif not quote and char == "}":
                self.pos += 1
                break
            elif not quote and (char in "{;&<>" or self.looking_at("||")):
                raise self.error(f"Shell operator {char} is not allowed in cmd {{ }}. Use sh {{ }} instead.")
            chars.append(char)
            self.pos += 1
        if chars:
            parts.append("".join(chars))
        return Template(tuple(parts))


def _as_template(text: Literal | Template) -> Template:
    return text if isinstance(text, Template) else Template((text.data,))


def _trim_newlines(text: Literal | Template) -> Literal | Template:
    """Drop the line ends right behind the opening and right before the closing colons."""
    if isinstance(text, Literal):
        return Literal(text.data.removeprefix("\n").removesuffix("\n"))
    parts = list(text.parts)
    if isinstance(parts[0], str):
        parts[0] = parts[0].removeprefix("\n")
    if isinstance(parts[-1], str):
        parts[-1] = parts[-1].removesuffix("\n")
    return Template(tuple(part for part in parts if part != ""))
