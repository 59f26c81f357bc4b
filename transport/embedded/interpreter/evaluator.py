"""Evaluating expressions."""

import json
import os
from collections.abc import Callable
from typing import Any, ClassVar

from mlld_sdk.transport.embedded.errors import ScriptBailed, ScriptFailure
from mlld_sdk.transport.embedded.interpreter.calls import Calls, keyed
from mlld_sdk.transport.embedded.interpreter.labels import UNKNOWN, Origin, merge
from mlld_sdk.transport.embedded.interpreter.methods import call_method, read_field
from mlld_sdk.transport.embedded.interpreter.operators import calculate, compare, describe, equal, fits
from mlld_sdk.transport.embedded.interpreter.scope import Function, Scope
from mlld_sdk.transport.embedded.interpreter.values import NOTHING, Value, inline_text, is_truthy, ordered, text_of
from mlld_sdk.transport.embedded.language.syntax import (
    Binary,
    Block,
    ContinueStatement,
    DoneStatement,
    FieldAccess,
    FileRead,
    ForLoop,
    FunctionCall,
    Hole,
    ListLiteral,
    Literal,
    LogStatement,
    MethodCall,
    ObjectLiteral,
    OutputStatement,
    PipedValue,
    Reference,
    RepeatLoop,
    ShellCommand,
    ShowStatement,
    SkipStatement,
    Slice,
    Template,
    Ternary,
    Unary,
    WhenExpression,
    root_of,
)

STATEMENTS = (ShowStatement, LogStatement, OutputStatement, ContinueStatement, DoneStatement)
SKIPPED: Any = object()
"""The value of a round that gives no item."""


