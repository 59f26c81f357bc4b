"""Compare every asynchronous twin with what it is a twin of: the same calls, the same parameters, the same answers.

python tests/types/twins.py        # fails and lists what differs
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from mlld_sdk.agents.handles import AgentHandle, AsyncAgentHandle
from mlld_sdk.client import functions
from mlld_sdk.client.aio import AsyncClient, AsyncExecuteHandle, AsyncProcessHandle
from mlld_sdk.client.client import Client
from mlld_sdk.client.handles import ExecuteHandle, ProcessHandle
from mlld_sdk.runs.async_job import AsyncJob
from mlld_sdk.runs.job import Job

TWINS: list[tuple[Any, Any]] = [
    (Client, AsyncClient),
    (ProcessHandle, AsyncProcessHandle),
    (ExecuteHandle, AsyncExecuteHandle),
    (AgentHandle, AsyncAgentHandle),
    (Job, AsyncJob),
    (Client, functions),
]
ON_PURPOSE = {
    "AsyncJob.map": "its functions are coroutines",
    "AsyncJob.step": "its function is a coroutine",
    "AsyncProcessHandle.full_result": "whoever awaits takes a timeout from asyncio",
    "AsyncProcessHandle.result": "the same",
    "AsyncExecuteHandle.result": "the same",
}


def differences() -> Iterator[str]:
    """List the calls of twins whose parameters or answers differ."""
    for original, twin in TWINS:
        for name, member in inspect.getmembers(twin, inspect.isfunction):
            model = getattr(original, name, None)
            known = f"{twin.__name__.rpartition('.')[2]}.{name}"
            if member.__code__.co_name != name:
                continue  # made from the original, with its signature
            if not name.startswith("_") and inspect.isfunction(model) and known not in ON_PURPOSE:
                ours, theirs = written(member), written(model)
                if any(ours.get(word, "") and theirs.get(word, "") not in ("", ours[word]) for word in ours | theirs):
                    yield f"{known} is not typed as {original.__name__}.{name}: {ours} and {theirs}"
                if ours.keys() != theirs.keys():
                    yield f"{known} does not take what {original.__name__}.{name} takes: {ours.keys() ^ theirs.keys()}"


def written(function: Any) -> dict[str, str]:
    """Return parameters and answer as they stand in the source, those of a typed dictionary by their names."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    found = {"return": plain(node.returns)}
    for parameter in [*node.args.args, *node.args.kwonlyargs, *([node.args.vararg] if node.args.vararg else [])]:
        if parameter.arg != "self":
            found[parameter.arg] = plain(parameter.annotation)
    if node.args.kwarg is not None:
        options = re.fullmatch(r"Unpack\[(\w+)\]", plain(node.args.kwarg.annotation))
        assert options is not None, f"{function.__qualname__} takes options without types"
        found |= dict.fromkeys(sys.modules[function.__module__].__dict__[options[1]].__annotations__, "")
    return found


def plain(annotation: ast.expr | None) -> str:
    """Write an annotation without quotes and without the `Async` of twins."""
    return re.sub(r"\bAsync(?=[A-Z])|['\"]", "", ast.unparse(annotation)) if annotation is not None else ""


if __name__ == "__main__":
    sys.exit("\n".join(differences()) or None)
