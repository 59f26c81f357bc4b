"""Doing what statements say."""

import json
import os
from collections.abc import Callable
from typing import Any, ClassVar

from mlld_sdk.transport.embedded.errors import ScriptBailed, ScriptFailure, ScriptParseError, UnsupportedConstruct
from mlld_sdk.transport.embedded.interpreter.labels import UNKNOWN, Origin, merge
from mlld_sdk.transport.embedded.interpreter.loops import Loops, ReturnSignal, RoundSignal
from mlld_sdk.transport.embedded.interpreter.scope import Function, Scope
from mlld_sdk.transport.embedded.interpreter.script_run import capability
from mlld_sdk.transport.embedded.interpreter.values import NOTHING, Value, is_number, is_truthy, page_text, pretty_json
from mlld_sdk.transport.embedded.language.scanner import LETTERS, WORD
from mlld_sdk.transport.embedded.language.syntax import (
    BailStatement,
    Block,
    CheckpointStatement,
    ContinueStatement,
    DoneStatement,
    ExeStatement,
    ExportStatement,
    ForLoop,
    FunctionCall,
    IfStatement,
    ImportStatement,
    LetStatement,
    ListLiteral,
    Literal,
    LogStatement,
    ObjectLiteral,
    OutputStatement,
    ParsedScript,
    PipedValue,
    Reference,
    RepeatLoop,
    ReturnStatement,
    RunStatement,
    SayStatement,
    ShellCommand,
    ShowStatement,
    SkipStatement,
    TextSpan,
    Unsupported,
    VarStatement,
    WhenExpression,
    root_of,
)
from mlld_sdk.transport.javascript import json_text, number_text, well_formed


