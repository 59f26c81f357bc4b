"""Windows, backoff, and how breaker, backoff and budget work together."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.supervision.backoff import Backoff
from mlld_sdk.supervision.breaker import circuit_breaker
from mlld_sdk.supervision.decisions.decide import initial
from mlld_sdk.supervision.decisions.draft import World
from mlld_sdk.supervision.decisions.restart_policy import after_exit, after_failed_start, when_due
from mlld_sdk.supervision.decisions.slots import EMPTY, MEMORY, Slot, SlotMap
from mlld_sdk.supervision.decisions.state import SupervisorState
from mlld_sdk.supervision.decisions.static import affected
from mlld_sdk.supervision.intensity import RestartLimit, RestartWindow
from mlld_sdk.supervision.reasons import KILLED, NORMAL, SHUTDOWN, ChildExit
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, Restart, Strategy, SupervisorSpec, budget, wedge

BOOM = ChildExit("crash", "boom")
DEFAULT = RestartLimit(3, 5.0)
WEDGED = ChildExit("wedged", "stuck")


def slot(restart: Restart = "permanent", **options: object) -> Slot:
    spec = ChildSpec(name="c", start=Actor, restart=restart, **options)  # type: ignore[arg-type]
    return Slot(key=0, spec=spec, status="running", incarnation=1, since=100.0)


def facts(
    now: float = 101.0,
    limit: RestartLimit = DEFAULT,
    *,
    window: RestartWindow = RestartWindow(),  # noqa: B008
    grouped: bool = False,
    keeps: bool = True,
    closed_for: float | None = None,
) -> tuple[SupervisorState, World, float | None]:
    """Make what a judgement depends on besides the child."""
    strategy: Strategy = "one_for_all" if grouped else "one_for_one"
    spec = SupervisorSpec(strategy=strategy, limit=limit) if keeps else DynamicSpec(limit=limit)
    state = msgspec.structs.replace(initial("root", spec), window=window)
    return state, World(now, now, random.Random(1)), closed_for


# -- windows -----------------------------------------------------------------------------------------------------------


def test_a_limit_of_n_allows_n_attempts_and_refuses_the_next() -> None:  # SUP-39
    window, limit = RestartWindow(), RestartLimit(3, 5.0)
    verdicts = []
    for now in (0.0, 0.1, 0.2, 0.3):
        window, holds = window.charge(now, limit)
        verdicts.append(holds)
    assert verdicts == [True, True, True, False]


def test_a_limit_of_nothing_refuses_the_first() -> None:  # SUP-39
    assert RestartWindow().charge(0.0, RestartLimit(0, 5.0))[1] is False


def test_the_window_is_inclusive_and_counts_fractions() -> None:  # SUP-40, deviation
    limit = RestartLimit(1, 1.0)
    window, _ = RestartWindow().charge(10.0, limit)
    assert window.view(11.0, limit).used == 1
    assert window.view(11.000001, limit).used == 0
    assert window.charge(11.0, limit)[1] is False
    assert window.charge(11.5, limit)[1] is True


@given(st.lists(st.floats(0, 20), max_size=30), st.integers(0, 5), st.floats(0.1, 10))
def test_no_window_ever_allows_more_than_its_limit(steps: list[float], most: int, within: float) -> None:
    limit, window, now = RestartLimit(most, within), RestartWindow(), 0.0
    allowed: list[float] = []
    for pause in steps:
        now += pause
        window, holds = window.charge(now, limit)
        if not holds:
            break
        allowed.append(now)
        assert len([at for at in allowed if now - at <= within]) <= most
        assert len(window.attempts) <= most + 1


# -- backoff -----------------------------------------------------------------------------------------------------------


def test_the_delay_grows_to_its_cap_and_no_further() -> None:
    backoff = Backoff.of(0.5, factor=2, most=4, jitter=0)
    assert [backoff.delay(streak, random.Random()) for streak in range(6)] == [0.5, 1, 2, 4, 4, 4]
    assert backoff.delay(10**9, random.Random()) == 4


@given(st.integers(0, 200), st.floats(0, 1), st.floats(1, 3), st.integers())
def test_jitter_only_ever_shortens(streak: int, jitter: float, factor: float, seed: int) -> None:
    backoff = Backoff.of(0.1, factor=factor, most=30, jitter=jitter)
    plain = msgspec.structs.replace(backoff, jitter=0.0).delay(streak, random.Random())
    delay = backoff.delay(streak, random.Random(seed))
    assert plain * (1 - jitter) - 1e-9 <= delay <= plain <= 30


def test_the_stable_period_is_long_enough_to_mean_something() -> None:
    assert Backoff.of(1, most=9).stable == 5
    assert Backoff.of(1, most=9, min_uptime=60).stable == 60


def test_one_good_start_does_not_end_a_streak_but_a_stable_period_does() -> None:
    child = slot(backoff=Backoff.of(1, most=9, jitter=0))
    judged = after_exit(child, BOOM, *facts(now=101.0))
    assert judged.delay == 1
    again = msgspec.structs.replace(judged.slot, status="running", since=102.0)
    assert after_exit(again, BOOM, *facts(now=104.0)).delay == 2
    assert after_exit(again, BOOM, *facts(now=107.0)).delay == 1


# -- the rules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "exit_", "decision"),
    [
        ("permanent", NORMAL, "restart"),
        ("permanent", SHUTDOWN, "restart"),
        ("permanent", BOOM, "restart"),
        ("permanent", KILLED, "restart"),
        ("transient", NORMAL, "stop"),
        ("transient", SHUTDOWN, "stop"),
        ("transient", BOOM, "restart"),
        ("transient", KILLED, "restart"),
        ("temporary", NORMAL, "remove"),
        ("temporary", SHUTDOWN, "remove"),
        ("temporary", BOOM, "remove"),
        ("temporary", KILLED, "remove"),
    ],
)
def test_the_table_of_restarts(restart: Restart, exit_: ChildExit, decision: str) -> None:  # SUP-28, J-3
    judged = after_exit(slot(restart), exit_, *facts())
    assert judged.decision == decision
    assert len(judged.window.attempts) == (1 if decision == "restart" else 0)


def test_a_child_that_wants_to_stop_for_good_is_not_restarted() -> None:  # J-2
    judged = after_exit(slot(), ChildExit("stop", "done"), *facts())
    assert (judged.decision, judged.window.attempts) == ("stop", ())


def test_a_child_that_escalates_takes_its_supervisor_down() -> None:  # J-2
    for restart in ("permanent", "transient", "temporary"):
        judged = after_exit(slot(restart), ChildExit("escalate", "no licence"), *facts())
        assert (judged.decision, judged.why) == ("give_up", "escalated")


def test_a_parking_breaker_takes_the_place_of_every_budget() -> None:  # J-4
    child = slot(breaker=circuit_breaker(parks=True), budget=budget(0, 5))
    judged = after_exit(child, BOOM, *facts(limit=RestartLimit(0, 5.0), closed_for=7.0))
    assert (judged.decision, judged.delay, judged.window.attempts) == ("park", 7.0, ())
    assert judged.slot.window.attempts == ()
    assert judged.slot.status == "parked"


def test_a_parked_child_stays_parked_while_the_breaker_says_so_and_is_not_charged_after() -> None:  # J-4, J-8
    parked = after_exit(slot(breaker=circuit_breaker(parks=True)), BOOM, *facts(closed_for=7.0)).slot
    assert when_due(parked, *facts(now=108.0, closed_for=3.0)).decision == "park"
    probe = when_due(parked, *facts(now=111.0, limit=RestartLimit(0, 5.0)))
    assert (probe.decision, probe.window.attempts, probe.delay) == ("restart", (), None)


def test_an_end_is_charged_at_once_and_a_failed_start_when_its_retry_is_due() -> None:  # J-5, SUP-44
    judged = after_exit(slot(), BOOM, *facts())
    assert len(judged.window.attempts) == 1
    failed = after_failed_start(judged.slot, BOOM, *facts(window=judged.window))
    assert (failed.decision, failed.delay, len(failed.window.attempts)) == ("wait", 0.0, 1)
    due = when_due(failed.slot, *facts(window=failed.window))
    assert (due.decision, len(due.window.attempts)) == ("restart", 2)


def test_a_childs_own_budget_leaves_the_supervisors_alone() -> None:  # J-5, J-6
    child = slot(budget=budget(1, 60))
    first = after_exit(child, BOOM, *facts(limit=RestartLimit(0, 5.0)))
    assert (first.decision, first.window.attempts) == ("restart", ())
    again = msgspec.structs.replace(first.slot, status="running")
    second = after_exit(again, BOOM, *facts(limit=RestartLimit(0, 5.0)))
    assert (second.decision, second.slot.status) == ("fail", "failed")
    escalating = slot(budget=budget(0, 60, then="escalate"))
    assert after_exit(escalating, BOOM, *facts()).decision == "give_up"


def test_backoff_does_not_save_a_spent_budget() -> None:  # J-6
    judged = after_exit(slot(backoff=Backoff.of(30, most=30)), BOOM, *facts(limit=RestartLimit(0, 5.0)))
    assert judged.decision == "give_up"


def test_a_delayed_restart_is_charged_once_and_not_again_when_it_is_due() -> None:  # J-7
    judged = after_exit(slot(backoff=Backoff.of(2, jitter=0)), BOOM, *facts())
    assert (judged.decision, judged.delay, len(judged.window.attempts)) == ("wait", 2.0, 1)
    due = when_due(judged.slot, *facts(now=103.0, window=judged.window))
    assert (due.decision, len(due.window.attempts)) == ("restart", 1)


def test_a_failed_start_backs_off_further() -> None:  # J-7
    judged = after_exit(slot(backoff=Backoff.of(2, jitter=0)), BOOM, *facts())
    failed = after_failed_start(judged.slot, BOOM, *facts(now=103.0, window=judged.window))
    assert (failed.decision, failed.delay) == ("wait", 4.0)


def test_a_start_that_fails_on_configuration_is_not_tried_again() -> None:  # J-9, J-11
    child = after_exit(slot(), BOOM, *facts()).slot
    wrong = ChildExit("configuration", "no such program")
    assert after_failed_start(child, wrong, *facts()).decision == "fail"
    grouped = after_failed_start(child, wrong, *facts(grouped=True))
    assert (grouped.decision, grouped.why) == ("give_up", "configuration")


def test_a_stuck_child_climbs_its_ladder_and_then_escalates() -> None:  # J-10
    child = slot(wedge=wedge(5, times=2, ladder=[{"model": "big"}]))
    seen = []
    for _ in range(4):
        judged = after_exit(child, WEDGED, *facts(limit=RestartLimit.burst()))
        seen.append((judged.decision, judged.slot.rung, judged.slot.wedges))
        child = msgspec.structs.replace(judged.slot, status="running", since=100.0)
    assert seen == [("restart", 0, 1), ("restart", 1, 0), ("restart", 1, 1), ("give_up", 1, 1)]
    assert judged.why == "ladder"


def test_a_rung_wins_over_what_the_child_was_given_while_it_ran() -> None:  # SUP-76
    stuck = slot(wedge=wedge(1.0, times=1, ladder=[{"script": "strong"}]))
    stuck = msgspec.structs.replace(stuck, configured={"script": "mine", "timeout": 5.0})
    judged = after_exit(stuck, WEDGED, *facts())
    assert (judged.slot.rung, judged.slot.configured) == (1, {"timeout": 5.0})
    stuck = msgspec.structs.replace(stuck, configured={"script": "mine"})
    assert after_exit(stuck, WEDGED, *facts()).slot.configured is None


def test_other_ends_after_real_progress_forget_how_often_it_was_stuck() -> None:  # J-10
    child = msgspec.structs.replace(slot(wedge=wedge(5, times=2)), wedges=1)
    assert after_exit(child, BOOM, *facts(now=101.0)).slot.wedges == 1
    assert after_exit(child, BOOM, *facts(now=106.0)).slot.wedges == 0


def test_under_group_strategies_nobody_is_left_down() -> None:  # J-11
    assert after_exit(slot(budget=budget(0, 5)), BOOM, *facts(grouped=True)).decision == "give_up"
    stuck = slot(wedge=wedge(5, times=1, then="stop"))
    assert after_exit(stuck, WEDGED, *facts(grouped=True)).decision == "give_up"
    assert after_exit(stuck, WEDGED, *facts()).decision == "fail"


def test_a_supervisor_that_keeps_nothing_drops_what_it_will_not_restart() -> None:  # SUP-30
    assert after_exit(slot("transient"), NORMAL, *facts(keeps=False)).decision == "remove"
    assert after_exit(slot(budget=budget(0, 5)), BOOM, *facts(keeps=False)).decision == "remove"


def test_failures_are_remembered_but_not_for_ever() -> None:
    child = slot()
    for _ in range(MEMORY + 3):
        child = msgspec.structs.replace(
            after_exit(child, BOOM, *facts(limit=RestartLimit.burst())).slot, status="running"
        )
    assert len(child.failures) == MEMORY
    assert after_exit(slot(), NORMAL, *facts()).slot.failures == ()


# -- strategies and the map of slots -----------------------------------------------------------------------------------


def test_strategies_say_who_is_restarted_together() -> None:  # SUP-31, SUP-32, SUP-33
    order = ("a", "b", "c", "d")
    assert affected("one_for_one", order, "b") == ("b",)
    assert affected("one_for_all", order, "b") == order
    assert affected("rest_for_one", order, "b") == ("b", "c", "d")


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1024, 1025, 40_000])
def test_a_slot_map_made_at_once_is_the_one_made_bit_by_bit(count: int) -> None:
    slots = [Slot(key=key, spec=ChildSpec(name="c", start=Actor)) for key in range(count)]
    bit_by_bit = SlotMap()
    for one in slots:
        bit_by_bit = bit_by_bit.put(one)
    at_once = SlotMap.of(slots)
    assert list(at_once) == list(bit_by_bit) == slots
    assert (at_once._shift, at_once.count) == (bit_by_bit._shift, count)
    assert at_once.get(count) is None
    assert len(at_once.put(Slot(key=count, spec=ChildSpec(name="c", start=Actor)))) == count + 1
    assert EMPTY == [None] * 32


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=200))
def test_a_slot_map_is_a_sorted_dict_that_never_changes(steps: list[tuple[bool, int]]) -> None:
    spec = ChildSpec(name="c", start=Actor)
    model: dict[int, Slot] = {}
    here = SlotMap()
    history: list[tuple[SlotMap, list[int]]] = []
    for add, key in steps:
        history.append((here, sorted(model)))
        if add:
            one = Slot(key=key, spec=spec)
            here, model = here.put(one), {**model, key: one}
        else:
            here = here.drop(key)
            model.pop(key, None)
        assert len(here) == len(model)
        assert here.get(key) is model.get(key)
        assert [found.key for found in here] == sorted(model)
    assert all([found.key for found in old] == keys for old, keys in history)
    assert EMPTY == [None] * 32
