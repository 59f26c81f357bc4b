"""`mlld-otp shell`: commands line by line, and lines of mlld that remember what earlier ones have defined."""

import contextlib
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Final

from mlld_sdk.cli.render import complain

HELP: Final = """\
Commands as on the command line, without `mlld-otp`:
  tree, top, why, events, crashes, runs, pause, resume, restart, drain, evaluate, ...
  `help COMMAND` says more about one; `run` and `shell` do not work in here.

AGENT> mlld text
  runs a line on an engine of that agent or pool, as `evaluate` does. Lines that define something (var, exe, import)
  are remembered, each agent's for itself, and run again in front of its later lines: `AGENT> var @x = 3`, then
  `AGENT> show @x`. What a definition calls is called again, too. A new definition of a name takes the place of the
  old one; a line that fails is not remembered.

forget
  forgets all definitions.

An empty line or ^D ends."""

MOST_DEFINITIONS: Final = 1_000
"""Lines that are remembered for an agent; one more is refused."""

_DEFINES = re.compile(r"/?(?:(?:var|exe|guard)\s.*?(@\w+)|import\b|policy\b|needs\b|record\b)", re.DOTALL)

Command = Callable[[Sequence[str]], int]
"""Runs the words of a command line, prints what comes of it, and returns the exit status."""


class Shell:
    """One session.

    Args:
        command: Runs a command.
        runtime: Words that say which runtime to attach to: `--runtime`, `--pid`.
    """

    def __init__(self, command: Command, runtime: Sequence[str] = ()) -> None:
        self._command = command
        self._runtime = runtime
        self._defined: dict[str, dict[str, str]] = {}

    def talk(self) -> int:
        """Read lines and do what they say, until there are no more or an empty one comes."""
        print("Commands as on the command line; `AGENT> mlld text` runs on that agent's engine; `help` says more.")
        while True:
            try:
                line = input("mlld-otp> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return 0
            if not line:
                return 0
            self.line(line)

    def line(self, line: str) -> None:
        """Do what one line says; what goes wrong is printed and ends nothing."""
        agent, arrow, script = line.partition(">")
        if arrow and agent.strip().isprintable() and " " not in agent.strip():
            self._evaluate(agent.strip(), script.strip())
            return
        try:
            words = shlex.split(line)
        except ValueError as error:
            complain(f"{error}: {line}")
            return
        match words:
            case ["help"]:
                print(HELP)
            case ["help", *rest]:
                self._run([*rest, "--help"])
            case ["forget"]:
                self._defined.clear()
            case ["run" | "shell" as verb, *rest] if "--help" not in rest:
                complain(f"`{verb}` does not work inside the shell")
            case _:
                self._run(words)

    def _evaluate(self, agent: str, script: str) -> None:
        defined = self._defined.setdefault(agent, {})
        defines = _DEFINES.match(script)
        name = defines and (defines[1] or script)
        before = [text for known, text in defined.items() if known != name]
        if name is not None and len(before) >= MOST_DEFINITIONS:
            complain(f"{len(before)} definitions are remembered for {agent} already; `forget` them")
        elif self._run(["evaluate", agent, "\n".join([*before, script])]) == 0 and name is not None:
            defined[name] = script

    def _run(self, words: Sequence[str]) -> int:
        """Run one command; wrong words do not end the shell."""
        attaches = words[0] not in ("demo", "doctor", "config", "checkpoint", "run", "shell")
        with contextlib.suppress(SystemExit):
            return self._command([*words[:1], *(self._runtime if attaches else ()), *words[1:]])
        return 2
