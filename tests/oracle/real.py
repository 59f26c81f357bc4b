"""Plays a scenario on running supervisors: real actors, real threads, and a clock that moves when nothing else does."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import IGNORE, Stop
from mlld_sdk.actors.core.errors import ActorDead, StartFailed
from mlld_sdk.actors.core.exits import KILLED, NORMAL, SHUTDOWN, Killed, Other, Reason, Shutdown
from mlld_sdk.actors.core.future import Future
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.supervision import Supervisor, SupervisorRef, Tree
from mlld_sdk.supervision.decisions.state import StaticState
from mlld_sdk.supervision.reasons import ChildFailedToStart
from mlld_sdk.supervision.spec import ChildSpec, SupervisorSpec
from tests.oracle.trace import build, build_child, refused, result, rows
from tests.support.eventually import eventually
from tests.support.supervision import fake_system, is_quiet

REASONS = {"normal": NORMAL, "shutdown": SHUTDOWN, "shutdown_x": Shutdown("x"), "boom": Other("boom"), "kill": KILLED}


class EndsWith(Exception):
    """Raised by a stop hook that wants to end with another reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.exit_reason = reason


def is_queued(caller: threading.Thread) -> bool:
    """Say whether the call that a thread makes is on its way: the thread waits for the answer."""
    frame = sys._current_frames().get(caller.ident or 0)
    while frame is not None and frame.f_code is not Future._wait.__code__:
        frame = frame.f_back
    return frame is not None


def word(reason: Reason | None) -> str:
    match reason:
        case Killed():
            return "killed"
        case Shutdown(detail):
            return "shutdown" if detail is None else "shutdown_x"
        case _:
            return str(reason)


