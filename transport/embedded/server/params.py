"""Reading the parameters of requests; what is wrong with them is told in the words the real engine uses."""

import os
from typing import TYPE_CHECKING, Any, Final, Literal

from mlld_sdk.transport.embedded.errors import ScriptFailure, invalid_request
from mlld_sdk.transport.embedded.interpreter.script_run import ABSENT, CachePlan, ScriptRequest
from mlld_sdk.transport.javascript import json_text

if TYPE_CHECKING:
    from mlld_sdk.transport.checkpoint_cache import Selector

MAX_TIMEOUT_MS = 2147483647
MAX_DEPTH = 10
MAX_ITEMS = 1000
MAX_NODES = 10_000
MAX_BYTES = 1 << 20
ON_COMMAND_FAILURE: Final = "onCommandFailure"


def is_id(value: Any) -> bool:
    """Return whether a value can be a request's id."""
    return isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool))


def id_key(value: Any) -> Any:
    """Return a key that tells `1` from `"1"`."""
    return ("text", value) if isinstance(value, str) else ("number", float(value))


def process_request(params: Any) -> ScriptRequest:
    """Read the parameters of `process`."""
    if isinstance(params, str):
        params = {"script": params}
    if not isinstance(params, dict):
        raise ScriptFailure("process params must be a script string or object")
    script, path = params.get("script"), params.get("filePath")
    if not isinstance(script, str):
        raise ScriptFailure("process params.script must be a string")
    return execute_request(params, script, path if isinstance(path, str) else None)


def execute_path(params: Any) -> str:
    """Return which file `execute` is to run."""
    if not isinstance(params, dict):
        raise ScriptFailure("execute params must be an object")
    path = params.get("filepath")
    if not isinstance(path, str):
        raise ScriptFailure("execute params.filepath must be a string")
    return path


def execute_request(params: dict[str, Any], script: str, path: str | None) -> ScriptRequest:
    """Read the parameters that come with a script."""
    payload = params.get("payload", ABSENT)
    if payload is not ABSENT and not isinstance(payload, (str, dict)):
        raise ScriptFailure("Dynamic module '@payload' must be string or plain object", name="TypeError")
    state, modules, source = (params.get(name) for name in ("state", "dynamicModules", "dynamicModuleSource"))
    for name, data in (("@payload", payload), ("@state", state)):
        if isinstance(data, dict):
            check_size(name, data)
    modules = modules if isinstance(modules, dict) else {}
    return ScriptRequest(
        script=script,
        path=path,
        payload=payload,
        payload_labels=_payload_labels(params.get("payloadLabels"), payload),
        state=state if isinstance(state, dict) else None,
        modules={name: module for name, module in modules.items() if isinstance(module, (str, dict))},
        module_label=source if isinstance(source, str) and source else None,
    )


def control_target(method: str, params: Any) -> tuple[Any, str]:
    """Return which request `state:update` or `file:write` is about, and the path it names; refuse what lacks either."""
    if not isinstance(params, dict):
        raise invalid_request(f"{method} params must be an object")
    if not is_id(params.get("requestId")):
        raise invalid_request(f"{method} params.requestId must be a string or number")
    path = params.get("path")
    if not isinstance(path, str) or not path.strip():
        raise invalid_request(f"{method} params.path must be a non-empty string")
    if method == "file:write" and not isinstance(params.get("content"), str):
        raise invalid_request(f"{method} params.content must be a string")
    return params["requestId"], path.strip()


def _payload_labels(raw: Any, payload: Any) -> dict[str, list[str]]:
    if not isinstance(raw, dict) or not isinstance(payload, dict):
        return {}
    found: dict[str, list[str]] = {}
    for name, labels in raw.items():
        if name in payload and isinstance(labels, list):
            clean = dict.fromkeys(label.strip() for label in labels if isinstance(label, str) and label.strip())
            if clean:
                found[name] = list(clean)
    return found


