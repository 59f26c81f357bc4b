"""From a call's options to the parameters on the wire: checked, and named as the engine names them."""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal, TypedDict

from mlld_sdk.base.durations import seconds
from mlld_sdk.base.errors import InvalidOption, InvalidRequest
from mlld_sdk.base.options import truth, unknown
from mlld_sdk.scripts.labels import refuse_labels, split_labels

ON_COMMAND_FAILURE: Final = ("tell", "fail")
"""What can come of a command that fails inside an `llm` function."""


class RunOptions(TypedDict, total=False):
    """What `process` and `execute` take besides the script and the payload.

    Attributes:
        payload_labels: More labels for payload fields, by field.
        state: Seen as `@state`; needed for `update_state`.
        dynamic_modules: Modules by import name: script text, or a dict of values.
        dynamic_module_source: Taints what is imported from them with `src:<value>`.
        dynamic_module_mode: How their text is parsed, `strict` or `markdown`.
        mode: How the script is parsed, `strict` or `markdown`; without it the engine goes by the file's suffix.
        allow_absolute_paths: `False` keeps what scripts read and write in the project, on the embedded engine alone:
            mlld 2.0.5 takes the option and ignores it.
        mcp_servers: Commands of MCP servers by the name under which scripts import their tools.
        trace: Level of the runtime trace: `off`, `handle`, `effects` or `verbose` (engines from 2.1.0 on).
        trace_memory: Adds memory samples to it.
        trace_file: Writes it to a file as JSON lines.
        trace_stderr: Copies it to the engine's stderr.
        checkpoint: Store answers of `llm` functions and serve stored ones (`False`: neither).
        fresh: Forget this script's stored answers first.
        resume: Serve stored answers, but for those named: `True`, `"@fn"`, `"@fn:1"`, `'@fn("prefix")'`, `"name"`.
        fork: Start from the stored answers of another script.
        checkpoint_name: Name of the store, instead of the script's.
        checkpoint_root: Directory of the stores, instead of `.mlld/checkpoints` below the working directory.
        on_command_failure: What comes of a command that fails inside an `llm` function: `tell` (an event and a warning;
            its output is the value, as mlld has it), or `fail` (the call raises `CommandFailed`; not on live engines).
        timeout: Seconds from now until the answer. Left out: the client's. `None`: no deadline at all.
        strict: Raise when the engine cut something out of the result. Left out: what the client was made with.
    """

    payload_labels: Mapping[str, Iterable[str]] | None
    state: Mapping[str, Any] | None
    dynamic_modules: Mapping[str, Any] | None
    dynamic_module_source: str | None
    dynamic_module_mode: str | None
    mode: str | None
    allow_absolute_paths: bool | None
    mcp_servers: Mapping[str, str] | None
    trace: str | None
    trace_memory: bool | None
    trace_file: str | None
    trace_stderr: bool | None
    checkpoint: bool | None
    fresh: bool | None
    resume: bool | str | None
    fork: str | None
    checkpoint_name: str | None
    checkpoint_root: str | None
    on_command_failure: Literal["tell", "fail"] | None
    timeout: float | timedelta | None
    strict: bool


def process_params(
    script: str, file_path: str | os.PathLike[str] | None, payload: Any, options: RunOptions
) -> dict[str, Any]:
    """Build the parameters of `process`, or raise `InvalidRequest`."""
    params: dict[str, Any] = {"script": a_text("script", script), "recordEffects": True}
    if file_path is not None:
        params["filePath"] = _path("file_path", file_path)
    if options or payload is not None:
        params |= _run_params("process", payload, options)
    return params


def execute_params(filepath: str | os.PathLike[str], payload: Any, options: RunOptions) -> dict[str, Any]:
    """Build the parameters of `execute`, or raise `InvalidRequest`."""
    params: dict[str, Any] = {"filepath": _path("filepath", filepath), "recordEffects": True}
    if options or payload is not None:
        params |= _run_params("execute", payload, options)
    return params


