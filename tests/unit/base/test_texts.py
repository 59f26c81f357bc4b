"""Texts of what users define: whatever an object does when it is asked what it is, its text can be written."""

from typing import Any

import msgspec
import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import Stop
from mlld_sdk.actors.core.exits import Other, Reason, Shutdown, crash
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.texts import encoded, fit, fit_all, printable, text_of, text_of_error
from mlld_sdk.supervision import Breaker, Tree, child, circuit_breaker, one_for_one
from tests.support.actors import Puppet, Sink
from tests.support.eventually import eventually

HALF = "\ud83d half an emoji"


def raises(error: BaseException) -> Any:
    def hook(*_: object) -> Any:
        raise error

    return hook


EVIL = {
    "raises": {"__str__": raises(RuntimeError("no")), "__repr__": raises(RuntimeError("no"))},
    "exits": {"__str__": raises(SystemExit(3)), "__repr__": raises(SystemExit(3))},
    "interrupts": {"__str__": raises(KeyboardInterrupt()), "__repr__": raises(KeyboardInterrupt())},
    "is no text": {"__str__": lambda _: 5, "__repr__": lambda _: 5},
    "half an emoji": {"__str__": lambda _: HALF, "__repr__": lambda _: HALF},
    "has no end": {"__str__": lambda _: "x" * 10_000_000, "__repr__": lambda _: "x" * 10_000_000},
    "equals nothing": {"__eq__": raises(RuntimeError("no")), "__hash__": raises(RuntimeError("no"))},
    "is neither": {"__bool__": raises(RuntimeError("no"))},
}


@pytest.fixture(params=EVIL)
def evil(request: pytest.FixtureRequest) -> type[Any]:
    return type("Evil", (), EVIL[request.param])


def test_anything_has_a_text_that_can_be_written(evil: type[Any]) -> None:
    for say in (str, repr):
        text = text_of(evil(), say=say)
        assert len(text) <= 1_010
        assert msgspec.json.decode(msgspec.json.encode(text)) == text
    assert len(str(InvalidOption("option", evil(), "another")).encode()) < 500


def test_an_exception_is_named_with_what_it_says(evil: type[Any]) -> None:
    assert text_of_error(ValueError("a\ud83d")) == "ValueError: a\\ud83d"
    error = Exception(evil())
    assert text_of_error(error).startswith("Exception: ")
    guard = Breaker(circuit_breaker(failures=1))
    with pytest.raises(Exception) as raised:  # noqa: PT011 - this very one
        guard.call(raises(error))
    assert raised.value is error
    assert guard.view().status == "open"
    assert msgspec.json.encode(guard.view())


def test_a_text_that_can_be_written_stays_as_it_is() -> None:
    assert fit("plain") == "plain"
    assert fit("Grüße \U0001f600") == "Grüße \U0001f600"
    assert fit(HALF) == "\\ud83d half an emoji"
    assert text_of("x" * 2_000) == "x" * 1_000


class Said(msgspec.Struct, frozen=True):
    text: str
    more: tuple[Any, ...] = ()
    raw: msgspec.Raw = msgspec.Raw(b"[1]")


def test_all_texts_of_a_value_are_made_fit_when_it_is_encoded() -> None:
    encoder = msgspec.json.Encoder()
    said = Said(HALF, ({"a": [HALF]}, 1, None))
    assert encoded(encoder, said) == encoder.encode(Said(fit(HALF), ({"a": [fit(HALF)]}, 1, None)))
    assert fit_all({HALF: HALF}) == {fit(HALF): fit(HALF)}


class Own(Reason, frozen=True):
    detail: Any

    def __str__(self) -> str:
        return str(self.detail)


def test_no_reason_and_no_description_takes_a_supervisor_down(evil: type[Any]) -> None:
    class Leaves(Puppet):
        def on_receive(self, message: Any) -> Any:
            return Stop(message)

        def format_state(self) -> Any:
            return evil()

        def describe_message(self, message: Any) -> Any:
            return evil()

    sink = Sink()
    spec = one_for_one(child(Leaves, name="z", restart="permanent"), child(Puppet, name="sibling"), max_restarts=100)
    with ActorSystem("texts", sink=sink) as system, Tree.start(system, spec, sink=sink) as tree:
        sibling = tree["sibling"].ref()
        for ended, reason in enumerate((Other(evil()), Shutdown(evil()), Own(evil()), crash(Exception(evil()))), 1):
            before = tree["z"].ref()
            before.tell(reason)
            before.join(20)
            eventually(lambda ended=ended: tree.snapshot().children[0].restarts == ended)
        assert tree["sibling"].ref() is sibling
        assert tree["sibling"].call("alive") == "alive"
        assert "z" in str(tree)
    for event in sink.events:
        assert msgspec.json.encode(event)


def test_a_sink_that_exits_keeps_no_actor_from_dying() -> None:
    with ActorSystem("texts", sink=raises(SystemExit(3))) as system:
        ref = system.start(Actor)
        ref.cast("nobody handles this")
        ref.stop()
        assert not ref.is_alive()


def test_what_a_terminal_would_obey_or_hide_is_spelled_out() -> None:
    assert printable("plain, größer, 漢字, 👩\u200d💻") == "plain, größer, 漢字, 👩\u200d💻"
    assert printable("\x1b[2J\x07\x9b1m\x7f") == r"\u001b[2J\u0007\u009b1m\u007f"
    assert printable("a\r\nb\tc\u2028d") == r"a\r\nb\tc\u2028d"
    assert printable("\u202egnp.exe \u2066\ufeff\U000e0041") == r"\u202egnp.exe \u2066\ufeff\udb40\udc41"
    assert printable(HALF).isascii()
    assert printable("a\r\nb\tc\x1b", lines=True) == "a\\r\nb\tc\\u001b"


def test_json_that_is_made_printable_says_the_same() -> None:
    value = {"\x1b]0;\x07": ["\x9b", "\u202e", "\U000e0041", "\x7f", "é\n"]}
    said = printable(msgspec.json.encode(value).decode())
    assert msgspec.json.decode(said) == value
    assert said.isprintable()