def check_size(name: str, data: Any) -> None:
    """Refuse what the real engine refuses to take in as data."""

    def refuse(what: str) -> ScriptFailure:
        return ScriptFailure(f"Dynamic module '{name}' {what}", name="TypeError")

    nodes = 0
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            nodes += 1
            if isinstance(item, dict):
                if len(item) > MAX_ITEMS:
                    raise refuse(f"object exceeds maximum keys ({MAX_ITEMS})")
                below.extend(item.values())
            elif isinstance(item, list):
                if len(item) > MAX_ITEMS:
                    raise refuse(f"array exceeds maximum length ({MAX_ITEMS})")
                below.extend(item)
        level = below
    if level:
        raise refuse(f"exceeds maximum depth ({MAX_DEPTH})")
    if nodes > MAX_NODES:
        raise refuse(f"exceeds maximum node count ({MAX_NODES})")
    if len(json_text(data).encode("utf-8", "replace")) > MAX_BYTES:
        raise refuse(f"exceeds maximum serialized size ({MAX_BYTES} bytes)")


def is_markdown(params: Any, path: str | None, *, execute: bool) -> bool:
    """Return whether a script would be read in markdown mode, which this engine does not have."""
    mode = params.get("mode") if isinstance(params, dict) else None
    if mode in ("strict", "markdown"):
        return bool(mode == "markdown")
    if path is None or path.endswith(".mld"):
        return False
    if path.endswith((".mld.md", ".md")):
        return True
    return not execute


def timeout_of(params: Any, *, extended: bool, execute: bool) -> float | None:
    """Read `timeoutMs` as seconds; 0 means: at once.

    Raises:
        RequestError: In the extended protocol, for anything but a positive number (XP-24).
    """
    raw = params.get("timeoutMs") if isinstance(params, dict) else None
    if extended:
        if raw is None:
            return None
        if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not 0 < raw <= MAX_TIMEOUT_MS:
            raise invalid_request(f"timeoutMs must be a positive number of at most {MAX_TIMEOUT_MS}")
        return raw / 1000
    if not execute or isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    return raw / 1000 if 1 <= raw <= MAX_TIMEOUT_MS else 0.0


def confined(params: Any) -> bool:
    """Return whether the script has to stay in its project (XP-37)."""
    return isinstance(params, dict) and params.get("allowAbsolutePaths") is False


def unanswered(params: Any) -> Literal["tell", "fail"]:
    """Read what is to come of a command that fails in an `llm` function (XP-32).

    Raises:
        RequestError: For anything but `tell` or `fail`.
    """
    asked = params.get(ON_COMMAND_FAILURE) if isinstance(params, dict) else None
    if asked is None or asked == "tell":
        return "tell"
    if asked == "fail":
        return "fail"
    raise invalid_request(f"{ON_COMMAND_FAILURE} must be 'tell' or 'fail'")


def cache_plan(params: Any, path: str | None) -> CachePlan:
    """Read the checkpoint parameters of the extended protocol (XP-12 to XP-18).

    Raises:
        RequestError: For a value of the wrong type or a contradiction.
    """
    if not isinstance(params, dict):
        return CachePlan()
    checkpoint, off, fresh = (_flag(params, name) for name in ("checkpoint", "noCheckpoint", "fresh"))
    root, name, fork = (_text(params, name) for name in ("checkpointRoot", "checkpointName", "fork"))
    resume = params.get("resume")
    if resume is not None and not isinstance(resume, (bool, str)):
        raise invalid_request("resume must be true, false or a selector")
    drop = _selector(resume) if isinstance(resume, str) else None
    off = off or checkpoint is False
    given = {
        "checkpoint: true": checkpoint,
        "fresh": fresh,
        "resume": resume is not None and resume is not False,
        "fork": fork is not None,
    }
    wanted = next((what for what, is_given in given.items() if is_given), None)
    if off and wanted:
        raise invalid_request(f"checkpointing cannot be off together with {wanted}")
    if wanted and path is None and name is None:
        raise invalid_request(f"{wanted} needs filePath or checkpointName: there is no cache without a name")
    return CachePlan(
        root=os.path.abspath(root) if root is not None else None,
        name=name,
        use=False if off else True if wanted else None,
        fresh=fresh is True,
        fork=fork,
        drop=drop,
    )


def _flag(params: dict[str, Any], name: str) -> bool | None:
    value = params.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise invalid_request(f"{name} must be true or false")


def _text(params: dict[str, Any], name: str) -> str | None:
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise invalid_request(f"{name} must be a non-empty string")
    if name != "checkpointRoot" and ("/" in value or value in (".", "..")):
        raise invalid_request(f"{name} must be a plain name without '/'")
    return value


def _selector(text: str) -> "Selector":
    from mlld_sdk.transport.checkpoint_cache import SelectorError, parse_selector

    try:
        return parse_selector(text)
    except SelectorError as error:
        raise invalid_request(f"resume: {error}") from error