class Interpreter(Loops):
    """Runs a script. One instance for each request."""

    def run_script(self, script: ParsedScript) -> None:
        """Run all statements; exports are resolved at the end."""
        scope = Scope()
        self._exported: list[tuple[str, TextSpan]] = []
        try:
            for statement in script.statements:
                self.execute(statement, scope)
        except ReturnSignal as signal:
            self._return_text(signal.value)
        for name, span in self._exported:
            self._export_value(name, span, scope)

    def execute(self, node: Any, scope: Scope) -> Value:
        """Do one statement."""
        self.run.step()
        method = self._statements.get(type(node))
        if method is not None:
            return method(self, node, scope)
        return self.branch_value(node, scope) if isinstance(node, Block) else self.evaluate(node, scope)

    def block_value(self, block: Block, scope: Scope) -> Value:
        """Run a block and give what its `=>` gives, or nothing."""
        try:
            for statement in block.statements:
                self.execute(statement, scope)
        except ReturnSignal as signal:
            return signal.value
        return Value("")

    # -- names

    def _place(self, span: TextSpan) -> tuple[str, str]:
        point = self.run.positions.point(span.start)
        path = os.path.abspath(self.run.job.path) if self.run.job.path else ""
        where = f"{path}:{point['line']}:{point['column']}" if path else f"{point['line']}:{point['column']}"
        return where, f" at line {point['line']}, column {point['column']}" + (f" in {path}" if path else "")

    def _var(self, node: VarStatement, scope: Scope) -> Value:
        place, here = self._place(node.span)
        if isinstance(node.value, (ListLiteral, ObjectLiteral)) and not is_constant(node.value):
            # what is put together from other values is put together when somebody asks for it
            labels = Origin(node.labels, node.labels)
            scope.declare(node.name, lambda: self._labelled(self.evaluate(node.value, scope), labels), place, here)
            self.run.record(UNKNOWN)
            return NOTHING
        if isinstance(node.value, Block):
            value = self.block_value(node.value, Scope(scope, calling=scope.calling))
        else:
            value = self._assigned(node.value, scope, node.span)
        if isinstance(value.data, Function):
            value = value._replace(data=value.data._replace(name=node.name))
        value = self._labelled(value, Origin(node.labels, node.labels))
        scope.declare(node.name, value, place, here)
        self.run.record(value.origin)
        return value

    @staticmethod
    def _labelled(value: Value, labels: Origin) -> Value:
        return value._replace(origin=merge(labels, value.origin))

    def _assigned(self, node: Any, scope: Scope, span: TextSpan) -> Value:
        head = root_of(node.source if isinstance(node, PipedValue) else node)
        if isinstance(head, Reference) and self.lookup(head.name, scope) is None:
            point = self.run.positions.point(span.start)
            place = f"line {point['line']}, column {point['column']}"
            raise ScriptFailure(
                f"Directive error (var): Variable not found: {head.name} at {place}",
                "VALIDATION_FAILED",
                "MlldDirectiveError",
            )
        return self.evaluate(node, scope)

    def _let(self, node: LetStatement, scope: Scope) -> Value:
        if isinstance(node.value, Block):
            value = self.block_value(node.value, Scope(scope, calling=scope.calling))
        else:
            value = self._lenient(node.value, scope)
        if not node.augment:
            if scope.is_fixed(node.name):
                raise ScriptFailure(
                    f"Variable '{node.name}' is already defined and cannot be redefined",
                    "VARIABLE_REDEFINITION",
                    "VariableRedefinitionError",
                )
            scope.define(node.name, value)
            return value
        old = scope.find(node.name)
        if old is None:
            raise ScriptFailure(f"Cannot use += on undefined variable @{node.name}.", "E_WHEN_EXPRESSION")
        scope.reassign(node.name, Value(_augmented(old.data, value.data), merge(old.origin, value.origin)))
        return value

    def _exe(self, node: ExeStatement, scope: Scope) -> Value:
        place, here = self._place(node.span)
        function = Function(node.name, node.params, node.labels, node.body, scope)
        scope.declare(node.name, Value(function), place, here)
        return NOTHING

    def _export(self, node: ExportStatement, _: Scope) -> Value:
        self._exported += [(name, node.span) for name in node.names]
        return NOTHING

    def _export_value(self, name: str, span: TextSpan, scope: Scope) -> None:
        value = scope.find(name)
        if value is None:
            return
        operation = {"kind": "var", "identifier": name, "location": self.run.positions.span(span)}
        described = capability("var", value.origin, {"identifier": name}, operation)
        data = f"[executable: {name}]" if isinstance(value.data, Function) else value.data
        metadata = {"capability": described, "security": described["security"]}
        self.run.exports[name] = {"name": name, "value": data, "metadata": metadata}

    def _import(self, node: ImportStatement, scope: Scope) -> Value:
        place, here = self._place(node.span)
        source, origin = self._import_source(node)
        self.run.record(origin)
        if node.alias is not None:
            scope.declare(node.alias, Value(source, origin), place, here)
            return NOTHING
        for name, alias in node.names:
            if name not in source and not self._is_data(node.source):
                raise ScriptFailure(
                    f"Import '{name}' not found in module '{node.source}'", "IMPORT_EXPORT_MISSING", "MlldImportError"
                )
            scope.declare(alias, Value(source.get(name), origin), place, here)
        return NOTHING

    def _is_data(self, source: str) -> bool:
        """Whether values were sent along under this name, and no script text; what is not among them is nothing."""
        if source == "@payload":
            return isinstance(self.run.job.payload, dict)
        return source == "@state" or isinstance(self.run.job.modules.get(source), dict)

    def _import_source(self, node: ImportStatement) -> tuple[dict[str, Any], Origin]:
        if node.source in ("@payload", "@state"):
            value = self.lookup(node.source[1:], Scope())
            if value is not None and isinstance(value.data, str):
                return self._run_module(value.data, node.source), merge(value.origin, self._dynamic(node.source))
            if value is None or not isinstance(value.data, dict):
                raise ScriptFailure(f"No resolver found for: {node.source}", "E_NO_RESOLVER", "MlldResolutionError")
            _refuse_unimportable(value.data, node.source)
            if node.source == "@state":
                return value.data, merge(self._dynamic(node.source), value.origin)
            return value.data, merge(value.origin, self._dynamic(node.source))
        module = self.run.job.modules.get(node.source)
        if isinstance(module, dict):
            _refuse_unimportable(module, node.source)
            return module, self._dynamic(node.source)
        if isinstance(module, str):
            return self._run_module(module, node.source), self._dynamic(node.source)
        return self._run_module(self._module_text(node.source), node.source), UNKNOWN

    def _dynamic(self, name: str) -> Origin:
        """Say where values come from that the host sent along."""
        labels: tuple[str, ...] = ("src:dynamic",)
        if self.run.job.module_label is not None:
            labels += (f"src:{self.run.job.module_label}",)
        return Origin(labels, labels, ("dynamic-module", f"dynamic://{name}"))

    def _module_text(self, source: str) -> str:
        if source.startswith("@"):
            raise UnsupportedConstruct(f"import from '{source}'", 1)
        path = os.path.normpath(os.path.join(self.run.folder, source))
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError as error:
            raise ScriptFailure(f"Import error: File not found: {source}") from error

    def _run_module(self, text: str, source: str) -> dict[str, Any]:
        """Give what a module exports, or all it defines if it says nothing about that; only definitions are run."""
        from mlld_sdk.transport.embedded.language.parser import parse

        try:
            module = parse(text)
        except ScriptParseError as error:
            raise ScriptFailure(f"Syntax error in imported file '{source}': {error.message}") from error
        scope = Scope()
        exports = [statement for statement in module.statements if isinstance(statement, ExportStatement)]
        for statement in module.statements:
            if isinstance(statement, (VarStatement, ExeStatement, ImportStatement)):
                self.execute(statement, scope)
        names = [name for statement in exports for name in statement.names] if exports else scope.own_names()
        found = {name: scope.find(name) for name in names}
        return {name: value.data for name, value in found.items() if value is not None}

    # -- showing and writing

    def _shown(self, node: Any, scope: Scope) -> Value:
        value = self.evaluate(node, scope)
        self.run.record(value.origin)
        return value

    def _show(self, node: ShowStatement, scope: Scope) -> Value:
        value = self._shown(node.value, scope) if not _is_plain(node.value) else self.evaluate(node.value, scope)
        text = shown_text(value)
        streamed = isinstance(node.value, FunctionCall) and self._streams(node.value.name, scope)
        if not streamed:
            self.run.effect("both", text if text.endswith("\n") else text + "\n", node.span)
        self.run.record(Origin(sources=("show",)))
        return value

    def _streams(self, name: str, scope: Scope) -> bool:
        target = scope.find(name)
        return (
            target is not None
            and isinstance(target.data, Function)
            and isinstance(target.data.body, ShellCommand)
            and target.data.body.stream
        )

    def _run(self, node: RunStatement, scope: Scope) -> Value:
        body = node.body
        if isinstance(body, Unsupported):
            raise UnsupportedConstruct(body.construct, self.run.positions.point(body.span.start)["line"])
        source = ""
        if isinstance(body, ShellCommand):
            value, source = self.shell_statement(body, scope)
        elif isinstance(body, FunctionCall):
            target = scope.find(body.name)
            if target is None or not isinstance(target.data, Function):
                raise ScriptFailure(f"Executable variable not found: {body.name}")
            values = [self._argument(arg, body.name, scope) for arg in body.args]
            value = self.call(target.data, body.name, values, body.span, scope)
        else:
            value = self.evaluate(body, scope)
        self.run.record(value.origin)
        text = page_text(value.data if value.text is None else value.text)
        if text:
            self.run.effect("both", text if text.endswith("\n") else text + "\n")
        if source:
            self.run.record(Origin(sources=(source,)))
        return value

    def _log(self, node: LogStatement, scope: Scope) -> Value:
        value = self._output_value(node.value, scope)
        if not _is_plain(node.value):
            self.run.record(value.origin)
        text = written_text(value)
        self.run.effect("stderr", text if text.endswith("\n") else text + "\n")
        self.run.record(Origin(sources=("log",)))
        return value

    def _output(self, node: OutputStatement, scope: Scope) -> Value:
        value = self._output_value(node.value, scope)
        if value.origin:
            self.run.record(value.origin)
        if node.kind == "state":
            self.run.write_state(str(node.target.parts[0]), value)
        elif node.kind in ("stdout", "stderr"):
            text = written_text(value)
            self.run.effect(node.kind, text if text.endswith("\n") else text + "\n")
        elif node.kind == "append":
            self._append_to(node, value, scope)
        else:
            path = self.path(node.target, scope)
            text = written_text(value)
            _write_file(path, text, "w")
            metadata = {"targetType": "file", "directive": "output", "suppressDefaultHostEffectWrite": False}
            self.run.effect("file", text, node.span, path=path, mode="write", metadata=metadata)
        self.run.record(Origin(sources=("append" if node.kind == "append" else "output",)))
        return value

    def _output_value(self, node: Any, scope: Scope) -> Value:
        if isinstance(node, Reference) and self.lookup(node.name, scope) is None:
            inner = f"Output error (unknown): Variable {node.name} not found"
            raise ScriptFailure(
                f"Output error (unknown): Failed to process output: {inner}",
                "OUTPUT_GENERATION_FAILED",
                "MlldOutputError",
            )
        if isinstance(node, FunctionCall):
            return self.call_by_name(node.name, node.args, None, scope)
        return self.evaluate(node, scope)

    def _append_to(self, node: OutputStatement, value: Value, scope: Scope) -> None:
        path = self.path(node.target, scope)
        as_rows = path.endswith(".jsonl")
        text = json_text(value.data) if as_rows else written_text(value)
        text = text if text.endswith("\n") else text + "\n"
        _write_file(path, text, "a")
        metadata = {
            "format": "jsonl" if as_rows else "text",
            "directive": "append",
            "suppressDefaultHostEffectWrite": False,
        }
        self.run.effect("file", text, node.span, path=path, mode="append", metadata=metadata)

    # -- control

    def _when(self, node: WhenExpression, scope: Scope) -> Value:
        action = self.choose(node, scope)
        if isinstance(action, Block):
            inner = Scope(scope)
            for statement in action.statements:
                self.execute(statement, inner)
            return NOTHING
        if scope.returns and (given := _given_by(action)) is not None:
            value = self.evaluate(given, scope)
            if value.data is not None:
                raise ReturnSignal(value)
            return NOTHING
        if isinstance(action, SayStatement):
            if scope.outer is None:
                self._show(ShowStatement(action.value, action.span), scope)
            return NOTHING
        return NOTHING if action is None else self.execute(action, scope)

    def _if(self, node: IfStatement, scope: Scope) -> Value:
        chosen = node.yes if is_truthy(self._lenient(node.condition, scope).data) else node.no
        if isinstance(chosen, IfStatement):
            return self._if(chosen, scope)
        if chosen is not None:
            inner = Scope(scope)
            for statement in chosen.statements:
                self.execute(statement, inner)
        return NOTHING

    def _for(self, node: ForLoop, scope: Scope) -> Value:
        self.run_for(node, scope)
        return NOTHING

    def _loop(self, node: RepeatLoop, scope: Scope) -> Value:
        return self.run_loop(node, scope)

    def _bail(self, node: BailStatement, scope: Scope) -> Value:
        if node.message is None:
            raise ScriptBailed("Script terminated by bail directive.")
        raise ScriptBailed(self.text(node.message, scope)[0])

    def _return(self, node: ReturnStatement, scope: Scope) -> Value:
        value = self._lenient(node.value, scope)
        raise ReturnSignal(Value("") if value is NOTHING else value)

    def _continue(self, node: ContinueStatement, scope: Scope) -> Value:
        raise RoundSignal(self.evaluate(node.value, scope), done=False)

    def _skip(self, node: SkipStatement, scope: Scope) -> Value:
        """Do nothing: outside of a value there is no item to leave out."""
        del node, scope
        return NOTHING

    def _done(self, node: DoneStatement, scope: Scope) -> Value:
        raise RoundSignal(self.evaluate(node.value, scope), done=True)

    def _checkpoint(self, node: CheckpointStatement, scope: Scope) -> Value:
        name, _ = self.text(node.name, scope)
        if not name.strip():
            raise ScriptFailure("checkpoint directive requires a non-empty name")
        self.memory.name_checkpoint(name.strip())
        return NOTHING

    def _return_text(self, value: Value) -> None:
        self.run.record(value.origin) if value.origin else None
        text = shown_text(value)
        if text:
            self.run.effect("both", text)

    _statements: ClassVar[dict[type, Callable[[Any, Any, Scope], Value]]] = {
        VarStatement: _var,
        LetStatement: _let,
        ExeStatement: _exe,
        ExportStatement: _export,
        ImportStatement: _import,
        ShowStatement: _show,
        RunStatement: _run,
        LogStatement: _log,
        OutputStatement: _output,
        WhenExpression: _when,
        IfStatement: _if,
        ForLoop: _for,
        RepeatLoop: _loop,
        BailStatement: _bail,
        ReturnStatement: _return,
        ContinueStatement: _continue,
        DoneStatement: _done,
        SkipStatement: _skip,
        CheckpointStatement: _checkpoint,
    }


