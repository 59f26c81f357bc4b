"""What the parts of the interpreter share: the run, its checkpoint cache, and which part does which kind of node."""

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.interpreter.scope import Scope
from mlld_sdk.transport.embedded.interpreter.script_run import ABSENT, ScriptRun
from mlld_sdk.transport.embedded.interpreter.values import NOTHING, Origin, Value, text_of
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.syntax import SimpleStatement

if TYPE_CHECKING:
    from mlld_sdk.transport.embedded.interpreter.checkpoints import CheckpointMemory

Handler = Callable[[Any, Scope], Value]
"""Does one kind of node in a scope and gives its value."""

SKIPPED: Any = object()
"""The value of a round that gives no item."""


class ReturnSignal(Exception):  # not an error: the way a block ends with `=> value`
    """`=>` was reached."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class ScriptContext:
    """One script being run, as the parts of the interpreter see it.

    The parts know each other's work through this: each registers what it does with `add`, and asks for the value or
    the effect of any node with `evaluate` and `execute`. `open_memory` is called when the cache is first used.
    """

    def __init__(self, run: ScriptRun, open_memory: "Callable[[], CheckpointMemory]") -> None:
        self.run = run
        self._open_memory = open_memory
        self._expressions: dict[type, Handler] = {}
        self._statements: dict[type | str, Handler] = {}

    def add(
        self, *, expressions: Mapping[type, Handler] | None = None, statements: Mapping[Any, Handler] | None = None
    ) -> None:
        """Register handlers: of expressions by type, of statements by type or by the word of a simple statement."""
        self._expressions.update(expressions or {})
        self._statements.update(statements or {})

    @cached_property
    def memory(self) -> "CheckpointMemory":
        """The script's view of the checkpoint cache."""
        return self._open_memory()

    def evaluate(self, node: Any, scope: Scope) -> Value:
        """Return the value of an expression."""
        return self._expressions[type(node)](node, scope)

    def execute(self, node: Any, scope: Scope) -> Value:
        """Do one statement, and return its value where it has one."""
        self.run.step()
        handler = self._statements.get(node.word if isinstance(node, SimpleStatement) else type(node))
        return handler(node, scope) if handler is not None else self.branch_value(node, scope)

    def run_block(self, block: syntax.Block, scope: Scope) -> None:
        """Do the statements of a block."""
        for statement in block.statements:
            self.execute(statement, scope)

    def block_value(self, block: syntax.Block, scope: Scope) -> Value:
        """Run a block and return what its `=>` gives, or an empty text."""
        try:
            self.run_block(block, scope)
        except ReturnSignal as signal:
            return signal.value
        return Value("")

    def branch_value(self, action: Any, scope: Scope) -> Value:
        """Return the value of a branch, which may be a block or a statement too."""
        if isinstance(action, syntax.Block):
            return self.block_value(action, Scope(scope))
        if syntax.is_simple(action, "skip"):
            return Value(SKIPPED)
        if isinstance(action, (SimpleStatement, syntax.OutputStatement)):
            return self.execute(action, scope)
        return self.evaluate(action, scope)

    def is_unknown(self, node: Any, scope: Scope) -> bool:
        """Return whether a node hangs on a variable that does not exist."""
        root = syntax.root_of(node)
        return isinstance(root, syntax.Reference) and self.lookup(root.name, scope) is None

    def operand(self, node: Any, scope: Scope) -> Value:
        """Return the value of an operand or a condition; an unknown variable counts as nothing there."""
        return NOTHING if self.is_unknown(node, scope) else self.evaluate(node, scope)

    def text(self, node: Any, scope: Scope) -> str:
        """Return an expression as it reads inside a text."""
        return text_of(self.evaluate(node, scope))

    def path(self, node: syntax.Template, scope: Scope) -> str:
        """Return a path as an absolute one; `@base` is the project root, the rest is relative to the script.

        One that leaves the project fails where the request asks for that.
        """
        return self.run.admit(os.path.normpath(os.path.join(self.run.folder, self.text(node, scope))))

    def lookup(self, name: str, scope: Scope) -> Value | None:
        """Find a variable, or what the host provides under that name."""
        run = self.run
        value = scope.find(name)
        if value is not None:
            return value
        if name == "payload" and run.request.payload is not ABSENT:
            lists = run.request.payload_labels.values()
            labels = tuple(dict.fromkeys(label for names in lists for label in names))
            return Value(run.request.payload, Origin(labels, labels))
        if name == "state" and run.state is not None:
            return Value(run.state, Origin(("src:dynamic",), ("src:dynamic",), ("src:dynamic",)))
        if name == "now":
            return Value(clock.iso())
        return Value(run.root) if name in ("base", "root") else None
