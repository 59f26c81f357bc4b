"""Running trees: what the actor and its surroundings add to the decisions."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, ClassVar

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import IGNORE, Stop
from mlld_sdk.actors.core.errors import ActorCrashed, ActorDead, StartFailed, StartIgnored
from mlld_sdk.actors.core.exits import NORMAL, Killed, Shutdown
from mlld_sdk.actors.pubsub.groups import Groups
from mlld_sdk.actors.tasks.task_supervisor import Tasks
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.supervision import (
    Backoff,
    BreakerOpen,
    ChildAlreadyStarted,
    ChildFailedToStart,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    ChildUnavailable,
    EscalateFailure,
    GaveUp,
    InvalidOption,
    Misconfigured,
    StopAgent,
    Supervisor,
    SupervisorBusy,
    SupervisorRef,
    SupervisorStopping,
    Tree,
    budget,
    child,
    circuit_breaker,
    dynamic,
    one_for_all,
    one_for_one,
    rest_for_one,
    wedge,
)
from mlld_sdk.supervision.events import ChildExited, ChildStarted, ChildStopped, SupervisorStopped
from mlld_sdk.supervision.snapshot import walk
from tests.support.eventually import eventually
from tests.support.trees import Later, Puppet, World, attempt, is_up


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


# -- starting ----------------------------------------------------------------------------------------------------------


def test_a_tree_has_started_when_start_returns_and_not_before(world: World) -> None:  # SUP-15, T-7
    order: list[str] = []

    def begin(name: str) -> Callable[[Any], None]:
        return lambda _: order.append(name)

    world.start(
        one_for_one(
            child(Puppet, name="a", begin=begin("a")),
            one_for_one(
                child(Puppet, name="x", begin=begin("x")), child(Puppet, name="y", begin=begin("y")), name="in"
            ),
            child(Puppet, name="b", begin=begin("b")),
        )
    )
    assert order == ["a", "x", "y", "b"]


def test_a_failing_start_rolls_back_and_says_which_child_and_why(world: World) -> None:  # SUP-16, SUP-53-row S53
    stopped: list[str] = []

    def fails(_: Any) -> None:
        raise ValueError("no such file")

    spec = one_for_one(
        child(Puppet, name="a", finish=lambda *_: stopped.append("a")),
        child(Puppet, name="b", finish=lambda *_: stopped.append("b")),
        one_for_one(child(Puppet, name="c", begin=fails), name="in"),
        child(Puppet, name="d", begin=lambda _: stopped.append("never")),
    )
    with pytest.raises(StartFailed) as caught:
        world.start(spec)
    reason = caught.value.reason
    assert isinstance(reason, ChildFailedToStart)
    assert isinstance(reason.reason, ChildFailedToStart)
    assert (reason.child, reason.reason.child) == ("in", "c")
    assert "ValueError: no such file" in str(reason)
    assert stopped == ["b", "a"]
    assert world.system.actors() == []


def test_a_tree_that_hangs_at_its_start_is_killed(world: World) -> None:  # T-7
    spec = one_for_one(child(Puppet, name="a", begin=lambda _: world.release.wait(10), shutdown=0))
    with pytest.raises(TimeoutError):
        Tree.start(world.system, spec, timeout=0.05)
    assert eventually(lambda: not world.system.actors())


def test_a_child_that_hangs_at_its_start_is_a_failed_start(world: World) -> None:  # T-7, otp#8361
    spec = one_for_one(child(Puppet, name="a", begin=lambda _: world.release.wait(10), start_timeout=2))
    failures: list[StartFailed] = []

    def start() -> None:
        try:
            world.start(spec)
        except StartFailed as failed:
            failures.append(failed)

    starter = threading.Thread(target=start)
    starter.start()
    eventually(lambda: len(world.system.timers))
    world.clock.advance(2.1)
    starter.join(60)
    assert "did not start in time" in str(failures[0].reason)


class Made(Supervisor):
    made = 0

    def init(self, answer: Any) -> Any:
        type(self).made += 1
        return answer() if callable(answer) else answer


def test_a_supervisor_class_that_has_nothing_to_do_is_ignored(world: World) -> None:  # SUP-17
    with pytest.raises(StartIgnored):
        world.start(child(Made, IGNORE))
    tree = world.start(one_for_one(child(Made, IGNORE), child(Puppet, name="a")))
    assert [row.status for row in tree.supervisor.which_children()] == ["running", "stopped"]


def test_a_supervisor_class_whose_init_fails_fails_the_start(world: World) -> None:  # SUP-17
    def raises() -> None:
        raise LookupError("no plan")

    with pytest.raises(StartFailed, match="no plan"):
        world.start(child(Made, raises))
    with pytest.raises(StartFailed, match="init"):
        world.start(child(Made, "rubbish"))
    with pytest.raises(StartFailed):
        world.start(one_for_one(child(Supervisor)))


def test_init_is_asked_again_at_every_restart_of_the_supervisor(world: World) -> None:  # SUP-36, ES10
    Made.made = 0
    tree = world.start(one_for_one(child(Made, lambda: one_for_one(child(Puppet, name=f"w{Made.made}")))))
    assert [row.name for row in tree["made"].supervisor().which_children()] == ["w1"]
    tree["made"].ref().kill()
    world.settle()
    assert [row.name for row in tree["made"].supervisor().which_children()] == ["w2"]


def test_a_taken_name_is_reported_as_such(world: World) -> None:  # SUP-18, SUP-54, S77
    holder = world.system.start(Puppet, name="the-one")
    tree = world.start(one_for_one())
    with pytest.raises(ChildAlreadyStarted) as caught:
        tree.supervisor.start_child(child(Puppet, register="the-one"))
    assert caught.value.ref is holder
    assert tree.supervisor.which_children() == []


def test_registered_names_come_back_with_the_next_incarnation(world: World) -> None:  # S65, ES8
    tree = world.start(one_for_one(one_for_one(child(Puppet, name="w", register="w"), name="in")))
    first = world.system["w"]
    world.crash(tree, "in/w")
    second = world.system["w"]
    assert second is not first
    tree["in"].ref().kill()
    world.settle()
    assert world.system["w"] not in (first, second)
    assert world.system["w"] is tree["in/w"].ref()


def test_nesting_costs_no_threads(world: World) -> None:
    spec = one_for_one(child(Puppet, name="leaf"), name="l0")
    for depth in range(60):
        spec = one_for_one(spec, child(Puppet, name="leaf"), name=f"l{depth + 1}")
    before = threading.active_count()
    tree = world.start(spec)
    assert threading.active_count() <= before + 3
    path = "/".join(f"l{depth}" for depth in range(59, -1, -1)) + "/leaf"
    world.crash(tree, path)
    assert tree[path].call("hello") == "hello"
    assert tree.stop().clean
    assert world.system.actors() == []


def test_a_root_takes_no_options_that_mean_nothing(world: World) -> None:
    with pytest.raises(InvalidOption, match="spec"):
        world.start(child(Puppet))
    with pytest.raises(InvalidOption, match="backoff"):
        world.start(child(one_for_one(), backoff=Backoff.of(1)))
    assert world.system.actors() == []


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_children_stop_one_at_a_time_in_reverse_order(world: World) -> None:  # SUP-19
    log: list[str] = []

    def finish(name: str) -> Callable[[Any, Any], None]:
        def run(*_: Any) -> None:
            log.append(f"{name} stops")
            time.sleep(0.01)
            log.append(f"{name} stopped")

        return run

    tree = world.start(one_for_one(*[child(Puppet, name=n, finish=finish(n)) for n in "abc"]))
    report = tree.stop()
    assert log == [f"{n} {what}" for n in "cba" for what in ("stops", "stopped")]
    assert report.clean
    assert isinstance(report.reason, Shutdown)


def test_a_child_that_does_not_stop_in_time_is_killed_and_named_in_the_report(
    world: World,
) -> None:  # SUP-20, suture#34
    spec = one_for_one(
        child(Puppet, name="a"), one_for_one(child(Puppet, name="stuck", shutdown=3, finish=world.blocks()), name="in")
    )
    tree = world.start(spec)
    stopper = Later(tree.stop)
    world.advance_until(lambda: not stopper.running)
    report = stopper.result()
    assert report.killed == ("root/in/stuck",)
    assert not report.clean
    stopped = [event for event in world.events.named("child.stopped") if event.path == "root/in/stuck"]
    assert [(one.killed, one.overdue, one.context) for one in stopped] == [(True, True, "shutdown_error")]


def test_code_of_a_killed_child_that_still_runs_is_named_in_the_report(world: World) -> None:  # SUP-20
    tree = world.start(one_for_one(child(Puppet, name="a"), dynamic(name="d")))
    begun = threading.Event()
    killed = tree["a"].ref()
    killed.tell(lambda _: begun.set() or world.release.wait(60))
    assert begun.wait(60)
    killed.kill()
    assert tree.wait_until(lambda root: root.children[0].restarts == 1)
    report = tree.stop()
    assert (report.killed, report.left) == ((), ("root/a",))
    assert not report.clean


def test_the_deadline_is_handed_down_through_every_level(world: World) -> None:  # T-12
    spec = child(Puppet, name="stuck", shutdown=inf, finish=world.blocks())
    for depth in range(4):
        spec = child(one_for_one(spec, name=f"l{depth}"))
    tree = world.start(one_for_one(spec, child(Puppet, name="b")))
    stuck = tree["l3/l2/l1/l0/stuck"].ref()
    stopper = Later(lambda: tree.stop(timeout=10))
    eventually(lambda: stuck.info().state == "stopping")
    world.clock.advance(9.5)
    passed = 9.5 + world.advance_until(lambda: not stopper.running, 0.01)
    assert stopper.result().killed == ("root/l3/l2/l1/l0/stuck",)
    assert passed <= 10
    assert world.events.named("supervisor.stopped")[0].killed == ("root/l3/l2/l1/l0/stuck",)


def test_stop_interrupts_a_start_that_hangs(world: World) -> None:  # D-1, circus#935
    hang = threading.Event()
    started: list[str] = []
    tree = world.start(one_for_one(child(Puppet, name="a"), child(Puppet, name="b"), max_restarts=9))

    def begin(_: Any) -> None:
        started.append("n")
        hang.wait(60)

    sup = tree.supervisor
    adding = Later(lambda: attempt(lambda: sup.start_child(child(Puppet, name="n", shutdown=1, begin=begin))))
    eventually(lambda: started)
    stopper = Later(tree.stop)
    assert isinstance(adding.result(), SupervisorStopping)
    world.advance_until(lambda: not stopper.running)
    hang.set()
    assert stopper.result().killed == ("root/n",)


def test_a_restart_that_fails_while_its_siblings_are_being_stopped_does_not_stop_the_stop(world: World) -> None:  # D-1
    fails, ends = threading.Event(), threading.Event()
    starts: list[str] = []

    def begin(_: Puppet) -> None:
        starts.append("a")
        if len(starts) == 2:
            fails.wait(60)
            raise RuntimeError("does not come back")

    b = child(Puppet, name="b", finish=lambda *_: ends.wait(10) and None)
    tree = world.start(one_for_one(child(Puppet, name="a", begin=begin), b, max_restarts=9))
    tree["a"].ref().tell(RuntimeError("boom"))
    eventually(lambda: len(starts) == 2)
    stopper = Later(tree.stop)
    eventually(lambda: tree.snapshot().children[1].state == "stopping")
    fails.set()
    eventually(lambda: tree.snapshot().children[0].state == "stopped")
    ends.set()
    assert stopper.result().clean
    assert len(starts) == 2


def test_stop_is_safe_at_any_time_and_as_often_as_one_likes(world: World) -> None:  # suture#12, #14, #38
    tree = world.start(one_for_one(child(Puppet, name="a")))
    stoppers = [Later(tree.stop) for _ in range(5)]
    assert all(stopper.result().clean for stopper in stoppers)
    assert tree.stop().clean
    assert not tree.running
    gone = world.start(one_for_one(child(Puppet, name="a"), max_restarts=0))
    gone["a"].ref().kill()
    assert isinstance(gone.wait(60), GaveUp)
    assert isinstance(gone.stop().reason, GaveUp)


def test_draining_children_handle_first_what_waits_for_them(world: World) -> None:
    seen: list[int] = []
    tree = world.start(one_for_one(child(Puppet, name="a")))
    ref = tree["a"].ref()
    hold = threading.Event()
    ref.tell(lambda _: hold.wait(5))
    for number in range(5):
        ref.tell(lambda _, number=number: seen.append(number))
    stopper = Later(lambda: tree.stop(drain=True))
    world.events.wait_for(lambda _: True)
    hold.set()
    assert stopper.result().clean
    assert seen == [0, 1, 2, 3, 4]


def test_a_child_that_dies_badly_in_its_own_stop_does_not_disturb_the_others(world: World) -> None:  # SUP-22
    def bad(*_: Any) -> None:
        raise RuntimeError("in the stop hook")

    tree = world.start(
        one_for_one(child(Puppet, name="a"), child(Puppet, name="b", finish=bad), child(Puppet, name="c"))
    )
    assert tree.stop().clean
    contexts = {event.path: event.context for event in world.events.named("child.stopped")}
    assert contexts == {"root/c": "", "root/b": "shutdown_error", "root/a": ""}


# -- nobody is left behind ---------------------------------------------------------------------------------------------


def test_a_killed_supervisor_leaves_nobody(world: World) -> None:  # SUP-26, T-6
    ends: list[str] = []
    spec = one_for_one(
        child(Puppet, name="a", finish=lambda _, reason: ends.append(str(reason))),
        one_for_one(child(Puppet, name="x"), dynamic(name="d"), name="in"),
        dynamic(name="d"),
    )
    tree = world.start(spec)
    for path in ("d", "in/d"):
        for _ in range(10):
            tree[path].supervisor().start_child(child(Puppet))
    tree.root.kill()
    eventually(lambda: not world.system.actors())
    assert ends == ["killed"]


def test_orphans_that_do_not_listen_are_killed_when_their_own_time_is_up(world: World) -> None:  # SUP-26, T-6
    tree = world.start(one_for_one(child(Puppet, name="a", shutdown=3)))
    ref = tree["a"].ref()
    ref.tell(lambda _: world.release.wait(10))
    eventually(lambda: ref.info().current_for is not None)
    tree.root.kill()
    eventually(lambda: len(world.system.timers))
    assert ref.is_alive()
    world.clock.advance(3.1)
    eventually(lambda: not ref.is_alive())
    assert isinstance(ref.join(5), Killed)


def test_a_supervisor_killed_in_the_middle_of_its_stop_leaves_nobody(world: World) -> None:  # SUP-23, otp#3670
    tree = world.start(
        one_for_one(
            *[child(Puppet, name=n, shutdown=30) for n in "abc"],
            child(Puppet, name="s", shutdown=30, finish=world.blocks()),
        )
    )
    refs = [tree[n].ref() for n in "abcs"]
    stopper = Later(lambda: tree.stop(timeout=60))
    eventually(lambda: refs[3].info().state == "stopping")
    tree.root.kill()
    stopper.result()
    eventually(lambda: not any(ref.is_alive() for ref in refs))
    world.advance_until(lambda: all(ref.reason is not None for ref in refs), 5)


def test_a_supervisor_killed_while_a_child_starts_leaves_nobody(world: World) -> None:  # T-6
    begun = threading.Event()

    def begin(_: Any) -> None:
        begun.set()
        world.release.wait(10)

    tree = world.start(one_for_one())
    adding = Later(lambda: attempt(lambda: tree.supervisor.start_child(child(Puppet, shutdown=1, begin=begin))))
    assert begun.wait(60)
    tree.root.kill()
    assert isinstance(adding.result(), ActorDead)
    world.advance_until(lambda: not world.system.actors())


def test_a_bug_in_the_supervisor_itself_is_a_crash_like_any_other(world: World) -> None:  # T-6
    tree = world.start(one_for_one(one_for_one(child(Puppet, name="x"), name="in")))
    old = tree["in/x"].ref()
    executor = tree["in"].ref().cell.actor.executor
    executor.state = None  # whatever it decides next will raise
    old.kill()
    eventually(lambda: attempt(lambda: tree["in/x"].ref().is_alive()) is True)
    assert tree["in/x"].ref() is not old
    assert [event.kind for event in world.events.named("child.exited") if event.path == "root/in"] == ["crash"]


# -- who may call whom when --------------------------------------------------------------------------------------------


def test_a_child_that_calls_its_supervisor_from_its_start_is_refused_instead_of_hanging(
    world: World,
) -> None:  # SUP-59, D-2, T-11
    tree = world.start(one_for_one())
    errors: list[Any] = []

    def begin(puppet: Puppet) -> None:
        errors.append(attempt(lambda: tree.supervisor.which_children(timeout=5)))

    tree.supervisor.start_child(child(Puppet, name="n", begin=begin))
    assert isinstance(errors[0], SupervisorBusy)
    assert (errors[0].child, errors[0].phase) == ("n", "start")
    assert "init" in str(errors[0])


def test_so_is_a_grandchild_that_starts_and_a_child_that_stops(world: World) -> None:  # D-2, T-11
    tree = world.start(one_for_one())
    errors: list[Any] = []

    def ask(*_: Any) -> None:
        errors.append(attempt(lambda: tree.supervisor.count_children(timeout=5)))

    tree.supervisor.start_child(one_for_one(child(Puppet, name="x", begin=ask), name="in"))
    tree.supervisor.start_child(child(Puppet, name="s", finish=ask))
    tree.supervisor.terminate_child("s")
    assert [(error.child, error.phase) for error in errors] == [("in", "start"), ("s", "stop")]


def test_so_is_a_task_that_works_for_a_child_that_starts(world: World) -> None:  # D-2, T-11
    tree = world.start(one_for_one())
    tasks = Tasks.start(world.system)
    errors: list[Any] = []

    def begin(_: Any) -> None:
        task = tasks.async_nolink(lambda: attempt(lambda: tree.supervisor.count_children(timeout=5)))
        errors.append(task.result(timeout=5))

    tree.supervisor.start_child(child(Puppet, name="n", begin=begin))
    assert isinstance(errors[0], SupervisorBusy)


def test_a_child_may_have_itself_terminated(world: World) -> None:  # SUP-59, D-3
    tree = world.start(one_for_one(child(Puppet, name="a"), dynamic(name="d")))
    assert tree["a"].call(lambda _: tree.supervisor.terminate_child("a")) is None
    world.settle()
    assert [row.status for row in tree.supervisor.which_children()] == ["running", "stopped"]
    crowd = tree["d"].supervisor()
    ref = crowd.start_child(child(Puppet))
    assert ref is not None
    ref.tell(lambda puppet: crowd.terminate_child(puppet.actor_ref))
    assert isinstance(ref.join(5), Shutdown)


def test_a_call_to_a_supervisor_that_is_gone_says_so(world: World) -> None:  # S23
    tree = world.start(one_for_one())
    tree.stop()
    with pytest.raises(ActorDead):
        tree.supervisor.count_children()


def test_a_stranger_and_a_strange_message_change_nothing(world: World) -> None:  # SUP-25, SUP-27
    tree = world.start(one_for_one(child(Puppet, name="a")))
    for reason in ("shutdown", "normal", "foo"):
        tree.root.exit(reason)
    tree.root.tell("hello?")
    stranger = world.system.start(Puppet)
    stranger.tell(lambda puppet: tree.root.exit("foo"))
    world.settle()
    assert tree.running
    assert tree.supervisor.count_children().active == 1


# -- restarts that wait ------------------------------------------------------------------------------------------------


def test_a_supervisor_answers_and_its_other_children_run_while_a_restart_is_delayed(
    world: World,
) -> None:  # J-7, SUP-45
    tree = world.start(
        one_for_one(child(Puppet, name="a", backoff=Backoff.of(2, most=8, jitter=0)), child(Puppet, name="b"))
    )
    world.crash(tree, "a")
    assert tree["b"].call("here") == "here"
    assert [row.status for row in tree.supervisor.which_children()] == ["running", "restarting"]
    assert tree.supervisor.count_children().active == 1
    with pytest.raises(ChildUnavailable) as caught:
        tree["a"].call("there?")
    assert (caught.value.state, caught.value.retry_after) == ("waiting", 2.0)
    for call in (tree.supervisor.restart_child, tree.supervisor.delete_child):
        with pytest.raises(ChildRestarting):
            call("a")
    world.clock.advance(1.9)
    world.settle()
    assert not is_up(tree, "a")
    world.clock.advance(0.2)
    eventually(lambda: is_up(tree, "a"))


def test_a_stop_calls_delayed_restarts_off_first(world: World) -> None:  # circus#965
    tree = world.start(one_for_one(child(Puppet, name="a", backoff=Backoff.of(2, jitter=0)), child(Puppet, name="b")))
    world.crash(tree, "a")
    assert tree.stop().clean
    assert len(world.system.timers) == 0
    world.clock.advance(10)
    world.settle()
    starts = [event.path for event in world.events.named("child.started")]
    assert starts == ["root/a", "root/b"]


def test_siblings_behind_a_failed_start_are_stopped_and_can_be_started(world: World) -> None:  # SUP-53, SUP-55
    fails: list[int] = []

    def begin(_: Any) -> None:
        if fails:
            raise RuntimeError("not this time")

    delayed = child(Puppet, name="a", begin=begin, backoff=Backoff(60.0, jitter=0))
    tree = world.start(one_for_all(delayed, child(Puppet, name="b"), max_restarts=5))
    fails.append(1)
    world.crash(tree, "b")
    assert [node.state for node in tree.snapshot().children] == ["waiting", "stopped"]
    tree.supervisor.terminate_child("a", "looking into it")
    tree.supervisor.restart_child("b")
    assert [node.state for node in tree.snapshot().children] == ["stopped", "running"]


def test_terminate_child_calls_a_delayed_restart_off(world: World) -> None:  # SUP-53, SUP-56
    tree = world.start(one_for_one(child(Puppet, name="a", backoff=Backoff.of(2, jitter=0))))
    world.crash(tree, "a")
    tree.supervisor.terminate_child("a", "looking into it")
    world.clock.advance(10)
    world.settle()
    assert tree.supervisor.which_children()[0].status == "stopped"
    assert tree.verdict().word == "recovering"
    assert tree.supervisor.restart_child("a") is not None


def test_a_delayed_group_restart_keeps_the_group_down(world: World) -> None:  # J-7
    tree = world.start(
        rest_for_one(
            child(Puppet, name="a"),
            child(Puppet, name="b", backoff=Backoff.of(2, jitter=0)),
            child(Puppet, name="c"),
        )
    )
    world.crash(tree, "b")
    assert [is_up(tree, name) for name in "abc"] == [True, False, False]
    world.clock.advance(2)
    eventually(lambda: is_up(tree, "c"))
    assert is_up(tree, "b")


def test_start_attempts_that_fail_wait_longer_each_time(world: World) -> None:
    attempts: list[float] = []

    def begin(_: Any) -> None:
        attempts.append(world.clock.time)
        if len(attempts) in (2, 3):
            raise RuntimeError("port in use")

    spec = child(Puppet, name="a", begin=begin, backoff=Backoff.of(1, factor=3, most=30, jitter=0))
    tree = world.start(one_for_one(spec, max_restarts=9, within=100))
    world.crash(tree, "a")
    for wait in (1, 3, 9):
        world.clock.advance(wait)
        world.settle()
    assert [round(at - attempts[0]) for at in attempts] == [0, 1, 4, 13]
    assert is_up(tree, "a")


# -- ends that are not restarts ----------------------------------------------------------------------------------------


def test_a_child_can_end_for_good(world: World) -> None:  # J-2, suture#39
    tree = world.start(one_for_one(child(Puppet, name="a"), child(Puppet, name="b")))
    world.crash(tree, "a", StopAgent("all work is done"))
    rows = tree.supervisor.which_children()
    assert [row.status for row in rows] == ["running", "stopped"]
    event = world.events.named("child.exited")[0]
    assert (event.kind, event.decision, event.reason) == ("stop", "stop", "stopped for good: all work is done")
    assert tree.verdict().word == "healthy"


def test_a_child_can_take_its_supervisor_down(world: World) -> None:  # J-2, suture#39
    tree = world.start(one_for_one(one_for_one(child(Puppet, name="x"), name="in"), child(Puppet, name="b")))
    old = tree["in"].ref()
    world.crash(tree, "in/x", EscalateFailure("licence expired"))
    assert isinstance(old.reason, GaveUp)
    assert (old.reason.why, old.reason.culprit) == ("escalated", "root/in/x")
    assert is_up(tree, "in/x")
    assert tree["in"].ref() is not old


def test_a_missing_program_fails_the_start_at_once(world: World) -> None:  # J-9, circus#1157
    def begin(_: Any) -> None:
        raise ConfigurationError("no program `mlld`", hint="install it")

    with pytest.raises(StartFailed) as caught:
        world.start(one_for_one(child(Puppet, name="a", begin=begin)))
    reason = caught.value.reason
    assert isinstance(reason, ChildFailedToStart)
    assert isinstance(reason.reason, Misconfigured)
    assert str(reason) == "child `a` failed to start: no program `mlld` (install it)"
    assert len(world.events.named("child.start_failed")) == 1


def test_a_restart_that_fails_on_configuration_is_not_tried_again_and_its_siblings_live(world: World) -> None:  # J-9
    broken = threading.Event()

    def begin(_: Any) -> None:
        if broken.is_set():
            raise ConfigurationError("no program `mlld`")

    tree = world.start(one_for_one(child(Puppet, name="a", begin=begin), child(Puppet, name="b")))
    broken.set()
    world.crash(tree, "a")
    assert [event.decision for event in world.events.named("child.start_failed")] == ["fail"]
    assert is_up(tree, "b")
    assert tree.verdict().word == "gave_up"
    with pytest.raises(ChildUnavailable, match="failed"):
        tree["a"].call("there?")
    with pytest.raises(ChildStartFailed):
        tree.supervisor.restart_child("a")
    broken.clear()
    tree.supervisor.restart_child("a")
    assert is_up(tree, "a")


@pytest.mark.parametrize("strategy", [one_for_all, rest_for_one])
def test_a_restart_that_fails_on_configuration_ends_a_group(world: World, strategy: Any) -> None:  # J-9, J-11
    broken = threading.Event()

    def begin(_: Any) -> None:
        if broken.is_set():
            raise ConfigurationError("no program `mlld`")

    tree = world.start(strategy(child(Puppet, name="a", begin=begin), child(Puppet, name="b")))
    broken.set()
    world.crash(tree, "a")
    assert [event.decision for event in world.events.named("child.start_failed")] == ["give_up"]
    assert isinstance(tree.wait(60), GaveUp)


# -- giving up ---------------------------------------------------------------------------------------------------------


def test_giving_up_is_abnormal_for_the_parent_unless_it_shall_be_as_in_otp(world: World) -> None:  # SUP-43, elixir#5550
    def inner(give_up_as: Any) -> Any:
        spec = one_for_one(child(Puppet, name="x"), max_restarts=0, name="in", give_up_as=give_up_as)
        return one_for_one(child(spec, restart="transient"))

    tree = world.start(inner("failure"))
    world.crash(tree, "in/x")
    assert is_up(tree, "in/x")
    exited = [event for event in world.events.named("child.exited") if event.path == "root/in"]
    assert [(event.kind, event.decision) for event in exited] == [("gave_up", "restart")]
    as_otp = world.start(inner("shutdown"), name="otp")
    world.crash(as_otp, "in/x")
    assert as_otp.supervisor.which_children()[0].status == "stopped"


def test_a_root_that_gives_up_says_who_and_why(world: World) -> None:  # SUP-42, supervisord#755
    tree = world.start(one_for_one(child(Puppet, name="a"), child(Puppet, name="b"), max_restarts=1))
    world.crash(tree, "b")
    tree["b"].ref().tell(RuntimeError("again"))
    reason = tree.wait(5)
    assert isinstance(reason, GaveUp)
    assert str(reason) == "gave up on `root/b` (limit): RuntimeError: again"
    event = world.events.named("supervisor.gave_up")[0]
    assert (event.culprit, event.why, event.context) == ("root/b", "limit", "shutdown")
    assert (event.budget.used, event.budget.limit) == (2, 1)


def test_a_child_with_its_own_budget_goes_down_alone(world: World) -> None:  # J-6, elixir#6123
    tree = world.start(
        one_for_one(child(Puppet, name="a", budget=budget(1, 60)), child(Puppet, name="b"), max_restarts=0)
    )
    world.crash(tree, "a")
    world.crash(tree, "a")
    assert [event.decision for event in world.events.named("child.exited")] == ["restart", "fail"]
    assert is_up(tree, "b")


# -- breakers ----------------------------------------------------------------------------------------------------------


def test_callers_of_a_place_behind_an_open_breaker_are_refused_at_once(world: World) -> None:
    policy = circuit_breaker(failures=1, open_for=10)
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=policy, backoff=Backoff.of(0.001)), max_restarts=9))
    with pytest.raises(ActorCrashed):
        tree["a"].call(RuntimeError("down"))
    eventually(lambda: world.clock.advance(0.01) is None and is_up(tree, "a"))
    with pytest.raises(BreakerOpen) as caught:
        tree["a"].call("hello")
    assert 0 < caught.value.retry_after <= 10
    assert tree.verdict().word in ("degraded", "flapping")
    world.clock.advance(10)
    assert tree["a"].call("hello") == "hello"
    assert tree["a"].breaker().view().status == "closed"  # type: ignore[union-attr]


def test_a_parking_breaker_keeps_a_flapping_child_down_and_its_siblings_up(world: World) -> None:  # J-4, J-8
    policy = circuit_breaker(failures=2, open_for=10, growth=2, parks=True)
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=policy), child(Puppet, name="b"), max_restarts=1))
    world.crash(tree, "a")
    world.crash(tree, "a")
    exits = world.events.named("child.exited")
    assert [(event.decision, event.next_attempt_in) for event in exits] == [("restart", None), ("park", 10.0)]
    assert is_up(tree, "b")
    assert tree.verdict().word == "flapping"
    assert "parked" in str(tree)
    world.clock.advance(10)
    eventually(lambda: is_up(tree, "a"))
    world.crash(tree, "a")  # the probe dies
    assert world.events.named("child.exited")[-1].next_attempt_in == 20.0
    world.clock.advance(20)
    eventually(lambda: is_up(tree, "a"))
    assert tree["a"].breaker().view().status == "half_open"  # type: ignore[union-attr]
    world.clock.advance(6)
    world.settle()
    eventually(lambda: tree["a"].breaker().view().status == "closed")  # type: ignore[union-attr]


def test_resetting_a_breaker_by_hand_brings_its_parked_child_back(world: World) -> None:
    policy = circuit_breaker("model", failures=1, open_for=1000, longest=1000, parks=True)
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=policy), child(Puppet, name="b", breaker=policy)))
    world.crash(tree, "a")
    world.crash(tree, "b")
    assert not is_up(tree, "a")
    assert not is_up(tree, "b")
    tree.breakers["model"].reset()
    eventually(lambda: is_up(tree, "a") and is_up(tree, "b"))


def test_one_crash_is_one_failure_for_the_breaker_and_being_down_is_none(world: World) -> None:
    policy = circuit_breaker(failures=2, open_for=10)
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=policy, backoff=Backoff.of(5, jitter=0))))
    place = tree["a"]
    with pytest.raises(ActorCrashed):
        place.call(RuntimeError("down"))
    world.settle()
    for _ in range(5):
        with pytest.raises(ChildUnavailable):
            place.call("there?")
    guard = place.breaker()
    assert guard is not None
    assert (guard.view().status, guard.view().failures) == ("closed", 1)
    world.clock.advance(5)
    eventually(lambda: is_up(tree, "a"))
    assert place.call("hello") == "hello"
    assert guard.view().failures == 0


def test_a_silent_child_opens_the_breaker_of_its_callers(world: World) -> None:
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=circuit_breaker(failures=2))))
    tree["a"].tell(lambda _: world.release.wait(10))
    for _ in range(2):
        with pytest.raises(TimeoutError):
            tree["a"].call("there?", timeout=0.01)
    with pytest.raises(BreakerOpen):
        tree["a"].call("there?", timeout=0.01)


def test_stopping_the_probe_of_a_breaker_says_nothing_about_it(world: World) -> None:
    policy = circuit_breaker("model", failures=1, open_for=10, parks=True)
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=policy)))
    world.crash(tree, "a")
    world.clock.advance(10)
    eventually(lambda: is_up(tree, "a"))
    tree.supervisor.terminate_child("a")
    assert tree.breakers["model"].view().status == "half_open"
    tree.breakers["model"].acquire().settle()
    assert tree.breakers["model"].view().status == "closed"


# -- stuck children ----------------------------------------------------------------------------------------------------


def test_a_child_that_makes_no_progress_is_killed_and_started_afresh(world: World) -> None:  # J-10, E-7, celery#8030
    tree = world.start(one_for_one(child(Puppet, name="a", wedge=wedge(5)), child(Puppet, name="idle", wedge=wedge(5))))
    old, idle = tree["a"].ref(), tree["idle"].ref()
    old.tell(lambda _: world.release.wait(10))
    eventually(lambda: old.info().current_for is not None)
    world.clock.advance(4)
    assert tree["a"].ref() is old
    world.clock.advance(2)
    eventually(lambda: world.clock.advance(1) is None and is_up(tree, "a") and tree["a"].ref() is not old)
    assert tree["idle"].ref() is idle
    event = world.events.named("child.wedged")[0]
    assert (event.path, event.times, event.rung) == ("root/a", 1, 0)
    assert event.idle >= 5
    exited = world.events.named("child.exited")[0]
    assert (exited.kind, exited.decision) == ("wedged", "restart")


def test_a_stuck_child_climbs_the_ladder_its_spec_names(world: World) -> None:  # J-10
    seen: list[str] = []
    spec = child(
        Puppet,
        name="a",
        model="small",
        begin=lambda puppet: seen.append(puppet.options["model"]),
        wedge=wedge(5, times=1, ladder=[{"model": "medium"}, {"model": "large"}]),
    )
    tree = world.start(one_for_one(spec, max_restarts=9))
    for _ in range(3):
        ref = tree["a"].ref()
        ref.tell(lambda _: world.release.wait(10))
        eventually(lambda ref=ref: ref.info().current_for is not None)
        eventually(lambda ref=ref: world.clock.advance(1) is None and ref.reason is not None)
        eventually(lambda ref=ref: not tree.running or (is_up(tree, "a") and tree["a"].ref() is not ref))
    assert seen == ["small", "medium", "large"]
    reason = tree.wait(5)
    assert isinstance(reason, GaveUp)
    assert reason.why == "ladder"


def test_a_class_that_works_beside_its_mailbox_says_itself_that_it_is_stuck(world: World) -> None:
    class Engine(Puppet):
        idle = 0.0

        def stuck_for(self) -> float:
            return self.idle

    tree = world.start(one_for_one(child(Engine, name="e", wedge=wedge(5))))
    old = tree["e"].ref()
    old.call(lambda engine: setattr(engine, "idle", 7.0))
    world.clock.advance(5.1)
    eventually(lambda: is_up(tree, "e") and tree["e"].ref() is not old)


# -- live changes ------------------------------------------------------------------------------------------------------


def test_an_update_merges_specs_and_flags_and_starts_and_stops_nothing(world: World) -> None:  # SUP-72, S69
    tree = world.start(one_for_one(child(Puppet, name="a"), child(Puppet, name="b"), child(Puppet, name="c")))
    refs = {name: tree[name].ref() for name in "abc"}
    tree.supervisor.update(
        one_for_all(child(Puppet, name="n"), child(Puppet, name="b", shutdown=1), max_restarts=7, within=70)
    )
    rows = tree.supervisor.which_children()
    assert [(row.name, row.status) for row in rows] == [
        ("c", "running"),
        ("a", "running"),
        ("b", "running"),
        ("n", "stopped"),
    ]
    assert {name: tree[name].ref() for name in "abc"} == refs
    assert tree.supervisor.get_spec("b").shutdown == 1
    event = world.events.named("supervisor.updated")[0]
    assert (event.replaced, event.added) == (("b",), ("n",))
    world.crash(tree, "a")
    assert all(tree[name].ref() is not refs[name] for name in "abc")
    assert is_up(tree, "n")
    assert tree.snapshot().budget.limit == 7  # type: ignore[union-attr]


def test_a_wrong_update_changes_nothing(world: World) -> None:  # SUP-73
    tree = world.start(one_for_one(child(Puppet, name="a")))
    before = tree.context.states[tree.root]
    with pytest.raises(ConfigurationError):
        tree.supervisor.update(one_for_one("rubbish"))
    assert tree.context.states[tree.root] == before


def test_changed_significance_counts_for_later_ends_only(world: World) -> None:  # SUP-74, S85-S91
    def spec(mode: Any, *, significant: bool) -> Any:
        children = [child(Puppet, name=n, restart="temporary", significant=significant) for n in ("a", "b", "c")]
        return one_for_one(*children, auto_shutdown=mode)

    tree = world.start(spec("never", significant=False))
    tree["a"].ref().stop()
    world.settle()
    assert tree.running
    tree.supervisor.update(spec("all_significant", significant=True))
    tree["b"].ref().stop()
    world.settle()
    assert tree.running
    tree.supervisor.update(spec("any_significant", significant=True))
    assert tree.running
    tree["c"].ref().stop()
    assert isinstance(tree.wait(60), Shutdown)


def test_never_again_means_never(world: World) -> None:  # SUP-74, S86
    significant = child(Puppet, name="a", restart="transient", significant=True)
    tree = world.start(one_for_one(significant, auto_shutdown="any_significant"))
    tree.supervisor.update(one_for_one(child(Puppet, name="a", restart="transient")))
    tree["a"].ref().stop()
    world.settle()
    assert tree.running
    with pytest.raises(ConfigurationError):
        tree.supervisor.start_child(child(Puppet, name="s", restart="transient", significant=True))


# -- reports, snapshots, memory ----------------------------------------------------------------------------------------


def test_every_transition_is_exactly_one_event(world: World) -> None:  # SUP-29, SUP-75, E-1 to E-6
    tree = world.start(one_for_one(child(Puppet, name="a"), child(Puppet, name="t", restart="transient")))
    world.crash(tree, "a")
    tree["a"].ref().stop()
    world.settle()
    tree["t"].ref().stop()
    world.settle()
    tree.stop()
    told = [
        (type(event).__name__, event.path.removeprefix("root/"), event.incarnation)  # type: ignore[attr-defined]
        for event in world.events.events
        if isinstance(event, ChildStarted | ChildExited | ChildStopped)
    ]
    assert told == [
        ("ChildStarted", "a", 1),
        ("ChildStarted", "t", 1),
        ("ChildExited", "a", 1),
        ("ChildStarted", "a", 2),
        ("ChildExited", "a", 2),
        ("ChildStarted", "a", 3),
        ("ChildExited", "t", 1),
        ("ChildStopped", "a", 3),
    ]
    crash = world.events.named("child.exited")[0]
    assert (crash.context, crash.kind, crash.reason, crash.blame) == (
        "child_terminated",
        "crash",
        "RuntimeError: boom",
        "root",
    )
    assert "RuntimeError: boom" in crash.trace
    assert len(crash.crash_id) == 8
    assert (crash.budget.used, crash.budget.limit) == (1, 3)
    assert sum(isinstance(event, SupervisorStopped) for event in world.events.events) == 1


def test_a_listener_that_raises_is_not_felt(world: World) -> None:  # T-21
    def bad(_: Any) -> None:
        raise RuntimeError("listener")

    tree = world.start(one_for_one(child(Puppet, name="a")), sink=bad)
    world.crash(tree, "a")
    assert is_up(tree, "a")
    assert tree.stop().clean


def test_a_snapshot_asks_nobody(world: World) -> None:  # live dashboard #156
    begun = threading.Event()

    def begin(_: Any) -> None:
        begun.set()
        world.release.wait(10)

    tree = world.start(one_for_one(child(Puppet, name="a"), one_for_one(child(Puppet, name="x"), name="in")))
    tree["a"].ref().tell(lambda _: world.release.wait(10))
    adding = Later(lambda: attempt(lambda: tree["in"].supervisor().start_child(child(Puppet, name="n", begin=begin))))
    assert begun.wait(60)
    handled = tree.root.info().handled, tree["in"].ref().info().handled
    picture = tree.snapshot()
    assert (tree.root.info().handled, tree["in"].ref().info().handled) == handled
    assert [(node.name, node.state) for node in picture.children] == [("a", "running"), ("in", "running")]
    assert [(node.name, node.state) for node in picture.children[1].children] == [("x", "running"), ("n", "starting")]
    world.release.set()
    adding.result()


def test_the_arguments_of_a_temporary_child_are_not_kept(world: World) -> None:  # SUP-10, S62
    class Big:
        pass

    tree = world.start(one_for_one(dynamic(name="d")))
    for where, restart in (("d", "temporary"), ("", "temporary"), ("d", "permanent")):
        big = Big()
        gone = weakref.ref(big)
        supervisor = tree[where].supervisor() if where else tree.supervisor
        supervisor.start_child(child(Forgetful, big, restart=restart))  # type: ignore[arg-type]
        del big
        gc.collect()
        assert (gone() is None) == (restart == "temporary")


def test_the_arguments_of_a_declared_temporary_child_stay_with_its_declaration(world: World) -> None:  # SUP-10
    tree = world.start(one_for_one(child(Forgetful, "big", name="f", restart="temporary")))
    assert tree.supervisor.get_spec("f").args == ("big",)


class Forgetful(Actor):
    def __init__(self, big: Any) -> None:
        super().__init__()


def test_children_added_by_hand_stay_only_as_long_as_the_supervisor(world: World) -> None:  # SUP-36, S57
    tree = world.start(one_for_one(one_for_one(child(Puppet, name="x"), name="in", max_restarts=0)))
    inner = tree["in"].supervisor()
    inner.start_child(child(Puppet, name="n"))
    inner.terminate_child("x")
    world.crash(tree, "in/n")
    names = [(row.name, row.status) for row in SupervisorRef(tree["in"].ref()).which_children()]
    assert names == [("x", "running")]


def test_places_outlive_incarnations_and_say_what_is_wrong(world: World) -> None:  # akka#29082
    tree = world.start(one_for_one(child(Puppet, name="a"), one_for_one(child(Puppet, name="x"), name="in")))
    place = tree["in/x"]
    world.crash(tree, "in/x")
    assert place.call("hello") == "hello"
    place.tell("hello")
    with pytest.raises(ChildNotFound):
        tree["in/nobody"].ref()
    with pytest.raises(ChildNotFound):
        tree["a/below"].ref()
    tree.supervisor.terminate_child("in", "maintenance")
    with pytest.raises(ChildUnavailable):
        place.call("hello")
    assert tree.verdict().word in ("maintenance", "recovering", "flapping")
    with pytest.raises(ChildRunning):
        tree.supervisor.restart_child("a")


def test_a_child_that_ends_normally_while_siblings_start_is_judged_afterwards(world: World) -> None:  # SUP-38
    tree = world.start(
        one_for_one(
            child(Puppet, name="quick", restart="transient", begin=lambda puppet: puppet.stop(NORMAL)),
            child(Puppet, name="b", begin=lambda _: time.sleep(0.02)),
        )
    )
    world.settle()
    assert [row.status for row in tree.supervisor.which_children()] == ["running", "stopped"]


def test_a_start_that_asks_to_stop_is_a_failed_start(world: World) -> None:  # SUP-7
    with pytest.raises(StartFailed):
        world.start(one_for_one(child(Puppet, name="a", begin=lambda _: Stop(Shutdown("not today")))))


def test_a_child_that_gets_another_breaker_while_it_runs_has_it_from_then_on(world: World) -> None:
    def spec(failures: int) -> Any:
        return one_for_one(
            child(Puppet, name="a", breaker=circuit_breaker(failures=failures)), max_restarts=9, within=60
        )

    tree = world.start(spec(5))
    world.crash(tree, "a")
    tree.supervisor.update(spec(1))
    world.crash(tree, "a")
    assert tree.running
    guard = tree["a"].breaker()
    assert guard is not None
    assert (guard.policy.failures, guard.view().status) == (1, "open")


def test_a_breaker_that_has_a_name_keeps_its_settings_as_long_as_the_tree_lives(world: World) -> None:  # SUP-73
    def spec(failures: int) -> Any:
        return one_for_one(child(Puppet, name="a", breaker=circuit_breaker("model", failures=failures)))

    tree = world.start(spec(5))
    with pytest.raises(InvalidOption, match="same settings"):
        tree.supervisor.update(spec(1))
    world.crash(tree, "a")
    assert tree.running
    assert tree.breakers["model"].view().failures == 1


def test_a_breaker_is_there_and_closed_from_the_start_of_its_child(world: World) -> None:
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=circuit_breaker("model"))))
    assert tree.breakers["model"].view().status == "closed"
    (node,) = tree.snapshot().children
    assert node.breaker is not None
    assert (node.breaker.name, node.breaker.status) == ("model", "closed")


def test_a_child_of_a_former_name_may_have_another_breaker(world: World) -> None:
    tree = world.start(one_for_one(child(Puppet, name="a", breaker=circuit_breaker(failures=5)), max_restarts=9))
    world.crash(tree, "a")
    tree.supervisor.terminate_child("a")
    tree.supervisor.delete_child("a")
    tree.supervisor.start_child(child(Puppet, name="a", breaker=circuit_breaker(failures=1)))
    world.crash(tree, "a")
    assert tree.running
    assert tree["a"].ref().call("hello") == "hello"


def test_a_stop_reports_only_what_was_killed_in_it(world: World) -> None:  # SUP-22
    tree = world.start(one_for_one(child(Puppet, name="a", finish=world.blocks(), shutdown=1), child(Puppet, name="b")))
    ending = Later(lambda: tree.supervisor.terminate_child("a"))
    world.advance_until(lambda: not ending.running)
    ending.result()
    [stopped] = world.events.named("child.stopped")
    assert (stopped.path, stopped.overdue) == ("root/a", True)
    world.release.set()
    assert tree.stop().killed == ()


# -- groups ------------------------------------------------------------------------------------------------------------


class Bare(Puppet):
    """Has no start of its own to wait for."""

    on_start = Actor.on_start


@pytest.mark.parametrize("kind", [Puppet, Bare])
@pytest.mark.parametrize("above", [one_for_one, dynamic])
def test_a_member_that_restarts_is_in_its_groups_before_anybody_sees_it_up(
    world: World, kind: type[Any], above: Any
) -> None:  # SUP-77
    groups = Groups.shared(world.system)
    tree = world.start(one_for_one(above(name="in")))
    up: dict[Any, bool] = {}
    publish = tree.context.publish

    def look_first(ref: Any, state: Any) -> None:
        for slot in () if state is None else state.slots:
            if slot.status == "running" and slot.spec.groups and slot.child not in up:
                up[slot.child] = groups.members("workers") == groups.members("all") == [slot.child]
        publish(ref, state)

    tree.context.publish = look_first  # type: ignore[method-assign]
    sup = tree["in"].supervisor()
    first = sup.start_child(child(kind, name="w", groups=("workers", "all"), restart="permanent"))
    assert groups.members("workers") == [first]
    for _ in range(3):
        before = tree["in/w"].ref()
        before.kill()
        before.join(60)
        assert before not in groups.members("workers")
        world.settle()
        assert groups.members("workers") == groups.members("all") == [tree["in/w"].ref()]
    assert list(up.values()) == [True] * 4
    assert "in workers, all" in str(tree)
    sup.terminate_child(tree["in/w"].ref() if above is dynamic else "w")
    assert groups.which_groups() == []


def test_a_child_that_does_not_come_up_joins_nothing(world: World) -> None:  # SUP-77
    groups = Groups.shared(world.system)
    watcher = world.system.start(Puppet)
    joined: list[Any] = []
    groups.monitor("workers", ref=watcher)
    watcher.call(lambda puppet: setattr(puppet, "on_receive", joined.append))

    def fails(_: Any) -> None:
        raise ValueError("bad")

    tree = world.start(dynamic())
    for begin in (fails, lambda _: IGNORE):
        attempt(lambda begin=begin: tree.supervisor.start_child(child(Puppet, groups=["workers"], begin=begin)))
    assert (groups.members("workers"), joined) == ([], [])


@pytest.mark.parametrize(
    ("groups", "start"),
    [("workers", Puppet), (["workers", ""], Puppet), ([7], Puppet), (["a", "a"], Puppet), (["a"], one_for_one())],
)
def test_groups_that_cannot_be_joined_are_refused_where_they_are_declared(groups: Any, start: Any) -> None:  # SUP-77
    with pytest.raises(InvalidOption, match="groups"):
        child(start, groups=groups)


def test_a_class_may_say_which_groups_its_children_join(world: World) -> None:  # SUP-77
    class Worker(Puppet):
        child_options: ClassVar[dict[str, Any]] = {"groups": ("workers",)}

    tree = world.start(one_for_one(Worker, child(Worker, name="other", groups=("others",))))
    groups = Groups.of(world.system)
    assert groups.members("workers") == [tree["worker"].ref()]
    assert groups.members("others") == [tree["other"].ref()]


def test_a_tree_that_has_ended_shows_what_was_there(world: World) -> None:  # V-8
    inner = one_for_one(child(Puppet, name="deep"), name="inner")
    tree = world.start(one_for_one(inner, dynamic(name="crowd"), child(Puppet, name="brittle"), max_restarts=0))
    tree["crowd"].supervisor().start_child(child(Puppet, name="guest"))
    paths = [node.path for node in walk(tree.snapshot())]
    world.clock.advance(3)
    world.crash(tree, "brittle")
    tree.wait(60)
    world.settle()
    world.clock.advance(100)
    root = tree.snapshot()
    assert [node.path for node in walk(root)] == paths
    assert all(node.over and node.state == "stopped" and node.up is None for node in walk(root))
    assert root.gave_up == tree.gave_up == "gave up on `root/brittle` (limit): RuntimeError: boom"
    assert root.children[-1].failures == ((0.0, 3.0),)  # seen from the end
    assert tree.verdict().counts == {"gave_up": 1, "ended": len(paths) - 1}
    tree.stop()
    assert tree.snapshot() == root


def test_while_a_tree_ends_what_is_down_already_is_not_said_to_run(world: World) -> None:
    inner = one_for_one(child(Puppet, name="deep"), name="inner")
    tree = world.start(one_for_one(child(Puppet, name="lingers", finish=world.blocks(), shutdown=60.0), inner))
    later = Later(lambda: tree.stop(60))
    eventually(lambda: tree.snapshot().children[1].state == "stopped")
    root = tree.snapshot()
    assert [node.path for node in walk(root)] == ["root", "root/lingers", "root/inner", "root/inner/deep"]
    assert root.state == root.children[0].state == "stopping"
    assert root.children[1].children[0].state == "stopped"
    world.release.set()
    assert later.result().clean


def test_of_supervisors_that_have_come_and_gone_nothing_is_kept_but_the_last_state_of_those_declared(
    world: World,
) -> None:
    tree = world.start(one_for_one(dynamic(name="crowd"), one_for_one(child(Puppet), name="inner"), max_restarts=9))
    crowd = tree["crowd"].supervisor()
    for _ in range(3):
        ref = crowd.start_child(one_for_one(child(Puppet), name="guest"))
        crowd.terminate_child(ref)
        tree["inner"].ref().kill("by the test")
        world.settle()
    eventually(lambda: is_up(tree, "inner"))
    world.settle()
    assert tree.context.ended == {}
    tree.supervisor.terminate_child("inner")
    world.settle()
    eventually(lambda: list(tree.context.ended) == ["root/inner"])
