"""Reading a whole script: the header lines, and the statements, one a line, in strict mode."""

import re
from collections.abc import Callable
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptParseError, UnsupportedConstruct
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.compounds import CompoundParser
from mlld_sdk.transport.embedded.language.expressions import CODE_LANGUAGES, CONSTANTS, SHELLS
from mlld_sdk.transport.embedded.language.scanner import LETTERS, Scanner
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


class StatementParser:
    """Reads statements."""

    def __init__(self, scan: Scanner) -> None:
        self._scan = scan
        self._compounds = CompoundParser(scan, self._block, self._action)
        self._expressions = self._compounds.expressions
        self._texts = self._expressions.texts
        self._expression = self._expressions.expression
        self._values: dict[str, Callable[[int], Any]] = {
            "show": self._shown,
            "run": self._run,
            "log": self._operand,
            "bail": lambda _: None if scan.at_value_end() else self._expression(),
            "continue": self._round_value,
            "done": self._round_value,
            "checkpoint": self._checkpoint,
        }
        self._readers: dict[str, Callable[[int], Any]] = {
            "var": self._var,
            "let": self._let,
            "exe": self._exe,
            "output": self._output,
            "append": self._append,
            "import": self._import,
            "export": self._export,
            "if": self._if,
        }

    def all(self) -> tuple[Any, ...]:
        """Read statements up to the end of the text."""
        scan = self._scan
        statements: list[Any] = []
        while True:
            scan.skip_space()
            if scan.pos >= scan.end:
                return tuple(statements)
            if scan.pos and scan.text[scan.pos - 1] != "\n":
                raise scan.error(PROSE)
            statements.append(self._line_statement())

    def _line_statement(self) -> Any:
        scan = self._scan
        start = scan.pos
        statement = self._statement(start, top=True)
        if not scan.at_line_end():
            raise scan.error(PROSE)
        if isinstance(statement, (syntax.VarStatement, syntax.ExeStatement)) or (
            syntax.is_simple(statement, "show") and not isinstance(statement.value, syntax.FileRead)
        ):
            scan.finish_line()
            statement = statement._replace(span=scan.span(start))
        return statement

    def _statement(self, start: int, *, top: bool = False) -> Any:
        """Read one statement; the cursor stands on its first character."""
        scan = self._scan
        if top:
            scan.take("/")
        if scan.take("=>"):
            scan.skip_blanks()
            value = Literal(None) if scan.at_value_end() else self._expression()
            return self._simple("=>", value, start)
        if scan.peek() == "@":
            return self._bare(start, top=top)
        if not top and scan.take_word("skip"):
            return self._simple("skip", None, start)
        word = scan.word()
        if word in COMPOUNDS:
            return self._compounds.read(self._when_action, self._action)
        if word in self._values:
            scan.take_keyword(word)
            return self._simple(word, self._values[word](start), start)
        reader = self._readers.get(word)
        if reader is not None and (word != "let" if top else word not in _TOP_ONLY):
            scan.take_keyword(word)
            return reader(start)
        if word in FOREIGN_DIRECTIVES:
            return self._foreign(word, start)
        raise scan.error(PROSE, start)

    def _simple(self, word: str, value: Any, start: int) -> SimpleStatement:
        return SimpleStatement(word, value, self._scan.span(start))

    def _foreign(self, word: str, start: int) -> syntax.Unsupported:
        scan = self._scan
        if not scan.lenient:
            raise UnsupportedConstruct(f"'{word}'", scan.line(start))
        scan.take_keyword(word)
        facts = self._guard_facts() if word == "guard" else {}
        depth = 0
        while scan.pos < scan.end and (depth or scan.peek() != "\n"):
            char = scan.peek()
            if char in "\"'`":
                self._texts.quoted()
                continue
            depth += (char in "[{(") - (char in ")}]")
            scan.pos += 1
        return syntax.Unsupported(word, facts)

    def _guard_facts(self) -> dict[str, Any]:
        scan = self._scan
        name = "@" + scan.identifier() if scan.take("@") else None
        scan.skip_blanks()
        timing = scan.identifier()
        scan.skip_blanks()
        return {"name": name, "timing": timing, "filter": scan.read(_FILTER)}

    def _block(self) -> Block:
        """Read `[ statements ]`."""
        scan = self._scan
        start = scan.pos
        scan.expect("[", "to open the block")
        statements: list[Any] = []
        while True:
            scan.skip_space()
            while scan.take(";"):
                scan.skip_space()
            if scan.take("]"):
                return Block(tuple(statements))
            if scan.pos >= scan.end:
                raise scan.error("Unterminated block. Expected ']' to close block.", start)
            statements.append(self._statement(scan.pos))

    def _action(self) -> Any:
        """Read the action of a statement-level `for`."""
        scan = self._scan
        if scan.peek() == "[":
            return self._block()
        start = scan.pos
        if scan.at_quote() or scan.looking_at(("{", "<")):
            return self._expression()
        if scan.word() in SHELLS:
            return self._simple("run", self._expression(), start)
        return self._statement(start)

    def _when_action(self) -> Any:
        scan = self._scan
        start = scan.pos
        if scan.at_quote():
            return self._simple("say", self._expression(), start)
        if scan.take_word("null"):
            return Literal(None)
        word = scan.word()
        if word in (*COMPOUNDS, "if"):
            raise scan.error(f"'{word}' cannot be the action of when; put it into a block", start)
        return self._action()

    def _name(self, directive: str, start: int) -> str:
        scan = self._scan
        if not scan.take("@"):
            raise scan.error(
                f"Missing '@' before variable name in {directive} directive. Use: {directive} @x = value", start
            )
        name = scan.identifier()
        if not name:
            raise self._not_assigned(directive, start)
        return name

    def _not_assigned(self, directive: str, start: int) -> ScriptParseError:
        return self._scan.error(f"Invalid {directive} syntax. Expected: {directive} @name = value", start)

    def _labels(self) -> tuple[str, ...]:
        """Read `llm` or `net:w, paid` between a keyword and `@name`."""
        scan = self._scan
        labels: list[str] = []
        while scan.peek() in LETTERS:
            labels.append(scan.read(_LABEL))
            scan.skip_blanks()
            scan.take(",")
            scan.skip_blanks()
        return tuple(labels)

    def _assigned(self, directive: str, start: int) -> None:
        scan = self._scan
        scan.skip_blanks()
        if not scan.take("="):
            raise self._not_assigned(directive, start)
        scan.skip_space()

    def _right_side(self) -> Any:
        start = self._scan.pos
        if self._scan.take_keyword("show"):
            return self._simple("show", self._shown(start), start)
        return self._compounds.block_or(self._expression)

    def _var(self, start: int) -> syntax.VarStatement:
        labels = self._labels()
        name = self._name("var", start)
        self._assigned("var", start)
        return syntax.VarStatement(name, labels, self._right_side(), self._scan.span(start))

    def _let(self, start: int) -> syntax.LetStatement:
        scan = self._scan
        name = self._name("let", start)
        scan.skip_blanks()
        augment = scan.take("+=")
        if augment:
            scan.skip_space()
        else:
            self._assigned("let", start)
        return syntax.LetStatement(name, self._right_side(), augment)

    def _exe(self, start: int) -> syntax.ExeStatement:
        scan = self._scan
        labels = self._labels()
        name = self._name("exe", start)
        params = scan.items(")", lambda: self._listed("a parameter name")) if scan.take("(") else ()
        self._assigned("exe", start)
        return syntax.ExeStatement(name, params, labels, self._exe_body(start), scan.span(start))

    def _listed(self, what: str) -> str:
        """Read a name with or without `@` in a list."""
        self._scan.take("@")
        name = self._scan.identifier()
        if not name:
            raise self._scan.error(f"Expected {what}")
        return name

    def _exe_body(self, start: int) -> Any:
        scan = self._scan
        if scan.peek() == "[":
            if not self._compounds.at_block():
                raise scan.error("Invalid exe syntax. A list cannot be the body of an exe", start)
            return self._block()
        if scan.take_keyword("run") and scan.word() == "sh":
            raise scan.error("Invalid 'run' keyword in exe definition", start)
        if scan.peek() == "<":
            raise UnsupportedConstruct("a file as the body of an exe", scan.line(start))
        if not (scan.looking_at(("@", "{")) or scan.at_quote() or scan.word() in _EXE_HEADS):
            raise scan.error(
                "Invalid exe syntax. Expected a template, a command, a block or a reference as body", start
            )
        body = self._expression()
        if isinstance(body, _OPERATIONS):
            raise scan.error(PROSE, start)
        if isinstance(body, syntax.WhenExpression) and body.subject is None and scan.text[scan.pos - 1] != "]":
            raise scan.error("Invalid exe syntax. Expected [ behind when", start)
        return body

    def _shown(self, start: int) -> Any:
        scan = self._scan
        if scan.peek() == "{":
            raise scan.error("show does not execute commands. Use run cmd { ... } (or run sh { ... }) instead.", start)
        if scan.at_line_end() or scan.word() in CONSTANTS:
            raise scan.error("Missing content in show directive. Expected template, variable, or path to show.", start)
        if not (scan.looking_at(("@", "<")) or scan.at_quote()):
            raise scan.error("Invalid show syntax. Expected: show `template`, show @variable, show <path>", start)
        return self._operand(start)

    def _operand(self, _: int) -> Any:
        """Read a value where the language knows no operators, as behind `show` and `log`."""
        start = self._scan.pos
        value = self._expression()
        if isinstance(value.source if isinstance(value, syntax.PipedValue) else value, _OPERATIONS):
            raise self._scan.error(PROSE, start)
        return value

    def _run(self, start: int) -> Any:
        scan = self._scan
        scan.take_keyword("stream")
        word = scan.word()
        if word in CODE_LANGUAGES:
            return self._expressions.foreign_code(word, scan.pos)
        if word in SHELLS or scan.peek() == "@":
            return self._operand(start)
        raise scan.error("Commands in run must be wrapped in braces or quotes")

    def _bare(self, start: int, *, top: bool) -> Any:
        scan = self._scan
        value = self._expression()
        scan.skip_blanks()
        if isinstance(value, syntax.Reference) and not top and scan.take("+="):
            scan.skip_blanks()
            return syntax.LetStatement(value.name, self._expression(), True)
        if isinstance(value, (syntax.FunctionCall, syntax.MethodCall, syntax.PipedValue)):
            return self._simple("run", value, start)
        raise scan.error(PROSE, start)

    def _output(self, start: int) -> syntax.OutputStatement:
        scan = self._scan
        if not (scan.looking_at(("@", "[", "{")) or scan.at_quote()):
            raise scan.error(
                'Invalid output syntax. Expected: output @variable to "path", output "path", '
                "or output @variable to stdout/stderr/env.",
                start,
            )
        value = self._operand(start)
        scan.skip_blanks()
        kind, target = "stdout", Template(())
        if not scan.take_keyword("to"):
            return syntax.OutputStatement(value, kind, target, scan.span(start))
        if scan.word() == "env":
            raise UnsupportedConstruct("'output ... to env'", scan.line(start))
        if scan.take_word("stderr"):
            kind = "stderr"
        elif not scan.take_word("stdout"):
            begin = scan.pos
            kind, target = "file", self._path()
            if target.parts and isinstance(target.parts[0], str) and target.parts[0].startswith("state://"):
                # the rest is taken as it stands: nothing is filled in
                written = scan.text[begin : scan.pos].strip("\"'`")
                kind, target = "state", Template((written[len("state://") :],))
        self._skip_format()
        return syntax.OutputStatement(value, kind, target, scan.span(start))

    def _skip_format(self) -> None:
        """Step over `as name` if it is next; it changes nothing."""
        scan = self._scan
        mark = scan.pos
        scan.skip_blanks()
        if scan.take_keyword("as"):
            scan.identifier()
        else:
            scan.pos = mark

    def _path(self) -> Template:
        scan = self._scan
        if scan.at_quote():
            text = self._texts.quoted()
            return text if isinstance(text, Template) else Template((text.data,))
        start = scan.pos
        while scan.pos < scan.end and scan.peek() not in " \t\r\n]":
            if scan.peek() == "@":
                raise UnsupportedConstruct("a variable in a path without quotes", scan.line())
            scan.pos += 1
        return Template((scan.text[start : scan.pos],))

    def _append(self, start: int) -> syntax.OutputStatement:
        scan = self._scan
        value = self._operand(start)
        scan.skip_blanks()
        if not scan.take_keyword("to"):
            raise scan.error("Missing 'to' in append directive. Expected: append @value to \"file\"", start)
        return syntax.OutputStatement(value, "append", self._path(), scan.span(start))

    def _import(self, start: int) -> syntax.ImportStatement:
        scan = self._scan
        names: tuple[tuple[str, str], ...] = ()
        if scan.take("{"):
            names = scan.items("}", self._imported)
            scan.skip_blanks()
            if not scan.take_keyword("from"):
                raise scan.error("Missing 'from' in import directive")
        elif scan.peek() in LETTERS:
            raise UnsupportedConstruct(f"'import {scan.identifier()}'", scan.line(start))
        source = self._import_source()
        alias = None
        scan.skip_blanks()
        if scan.take_keyword("as"):
            scan.take("@")
            alias = scan.identifier()
        return syntax.ImportStatement(names, alias, source, scan.span(start))

    def _imported(self) -> tuple[str, str]:
        """Read `name` or `name as @other`."""
        scan = self._scan
        name = alias = self._listed("a name in the import list")
        scan.skip_space()
        if scan.take_word("as"):
            scan.skip_space()
            scan.expect("@", "before the new name")
            alias = scan.identifier()
        return name, alias

    def _import_source(self) -> str:
        scan = self._scan
        if scan.peek() == "<":
            parts = self._texts.file_read().path.parts
            if not all(isinstance(part, str) for part in parts):
                raise UnsupportedConstruct("a variable in the path of an import", scan.line())
            return "".join(map(str, parts))
        start = scan.pos
        if scan.at_quote():
            text = self._texts.quoted()
            return str(text.data) if isinstance(text, Literal) else scan.text[start + 1 : scan.pos - 1]
        while scan.pos < scan.end and scan.peek() not in " \t\r\n":
            scan.pos += 1
        return scan.text[start : scan.pos]

    def _export(self, start: int) -> syntax.ExportStatement:
        self._scan.expect("{", "to open the export list")
        names = self._scan.items("}", lambda: self._listed("a name in the export list"))
        return syntax.ExportStatement(names, self._scan.span(start))

    def _if(self, _: int) -> syntax.IfStatement:
        scan = self._scan
        condition = self._expressions.ternary()
        scan.skip_blanks()
        yes = self._block()
        mark = scan.pos
        scan.skip_space()
        no: Any = None
        if scan.take_keyword("else"):
            no = self._if(scan.pos) if scan.take_keyword("if") else self._block()
        else:
            scan.pos = mark
        return syntax.IfStatement(condition, yes, no)

    def _round_value(self, _: int) -> Any:
        """Read the value of `continue` or `done`; in parentheses it is just that."""
        if self._scan.at_value_end():
            return Literal(None)
        return self._expressions.primary() if self._scan.peek() == "(" else self._expression()

    def _checkpoint(self, start: int) -> Any:
        name = self._expression()
        self._scan.skip_blanks()
        if self._scan.word() == "with":
            raise UnsupportedConstruct("'checkpoint ... with'", self._scan.line(start))
        return name


def parse(text: str, *, lenient: bool = False) -> ParsedScript:
    """Read a script; `lenient` reads past what this engine does not run, for `analyze`.

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
    return ParsedScript(StatementParser(Scanner(text, start, lenient=lenient)).all(), resume, frontmatter)


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
