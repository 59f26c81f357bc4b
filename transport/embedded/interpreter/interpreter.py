"""Runs a parsed script: puts the parts of the interpreter together and does the statements in order."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlld_sdk.transport.embedded.interpreter.compounds import Compounds
from mlld_sdk.transport.embedded.interpreter.context import ReturnSignal, ScriptContext
from mlld_sdk.transport.embedded.interpreter.expressions import Expressions
from mlld_sdk.transport.embedded.interpreter.functions import Functions
from mlld_sdk.transport.embedded.interpreter.modules import Modules
from mlld_sdk.transport.embedded.interpreter.scope import Scope
from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRun
from mlld_sdk.transport.embedded.interpreter.shells import Shells
from mlld_sdk.transport.embedded.interpreter.statements import Statements
from mlld_sdk.transport.embedded.language.syntax import Literal, ParsedScript, is_simple

if TYPE_CHECKING:
    from mlld_sdk.transport.embedded.interpreter.checkpoints import CheckpointMemory


def run_script(
    script: ParsedScript, run: ScriptRun, open_memory: Callable[[], "CheckpointMemory"], *, announces: bool
) -> None:
    """Run all statements of a script.

    Args:
        script: What to run.
        run: Collects what the script does, and stops it.
        open_memory: Makes the script's view of the checkpoint cache; called at the first use.
        announces: Report hits and misses of the cache as events.
    """
    context = ScriptContext(run, open_memory)
    shells = Shells(context)
    functions = Functions(context, shells, announces=announces)
    statements = Statements(context, functions, shells)
    modules = Modules(context)
    Expressions(context)
    Compounds(context)
    if run.request.plan.prepares():
        context.memory.prepare(_checkpoint_names(script))
    run.step()
    scope = Scope()
    try:
        for statement in script.statements:
            context.execute(statement, scope)
    except ReturnSignal as signal:
        statements.finish(signal.value)
    modules.finish(scope)


def _checkpoint_names(script: ParsedScript) -> list[str]:
    """Return the names of a script's checkpoints in order."""
    return [
        str(statement.value.data)
        for statement in script.statements
        if is_simple(statement, "checkpoint") and isinstance(statement.value, Literal)
    ]
