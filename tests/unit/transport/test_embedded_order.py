"""The embedded engine makes requests active in the order they came in, however their threads wake up."""

import json
import threading

import pytest

from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.server.answers import Answers
from mlld_sdk.transport.embedded.server.misbehaviour import Misbehaviour
from mlld_sdk.transport.embedded.server.options import EmbeddedOptions
from mlld_sdk.transport.embedded.server.runner import ScriptRunner
from mlld_sdk.transport.embedded.server.wire import LineWriter


class Lines(LineWriter):
    def __init__(self) -> None:
        self.answered: list[object] = []
        self.news = threading.Condition()

    def write(self, data: bytes) -> None:
        message = json.loads(data)
        if "result" in message:
            with self.news:
                self.answered.append(message["result"]["id"])
                self.news.notify_all()

    def have(self, count: int, within: float) -> bool:
        with self.news:
            return self.news.wait_for(lambda: len(self.answered) >= count, within)


def test_a_request_does_not_overtake_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    options, mischief = EmbeddedOptions(like_real=True), Misbehaviour({})
    runner = ScriptRunner(options, Answers(lines, mischief, extended=False), mischief)

    def sleep(_: float) -> None:
        if threading.current_thread().name == "request-1":
            lines.have(1, within=0.3)  # the first one oversleeps: the second would have the time to be answered

    monkeypatch.setattr(clock, "sleep", sleep)
    for number in (1, 2):
        runner.start(number, "process", {"script": f"show `{number}`"})
    runner.begin()
    assert lines.have(2, within=30)
    assert lines.answered == [1, 2]
