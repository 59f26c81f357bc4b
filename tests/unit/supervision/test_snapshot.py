"""The tree as a value and as text, and the verdict about it."""

from typing import Any

import msgspec
import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import StartFailed
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.supervision import BreakerView, GaveUp, NodeView, Tree, child, one_for_one, render
from mlld_sdk.supervision.events import BudgetView
from mlld_sdk.supervision.execution.tree_context import BacklogView
from mlld_sdk.supervision.snapshot import NodeInfo, duration, shorten, walk
from mlld_sdk.supervision.verdict import MOST_CONCERNS, judge, verdict

STARVED = BacklogView(pending=1, waiting=1, oldest=30.0, limit=30.0)

DEEP = 400
"""Levels of a tree that is deeper than Python's stack allows for one call a level."""


def node(path: str = "root/a", state: Any = "running", **more: Any) -> NodeView:
    return NodeView(path=path, name=path.rsplit("/", 1)[-1], kind="Agent", state=state, **more)


def test_the_printout_shows_the_whole_tree_at_a_glance() -> None:
    root = node(
        "root",
        up=8040,
        budget=BudgetView(3, 5, 60.0),
        children=(
            node(
                "root/planner",
                up=8040,
                breaker=BreakerView(name="b", status="closed"),
                info=NodeInfo(queued=1, doing="x"),
            ),
            node(
                "root/workers",
                children=(
                    node("root/workers/w1", up=12, incarnation=4, restarts=3),
                    node(
                        "root/workers/w2",
                        "waiting",
                        incarnation=2,
                        next_in=1.6,
                        last="exit 137 (killed)",
                        last_kind="crash",
                    ),
                    node("root/workers/w3", "parked", breaker=BreakerView(name="b", status="open", retry_after=12)),
                ),
            ),
            node("root/ingest", "stopped", held="disk is being replaced", last="shutdown"),
        ),
    )
    assert render(root).splitlines() == [
        "root                     Agent            ok        up 2h14m   restarts 3/5 in 60s",
        "├─ planner               Agent            ok        up 2h14m   q 1   breaker closed",
        "├─ workers               Agent            ok",
        "│  ├─ w1                 Agent #4         ok        up 12s   restarts 3",
        "│  ├─ w2                 Agent #2         backoff   next 1.6s   last: exit 137 (killed)",
        "│  └─ w3                 Agent            parked    breaker open 12.0s",
        "└─ ingest                Agent            held      last: shutdown   held: disk is being replaced",
    ]
    assert [one.name for one in walk(root)] == ["root", "planner", "workers", "w1", "w2", "w3", "ingest"]


def test_a_breaker_that_was_tripped_by_hand_names_no_time_at_which_it_would_open_the_way() -> None:
    tripped = BreakerView(name="b", status="open", retry_after=300, by_hand=True)
    assert render(node("root", breaker=tripped)).endswith("breaker open by hand")


@pytest.mark.parametrize(
    ("backlog", "said"),
    [
        (BacklogView(), ""),
        (BacklogView(known=False), "runs not known"),
        (BacklogView(pending=3, waiting=3, running=1, oldest=125.0), "runs 3 waiting for 2m05s, 1 running"),
        (BacklogView(pending=3, waiting=2, parked=1, oldest=4.0), "runs 2 waiting for 4s, 1 asleep, 1 parked"),
    ],
)
def test_runs_are_shown_beside_the_place_they_wait_for(backlog: BacklogView, said: str) -> None:  # V-9
    assert render(node("root", backlog=backlog)).partition("ok")[2].strip() == said


def test_a_large_tree_is_cut_with_a_word_about_it() -> None:
    root = node("root", children=tuple(node(f"root/{number}") for number in range(5000)))
    lines = render(root, limit=10).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "… and 4991 more"


def test_a_tree_of_any_depth_can_be_printed_and_judged() -> None:
    here = node("leaf")
    for _ in range(3000):
        here = node("x", children=(here,))
    assert len(render(here, limit=5000).splitlines()) == 3001
    assert verdict(here).word == "healthy"


