"""`for`, `for parallel` and `loop`."""

import threading
from collections.abc import Callable
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.evaluator import SKIPPED, Evaluator, list_of
from mlld_sdk.transport.embedded.interpreter.labels import Origin
from mlld_sdk.transport.embedded.interpreter.scope import Scope
from mlld_sdk.transport.embedded.interpreter.values import NOTHING, Value, is_number, is_truthy
from mlld_sdk.transport.embedded.language.syntax import (
    Block,
    FieldAccess,
    ForLoop,
    Reference,
    RepeatLoop,
    ReturnStatement,
)

DEFAULT_CAP = 4
LAST: Any = object()
"""What a round gives that was the last one because of `done`."""


class ReturnSignal(Exception):  # not an error: the way a block ends with `=> value`
    """`=>` was reached."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class RoundSignal(Exception):  # not an error: the way a round of a loop ends
    """`continue` or `done` was reached."""

    def __init__(self, value: Value, *, done: bool) -> None:
        super().__init__()
        self.value = value
        self.done = done


class Loops(Evaluator):
    """Repeats things."""

    def collect_for(self, node: ForLoop, scope: Scope) -> list[Any]:
        """Run a `for` whose value is used and give the list of what each round gave."""

        def one(key: str, item: Any, origin: Origin) -> Any:
            try:
                return self._round(node, key, item, origin, scope)
            except RoundSignal as signal:
                return SKIPPED if signal.value.data is None else signal.value.data

        return [value for value in self._rounds(node, scope, one) if value is not SKIPPED]

    def run_for(self, node: ForLoop, scope: Scope) -> None:
        """Run a `for` as a statement; a failing round ends it, `done` too."""

        def one(key: str, item: Any, origin: Origin) -> Any:
            inner = self._round_scope(node, key, item, origin, scope)
            if inner is None:
                return SKIPPED
            try:
                self._do_round(node.body, inner)
            except RoundSignal as signal:
                return LAST if signal.done else None
            return None

        self._rounds(node, scope, one, collects=False)

    def _do_round(self, body: Any, scope: Scope) -> None:
        if not isinstance(body, Block):
            self.execute(body, scope)
            return
        for statement in body.statements:
            if isinstance(statement, ReturnStatement):
                self.evaluate(statement.value, scope)
                return
            self.execute(statement, scope)

    def _round(self, node: ForLoop, key: str, item: Any, origin: Origin, scope: Scope) -> Any:
        inner = self._round_scope(node, key, item, origin, scope)
        if inner is None:
            return SKIPPED
        inner.returns = True
        if isinstance(node.body, (Reference, FieldAccess)):
            return self._lenient(node.body, inner).data
        return self.branch_value(node.body, inner).data

    def _round_scope(self, node: ForLoop, key: str, item: Any, origin: Origin, scope: Scope) -> Scope | None:
        """Make the scope of a round, or None when its `when` leaves it out."""
        self.run.step()
        inner = Scope(scope)
        inner.define(node.name, Value(item, origin), fixed=True)
        inner.define(node.key or f"{node.name}_key", Value(key))
        if node.where is not None and not is_truthy(self._lenient(node.where, inner).data):
            return None
        return inner

    def _rounds(
        self, node: ForLoop, scope: Scope, one: Callable[[str, Any, Origin], Any], *, collects: bool = True
    ) -> list[Any]:
        source = self.evaluate(node.source, scope)
        items = list_of(source)
        if node.parallel is None:
            results: list[Any] = []
            for key, item in items:
                results.append(one(key, item, source.origin))
                if results[-1] is LAST:
                    break
            return results
        cap_value = self.evaluate(node.parallel.cap, scope).data if node.parallel.cap is not None else DEFAULT_CAP
        cap = int(cap_value) if is_number(cap_value) and cap_value >= 1 else DEFAULT_CAP

        def guarded(at: int) -> Any:
            key, item = items[at]
            try:
                return one(key, item, source.origin)
            except ScriptFailure as error:
                # What the real engine's own kinds of error say ends the script; the rest becomes the round's value.
                if error is self.run.abort_error or error.name != "Error" or not collects:
                    raise
                return self._failed_round(node, at, key, item, error)

        return self._parallel(len(items), cap, node.parallel.pace, guarded)

    def _failed_round(self, node: ForLoop, at: int, key: str, item: Any, error: ScriptFailure) -> dict[str, Any]:
        message = error.message
        if message.startswith("Directive error ("):
            message = message.partition(": ")[2].partition(" at line ")[0]
        self.run.effect("stderr", f"  \u26a0 for iteration {at} error: {message}\n", node.span)
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
            self.run.turn.take()
            try:
                for at in remaining:
                    if pace:
                        self.run.sleep(pace)
                    results[at] = one(at)
            except BaseException as error:  # noqa: BLE001 - carried to the thread that waits for the workers
                failures.append(error)
            finally:
                self.run.turn.hand_on()

        workers = [
            threading.Thread(target=work, name=f"round-{number}", daemon=True) for number in range(min(cap, count - 1))
        ]
        for worker in workers:
            worker.start()
        with self.run.turn.pause():
            for worker in workers:
                worker.join()
        if failures:
            raise failures[0]
        return results

    def run_loop(self, node: RepeatLoop, scope: Scope) -> Value:
        """Run a `loop`; its value is what `done` gave."""
        limit = None if node.limit is None else self._limit(self.evaluate(node.limit, scope).data)
        state: Value = NOTHING
        rounds = 0
        while limit is None or rounds < limit:
            rounds += 1
            self.run.step()
            inner = Scope(scope)
            inner.define("input", state)
            if node.until is not None and is_truthy(self._lenient(node.until, inner).data):
                return NOTHING
            try:
                self._loop_body(node.body, inner)
            except RoundSignal as signal:
                if signal.done:
                    return signal.value
                state = signal.value
            if node.pace and (limit is None or rounds < limit):
                self.run.sleep(node.pace)
        return NOTHING

    def _loop_body(self, body: Block, scope: Scope) -> None:
        for statement in body.statements:
            self.execute(statement, scope)

    @staticmethod
    def _limit(data: Any) -> int:
        if not is_number(data):
            raise ScriptFailure(
                "Directive error (loop): loop limit expects a number.", "VALIDATION_FAILED", "MlldDirectiveError"
            )
        if data < 0 or data != int(data):
            raise ScriptFailure(
                "Directive error (loop): loop limit expects a non-negative whole number.",
                "VALIDATION_FAILED",
                "MlldDirectiveError",
            )
        return int(data)
