"""What chooses and what repeats: `when`, `if`, `for`, `for parallel` and `loop`."""

import threading
from collections.abc import Callable
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptFailure, directive_failure
from mlld_sdk.transport.embedded.interpreter.context import SKIPPED, ReturnSignal, ScriptContext
from mlld_sdk.transport.embedded.interpreter.operators import fits
from mlld_sdk.transport.embedded.interpreter.scope import Scope
from mlld_sdk.transport.embedded.interpreter.values import NOTHING, Value, describe, is_number, is_truthy, ordered
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.syntax import Block, ForLoop, WhenExpression

DEFAULT_CAP = 4
LAST: Any = object()
"""What a round gives that was the last one because of `done`."""


class RoundSignal(Exception):  # not an error: the way a round of a loop ends
    """`continue` or `done` was reached."""

    def __init__(self, value: Value, *, done: bool) -> None:
        super().__init__()
        self.value = value
        self.done = done


class Compounds:
    """Does what has blocks of its own, as values and as statements."""

    def __init__(self, context: ScriptContext) -> None:
        self._context = context
        self._run = context.run
        context.add(
            expressions={
                WhenExpression: self._when_value,
                ForLoop: lambda node, scope: Value(self._collected(node, scope)),
                syntax.RepeatLoop: self._loop,
            },
            statements={
                WhenExpression: self._when,
                syntax.IfStatement: self._if,
                ForLoop: self._for,
                syntax.RepeatLoop: self._loop,
                "continue": self._end_round,
                "done": self._end_round,
            },
        )

    def _holds(self, condition: Any, scope: Scope) -> bool:
        return is_truthy(self._context.operand(condition, scope).data)

    def _when_value(self, node: WhenExpression, scope: Scope) -> Value:
        try:
            action = self._chosen(node, scope)
            return NOTHING if action is None else self._context.branch_value(action, scope)
        except ScriptFailure as error:
            if error is self._run.abort_error or error.code in ("BAIL_EXIT", "E_WHEN_EXPRESSION"):
                raise
            raise ScriptFailure(
                f"Error evaluating action: {error.message}", "E_WHEN_EXPRESSION", "MlldWhenExpressionError"
            ) from error

    def _chosen(self, node: WhenExpression, scope: Scope) -> Any:
        """Return the action of the first branch that fits, or None."""
        subject = None if node.subject is None else self._context.operand(node.subject, scope)
        for condition, action in node.branches:
            self._run.step()
            if condition is None or (isinstance(condition, syntax.Literal) and condition.data == "none"):
                return action
            value = self._context.operand(condition, scope)
            if is_truthy(value.data) if subject is None else fits(subject.data, value.data):
                return action
        return None

    def _when(self, node: WhenExpression, scope: Scope) -> Value:
        action = self._chosen(node, scope)
        if action is None:
            return NOTHING
        if isinstance(action, Block):
            self._context.run_block(action, Scope(scope))
            return NOTHING
        if scope.returns and (given := _given_by(action)) is not None:
            value = self._context.evaluate(given, scope)
            if value.data is not None:
                raise ReturnSignal(value)
            return NOTHING
        if syntax.is_simple(action, "say"):
            if scope.outer is None:
                self._context.execute(action._replace(word="show"), scope)
            return NOTHING
        return self._context.execute(action, scope)

    def _if(self, node: syntax.IfStatement, scope: Scope) -> Value:
        chosen = node.yes if self._holds(node.condition, scope) else node.no
        if isinstance(chosen, syntax.IfStatement):
            return self._if(chosen, scope)
        if chosen is not None:
            self._context.run_block(chosen, Scope(scope))
        return NOTHING

    def _collected(self, node: ForLoop, scope: Scope) -> list[Any]:
        """Run a `for` whose value is used and return the list of what each round gave."""

        def one(key: str, item: Value) -> Any:
            try:
                inner = self._round_scope(node, key, item, scope)
                return SKIPPED if inner is None else self._round_value(node.body, inner)
            except RoundSignal as signal:
                return SKIPPED if signal.value.data is None else signal.value.data

        return [value for value in self._rounds(node, scope, one, collects=True) if value is not SKIPPED]

    def _for(self, node: ForLoop, scope: Scope) -> Value:
        """Run a `for` as a statement; a failing round ends it, `done` too."""

        def one(key: str, item: Value) -> Any:
            inner = self._round_scope(node, key, item, scope)
            try:
                if inner is not None:
                    self._do_round(node.body, inner)
            except RoundSignal as signal:
                return LAST if signal.done else None
            return None

        self._rounds(node, scope, one, collects=False)
        return NOTHING

    def _do_round(self, body: Any, scope: Scope) -> None:
        if not isinstance(body, Block):
            self._context.execute(body, scope)
            return
        for statement in body.statements:
            if syntax.is_simple(statement, "=>"):
                self._context.evaluate(statement.value, scope)
                return
            self._context.execute(statement, scope)

    def _round_value(self, body: Any, scope: Scope) -> Any:
        scope.returns = True
        if isinstance(body, (syntax.Reference, syntax.FieldAccess)):
            return self._context.operand(body, scope).data
        return self._context.branch_value(body, scope).data

    def _round_scope(self, node: ForLoop, key: str, item: Value, scope: Scope) -> Scope | None:
        """Return the scope of a round, or None when its `when` leaves it out."""
        self._run.step()
        inner = Scope(scope)
        inner.define(node.name, item, fixed=True)
        inner.define(node.key or f"{node.name}_key", Value(key))
        return inner if node.where is None or self._holds(node.where, inner) else None

    def _rounds(self, node: ForLoop, scope: Scope, one: Callable[[str, Value], Any], *, collects: bool) -> list[Any]:
        source = self._context.evaluate(node.source, scope)
        items = [(key, Value(item, source.origin)) for key, item in _pairs(source.data)]
        if node.parallel is None:
            results: list[Any] = []
            for key, item in items:
                results.append(one(key, item))
                if results[-1] is LAST:
                    break
            return results
        cap = DEFAULT_CAP if node.parallel.cap is None else self._context.evaluate(node.parallel.cap, scope).data

        def guarded(at: int) -> Any:
            key, item = items[at]
            try:
                return one(key, item)
            except ScriptFailure as error:
                # What the real engine's own kinds of error say ends the script; the rest becomes the round's value.
                if error is self._run.abort_error or error.name != "Error" or not collects:
                    raise
                return self._failed_round(node, at, key, item.data, error.message)

        workers = int(cap) if is_number(cap) and cap >= 1 else DEFAULT_CAP
        return self._parallel(len(items), workers, node.parallel.pace, guarded)

    def _failed_round(self, node: ForLoop, at: int, key: str, item: Any, message: str) -> dict[str, Any]:
        if message.startswith("Directive error ("):
            message = message.partition(": ")[2].partition(" at line ")[0]
        self._run.effect("stderr", f"  \u26a0 for iteration {at} error: {message}\n", node.span)
        return {"index": at, "key": key, "message": message, "error": message, "value": item}

    def _parallel(self, count: int, cap: int, pace: float, one: Callable[[int], Any]) -> list[Any]:
        """Run the first round alone, then up to `cap` at a time, each worker taking the next round in order."""
        results: list[Any] = [None] * count
        if count == 0:
            return results
        results[0] = one(0)
        remaining = iter(range(1, count))
        failures: list[BaseException] = []

        def work() -> None:
            self._run.turn.take()
            try:
                for at in remaining:
                    if pace:
                        self._run.sleep(pace)
                    results[at] = one(at)
            except BaseException as error:  # noqa: BLE001 - carried to the thread that waits for the workers
                failures.append(error)
            finally:
                self._run.turn.hand_on()

        workers = [
            threading.Thread(target=work, name=f"round-{number}", daemon=True) for number in range(min(cap, count - 1))
        ]
        for worker in workers:
            worker.start()
        with self._run.turn.pause():
            for worker in workers:
                worker.join()
        if failures:
            raise failures[0]
        return results

    def _end_round(self, node: syntax.SimpleStatement, scope: Scope) -> Value:
        raise RoundSignal(self._context.evaluate(node.value, scope), done=node.word == "done")

    def _loop(self, node: syntax.RepeatLoop, scope: Scope) -> Value:
        """Run a `loop`; its value is what `done` gave."""
        limit = None if node.limit is None else _limit(self._context.evaluate(node.limit, scope).data)
        state: Value = NOTHING
        rounds = 0
        while limit is None or rounds < limit:
            rounds += 1
            self._run.step()
            inner = Scope(scope)
            inner.define("input", state)
            if node.until is not None and self._holds(node.until, inner):
                return NOTHING
            try:
                self._context.run_block(node.body, inner)
            except RoundSignal as signal:
                if signal.done:
                    return signal.value
                state = signal.value
            if node.pace and (limit is None or rounds < limit):
                self._run.sleep(node.pace)
        return NOTHING


def _limit(data: Any) -> int:
    if not is_number(data):
        raise directive_failure("Directive error (loop): loop limit expects a number.")
    if data < 0 or data != int(data):
        raise directive_failure("Directive error (loop): loop limit expects a non-negative whole number.")
    return int(data)


def _given_by(action: Any) -> Any:
    """Return the value that an action of a `when` gives to a function: a text or a call, but not a command."""
    if syntax.is_simple(action, "say"):
        return action.value
    is_call = syntax.is_simple(action, "run") and not isinstance(action.value, syntax.ShellCommand)
    return action.value if is_call else None


def _pairs(data: Any) -> list[tuple[str, Any]]:
    """Return what a `for` goes over as pairs of key and item."""
    if isinstance(data, list):
        return [(str(at), item) for at, item in enumerate(data)]
    if isinstance(data, dict):
        return list(ordered(data).items())
    raise directive_failure(f"Directive error (for): Type mismatch: for expects an array. Received: {describe(data)}")
