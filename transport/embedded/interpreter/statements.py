"""Statements that define, show and write things, and the ones that end something."""

import os
from typing import Any

from mlld_sdk.transport.embedded.errors import (
    ScriptFailure,
    bailed,
    directive_failure,
    output_failure,
    redefinition,
)
from mlld_sdk.transport.embedded.interpreter.context import ReturnSignal, ScriptContext
from mlld_sdk.transport.embedded.interpreter.functions import Functions
from mlld_sdk.transport.embedded.interpreter.scope import Function, Scope
from mlld_sdk.transport.embedded.interpreter.shells import Shells
from mlld_sdk.transport.embedded.interpreter.values import (
    NOTHING,
    UNKNOWN,
    Origin,
    Value,
    ended,
    is_number,
    merge,
    page_text,
    shown_text,
    written_text,
)
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.syntax import Block, FunctionCall, Literal, SimpleStatement
from mlld_sdk.transport.javascript import json_text, well_formed


class Statements:
    """Does the statements that are neither compounds nor imports."""

    def __init__(self, context: ScriptContext, functions: Functions, shells: Shells) -> None:
        self._context = context
        self._run = context.run
        self._functions = functions
        self._shells = shells
        context.add(
            # what `var @x = show ...` keeps: nothing is shown, nothing evaluated
            expressions={SimpleStatement: lambda _node, _scope: Value("")},
            statements={
                syntax.VarStatement: self._var,
                syntax.LetStatement: self._let,
                syntax.ExeStatement: self._exe,
                "show": self._show,
                "run": self._do_run,
                "log": self._log,
                syntax.OutputStatement: self._output,
                "bail": self._bail,
                "=>": self._return,
                "skip": lambda _node, _scope: NOTHING,  # outside of a value there is no item to leave out
                "checkpoint": self._checkpoint,
            },
        )

    def _var(self, node: syntax.VarStatement, scope: Scope) -> Value:
        place = self._run.place(node.span)
        labels = Origin(node.labels, node.labels)
        if isinstance(node.value, (syntax.ListLiteral, syntax.ObjectLiteral)) and not _is_constant(node.value):
            # what is put together from other values is put together at its first use
            scope.declare(node.name, lambda: _labelled(self._context.evaluate(node.value, scope), labels), place)
            self._run.record(UNKNOWN)
            return NOTHING
        if isinstance(node.value, Block):
            value = self._context.block_value(node.value, Scope(scope, calling=scope.calling))
        else:
            value = self._assigned(node, scope)
        if isinstance(value.data, Function):
            value = value._replace(data=value.data._replace(name=node.name))
        value = _labelled(value, labels)
        scope.declare(node.name, value, place)
        self._run.record(value.origin)
        return value

    def _assigned(self, node: syntax.VarStatement, scope: Scope) -> Value:
        value = node.value
        head = syntax.root_of(value.source if isinstance(value, syntax.PipedValue) else value)
        if self._context.is_unknown(head, scope):
            point = self._run.positions.point(node.span.start)
            place = f"line {point['line']}, column {point['column']}"
            raise directive_failure(f"Directive error (var): Variable not found: {head.name} at {place}")
        return self._context.evaluate(value, scope)

    def _let(self, node: syntax.LetStatement, scope: Scope) -> Value:
        if isinstance(node.value, Block):
            value = self._context.block_value(node.value, Scope(scope, calling=scope.calling))
        else:
            value = self._context.operand(node.value, scope)
        if not node.augment:
            if scope.is_fixed(node.name):
                raise redefinition(f"Variable '{node.name}' is already defined and cannot be redefined")
            scope.define(node.name, value)
            return value
        old = scope.find(node.name)
        if old is None:
            raise ScriptFailure(f"Cannot use += on undefined variable @{node.name}.", "E_WHEN_EXPRESSION")
        scope.reassign(node.name, Value(_augmented(old.data, value.data), merge(old.origin, value.origin)))
        return value

    def _exe(self, node: syntax.ExeStatement, scope: Scope) -> Value:
        function = Function(node.name, node.params, node.labels, node.body, scope)
        scope.declare(node.name, Value(function), self._run.place(node.span))
        return NOTHING

    def _show(self, node: SimpleStatement, scope: Scope) -> Value:
        value = self._context.evaluate(node.value, scope)
        if not isinstance(node.value, Literal):
            self._run.record(value.origin)
        if not self._is_streamed(node.value, scope):
            self._run.effect("both", ended(_shown(value)), node.span)
        self._run.record(Origin(sources=("show",)))
        return value

    def _is_streamed(self, node: Any, scope: Scope) -> bool:
        """Return whether a call was shown already while it ran."""
        function = scope.find_function(node.name) if isinstance(node, FunctionCall) else None
        return function is not None and isinstance(function.body, syntax.ShellCommand) and function.body.stream

    def _do_run(self, node: SimpleStatement, scope: Scope) -> Value:
        body = node.value
        source = ""
        if isinstance(body, syntax.ShellCommand):
            value, source = self._shells.run_statement(body, scope)
        elif isinstance(body, FunctionCall):
            function = scope.find_function(body.name)
            if function is None:
                raise ScriptFailure(f"Executable variable not found: {body.name}")
            value = self._functions.call(function, body.name, self._functions.arguments(body, scope), scope)
        else:
            value = self._context.evaluate(body, scope)
        self._run.record(value.origin)
        text = page_text(value.printed)
        if text:
            self._run.effect("both", ended(text))
        if source:
            self._run.record(Origin(sources=(source,)))
        return value

    def _log(self, node: SimpleStatement, scope: Scope) -> Value:
        value = self._written_value(node.value, scope)
        if not isinstance(node.value, Literal):
            self._run.record(value.origin)
        self._run.effect("stderr", ended(written_text(value.printed)))
        self._run.record(Origin(sources=("log",)))
        return value

    def _output(self, node: syntax.OutputStatement, scope: Scope) -> Value:
        value = self._written_value(node.value, scope)
        if value.origin:
            self._run.record(value.origin)
        if node.kind == "state":
            self._run.write_state(str(node.target.parts[0]), value)
        elif node.kind in ("stdout", "stderr"):
            self._run.effect(node.kind, ended(written_text(value.printed)))
        else:
            self._write(node, value, scope)
        self._run.record(Origin(sources=("append" if node.kind == "append" else "output",)))
        return value

    def _written_value(self, node: Any, scope: Scope) -> Value:
        if isinstance(node, syntax.Reference) and self._context.is_unknown(node, scope):
            raise output_failure(f"Output error (unknown): Variable {node.name} not found")
        if isinstance(node, FunctionCall):
            return self._functions.call_by_name(node, scope)
        return self._context.evaluate(node, scope)

    def _write(self, node: syntax.OutputStatement, value: Value, scope: Scope) -> None:
        """Write a file or append to it; an `append` to `.jsonl` writes rows."""
        path = self._context.path(node.target, scope)
        text = written_text(value.printed)
        if node.kind == "append":
            as_rows = path.endswith(".jsonl")
            text = ended(json_text(value.data) if as_rows else text)
            metadata: dict[str, Any] = {"format": "jsonl" if as_rows else "text", "directive": "append"}
        else:
            metadata = {"targetType": "file", "directive": "output"}
        metadata["suppressDefaultHostEffectWrite"] = False
        mode = "append" if node.kind == "append" else "write"
        _write_file(path, text, mode[0])
        self._run.effect("file", text, node.span, path=path, mode=mode, metadata=metadata)

    def _bail(self, node: SimpleStatement, scope: Scope) -> Value:
        standard = "Script terminated by bail directive."
        raise bailed(standard if node.value is None else self._context.text(node.value, scope))

    def _return(self, node: SimpleStatement, scope: Scope) -> Value:
        value = self._context.operand(node.value, scope)
        raise ReturnSignal(Value("") if value is NOTHING else value)

    def finish(self, value: Value) -> None:
        """Show what the `=>` of a script gave."""
        if value.origin:
            self._run.record(value.origin)
        if text := _shown(value):
            self._run.effect("both", text)

    def _checkpoint(self, node: SimpleStatement, scope: Scope) -> Value:
        name = self._context.text(node.value, scope).strip()
        if not name:
            raise ScriptFailure("checkpoint directive requires a non-empty name")
        self._context.memory.name_checkpoint(name)
        return NOTHING


def _labelled(value: Value, labels: Origin) -> Value:
    return value._replace(origin=merge(labels, value.origin))


def _shown(value: Value) -> str:
    data = value.printed
    return f"[executable: {data.name}]" if isinstance(data, Function) else shown_text(data)


def _is_constant(node: Any) -> bool:
    """Return whether an expression needs nothing but itself."""
    if isinstance(node, syntax.ListLiteral):
        return all(_is_constant(item) for item in node.items)
    if isinstance(node, syntax.ObjectLiteral):
        return all(key is not None and _is_constant(item) for key, item in node.entries)
    return isinstance(node, Literal)


def _augmented(old: Any, new: Any) -> Any:
    if isinstance(old, list):
        return [*old, *(new if isinstance(new, list) else [new])]
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    if (isinstance(old, str) and isinstance(new, str)) or (is_number(old) and is_number(new)):
        return old + new
    raise directive_failure("+= needs two lists, two texts, two objects or two numbers")


def _write_file(path: str, text: str, mode: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, mode, encoding="utf-8", newline="") as file:
            file.write(well_formed(text))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise output_failure(f"{reason}: {path}") from error
