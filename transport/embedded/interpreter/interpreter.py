"""Runs a parsed script: puts the parts of the interpreter together and does the statements in order."""

from mlld_sdk.transport.embedded.interpreter.checkpoints import CheckpointMemory
from mlld_sdk.transport.embedded.interpreter.compounds import Compounds
from mlld_sdk.transport.embedded.interpreter.context import ReturnSignal, ScriptContext
from mlld_sdk.transport.embedded.interpreter.expressions import Expressions
from mlld_sdk.transport.embedded.interpreter.functions import Functions
from mlld_sdk.transport.embedded.interpreter.modules import Modules
from mlld_sdk.transport.embedded.interpreter.scope import Scope
from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRun
from mlld_sdk.transport.embedded.interpreter.shells import Shells
from mlld_sdk.transport.embedded.interpreter.statements import Statements
from mlld_sdk.transport.embedded.language.syntax import ParsedScript


def run_script(script: ParsedScript, run: ScriptRun, memory: CheckpointMemory, *, announces: bool) -> None:
    """Run all statements of a script.

    Args:
        script: What to run.
        run: Collects what the script does, and stops it.
        memory: The checkpoint cache.
        announces: Report hits and misses of the cache as events.
    """
    context = ScriptContext(run, memory)
    shells = Shells(context)
    functions = Functions(context, shells, announces=announces)
    statements = Statements(context, functions, shells)
    modules = Modules(context)
    Expressions(context)
    Compounds(context)
    scope = Scope()
    try:
        for statement in script.statements:
            context.execute(statement, scope)
    except ReturnSignal as signal:
        statements.finish(signal.value)
    modules.finish(scope)
