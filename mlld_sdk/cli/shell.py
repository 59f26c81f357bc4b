"""Commands line by line against one runtime: `mlld-otp shell`."""

import contextlib
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

Command = Callable[[Sequence[str]], int]


def shell(command: Command, options: Namespace) -> int:
    """Talk to a runtime line by line: commands without their prefix, and `AGENT> mlld text` to run on its engine.

    Args:
        command: Runs one line of words as the command line would.
        options: Those of the shell; its runtime is that of the lines.
    """
    print("Commands as on the command line; `AGENT> mlld text` runs on that agent's engine; ^D or an empty line ends.")
    while True:
        try:
            line = input("mlld-otp> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return 0
        if not line:
            return 0
        agent, arrow, script = line.partition(">")
        if arrow and agent.strip().isprintable() and " " not in agent.strip():
            _run(command, ["evaluate", agent.strip(), script.strip()], options)
            continue
        try:
            words = shlex.split(line)
        except ValueError as error:
            print(f"mlld-otp: {error}: {line}", file=sys.stderr)
        else:
            _run(command, words, options)


def _run(command: Command, words: Sequence[str], options: Namespace) -> None:
    """Run one line; wrong words do not end the shell."""
    if words[0] in ("run", "shell"):
        print(f"mlld-otp: `{words[0]}` does not work inside the shell", file=sys.stderr)
        return
    attaches = words[0] not in ("demo", "doctor", "config", "checkpoint")
    extra = ["--runtime", options.runtime] if options.runtime and attaches else []
    with contextlib.suppress(SystemExit):
        command([*words[:1], *extra, *words[1:]])
