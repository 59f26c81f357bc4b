"""Reading what repeats and what chooses: `when`, `for` and `loop`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.expressions import ExpressionParser
from mlld_sdk.transport.embedded.language.scanner import BLANKS, Scanner
from mlld_sdk.transport.embedded.language.syntax import Block, Literal

_BLOCK_WORDS = frozenset((
    "let", "show", "log", "output", "append", "run", "when", "for", "if", "loop", "continue", "done", "bail", "var",
    "skip",
))  # fmt: skip
_VALUED_ACTIONS = ("show", "log", "output", "continue", "done", "skip")
_FOREIGN_ACTIONS = ("deny", "allow", "retry")


class CompoundParser:
    """Reads values and statements that have blocks of their own.

    `block` reads `[ statements ]`, `action` a statement or block behind `=>`.
    """

    def __init__(self, scan: Scanner, block: Callable[[], Block], action: Callable[[], Any]) -> None:
        self.expressions = ExpressionParser(scan, partial(self.read, self._branch_value, self._for_value))
        self._scan = scan
        self._block = block
        self._action = action

    def read(self, when_action: Callable[[], Any], for_action: Callable[[], Any]) -> Any:
        """Read a `when`, `for` or `loop`, with what stands behind their `=>`; return None if none is next."""
        scan = self._scan
        start = scan.pos
        if scan.take_keyword("when"):
            return self._when(start, when_action)
        if scan.take_keyword("for"):
            return self._for(start, for_action)
        return self._loop(start) if scan.take_keyword("loop") else None

    def _branch_value(self) -> Any:
        word = self._scan.word()
        if word in _FOREIGN_ACTIONS:
            raise UnsupportedConstruct(f"'{word}'", self._scan.line())
        return self._action() if word in _VALUED_ACTIONS else self.block_or(self.expressions.expression)

    def _for_value(self) -> Any:
        return self._action() if self._scan.word() in ("show", "skip") else self.block_or(self.expressions.expression)

    def block_or(self, read: Callable[[], Any]) -> Any:
        """Read a block if the bracket here opens one rather than a list, and `read` something else otherwise."""
        return self._block() if self.at_block() else read()

    def at_block(self) -> bool:
        """Return whether the bracket here opens a block of statements rather than a list."""
        scan = self._scan
        mark = scan.pos
        if not scan.take("["):
            return False
        scan.skip_space()
        found = scan.looking_at("=>") or scan.word() in _BLOCK_WORDS
        if not found and scan.peek() == "@":
            # `[ @x += 1 ... ]` and `[ @f(...) <newline> ... ]` are blocks, `[@x, @y]` is a list
            rest = scan.line_rest().rstrip(BLANKS)
            found = "+=" in rest or (rest.endswith(")") and "," not in rest)
        scan.pos = mark
        return found

    def _when(self, start: int, action: Callable[[], Any]) -> syntax.WhenExpression:
        scan, ternary = self._scan, self.expressions.ternary
        scan.take_keyword("first")
        subject = None
        if scan.peek() != "[":
            subject = ternary()
            scan.skip_blanks()
            if scan.take("=>"):
                scan.skip_space()
                return syntax.WhenExpression(None, ((subject, action()),))
        scan.expect("[", "to open the branches of when")
        branches: list[tuple[Any, Any]] = []
        scan.skip_space()
        while not scan.take("]"):
            if scan.pos >= scan.end:
                raise scan.error("Unterminated block. Expected ']' to close when", start)
            condition = None
            if not scan.take("*"):
                condition = Literal("none") if scan.take_word("none") else ternary()
            scan.skip_space()
            scan.expect("=>", "behind the condition of when")
            scan.skip_space()
            branches.append((condition, action()))
            scan.skip_space()
        return syntax.WhenExpression(subject, tuple(branches))

    def _for(self, start: int, action: Callable[[], Any]) -> syntax.ForLoop:
        scan = self._scan
        parallel = self._parallel() if scan.take_keyword("parallel") else None
        name, key = self._loop_name(), None
        if scan.take(","):
            scan.skip_blanks()
            key, name = name, self._loop_name()
        if not scan.take_keyword("in"):
            raise scan.error("Missing 'in' in for directive. Expected: for @var in @collection => action", start)
        source = self.expressions.expression()
        scan.skip_blanks()
        where = self._condition("when")
        if scan.take("=>"):
            scan.skip_space()
            body = action()
        elif scan.peek() == "[":
            body = self._block()
        else:
            raise scan.error("Missing '=>' or '[' in for directive. Expected: for @var in @collection => action", start)
        return syntax.ForLoop(key, name, source, where, body, parallel, scan.span(start))

    def _loop_name(self) -> str:
        scan = self._scan
        if not scan.take("@"):
            raise scan.error("Invalid for syntax. Expected: for @var in @collection => action")
        name = scan.identifier()
        if scan.peek() == ".":
            raise UnsupportedConstruct("a field as loop variable", scan.line())
        scan.skip_blanks()
        return name

    def _condition(self, word: str) -> Any:
        """Read `word condition` if it is next, and return the condition or None."""
        if not self._scan.take_keyword(word):
            return None
        condition = self.expressions.ternary()
        self._scan.skip_blanks()
        return condition

    def _parallel(self) -> syntax.Parallel:
        cap: Any = None
        pace = 0.0
        if self._scan.take("("):
            self._scan.skip_blanks()
            if self._scan.peek() != ")":
                cap = self.expressions.primary()
                pace = self._pace()
            self._scan.expect(")", "to close parallel")
            self._scan.skip_blanks()
        return syntax.Parallel(cap, pace)

    def _pace(self) -> float:
        """Read `, 20ms` if it is next, and return the seconds."""
        self._scan.skip_blanks()
        if not self._scan.take(","):
            return 0.0
        self._scan.skip_blanks()
        pace = self.expressions.duration()
        self._scan.skip_blanks()
        return pace

    def _loop(self, start: int) -> syntax.RepeatLoop:
        """Read `loop(limit, pace) until condition [ ... ]`."""
        scan = self._scan
        limit: Any = None
        pace = 0.0
        if scan.take("("):
            scan.skip_blanks()
            if scan.peek() == ")":
                raise scan.error("loop() requires a limit or endless. Expected: loop(<cap>[, <rate>])", start)
            if not scan.take_word("endless"):
                limit = self.expressions.primary()
            pace = self._pace()
            scan.expect(")", "to close the limit of loop")
            scan.skip_blanks()
        until = self._condition("until")
        if scan.peek() != "[":
            raise scan.error("loop requires a block. Expected: loop [ ... ]", start)
        body = self._block()
        if any(syntax.is_simple(statement, "=>") for statement in body.statements):
            raise scan.error("'=>' cannot stand directly in the block of a loop; use done", start)
        return syntax.RepeatLoop(limit, pace, until, body)
