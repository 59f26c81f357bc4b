"""Calls: of functions and methods, by name and in pipelines; the answers of `llm` functions are remembered."""

from typing import Any

from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.errors import ScriptFailure, interpreter_failure
from mlld_sdk.transport.embedded.interpreter.context import ScriptContext
from mlld_sdk.transport.embedded.interpreter.methods import call_method
from mlld_sdk.transport.embedded.interpreter.model_calls import ModelCall, NoAnswer, tell
from mlld_sdk.transport.embedded.interpreter.scope import Function, Scope
from mlld_sdk.transport.embedded.interpreter.shells import Shells
from mlld_sdk.transport.embedded.interpreter.values import UNKNOWN, Origin, Value, kind_of, merge, scalar_text, text_of
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.syntax import Block, FunctionCall, Reference, ShellCommand, TextSpan
from mlld_sdk.transport.javascript import is_blank

HOST_NAMES = ("payload", "state", "now")


class Functions:
    """Calls functions and methods."""

    def __init__(self, context: ScriptContext, shells: Shells) -> None:
        self._context = context
        self._shells = shells
        context.add(
            expressions={
                FunctionCall: lambda node, scope: self.call_by_name(node, scope, node.span),
                syntax.MethodCall: self._method,
                syntax.PipedValue: self._pipe,
            }
        )

    def call_by_name(self, node: FunctionCall, scope: Scope, span: TextSpan | None = None) -> Value:
        """Call `@name(args)`; `span` is where the call stands, if it stands anywhere by itself."""
        target = scope.find(node.name)
        if target is None:
            raise interpreter_failure(f"Interpreter error (undefined): Command not found: {node.name}")
        if not isinstance(target.data, Function):
            kind = _variable_kind(target.data)
            raise interpreter_failure(
                f"Interpreter error (undefined): Variable {node.name} is not executable (type: {kind})"
            )
        return self.call(target.data, node.name, self.arguments(node, scope), scope, nodes=node.args, span=span)

    def arguments(self, node: FunctionCall, scope: Scope) -> list[Value]:
        """Return the values of a call's arguments."""
        return [self._argument(arg, node.name, scope) for arg in node.args]

    def _argument(self, node: Any, function: str, scope: Scope) -> Value:
        if isinstance(node, Reference) and scope.find(node.name) is None and node.name not in HOST_NAMES:
            raise ScriptFailure(f"Undefined variable '@{node.name}' passed to function @{function}")
        return self._context.evaluate(node, scope)

    def call(
        self,
        function: Function,
        name: str,
        values: list[Value],
        caller: Scope,
        *,
        nodes: tuple[Any, ...] | None = None,
        span: TextSpan | None = None,
    ) -> Value:
        """Call a function, or take its stored answer.

        The cache knows it by the `name` it is called by, and its arguments by the `nodes` they were written as: calls
        without are never cached. `span` is where the call stands, if it stands anywhere by itself.
        """
        self._context.run.step()
        if function.name in caller.calling:
            raise ScriptFailure(
                f"Circular reference detected: executable '@{function.name}' calls itself recursively "
                "without a terminating condition",
                "CIRCULAR_REFERENCE",
                "MlldInterpreterError",
            )
        if "llm" not in function.labels:
            return self._run_body(function, values, caller)
        call = ModelCall(name, caller.model)
        if nodes is None or not self._context.memory.active:
            return self._ask_model(call, function, values, caller)
        memory = self._context.memory
        entry, answer = memory.look_up(name, _keyed(nodes, values), self._site(span))
        if answer is not None:
            taint = (*function.labels, *_body_taint(function.body).taint)
            return answer._replace(origin=Origin(function.labels, taint))
        started = clock.milliseconds()
        memory.before_body()
        value = self._ask_model(call, function, values, caller)
        stored = _storable(value.data)
        if not self._context.run.request.unanswered or not (call.failed or is_blank(stored)):
            memory.store(entry, stored, max(0, clock.milliseconds() - started))
        return value

    def _ask_model(self, call: ModelCall, function: Function, values: list[Value], caller: Scope) -> Value:
        value = self._run_body(function, values, caller, call)
        run = self._context.run
        if run.request.unanswered and not call.failed and is_blank(value.data):
            tell(run, NoAnswer(call.function))
        return value

    def _site(self, span: TextSpan | None) -> str:
        path = self._context.run.request.path or ""
        if span is None:
            return f"{path}#unknown"
        point = self._context.run.positions.point(span.start)
        return f"{path}#{point['line']}:{point['column']}"

    def _run_body(
        self, function: Function, values: list[Value], caller: Scope, model: ModelCall | None = None
    ) -> Value:
        scope = Scope(function.scope, calling=caller.calling | {function.name}, model=model or caller.model)
        for param, value in zip(function.params, values, strict=False):
            scope.define(param, value, fixed=True)
        body = function.body
        if isinstance(body, ShellCommand):
            value = self._shells.run(body, scope, params=function.params)
        elif isinstance(body, Block):
            value = self._context.block_value(body, scope)
        elif isinstance(body, FunctionCall):
            value = self.call_by_name(body, scope)
        else:
            value = self._context.evaluate(body, scope)
        arguments = merge(*(value.origin for value in values))
        origin = merge(Origin(function.labels, function.labels), arguments, _body_taint(body), value.origin)
        if isinstance(body, (Reference, syntax.FieldAccess)) and not isinstance(value.data, (list, dict)):
            return Value(text_of(value), origin)
        return Value(value.data, origin, "null" if value.data is None else value.text)

    def _method(self, node: syntax.MethodCall, scope: Scope) -> Value:
        target = self._context.evaluate(node.target, scope)
        values = [self._context.evaluate(arg, scope) for arg in node.args]
        function = target.data.get(node.name) if isinstance(target.data, dict) else None
        if isinstance(function, Function):
            return self.call(function, node.name, values, scope, nodes=node.args, span=node.span)
        data = call_method(target.data, node.name, [value.data for value in values])
        return Value(data, merge(target.origin, *(value.origin for value in values)))

    def _pipe(self, node: syntax.PipedValue, scope: Scope) -> Value:
        value = self._context.evaluate(node.source, scope)
        for stage in node.stages:
            if isinstance(stage, ShellCommand):
                value = self._shells.run(stage._replace(stdin=None), scope, stdin=text_of(value))
                continue
            function = scope.find_function(stage.name)
            if function is None:
                raise interpreter_failure(f"Pipeline command @{stage.name} is not defined")
            value = self.call(function, stage.name, [value, *self.arguments(stage, scope)], scope)
        return value


def _keyed(nodes: tuple[Any, ...], values: list[Value]) -> list[Any]:
    """Return arguments as the cache's key has them: what was written or computed in place counts as text."""
    return [
        _storable(value.data)
        if isinstance(value.data, (list, dict, Function)) or isinstance(syntax.root_of(node), Reference)
        else ""
        if value.data is None
        else scalar_text(value.data)
        for node, value in zip(nodes, values, strict=True)
    ]


def _storable(data: Any) -> Any:
    return None if isinstance(data, Function) else data


def _body_taint(body: Any) -> Origin:
    if isinstance(body, ShellCommand):
        return Origin(taint=(f"src:{body.language}",))
    if isinstance(body, (Block, syntax.ForLoop, syntax.WhenExpression)):
        return Origin(taint=("src:exe",))
    return Origin(taint=("src:template",)) if isinstance(body, syntax.Template) else UNKNOWN


def _variable_kind(data: Any) -> str:
    if isinstance(data, str):
        return "simple-text"
    if isinstance(data, (list, dict)):
        return "array" if isinstance(data, list) else "object"
    return "primitive" if kind_of(data) != "object" else "primitive (null)"
