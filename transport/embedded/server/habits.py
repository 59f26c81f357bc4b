"""The real engine's habits: how it copies values with losses, and how it dies."""

import os
from typing import Any

MAX_DEPTH = 8
MAX_KEYS = 100
MAX_ITEMS = 200
MAX_TEXT = 4000
INTERNAL_KEYS = frozenset((
    "env", "environment", "securityManager", "securityManagers", "resolverManager", "resolverManagers", "pathContext",
    "pathContexts", "pathService", "variableManager", "variableManagers", "contextManager", "fileSystem",
))  # fmt: skip
ACTIVATION_DELAY = 0.015
UNHANDLED = """node:internal/process/promises:391
    triggerUncaughtException(err, true /* fromPromise */);
    ^

Error: {message}
    at embedded engine (--like-real)
"""
WARNING = """(node:{pid}) UnhandledPromiseRejectionWarning: Error: {message}
    at embedded engine (--like-real --survive)
"""
NULL_CRASH = """TypeError: Cannot read properties of null (reading 'method')
    at embedded engine (--like-real)
"""


def cut(text: str) -> str:
    """Shorten a text as the real engine does: a head, a claim, a tail, counted in UTF-16 units."""
    if len(text) <= MAX_TEXT and (text.isascii() or len(text.encode("utf-16-le", "surrogatepass")) <= 2 * MAX_TEXT):
        return text
    units = text.encode("utf-16-le", "surrogatepass")
    count = len(units) // 2
    kept = MAX_TEXT - 32
    head = -(-kept * 3 // 4)
    tail = kept - head
    claim = f" ... [truncated {count - kept} chars] ... "
    kept_units = units[: 2 * head] + claim.encode("utf-16-le") + units[2 * (count - tail) :]
    return kept_units.decode("utf-16-le", "surrogatepass")


def copy_with_losses(value: Any) -> Any:
    """Copy a message as one pass of the real engine does. It makes two or three, which is why its counts are wrong."""
    return _copy(value, 0, set())


def _copy(value: Any, depth: int, seen: set[int]) -> Any:
    if isinstance(value, str):
        return cut(value)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) in seen:
        return "[Circular]"
    if depth >= MAX_DEPTH:
        return "[Object]" if isinstance(value, dict) else "[Array]"
    seen.add(id(value))
    if not isinstance(value, dict):
        items = [_copy(item, depth + 1, seen) for item in value[:MAX_ITEMS]]
        if len(value) > MAX_ITEMS:
            items.append(f"[+{len(value) - MAX_ITEMS} more items]")
        return items
    copied: dict[str, Any] = {}
    for at, (key, item) in enumerate(value.items()):
        if at == MAX_KEYS:
            copied["__truncatedKeys"] = len(value) - MAX_KEYS
            break
        if key in INTERNAL_KEYS and isinstance(item, (dict, list)):
            copied[key] = "[omitted internal state]"
        elif key == "baseValue" and isinstance(item, (dict, list)):
            copied[key] = "[Object]" if isinstance(item, dict) else "[Array]"
        else:
            copied[key] = _copy(item, depth + 1, seen)
    return copied


def lossy_event(body: dict[str, Any]) -> dict[str, Any]:
    """Lose what an event loses before it is put into its envelope."""
    if body.get("type") == "execution:complete":
        body = {**body, "result": copy_with_losses(body["result"])}
    return dict(copy_with_losses(body))


def flattened_code(code: str, message: str, *, execute: bool) -> str:
    """Return the code the real engine reports: `execute` knows three, and words in a message count as codes."""
    if execute:
        return code if code in ("PARSE_ERROR", "FILE_NOT_FOUND", "UNSUPPORTED_CONSTRUCT") else "RUNTIME_ERROR"
    if code == "RUNTIME_ERROR":
        lowered = message.lower()
        if "abort" in lowered:
            return "ABORTED"
        if "timeout" in lowered:
            return "TIMEOUT"
    return code


def last_words(text: str) -> None:
    """Print a crash report; a closed stderr does not matter any more."""
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        return
