"""One request being run: what it may see, what it has done so far, and how it is stopped."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.errors import ScriptFailure, outside_project
from mlld_sdk.transport.embedded.interpreter.document import tidy
from mlld_sdk.transport.embedded.interpreter.fair_lock import FairLock
from mlld_sdk.transport.embedded.interpreter.processes import ShellProcess
from mlld_sdk.transport.embedded.interpreter.values import UNKNOWN, Origin, Value, merge
from mlld_sdk.transport.embedded.language.scanner import LineMap
from mlld_sdk.transport.embedded.language.syntax import TextSpan
from mlld_sdk.transport.javascript import is_array_index, well_formed

if TYPE_CHECKING:
    from mlld_sdk.transport.checkpoint_cache import Selector

ROOT_MARKERS = (
    ("mlld-config.json", "mlld-lock.json", "mlld.lock.json"),
    ("package.json", ".git", "pyproject.toml", "Cargo.toml"),
)
STEPS_BETWEEN_YIELDS = 64
LONGEST_INDEX = 6
"""Digits of a list's index in a state path: what a longer one would create is no list but a mistake."""


class CachePlan(NamedTuple):
    """What a request asks of the cache. None means: as the script's header says.

    Attributes:
        root: Folder of all caches, or None for the default below the working directory.
        name: Name of the cache, or None for the script's own name.
        use: True: serve and write. False: neither. None: decided by the `resume:` header.
        fresh: Remove the whole cache first.
        fork: Name of a cache whose entries are copied first.
        drop: Entries to drop before the run.
    """

    root: str | None = None
    name: str | None = None
    use: bool | None = None
    fresh: bool = False
    fork: str | None = None
    drop: "Selector | None" = None

    def prepares(self) -> bool:
        """Return whether something has to happen before the script starts."""
        return self.fresh or self.fork is not None or self.drop is not None


class ScriptRequest(NamedTuple):
    """What a request asks for, after its parameters were read.

    Attributes:
        script: The text to run.
        path: The script's path as the client gave it, or None.
        payload: Value of `@payload`, or `ABSENT`.
        payload_labels: Labels of the payload's fields.
        state: Dictionary behind `@state`, or None.
        modules: Texts and objects that can be imported by name.
        module_label: Label of what is imported from them, or None.
        plan: What is asked of the checkpoint cache.
        confined: Whether files outside the script's project are refused; the real engine takes the option that asks
            for it and refuses none.
        unanswered: Calls of `llm` functions without an answer: `tell` of them, `fail` when a command in one does; the
            real engine does neither, and keeps what they gave.
    """

    script: str
    path: str | None
    payload: Any
    payload_labels: dict[str, list[str]]
    state: dict[str, Any] | None
    modules: dict[str, Any]
    module_label: str | None
    plan: CachePlan = CachePlan()
    confined: bool = False
    unanswered: Literal["", "tell", "fail"] = ""


ABSENT: Any = object()


def project_root(folder: str) -> str:
    """Return the project a folder belongs to: the nearest ancestor with a marker file, or the folder itself."""
    for names in ROOT_MARKERS:
        at = folder
        while True:
            if any(os.path.exists(os.path.join(at, name)) for name in names):
                return at
            parent = os.path.dirname(at)
            if parent == at:
                break
            at = parent
    return folder


def _lies_in(path: str, folder: str) -> bool:
    """Return whether what a path leads to, whether it is there or not, lies in a folder."""
    try:
        inner, outer = os.path.realpath(path), os.path.realpath(folder)
    except (OSError, ValueError):  # a path with a NUL leads nowhere
        return False
    return os.path.commonpath([inner, outer]) == outer


