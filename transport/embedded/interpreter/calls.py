"""Calling functions and shells, and remembering the answers of `llm` functions."""

import itertools
import json
import os
from typing import Any

from mlld_sdk.transport.checkpoint_cache import MISSING, args_preview
from mlld_sdk.transport.embedded.errors import ScriptFailure, UnsupportedConstruct
from mlld_sdk.transport.embedded.interpreter.checkpoints import CheckpointMemory
from mlld_sdk.transport.embedded.interpreter.labels import UNKNOWN, Origin, merge
from mlld_sdk.transport.embedded.interpreter.processes import start
from mlld_sdk.transport.embedded.interpreter.scope import Function, Scope
from mlld_sdk.transport.embedded.interpreter.script_run import ABSENT, ScriptRun
from mlld_sdk.transport.embedded.interpreter.values import Value, inline_text, scalar_text, text_of
from mlld_sdk.transport.embedded.language.syntax import (
    Block,
    FieldAccess,
    ForLoop,
    FunctionCall,
    Reference,
    RepeatLoop,
    ShellCommand,
    Template,
    TextSpan,
    Unsupported,
    WhenExpression,
    root_of,
)
from mlld_sdk.transport.javascript import well_formed

STATEMENT_NUMBERS = itertools.count(1)
LARGE_VARIABLE = 100_000
"""Longer texts go into a shell script instead of its environment, which the system limits."""


