"""`analyze`: what a script defines, without running it."""

import os
from typing import Any

from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.language import syntax
from mlld_sdk.transport.embedded.language.parser import parse
from mlld_sdk.transport.embedded.language.syntax import ExeStatement, Unsupported, VarStatement


def analyze(params: Any) -> dict[str, Any]:
    """Answer an `analyze` request; a file that is missing or broken is an answer, not an error."""
    if isinstance(params, str):
        params = {"filepath": params}
    if not isinstance(params, dict):
        raise ScriptFailure("analyze params must be a filepath string or object")
    if not isinstance(params.get("filepath"), str):
        raise ScriptFailure("analyze params.filepath must be a string")
    path = os.path.abspath(params["filepath"])
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read()
    except IsADirectoryError:
        return _failed(path, "FILE_NOT_FOUND", "Cannot read file: EISDIR: illegal operation on a directory, read")
    except FileNotFoundError:
        reason = f"ENOENT: no such file or directory, open '{path}'"
        return _failed(path, "FILE_NOT_FOUND", f"Cannot read file: {reason}")
    except OSError as error:
        return _failed(path, "FILE_NOT_FOUND", f"Cannot read file: {error.strerror}, open '{path}'")
    try:
        script = parse(text, lenient=True)
    except ScriptFailure as error:
        return _failed(path, error.code, error.message)
    return _described(path, text, script)


def _failed(path: str, code: str, message: str) -> dict[str, Any]:
    return _answer(path, [{"code": code, "message": message}], {}, 0, 0)


def _answer(
    path: str, errors: list[Any], found: dict[str, list[Any]], lines: int, directives: int, front: Any = None
) -> dict[str, Any]:
    lists = {name: found.get(name, []) for name in ("exports", "executables", "guards", "imports", "variables")}
    counts = {name: len(lists[name]) for name in ("executables", "guards", "imports", "exports")}
    return {
        "filepath": path,
        "valid": not errors,
        "errors": errors,
        "warnings": [],
        **({"frontmatter": front} if front else {}),
        **lists,
        "stats": {"lines": lines, "directives": directives, **counts},
    }


def _described(path: str, text: str, script: syntax.ParsedScript) -> dict[str, Any]:
    nodes = script.statements
    exports = [f"@{name}" for node in nodes if isinstance(node, syntax.ExportStatement) for name in node.names]
    executables = [_executable(node) for node in nodes if isinstance(node, ExeStatement)]
    labels = {entry["name"]: entry["labels"] for entry in executables if entry["labels"]}
    variables = [_variable(node, exports, labels) for node in nodes if isinstance(node, (VarStatement, ExeStatement))]
    found: dict[str, list[Any]] = {
        "exports": exports,
        "executables": executables,
        "guards": [_guard(node) for node in nodes if isinstance(node, Unsupported) and node.construct == "guard"],
        "imports": [_import(node) for node in nodes if isinstance(node, syntax.ImportStatement)],
        "variables": variables,
    }
    defined = {entry["name"] for entry in variables}
    errors = [
        {"code": "EXPORT_NOT_FOUND", "message": f"Exported '{name}' is not defined in the module"}
        for name in exports
        if name not in defined
    ]
    front = None if script.frontmatter is None else read_frontmatter(script.frontmatter)
    return _answer(path, errors, found, text.count("\n") + 1, len(nodes), front)


def _executable(node: ExeStatement) -> dict[str, Any]:
    return {
        "name": f"@{node.name}",
        "params": list(node.params),
        "labels": list(node.labels),
        "language": _language(node.body),
    }


def _language(body: Any) -> str:
    if isinstance(body, syntax.ShellCommand):
        return body.language
    return str(body.facts.get("language", "template")) if isinstance(body, Unsupported) else "template"


def _variable(node: VarStatement | ExeStatement, exports: list[str], labels: dict[str, list[str]]) -> dict[str, Any]:
    name = f"@{node.name}"
    entry: dict[str, Any] = {"name": name, "exported": name in exports}
    if isinstance(node, ExeStatement):
        entry["type"] = "executable"
        if name in labels:
            # the very list of the executable, so that a copy with losses marks it as seen
            entry["labels"] = labels[name]
        return entry
    entry["type"] = _kind(node.value)
    if node.labels:
        entry["labels"] = [*node.labels, *node.labels]
    return entry


def _kind(value: Any) -> str:
    if isinstance(value, syntax.ListLiteral):
        return "array"
    if isinstance(value, syntax.ObjectLiteral):
        return "object"
    if isinstance(value, syntax.Template) or (isinstance(value, syntax.Literal) and value.data is not None):
        return "primitive"
    return "unknown"


def _guard(node: Unsupported) -> dict[str, Any]:
    facts = {"timing": node.facts.get("timing", "before"), "filter": node.facts.get("filter", "")}
    return {"name": node.facts["name"], **facts} if node.facts.get("name") else facts


def _import(node: syntax.ImportStatement) -> dict[str, Any]:
    entry: dict[str, Any] = {"source": node.source, "type": "module", "names": [f"@{name}" for name, _ in node.names]}
    if node.alias is not None:
        entry["alias"] = f"@{node.alias}"
    return entry


def read_frontmatter(text: str) -> dict[str, Any]:
    """Read the simple YAML of a script's head: nested keys and lists of texts; every scalar stays a text."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    value, _ = _yaml_block(lines, 0, _indent(lines[0]) if lines else 0)
    return value if isinstance(value, dict) else {}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _yaml_block(lines: list[str], at: int, indent: int) -> tuple[Any, int]:
    if at < len(lines) and lines[at].lstrip().startswith("- "):
        items: list[Any] = []
        while at < len(lines) and _indent(lines[at]) == indent and lines[at].lstrip().startswith("- "):
            items.append(_yaml_scalar(lines[at].lstrip()[2:]))
            at += 1
        return items, at
    found: dict[str, Any] = {}
    while at < len(lines) and _indent(lines[at]) == indent:
        key, colon, rest = lines[at].strip().partition(":")
        if not colon:
            break
        at += 1
        if rest.strip():
            found[_yaml_text(key)] = _yaml_scalar(rest)
        elif at < len(lines) and (_indent(lines[at]) > indent or lines[at].lstrip().startswith("- ")):
            found[_yaml_text(key)], at = _yaml_block(lines, at, _indent(lines[at]))
        else:
            found[_yaml_text(key)] = ""
    return found, at


def _yaml_scalar(text: str) -> Any:
    stripped = text.strip()
    if stripped.startswith("[") and stripped.endswith("]"):
        return [_yaml_text(part) for part in stripped[1:-1].split(",") if part.strip()]
    return _yaml_text(stripped)


def _yaml_text(text: str) -> str:
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'":
        return stripped[1:-1]
    return stripped.partition(" #")[0].rstrip()