def shown_text(value: Value) -> str:
    """Print what `show` shows; a text that is JSON is printed as such."""
    data = value.data if value.text is None else value.text
    if isinstance(data, Function):
        return f"[executable: {data.name}]"
    if isinstance(data, str) and data.strip()[:1] in ("{", "["):
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError):
            return data
        return pretty_json(parsed)
    return page_text(data)


def written_text(value: Value) -> str:
    """Print what `output` and `log` write: containers always over several lines."""
    data = value.data if value.text is None else value.text
    return json_text(data, indent=2) if isinstance(data, (list, dict)) else page_text(data)


def _given_by(action: Any) -> Any:
    """Find the value that an action of a `when` gives to a function: a text or a call, but not a command."""
    if isinstance(action, SayStatement):
        return action.value
    return action.body if isinstance(action, RunStatement) and not isinstance(action.body, ShellCommand) else None


def _is_plain(node: Any) -> bool:
    return isinstance(node, Literal)


def is_constant(node: Any) -> bool:
    """Say whether an expression needs nothing but itself."""
    if isinstance(node, ListLiteral):
        return all(is_constant(item) for item in node.items)
    if isinstance(node, ObjectLiteral):
        return all(key is not None and is_constant(item) for key, item in node.entries)
    return isinstance(node, Literal)


