"""Reading a whole script: the header lines and the statements, one a line, in strict mode."""

from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptParseError, UnsupportedConstruct
from mlld_sdk.transport.embedded.language.compounds import CompoundParser
from mlld_sdk.transport.embedded.language.expressions import CODE_LANGUAGES
from mlld_sdk.transport.embedded.language.scanner import LETTERS, WORD
from mlld_sdk.transport.embedded.language.syntax import (
    BailStatement,
    Binary,
    Block,
    CheckpointStatement,
    ContinueStatement,
    DoneStatement,
    ExeStatement,
    ExportStatement,
    FileRead,
    FunctionCall,
    IfStatement,
    ImportStatement,
    LetStatement,
    Literal,
    LogStatement,
    MethodCall,
    OutputStatement,
    ParsedScript,
    PipedValue,
    Reference,
    ReturnStatement,
    RunStatement,
    SayStatement,
    ShowStatement,
    SkipStatement,
    Template,
    Ternary,
    TextSpan,
    Unary,
    Unsupported,
    VarStatement,
    WhenExpression,
)

RESUME_MODES = ("auto", "manual", "never")
FOREIGN_DIRECTIVES = (
    "guard", "policy", "auth", "hook", "needs", "profiles", "sign", "verify", "box", "file", "files", "stream", "while",
    "foreach", "path", "exec", "text", "data", "with",
)  # fmt: skip


