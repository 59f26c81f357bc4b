"""Expressions that need nothing but their operands: literals, texts, files, fields and operators."""

import json
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptFailure, field_failure
from mlld_sdk.transport.embedded.interpreter.context import ScriptContext
from mlld_sdk.transport.embedded.interpreter.methods import read_field
from mlld_sdk.transport.embedded.interpreter.operators import COMPARISONS, calculate, compare, equal
from mlld_sdk.transport.embedded.interpreter.scope import Scope
from mlld_sdk.transport.embedded.interpreter.values import (
    NOTHING,
    UNKNOWN,
    Origin,
    Value,
    describe,
    inline_text,
    is_truthy,
    merge,
    ordered,
    text_of,
)
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.syntax import FieldAccess, FileRead, Literal, Reference


class Expressions:
    """Gives the values of expressions that need nothing but their operands."""

    def __init__(self, context: ScriptContext) -> None:
        self._context = context
        self._evaluate = context.evaluate
        self._operand = context.operand
        context.add(
            expressions={
                Literal: lambda node, _: Value(node.data),
                Reference: self._reference,
                syntax.ListLiteral: self._list,
                syntax.ObjectLiteral: self._object,
                syntax.Template: self._template,
                syntax.Hole: self._hole,
                FileRead: self._file_read,
                FieldAccess: self._field,
                syntax.Slice: self._slice,
                syntax.Negation: self._not,
                syntax.Binary: self._binary,
                syntax.Ternary: self._ternary,
            }
        )

    def _reference(self, node: Reference, scope: Scope) -> Value:
        value = self._context.lookup(node.name, scope)
        if value is None:
            raise ScriptFailure(f"Variable not found: {node.name}")
        return value

    def _list(self, node: syntax.ListLiteral, scope: Scope) -> Value:
        values = [self._evaluate(item, scope) for item in node.items]
        return Value([value.data for value in values], merge(*(value.origin for value in values)))

    def _object(self, node: syntax.ObjectLiteral, scope: Scope) -> Value:
        data: dict[str, Any] = {}
        origins: list[Origin] = []
        for key, entry in node.entries:
            value = self._evaluate(entry, scope)
            origins.append(value.origin)
            if key is not None:
                data[key] = value.data
            elif isinstance(value.data, dict):
                data.update(value.data)
            else:
                raise ScriptFailure(f"Cannot spread {describe(value.data)} into an object")
        return Value(ordered(data), merge(*origins))

    def _template(self, node: syntax.Template, scope: Scope) -> Value:
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
                value = self._evaluate(part, scope)
            pieces.append(text_of(value))
            origins.append(value.origin)
        return Value("".join(pieces), merge(*origins))

    def _hole(self, hole: syntax.Hole, scope: Scope) -> Value:
        unknown = self._context.is_unknown(hole.value, scope)
        if unknown and hole.default is None and hole.when is None and not hole.omit:
            return Value(hole.raw)
        value = NOTHING if unknown else self._evaluate(hole.value, scope)
        if hole.default is not None:
            return self._evaluate(hole.default, scope) if value.data is None else value
        if (hole.when is not None or hole.omit) and not is_truthy(value.data):
            return Value("", value.origin)
        return value if hole.when is None else self._evaluate(hole.when, scope)

    def _file_read(self, node: FileRead, scope: Scope) -> Value:
        path = self._context.path(node.path, scope)
        try:
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                text = file.read()
        except OSError as error:
            if node.optional:
                return NOTHING
            written = "".join(part if isinstance(part, str) else part.raw for part in node.path.parts)
            raise ScriptFailure(f"Failed to load content: {written}: {error.strerror}", name="MlldError") from error
        return Value(_file_data(path, text), UNKNOWN, text)

    def _field(self, node: FieldAccess, scope: Scope) -> Value:
        target = self._evaluate(node.target, scope)
        key = self._evaluate(node.key, scope)
        if key.data == "mx" and not (isinstance(target.data, dict) and "mx" in target.data):
            return Value(self._about(target, node.target))
        return Value(read_field(target.data, key.data), target.origin)

    def _about(self, target: Value, node: Any) -> dict[str, Any]:
        """Return what `.mx` tells about a value."""
        run = self._context.run
        if isinstance(node, FieldAccess) and isinstance(node.target, Reference) and node.target.name == "payload":
            name = str(node.key.data if isinstance(node.key, Literal) else "")
            labels = run.request.payload_labels.get(name)
            if labels is None:
                raise field_failure(f'Field "mx" not found on payload field "{name}"')
            return {"labels": list(labels), "taint": list(labels)}
        # Labels of an update from outside are told here; the real engine does not carry them along either.
        outside = run.state_origins.get(_state_path(node), UNKNOWN)
        return {**merge(target.origin, outside).plain(), "text": inline_text(target.data)}

    def _slice(self, node: syntax.Slice, scope: Scope) -> Value:
        target = self._evaluate(node.target, scope)
        if not isinstance(target.data, (list, str)):
            raise field_failure("Cannot slice a value that is no list")
        # The real engine has no pieces of texts by index; `.slice` has.
        return Value(target.data[node.start : node.end] if isinstance(target.data, list) else [], target.origin)

    def _not(self, node: syntax.Negation, scope: Scope) -> Value:
        value = self._operand(node.operand, scope)
        return Value(not is_truthy(value.data), value.origin)

    def _binary(self, node: syntax.Binary, scope: Scope) -> Value:
        sign = node.operator
        left = self._operand(node.left, scope)
        if sign == "??":
            return left if left.data is not None else self._operand(node.right, scope)
        if sign in ("||", "&&"):
            return left if is_truthy(left.data) is (sign == "||") else self._operand(node.right, scope)
        right = self._operand(node.right, scope)
        if sign in ("==", "!="):
            data: Any = equal(left.data, right.data) is (sign == "==")
        else:
            data = (compare if sign in COMPARISONS else calculate)(sign, left.data, right.data)
        return Value(data, merge(left.origin, right.origin))

    def _ternary(self, node: syntax.Ternary, scope: Scope) -> Value:
        chosen = node.yes if is_truthy(self._operand(node.condition, scope).data) else node.no
        return self._evaluate(chosen, scope)


def _file_data(path: str, text: str) -> Any:
    """Return a file's text as data where its name says that it is some."""
    try:
        if path.endswith(".json"):
            return json.loads(text)
        if path.endswith(".jsonl"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return text
    return text


def _state_path(node: Any) -> str:
    """Return the dotted path of `@state.a.b`, and an empty one for anything else."""
    names: list[str] = []
    while isinstance(node, FieldAccess) and isinstance(node.key, Literal):
        names.append(str(node.key.data))
        node = node.target
    return ".".join(reversed(names)) if isinstance(node, Reference) and node.name == "state" else ""
