"""Comparing traces, and turning a scenario's words into this library's."""

from math import inf
from typing import Any

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    DuplicateChild,
)
from mlld_sdk.supervision.spec import ChildSpec, SupervisorSpec, child, supervisor

WORDS: dict[type[Exception], str] = {
    ChildAlreadyStarted: "already_started",
    ChildAlreadyPresent: "already_present",
    ChildRunning: "running",
    ChildRestarting: "restarting",
    ChildNotFound: "not_found",
    ChildStartFailed: "start_failed",
    InvalidOption: "invalid",
}


def comparable(trace: list[Any]) -> tuple[list[Any], list[Any]]:
    """Take out what has no place in the order: answers nobody waited for, and the last words of orphans."""
    loose = [one for one in trace if one[0] == "later" or (one[0] == "term" and one[2] == "killed")]
    return [one for one in trace if one not in loose], sorted(map(str, loose))


def build(tree: dict[str, Any], worker: Any) -> SupervisorSpec:
    """Build the spec of a scenario's tree, giving up the way OTP does."""
    return supervisor(
        tree["strategy"],
        *[build_child(one, worker) for one in tree.get("children", ())],
        name=tree["id"],
        max_restarts=tree["intensity"],
        within=tree["period"],
        auto_shutdown=tree.get("auto_shutdown", "never"),
        give_up_as="shutdown",
    )


def build_child(data: dict[str, Any], worker: Any) -> ChildSpec:
    options = {name: data[name] for name in ("restart", "significant") if name in data}
    if "shutdown" in data:
        options["shutdown"] = {"brutal_kill": "kill", "infinity": inf}.get(
            data["shutdown"], data["shutdown"] / 1000 if isinstance(data["shutdown"], int) else None
        )
    if "children" in data:
        return child(build(data, worker), name=data["id"], **options)
    return child(worker(data), name=data["id"], **options)


def refused(tree: dict[str, Any], error: Exception) -> list[Any]:
    """Say how a tree that cannot be declared fails, the way the oracle says it."""
    return ["start_failed", ["duplicate", error.name] if isinstance(error, DuplicateChild) else "invalid"]


def result(function: str, value: Any, error: BaseException | None) -> Any:
    """Say what a management call answered."""
    if error is not None:
        return WORDS[type(error)]
    if function == "get_childspec":
        limit = value.shutdown if value.shutdown == "kill" else "infinity" if value.shutdown == inf else None
        return ["spec", value.restart, value.kind, limit or int(value.shutdown * 1000)]
    return "ignored" if value is None else "ok"


def rows(found: list[Any]) -> list[Any]:
    return [[row.name, row.status] for row in found]
