"""The tree as a value, and as text.

A snapshot is put together from the states supervisors have published and from what can be seen of an actor from
outside. No actor is asked for anything, so looking at a tree cannot disturb, delay or hang it.
"""

import re
from math import inf
from typing import Any, Literal

import msgspec

from mlld_sdk.base.texts import printable
from mlld_sdk.supervision.breaker import BreakerView
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import SupervisorState
from mlld_sdk.supervision.events import BudgetView
from mlld_sdk.supervision.execution.progress import NodeInfo, info_of
from mlld_sdk.supervision.execution.tree_context import BacklogView, TreeContext
from mlld_sdk.supervision.reasons import as_exit
from mlld_sdk.supervision.spec import DynamicSpec, SupervisorSpec

NodeState = Literal["running", "starting", "stopping", "stopped", "waiting", "parked", "failed"]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One place in the tree.

    Attributes:
        path: Where it stands.
        name: Its own part of the path.
        kind: Name of the actor class, or the strategy of a supervisor.
        state: Where it stands, seen from its supervisor.
        incarnation: Which start fills it, counted from 1; 0 before the first.
        restarts: Automatic restarts that succeeded.
        up: Seconds it has been up, when it is.
        next_in: Seconds until the next start attempt, when one is planned.
        last: How its last incarnation ended, in words.
        last_kind: Family of that reason.
        failures: Recent failures, as seconds ago and seconds lived.
        budget: The restart limit its own restarts charge, when it has one of its own; the shared one, on supervisors.
        window: Length in seconds of the window its failures are judged in.
        stable: Seconds it must live to count as stable.
        wedge_after: Seconds without progress after which it counts as stuck.
        breaker: The breaker in front of it.
        step_breakers: The other breakers that the steps of its runs have gone through.
        held: Why it was stopped on purpose.
        rung: Rung of its ladder.
        groups: Groups that its incarnations join.
        configured: Options it was given while it ran, beside those of its declaration.
        info: What can be seen of the running actor.
        backlog: Runs that wait for it, for places that take runs.
        zombies: Threads that still run for incarnations that were killed, here and below.
        haunted: Seconds for which the oldest of them has gone on.
        gave_up: A supervisor's last words, when it gave up.
        over: Whether the whole tree has ended: nothing here runs, and nothing is restarted any more.
        children: Below it, in start order.
    """

    path: str
    name: str
    kind: str
    state: NodeState
    incarnation: int = 0
    restarts: int = 0
    up: float | None = None
    next_in: float | None = None
    last: str = ""
    last_kind: str = ""
    failures: tuple[tuple[float, float], ...] = ()
    budget: BudgetView | None = None
    window: float = 5.0
    stable: float = 5.0
    wedge_after: float | None = None
    breaker: BreakerView | None = None
    step_breakers: tuple[BreakerView, ...] = ()
    held: str = ""
    rung: int = 0
    groups: tuple[str, ...] = ()
    configured: dict[str, Any] = {}
    info: NodeInfo | None = None
    backlog: BacklogView | None = None
    zombies: int = 0
    haunted: float = 0.0
    gave_up: str = ""
    over: bool = False
    children: "tuple[NodeView, ...]" = ()


def supervisor_view(root: SupervisorState, context: TreeContext, now: float, *, over: bool = False) -> NodeView:
    """Describe a supervisor and all below it, however deep; `over`: the tree has ended, so nothing is up or will be."""
    found: list[tuple[SupervisorState, Slot | None]] = [(root, None)]
    below: list[list[NodeView | int]] = []
    for state, _ in found:  # which grows meanwhile
        children: list[NodeView | int] = []
        for slot in state.in_order():
            inner = _state_of_child(slot, state, context)
            if inner is None:
                path, within = state.path_of(slot), state.spec.limit.within
                children.append(slot_view(slot, path, within, context, now, over=over))
            else:
                children.append(len(found))
                found.append((inner, slot))
        below.append(children)
    views: dict[int, NodeView] = {}
    for number in reversed(range(len(found))):
        nodes = tuple(views.pop(one) if isinstance(one, int) else one for one in below[number])
        views[number] = _supervisor_node(*found[number], nodes, context, now, over=over)
    return views[0]


def _state_of_child(slot: Slot, parent: SupervisorState, context: TreeContext) -> SupervisorState | None:
    """Return the state of a child that is a supervisor and runs, or did when the tree began to end."""
    state = context.states.get(slot.child)
    if context.ended and slot.spec.kind == "supervisor" and context.ends:
        state = context.ended.get(parent.path_of(slot), state)
    return state


def _supervisor_node(
    state: SupervisorState,
    slot: Slot | None,
    children: tuple[NodeView, ...],
    context: TreeContext,
    now: float,
    *,
    over: bool,
) -> NodeView:
    path, limit = state.path, state.spec.limit
    if slot is not None:
        base = slot_view(slot, path, limit.within, context, now, over=over)
    else:
        root: NodeState = "stopped" if over else "stopping" if state.phase == "gone" else state.phase
        base = NodeView(path=path, name=path.rsplit("/", 1)[-1], kind="", state=root, over=over)
    return msgspec.structs.replace(
        base,
        kind=state.spec.strategy,
        up=max(now - state.up_since, 0.0) if state.ready and not over else None,
        budget=state.window.view(now, limit),
        window=limit.within,
        gave_up=state.gave_up,
        children=children,
    )


def slot_view(
    slot: Slot, path: str, within: float, context: TreeContext, now: float, *, over: bool = False
) -> NodeView:
    """Describe one child without what is below it."""
    if context.ends:
        slot = _at_the_end(slot, over=over)
    spec = slot.spec
    own, policy = spec.budget, spec.breaker
    running = slot.status == "running"
    breaker = None if policy is None else _breaker_view(context, policy.name or path)
    info = info_of(slot.child) if running else None
    others = () if info is None else tuple(sorted(info.step_breakers))
    zombies = context.system.zombies.ages(path) if spec.kind == "worker" else ()
    backlog = context.backlog(path, slot.child if running else None) if spec.kind == "worker" else None
    return NodeView(
        path=path,
        name=path.rsplit("/", 1)[-1],
        kind=kind_of(spec.start),
        state=slot.status,
        incarnation=slot.incarnation,
        restarts=slot.restarts,
        up=max(now - slot.since, 0.0) if running else None,
        next_in=None if slot.next_at is None else max(slot.next_at - now, 0.0),
        last="" if slot.last is None else str(slot.last),
        last_kind="" if slot.last is None else slot.last.kind,
        failures=tuple((now - at, lived) for at, lived in slot.failures),
        budget=slot.window.view(now, own.limit) if own else None,
        window=own.limit.within if own else within,
        stable=spec.backoff.stable if spec.backoff else 5.0,
        wedge_after=spec.wedge.after if spec.wedge else None,
        breaker=breaker,
        step_breakers=tuple(_breaker_view(context, name) for name in others if breaker is None or name != breaker.name),
        held=slot.held,
        rung=slot.rung,
        groups=spec.groups,
        configured=dict(slot.configured or {}),
        info=info,
        backlog=None if over and backlog is not None and not backlog.known else backlog,  # the journal may be closed
        zombies=len(zombies),
        haunted=max(zombies, default=0.0),
        over=over,
    )


def _at_the_end(slot: Slot, *, over: bool) -> Slot:
    """Bring a slot of a tree that ends up to date by its actor: what was published is how it was when that began."""
    ended = None if slot.child is None else slot.child.reason
    if ended is not None:
        return msgspec.structs.replace(slot, status="stopped", next_at=None, last=as_exit(ended))
    if slot.child is not None:
        return msgspec.structs.replace(slot, status="stopping") if over else slot
    return slot if slot.status == "failed" else msgspec.structs.replace(slot, status="stopped", next_at=None)


def _breaker_view(context: TreeContext, name: str) -> BreakerView:
    """Describe a breaker by its name; one that was not asked for yet is closed."""
    known = context.breakers.find(name)
    return BreakerView(name=name, status="closed") if known is None else known.view()


def kind_of(start: object) -> str:
    """Name what a spec starts; a class that stands for another one names that in `stands_for`."""
    if isinstance(start, SupervisorSpec | DynamicSpec):
        return start.strategy
    return str(getattr(start, "stands_for", getattr(start, "__name__", start)))


def walk(node: NodeView) -> "list[NodeView]":
    """List a node and all below it, in the order of the printout."""
    found, todo = [], [node]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += reversed(one.children)
    return found


def render(root: NodeView, *, width: int = 24, limit: int = 2_000) -> str:
    """Print the tree, one line a place; trees larger than `limit` lines say how many they left out."""
    lines: list[str] = []
    todo: list[tuple[NodeView, str, str]] = [(root, "", "")]
    left_out = 0
    while todo:
        node, lead, below = todo.pop()
        if len(lines) >= limit:
            left_out += 1
        else:
            lines.append(_line(node, lead, width))
        for at in range(len(node.children) - 1, -1, -1):
            last = at == len(node.children) - 1
            todo.append((node.children[at], below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))
    if left_out:
        lines.append(f"… and {left_out} more")
    return "\n".join(lines)


def _line(node: NodeView, lead: str, width: int) -> str:
    kind = node.kind if node.incarnation <= 1 else f"{node.kind} #{node.incarnation}"
    columns = f"{lead + node.name:<{width}} {kind:<16} {_state_of(node):<9}"
    return printable(f"{columns} {'   '.join(_remarks(node))}".rstrip())


def _state_of(node: NodeView) -> str:
    if node.gave_up:
        return "gave up"
    if node.state == "running" and node.info is not None and node.info.off_duty:
        return node.info.off_duty
    words = {"running": "ok", "waiting": "backoff", "parked": "parked"}
    return "held" if node.held and node.state == "stopped" else words.get(node.state, node.state)


def _remarks(node: NodeView) -> list[str]:
    said: list[str] = []
    if node.up is not None:
        said.append(f"up {duration(node.up)}")
    if node.next_in is not None:
        said.append(f"next {node.next_in:.1f}s")
    if node.budget is not None:
        said.append(f"restarts {node.budget.used}/{node.budget.limit} in {node.budget.within:g}s")
    elif node.restarts:
        said.append(f"restarts {node.restarts}")
    if (info := node.info) is not None:
        said += [f"q {info.queued}"] if info.queued or info.doing else []
        said += [f"no progress for {duration(info.idle)}"] if info.idle >= (node.wedge_after or inf) else []
    said += _runs(node.backlog)
    if node.zombies:
        said.append(f"zombies {node.zombies} for {duration(node.haunted)}")
    said += _not_as_declared(node)
    if node.breaker is not None:
        said.append(_breaker_words(node, node.breaker, "breaker"))
    said += [_breaker_words(node, other, f"breaker {other.name}") for other in node.step_breakers]
    if node.last and not node.gave_up and (node.state != "running" or node.last_kind not in ("normal", "shutdown")):
        said.append(f"last: {shorten(node.last)}")
    if node.groups:
        said.append(f"in {', '.join(node.groups)}")
    if node.held:
        said.append(f"held: {shorten(node.held)}")
    if node.gave_up:
        said.append(shorten(node.gave_up))
    return said


def _not_as_declared(node: NodeView) -> list[str]:
    said = [f"rung {node.rung}"] if node.rung else []
    if node.configured:
        said.append("configured " + ", ".join(f"{name}={value!r}" for name, value in node.configured.items()))
    return said


def _breaker_words(node: NodeView, breaker: BreakerView, name: str) -> str:
    wait = " by hand" if breaker.by_hand else f" {breaker.retry_after:.1f}s" if breaker.retry_after else ""
    waiting = 0 if node.info is None else node.info.step_breakers.get(breaker.name, 0)
    return f"{name} {breaker.status.replace('_', '-')}{wait}" + (f" ({waiting} waiting)" if waiting else "")


def _runs(backlog: BacklogView | None) -> list[str]:
    if backlog is None or not backlog.known:
        return [] if backlog is None else ["runs not known"]
    oldest = f" for {duration(backlog.oldest)}" if backlog.waiting else ""
    counts = {
        f"waiting{oldest}": backlog.waiting,
        "asleep": backlog.pending - backlog.waiting,
        "running": backlog.running,
        "parked": backlog.parked,
    }
    words = [f"{count} {word}" for word, count in counts.items() if count]
    return [f"runs {', '.join(words)}"] if words else []


def duration(seconds: float) -> str:
    """Write a duration short enough for a column: `4s`, `2m05s`, `2h14m`, `3d02h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


MODULES = re.compile(r"^(?:\w+\.)+(?=[A-Z]\w*:)")
"""The modules before the name of an exception at the beginning of a reason."""


def shorten(text: str, most: int = 60) -> str:
    """Cut a reason to one line of at most `most` characters; the module of its exception goes first."""
    line = MODULES.sub("", " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"