class Calls:
    """Calls of one script. The evaluator and the statements build on it."""

    def __init__(self, run: ScriptRun, memory: CheckpointMemory, *, announces: bool) -> None:
        self.run = run
        self.memory = memory
        self._announces = announces

    # -- implemented above

    def evaluate(self, node: Any, scope: Scope) -> Value:
        """Give the value of an expression."""
        raise NotImplementedError

    def execute(self, node: Any, scope: Scope) -> Value:
        """Do a statement."""
        raise NotImplementedError

    def block_value(self, block: Block, scope: Scope) -> Value:
        """Run a block and give what its `=>` gives."""
        raise NotImplementedError

    def collect_for(self, node: ForLoop, scope: Scope) -> list[Any]:
        """Run a `for` and give the list of its values."""
        raise NotImplementedError

    def run_loop(self, node: RepeatLoop, scope: Scope) -> Value:
        """Run a `loop` and give what `done` gave."""
        raise NotImplementedError

    def payload(self) -> Value | None:
        """Give `@payload`, or None when the host sent none."""
        data = self.run.job.payload
        if data is ABSENT:
            return None
        labels = tuple(dict.fromkeys(label for names in self.run.job.payload_labels.values() for label in names))
        return Value(data, Origin(labels, labels))

    # -- functions

    def call_by_name(self, name: str, args: tuple[Any, ...], span: TextSpan | None, scope: Scope) -> Value:
        """Call `@name(args)`."""
        target = scope.find(name)
        if target is None:
            raise ScriptFailure(
                f"Interpreter error (undefined): Command not found: {name}",
                "INTERPRETATION_FAILED",
                "MlldInterpreterError",
            )
        if not isinstance(target.data, Function):
            raise ScriptFailure(
                f"Interpreter error (undefined): Variable {name} is not executable "
                f"(type: {_variable_kind(target.data)})",
                "INTERPRETATION_FAILED",
                "MlldInterpreterError",
            )
        values = [self._argument(arg, name, scope) for arg in args]
        return self.call(target.data, name, values, span, scope, keyed=keyed(args, values))

    def _argument(self, node: Any, function: str, scope: Scope) -> Value:
        if (
            isinstance(node, Reference)
            and scope.find(node.name) is None
            and node.name not in ("payload", "state", "now")
        ):
            raise ScriptFailure(f"Undefined variable '@{node.name}' passed to function @{function}")
        return self.evaluate(node, scope)

    def call(
        self,
        function: Function,
        name: str,
        values: list[Value],
        span: TextSpan | None,
        caller: Scope,
        *,
        keyed: list[Any] | None = None,
    ) -> Value:
        """Call a function, or take its stored answer.

        Args:
            function: What to call.
            name: The name it is called by, which is what the cache knows it by.
            values: The arguments.
            span: Where the call stands, if it stands anywhere by itself.
            caller: The scope of the call, to notice recursion.
            keyed: The arguments as the cache's key has them; None for calls that are never cached: statements and
                pipeline stages.
        """
        self.run.step()
        if function.name in caller.calling:
            raise ScriptFailure(
                f"Circular reference detected: executable '@{function.name}' calls itself recursively "
                "without a terminating condition",
                "CIRCULAR_REFERENCE",
                "MlldInterpreterError",
            )
        if keyed is None or "llm" not in function.labels or not self.memory.active:
            return self._run_body(function, values, caller)
        ticket, answer = self.memory.look_up(name, keyed, self._site(span))
        self._announce("hit" if answer is not MISSING else "miss", name, ticket.key, keyed)
        if answer is not MISSING:
            return Value(answer, Origin(function.labels, (*function.labels, *_body_taint(function.body).taint)))
        started = self.run.milliseconds()
        value = self.memory.run_body(lambda: self._run_body(function, values, caller))
        self.memory.store(ticket, _storable(value.data), max(0, self.run.milliseconds() - started))
        return value

    def _announce(self, outcome: str, name: str, key: str, args: list[Any]) -> None:
        if self._announces:
            facts = {"fn": name, "key": key, "argsPreview": args_preview(args)}
            self.run.report({"type": f"checkpoint:{outcome}", "checkpoint": facts})

    def _site(self, span: TextSpan | None) -> str:
        if span is None:
            return f"{self.run.job.path or ''}#unknown"
        point = self.run.positions.point(span.start)
        return f"{self.run.job.path or ''}#{point['line']}:{point['column']}"

    def _run_body(self, function: Function, values: list[Value], caller: Scope) -> Value:
        scope = Scope(function.scope, calling=caller.calling | {function.name})
        for param, value in zip(function.params, values, strict=False):
            scope.define(param, value, fixed=True)
        arguments = merge(*(value.origin for value in values))
        body = function.body
        if isinstance(body, ShellCommand):
            value = self.shell(body, scope, params=function.params)
        elif isinstance(body, Block):
            value = self.block_value(body, scope)
        elif isinstance(body, Unsupported):
            raise UnsupportedConstruct(body.construct, self.run.positions.point(body.span.start)["line"])
        elif isinstance(body, FunctionCall):
            value = self.call_by_name(body.name, body.args, None, scope)
        else:
            value = self.evaluate(body, scope)
        own = _body_taint(body)
        origin = merge(Origin(function.labels, function.labels), arguments, own, value.origin)
        if isinstance(body, (Reference, FieldAccess)) and not isinstance(value.data, (list, dict)):
            return Value(text_of(value), origin)
        return Value(value.data, origin, "null" if value.data is None else value.text)

    def call_stage(self, stage: FunctionCall, value: Value, scope: Scope) -> Value:
        """Call a pipeline stage with the value that flows in as its first argument."""
        target = scope.find(stage.name)
        if target is None or not isinstance(target.data, Function):
            raise ScriptFailure(
                f"Pipeline command @{stage.name} is not defined", "INTERPRETATION_FAILED", "MlldInterpreterError"
            )
        values = [value, *(self._argument(arg, stage.name, scope) for arg in stage.args)]
        return self.call(target.data, stage.name, values, stage.span, scope)

    # -- shells

    def shell(
        self, node: ShellCommand, scope: Scope, *, params: tuple[str, ...] = (), stdin: str | None = None
    ) -> Value:
        """Run `sh` or `cmd` and give what it printed: stdout, or stderr when that is empty, however it ended."""
        text, origin, _ = self._run_shell(node, scope, params, stdin, "pipeline")
        return Value(parsed_output(text), origin)

    def shell_statement(self, node: ShellCommand, scope: Scope) -> tuple[Value, str]:
        """Run `sh` or `cmd` as a statement; give what it printed as it stands, and the name of the operation."""
        pipeline = f"run-{self.run.milliseconds():x}-{next(STATEMENT_NUMBERS)}"
        text, origin, name = self._run_shell(node, scope, (), None, pipeline)
        return Value(text, origin), name

    def _run_shell(
        self, node: ShellCommand, scope: Scope, params: tuple[str, ...], stdin: str | None, pipeline: str
    ) -> tuple[str, Origin, str]:
        self.run.step()
        if node.stream:
            self.run.streamed = True
        if node.stdin is not None:
            stdin = inline_text(self.evaluate(node.stdin, scope).data)
        if node.language == "cmd":
            command, origin = self.command_text(node.body, scope)
            words = command.split()[:2]
            origin = merge(Origin(taint=("src:cmd",), sources=(f"command:{words[0] if words else ''}",)), origin)
            operator = _forbidden_operator(command)
            if operator:
                return f"Shell operator {operator} is not allowed in cmd {{ }} commands", origin, "cmd"
            return self._spawn(["/bin/sh", "-c", command], {}, stdin, None), origin, ":".join(["cmd", *words])
        variables, origin = self._shell_variables(node.variables or params, scope)
        prelude = "".join(f"{key}={_quoted(text)}\n" for key, text in variables.items() if len(text) > LARGE_VARIABLE)
        small = {key: text for key, text in variables.items() if len(text) <= LARGE_VARIABLE}
        text = self._spawn(["bash"], small, prelude + node.body.strip("\n") + "\n", pipeline)
        return text, merge(Origin(taint=("src:sh",)), origin), "sh"

    def _shell_variables(self, names: tuple[str, ...], scope: Scope) -> tuple[dict[str, str], Origin]:
        variables: dict[str, str] = {}
        origins: list[Origin] = []
        for name in names:
            value = scope.find(name)
            if value is None:
                continue
            variables[name] = _for_shell(value)
            origins.append(value.origin)
        return variables, merge(*origins)

    def command_text(self, body: Template, scope: Scope) -> tuple[str, Origin]:
        """Fill the holes of a `cmd` body with texts the shell takes as they are."""
        pieces: list[str] = []
        origins: list[Origin] = []
        for part in body.parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            hole, in_quotes = part
            value = self.evaluate(hole, scope)
            origins.append(value.origin)
            pieces.append(_shell_words(value, in_quotes=in_quotes))
        return "".join(pieces).strip(), merge(*origins)

    def _spawn(self, argv: list[str], variables: dict[str, str], stdin: str | None, pipeline: str | None) -> str:
        for name, text in variables.items():
            if "\0" in text:
                shown = repr(text)
                return f"The property 'options.env['{name}']' must be a string without null bytes. Received {shown}"
        if any("\0" in word for word in argv):
            return ""
        argv = [well_formed(word) for word in argv]
        variables = {name: well_formed(text) for name, text in variables.items()}
        try:
            child = start(argv, cwd=self.run.root, variables=variables, stdin=stdin)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ScriptFailure(f"spawn {argv[0]} failed: {reason}", "COMMAND_EXECUTION_FAILED") from error
        self.run.watch(child)

        def on_chunk(text: str, source: str) -> None:
            if pipeline is not None:
                self.run.chunk(text, source, pipeline)

        try:
            with self.run.turn.pause():
                stdout, stderr = child.collect(on_chunk)
        finally:
            self.run.unwatch(child)
        if child.killed and self.run.abort_error is not None:
            raise self.run.abort_error
        return (stdout if stdout.strip() else stderr).rstrip()