def _augmented(old: Any, new: Any) -> Any:
    if isinstance(old, list):
        return [*old, *(new if isinstance(new, list) else [new])]
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **new}
    if is_number(old) and is_number(new):
        return old + new
    raise ScriptFailure(
        "+= needs two lists, two texts, two objects or two numbers", "VALIDATION_FAILED", "MlldDirectiveError"
    )


def _write_file(path: str, text: str, mode: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, mode, encoding="utf-8", newline="") as file:
            file.write(well_formed(text))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ScriptFailure(
            f"Output error (unknown): Failed to process output: {reason}: {path}",
            "OUTPUT_GENERATION_FAILED",
            "MlldOutputError",
        ) from error


def _refuse_unimportable(data: dict[str, Any], source: str) -> None:
    """Refuse what the real engine cannot import, since it writes the values as `var` statements and reads those."""
    for name in data:
        if not (name[:1] in LETTERS and name and not set(name) - WORD - {"-"}) or name.endswith("-"):
            raise ScriptFailure(f"Failed to parse imported file '{source}': {name!r} is no name of a variable")
    if (number := _with_exponent(data)) is not None:
        raise ScriptFailure(f"Syntax error in imported file '{source}' at line 1: {number_text(number)}")


def _with_exponent(data: Any) -> float | None:
    """Find a number that prints with an exponent, which the language has no numbers with."""
    if is_number(data):
        return data if "e" in number_text(data) else None
    items = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return next((found for item in items if (found := _with_exponent(item)) is not None), None)
