"""Asking any engine to keep and serve finished model calls.

The bridge and the embedded engine take `checkpoint`, `fresh`, `resume` and `fork` as parameters. The live engine
ignores them, so the same is done to it by honest means: the cache on disk is edited before the request, and the script
is sent as text under a first line that tells the engine to serve what it has.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.engines.checkpoints import CacheNotFound, Checkpoints

PARAMETERS = frozenset({"checkpoint", "noCheckpoint", "fresh", "resume", "fork", "checkpointRoot", "checkpointName"})
SERVE = "resume: auto\n"


class NoLiveCheckpoint(ConfigurationError):
    """The live engine cannot do this with its cache; the bridge can."""

    code = "NO_LIVE_CHECKPOINT"


def apply_checkpoint_options(
    kind: str,
    method: str,
    params: dict[str, Any],
    working_dir: Path,
    place: Callable[[], str | None] = lambda: None,
) -> tuple[str, dict[str, Any]]:
    """Turn a request with checkpoint parameters into one this kind of engine understands.

    For the live engine this edits the cache on disk first, and may turn `execute` into `process`. `place` tells
    where it keeps its caches below the working directory, if that is known.

    Raises:
        NoLiveCheckpoint: The live engine has no means for what is asked.
        CacheNotFound: There is nothing to fork from, or no checkpoint of that name.
    """
    if kind != "live" or PARAMETERS.isdisjoint(params):
        return method, params
    asked = {name: params[name] for name in PARAMETERS if name in params}
    plain = {name: value for name, value in params.items() if name not in PARAMETERS}
    path = plain.get("filepath") if method == "execute" else plain.get("filePath")
    if path is None:
        raise NoLiveCheckpoint("script text without a file path has no cache", hint="give file_path")
    _refuse_what_live_cannot(asked)
    serves = bool(asked.get("checkpoint") or asked.get("resume") or asked.get("fork"))
    caches = Checkpoints(working_dir, place=place())
    _edit_cache(caches, str(path), asked)
    if serves:
        caches.forget_nothing(str(path))  # the engine takes nothing for an answer
    return _served(method, plain, Path(path), working_dir) if serves else (method, plain)


def _edit_cache(caches: Checkpoints, script: str, asked: dict[str, Any]) -> None:
    """Do to a script's cache what `fresh`, `fork` and `resume` ask, in this order; and mend a torn last row first."""
    caches.repair(script)
    if asked.get("fresh"):
        caches.clean(script)
    if "fork" in asked:
        caches.fork(asked["fork"], script)
    selector = asked.get("resume")
    if isinstance(selector, str):
        try:
            caches.invalidate(script, selector)
        except CacheNotFound:
            if not selector.startswith("@"):  # a function without calls is nothing to forget, a checkpoint is
                raise


def _refuse_what_live_cannot(asked: dict[str, Any]) -> None:
    if asked.get("checkpoint") is False or asked.get("noCheckpoint"):
        raise NoLiveCheckpoint(
            "the live engine always keeps model calls",
            hint="use engine='bridge', or begin the script with resume: never",
        )
    for name in ("checkpointRoot", "checkpointName"):
        if name in asked:
            raise NoLiveCheckpoint(
                f"the live engine does not take {name}",
                hint="use engine='bridge', or give the agent a working_dir of its own",
            )


def _served(method: str, params: dict[str, Any], path: Path, working_dir: Path) -> tuple[str, dict[str, Any]]:
    """Turn the request into one for the script's text, with a first line that makes the engine serve its cache."""
    if method == "execute":
        try:
            text = (working_dir / path).read_bytes().decode("utf-8", "replace")  # as the engine would read it
        except OSError:
            return method, params  # the engine says what is wrong with the file, in its own words
    else:
        text = params["script"]
    if text.lstrip("\ufeff").lower().startswith("resume:"):
        return method, params
    rest = {name: value for name, value in params.items() if name not in ("filepath", "timeoutMs")}
    # `execute` reads a file without a known suffix as strict, `process` as markdown.
    if method == "execute" and path.suffix not in (".mld", ".md"):
        rest.setdefault("mode", "strict")
    return "process", {**rest, "script": SERVE + text, "filePath": str(path)}