class Parser(CompoundParser):
    """Reads statements. `lenient` reads past what this engine does not run, for `analyze`."""

    def __init__(self, text: str, *, lenient: bool = False) -> None:
        super().__init__(text)
        self.lenient = lenient
        self._readers = {
            "var": self._var,
            "let": self._let,
            "exe": self._exe,
            "show": self._show,
            "run": self._run,
            "log": self._log,
            "output": self._output,
            "append": self._append,
            "import": self._import,
            "export": self._export,
            "when": self._when,
            "for": self._for,
            "loop": self._loop,
            "if": self._if,
            "bail": self._bail,
            "continue": self._continue,
            "done": self._done,
            "checkpoint": self._checkpoint,
        }

    def script(self, resume: str | None, frontmatter: str | None) -> ParsedScript:
        """Read everything."""
        statements: list[Any] = []
        while True:
            self.skip_space()
            if self.pos >= self.end:
                return ParsedScript(tuple(statements), resume, frontmatter, self.text)
            if self.pos and self.text[self.pos - 1] != "\n":
                raise self.error("Text content not allowed in strict mode (.mld). Use .mld.md for prose.")
            statements.append(self._line_statement())

    def _line_statement(self) -> Any:
        start = self.pos
        statement = self.statement(start, top=True)
        if not self.at_line_end():
            raise self.error("Text content not allowed in strict mode (.mld). Use .mld.md for prose.")
        if isinstance(statement, (ShowStatement, VarStatement, ExeStatement)) and not (
            isinstance(statement, ShowStatement) and isinstance(statement.value, FileRead)
        ):
            self.finish_line()
            statement = statement._replace(span=TextSpan(start, self.pos))
        return statement

    def statement(self, start: int, *, top: bool = False) -> Any:
        """Read one statement; the cursor stands on its first character."""
        if top:
            self.take("/")
        if self.looking_at("=>"):
            self.pos += 2
            self.skip_blanks()
            value = Literal(None) if self.at_line_end() or self.peek() == "]" else self.expression()
            return ReturnStatement(value, TextSpan(start, self.pos))
        if self.peek() == "@":
            return self._bare(start, top=top)
        if not top and self.take_word("skip"):
            return SkipStatement(TextSpan(start, self.pos))
        for word, reader in self._readers.items():
            if self.looking_at_word(word) and word not in (("let",) if top else ("var", "exe", "export", "import")):
                self.pos += len(word)
                self.skip_blanks()
                return reader(start)
        for word in FOREIGN_DIRECTIVES:
            if self.looking_at_word(word):
                return self._foreign(word, start)
        raise self.error("Text content not allowed in strict mode (.mld). Use .mld.md for prose.", start)

    def _foreign(self, word: str, start: int) -> Unsupported:
        if not self.lenient:
            raise UnsupportedConstruct(f"'{word}'", self.line(start))
        self.pos += len(word)
        self.skip_blanks()
        facts = self._guard_facts() if word == "guard" else {}
        depth = 0
        while self.pos < self.end and (depth or self.peek() != "\n"):
            char = self.peek()
            depth += (char in "[{(") - (char in ")}]") if char not in "\"'`" else 0
            if char in "\"'`":
                self.quoted()
                continue
            self.pos += 1
        return Unsupported(word, TextSpan(start, self.pos), facts)

    def _guard_facts(self) -> dict[str, Any]:
        name = "@" + self.identifier() if self.take("@") else None
        self.skip_blanks()
        timing = self.identifier()
        self.skip_blanks()
        begin = self.pos
        while self.peek() in WORD | frozenset(":-.@") and self.peek():
            self.pos += 1
        return {"name": name, "timing": timing, "filter": self.text[begin : self.pos]}

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
            statements.append(self.statement(self.pos))

    def action(self) -> Any:
        """Read the action of a statement-level `for`."""
        if self.peek() == "[":
            return self.block()
        start = self.pos
        if self.take_word("skip"):
            return SkipStatement(TextSpan(start, self.pos))
        if self.at_quote() or (self.peek() and self.peek() in "{<"):
            return self.expression()
        if self.looking_at_word("cmd") or self.looking_at_word("sh"):
            return RunStatement(self.expression(), TextSpan(start, self.pos))
        return self.statement(start)

    def _when_action(self) -> Any:
        start = self.pos
        if self.at_quote():
            value = self.expression()
            return SayStatement(value, TextSpan(start, self.pos))
        if self.take_word("null"):
            return Literal(None)
        for word in ("for", "if", "when", "loop"):
            if self.looking_at_word(word):
                raise self.error(f"'{word}' cannot be the action of when; put it into a block", start)
        return self.action()

    # -- statements

    def _name(self, directive: str, start: int) -> str:
        if not self.take("@"):
            raise self.error(
                f"Missing '@' before variable name in {directive} directive. Use: {directive} @x = value", start
            )
        name = self.identifier()
        if not name:
            raise self.error(f"Invalid {directive} syntax. Expected: {directive} @name = value", start)
        return name

    def _labels(self) -> tuple[str, ...]:
        """Read `llm` or `net:w, paid` between a keyword and `@name`."""
        labels: list[str] = []
        while self.peek() in LETTERS and self.peek():
            begin = self.pos
            while self.peek() in WORD | frozenset(":-.") and self.peek():
                self.pos += 1
            labels.append(self.text[begin : self.pos])
            self.skip_blanks()
            self.take(",")
            self.skip_blanks()
        return tuple(labels)

    def _assigned(self, directive: str, start: int) -> None:
        self.skip_blanks()
        if not self.take("="):
            raise self.error(f"Invalid {directive} syntax. Expected: {directive} @name = value", start)
        self.skip_space()

    def _var(self, start: int) -> VarStatement:
        labels = self._labels()
        name = self._name("var", start)
        self._assigned("var", start)
        value = self.block() if self._at_block() else self._right_side()
        return VarStatement(name, labels, value, TextSpan(start, self.pos))

    def _right_side(self) -> Any:
        if self.looking_at_word("show"):
            begin = self.pos
            self.pos += len("show")
            self.skip_blanks()
            return self._show(begin)
        return self.expression()

    def _let(self, start: int) -> LetStatement:
        name = self._name("let", start)
        self.skip_blanks()
        augment = self.take("+=")
        if not augment:
            self._assigned("let", start)
        self.skip_space()
        value = self.block() if self._at_block() else self._right_side()
        return LetStatement(name, value, augment, TextSpan(start, self.pos))

    def _exe(self, start: int) -> ExeStatement:
        labels = self._labels()
        name = self._name("exe", start)
        params: list[str] = []
        if self.take("("):
            self.skip_space()
            while not self.take(")"):
                self.take("@")
                param = self.identifier()
                if not param:
                    raise self.error("Expected a parameter name")
                params.append(param)
                self.skip_space()
                if self.take(","):
                    self.skip_space()
        self._assigned("exe", start)
        return ExeStatement(name, tuple(params), labels, self._exe_body(start), TextSpan(start, self.pos))

    def _exe_body(self, start: int) -> Any:
        if self.peek() == "[":
            if not self._at_block():
                raise self.error("Invalid exe syntax. A list cannot be the body of an exe", start)
            return self.block()
        if self.take_word("run"):
            self.skip_blanks()
            if self.looking_at_word("sh"):
                raise self.error("Invalid 'run' keyword in exe definition", start)
        if self.peek() == "<":
            raise UnsupportedConstruct("a file as the body of an exe", self.line(start))
        heads = ("cmd", "sh", "when", "for", "loop", "stream", "foreach", *CODE_LANGUAGES)
        if not (self.peek() in "@{" or self.at_quote() or any(self.looking_at_word(head) for head in heads)):
            raise self.error(
                "Invalid exe syntax. Expected a template, a command, a block or a reference as body", start
            )
        body = self.expression()
        if isinstance(body, (Binary, Ternary, Unary)):
            raise self.error("Text content not allowed in strict mode (.mld). Use .mld.md for prose.", start)
        if isinstance(body, WhenExpression) and body.subject is None and self.text[self.pos - 1] != "]":
            raise self.error("Invalid exe syntax. Expected [ behind when", start)
        return body

    def _show(self, start: int) -> ShowStatement:
        char = self.peek()
        if char == "{":
            raise self.error("show does not execute commands. Use run cmd { ... } (or run sh { ... }) instead.", start)
        if self.at_line_end() or any(self.looking_at_word(word) for word in ("true", "false", "null")):
            raise self.error("Missing content in show directive. Expected template, variable, or path to show.", start)
        if not (char in "@<" or self.at_quote()):
            raise self.error("Invalid show syntax. Expected: show `template`, show @variable, show <path>", start)
        return ShowStatement(self._operand(), TextSpan(start, self.pos))

    def _operand(self) -> Any:
        """Read a value where the language knows no operators, as behind `show` and `log`."""
        start = self.pos
        value = self.expression()
        first = value.source if isinstance(value, PipedValue) else value
        if isinstance(first, (Binary, Ternary, Unary)):
            raise self.error("Text content not allowed in strict mode (.mld). Use .mld.md for prose.", start)
        return value

    def _run(self, start: int) -> RunStatement:
        if self.looking_at_word("stream"):
            self.pos += len("stream")
            self.skip_blanks()
        for language in CODE_LANGUAGES:
            if self.looking_at_word(language):
                return RunStatement(self._foreign_code(language, self.pos), TextSpan(start, self.pos))
        if self.looking_at_word("cmd") or self.looking_at_word("sh") or self.peek() == "@":
            return RunStatement(self._operand(), TextSpan(start, self.pos))
        raise self.error("Commands in run must be wrapped in braces or quotes")

    def _bare(self, start: int, *, top: bool) -> Any:
        value = self.expression()
        self.skip_blanks()
        if isinstance(value, Reference) and not top and self.take("+="):
            self.skip_blanks()
            return LetStatement(value.name, self.expression(), True, TextSpan(start, self.pos))
        if isinstance(value, (FunctionCall, MethodCall, PipedValue)):
            return RunStatement(value, TextSpan(start, self.pos))
        raise self.error("Text content not allowed in strict mode (.mld). Use .mld.md for prose.", start)

    def _log(self, start: int) -> LogStatement:
        return LogStatement(self._operand(), TextSpan(start, self.pos))

    def _output(self, start: int) -> OutputStatement:
        if not (self.peek() in "@[{" or self.at_quote()) or self.at_line_end():
            raise self.error(
                'Invalid output syntax. Expected: output @variable to "path", output "path", '
                "or output @variable to stdout/stderr/env.",
                start,
            )
        value = self._operand()
        self.skip_blanks()
        if not self.take_word("to"):
            return OutputStatement(value, "stdout", Template(()), "", TextSpan(start, self.pos))
        self.skip_blanks()
        kind, target = "file", Template(())
        if self.take_word("stdout"):
            kind = "stdout"
        elif self.take_word("stderr"):
            kind = "stderr"
        elif self.looking_at_word("env"):
            raise UnsupportedConstruct("'output ... to env'", self.line(start))
        else:
            begin = self.pos
            target = self._path()
            first = target.parts[0] if target.parts and isinstance(target.parts[0], str) else ""
            if first.startswith("state://"):  # the rest is taken as it stands: nothing is filled in
                kind = "state"
                written = self.text[begin : self.pos].strip("\"'`")
                target = Template((written[len("state://") :],))
        written_as = self._format()
        return OutputStatement(value, kind, target, written_as, TextSpan(start, self.pos))

    def _format(self) -> str:
        mark = self.pos
        self.skip_blanks()
        if self.take_word("as"):
            self.skip_blanks()
            return self.identifier()
        self.pos = mark
        return ""

    def _path(self) -> Template:
        if self.at_quote():
            text = self.quoted()
            return text if isinstance(text, Template) else Template((text.data,))
        parts: list[str] = []
        while self.pos < self.end and self.peek() not in " \t\r\n]":
            if self.peek() == "@":
                raise UnsupportedConstruct("a variable in a path without quotes", self.line())
            parts.append(self.peek())
            self.pos += 1
        return Template(("".join(parts),))

    def _append(self, start: int) -> OutputStatement:
        value = self._operand()
        self.skip_blanks()
        if not self.take_word("to"):
            raise self.error("Missing 'to' in append directive. Expected: append @value to \"file\"", start)
        self.skip_blanks()
        return OutputStatement(value, "append", self._path(), "", TextSpan(start, self.pos))

    def _import(self, start: int) -> ImportStatement:
        names: list[tuple[str, str]] = []
        if self.take("{"):
            self.skip_space()
            while not self.take("}"):
                self.take("@")
                name = self.identifier()
                if not name:
                    raise self.error("Expected a name in the import list")
                self.skip_space()
                alias = name
                if self.take_word("as"):
                    self.skip_space()
                    self.expect("@", "before the new name")
                    alias = self.identifier()
                    self.skip_space()
                names.append((name, alias))
                if self.take(","):
                    self.skip_space()
            self.skip_blanks()
            if not self.take_word("from"):
                raise self.error("Missing 'from' in import directive")
            self.skip_blanks()
        elif self.peek() in LETTERS:
            raise UnsupportedConstruct(f"'import {self.identifier()}'", self.line(start))
        source = self._import_source()
        alias_name = None
        self.skip_blanks()
        if self.take_word("as"):
            self.skip_blanks()
            self.take("@")
            alias_name = self.identifier()
        return ImportStatement(tuple(names), alias_name, source, TextSpan(start, self.pos))

    def _import_source(self) -> str:
        if self.peek() == "<":
            return "".join(str(part) for part in self.file_read().path.parts)
        if self.at_quote():
            text = self.quoted()
            if not isinstance(text, Literal):
                begin = self.text.rfind('"', 0, self.pos - 1) + 1
                return self.text[begin : self.pos - 1]
            return str(text.data)
        begin = self.pos
        while self.pos < self.end and self.peek() not in " \t\r\n":
            self.pos += 1
        return self.text[begin : self.pos]

    def _export(self, start: int) -> ExportStatement:
        names: list[str] = []
        self.expect("{", "to open the export list")
        self.skip_space()
        while not self.take("}"):
            self.take("@")
            name = self.identifier()
            if not name:
                raise self.error("Expected a name in the export list")
            names.append(name)
            self.skip_space()
            if self.take(","):
                self.skip_space()
        return ExportStatement(tuple(names), TextSpan(start, self.pos))

    def _when(self, start: int) -> Any:
        self.pos = start + (self.text[start] == "/")
        return self.when(self._when_action)

    def _for(self, start: int) -> Any:
        self.pos = start + (self.text[start] == "/")
        return self.for_(self.action)

    def _loop(self, start: int) -> Any:
        self.pos = start + (self.text[start] == "/")
        return self.loop()

    def _if(self, start: int) -> IfStatement:
        condition = self.ternary()
        self.skip_blanks()
        yes = self.block()
        mark = self.pos
        self.skip_space()
        no: Any = None
        if self.take_word("else"):
            self.skip_blanks()
            begin = self.pos
            if self.take_word("if"):
                self.skip_blanks()
                no = self._if(begin)
            else:
                no = self.block()
        else:
            self.pos = mark
        return IfStatement(condition, yes, no, TextSpan(start, self.pos))

    def _bail(self, start: int) -> BailStatement:
        message = None if self.at_line_end() or self.peek() == "]" else self.expression()
        return BailStatement(message, TextSpan(start, self.pos))

    def _continue(self, start: int) -> ContinueStatement:
        return ContinueStatement(self._round_value(), TextSpan(start, self.pos))

    def _done(self, start: int) -> DoneStatement:
        return DoneStatement(self._round_value(), TextSpan(start, self.pos))

    def _round_value(self) -> Any:
        """Read the value of `continue` or `done`; in parentheses it is just that."""
        if self.at_line_end() or self.peek() == "]":
            return Literal(None)
        return self.primary() if self.peek() == "(" else self.expression()

    def _checkpoint(self, start: int) -> CheckpointStatement:
        name = self.expression()
        self.skip_blanks()
        if self.looking_at_word("with"):
            raise UnsupportedConstruct("'checkpoint ... with'", self.line(start))
        return CheckpointStatement(name, TextSpan(start, self.pos))


