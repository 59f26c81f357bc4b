"""Running `sh` and `cmd`, as values, as statements and as the bodies of functions."""

import itertools
import json
import os
from functools import partial
from typing import Any

from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.context import ScriptContext
from mlld_sdk.transport.embedded.interpreter.model_calls import REFUSED, last_line
from mlld_sdk.transport.embedded.interpreter.processes import start
from mlld_sdk.transport.embedded.interpreter.scope import Scope
from mlld_sdk.transport.embedded.interpreter.values import Origin, Value, inline_text, merge, scalar_text, text_of
from mlld_sdk.transport.embedded.language.syntax import ShellCommand, Template
from mlld_sdk.transport.javascript import well_formed

STATEMENT_NUMBERS = itertools.count(1)
LARGE_VARIABLE = 100_000
"""Longer texts go into a shell script instead of its environment, which the system limits."""


class Shells:
    """Runs commands in the project's folder."""

    def __init__(self, context: ScriptContext) -> None:
        self._context = context
        context.add(expressions={ShellCommand: self.run})

    def run(self, node: ShellCommand, scope: Scope, *, params: tuple[str, ...] = (), stdin: str | None = None) -> Value:
        """Run a command and return what it printed as data: stdout, or stderr when that is empty, however it ended.

        `params` names the variables of `sh`, and `stdin` is what it reads, if the command does not say so itself.
        """
        text, origin, _ = self._run(node, scope, params, stdin, "pipeline")
        return Value(parsed_output(text), origin)

    def run_statement(self, node: ShellCommand, scope: Scope) -> tuple[Value, str]:
        """Run a command as a statement; return what it printed as it stands, and the name of the operation."""
        pipeline = f"run-{clock.milliseconds():x}-{next(STATEMENT_NUMBERS)}"
        text, origin, name = self._run(node, scope, (), None, pipeline)
        return Value(text, origin), name

    def _run(
        self, node: ShellCommand, scope: Scope, params: tuple[str, ...], stdin: str | None, pipeline: str
    ) -> tuple[str, Origin, str]:
        run = self._context.run
        run.step()
        run.streamed = run.streamed or node.stream
        if node.stdin is not None:
            stdin = inline_text(self._context.evaluate(node.stdin, scope).data)
        if node.language == "cmd":
            command, origin = self._command_text(node.body, scope)
            words = command.split()[:2]
            origin = merge(Origin(taint=("src:cmd",), sources=(f"command:{words[0] if words else ''}",)), origin)
            operator = _forbidden_operator(command)
            if operator:
                refusal = f"Shell operator {operator} is not allowed in cmd {{ }} commands"
                return self._refused(refusal, _program(command), scope), origin, "cmd"
            text = self._spawn(["/bin/sh", "-c", command], {}, stdin, None, scope, _program(command))
            return text, origin, ":".join(["cmd", *words])
        found = {name: value for name in node.variables or params if (value := scope.find(name)) is not None}
        origin = merge(Origin(taint=("src:sh",)), *(value.origin for value in found.values()))
        variables = {name: _for_shell(value) for name, value in found.items()}
        prelude = "".join(f"{key}={_quoted(text)}\n" for key, text in variables.items() if len(text) > LARGE_VARIABLE)
        small = {key: text for key, text in variables.items() if len(text) <= LARGE_VARIABLE}
        script = prelude + node.body.strip("\n") + "\n"
        return self._spawn(["bash"], small, script, pipeline, scope, "sh"), origin, "sh"

    def _command_text(self, body: Template, scope: Scope) -> tuple[str, Origin]:
        """Fill the holes of a `cmd` body with texts the shell takes as they are."""
        pieces: list[str] = []
        origins: list[Origin] = []
        for part in body.parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            hole, in_quotes = part
            value = self._context.evaluate(hole, scope)
            origins.append(value.origin)
            pieces.append(_shell_words(value, in_quotes=in_quotes))
        return "".join(pieces).strip(), merge(*origins)

    def _spawn(
        self,
        argv: list[str],
        variables: dict[str, str],
        stdin: str | None,
        pipeline: str | None,
        scope: Scope,
        program: str,
    ) -> str:
        """Run a command and return what it printed; the call of a model around it learns if it fails."""
        run = self._context.run
        for name, text in variables.items():
            if "\0" in text:
                shown = repr(text)
                what = f"The property 'options.env['{name}']' must be a string without null bytes. Received {shown}"
                return self._refused(what, program, scope)
        if any("\0" in word for word in argv):
            return self._refused("", program, scope)
        argv = [well_formed(word) for word in argv]
        variables = {name: well_formed(text) for name, text in variables.items()}
        try:
            child = start(argv, cwd=run.root, variables=variables, stdin=stdin)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ScriptFailure(f"spawn {argv[0]} failed: {reason}", "COMMAND_EXECUTION_FAILED") from error
        with run.watching(child), run.turn.pause():
            stdout, stderr = child.collect(None if pipeline is None else partial(run.chunk, pipeline=pipeline))
        if child.killed and run.abort_error is not None:
            raise run.abort_error
        status = child.process.returncode
        if status and scope.model is not None:
            scope.model.fail(run, program, status, last_line(stderr, stdout))
        return (stdout if stdout.strip() else stderr).rstrip()

    def _refused(self, why: str, program: str, scope: Scope) -> str:
        """Return what a command gives that was refused before it ran."""
        if scope.model is not None:
            scope.model.fail(self._context.run, program, REFUSED, last_line(why, ""))
        return why


def _program(command: str) -> str:
    """Name the program of a command line, without what is set for it in front and without its arguments."""
    return next((word for word in command.split() if "=" not in word), "")


def _for_shell(value: Value) -> str:
    """Write a value into a variable of a shell: a list with an item on each line, nothing as no text."""
    if value.data is None:
        return ""
    if value.text is None and isinstance(value.data, list):
        return "\n".join(_for_shell(Value(item)) for item in value.data)
    return text_of(value)


def _shell_words(value: Value, *, in_quotes: bool) -> str:
    """Write a value into a command line: a flat list as words, other containers as JSON, the rest as text."""
    data = value.data
    if isinstance(data, list) and not any(isinstance(item, (list, dict)) for item in data):
        return " ".join(_protected(scalar_text(item)) for item in data)
    if not in_quotes and isinstance(data, (list, dict)):
        return _quoted(inline_text(data))
    return _protected(text_of(value))


def _protected(text: str) -> str:
    return "".join("\\" + char if char in '\\"$`' else char for char in text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _forbidden_operator(command: str) -> str:
    """Return an operator outside of quotes that `cmd` refuses, or an empty text."""
    quote = ""
    at = 0
    while at < len(command):
        char = command[at]
        if char == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in ";&" or command.startswith("||", at):
            return command[at : at + 2] if command[at + 1 : at + 2] == char else char
        at += 1
    return ""


def parsed_output(text: str) -> Any:
    """Return a command's output as data where it is JSON, and as text otherwise."""
    if not text or text[0] not in '{["-0123456789tfn':
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)
