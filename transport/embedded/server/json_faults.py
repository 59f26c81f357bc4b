"""Where a text stops being JSON, in the words of Node 20."""

WHITE = " \t\r\n"
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

    def skip(self) -> None:
        while self.peek() in WHITE and self.peek():
            self.at += 1

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
        char = self.peek()
        if char == "{":
            self.object()
        elif char == "[":
            self.array()
        elif char == '"':
            self.string()
        elif char == "-" or (char.isdigit() and char.isascii()):
            self.number()
        else:
            self.word()

    def word(self) -> None:
        for word in ("true", "false", "null"):
            if self.peek() == word[0]:
                for char in word:
                    if self.peek() != char:
                        raise self.unexpected()
                    self.at += 1
                return
        raise self.unexpected()

    def number(self) -> None:
        if self.peek() == "-":
            self.at += 1
            if not self.peek().isdigit():
                raise self.fail("No number after minus sign")
        if self.peek() == "0":
            self.at += 1
            if self.peek().isdigit():
                raise self.fail("Unexpected number")
        self.digits()
        if self.peek() == ".":
            self.at += 1
            if not self.peek().isdigit():
                raise self.fail("Unterminated fractional number")
            self.digits()
        if self.peek() in ("e", "E") and self.peek():
            self.at += 1
            if self.peek() in ("+", "-") and self.peek():
                self.at += 1
            if not self.peek().isdigit():
                raise self.fail("Exponent part is missing a number")
            self.digits()

    def digits(self) -> None:
        while self.peek().isdigit():
            self.at += 1

    def string(self) -> None:
        self.at += 1
        while True:
            char = self.peek()
            if not char:
                raise self.fail("Unterminated string")
            if char == '"':
                self.at += 1
                return
            if char < " ":
                raise self.fail("Bad control character in string literal")
            if char == "\\":
                self.at += 1
                self.escape()
            self.at += 1

    def escape(self) -> None:
        char = self.peek()
        if char == "u":
            for _ in range(4):
                self.at += 1
                if self.peek() not in "0123456789abcdefABCDEF" or not self.peek():
                    raise self.fail("Bad Unicode escape" if self.peek() else "Unterminated string")
        elif not char:
            raise self.unexpected()
        elif char not in '"\\/bfnrt':
            raise self.fail("Bad escaped character")

    def array(self) -> None:
        self.at += 1
        self.skip()
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            self.value()
            self.skip()
            if self.peek() == ",":
                self.at += 1
            elif self.peek() == "]":
                self.at += 1
                return
            else:
                raise self.fail("Expected ',' or ']' after array element")

    def object(self) -> None:
        self.at += 1
        self.skip()
        if self.peek() == "}":
            self.at += 1
            return
        first = True
        while True:
            self.skip()
            if self.peek() != '"':
                raise self.fail("Expected property name or '}'" if first else "Expected double-quoted property name")
            self.string()
            self.skip()
            if self.peek() != ":":
                raise self.fail("Expected ':' after property name") if first else self.unexpected()
            first = False
            self.at += 1
            self.value()
            self.skip()
            if self.peek() == ",":
                self.at += 1
            elif self.peek() == "}":
                self.at += 1
                return
            else:
                raise self.fail("Expected ',' or '}' after property value")

    def document(self) -> None:
        self.value()
        self.skip()
        if self.at < len(self.text):
            raise _Fault(f"Unexpected non-whitespace character after JSON at position {self.at}")


def explain(text: str) -> str:
    """Say what is wrong with a text that is not JSON."""
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