def parse(text: str, *, lenient: bool = False) -> ParsedScript:
    """Read a script, or fail with `ScriptParseError` or `UnsupportedConstruct` before anything runs."""
    resume, body_start = _resume_header(text.removeprefix("\ufeff"))
    if text.startswith("\ufeff"):  # the real engine reads past it in front of a header only
        if resume is None:
            raise ScriptParseError("Text content not allowed in strict mode (.mld). Use .mld.md for prose.")
        text = text.removeprefix("\ufeff")
    frontmatter = None
    if text.startswith("---\n", body_start):
        close = text.find("\n---", body_start + 3)
        if close >= 0:
            frontmatter = text[body_start + 4 : close + 1]
            body_start = close + 4
    parser = Parser(text, lenient=lenient)
    parser.pos = body_start
    return parser.script(resume, frontmatter)


def _resume_header(text: str) -> tuple[str | None, int]:
    first, newline, _ = text.partition("\n")
    head, colon, mode = first.partition(":")
    if not colon or head.strip().lower() != "resume":
        return None, 0
    wanted = mode.strip().strip("'\"").lower()
    if wanted not in RESUME_MODES:
        raise ScriptParseError(f'Invalid script resume mode "{mode.strip()}". Expected auto, manual, or never.')
    return wanted, len(first) + len(newline)
