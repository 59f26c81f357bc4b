"""From what an engine answered about files and content to typed values: analyses and signatures.

Pure functions over decoded JSON, like `results`, for the calls that run no script.
"""

from __future__ import annotations

from typing import Any

from mlld_sdk.scripts.results import as_dict, as_text, as_texts, as_whole, read_all
from mlld_sdk.scripts.types import (
    AnalysisError,
    AnalyzeResult,
    ContentSignature,
    Executable,
    FilesystemStatus,
    FileVerifyResult,
    Guard,
    Import,
    Needs,
    Variable,
)


def analyze_result(payload: dict[str, Any], filepath: str) -> AnalyzeResult:
    """Read an analysis."""
    executables = read_all(_executable, payload.get("executables"))
    labels = {executable.name: executable.labels for executable in executables}
    variables = read_all(_variable, payload.get("variables"))
    for variable in variables:
        variable.labels = variable.labels or list(labels.get(variable.name, ()))
    return AnalyzeResult(
        filepath=str(payload.get("filepath", filepath)),
        valid=payload.get("valid", True) is True,
        errors=read_all(_analysis_error, payload.get("errors")),
        executables=executables,
        exports=as_texts(payload.get("exports")),
        imports=read_all(_import, payload.get("imports")),
        guards=read_all(_guard, payload.get("guards")),
        needs=_needs(payload.get("needs") or _under(payload.get("frontmatter"), "needs")),
        warnings=read_all(_analysis_error, payload.get("warnings")),
        variables=variables,
        stats={k: v for k, v in (as_dict(payload.get("stats")) or {}).items() if as_whole(v) is not None},
        frontmatter=as_dict(payload.get("frontmatter")),
    )


def _executable(payload: Any) -> Executable | None:
    if not isinstance(payload, dict):
        return None
    return Executable(
        name=as_text(payload.get("name")) or "",
        params=as_texts(payload.get("params")),
        labels=as_texts(payload.get("labels")),
        language=as_text(payload.get("language")),
    )


def _variable(payload: Any) -> Variable | None:
    if not isinstance(payload, dict):
        return None
    return Variable(
        name=as_text(payload.get("name")) or "",
        type=as_text(payload.get("type")) or "unknown",
        exported=payload.get("exported") is True,
        labels=list(dict.fromkeys(as_texts(payload.get("labels")))),
    )


def _import(payload: Any) -> Import | None:
    if not isinstance(payload, dict):
        return None
    return Import(
        from_=_first_text(payload, "from", "source") or "",
        names=as_texts(payload.get("names")),
        alias=as_text(payload.get("alias")),
        type=as_text(payload.get("type")),
    )


def _guard(payload: Any) -> Guard | None:
    if not isinstance(payload, dict):
        return None
    trigger = _first_text(payload, "trigger", "filter", "label")
    return Guard(
        name=as_text(payload.get("name")) or "",
        timing=as_text(payload.get("timing")) or "",
        label=trigger,
        trigger=trigger or "",
    )


def _needs(payload: Any) -> Needs | None:
    if isinstance(payload, list):  # the front matter's list form names commands
        return Needs(cmd=as_texts(payload))
    if not isinstance(payload, dict):
        return None
    packages = as_dict(payload.get("packages")) or {}
    named = {name: as_texts(payload.get(name, packages.get(name))) for name in ("cmd", "node", "py")}
    other = {name: value for name, value in payload.items() if name not in (*named, "packages")}
    return Needs(**named, other=other)


def _analysis_error(payload: Any) -> AnalysisError | None:
    if not isinstance(payload, dict):
        return None
    place = as_dict(payload.get("location")) or {}
    place = as_dict(place.get("start")) or place
    return AnalysisError(
        message=str(payload.get("message", "")),
        line=as_whole(payload.get("line", place.get("line"))),
        column=as_whole(payload.get("column", place.get("column"))),
        code=as_text(payload.get("code")),
    )


def file_verify_result(payload: dict[str, Any]) -> FileVerifyResult:
    """Read what was said about one file's signature."""
    return FileVerifyResult(
        path=str(payload.get("path", "")),
        relative_path=_first_text(payload, "relativePath", "relative_path") or "",
        status=str(payload.get("status", "")),
        verified=payload.get("verified") is True,
        signer=as_text(payload.get("signer")),
        signed_at=_first_text(payload, "signedAt", "signed_at"),
        hash=as_text(payload.get("hash")),
        expected_hash=_first_text(payload, "expectedHash", "expected_hash"),
        metadata=as_dict(payload.get("metadata")),
        error=as_text(payload.get("error")),
    )


def filesystem_status(payload: dict[str, Any]) -> FilesystemStatus:
    """Read one entry of `fs_status`."""
    return FilesystemStatus(
        path=str(payload.get("path", "")),
        relative_path=_first_text(payload, "relativePath", "relative_path") or "",
        status=str(payload.get("status", "")),
        verified=payload.get("verified") is True,
        signer=as_text(payload.get("signer")),
        labels=as_texts(payload.get("labels")),
        taint=as_texts(payload.get("taint")),
        signed_at=_first_text(payload, "signedAt", "signed_at"),
        error=as_text(payload.get("error")),
    )


def content_signature(payload: dict[str, Any]) -> ContentSignature:
    """Read the signature of a piece of content."""
    metadata = as_dict(payload.get("metadata"))
    return ContentSignature(
        id=str(payload.get("id", "")),
        hash=str(payload.get("hash", "")),
        algorithm=str(payload.get("algorithm", "")),
        signed_by=_first_text(payload, "signedBy", "signed_by") or "",
        signed_at=_first_text(payload, "signedAt", "signed_at") or "",
        content_length=as_whole(payload.get("contentLength", payload.get("content_length"))) or 0,
        metadata=None if metadata is None else {k: v for k, v in metadata.items() if isinstance(v, str)},
    )


def _first_text(payload: dict[str, Any], *names: str) -> str | None:
    return next((payload[name] for name in names if isinstance(payload.get(name), str)), None)


def _under(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
