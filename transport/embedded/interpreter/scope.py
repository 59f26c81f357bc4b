"""Names and what they stand for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from mlld_sdk.transport.embedded.errors import redefinition
from mlld_sdk.transport.embedded.interpreter.values import Value

if TYPE_CHECKING:
    from mlld_sdk.transport.embedded.interpreter.model_calls import ModelCall


class Function(NamedTuple):
    """What `exe` defines. It is a value like any other; `scope` is where its body finds its names."""

    name: str
    params: tuple[str, ...]
    labels: tuple[str, ...]
    body: Any
    scope: "Scope"


class Scope:
    """Variables of a script, a block or a call, and the scope around it.

    Attributes:
        outer: Where names are looked up that are not found here.
        calling: Names of the functions whose bodies are being run on the way to here.
        model: The innermost of them that is an `llm` function, if there is one.
        returns: Whether the value of a `when` statement here ends the body, as it does inside functions.
    """

    def __init__(
        self,
        outer: "Scope | None" = None,
        *,
        calling: frozenset[str] | None = None,
        model: "ModelCall | None" = None,
    ) -> None:
        self.outer = outer
        self.model: ModelCall | None = model if model is not None else outer.model if outer else None
        self.calling: frozenset[str] = calling if calling is not None else outer.calling if outer else frozenset()
        self.returns: bool = calling is not None or (outer is not None and outer.returns)
        self.values: dict[str, Value] = {}
        self.waiting: dict[str, Callable[[], Value]] = {}
        self.lines: dict[str, str] = {}
        self.fixed: frozenset[str] = frozenset()

    def find(self, name: str) -> Value | None:
        """Look a name up here and outwards."""
        scope: Scope | None = self
        while scope is not None:
            value = scope.values.get(name)
            if value is not None:
                return value
            if name in scope.waiting:
                scope.values[name] = scope.waiting.pop(name)()
                return scope.values[name]
            scope = scope.outer
        return None

    def find_function(self, name: str) -> Function | None:
        """Look a name up that stands for a function."""
        value = self.find(name)
        return value.data if value is not None and isinstance(value.data, Function) else None

    def define(self, name: str, value: Value, *, fixed: bool = False) -> None:
        """Set a name here, whether it was set before or not; a fixed one (a parameter) cannot be hidden by `let`."""
        self.values[name] = value
        if fixed:
            self.fixed |= {name}

    def is_fixed(self, name: str) -> bool:
        """Return whether a name is taken, here or outwards, by something that `let` must not hide."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.fixed or name in scope.lines:
                return True
            if name in scope.values:
                return False
            scope = scope.outer
        return False

    def declare(self, name: str, value: Value | Callable[[], Value], place: tuple[str, str]) -> None:
        """Set a name here for the first time, to a value or to what a function gives at the first use.

        `place` is where this happens: as a later error tells it, and as the end of this error's message.
        """
        there, here = place
        if name in self.lines:
            raise redefinition(f"Variable '{name}' is already defined, at {self.lines[name]}{here}")
        if isinstance(value, Value):
            self.values[name] = value
        else:
            self.waiting[name] = value
        self.lines[name] = there

    def reassign(self, name: str, value: Value) -> None:
        """Change a name in the scope that has it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                scope.values[name] = value
                return
            scope = scope.outer
