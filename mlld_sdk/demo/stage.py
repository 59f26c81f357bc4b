"""What all demos share: telling what happens as it happens, proving it, and failing when it did not."""

import contextlib
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mlld_sdk.base.durations import Deadline, now
from mlld_sdk.base.events import Event, name_of
from mlld_sdk.demo.picture import Story, draw
from mlld_sdk.engines.kinds import EngineKind
from mlld_sdk.runtime.runtime import Runtime
from mlld_sdk.supervision import events as e
from mlld_sdk.supervision.snapshot import shorten
from mlld_sdk.supervision.spec import SupervisorSpec
from mlld_sdk.telemetry.places import BREAKERS
from mlld_sdk.transport import events as t

T = TypeVar("T")


class DemoFailed(Exception):
    """What was promised did not happen."""


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")  # in one piece, because several threads talk
    sys.stdout.flush()


class Stage:
    """Where a demo plays: a directory, a clock, and an output.

    Args:
        directory: For scripts, logs and the journal; made if it is not there.
        engine: Which engine runs the scripts.
        patience: Seconds until something that does not happen counts as failed.
        say: Takes each line of output.

    Attributes:
        options: Where and on which engine the agents of a demo work.
        pace: How much longer than the embedded engine this one may take to start.
        story: The picture, if the demo draws one: it adds progress, this stage deaths and states of agent and breaker.
    """

    def __init__(
        self, directory: Path, engine: EngineKind, *, patience: float = 60.0, say: Callable[[str], object] = _print
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.engine = engine
        self.options: dict[str, Any] = {"engine": engine, "working_dir": directory}
        self.pace = 1.0 if engine == "embedded" else 8.0
        self.patience = patience
        self.events: list[Event] = []
        self.story: Story | None = None
        self._say = say
        self._start = now()
        self._happened = threading.Condition()

    def tell(self, line: str) -> None:
        """Print what happens, with the time since the beginning."""
        self._say(f"{self.now():6.2f} s  {line}")

    def show(self, text: str) -> None:
        """Show a few lines as they are."""
        self._say("\n" + "\n".join(f"          {line}" for line in text.splitlines()) + "\n")

    def runtime(self, tree: SupervisorSpec, *, stored: bool = False) -> Runtime:
        """Make a runtime whose events are kept and, if worth it, told; with a journal in the directory if `stored`."""
        runtime = Runtime(tree, store=self.directory / "state.db" if stored else None)
        runtime.bus.attach_inline("demo", self.take)
        return runtime

    def count(self, name: str) -> int:
        """Return how many events of a name there were."""
        return self.named().count(name)

    def named(self) -> list[str]:
        """List the names of all events so far."""
        return [name_of(event) for event in list(self.events)]

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return now() - self._start

    def wait(self, what: str, holds: Callable[[], T]) -> T:
        """Wait until `holds` returns something true, and return that; it is called after every event and every 50 ms.

        Raises:
            DemoFailed: It did not, within the patience of this stage.
        """
        deadline = Deadline(self.patience)
        while not (found := holds()):
            left = deadline.left
            if left <= 0:
                raise DemoFailed(f"waited {self.patience:g} s in vain: {what}")
            with self._happened:
                self._happened.wait(min(left, 0.05))
        return found

    def prove(self, what: str, holds: bool) -> None:
        """Fail the demo unless something holds.

        Raises:
            DemoFailed: It is not so.
        """
        if not holds:
            raise DemoFailed(f"this does not hold: {what}")

    def script(self, name: str, text: str) -> None:
        """Write a script into the directory."""
        (self.directory / name).write_text(text, encoding="utf-8")

    def calls(self) -> list[str]:
        """List what was really called: the scripts of all demos leave a line in `calls.log` for each call."""
        log = self.directory / "calls.log"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def calls_made(self, least: int) -> list[str]:
        """Wait for at least so many calls, and list them all."""
        return self.wait(f"{least} calls are made", lambda: calls if len(calls := self.calls()) >= least else [])

    def take(self, event: Event) -> None:
        """Keep an event, draw it, and tell it if it is worth telling."""
        self.events.append(event)
        if self.story is not None:
            _draw_into(self.story, event, self.now())
        line = _line(event)
        if line:
            self.tell(line)
        with self._happened:
            self._happened.notify_all()


@contextlib.contextmanager
def meanwhile(look: Callable[[], object], every: float = 0.01) -> Iterator[None]:
    """Call something over and over on a thread of its own, as long as the block lasts."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            look()

    thread = threading.Thread(target=repeat, name="demo-meanwhile")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _line(event: Event) -> str:
    match event:
        case e.ChildWedged():
            return f"wedged   {event.path}: nothing finished for {event.idle:.1f} s, time {event.times} on this rung"
        case e.ChildExited(budget=budget):
            wait = f", next start in {event.next_attempt_in:.2f} s" if event.next_attempt_in else ""
            used = f", {budget.used} of {budget.limit} restarts used" if budget else ""
            return f"crash    {event.path}: {shorten(event.reason, 90)}; {event.decision}{wait}{used}"
        case e.ChildStarted(cause="restart"):
            rung = f", rung {event.rung} of its ladder" if event.rung else ""
            return f"restart  {event.path} is incarnation {event.incarnation}{rung}"
        case e.BreakerOpened(retry_after=wait) if wait is not None:
            return f"breaker  open for {wait:.2f} s: {shorten(event.cause, 90)}"
        case e.BreakerHalfOpened():
            return "breaker  half-open: one call may try"
        case e.BreakerClosed():
            return "breaker  closed"
        case t.EngineExited(reason="died", signal=int(number)):
            return f"engine   {event.pid} died of signal {number}"
    return ""


def _draw_into(story: Story, event: Event, now: float) -> None:
    match event:
        case t.EngineExited(reason="died"):
            story.kills.append((now, "engine died"))
        case e.ChildExited():
            story.turn("agent", "backoff" if event.next_attempt_in else "restarting", now)
        case e.ChildStarted():
            story.turn("agent", "running", now)
        case e.BreakerOpened() | e.BreakerHalfOpened() | e.BreakerClosed():
            story.turn("breaker", BREAKERS[type(event)], now)


Play = Callable[[Stage], str]
"""A demo: plays on a stage and returns the proof in words, or raises `DemoFailed`."""


def perform(play: Play, engine: EngineKind, picture: Path | None = None) -> int:
    """Play a demo in a directory of its own, print how it went, and return the exit status.

    Args:
        play: The demo.
        engine: Which engine runs the scripts.
        picture: Where its picture goes, if it draws one.
    """
    with tempfile.TemporaryDirectory(prefix="mlld-demo-") as folder:
        stage, status = Stage(Path(folder), engine), 0
        try:
            proof = play(stage)
        except DemoFailed as failed:
            print(f"\nThe demo failed: {failed}", file=sys.stderr)
            return 1
    if stage.story is not None and picture is not None:
        print()
        status = hang(picture, stage.story)
    print(f"\nProof: {proof}")
    return status


def hang(picture: Path, story: Story) -> int:
    """Write a picture, print where it is, and return the exit status."""
    try:
        picture.write_text(draw(story), encoding="utf-8")
    except OSError as error:
        print(f"The picture cannot be written to {picture}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"The picture: {picture}")
    return 0
