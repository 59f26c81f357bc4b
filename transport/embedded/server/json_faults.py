"""Where a text stops being JSON, in the words of Node 20."""

from collections.abc import Callable

WHITE = " \t\r\n"
DIGITS = frozenset("0123456789")
CONTEXT = 10


class _Fault(Exception):
    pass


class _Reader:
    """Reads JSON without keeping anything, until something is wrong."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self, *chars: str) -> bool:
        taken = self.peek() in chars
        self.at += taken
        return taken

    def skip(self) -> None:
        while self.take(*WHITE):
            pass

    def fail(self, message: str) -> _Fault:
        return _Fault(f"{message} in JSON at position {self.at}")

    def unexpected(self) -> _Fault:
        if self.at >= len(self.text):
            return _Fault("Unexpected end of JSON input")
        char = self.text[self.at]
        if char.isdigit() or char == "-":
            return self.fail("Unexpected number")
        if char == '"':
            return self.fail("Unexpected string")
        shown, before, after = self.text, "", ""
        if len(self.text) > 2 * CONTEXT:
            near_start, near_end = self.at < CONTEXT, self.at >= len(self.text) - CONTEXT
            start, end = 0 if near_start else self.at - CONTEXT, self.at + CONTEXT
            shown = self.text[start:end] if near_start or not near_end else self.text[start:]
            before, after = "" if near_start else "...", "..." if near_start or not near_end else ""
        return _Fault(f"Unexpected token '{char}', {before}\"{shown}\"{after} is not valid JSON")

    def value(self) -> None:
        self.skip()
        if self.take("{"):
            self.items(self.member, "}", "property value")
        elif self.take("["):
            self.items(lambda _: self.value(), "]", "array element")
        elif self.take('"'):
            self.string()
        elif self.peek() == "-" or self.peek() in DIGITS:
            self.number()
        else:
            self.word()

    def items(self, read: Callable[[bool], None], closing: str, what: str) -> None:
        self.skip()
        if self.take(closing):
            return
        read(True)
        self.skip()
        while not self.take(closing):
            if not self.take(","):
                raise self.fail(f"Expected ',' or '{closing}' after {what}")
            read(False)
            self.skip()

    def member(self, first: bool) -> None:
        self.skip()
        if not self.take('"'):
            raise self.fail("Expected property name or '}'" if first else "Expected double-quoted property name")
        self.string()
        self.skip()
        if not self.take(":"):
            raise self.fail("Expected ':' after property name") if first else self.unexpected()
        self.value()

    def word(self) -> None:
        word = next((word for word in ("true", "false", "null") if self.peek() == word[0]), None)
        if word is None:
            raise self.unexpected()
        for char in word:
            if not self.take(char):
                raise self.unexpected()

    def number(self) -> None:
        if self.take("-") and self.peek() not in DIGITS:
            raise self.fail("No number after minus sign")
        if self.take("0") and self.peek() in DIGITS:
            raise self.fail("Unexpected number")
        self.digits()
        if self.take("."):
            self.digits("Unterminated fractional number")
        if self.take("e", "E"):
            self.take("+", "-")
            self.digits("Exponent part is missing a number")

    def digits(self, missing: str = "") -> None:
        if missing and self.peek() not in DIGITS:
            raise self.fail(missing)
        while self.take(*DIGITS):
            pass

    def string(self) -> None:
        while not self.take('"'):
            if not self.peek():
                raise self.fail("Unterminated string")
            if self.peek() < " ":
                raise self.fail("Bad control character in string literal")
            if self.take("\\"):
                self.escape()
            else:
                self.at += 1

    def escape(self) -> None:
        if self.take("u"):
            for _ in range(4):
                if not self.take(*"0123456789abcdefABCDEF"):
                    raise self.fail("Bad Unicode escape" if self.peek() else "Unterminated string")
        elif not self.peek():
            raise self.unexpected()
        elif not self.take(*'"\\/bfnrt'):
            raise self.fail("Bad escaped character")

    def document(self) -> None:
        self.value()
        self.skip()
        if self.at < len(self.text):
            raise _Fault(f"Unexpected non-whitespace character after JSON at position {self.at}")


def explain(text: str) -> str:
    """Return what is wrong with a text that is not JSON."""
    if text in ("undefined", "NaN", "Infinity"):
        return f'"{text}" is not valid JSON'
    reader = _Reader(text)
    try:
        reader.document()
    except _Fault as fault:
        return str(fault)
    except RecursionError:
        return "Maximum call stack size exceeded"
    return "Invalid JSON request"