class Evaluator(Calls):
    """Gives the value of every kind of expression; functions and shells are in `Calls`."""

    def evaluate(self, node: Any, scope: Scope) -> Value:
        """Give the value of an expression."""
        return self._expressions[type(node)](self, node, scope)

    def text(self, node: Any, scope: Scope) -> tuple[str, Origin]:
        """Give an expression as it reads inside a text."""
        value = self.evaluate(node, scope)
        return text_of(value), value.origin

    # -- plain things

    def _literal(self, node: Literal, _: Scope) -> Value:
        return Value(node.data)

    def _reference(self, node: Reference, scope: Scope) -> Value:
        value = self.lookup(node.name, scope)
        if value is None:
            raise ScriptFailure(f"Variable not found: {node.name}")
        return value

    def lookup(self, name: str, scope: Scope) -> Value | None:
        """Find a variable, or what the host provides under that name."""
        value = scope.find(name)
        if value is not None:
            return value
        if name == "payload":
            return self.payload()
        if name == "state" and self.run.state is not None:
            return Value(self.run.state, Origin(("src:dynamic",), ("src:dynamic",), ("src:dynamic",)))
        if name == "now":
            return Value(self.run.iso_time())
        if name in ("base", "root"):
            return Value(self.run.root)
        return None

    def _list(self, node: ListLiteral, scope: Scope) -> Value:
        values = [self.evaluate(item, scope) for item in node.items]
        return Value([value.data for value in values], merge(*(value.origin for value in values)))

    def _object(self, node: ObjectLiteral, scope: Scope) -> Value:
        data: dict[str, Any] = {}
        origins: list[Origin] = []
        for key, entry in node.entries:
            value = self.evaluate(entry, scope)
            origins.append(value.origin)
            if key is not None:
                data[key] = value.data
            elif isinstance(value.data, dict):
                data.update(value.data)
            else:
                raise ScriptFailure(f"Cannot spread {describe(value.data)} into an object")
        return Value(ordered(data), merge(*origins))

    # -- texts

    def _template(self, node: Template, scope: Scope) -> Value:
        pieces: list[str] = []
        origins: list[Origin] = []
        for part in node.parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            if isinstance(part, FileRead):
                value = self._file_read(part._replace(optional=True), scope)
                if value.data is None:
                    continue
            else:
                value = self.evaluate(part, scope)
            pieces.append(text_of(value))
            origins.append(value.origin)
        return Value("".join(pieces), merge(*origins))

    def _hole(self, hole: Hole, scope: Scope) -> Value:
        root = root_of(hole.value)
        known = not isinstance(root, Reference) or self.lookup(root.name, scope) is not None
        if hole.default is not None:
            value = self.evaluate(hole.value, scope) if known else NOTHING
            return self.evaluate(hole.default, scope) if value.data is None else value
        if hole.when is not None or hole.omit:
            value = self.evaluate(hole.value, scope) if known else NOTHING
            if not is_truthy(value.data):
                return Value("", value.origin)
            return self.evaluate(hole.when, scope) if hole.when is not None else value
        return self.evaluate(hole.value, scope) if known else Value(hole.raw)

    def _file_read(self, node: FileRead, scope: Scope) -> Value:
        path = self.path(node.path, scope)
        try:
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                text = file.read()
        except OSError as error:
            if node.optional:
                return NOTHING
            raise ScriptFailure(
                f"Failed to load content: {node_path(node)}: {error.strerror}", name="MlldError"
            ) from error
        return Value(_file_data(path, text), UNKNOWN, text)

    def path(self, node: Template, scope: Scope) -> str:
        """Give a path as an absolute one; `@base` is the project root, the rest is relative to the script."""
        text, _ = self.text(node, scope)
        return os.path.normpath(os.path.join(self.run.folder, text))

    # -- fields and operators

    def _field(self, node: FieldAccess, scope: Scope) -> Value:
        target = self.evaluate(node.target, scope)
        key = self.evaluate(node.key, scope)
        if key.data == "mx" and not (isinstance(target.data, dict) and "mx" in target.data):
            return Value(self._about(target, node, scope))
        return Value(read_field(target.data, key.data), target.origin)

    def _about(self, target: Value, node: FieldAccess, _: Scope) -> dict[str, Any]:
        """Give what `.mx` tells about a value."""
        inner = node.target
        if isinstance(inner, FieldAccess) and isinstance(inner.target, Reference) and inner.target.name == "payload":
            name = inner.key.data if isinstance(inner.key, Literal) else ""
            labels = self.run.job.payload_labels.get(str(name))
            if labels is None:
                raise ScriptFailure(
                    f'Field "mx" not found on payload field "{name}"', "FIELD_ACCESS_ERROR", "FieldAccessError"
                )
            return {"labels": list(labels), "taint": list(labels)}
        # Labels of an update from outside are told here; the real engine does not carry them along either.
        outside = self.run.state_origins.get(_state_path(inner), UNKNOWN)
        return {**merge(target.origin, outside).plain(), "text": inline_text(target.data)}

    def _slice(self, node: Slice, scope: Scope) -> Value:
        target = self.evaluate(node.target, scope)
        if not isinstance(target.data, (list, str)):
            raise ScriptFailure("Cannot slice a value that is no list", "FIELD_ACCESS_ERROR", "FieldAccessError")
        # The real engine has no pieces of texts by index; `.slice` has.
        return Value(target.data[node.start : node.end] if isinstance(target.data, list) else [], target.origin)

    def _method(self, node: MethodCall, scope: Scope) -> Value:
        target = self.evaluate(node.target, scope)
        if isinstance(target.data, dict):
            function = target.data.get(node.name)
            if isinstance(function, Function):
                args = [self.evaluate(arg, scope) for arg in node.args]
                return self.call(function, node.name, args, node.span, scope, keyed=keyed(node.args, args))
        values = [self.evaluate(arg, scope) for arg in node.args]
        data = call_method(target.data, node.name, [value.data for value in values])
        return Value(data, merge(target.origin, *(value.origin for value in values)))

    def _lenient(self, node: Any, scope: Scope) -> Value:
        """Evaluate an operand; an unknown variable counts as nothing there."""
        root = root_of(node)
        if isinstance(root, Reference) and self.lookup(root.name, scope) is None:
            return NOTHING
        return self.evaluate(node, scope)

    def _unary(self, node: Unary, scope: Scope) -> Value:
        value = self._lenient(node.operand, scope)
        return Value(not is_truthy(value.data), value.origin)

    def _binary(self, node: Binary, scope: Scope) -> Value:
        operator = node.operator
        left = self._lenient(node.left, scope)
        if operator == "??":
            return left if left.data is not None else self._lenient(node.right, scope)
        if operator == "||":
            return left if is_truthy(left.data) else self._lenient(node.right, scope)
        if operator == "&&":
            return self._lenient(node.right, scope) if is_truthy(left.data) else left
        right = self._lenient(node.right, scope)
        origin = merge(left.origin, right.origin)
        if operator in ("==", "!="):
            return Value(equal(left.data, right.data) is (operator == "=="), origin)
        if operator in ("<", ">", "<=", ">="):
            return Value(compare(operator, left.data, right.data), origin)
        return Value(calculate(operator, left.data, right.data), origin)

    def _ternary(self, node: Ternary, scope: Scope) -> Value:
        chosen = node.yes if is_truthy(self._lenient(node.condition, scope).data) else node.no
        return self.evaluate(chosen, scope)

    # -- when

    def _when(self, node: WhenExpression, scope: Scope) -> Value:
        try:
            branch = self.choose(node, scope)
            return NOTHING if branch is None else self.branch_value(branch, scope)
        except ScriptFailure as error:
            if error is self.run.abort_error or isinstance(error, ScriptBailed) or error.code == "E_WHEN_EXPRESSION":
                raise
            raise ScriptFailure(
                f"Error evaluating action: {error.message}", "E_WHEN_EXPRESSION", "MlldWhenExpressionError"
            ) from error

    def choose(self, node: WhenExpression, scope: Scope) -> Any:
        """Find the action of the first branch that fits, or None."""
        subject = None if node.subject is None else self._lenient(node.subject, scope)
        for branch in node.branches:
            self.run.step()
            if branch.condition is None or branch.condition == Literal("none"):
                return branch.action
            value = self._lenient(branch.condition, scope)
            chosen = is_truthy(value.data) if subject is None else fits(subject.data, value.data)
            if chosen:
                return branch.action
        return None

    def branch_value(self, action: Any, scope: Scope) -> Value:
        """Give the value of a branch, which may be a block or a statement too."""
        if isinstance(action, Block):
            return self.block_value(action, Scope(scope))
        if isinstance(action, SkipStatement):
            return Value(SKIPPED)
        if isinstance(action, STATEMENTS):
            return self.execute(action, scope)
        return self.evaluate(action, scope)

    # -- the rest

    def _for(self, node: ForLoop, scope: Scope) -> Value:
        return Value(self.collect_for(node, scope))

    def _loop(self, node: RepeatLoop, scope: Scope) -> Value:
        return self.run_loop(node, scope)

    def _call(self, node: FunctionCall, scope: Scope) -> Value:
        return self.call_by_name(node.name, node.args, node.span, scope)

    def _pipe(self, node: PipedValue, scope: Scope) -> Value:
        value = self.evaluate(node.source, scope)
        for stage in node.stages:
            if isinstance(stage, ShellCommand):
                value = self.shell(stage._replace(stdin=None), scope, stdin=text_of(value))
            else:
                value = self.call_stage(stage, value, scope)
        return value

    def _shell(self, node: ShellCommand, scope: Scope) -> Value:
        return self.shell(node, scope)

    def _show(self, node: ShowStatement, scope: Scope) -> Value:
        """Give what `var @x = show ...` keeps: an empty text. Nothing is shown, nothing evaluated."""
        del node, scope
        return Value("")

    _expressions: ClassVar[dict[type, Callable[[Any, Any, Scope], Value]]] = {
        Literal: _literal,
        Template: _template,
        Reference: _reference,
        FieldAccess: _field,
        Slice: _slice,
        MethodCall: _method,
        FunctionCall: _call,
        ListLiteral: _list,
        ObjectLiteral: _object,
        Unary: _unary,
        Binary: _binary,
        Ternary: _ternary,
        WhenExpression: _when,
        ForLoop: _for,
        RepeatLoop: _loop,
        PipedValue: _pipe,
        ShellCommand: _shell,
        FileRead: _file_read,
        ShowStatement: _show,
        Hole: _hole,
    }


def _file_data(path: str, text: str) -> Any:
    """Read a file's text as data where its name says that it is some."""
    try:
        if path.endswith(".json"):
            return json.loads(text)
        if path.endswith(".jsonl"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return text
    return text


def _state_path(node: Any) -> str:
    """Give the dotted path of `@state.a.b`; an empty one for anything else."""
    names: list[str] = []
    while isinstance(node, FieldAccess) and isinstance(node.key, Literal):
        names.append(str(node.key.data))
        node = node.target
    return ".".join(reversed(names)) if isinstance(node, Reference) and node.name == "state" else ""


def node_path(node: FileRead) -> str:
    """Give a path as it was written."""
    return "".join(part if isinstance(part, str) else part.raw for part in node.path.parts)


def list_of(value: Value) -> list[tuple[str, Any]]:
    """Give what a `for` goes over as pairs of key and item."""
    if isinstance(value.data, list):
        return [(str(at), item) for at, item in enumerate(value.data)]
    if isinstance(value.data, dict):
        return list(ordered(value.data).items())
    raise ScriptFailure(
        f"Directive error (for): Type mismatch: for expects an array. Received: {describe(value.data)}",
        "VALIDATION_FAILED",
        "MlldDirectiveError",
    )
