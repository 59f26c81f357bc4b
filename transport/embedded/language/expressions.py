"""Reading expressions: from `??` and `? :` down to literals, references and calls."""

from typing import Any

from mlld_sdk.transport.embedded.errors import UnsupportedConstruct
from mlld_sdk.transport.embedded.language.scanner import DIGITS, WORD
from mlld_sdk.transport.embedded.language.syntax import (
    Binary,
    Block,
    FieldAccess,
    FunctionCall,
    ListLiteral,
    Literal,
    MethodCall,
    ObjectLiteral,
    PipedValue,
    Reference,
    ShellCommand,
    Slice,
    Ternary,
    TextSpan,
    Unary,
    Unsupported,
)
from mlld_sdk.transport.embedded.language.texts import TemplateParser

LEVELS: tuple[tuple[str, ...], ...] = (
    ("||", "??"),
    ("&&",),
    ("==", "!="),
    ("<=", ">=", "<", ">"),
    ("+", "-"),
    ("*", "/", "%"),
)
CODE_LANGUAGES = ("js", "node", "py", "python", "bash", "zsh")
MODIFIERS = frozenset(("csv", "json", "lower", "md", "parse", "pretty", "sort", "trim", "upper", "xml"))
MODIFIERS |= {f"{name}_{how}" for name in ("json", "parse") for how in ("fromlist", "llm", "loose", "strict")}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
RESERVED_HEADS = ("foreach", "new", "box", "stream", "hook", "while")


