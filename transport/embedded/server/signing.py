"""`sig:*`, `fs:status` and `file:write`: who signed which file, and whether it has changed since.

Signatures are kept as the real engine keeps them, in `.sig` below the project root: a hash, a name and a time. They
prove nothing where others can write to that folder.
"""

import fnmatch
import hashlib
import json
import os
import subprocess
from typing import Any

from mlld_sdk.transport.checkpoint_cache import script_name
from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.errors import ScriptFailure
from mlld_sdk.transport.embedded.interpreter.script_run import project_root
from mlld_sdk.transport.javascript import json_text, well_formed


def answer(method: str, params: Any) -> Any:
    """Answer one of the signature methods."""
    if method == "fs:status":
        return _status(params)
    if method == "sig:sign-content":
        return _sign_content(params)
    if isinstance(params, str):
        params = {"path": params}
    if not isinstance(params, dict) or not isinstance(params.get("path"), str):
        raise ScriptFailure(f"{method} params.path must be a string")
    base = _base(params)
    root = project_root(base)
    path = os.path.normpath(os.path.join(base, params["path"]))
    if not os.path.exists(path) and os.path.exists(os.path.join(root, params["path"])):
        path = os.path.normpath(os.path.join(root, params["path"]))
    if method == "sig:sign":
        identity = params.get("identity")
        _sign(root, path, identity if isinstance(identity, str) else f"user:{_user(root)}")
    return _check(root, path)


def _base(params: Any) -> str:
    base = params.get("basePath") if isinstance(params, dict) else None
    return os.path.abspath(base) if isinstance(base, str) else os.getcwd()


def _relative(root: str, path: str) -> str:
    relative = os.path.relpath(path, root)
    if relative.startswith(".."):
        raise ScriptFailure(f"Path escapes project root: {path}")
    return relative


def _user(root: str) -> str:
    try:
        command = ["git", "config", "user.name"]
        name = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        name = ""
    return name or os.environ.get("USER", "unknown")


def _hash(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ScriptFailure(f"ENOENT: no such file or directory, open '{path}'", "ENOENT") from None
    except IsADirectoryError:
        raise ScriptFailure("EISDIR: illegal operation on a directory, read", "EISDIR") from None
    except OSError as error:
        raise ScriptFailure(f"{error.strerror}, open '{path}'") from None


def _write(path: str, data: bytes, mode: str = "wb") -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, mode) as file:
            file.write(data)
    except OSError as error:
        raise ScriptFailure(f"{error.strerror}, open '{path}'") from error


def _sign(root: str, path: str, identity: str) -> None:
    config = os.path.join(root, ".sig", "config.json")
    if not os.path.exists(config):
        _write(config, b'{\n  "version": 1\n}\n')
    relative = _relative(root, path)
    _keep(root, ("sigs", relative), {"file": relative}, _read(path), identity)


def _keep(root: str, place: tuple[str, str], subject: dict[str, Any], data: bytes, identity: str) -> dict[str, Any]:
    """Write a signature and what was signed below `.sig/`, note it in the audit log, and return the signature."""
    digest = _hash(data)
    metadata = subject.pop("metadata", None)
    record: dict[str, Any] = {
        **subject,
        "hash": digest,
        "algorithm": "sha256",
        "signedBy": identity,
        "signedAt": clock.iso(),
        "contentLength": len(data),
    }
    if metadata:
        record["metadata"] = metadata
    stem = os.path.join(root, ".sig", *place)
    _write(stem + ".sig.content", data)
    _write(stem + ".sig.json", (json_text(record, indent=2) + "\n").encode())
    name = place[1] if place[0] == "sigs" else f"content:{place[1]}"
    row = {"ts": clock.iso(), "event": "sign", "file": name, "hash": digest, "identity": identity}
    _write(os.path.join(root, ".sig", "audit.jsonl"), (json_text(row) + "\n").encode(), "ab")
    return record


def _check(root: str, path: str) -> dict[str, Any]:
    relative = _relative(root, path)
    record = _record(os.path.join(root, ".sig", "sigs", relative + ".sig.json"))
    found: dict[str, Any] = {"path": path, "relativePath": relative}
    if record is None:
        return {**found, "signer": None, "status": "unsigned", "verified": False, "error": "No signature found"}
    found |= {"signer": record["signedBy"], "signedAt": record["signedAt"], "expectedHash": record["hash"]}
    try:
        digest = _hash(_read(path))
    except ScriptFailure:
        return {**found, "status": "unsigned", "verified": False, "error": "File not found"}
    if digest == record["hash"]:
        return {**found, "status": "verified", "verified": True, "hash": digest}
    return {**found, "status": "modified", "verified": False, "error": "Content has been modified since signing"}


def _record(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    wanted = ("signedBy", "signedAt", "hash")
    return record if isinstance(record, dict) and all(isinstance(record.get(key), str) for key in wanted) else None


def _status(params: Any) -> list[dict[str, Any]]:
    if isinstance(params, str):
        params = {"glob": params}
    pattern = params.get("glob") if isinstance(params, dict) else None
    root = project_root(_base(params))
    store = os.path.join(root, ".sig", "sigs")
    names = [
        os.path.relpath(os.path.join(folder, name), store).removesuffix(".sig.json")
        for folder, _, files in os.walk(store)
        for name in files
        if name.endswith(".sig.json")
    ]
    entries = [_check(root, os.path.join(root, name)) for name in sorted(names) if _fits(name, pattern)]
    return [{**entry, "labels": [] if entry["verified"] else ["untrusted"], "taint": []} for entry in entries]


def _fits(name: str, pattern: Any) -> bool:
    if not isinstance(pattern, str):
        return True
    tail = pattern.removeprefix("**/")
    return fnmatch.fnmatchcase(name, pattern) or (tail != pattern and fnmatch.fnmatchcase(os.path.basename(name), tail))


def _sign_content(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict) or not isinstance(params.get("content"), str):
        raise ScriptFailure("sig:sign-content params.content must be a string")
    identity = params.get("identity")
    if not isinstance(identity, str) or not identity.strip():
        raise ScriptFailure("sig:sign-content params.identity must be a non-empty string")
    given, raw = params.get("id"), params.get("metadata")
    name = given.strip() if isinstance(given, str) else ""
    if "/" in name or name in (".", ".."):
        raise ScriptFailure(f"Path escapes project root: {name}")
    if not name:
        import uuid

        name = str(uuid.uuid4())
    texts = {key: value for key, value in raw.items() if isinstance(value, str)} if isinstance(raw, dict) else {}
    metadata = {key: value.strip() for key, value in texts.items() if value.strip()}
    data = well_formed(params["content"]).encode()
    subject = {"id": name, "metadata": metadata}
    return _keep(project_root(_base(params)), ("content", name), subject, data, identity.strip())


def write_signed(folder: str, path: str, content: str, script: str) -> dict[str, Any]:
    """Write a file for `file:write` and sign it for the script; outside the project it is written, then refused."""
    target = os.path.normpath(os.path.join(folder, path))
    root = project_root(folder)
    _write(target, well_formed(content).encode())
    if not os.path.relpath(target, root).startswith(".."):
        _sign(root, target, f"agent:{script_name(script) or 'script'}")
    return _check(root, target)
