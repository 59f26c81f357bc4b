"""What a machine class declares: rules, checks at class creation, and the graph drawn from them."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from mlld_sdk.actors.statem import State, StateMachine, anywhere, goto, keep
from mlld_sdk.actors.statem.engine import STATE_TIMEOUT, Happening, TimerKey
from mlld_sdk.actors.statem.rules import declaration_of
from mlld_sdk.base.errors import ConfigurationError


class Push:
    pass


class Turnstile(StateMachine):
    locked = State(initial=True)
    unlocked = State()
    broken = State()
    forgotten = State()

    @locked.on("coin", kind="call", to=unlocked)
    def pay(self, event: Happening) -> Any:
        return goto(self.unlocked, event.reply("thanks"))

    @locked.on(Push)
    @unlocked.on(Push, to=locked)
    def push(self, event: Happening) -> Any:
        return goto(self.locked)

    @unlocked.on_state_timeout(to=("locked", broken))
    def relock(self, event: Happening) -> Any:
        return goto(self.locked)

    @anywhere.on("kick", to=broken)
    def kick(self, event: Happening) -> Any:
        return goto(self.broken)

    @anywhere.on_timeout("audit")
    def audit(self, event: Happening) -> Any:
        return keep()

    @anywhere.enter
    def note(self, previous: str) -> None: ...


def rule(state: str, kind: str, content: Any = None, timer: TimerKey | None = None) -> str | None:
    found = Turnstile.declaration.rule_for(state, Happening(kind, content, timer=timer))  # type: ignore[arg-type]
    return found and found.method


def test_events_find_their_rule_by_kind_type_value_and_timer() -> None:  # FSM-12
    assert rule("locked", "call", "coin") == "pay"
    assert rule("locked", "cast", "coin") is None
    assert rule("unlocked", "call", "coin") is None
    assert rule("locked", "info", Push()) == rule("unlocked", "cast", Push()) == "push"
    assert rule("unlocked", "state_timeout", timer=STATE_TIMEOUT) == "relock"
    assert rule("locked", "state_timeout", timer=STATE_TIMEOUT) is None
    assert rule("broken", "timeout", timer=TimerKey("timeout", "audit")) == "audit"
    assert rule("broken", "timeout", timer=TimerKey("timeout", "other")) is None
    assert rule("forgotten", "cast", "kick") == "kick"


def test_a_value_matches_only_its_own_type() -> None:  # FSM-12
    class One(StateMachine):
        only = State(initial=True)

        @only.on(1)
        def one(self, event: Happening) -> None: ...

    assert One.declaration.rule_for("only", Happening("cast", 1)) is not None
    assert One.declaration.rule_for("only", Happening("cast", True)) is None
    assert One.declaration.rule_for("only", Happening("cast", 1.0)) is None


def test_rules_of_a_state_come_before_those_for_every_state() -> None:  # FSM-12
    class Both(StateMachine):
        only = State(initial=True)

        @anywhere.on()
        def general(self, event: Happening) -> None: ...

        @only.on("x")
        def special(self, event: Happening) -> None: ...

    found = Both.declaration.rule_for("only", Happening("cast", "x"))
    assert found is not None
    assert found.method == "special"


def test_a_subclass_inherits_replaces_and_adds() -> None:  # FSM-12
    class Alarmed(Turnstile):
        ringing = State()

        def push(self, event: Happening) -> Any:
            return keep()

        @anywhere.on("alarm", to=ringing)
        def ring(self, event: Happening) -> Any:
            return goto(self.ringing)

    assert Alarmed.declaration.states == ("locked", "unlocked", "broken", "forgotten", "ringing")
    found = Alarmed.declaration.rule_for("locked", Happening("cast", Push()))
    assert found is not None
    assert (found.method, found.targets) == ("push", ())
    assert "ringing" not in Turnstile.declaration.states


def test_what_cannot_be_meant_is_refused_when_the_class_is_made() -> None:
    stranger = State()
    with pytest.raises(ConfigurationError, match="no state to begin in"):

        class Nowhere(StateMachine):
            a = State()

    with pytest.raises(ConfigurationError, match="speaks of 'b'"):

        class Misspelt(StateMachine):
            a = State(initial=True)

            @a.on("x", to="b")
            def x(self, event: Happening) -> None: ...

    with pytest.raises(ConfigurationError, match="no state of Foreign"):

        class Foreign(StateMachine):
            a = State(initial=True)

            @a.on("x", to=stranger)
            def x(self, event: Happening) -> None: ...


def test_the_graph_is_known_without_running_anything() -> None:  # FSM-13
    graph = Turnstile.graph()
    assert (graph.states, graph.initial) == (("locked", "unlocked", "broken", "forgotten"), ("locked",))
    assert ("locked", "unlocked", "coin (call)", "pay") in [
        (edge.source, edge.target, edge.label, edge.handler) for edge in graph.edges
    ]
    assert graph.reachable() == {"locked", "unlocked", "broken"}


def test_the_graph_is_written_as_text() -> None:  # FSM-13
    assert Turnstile.graph().text() == (
        "Turnstile\n"
        "  locked (initial)\n"
        "    coin (call) -> unlocked  [pay]\n"
        "    kick        -> broken  [kick]\n"
        "  unlocked\n"
        "    Push          -> locked  [push]\n"
        "    state_timeout -> locked  [relock]\n"
        "    state_timeout -> broken  [relock]\n"
        "    kick          -> broken  [kick]\n"
        "  broken\n"
        "    kick -> broken  [kick]\n"
        "  forgotten (unreachable)\n"
        "    kick -> broken  [kick]\n"
    )


def test_the_graph_is_written_for_graphviz() -> None:  # FSM-13
    dot = Turnstile.graph().dot()
    assert dot.startswith('digraph "Turnstile" {')
    assert '  "locked" [penwidth=2];' in dot
    assert '  "unlocked" -> "broken" [label="state_timeout\\nkick"];' in dot


def test_the_graph_is_drawn_with_every_state_and_every_way_inside_the_picture() -> None:  # FSM-13
    root = ET.fromstring(Turnstile.graph().svg())
    name = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{name}text")]
    assert set(Turnstile.declaration.states) <= set(texts)
    assert len(root.findall(f"{name}rect")) == 4
    ways = {(edge.source, edge.target) for edge in Turnstile.graph().edges}
    assert len(root.findall(f"{name}path")) == len(ways)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for text in root.iter(f"{name}text"):
        assert 0 < float(text.attrib["x"]) < width
        assert 0 < float(text.attrib["y"]) < height


def test_names_are_escaped_in_drawings() -> None:
    class Odd(StateMachine):
        a = State(initial=True)

        @a.on('<"&>', to=a)
        def odd(self, event: Happening) -> None: ...

    ET.fromstring(Odd.graph().svg())
    assert '\\"' in Odd.graph().dot()
    assert declaration_of(Odd).name == "Odd"
