"""Reading what repeats and what chooses: `when`, `for` and `loop`."""

from collections.abc import Callable
from typing import Any

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.expressions import ExpressionParser
from mlld_sdk.transport.embedded.language.scanner import BLANKS
from mlld_sdk.transport.embedded.language.syntax import Block, Literal, WhenBranch

_BLOCK_WORDS = frozenset((
    "let", "show", "log", "output", "append", "run", "when", "for", "if", "loop", "continue", "done", "bail", "var",
    "skip",
))  # fmt: skip
_VALUED_ACTIONS = ("show", "log", "output", "continue", "done", "skip")
_FOREIGN_ACTIONS = ("deny", "allow", "retry")


class CompoundParser(ExpressionParser):
    """Reads values and statements that have blocks of their own."""

    def block(self) -> Block:
        """Read `[ statements ]`; `StatementParser` knows how."""
        raise NotImplementedError

    def action(self) -> Any:
        """Read a statement or block behind `=>`; `StatementParser` knows how."""
        raise NotImplementedError

    def compound(self) -> Any:
        """Read a `when`, `for` or `loop` as a value, or return None if none is next."""
        return self.compound_of(self._branch_value, self._for_value)

    def compound_of(self, when_action: Callable[[], Any], for_action: Callable[[], Any]) -> Any:
        """Read a `when`, `for` or `loop`, or return None if none is next.

        Args:
            when_action: Reads what stands behind `=>` in a `when`.
            for_action: Reads what stands behind `=>` in a `for`.
        """
        start = self.pos
        if self.take_keyword("when"):
            return self._when(start, when_action)
        if self.take_keyword("for"):
            return self._for(start, for_action)
        return self._loop(start) if self.take_keyword("loop") else None

    def _branch_value(self) -> Any:
        word = self.word()
        if word in _FOREIGN_ACTIONS:
            raise UnsupportedConstruct(f"'{word}'", self.line())
        return self.action() if word in _VALUED_ACTIONS else self.block_or(self.expression)

    def _for_value(self) -> Any:
        return self.action() if self.word() in ("show", "skip") else self.block_or(self.expression)

    def block_or(self, read: Callable[[], Any]) -> Any:
        """Read a block if the bracket here opens one rather than a list, and `read` something else otherwise."""
        return self.block() if self.at_block() else read()

    def at_block(self) -> bool:
        """Return whether the bracket here opens a block of statements rather than a list."""
        mark = self.pos
        if not self.take("["):
            return False
        self.skip_space()
        found = self.looking_at("=>") or self.word() in _BLOCK_WORDS
        if not found and self.peek() == "@":
            # `[ @x += 1 ... ]` and `[ @f(...) <newline> ... ]` are blocks, `[@x, @y]` is a list
            rest = self.line_rest().rstrip(BLANKS)
            found = "+=" in rest or (rest.endswith(")") and "," not in rest)
        self.pos = mark
        return found

    def _when(self, start: int, action: Callable[[], Any]) -> syntax.WhenExpression:
        ternary = self.ternary
        self.take_keyword("first")
        subject = None
        if self.peek() != "[":
            subject = ternary()
            self.skip_blanks()
            if self.take("=>"):
                self.skip_space()
                return syntax.WhenExpression(None, (WhenBranch(subject, action()),), self.span(start))
        self.expect("[", "to open the branches of when")
        branches: list[WhenBranch] = []
        self.skip_space()
        while not self.take("]"):
            if self.pos >= self.end:
                raise self.error("Unterminated block. Expected ']' to close when", start)
            condition = None
            if not self.take("*"):
                condition = Literal("none") if self.take_word("none") else ternary()
            self.skip_space()
            self.expect("=>", "behind the condition of when")
            self.skip_space()
            branches.append(WhenBranch(condition, action()))
            self.skip_space()
        return syntax.WhenExpression(subject, tuple(branches), self.span(start))

    def _for(self, start: int, action: Callable[[], Any]) -> syntax.ForLoop:
        parallel = self._parallel() if self.take_keyword("parallel") else None
        name, key = self._loop_name(), None
        if self.take(","):
            self.skip_blanks()
            key, name = name, self._loop_name()
        if not self.take_keyword("in"):
            raise self.error("Missing 'in' in for directive. Expected: for @var in @collection => action", start)
        source = self.expression()
        self.skip_blanks()
        where = self._condition("when")
        if self.take("=>"):
            self.skip_space()
            body = action()
        elif self.peek() == "[":
            body = self.block()
        else:
            raise self.error("Missing '=>' or '[' in for directive. Expected: for @var in @collection => action", start)
        return syntax.ForLoop(key, name, source, where, body, parallel, self.span(start))

    def _loop_name(self) -> str:
        if not self.take("@"):
            raise self.error("Invalid for syntax. Expected: for @var in @collection => action")
        name = self.identifier()
        if self.peek() == ".":
            raise UnsupportedConstruct("a field as loop variable", self.line())
        self.skip_blanks()
        return name

    def _condition(self, word: str) -> Any:
        """Read `word condition` if it is next, and return the condition or None."""
        if not self.take_keyword(word):
            return None
        condition = self.ternary()
        self.skip_blanks()
        return condition

    def _parallel(self) -> syntax.Parallel:
        cap: Any = None
        pace = 0.0
        if self.take("("):
            self.skip_blanks()
            if self.peek() != ")":
                cap = self.primary()
                pace = self._pace()
            self.expect(")", "to close parallel")
            self.skip_blanks()
        return syntax.Parallel(cap, pace)

    def _pace(self) -> float:
        """Read `, 20ms` if it is next, and return the seconds."""
        self.skip_blanks()
        if not self.take(","):
            return 0.0
        self.skip_blanks()
        pace = self.duration()
        self.skip_blanks()
        return pace

    def _loop(self, start: int) -> syntax.RepeatLoop:
        """Read `loop(limit, pace) until condition [ ... ]`."""
        limit: Any = None
        pace = 0.0
        if self.take("("):
            self.skip_blanks()
            if self.peek() == ")":
                raise self.error("loop() requires a limit or endless. Expected: loop(<cap>[, <rate>])", start)
            if not self.take_word("endless"):
                limit = self.primary()
            pace = self._pace()
            self.expect(")", "to close the limit of loop")
            self.skip_blanks()
        until = self._condition("until")
        if self.peek() != "[":
            raise self.error("loop requires a block. Expected: loop [ ... ]", start)
        body = self.block()
        if any(syntax.is_simple(statement, "=>") for statement in body.statements):
            raise self.error("'=>' cannot stand directly in the block of a loop; use done", start)
        return syntax.RepeatLoop(limit, pace, until, body, self.span(start))