class Run:
    """Everything of one scenario."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self.data = tree
        self.trace: list[Any] = []
        self.lock = threading.Lock()
        self.starts: dict[str, int] = {}
        self.hanging: dict[str, tuple[threading.Event, list[str]]] = {}
        self.refs: dict[str, Any] = {}
        self.over = threading.Event()
        self.hangs = False
        self.helpers: list[threading.Thread] = []
        self.system, self.clock = fake_system()
        self.tree: Tree | None = None
        self.reason: Reason | None = None

    def log(self, *what: Any) -> None:
        with self.lock:
            self.trace.append(list(what))

    def next_start(self, data: dict[str, Any]) -> str:
        name = data["id"]
        self.log("start", name)
        script = data.get("starts", ("ok",))
        turn = self.starts[name] = self.starts.get(name, 0) + 1
        how = script[min(turn, len(script)) - 1]
        if how == "hang":
            gate, answer = self.hanging[name] = (threading.Event(), [])
            assert gate.wait(60), "nobody released a hanging start"
            how = answer[0]
        return str(how)

    def worker(self, data: dict[str, Any]) -> type[Actor]:
        run = self

        class Worker(Actor):
            leaving = False

            def on_start(self) -> Any:
                how = run.next_start(data)
                if how == "ignore":
                    run.log("ignored", data["id"])
                    return IGNORE
                if how != "ok":
                    run.log("failed", data["id"])
                    raise RuntimeError(how)
                run.refs[data["id"]] = self.actor_ref
                return None

            def on_receive(self, message: Any) -> Any:
                self.leaving = True
                return Stop(REASONS[message])

            def on_terminate(self, reason: Reason) -> None:
                if self.leaving:
                    return
                run.log("term", data["id"], word(reason))
                manner = data.get("stop", "ok")
                if manner == "stubborn":
                    run.over.wait(60)
                elif manner != "ok":
                    raise EndsWith(REASONS[manner])

        return Worker

    def nested(self, spec: SupervisorSpec, name: str) -> type[Supervisor]:
        run = self

        class Inner(Supervisor):
            def init(self) -> SupervisorSpec:
                run.log("start", name)
                run.refs[name] = self.actor_ref
                return spec

            def on_terminate(self, reason: Reason) -> None:
                if isinstance(reason, ChildFailedToStart):
                    run.log("failed", name)

        return Inner

    def spec(self, tree: dict[str, Any]) -> SupervisorSpec:
        return self.with_logging(build(tree, self.worker))

    def with_logging(self, spec: SupervisorSpec) -> SupervisorSpec:
        """Replace declared subtrees by classes that say when they start."""
        children = tuple(self.child(one) for one in spec.children)
        return msgspec.structs.replace(spec, children=children)

    def child(self, spec: ChildSpec) -> ChildSpec:
        if not isinstance(spec.start, SupervisorSpec):
            return spec
        inner = self.nested(self.with_logging(spec.start), spec.name)
        return msgspec.structs.replace(spec, start=inner)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until nothing is left to do; when somebody only waits for time to pass, let it."""
        deadline = time.monotonic() + 60
        calm = since = 0.0
        while calm < 3:
            if self.hangs and all(not gate.is_set() for gate, _ in self.hanging.values()):
                time.sleep(0.01)
                if self.waiting_only():
                    return
            if self.settled():
                calm += 1
            else:
                calm = 0
                since += 1
                if since > 40 and not self.hangs:
                    self.clock.advance(0.05)
                    since = 0
            assert time.monotonic() < deadline, f"does not settle: {self.trace}"
            time.sleep(0.0005)

    def settled(self) -> bool:
        busy = any(isinstance(state, StaticState) and state.operation for state in list(self.states().values()))
        return not busy and is_quiet(self.system)

    def states(self) -> dict[Any, Any]:
        return {} if self.tree is None else dict(self.tree.context.states)

    def waiting_only(self) -> bool:
        """Whether every supervisor has looked at everything that came, and waits for a start that hangs."""
        return all(not ref.info().queued_system and ref.info().current_for is None for ref in list(self.states()))

    def play(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("exit", id_, reason):
                self.refs[id_].tell(reason)
            case ("kill", id_) | ("kill_supervisor", id_):
                self.refs[id_].kill()
            case ("die_together", on, deaths):
                self.together(self.refs[on], deaths)
            case ("call", on, function, args):
                self.patiently(lambda: self.log("result", function, self.call(on, function, args)))
            case ("async", on, function, args):
                helper = threading.Thread(
                    target=lambda: self.log("later", function, self.call(on, function, args)), daemon=True
                )
                self.helpers.append(helper)
                helper.start()
                eventually(lambda: not helper.is_alive() or is_queued(helper))  # in the order they are made
            case ("hanging", flag):
                self.hangs = flag == "true"
            case ("release", id_, how):
                self.release(id_, how)
            case ("which", on):
                try:
                    self.log("which", rows(SupervisorRef(self.refs[on]).which_children()))
                except ActorDead:
                    self.log("which", "gone")
            case ("count", on):
                try:
                    found = SupervisorRef(self.refs[on]).count_children()
                    self.log("count", found.specs, found.active, found.supervisors, found.workers)
                except ActorDead:
                    self.log("count", "gone")
            case ("wait", ms):
                self.clock.advance(ms / 1000)
            case ("parent_exit", reason):
                self.refs["root"].stop(block=False, reason=REASONS[reason])
            case ("stranger_exit", on, reason):
                self.refs[on].exit(REASONS[reason])
            case _:
                raise ValueError(step)

    def patiently(self, action: Callable[[], object]) -> None:
        """Do something that may have to wait for time to pass."""
        helper = threading.Thread(target=action)
        helper.start()
        while helper.is_alive():
            helper.join(0.02)
            if helper.is_alive():
                self.clock.advance(0.05)

    def release(self, id_: str, how: str) -> None:
        deadline = time.monotonic() + 60
        while id_ not in self.hanging or self.hanging[id_][0].is_set():
            assert time.monotonic() < deadline, f"{id_} does not hang: {self.trace}"
            time.sleep(0.001)
        gate, answer = self.hanging[id_]
        answer.append(how)
        gate.set()

    def together(self, supervisor: Any, deaths: Any) -> None:
        """Have several end while the supervisor is held up, so that it sees all of it at once."""
        gate, held = threading.Event(), threading.Event()

        def hold(_: Any) -> None:
            held.set()
            gate.wait(60)

        holder = threading.Thread(target=lambda: supervisor.replace_state(hold))
        holder.start()
        assert held.wait(60)
        for id_, reason in deaths:
            ref = self.refs[id_]
            if reason == "kill":
                ref.kill()
            else:
                ref.tell(reason)
            ref.join(60)
        gate.set()
        holder.join(60)

    def call(self, on: str, function: str, args: Any) -> Any:
        supervisor = SupervisorRef(self.refs[on])
        try:
            match function:
                case "start_child":
                    value = supervisor.start_child(self.child(build_child(args[0], self.worker)))
                case "restart_child":
                    value = supervisor.restart_child(*args)
                case "terminate_child":
                    supervisor.terminate_child(*args)
                    value = True
                case "delete_child":
                    supervisor.delete_child(*args)
                    value = True
                case _:
                    value = supervisor.get_spec(*args)
        except ActorDead:
            return "exit"
        except Exception as error:
            return result(function, None, error)
        return result(function, value, None)

    # -- the whole -----------------------------------------------------------------------------------------------------

    def run(self, steps: Any) -> list[Any]:
        try:
            try:
                spec = self.spec(self.data)
            except ConfigurationError as error:
                return [refused(self.data, error)]
            try:
                self.tree = Tree.start(self.system, spec, timeout=5)
            except StartFailed as failed:
                self.log("start_failed", ["failed_to_start", getattr(failed.reason, "child", None)])
                return self.trace
            self.refs["root"] = self.tree.root
            self.log("up")
            for step in steps:
                self.play(step)
                self.settle()
            if self.tree.running:
                self.log("ending")
                self.patiently(self.tree.stop)
                self.log("alive")
            else:
                self.log("ended", word(self.tree.wait(60)))
            return self.trace
        finally:
            self.over.set()
            for gate, answer in self.hanging.values():
                answer.append("error")
                gate.set()
            for helper in self.helpers:
                helper.join(60)
            self.system.stop(2)


def play(scenario: dict[str, Any]) -> list[Any]:
    """Run one scenario: its trace."""
    return Run(scenario["tree"]).run(scenario["steps"])
