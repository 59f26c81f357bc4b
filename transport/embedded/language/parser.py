"""Reading a whole script: the header lines, and the statements, one a line, in strict mode."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

from mlld_sdk.transport.embedded.errors import ScriptParseError, UnsupportedConstruct
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.compounds import CompoundParser
from mlld_sdk.transport.embedded.language.expressions import CODE_LANGUAGES, CONSTANTS, SHELLS
from mlld_sdk.transport.embedded.language.scanner import LETTERS
from mlld_sdk.transport.embedded.language.syntax import Block, Literal, ParsedScript, SimpleStatement, Template

FOREIGN_DIRECTIVES = frozenset((
    "guard", "policy", "auth", "hook", "needs", "profiles", "sign", "verify", "box", "file", "files", "stream", "while",
    "foreach", "path", "exec", "text", "data", "with",
))  # fmt: skip
RESUME_MODES = ("auto", "manual", "never")
COMPOUNDS = ("when", "for", "loop")
PROSE = "Text content not allowed in strict mode (.mld). Use .mld.md for prose."
_TOP_ONLY = frozenset(("var", "exe", "export", "import"))
_EXE_HEADS = frozenset((*SHELLS, *COMPOUNDS, "stream", "foreach", *CODE_LANGUAGES))
_LABEL = re.compile("[A-Za-z0-9_:.-]*")
_FILTER = re.compile("[A-Za-z0-9_:.@-]*")
_OPERATIONS = (syntax.Binary, syntax.Ternary, syntax.Negation)


class StatementParser(CompoundParser):
    """Reads statements."""

    def all(self) -> tuple[Any, ...]:
        """Read statements up to the end of the text."""
        statements: list[Any] = []
        while True:
            self.skip_space()
            if self.pos >= self.end:
                return tuple(statements)
            if self.pos and self.text[self.pos - 1] != "\n":
                raise self.error(PROSE)
            statements.append(self._line_statement())

    def _line_statement(self) -> Any:
        start = self.pos
        statement = self._statement(start, top=True)
        if not self.at_line_end():
            raise self.error(PROSE)
        if isinstance(statement, (syntax.VarStatement, syntax.ExeStatement)) or (
            syntax.is_simple(statement, "show") and not isinstance(statement.value, syntax.FileRead)
        ):
            self.finish_line()
            statement = statement._replace(span=self.span(start))
        return statement

    def _statement(self, start: int, *, top: bool = False) -> Any:
        """Read one statement; the cursor stands on its first character."""
        if top:
            self.take("/")
        if self.take("=>"):
            self.skip_blanks()
            value = Literal(None) if self.at_value_end() else self.expression()
            return self._simple("=>", value, start)
        if self.peek() == "@":
            return self._bare(start, top=top)
        if not top and self.take_word("skip"):
            return self._simple("skip", None, start)
        word = self.word()
        if word in COMPOUNDS:
            return self.compound_of(self._when_action, self.action)
        if word in self._VALUES:
            self.take_keyword(word)
            return self._simple(word, self._VALUES[word](self, start), start)
        if word in self._READERS and (word != "let" if top else word not in _TOP_ONLY):
            self.take_keyword(word)
            return self._READERS[word](self, start)
        if word in FOREIGN_DIRECTIVES:
            return self._foreign(word, start)
        raise self.error(PROSE, start)

    def _simple(self, word: str, value: Any, start: int) -> SimpleStatement:
        return SimpleStatement(word, value, self.span(start))

    def _foreign(self, word: str, start: int) -> syntax.Unsupported:
        if not self.lenient:
            raise UnsupportedConstruct(f"'{word}'", self.line(start))
        self.take_keyword(word)
        facts = self._guard_facts() if word == "guard" else {}
        depth = 0
        while self.pos < self.end and (depth or self.peek() != "\n"):
            char = self.peek()
            if char in "\"'`":
                self.quoted()
                continue
            depth += (char in "[{(") - (char in ")}]")
            self.pos += 1
        return syntax.Unsupported(word, self.span(start), facts)

    def _guard_facts(self) -> dict[str, Any]:
        name = "@" + self.identifier() if self.take("@") else None
        self.skip_blanks()
        timing = self.identifier()
        self.skip_blanks()
        return {"name": name, "timing": timing, "filter": self.read(_FILTER)}

    # -- blocks and actions

    def block(self) -> Block:
        """Read `[ statements ]`."""
        start = self.pos
        self.expect("[", "to open the block")
        statements: list[Any] = []
        while True:
            self.skip_space()
            while self.take(";"):
                self.skip_space()
            if self.take("]"):
                return Block(tuple(statements))
            if self.pos >= self.end:
                raise self.error("Unterminated block. Expected ']' to close block.", start)
            statements.append(self._statement(self.pos))

    def action(self) -> Any:
        """Read the action of a statement-level `for`."""
        if self.peek() == "[":
            return self.block()
        start = self.pos
        if self.at_quote() or self.looking_at(("{", "<")):
            return self.expression()
        if self.word() in SHELLS:
            return self._simple("run", self.expression(), start)
        return self._statement(start)

    def _when_action(self) -> Any:
        start = self.pos
        if self.at_quote():
            return self._simple("say", self.expression(), start)
        if self.take_word("null"):
            return Literal(None)
        word = self.word()
        if word in (*COMPOUNDS, "if"):
            raise self.error(f"'{word}' cannot be the action of when; put it into a block", start)
        return self.action()

    # -- definitions

    def _name(self, directive: str, start: int) -> str:
        if not self.take("@"):
            raise self.error(
                f"Missing '@' before variable name in {directive} directive. Use: {directive} @x = value", start
            )
        name = self.identifier()
        if not name:
            raise self._not_assigned(directive, start)
        return name

    def _not_assigned(self, directive: str, start: int) -> ScriptParseError:
        return self.error(f"Invalid {directive} syntax. Expected: {directive} @name = value", start)

    def _labels(self) -> tuple[str, ...]:
        """Read `llm` or `net:w, paid` between a keyword and `@name`."""
        labels: list[str] = []
        while self.peek() in LETTERS:
            labels.append(self.read(_LABEL))
            self.skip_blanks()
            self.take(",")
            self.skip_blanks()
        return tuple(labels)

    def _assigned(self, directive: str, start: int) -> None:
        self.skip_blanks()
        if not self.take("="):
            raise self._not_assigned(directive, start)
        self.skip_space()

    def _right_side(self) -> Any:
        start = self.pos
        if self.take_keyword("show"):
            return self._simple("show", self._shown(start), start)
        return self.block_or(self.expression)

    def _var(self, start: int) -> syntax.VarStatement:
        labels = self._labels()
        name = self._name("var", start)
        self._assigned("var", start)
        return syntax.VarStatement(name, labels, self._right_side(), self.span(start))

    def _let(self, start: int) -> syntax.LetStatement:
        name = self._name("let", start)
        self.skip_blanks()
        augment = self.take("+=")
        if augment:
            self.skip_space()
        else:
            self._assigned("let", start)
        return syntax.LetStatement(name, self._right_side(), augment, self.span(start))

    def _exe(self, start: int) -> syntax.ExeStatement:
        labels = self._labels()
        name = self._name("exe", start)
        params = self.items(")", lambda: self._listed("a parameter name")) if self.take("(") else ()
        self._assigned("exe", start)
        return syntax.ExeStatement(name, params, labels, self._exe_body(start), self.span(start))

    def _listed(self, what: str) -> str:
        """Read a name with or without `@` in a list."""
        self.take("@")
        name = self.identifier()
        if not name:
            raise self.error(f"Expected {what}")
        return name

    def _exe_body(self, start: int) -> Any:
        if self.peek() == "[":
            if not self.at_block():
                raise self.error("Invalid exe syntax. A list cannot be the body of an exe", start)
            return self.block()
        if self.take_keyword("run") and self.word() == "sh":
            raise self.error("Invalid 'run' keyword in exe definition", start)
        if self.peek() == "<":
            raise UnsupportedConstruct("a file as the body of an exe", self.line(start))
        if not (self.looking_at(("@", "{")) or self.at_quote() or self.word() in _EXE_HEADS):
            raise self.error(
                "Invalid exe syntax. Expected a template, a command, a block or a reference as body", start
            )
        body = self.expression()
        if isinstance(body, _OPERATIONS):
            raise self.error(PROSE, start)
        if isinstance(body, syntax.WhenExpression) and body.subject is None and self.text[self.pos - 1] != "]":
            raise self.error("Invalid exe syntax. Expected [ behind when", start)
        return body

    # -- showing and running

    def _shown(self, start: int) -> Any:
        if self.peek() == "{":
            raise self.error("show does not execute commands. Use run cmd { ... } (or run sh { ... }) instead.", start)
        if self.at_line_end() or self.word() in CONSTANTS:
            raise self.error("Missing content in show directive. Expected template, variable, or path to show.", start)
        if not (self.looking_at(("@", "<")) or self.at_quote()):
            raise self.error("Invalid show syntax. Expected: show `template`, show @variable, show <path>", start)
        return self._operand(start)

    def _operand(self, _: int) -> Any:
        """Read a value where the language knows no operators, as behind `show` and `log`."""
        start = self.pos
        value = self.expression()
        if isinstance(value.source if isinstance(value, syntax.PipedValue) else value, _OPERATIONS):
            raise self.error(PROSE, start)
        return value

    def _run(self, start: int) -> Any:
        self.take_keyword("stream")
        word = self.word()
        if word in CODE_LANGUAGES:
            return self.foreign_code(word, self.pos)
        if word in SHELLS or self.peek() == "@":
            return self._operand(start)
        raise self.error("Commands in run must be wrapped in braces or quotes")

    def _bare(self, start: int, *, top: bool) -> Any:
        value = self.expression()
        self.skip_blanks()
        if isinstance(value, syntax.Reference) and not top and self.take("+="):
            self.skip_blanks()
            return syntax.LetStatement(value.name, self.expression(), True, self.span(start))
        if isinstance(value, (syntax.FunctionCall, syntax.MethodCall, syntax.PipedValue)):
            return self._simple("run", value, start)
        raise self.error(PROSE, start)

    def _output(self, start: int) -> syntax.OutputStatement:
        if not (self.looking_at(("@", "[", "{")) or self.at_quote()):
            raise self.error(
                'Invalid output syntax. Expected: output @variable to "path", output "path", '
                "or output @variable to stdout/stderr/env.",
                start,
            )
        value = self._operand(start)
        self.skip_blanks()
        kind, target = "stdout", Template(())
        if not self.take_keyword("to"):
            return syntax.OutputStatement(value, kind, target, "", self.span(start))
        if self.word() == "env":
            raise UnsupportedConstruct("'output ... to env'", self.line(start))
        if self.take_word("stderr"):
            kind = "stderr"
        elif not self.take_word("stdout"):
            begin = self.pos
            kind, target = "file", self._path()
            if target.parts and isinstance(target.parts[0], str) and target.parts[0].startswith("state://"):
                # the rest is taken as it stands: nothing is filled in
                written = self.text[begin : self.pos].strip("\"'`")
                kind, target = "state", Template((written[len("state://") :],))
        return syntax.OutputStatement(value, kind, target, self._format(), self.span(start))

    def _format(self) -> str:
        """Read `as name` if it is next, and return the name or an empty text."""
        mark = self.pos
        self.skip_blanks()
        if self.take_keyword("as"):
            return self.identifier()
        self.pos = mark
        return ""

    def _path(self) -> Template:
        if self.at_quote():
            text = self.quoted()
            return text if isinstance(text, Template) else Template((text.data,))
        start = self.pos
        while self.pos < self.end and self.peek() not in " \t\r\n]":
            if self.peek() == "@":
                raise UnsupportedConstruct("a variable in a path without quotes", self.line())
            self.pos += 1
        return Template((self.text[start : self.pos],))

    def _append(self, start: int) -> syntax.OutputStatement:
        value = self._operand(start)
        self.skip_blanks()
        if not self.take_keyword("to"):
            raise self.error("Missing 'to' in append directive. Expected: append @value to \"file\"", start)
        return syntax.OutputStatement(value, "append", self._path(), "", self.span(start))

    # -- modules

    def _import(self, start: int) -> syntax.ImportStatement:
        names: tuple[tuple[str, str], ...] = ()
        if self.take("{"):
            names = self.items("}", self._imported)
            self.skip_blanks()
            if not self.take_keyword("from"):
                raise self.error("Missing 'from' in import directive")
        elif self.peek() in LETTERS:
            raise UnsupportedConstruct(f"'import {self.identifier()}'", self.line(start))
        source = self._import_source()
        alias = None
        self.skip_blanks()
        if self.take_keyword("as"):
            self.take("@")
            alias = self.identifier()
        return syntax.ImportStatement(names, alias, source, self.span(start))

    def _imported(self) -> tuple[str, str]:
        """Read `name` or `name as @other`."""
        name = alias = self._listed("a name in the import list")
        self.skip_space()
        if self.take_word("as"):
            self.skip_space()
            self.expect("@", "before the new name")
            alias = self.identifier()
        return name, alias

    def _import_source(self) -> str:
        if self.peek() == "<":
            return "".join(str(part) for part in self.file_read().path.parts)
        start = self.pos
        if self.at_quote():
            text = self.quoted()
            return str(text.data) if isinstance(text, Literal) else self.text[start + 1 : self.pos - 1]
        while self.pos < self.end and self.peek() not in " \t\r\n":
            self.pos += 1
        return self.text[start : self.pos]

    def _export(self, start: int) -> syntax.ExportStatement:
        self.expect("{", "to open the export list")
        names = self.items("}", lambda: self._listed("a name in the export list"))
        return syntax.ExportStatement(names, self.span(start))

    # -- control

    def _if(self, start: int) -> syntax.IfStatement:
        condition = self.ternary()
        self.skip_blanks()
        yes = self.block()
        mark = self.pos
        self.skip_space()
        no: Any = None
        begin = self.pos
        if not self.take_keyword("else"):
            self.pos = mark
        else:
            begin = self.pos
            no = self._if(begin) if self.take_keyword("if") else self.block()
        return syntax.IfStatement(condition, yes, no, self.span(start))

    def _round_value(self, _: int) -> Any:
        """Read the value of `continue` or `done`; in parentheses it is just that."""
        if self.at_value_end():
            return Literal(None)
        return self.primary() if self.peek() == "(" else self.expression()

    def _checkpoint(self, start: int) -> Any:
        name = self.expression()
        self.skip_blanks()
        if self.word() == "with":
            raise UnsupportedConstruct("'checkpoint ... with'", self.line(start))
        return name

    _VALUES: ClassVar[dict[str, Callable[..., Any]]] = {
        "show": _shown,
        "run": _run,
        "log": _operand,
        "bail": lambda self, _: None if self.at_value_end() else self.expression(),
        "continue": _round_value,
        "done": _round_value,
        "checkpoint": _checkpoint,
    }
    """What reads the value of a simple statement, by its word."""

    _READERS: ClassVar[dict[str, Callable[..., Any]]] = {
        "var": _var,
        "let": _let,
        "exe": _exe,
        "output": _output,
        "append": _append,
        "import": _import,
        "export": _export,
        "if": _if,
    }
    """What reads the rest of the other statements, by their word."""


def parse(text: str, *, lenient: bool = False) -> ParsedScript:
    """Read a script.

    Args:
        text: The script.
        lenient: Read past what this engine does not run, for `analyze`.

    Raises:
        ScriptParseError: When the text is no script.
        UnsupportedConstruct: When it uses something this engine does not have.
    """
    resume, start = _resume_header(text.removeprefix("\ufeff"))
    if text.startswith("\ufeff"):  # the real engine reads past it in front of a header only
        if resume is None:
            raise ScriptParseError(PROSE)
        text = text.removeprefix("\ufeff")
    frontmatter = None
    if text.startswith("---\n", start):
        close = text.find("\n---", start + 3)
        if close >= 0:
            frontmatter = text[start + 4 : close + 1]
            start = close + 4
    return ParsedScript(StatementParser(text, start, lenient=lenient).all(), resume, frontmatter)


def _resume_header(text: str) -> tuple[str | None, int]:
    """Return the mode of a `resume:` line at the top, and where the text behind it begins."""
    first, newline, _ = text.partition("\n")
    head, colon, mode = first.partition(":")
    if not colon or head.strip().lower() != "resume":
        return None, 0
    wanted = mode.strip().strip("'\"").lower()
    if wanted not in RESUME_MODES:
        raise ScriptParseError(f'Invalid script resume mode "{mode.strip()}". Expected auto, manual, or never.')
    return wanted, len(first) + len(newline)