class ScriptRun:
    """The effects, state and children of one running script.

    Events go out through `report` in the order they happen. `abort` may be called from any thread; the script notices
    at its next step and its children are killed at once.
    """

    def __init__(
        self, request: ScriptRequest, report: Callable[[dict[str, Any]], None], turn: FairLock, *, kill_children: bool
    ) -> None:
        self.request = request
        self.turn = turn
        self.positions = LineMap(request.script)
        self.path = os.path.abspath(request.path) if request.path else ""
        self.folder = os.path.dirname(self.path) if self.path else os.getcwd()
        self.root = project_root(self.folder)
        self.state = request.state
        self.effects: list[dict[str, Any]] = []
        self.state_writes: list[dict[str, Any]] = []
        self.state_origins: dict[str, Origin] = {}  # of what was put into @state from outside, by path
        self.exports: dict[str, Any] = {}
        self.unanswered: list[dict[str, Any]] = []
        self.streamed = False
        self.recorded: Origin | None = None
        self.abort_error: ScriptFailure | None = None
        self.stopped = threading.Event()
        self.started = clock.now()
        self._report = report
        self._kill_children = kill_children
        self._page: list[str] = []
        self._children: set[ShellProcess] = set()
        self._children_lock = threading.Lock()
        self._steps = 0

    def admit(self, path: str) -> str:
        """Return a path if its file may be read and written, else fail; where links lead is what counts."""
        if self.request.confined and not _lies_in(path, self.root):
            raise outside_project(path, self.root)
        return path

    def abort(self, error: ScriptFailure) -> None:
        """Stop the script: it raises `error` at its next step, and its children die now."""
        if self.abort_error is None:
            self.abort_error = error
        self.stopped.set()
        if self._kill_children:
            with self._children_lock:
                children = list(self._children)
            for child in children:
                child.kill()

    def step(self) -> None:
        """Notice an abort and let others have a turn; called before every statement and every round of a loop."""
        if self.abort_error is not None and self._kill_children:
            raise self.abort_error
        self._steps += 1
        if self._steps % STEPS_BETWEEN_YIELDS == 0:
            self.turn.yield_()

    def sleep(self, seconds: float) -> None:
        """Wait without holding the turn; an abort ends the wait."""
        with self.turn.pause():
            if self._kill_children:
                self.stopped.wait(seconds)
            else:
                clock.sleep(seconds)
        self.step()

    @contextmanager
    def watching(self, child: ShellProcess) -> Iterator[None]:
        """Let an abort kill a child for as long as a `with` block waits for it."""
        with self._children_lock:
            self._children.add(child)
        try:
            if self.abort_error is not None and self._kill_children:
                child.kill()
            yield
        finally:
            with self._children_lock:
                self._children.discard(child)

    def place(self, span: TextSpan) -> tuple[str, str]:
        """Return where a part begins: as `path:line:column`, and as the end of an error's message."""
        point = self.positions.point(span.start)
        line, column, path = point["line"], point["column"], self.path
        there = f"{line}:{column}"
        return (
            f"{path}:{there}" if path else there,
            f" at line {line}, column {column}" + (f" in {path}" if path else ""),
        )

    def record(self, origin: Origin) -> None:
        """Note what the script has touched; effects carry it from now on."""
        self.recorded = merge(self.recorded or UNKNOWN, origin)

    def report(self, event: dict[str, Any]) -> None:
        """Send an event, unless the request was aborted."""
        if self.abort_error is None:
            self._report({**event, "timestamp": clock.milliseconds()})

    def chunk(self, text: str, source: str, pipeline: str) -> None:
        """Send a piece of a command's output as it comes."""
        if self.abort_error is None:
            event = {"type": "CHUNK", "pipelineId": pipeline, "stageIndex": 0, "chunk": text, "source": source}
            self._report({"type": "stream:chunk", "event": {**event, "timestamp": clock.milliseconds()}})

    def effect(
        self,
        kind: str,
        content: str,
        span: TextSpan | None = None,
        *,
        path: str | None = None,
        mode: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Show, print or log something."""
        source = None if span is None else self.positions.span(span)
        optional = {"path": path, "source": source, "mode": mode, "metadata": metadata}
        effect: dict[str, Any] = {"type": kind, "content": content}
        effect |= {name: value for name, value in optional.items() if value is not None}
        if self.recorded is None:
            effect["security"] = UNKNOWN.plain()
        else:
            details = {"effectType": kind} if path is None else {"effectType": kind, "path": path}
            effect["capability"] = capability("effect", self.recorded, details, {"kind": "effect", "effectType": kind})
            effect["security"] = effect["capability"]["security"]
        self.effects.append(effect)
        if kind in ("both", "doc", "stdout"):
            self._page.append(content)
        if kind == "stderr":
            self.write_stderr(content)
        self.report({"type": "effect", "effect": effect})

    def write_stderr(self, text: str) -> None:
        """Print to the engine's own stderr, where `log` goes; a closed stderr is no reason to fail a script."""
        data = well_formed(text).encode()
        try:
            while data:
                data = data[os.write(2, data) :]
        except OSError:
            return

    def write_state(self, path: str, value: Value) -> None:
        """Set a state value and report that to the host."""
        origin = self.recorded or UNKNOWN
        if self.state is not None:
            place_at_path(self.state, path, copied(value.data))
        write = {
            "path": path,
            "value": copied(value.data),
            "operation": "set",
            "security": merge(value.origin, origin).plain(),
            "index": len(self.state_writes),
            "timestamp": clock.iso(),
        }
        self.state_writes.append(write)
        self.report({"type": "state:write", "write": write})

    def update_state(self, path: str, value: Any, labels: Any = None) -> None:
        """Change `@state` from outside while the script runs; `.mx` tells the labels from then on."""
        if self.state is None:
            raise ScriptFailure("No dynamic @state snapshot is available for this execution")
        place_at_path(self.state, path, value)
        texts = labels if isinstance(labels, list) else []
        names = tuple(dict.fromkeys(name.strip() for name in texts if isinstance(name, str) and name.strip()))
        self.state_origins[path] = Origin(names, names)

    def result(self) -> dict[str, Any]:
        """Return the result of a script that came to its end."""
        result: dict[str, Any] = {
            "output": tidy("".join(self._page)),
            "effects": self.effects,
            "exports": self.exports,
            "stateWrites": self.state_writes,
            "denials": [],
        }
        if self.streamed:
            result["streaming"] = {}
        if self.unanswered:
            result["unanswered"] = self.unanswered
        return result


def copied(data: Any) -> Any:
    """Copy plain data, so that what was written does not change with what it was written from."""
    if isinstance(data, list):
        return [copied(item) for item in data]
    return {key: copied(item) for key, item in data.items()} if isinstance(data, dict) else data


def capability(kind: str, origin: Origin, details: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """Describe an effect or an export; `security` holds the same lists as the capability itself."""
    lists = origin.plain()
    return {"kind": kind, **lists, "metadata": details, "operation": operation, "security": lists}


def place_at_path(state: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path; missing levels are created, numbers index lists."""
    parts = [part for part in path.split(".") if part]
    target: Any = state
    for depth, part in enumerate(parts, 1):
        slot: Any = part
        if isinstance(target, list):
            if not is_array_index(part):  # a field of a list, which nothing shows
                return
            if len(part) > LONGEST_INDEX:
                raise ScriptFailure(f"State path '{path}' does not fit a list")
            slot = int(part)
            target.extend([None] * (slot + 1 - len(target)))
        if depth == len(parts):
            target[slot] = value
            return
        inner = target[slot] if isinstance(target, list) else target.get(slot)
        if not isinstance(inner, (dict, list)):
            inner = target[slot] = {}
        target = inner
