"""Runs a parsed script: puts the parts together, does the statements in order, and imports and exports."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlld_sdk.transport.embedded.errors import ScriptFailure, ScriptParseError, UnsupportedConstruct
from mlld_sdk.transport.embedded.interpreter.compounds import Compounds
from mlld_sdk.transport.embedded.interpreter.context import ReturnSignal, ScriptContext
from mlld_sdk.transport.embedded.interpreter.expressions import Expressions
from mlld_sdk.transport.embedded.interpreter.functions import Functions
from mlld_sdk.transport.embedded.interpreter.scope import Function, Scope
from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRun, capability
from mlld_sdk.transport.embedded.interpreter.shells import Shells
from mlld_sdk.transport.embedded.interpreter.statements import Statements
from mlld_sdk.transport.embedded.interpreter.values import NOTHING, UNKNOWN, Origin, Value, is_number, merge
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.parser import parse
from mlld_sdk.transport.embedded.language.scanner import LETTERS, WORD
from mlld_sdk.transport.javascript import number_text

if TYPE_CHECKING:
    from mlld_sdk.transport.embedded.interpreter.checkpoints import CheckpointMemory


class Modules:
    """Does `import` and `export`."""

    def __init__(self, context: ScriptContext) -> None:
        self._context = context
        self._run = context.run
        self._exported: list[tuple[str, syntax.TextSpan]] = []
        context.add(statements={syntax.ImportStatement: self._import, syntax.ExportStatement: self._export})

    def _export(self, node: syntax.ExportStatement, _: Scope) -> Value:
        self._exported += [(name, node.span) for name in node.names]
        return NOTHING

    def finish(self, scope: Scope) -> None:
        """Hand over the values of what was exported; they are taken at the end of the script."""
        for name, span in self._exported:
            value = scope.find(name)
            if value is None:
                continue
            operation = {"kind": "var", "identifier": name, "location": self._run.positions.span(span)}
            described = capability("var", value.origin, {"identifier": name}, operation)
            data = f"[executable: {name}]" if isinstance(value.data, Function) else value.data
            metadata = {"capability": described, "security": described["security"]}
            self._run.exports[name] = {"name": name, "value": data, "metadata": metadata}

    def _import(self, node: syntax.ImportStatement, scope: Scope) -> Value:
        place = self._run.place(node.span)
        source, origin = self._source(node.source)
        self._run.record(origin)
        if node.alias is not None:
            scope.declare(node.alias, Value(source, origin), place)
            return NOTHING
        for name, alias in node.names:
            if name not in source and not self._is_data(node.source):
                raise ScriptFailure(
                    f"Import '{name}' not found in module '{node.source}'", "IMPORT_EXPORT_MISSING", "MlldImportError"
                )
            scope.declare(alias, Value(source.get(name), origin), place)
        return NOTHING

    def _is_data(self, source: str) -> bool:
        """Return whether values were sent along under this name, and no script; what is not among them is nothing."""
        if source == "@payload":
            return isinstance(self._run.request.payload, dict)
        return source == "@state" or isinstance(self._run.request.modules.get(source), dict)

    def _source(self, source: str) -> tuple[dict[str, Any], Origin]:
        """Return what can be imported from a source, and where that came from."""
        sent = self._run.request.modules.get(source)
        found = Value(sent)
        if source in ("@payload", "@state"):
            found = self._context.lookup(source[1:], Scope()) or NOTHING
            if not isinstance(found.data, (str, dict)):
                raise ScriptFailure(f"No resolver found for: {source}", "E_NO_RESOLVER", "MlldResolutionError")
        elif not isinstance(sent, (str, dict)):
            return self._module(self._text(source), source), UNKNOWN
        labels: tuple[str, ...] = ("src:dynamic",)
        if self._run.request.module_label is not None:
            labels += (f"src:{self._run.request.module_label}",)
        dynamic = Origin(labels, labels, ("dynamic-module", f"dynamic://{source}"))
        if isinstance(found.data, str):
            return self._module(found.data, source), merge(found.origin, dynamic)
        _refuse_unimportable(found.data, source)
        return found.data, merge(dynamic, found.origin) if source == "@state" else merge(found.origin, dynamic)

    def _text(self, source: str) -> str:
        if source.startswith("@"):
            raise UnsupportedConstruct(f"import from '{source}'", 1)
        path = self._run.admit(os.path.normpath(os.path.join(self._run.folder, source)))
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError as error:
            raise ScriptFailure(f"Import error: File not found: {source}") from error

    def _module(self, text: str, source: str) -> dict[str, Any]:
        """Return what a module exports, or all it defines if it exports nothing; only definitions are run."""
        try:
            module = parse(text)
        except ScriptParseError as error:
            raise ScriptFailure(f"Syntax error in imported file '{source}': {error.message}") from error
        scope = Scope()
        exports = [statement for statement in module.statements if isinstance(statement, syntax.ExportStatement)]
        for statement in module.statements:
            if isinstance(statement, (syntax.VarStatement, syntax.ExeStatement, syntax.ImportStatement)):
                self._context.execute(statement, scope)
        names = [name for statement in exports for name in statement.names] if exports else list(scope.lines)
        found = {name: scope.find(name) for name in names}
        return {name: value.data for name, value in found.items() if value is not None}


def run_script(script: syntax.ParsedScript, run: ScriptRun, open_memory: "Callable[[], CheckpointMemory]") -> None:
    """Run all statements of a script; `open_memory` makes its view of the checkpoint cache, at the first use."""
    context = ScriptContext(run, open_memory)
    shells = Shells(context)
    statements = Statements(context, Functions(context, shells), shells)
    modules = Modules(context)
    Expressions(context)
    Compounds(context)
    if run.request.plan.prepares():
        marks = [node.value for node in script.statements if syntax.is_simple(node, "checkpoint")]
        context.memory.prepare([str(name.data) for name in marks if isinstance(name, syntax.Literal)])
    run.step()
    scope = Scope()
    try:
        for statement in script.statements:
            context.execute(statement, scope)
    except ReturnSignal as signal:
        statements.finish(signal.value)
    modules.finish(scope)


def _refuse_unimportable(data: dict[str, Any], source: str) -> None:
    """Refuse what the real engine cannot import, since it writes the values as `var` statements and reads those."""
    for name in data:
        if not (name[:1] in LETTERS and not set(name) - WORD - {"-"}) or name.endswith("-"):
            raise ScriptFailure(f"Failed to parse imported file '{source}': {name!r} is no name of a variable")
    if (number := _with_exponent(data)) is not None:
        raise ScriptFailure(f"Syntax error in imported file '{source}' at line 1: {number_text(number)}")


def _with_exponent(data: Any) -> float | None:
    """Return a number that prints with an exponent, which the language has no numbers with."""
    if is_number(data):
        return data if "e" in number_text(data) else None
    items = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return next((found for item in items if (found := _with_exponent(item)) is not None), None)
