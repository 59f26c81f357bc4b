"""State machines, compared with what a real gen_statem did with the same 300 random scripts (FSM-1 to FSM-8)."""

from typing import Any

import pytest

from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.statem import Happening, State, StateMachine, anywhere, keep
from mlld_sdk.actors.statem.engine import Goto, Repeat
from tests.oracle import machines

SCRIPTS = machines.scripts()
RECORDED = machines.recorded()


class Played(StateMachine):
    """Does what each event says; the real thing around the engine: mailbox, timers, enter methods."""

    a = State(initial=True)
    b = State()
    c = State()

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    @anywhere.enter
    def entered(self, previous: str) -> None:
        self.log.append(f"enter {previous} {self.state}")

    @anywhere.on("log", kind="call")
    def give_log(self, event: Happening) -> Any:
        return keep(event.reply(self.log))

    @anywhere.on(machines.Event, to=(a, b, c))
    def play(self, event: Happening) -> Any:
        asked = event.content
        assert isinstance(asked, machines.Event)
        self.log.append(f"{self.state} {event.kind} {asked.id}")
        actions = tuple(machines._action(action) for action in asked.actions)
        kind, _, target = asked.outcome.partition(" ")
        return Goto(target, actions) if target else Repeat(actions) if kind == "repeat" else keep(*actions)

    @anywhere.on_state_timeout()
    @anywhere.on_event_timeout()
    @anywhere.on_timeout("n1")
    @anywhere.on_timeout("n2")
    def timed_out(self, event: Happening) -> None:
        assert event.timer is not None
        name = f"timeout {event.timer.name}" if event.timer.kind == "timeout" else event.timer.kind
        self.log.append(f"{self.state} {name} {event.content}")


def test_the_engine_does_what_gen_statem_did() -> None:
    for number, (script, trace) in enumerate(zip(SCRIPTS, RECORDED, strict=True)):
        assert machines.play_engine(script) == trace, f"script {number}"


def test_running_machines_do_what_gen_statem_did() -> None:
    with ActorSystem("oracle") as system:
        for number, (script, trace) in enumerate(zip(SCRIPTS, RECORDED, strict=True)):
            ref = system.start(Played)
            ref.suspend()
            for event in script:
                ref.tell(event)
            ref.resume()
            assert ref.call("log") == trace, f"script {number}"
            ref.kill()


@pytest.mark.erlang
@pytest.mark.skipif(not machines.available(), reason="there is no Erlang here")
def test_the_recorded_traces_are_what_gen_statem_does_today() -> None:
    assert machines.play_erlang(SCRIPTS) == RECORDED
