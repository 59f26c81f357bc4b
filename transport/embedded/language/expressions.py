"""Reading expressions: from pipes, `? :` and `??` down to literals, references and calls."""

import re
from typing import Any

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.scanner import DIGITS, WORD
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


class ExpressionParser(TextParser):
    """Reads what may stand right of `=`."""

    def compound(self) -> Any:
        """Read `when`, `for` or `loop` if one is next, or return None; `CompoundParser` knows how."""
        raise NotImplementedError

    # -- operators

    def expression(self) -> Any:
        """Read an expression with everything that may follow it on its line, pipes included."""
        start = self.pos
        value = self.ternary()
        mark = self.pos
        stages: list[Any] = []
        while True:
            self.skip_blanks()
            if self.peek() != "|" or self.peek(1) == "|":
                break
            self.pos += 1
            self.skip_blanks()
            stages.append(self._stage())
            mark = self.pos
        self.pos = mark
        return syntax.PipedValue(value, tuple(stages), self.span(start)) if stages else value

    def _stage(self) -> Any:
        start = self.pos
        if self.word() in SHELLS:
            return self._shell()
        if not self.take("@"):
            raise self.error("Expected @function behind |")
        name = self.identifier()
        if name in MODIFIERS and not self.is_mentioned(name):
            raise UnsupportedConstruct(f"the built-in modifier '@{name}'", self.line(start))
        args = self._arguments() if self.peek() == "(" else ()
        return syntax.FunctionCall(name, args, self.span(start))

    def ternary(self) -> Any:
        """Read `a ? b : c` and everything that binds tighter."""
        condition = self._binary(0)
        mark = self.pos
        self.skip_blanks()
        if self.peek() == "?" and self.peek(1) != "?":
            self.pos += 1
            self.skip_space()
            yes = self.ternary()
            self.skip_space()
            self.expect(":", "in the conditional expression")
            self.skip_space()
            return syntax.Ternary(condition, yes, self.ternary())
        self.pos = mark
        return condition

    def _binary(self, lowest: int) -> Any:
        """Read operands and the operators between them that bind at least as tightly as `lowest`."""
        left = self._unary()
        while True:
            mark = self.pos
            self.skip_blanks()
            operator = self.text[self.pos : self.pos + 2]
            if operator not in BINDING:
                operator = operator[:1]
            if BINDING.get(operator, -1) < lowest or self._is_other(operator):
                self.pos = mark
                return left
            self.pos += len(operator)
            self.skip_space()
            left = syntax.Binary(operator, left, self._binary(BINDING[operator] + 1))

    def _is_other(self, operator: str) -> bool:
        """Return whether what looks like an operator is a comment, `+=` or the last branch of a `when`."""
        if operator == "*":
            return self.text[self.pos + 1 : self.pos + 12].lstrip().startswith("=>")
        return self.looking_at("+=") or (operator in ("<", ">") and self.looking_at(operator * 2))

    def _unary(self) -> Any:
        if self.peek() == "!" and self.peek(1) != "=":
            self.pos += 1
            self.skip_blanks()
            return syntax.Negation(self._unary())
        return self.primary()

    # -- operands

    def primary(self) -> Any:
        """Read one operand with its fields, calls and methods."""
        start = self.pos
        char = self.peek()
        if self._at_number():
            return Literal(self._number())
        if char == "{":
            return self._object()
        if char == "<":
            return self.file_read()
        if self.take("@"):
            name = self.identifier()
            if not name:
                raise self.error(
                    "Invalid variable reference. Variable names must start with a letter or underscore.", start
                )
            value: Any = Reference(name, self.span(start))
        elif self.at_quote():
            value = self.quoted()
        elif self.take("["):
            value = syntax.ListLiteral(self.items("]", self._list_item, of="array", start=start))
        elif self.take("("):
            self.skip_space()
            value = self.expression()
            self.skip_space()
            self.expect(")", "to close the parenthesis")
        else:
            return self._worded(start)
        return self.fields(value, start, tight=False)

    def _list_item(self) -> Any:
        if self.looking_at("..."):
            raise self.error("Spread in arrays is not part of mlld")
        return self.expression()

    def _worded(self, start: int) -> Any:
        """Read an operand that begins with a word."""
        word = self.word()
        if word in CONSTANTS:
            self.pos += len(word)
            return Literal(CONSTANTS[word])
        compound = self.compound()
        if compound is not None:
            return compound
        if self.take_keyword("run"):
            return self._shell() if self.word() in SHELLS else self.primary()
        if word in SHELLS:
            return self._shell()
        if word in CODE_LANGUAGES:
            return self.foreign_code(word, start)
        if self.take_keyword("stream"):
            inner = self.primary()
            return inner._replace(stream=True) if isinstance(inner, ShellCommand) else inner
        if word in RESERVED_HEADS:
            raise UnsupportedConstruct(f"'{word}'", self.line(start))
        raise self.error("Expected a value", start)

    def foreign_code(self, language: str, start: int) -> syntax.Unsupported:
        """Read code of another language, which is only looked at, never run."""
        if not self.lenient:
            raise UnsupportedConstruct(f"'{language} {{ }}'", self.line(start))
        self.take_keyword(language)
        if self.peek() == "(":
            self._arguments()
            self.skip_blanks()
        self.shell_body()
        return syntax.Unsupported(f"'{language} {{ }}'", self.span(start), {"language": language})

    def _at_number(self) -> bool:
        return _NUMBER.match(self.text, self.pos) is not None

    def _number(self) -> float:
        text = self.read(_NUMBER)
        if "." in text:
            value = float(text)
            return int(value) if value.is_integer() else value
        return int(text) if len(text) <= 16 else float(text)

    def duration(self) -> float:
        """Read `20ms`, `1s` and their like as seconds."""
        if self._at_number():
            amount = self._number()
            for unit, seconds in UNITS.items():  # the longest first
                if self.take(unit):
                    return amount * seconds
        raise self.error("Loop pacing expects a duration like 1s or 500ms.")

    # -- fields

    def fields(self, target: Any, start: int, *, tight: bool) -> Any:
        """Read fields, indexes, calls and methods behind `target`; `tight` inside a text, where `[` may be text."""
        while True:
            char = self.peek()
            if char == "." and self.peek(1) in WORD:
                self.pos += 1
                if self.peek() in DIGITS:
                    target = FieldAccess(target, Literal(self._number()))  # `.1.1` is one number to the real engine
                    continue
                name = self.identifier()
                if self.peek() == "(":
                    target = syntax.MethodCall(target, name, self._arguments(), self.span(start))
                else:
                    target = FieldAccess(target, Literal(name))
            elif char == "(" and isinstance(target, Reference):
                target = syntax.FunctionCall(target.name, self._arguments(), self.span(start))
            elif char == "[" and (indexed := self._indexed(target, tight=tight)) is not None:
                target = indexed
            else:
                return target

    def _indexed(self, target: Any, *, tight: bool) -> FieldAccess | Slice | None:
        """Read `[...]` behind a value; inside a text it must look like an index or it is text."""
        mark = self.pos
        self.pos += 1
        self.skip_blanks()
        char = self.peek()
        if char == '"' or char == "'":
            indexed: FieldAccess | Slice = FieldAccess(target, self.quoted())
        elif char == "@":
            indexed = FieldAccess(target, self.primary())
        elif char in _INDEX_START:
            first = self._bound()
            if self.take(":"):
                second = self._bound()
                indexed = Slice(target, None if first is None else int(first), None if second is None else int(second))
            else:
                indexed = FieldAccess(target, Literal(first))
        elif tight:
            self.pos = mark
            return None
        else:
            raise UnsupportedConstruct("array filter or wildcard index", self.line())
        self.skip_blanks()
        if self.take("]"):
            return indexed
        self.pos = mark
        if tight:
            return None
        raise self.error("Expected ']' to close the index")

    def _bound(self) -> float | None:
        """Read a number with blanks around it, if one is next."""
        self.skip_blanks()
        number = self._number() if self._at_number() else None
        self.skip_blanks()
        return number

    def _arguments(self) -> tuple[Any, ...]:
        """Read `(a, b)`."""
        start = self.pos
        self.expect("(", "to open the arguments")
        return self.items(")", self.expression, of="argument list", start=start)

    # -- objects

    def _object(self) -> syntax.ObjectLiteral:
        """Read `{ "key": value }`."""
        start = self.pos
        self.expect("{", "to open the object")
        return syntax.ObjectLiteral(self.items("}", self._entry, of="object", start=start))

    def _entry(self) -> tuple[str | None, Any]:
        if self.take("..."):
            return None, self.primary()
        if self.peek() in ('"', "'"):
            key = self.quoted()
            if not isinstance(key, Literal):
                raise UnsupportedConstruct("interpolation in an object's key", self.line())
            name = str(key.data)
        else:
            name = self.identifier() or (str(int(self.read(_DIGITS))) if self.peek() in DIGITS else "")
        if not name:
            raise self.error("Expected a key in the object")
        self.skip_space()
        self.expect(":", "behind the key")
        self.skip_space()
        return name, self.expression()

    # -- shells

    def _shell(self) -> ShellCommand:
        start = self.pos
        language = self.identifier()
        self.skip_blanks()
        variables: tuple[str, ...] = ()
        if self.peek() == "(":
            refs = self._arguments()
            if not all(isinstance(ref, Reference) for ref in refs):
                raise self.error("Expected variables in the parentheses of sh")
            variables = tuple(ref.name for ref in refs)
            self.skip_blanks()
        if self.peek() == ":":
            raise UnsupportedConstruct(f"working directory of '{language}'", self.line())
        body: Any = self.command_body() if language == "cmd" else self.shell_body()
        return self._with(ShellCommand(language, body, variables, None, False, self.span(start)))

    def _with(self, shell: ShellCommand) -> ShellCommand:
        """Read `with { stdin: ... }` behind a shell, if it is there."""
        mark = self.pos
        self.skip_blanks()
        if not self.take_keyword("with"):
            self.pos = mark
            return shell
        for key, value in self._object().entries:
            if key != "stdin":
                raise UnsupportedConstruct(f"'with {{ {key} }}'", self.line())
            shell = shell._replace(stdin=value)
        return shell