def keyed(nodes: tuple[Any, ...], values: list[Value]) -> list[Any]:
    """Give arguments as the cache's key has them: what was written or computed in place counts as text."""
    return [
        _storable(value.data)
        if isinstance(value.data, (list, dict, Function)) or isinstance(root_of(node), Reference)
        else _as_text(value)
        for node, value in zip(nodes, values, strict=True)
    ]


def _as_text(value: Value) -> str:
    return "" if value.data is None else scalar_text(value.data)


def _storable(data: Any) -> Any:
    return None if isinstance(data, Function) else data


def _body_taint(body: Any) -> Origin:
    if isinstance(body, ShellCommand):
        return Origin(taint=(f"src:{body.language}",))
    if isinstance(body, (Block, ForLoop, WhenExpression)):
        return Origin(taint=("src:exe",))
    return Origin(taint=("src:template",)) if isinstance(body, Template) else UNKNOWN


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


def _forbidden_operator(command: str) -> str:
    """Find an operator that `cmd` refuses, outside of quotes, or give an empty text."""
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


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _variable_kind(data: Any) -> str:
    if isinstance(data, str):
        return "simple-text"
    if isinstance(data, (list, dict)):
        return "array" if isinstance(data, list) else "object"
    return f"primitive ({scalar_text(data)})" if data is None else "primitive"


def parsed_output(text: str) -> Any:
    """Read a command's output: JSON becomes data, everything else stays text."""
    if not text or text[0] not in '{["-0123456789tfn':
        return text
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)
