"""Reading expressions: from pipes, `? :` and `??` down to literals, references and calls."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.scanner import DIGITS, WORD, Scanner
from mlld_sdk.transport.embedded.language.syntax import FieldAccess, Literal, Reference, ShellCommand, Slice
from mlld_sdk.transport.embedded.language.texts import TextParser

BINDING = {
    "||": 0, "??": 0, "&&": 1, "==": 2, "!=": 2, "<=": 3, ">=": 3, "<": 3, ">": 3, "+": 4, "-": 4, "*": 5, "/": 5,
    "%": 5,
}  # fmt: skip
"""How tightly the operators of two operands bind."""

SHELLS = ("cmd", "sh")
CODE_LANGUAGES = ("js", "node", "py", "python", "bash", "zsh")
MODIFIERS = frozenset(("csv", "json", "lower", "md", "parse", "pretty", "sort", "trim", "upper", "xml"))
MODIFIERS |= {f"{name}_{how}" for name in ("json", "parse") for how in ("fromlist", "llm", "loose", "strict")}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
RESERVED_HEADS = ("foreach", "new", "box", "hook", "while")
CONSTANTS = {"true": True, "false": False, "null": None}
_INDEX_START = DIGITS | {"-", ":"}
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_DIGITS = re.compile("[0-9]+")


class ExpressionParser:
    """Reads what may stand right of `=`; `compound` reads `when`, `for` or `loop`, or gives None if none is next."""

    def __init__(self, scan: Scanner, compound: Callable[[], Any]) -> None:
        self.scan = scan
        self.texts = TextParser(scan, partial(self._fields, tight=True))
        self._compound = compound

    def expression(self) -> Any:
        """Read an expression with everything that may follow it on its line, pipes included."""
        scan = self.scan
        value = self.ternary()
        mark = scan.pos
        stages: list[Any] = []
        while True:
            scan.skip_blanks()
            if scan.peek() != "|" or scan.peek(1) == "|":
                break
            scan.pos += 1
            scan.skip_blanks()
            stages.append(self._stage())
            mark = scan.pos
        scan.pos = mark
        return syntax.PipedValue(value, tuple(stages)) if stages else value

    def _stage(self) -> Any:
        scan = self.scan
        start = scan.pos
        if scan.word() in SHELLS:
            return self._shell()
        if not scan.take("@"):
            raise scan.error("Expected @function behind |")
        name = scan.identifier()
        if name in MODIFIERS and not scan.is_mentioned(name):
            raise UnsupportedConstruct(f"the built-in modifier '@{name}'", scan.line(start))
        args = self._arguments() if scan.peek() == "(" else ()
        return syntax.FunctionCall(name, args, scan.span(start))

    def ternary(self) -> Any:
        """Read `a ? b : c` and everything that binds tighter."""
        scan = self.scan
        condition = self._binary(0)
        mark = scan.pos
        scan.skip_blanks()
        if scan.peek() == "?" and scan.peek(1) != "?":
            scan.pos += 1
            scan.skip_space()
            yes = self.ternary()
            scan.skip_space()
            scan.expect(":", "in the conditional expression")
            scan.skip_space()
            return syntax.Ternary(condition, yes, self.ternary())
        scan.pos = mark
        return condition

    def _binary(self, lowest: int) -> Any:
        """Read operands and the operators between them that bind at least as tightly as `lowest`."""
        scan = self.scan
        left = self._unary()
        while True:
            mark = scan.pos
            scan.skip_blanks()
            operator = scan.text[scan.pos : scan.pos + 2]
            if operator not in BINDING:
                operator = operator[:1]
            if BINDING.get(operator, -1) < lowest or self._is_other(operator):
                scan.pos = mark
                return left
            scan.pos += len(operator)
            scan.skip_space()
            left = syntax.Binary(operator, left, self._binary(BINDING[operator] + 1))

    def _is_other(self, operator: str) -> bool:
        """Return whether what looks like an operator is a comment, `+=` or the last branch of a `when`."""
        scan = self.scan
        if operator == "*":
            return scan.text[scan.pos + 1 : scan.pos + 12].lstrip().startswith("=>")
        return scan.looking_at("+=") or (operator in ("<", ">") and scan.looking_at(operator * 2))

    def _unary(self) -> Any:
        scan = self.scan
        if scan.peek() == "!" and scan.peek(1) != "=":
            scan.pos += 1
            scan.skip_blanks()
            return syntax.Negation(self._unary())
        return self.primary()

    def primary(self) -> Any:
        """Read one operand with its fields, calls and methods."""
        scan = self.scan
        start = scan.pos
        char = scan.peek()
        if self._at_number():
            return Literal(self._number())
        if char == "{":
            return self._object()
        if char == "<":
            return self.texts.file_read()
        if scan.take("@"):
            name = scan.identifier()
            if not name:
                raise scan.error(
                    "Invalid variable reference. Variable names must start with a letter or underscore.", start
                )
            value: Any = Reference(name)
        elif scan.at_quote():
            value = self.texts.quoted()
        elif scan.take("["):
            value = syntax.ListLiteral(scan.items("]", self._list_item, of="array", start=start))
        elif scan.take("("):
            scan.skip_space()
            value = self.expression()
            scan.skip_space()
            scan.expect(")", "to close the parenthesis")
        else:
            return self._worded(start)
        return self._fields(value, start, tight=False)

    def _list_item(self) -> Any:
        if self.scan.looking_at("..."):
            raise self.scan.error("Spread in arrays is not part of mlld")
        return self.expression()

    def _worded(self, start: int) -> Any:
        """Read an operand that begins with a word."""
        scan = self.scan
        word = scan.word()
        if word in CONSTANTS:
            scan.pos += len(word)
            return Literal(CONSTANTS[word])
        compound = self._compound()
        if compound is not None:
            return compound
        if scan.take_keyword("run"):
            return self._shell() if scan.word() in SHELLS else self.primary()
        if word in SHELLS:
            return self._shell()
        if word in CODE_LANGUAGES:
            return self.foreign_code(word, start)
        if scan.take_keyword("stream"):
            inner = self.primary()
            return inner._replace(stream=True) if isinstance(inner, ShellCommand) else inner
        if word in RESERVED_HEADS:
            raise UnsupportedConstruct(f"'{word}'", scan.line(start))
        raise scan.error("Expected a value", start)

    def foreign_code(self, language: str, start: int) -> syntax.Unsupported:
        """Read code of another language, which is only looked at, never run."""
        scan = self.scan
        if not scan.lenient:
            raise UnsupportedConstruct(f"'{language} {{ }}'", scan.line(start))
        scan.take_keyword(language)
        if scan.peek() == "(":
            self._arguments()
            scan.skip_blanks()
        self.texts.shell_body()
        return syntax.Unsupported(f"'{language} {{ }}'", {"language": language})

    def _at_number(self) -> bool:
        return bool(self.scan.match(_NUMBER))

    def _number(self) -> float:
        text = self.scan.read(_NUMBER)
        if "." in text:
            value = float(text)
            return int(value) if value.is_integer() else value
        return int(text) if len(text) <= 16 else float(text)

    def duration(self) -> float:
        """Read `20ms`, `1s` and their like as seconds."""
        if self._at_number():
            amount = self._number()
            for unit, seconds in UNITS.items():  # the longest first
                if self.scan.take(unit):
                    return amount * seconds
        raise self.scan.error("Loop pacing expects a duration like 1s or 500ms.")

    def _fields(self, target: Any, start: int, *, tight: bool) -> Any:
        """Read fields, indexes, calls and methods behind `target`; `tight` inside a text, where `[` may be text."""
        scan = self.scan
        while True:
            char = scan.peek()
            if char == "." and scan.peek(1) in WORD:
                scan.pos += 1
                if scan.peek() in DIGITS:
                    target = FieldAccess(target, Literal(self._number()))  # `.1.1` is one number to the real engine
                    continue
                name = scan.identifier()
                if scan.peek() == "(":
                    target = syntax.MethodCall(target, name, self._arguments(), scan.span(start))
                else:
                    target = FieldAccess(target, Literal(name))
            elif char == "(" and isinstance(target, Reference):
                target = syntax.FunctionCall(target.name, self._arguments(), scan.span(start))
            elif char == "[" and (indexed := self._indexed(target, tight=tight)) is not None:
                target = indexed
            else:
                return target

    def _indexed(self, target: Any, *, tight: bool) -> FieldAccess | Slice | None:
        """Read `[...]` behind a value; inside a text it must look like an index or it is text."""
        scan = self.scan
        mark = scan.pos
        scan.pos += 1
        scan.skip_blanks()
        char = scan.peek()
        if char == '"' or char == "'":
            indexed: FieldAccess | Slice = FieldAccess(target, self.texts.quoted())
        elif char == "@":
            indexed = FieldAccess(target, self.primary())
        elif char in _INDEX_START:
            first = self._bound()
            if scan.take(":"):
                second = self._bound()
                indexed = Slice(target, None if first is None else int(first), None if second is None else int(second))
            else:
                indexed = FieldAccess(target, Literal(first))
        elif tight:
            scan.pos = mark
            return None
        else:
            raise UnsupportedConstruct("array filter or wildcard index", scan.line())
        scan.skip_blanks()
        if scan.take("]"):
            return indexed
        scan.pos = mark
        if tight:
            return None
        raise scan.error("Expected ']' to close the index")

    def _bound(self) -> float | None:
        """Read a number with blanks around it, if one is next."""
        scan = self.scan
        scan.skip_blanks()
        number = self._number() if self._at_number() else None
        scan.skip_blanks()
        return number

    def _arguments(self) -> tuple[Any, ...]:
        """Read `(a, b)`."""
        start = self.scan.pos
        self.scan.expect("(", "to open the arguments")
        return self.scan.items(")", self.expression, of="argument list", start=start)

    def _object(self) -> syntax.ObjectLiteral:
        """Read `{ "key": value }`."""
        start = self.scan.pos
        self.scan.expect("{", "to open the object")
        return syntax.ObjectLiteral(self.scan.items("}", self._entry, of="object", start=start))

    def _entry(self) -> tuple[str | None, Any]:
        scan = self.scan
        if scan.take("..."):
            return None, self.primary()
        if scan.peek() in ('"', "'"):
            key = self.texts.quoted()
            if not isinstance(key, Literal):
                raise UnsupportedConstruct("interpolation in an object's key", scan.line())
            name = str(key.data)
        else:
            name = scan.identifier() or (str(int(scan.read(_DIGITS))) if scan.peek() in DIGITS else "")
        if not name:
            raise scan.error("Expected a key in the object")
        scan.skip_space()
        scan.expect(":", "behind the key")
        scan.skip_space()
        return name, self.expression()

    def _shell(self) -> ShellCommand:
        scan = self.scan
        language = scan.identifier()
        scan.skip_blanks()
        variables: tuple[str, ...] = ()
        if scan.peek() == "(":
            refs = self._arguments()
            if not all(isinstance(ref, Reference) for ref in refs):
                raise scan.error("Expected variables in the parentheses of sh")
            variables = tuple(ref.name for ref in refs)
            scan.skip_blanks()
        if scan.peek() == ":":
            raise UnsupportedConstruct(f"working directory of '{language}'", scan.line())
        body: Any = self.texts.command_body() if language == "cmd" else self.texts.shell_body()
        return self._with(ShellCommand(language, body, variables, None, False))

    def _with(self, shell: ShellCommand) -> ShellCommand:
        """Read `with { stdin: ... }` behind a shell, if it is there."""
        scan = self.scan
        mark = scan.pos
        scan.skip_blanks()
        if not scan.take_keyword("with"):
            scan.pos = mark
            return shell
        for key, value in self._object().entries:
            if key != "stdin":
                raise UnsupportedConstruct(f"'with {{ {key} }}'", scan.line())
            shell = shell._replace(stdin=value)
        return shell