def test_a_snapshot_can_be_sent_and_read_back() -> None:
    root = node("root", children=(node(info=NodeInfo(queued=2), breaker=BreakerView(name="b", status="open")),))
    assert msgspec.json.decode(msgspec.json.encode(root), type=NodeView) == root


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (125, "2m05s"), (8040, "2h14m"), (266_400, "3d02h")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_long_texts_are_cut_to_one_line() -> None:
    assert shorten("a\nb   c") == "a b c"
    assert len(shorten("x" * 500)) == 60


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("gave_up", node(gave_up="gave up on root/x")),
        ("gave_up", node(state="failed", last="no such program")),
        ("gave_up", node(state="stopped", over=True, gave_up="gave up on root/x")),
        ("ended", node(state="stopped", over=True)),
        ("ended", node(state="stopped", over=True, held="by ops", failures=((1.0, 1.0),), zombies=1, haunted=9.0)),
        ("wedged", node(info=NodeInfo(queued=3, idle=31), wedge_after=30.0)),
        ("flapping", node(failures=((4.0, 1.0), (2.0, 1.0), (1.0, 1.0)))),
        ("flapping", node(failures=((4.0, 1.0), (1.0, 0.5)), stable=5.0)),
        ("flapping", node(budget=BudgetView(3, 5, 60.0))),
        ("degraded", node(breaker=BreakerView(name="b", status="half_open"))),
        ("degraded", node(state="parked")),
        ("degraded", node(zombies=1, haunted=5.0)),
        ("degraded", node(backlog=BacklogView(pending=1, waiting=1, oldest=30.0, limit=30.0))),
        ("degraded", node(state="waiting", backlog=BacklogView(pending=1, waiting=1, oldest=31.0, limit=30.0))),
        ("recovering", node(state="waiting", last="boom")),
        ("recovering", node(state="starting", incarnation=2)),
        ("recovering", node(failures=((3.0, 900.0),))),
        ("recovering", node(failures=((4.0, 900.0), (1.0, 100.0)))),
        ("maintenance", node(state="stopped", held="by ops")),
        ("maintenance", node(info=NodeInfo(off_duty="drained"))),
        ("maintenance", node(state="stopped", held="by ops", backlog=STARVED)),
        ("maintenance", node(info=NodeInfo(off_duty="drained"), backlog=STARVED)),
        ("healthy", node()),
        ("healthy", node(zombies=1, haunted=4.9)),
        ("healthy", node(backlog=BacklogView(pending=1, waiting=1, oldest=29.0, limit=30.0))),
        ("healthy", node(backlog=BacklogView(pending=1, waiting=1, oldest=1e6))),
        ("healthy", node(backlog=BacklogView(known=False, limit=30.0))),
        ("healthy", node(state="stopped")),
        ("healthy", node(failures=((30.0, 1.0), (29.0, 1.0), (28.0, 1.0)))),
        ("healthy", node(budget=BudgetView(1, 3, 5.0))),
        ("healthy", node(info=NodeInfo(queued=3, idle=29), wedge_after=30.0)),
        ("healthy", node(breaker=BreakerView(name="b", status="closed"))),
    ],
)
def test_each_place_gets_the_worst_word_that_is_true(word: str, place: NodeView) -> None:  # V-1 to V-9
    assert judge(place)[0] == word


def test_the_tree_is_as_bad_as_its_worst_place() -> None:
    root = node(
        "root",
        children=(
            node(),
            node("root/b", "waiting", last="boom"),
            node("root/c", "parked"),
            node("root/d", "stopped", held="by ops"),
        ),
    )
    judged = verdict(root)
    assert judged.word == "degraded"
    assert [concern.path for concern in judged.concerns] == ["root/c", "root/b", "root/d"]
    assert str(judged) == "DEGRADED   1 degraded · 1 recovering · 1 maintenance · 2 healthy"
    assert judged.counts == {"degraded": 1, "recovering": 1, "maintenance": 1, "healthy": 2}


def test_concerns_are_many_at_most() -> None:
    root = node("root", children=tuple(node(f"root/{number}", "parked") for number in range(500)))
    judged = verdict(root)
    assert len(judged.concerns) == MOST_CONCERNS
    assert judged.counts["degraded"] == 500


def test_a_tree_of_any_depth_can_be_looked_at_and_its_last_words_stay_short() -> None:
    class Ends(Actor):
        def on_receive(self, message: Any) -> Any:
            raise ValueError("x" * 500 + " the cause")

    spec: Any = child(Ends, name="leaf")
    for level in range(DEEP):
        spec = one_for_one(spec, name=f"level{level}", max_restarts=0)
    with ActorSystem("deep") as system, Tree.start(system, spec, name="root") as tree:
        assert len(walk(tree.snapshot())) == DEEP + 1
        assert verdict(tree.snapshot()).counts == {"healthy": DEEP + 1}
        assert "└─ leaf" in render(tree.snapshot())
        path = "/".join(f"level{level}" for level in reversed(range(DEEP - 1)))
        tree[f"{path}/leaf"].ref().tell("end")
        reason = tree.wait(60)
        assert isinstance(reason, GaveUp)
        assert len(str(reason)) < 5_000
        assert "the cause" in str(reason)


def test_a_start_that_fails_far_below_says_where_and_why() -> None:
    class Fails(Actor):
        def on_start(self) -> None:
            raise ValueError("the cause")

    spec: Any = child(Fails, name="leaf")
    for level in range(DEEP):
        spec = one_for_one(spec, name=f"level{level}")
    with ActorSystem("deep") as system, pytest.raises(StartFailed) as caught:
        Tree.start(system, spec, name="root")
    assert "the cause" in str(caught.value)
    assert "leaf" in str(caught.value)
    assert len(str(caught.value)) < 5_000
