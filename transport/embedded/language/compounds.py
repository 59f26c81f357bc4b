"""Reading what repeats and what chooses: `when`, `for` and `loop`."""

from typing import Any

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language.expressions import ExpressionParser
from mlld_sdk.transport.embedded.language.scanner import BLANKS
from mlld_sdk.transport.embedded.language.syntax import (
    ForLoop,
    Literal,
    Parallel,
    RepeatLoop,
    ReturnStatement,
    TextSpan,
    WhenBranch,
    WhenExpression,
)


class CompoundParser(ExpressionParser):
    """Reads values and statements that have blocks of their own. The statement parser adds `action`."""

    def action(self) -> Any:
        """Read the action of a statement-level `for` or `when`; implemented by the statement parser."""
        raise NotImplementedError

    def compound(self) -> Any:
        """Read `when`, `for` or `loop` where a value is expected, or give None."""
        if self.looking_at_word("when"):
            return self.when(self._branch_value)
        if self.looking_at_word("for"):
            return self.for_(self._for_value)
        return self.loop() if self.looking_at_word("loop") else None

    def when(self, action: Any) -> WhenExpression:
        """Read a `when`; `action` reads what stands behind `=>`."""
        start = self.pos
        self.pos += len("when")
        self.skip_blanks()
        if self.looking_at_word("first"):
            self.pos += len("first")
            self.skip_blanks()
        subject = None
        if self.peek() != "[":
            subject = self.ternary()
            self.skip_blanks()
            if self.take("=>"):
                self.skip_space()
                return WhenExpression(None, (WhenBranch(subject, action()),), TextSpan(start, self.pos))
        self.expect("[", "to open the branches of when")
        branches: list[WhenBranch] = []
        self.skip_space()
        while not self.take("]"):
            if self.pos >= self.end:
                raise self.error("Unterminated block. Expected ']' to close when", start)
            condition = None
            if not self.take("*"):
                condition = Literal("none") if self.take_word("none") else self.ternary()
            self.skip_space()
            self.expect("=>", "behind the condition of when")
            self.skip_space()
            branches.append(WhenBranch(condition, action()))
            self.skip_space()
        return WhenExpression(subject, tuple(branches), TextSpan(start, self.pos))

    def _branch_value(self) -> Any:
        if self._at_block():
            return self.block()
        if self.looking_at_word("show") or self.looking_at_word("log") or self.looking_at_word("output"):
            return self.action()
        for word in ("deny", "allow", "retry", "skip", "continue", "done"):
            if self.looking_at_word(word):
                if word in ("continue", "done", "skip"):
                    return self.action()
                raise UnsupportedConstruct(f"'{word}'", self.line())
        return self.expression()

    def _for_value(self) -> Any:
        if self._at_block():
            return self.block()
        if self.looking_at_word("show") or self.looking_at_word("skip"):
            return self.action()
        return self.expression()

    def _at_block(self) -> bool:
        """Say whether the bracket here opens a block of statements rather than a list."""
        if self.peek() != "[":
            return False
        mark = self.pos
        self.pos += 1
        self.skip_space()
        words = (
            "let",
            "show",
            "log",
            "output",
            "append",
            "run",
            "when",
            "for",
            "if",
            "loop",
            "continue",
            "done",
            "bail",
            "var",
            "skip",
        )
        found = self.looking_at("=>") or any(self.looking_at_word(word) for word in words)
        if not found and self.peek() == "@":
            # `[ @x += 1 ... ]` and `[ @f(...) <newline> ... ]` are blocks, `[@x, @y]` is a list
            line_end = self.text.find("\n", self.pos)
            rest = self.text[self.pos : self.end if line_end < 0 else line_end].rstrip(BLANKS)
            found = "+=" in rest or (rest.endswith(")") and "," not in rest)
        self.pos = mark
        return found

    def for_(self, action: Any) -> ForLoop:
        """Read a `for`; `action` reads what stands behind `=>`."""
        start = self.pos
        self.pos += len("for")
        self.skip_blanks()
        parallel = self._parallel()
        self.skip_blanks()
        name, key = self._loop_name(), None
        self.skip_blanks()
        if self.take(","):
            self.skip_blanks()
            key, name = name, self._loop_name()
            self.skip_blanks()
        if not self.take_word("in"):
            raise self.error("Missing 'in' in for directive. Expected: for @var in @collection => action", start)
        self.skip_blanks()
        source = self.expression()
        self.skip_blanks()
        where = None
        if self.take_word("when"):
            self.skip_blanks()
            where = self.ternary()
            self.skip_blanks()
        if self.take("=>"):
            self.skip_space()
            body = action()
        elif self.peek() == "[":
            body = self.block()
        else:
            raise self.error("Missing '=>' or '[' in for directive. Expected: for @var in @collection => action", start)
        return ForLoop(key, name, source, where, body, parallel, TextSpan(start, self.pos))

    def _loop_name(self) -> str:
        if not self.take("@"):
            raise self.error("Invalid for syntax. Expected: for @var in @collection => action")
        name = self.identifier()
        if self.peek() == ".":
            raise UnsupportedConstruct("a field as loop variable", self.line())
        return name

    def _parallel(self) -> Parallel | None:
        if not self.take_word("parallel"):
            return None
        self.skip_blanks()
        cap: Any = None
        pace = 0.0
        if self.take("("):
            self.skip_blanks()
            if self.peek() != ")":
                cap = self.primary()
                self.skip_blanks()
                if self.take(","):
                    self.skip_blanks()
                    pace = self.duration()
                    self.skip_blanks()
            self.expect(")", "to close parallel")
        return Parallel(cap, pace)

    def loop(self) -> RepeatLoop:
        """Read `loop(limit, pace) until condition [ ... ]`."""
        start = self.pos
        self.pos += len("loop")
        self.skip_blanks()
        limit: Any = None
        pace = 0.0
        if self.take("("):
            self.skip_blanks()
            if self.peek() == ")":
                raise self.error("loop() requires a limit or endless. Expected: loop(<cap>[, <rate>])", start)
            if not self.take_word("endless"):
                limit = self.primary()
            self.skip_blanks()
            if self.take(","):
                self.skip_blanks()
                pace = self.duration()
                self.skip_blanks()
            self.expect(")", "to close the limit of loop")
            self.skip_blanks()
        until = None
        if self.take_word("until"):
            self.skip_blanks()
            until = self.ternary()
            self.skip_blanks()
        if self.peek() != "[":
            raise self.error("loop requires a block. Expected: loop [ ... ]", start)
        body = self.block()
        if any(isinstance(statement, ReturnStatement) for statement in body.statements):
            raise self.error("'=>' cannot stand directly in the block of a loop; use done", start)
        return RepeatLoop(limit, pace, until, body, TextSpan(start, self.pos))
