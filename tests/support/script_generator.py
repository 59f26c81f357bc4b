"""Makes scripts by chance, the same ones for the same seed, out of everything the embedded engine's subset has."""

import json
import random

WORDS = ("ash", "birch elm", "oak's", 'fir \\"x\\"', "", "7", "true", "naïve ☃", "a,b,c", "line one\\nline two")
OPERATORS = ("+", "-", "*", "/", "%", "==", "!=", "<", ">", "<=", ">=", "&&", "||")


class ScriptGenerator:
    """Writes one script for each call of `script`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers: list[str] = []
        self._texts: list[str] = []
        self._lists: list[str] = []
        self._count = 0

    def script(self) -> str:
        choose = self._random
        lines = ["exe @tag(t) = `<@t!>`", 'exe llm @ask(p, n) = sh { echo "A:$p:$n" }', 'exe @up(t) = cmd {echo "@t"}']
        if choose.random() < 0.3:
            lines.insert(0, "resume: auto")
        makers = [self._number, self._text, self._list, self._object]
        lines += [choose.choice(makers)() for _ in range(4)] + [self._number(), self._text(), self._list()]
        users = [self._show, self._loop, self._when, self._call, self._ask, self._parallel, self._state, self._block]
        lines += [choose.choice(users)() for _ in range(choose.randint(4, 8))]
        names = self._numbers + self._texts
        lines.append("export { " + ", ".join(f"@{name}" for name in choose.sample(names, min(2, len(names)))) + " }")
        return "\n".join(lines)

    def _name(self, kind: list[str], prefix: str) -> str:
        self._count += 1
        name = f"{prefix}{self._count}"
        kind.append(name)
        return name

    def _literal(self) -> str:
        return self._random.choice((str(self._random.randint(0, 99)), str(self._random.randint(1, 99) / 4)))

    def _operand(self) -> str:
        if self._numbers and self._random.random() < 0.6:
            return "@" + self._random.choice(self._numbers)
        return self._literal()

    def _number(self) -> str:
        first, second = self._operand(), self._operand()
        value = self._random.choice(
            (first, f"{first} {self._random.choice(OPERATORS)} {second}", f"({first} + {second}) * 2")
        )
        return f"var @{self._name(self._numbers, 'n')} = {value}"

    def _text(self) -> str:
        quote = self._random.choice(('"', "`"))
        word = self._random.choice(WORDS)
        hole = ""
        if self._texts and self._random.random() < 0.5:
            hole = " @" + self._random.choice(self._texts)
        elif self._numbers and self._random.random() < 0.5:
            hole = f" (@{self._random.choice(self._numbers)})"
        return f"var @{self._name(self._texts, 't')} = {quote}{word}{hole}{quote}"

    def _list(self) -> str:
        items = [
            self._literal() if self._random.random() < 0.5 else '"' + self._random.choice(WORDS) + '"' for _ in range(3)
        ]
        return f"var @{self._name(self._lists, 'l')} = [{', '.join(items)}]"

    def _object(self) -> str:
        data = {
            "k": self._random.randint(0, 9),
            "10": [1, {"z": None}],
            "2": "two",
            "t": self._random.choice(WORDS[:3]),
        }
        self._count += 1
        name = f"o{self._count}"
        return f"var @{name} = {json.dumps(data)}\nshow @{name}\nshow `@{name}.k @{name}.t @{name}.zz`"

    def _any(self) -> str:
        return "@" + self._random.choice(self._numbers + self._texts + self._lists)

    def _show(self) -> str:
        value = self._any()
        return self._random.choice((f"show {value}", f"show `{value} and {self._any()}`", f'show "{value}."'))

    def _loop(self) -> str:
        items = "@" + self._random.choice(self._lists)
        body = self._random.choice(("show `- @i`", "show @tag(@i)", "log @i", "[\n  let @x = `@i @i`\n  show @x\n]"))
        return f"for @i in {items} {body if body.startswith('[') else '=> ' + body}"

    def _when(self) -> str:
        self._count += 1
        first, second = self._operand(), self._operand()
        return (
            f'var @w{self._count} = when [\n  {first} > {second} => "more"\n  {first} == {second} => `same {first}`\n'
            f"  * => {self._any()}\n]\nshow @w{self._count}"
        )

    def _call(self) -> str:
        if self._random.random() < 0.5:
            return f"show @tag({self._any()})"
        return f"show @up(@{self._random.choice(self._numbers + self._lists)})"

    def _ask(self) -> str:
        argument = self._random.choice((self._any(), self._literal(), '"p"', f"`x {self._operand()}`"))
        second = self._random.choice((", 1", ", " + self._any(), ""))
        return f"show @ask({argument}{second})"

    def _parallel(self) -> str:
        self._count += 1
        items = "@" + self._random.choice(self._lists)
        return f"var @p{self._count} = for parallel(1) @i in {items} => @ask(@i)\nshow @p{self._count}"

    def _state(self) -> str:
        return f'output {self._any()} to "state://s{self._random.randint(1, 3)}"'

    def _block(self) -> str:
        self._count += 1
        name = f"b{self._count}"
        return (
            f'exe @{name}(v) = [\n  let @d = @tag(@v)\n  if @v == {self._operand()} [\n    => "hit @d"\n  ]\n'
            f'  => {{ "d": @d, "v": @v }}\n]\nshow @{name}({self._any()})'
        )