def a_text(name: str, value: object, *, blank: bool = True) -> str:
    """Return a text, or raise `InvalidOption` for anything else, and for only blanks where those mean nothing."""
    if not isinstance(value, str) or not (blank or value.strip()):
        raise InvalidOption(name, value, "text" if blank else "non-blank text")
    return value


def _path(name: str, value: str | os.PathLike[str]) -> str:
    try:
        return os.fsdecode(value)
    except TypeError:
        raise InvalidOption(name, value, "a path") from None


def only_given(**params: Any) -> dict[str, Any]:
    """Leave out the parameters that are `None`: the engine tells absent from null."""
    return {name: value for name, value in params.items() if value is not None}


def _one_of(*allowed: str) -> Callable[[Any], str | None]:
    text = "one of " + ", ".join(map(repr, allowed))
    return lambda value: None if isinstance(value, str) and value in allowed else text


def _a(kind: type | tuple[type, ...], text: str) -> Callable[[Any], str | None]:
    return lambda value: None if isinstance(value, kind) else text


def _by_name(kinds: tuple[type, ...], text: str) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        fits = isinstance(value, Mapping) and all(
            isinstance(name, str) and isinstance(item, kinds) for name, item in value.items()
        )
        return None if fits else text

    return check


_TEXT, _BOOL, _MODE = _a(str, "text"), _a(bool, "True or False"), _one_of("strict", "markdown")

_OPTIONS: dict[str, tuple[str, Callable[[Any], str | None]]] = {
    "state": ("state", _a(Mapping, "a dict")),
    "dynamic_modules": ("dynamicModules", _by_name((str, Mapping), "a dict of names to script text or dicts")),
    "dynamic_module_source": ("dynamicModuleSource", _TEXT),
    "dynamic_module_mode": ("dynamicModuleMode", _MODE),
    "mode": ("mode", _MODE),
    "allow_absolute_paths": ("allowAbsolutePaths", _BOOL),
    "mcp_servers": ("mcpServers", _by_name((str,), "a dict of names to commands")),
    "trace": ("trace", _one_of("off", "handle", "effects", "verbose")),
    "trace_memory": ("traceMemory", _BOOL),
    "trace_file": ("traceFile", _TEXT),
    "trace_stderr": ("traceStderr", _BOOL),
    "checkpoint": ("checkpoint", _BOOL),
    "fresh": ("fresh", _BOOL),
    "resume": ("resume", _a((bool, str), "True, False or text")),
    "fork": ("fork", _TEXT),
    "checkpoint_name": ("checkpointName", _TEXT),
    "checkpoint_root": ("checkpointRoot", _TEXT),
    "on_command_failure": ("onCommandFailure", _one_of(*ON_COMMAND_FAILURE)),
}

CHECKPOINT_OPTIONS = frozenset({"checkpoint", "fresh", "resume", "fork", "checkpoint_name", "checkpoint_root"})
CHECKPOINT_PARAMS = frozenset({"checkpoint", "fresh", "resume", "fork", "checkpointName", "checkpointRoot"})
"""Wire names of the parameters about stored answers of model calls."""

_ELSEWHERE: dict[str, Callable[[Any], object]] = {
    "payload_labels": lambda _: None,
    "timeout": seconds,
    "strict": partial(truth, "strict"),
}
"""Options that are no parameters of the engine, and what refuses wrong values of them."""


def _run_params(method: str, payload: Any, options: RunOptions) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, value in dict[str, Any](options).items():
        if name in _ELSEWHERE:
            _ELSEWHERE[name](value)
            continue
        if name not in _OPTIONS:
            raise unknown(name, value, RunOptions.__annotations__, f"options of {method}")
        wire_name, check = _OPTIONS[name]
        if value is None:
            continue
        if wanted := check(value):
            raise InvalidOption(name, value, wanted)
        params[wire_name] = value
    try:
        refuse_labels(options.get("state"), "state")
        payload, labels = split_labels(payload, options.get("payload_labels"))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(str(error)) from error
    if payload is not None:
        if not isinstance(payload, str | dict):
            raise InvalidRequest(f"payload must be text or a dict, got {type(payload).__name__}")
        params["payload"] = payload
    if labels is not None:
        params["payloadLabels"] = labels
    return params