class ExpressionParser(TemplateParser):
    """Reads what may stand right of `=`. The statement parser adds `block` and `action`.

    Attributes:
        lenient: Read past what this engine does not run, for `analyze`.
    """

    lenient = False

    def block(self) -> Block:
        """Read `[ statements ]`; implemented by the statement parser."""
        raise NotImplementedError

    def compound(self) -> Any:
        """Read `when`, `for` or `loop` where a value is expected, or give None; implemented by the compound parser."""
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
        return PipedValue(value, tuple(stages), TextSpan(start, self.pos)) if stages else value

    def _stage(self) -> Any:
        start = self.pos
        if self.looking_at_word("cmd") or self.looking_at_word("sh"):
            return self._shell()
        if self.peek() != "@":
            raise self.error("Expected @function behind |")
        self.pos += 1
        name = self.identifier()
        if name in MODIFIERS and not self.is_mentioned(name):
            raise UnsupportedConstruct(f"the built-in modifier '@{name}'", self.line(start))
        args = self.arguments() if self.peek() == "(" else ()
        return FunctionCall(name, args, TextSpan(start, self.pos))

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
            return Ternary(condition, yes, self.ternary())
        self.pos = mark
        return condition

    def _binary(self, level: int) -> Any:
        if level == len(LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while True:
            mark = self.pos
            self.skip_blanks()
            operator = next((word for word in LEVELS[level] if self.looking_at(word)), None)
            if operator is None or self.looking_at("=>") or self._is_other(operator):
                self.pos = mark
                return left
            self.pos += len(operator)
            self.skip_space()
            left = Binary(operator, left, self._binary(level + 1))

    def _is_other(self, operator: str) -> bool:
        """Say whether what looks like an operator is a comment, `+=` or the last branch of a `when`."""
        if operator == "*":
            return self.text[self.pos + 1 : self.pos + 12].lstrip().startswith("=>")
        if operator == "+" and self.peek(1) == "=":
            return True
        return operator in ("<", ">") and self.looking_at(operator * 2)

    def _unary(self) -> Any:
        if self.peek() == "!" and self.peek(1) != "=":
            self.pos += 1
            self.skip_blanks()
            return Unary("!", self._unary())
        return self.primary()

    # -- operands

    def primary(self) -> Any:
        """Read one operand with its fields, calls and methods."""
        start = self.pos
        char = self.peek()
        if char == "@":
            self.pos += 1
            name = self.identifier()
            if not name:
                raise self.error(
                    "Invalid variable reference. Variable names must start with a letter or underscore.", start
                )
            return self.postfix(Reference(name, TextSpan(start, self.pos)), start, tight=False)
        if self.at_quote():
            return self.postfix(self.quoted(), start, tight=False)
        if (char in DIGITS and char) or (char == "-" and self.peek(1) in DIGITS and self.peek(1)):
            return Literal(self.number())
        if char == "[":
            return self.postfix(self.bracketed(), start, tight=False)
        if char == "{":
            return self.object()
        if char == "(":
            self.pos += 1
            self.skip_space()
            value = self.expression()
            self.skip_space()
            self.expect(")", "to close the parenthesis")
            return self.postfix(value, start, tight=False)
        if char == "<":
            return self.file_read()
        return self._worded(start)

    def _worded(self, start: int) -> Any:
        for word, data in (("true", True), ("false", False), ("null", None)):
            if self.take_word(word):
                return Literal(data)
        compound = self.compound()
        if compound is not None:
            return compound
        if self.looking_at_word("run"):
            self.pos += 3
            self.skip_blanks()
            return self._shell() if self.looking_at_word("cmd") or self.looking_at_word("sh") else self.primary()
        if self.looking_at_word("cmd") or self.looking_at_word("sh"):
            return self._shell()
        for language in CODE_LANGUAGES:
            if self.looking_at_word(language):
                return self._foreign_code(language, start)
        for head in RESERVED_HEADS:
            if self.looking_at_word(head):
                if head == "stream":
                    self.pos += len(head)
                    self.skip_blanks()
                    inner = self.primary()
                    return inner._replace(stream=True) if isinstance(inner, ShellCommand) else inner
                raise UnsupportedConstruct(f"'{head}'", self.line(start))
        raise self.error("Expected a value", start)

    def _foreign_code(self, language: str, start: int) -> Unsupported:
        if not self.lenient:
            raise UnsupportedConstruct(f"'{language} {{ }}'", self.line(start))
        self.pos += len(language)
        self.skip_blanks()
        if self.peek() == "(":
            self.arguments()
            self.skip_blanks()
        self.raw_body()
        return Unsupported(f"'{language} {{ }}'", TextSpan(start, self.pos), {"language": language})

    def number(self) -> float:
        """Read a number."""
        start = self.pos
        self.take("-")
        while self.peek() in DIGITS and self.peek():
            self.pos += 1
        if self.peek() == "." and self.peek(1) in DIGITS and self.peek(1):
            self.pos += 1
            while self.peek() in DIGITS and self.peek():
                self.pos += 1
            value = float(self.text[start : self.pos])
            return int(value) if value.is_integer() else value
        return int(self.text[start : self.pos]) if self.pos - start <= 16 else float(self.text[start : self.pos])

    def duration(self) -> float:
        """Read `20ms`, `1s` and their like as seconds."""
        amount = self.number()
        for unit in sorted(UNITS, key=len, reverse=True):
            if self.take(unit):
                return amount * UNITS[unit]
        raise self.error("Loop pacing expects a duration like 1s or 500ms.")

    def postfix(self, target: Any, start: int, *, tight: bool) -> Any:
        """Read fields, indexes, calls and methods behind `target`; `tight` inside a text, where `[` may be text."""
        while True:
            char = self.peek()
            if char == "." and self.peek(1) in WORD and self.peek(1):
                self.pos += 1
                if self.peek() in DIGITS:
                    target = FieldAccess(target, Literal(self.number()))  # `.1.1` is one number to the real engine
                    continue
                name = self.identifier()
                if self.peek() == "(":
                    target = MethodCall(target, name, self.arguments(), TextSpan(start, self.pos))
                else:
                    target = FieldAccess(target, Literal(name))
            elif char == "(" and isinstance(target, Reference):
                target = FunctionCall(target.name, self.arguments(), TextSpan(start, self.pos))
            elif char == "[" and (index := self._index(tight=tight)) is not None:
                target = (
                    Slice(target, *index)
                    if isinstance(index, tuple) and type(index) is tuple
                    else FieldAccess(target, index)
                )
            else:
                return target

    def _digits(self) -> int:
        start = self.pos
        while self.peek() in DIGITS and self.peek():
            self.pos += 1
        return int(self.text[start : self.pos])

    def _index(self, *, tight: bool) -> Any:
        """Read `[...]` behind a value; inside a text it must look like an index or it is text."""
        mark = self.pos
        self.pos += 1
        self.skip_blanks()
        char = self.peek()
        if char in ('"', "'") and char:
            key: Any = self.quoted()
        elif char == "@":
            key = self.primary()
        elif (char in DIGITS and char) or char == "-" or char == ":":
            first = self.number() if char != ":" else None
            self.skip_blanks()
            if self.take(":"):
                self.skip_blanks()
                second = self.number() if self.peek() != "]" else None
                key = (None if first is None else int(first), None if second is None else int(second))
            else:
                key = Literal(first)
        else:
            if tight:
                self.pos = mark
                return None
            raise UnsupportedConstruct("array filter or wildcard index", self.line())
        self.skip_blanks()
        if not self.take("]"):
            self.pos = mark
            if tight:
                return None
            raise self.error("Expected ']' to close the index")
        return key

    def arguments(self) -> tuple[Any, ...]:
        """Read `(a, b)`."""
        start = self.pos
        self.expect("(", "to open the arguments")
        args: list[Any] = []
        self.skip_space()
        while not self.take(")"):
            if self.pos >= self.end:
                raise self.error("Unclosed argument list. Expected ')'", start)
            args.append(self.expression())
            self.skip_space()
            if self.take(","):
                self.skip_space()
            elif self.peek() != ")":
                raise self.error("Expected ',' or ')' in the arguments")
        return tuple(args)

    # -- containers

    def bracketed(self) -> Any:
        """Read `[a, b]`; the statement parser tells blocks apart from lists."""
        start = self.pos
        self.expect("[", "to open the list")
        items: list[Any] = []
        self.skip_space()
        while not self.take("]"):
            if self.pos >= self.end:
                raise self.error("Unclosed array. Expected ']'", start)
            if self.looking_at("..."):
                raise self.error("Spread in arrays is not part of mlld")
            items.append(self.expression())
            self.skip_space()
            if self.take(","):
                self.skip_space()
            elif self.peek() != "]":
                raise self.error("Expected ',' or ']' in the array")
        return ListLiteral(tuple(items))

    def object(self) -> ObjectLiteral:
        """Read `{ "key": value }`."""
        start = self.pos
        self.expect("{", "to open the object")
        entries: list[tuple[str | None, Any]] = []
        self.skip_space()
        while not self.take("}"):
            if self.pos >= self.end:
                raise self.error("Unclosed object. Expected '}'", start)
            if self.take("..."):
                entries.append((None, self.primary()))
            else:
                entries.append(self._entry())
            self.skip_space()
            if self.take(","):
                self.skip_space()
            elif self.peek() != "}":
                raise self.error("Expected ',' or '}' in the object")
        return ObjectLiteral(tuple(entries))

    def _entry(self) -> tuple[str, Any]:
        if self.peek() in ('"', "'"):
            key = self.quoted()
            if not isinstance(key, Literal):
                raise UnsupportedConstruct("interpolation in an object's key", self.line())
            name = str(key.data)
        else:
            name = self.identifier() or (str(self._digits()) if self.peek() in DIGITS else "")
        if not name:
            raise self.error("Expected a key in the object")
        self.skip_space()
        self.expect(":", "behind the key")
        self.skip_space()
        return name, self.expression()

    # -- shells

    def _shell(self) -> ShellCommand:
        start = self.pos
        language = "cmd" if self.take_word("cmd") else "sh"
        if language == "sh":
            self.pos += 2
        self.skip_blanks()
        variables: tuple[str, ...] = ()
        if self.peek() == "(":
            refs = self.arguments()
            if not all(isinstance(ref, Reference) for ref in refs):
                raise self.error("Expected variables in the parentheses of sh")
            variables = tuple(ref.name for ref in refs)
            self.skip_blanks()
        if self.peek() == ":":
            raise UnsupportedConstruct(f"working directory of '{language}'", self.line())
        body: Any = self.command_body() if language == "cmd" else self.raw_body()
        return self._with(ShellCommand(language, body, variables, None, False, TextSpan(start, self.pos)))

    def _with(self, shell: ShellCommand) -> ShellCommand:
        mark = self.pos
        self.skip_blanks()
        if not self.take_word("with"):
            self.pos = mark
            return shell
        self.skip_blanks()
        for key, value in self.object().entries:
            if key == "stdin":
                shell = shell._replace(stdin=value)
            else:
                raise UnsupportedConstruct(f"'with {{ {key} }}'", self.line())
        return shell
