"""A world for tests of running trees: a system whose clock stands still, its events, and actors that do as told."""

import threading
import time
from collections.abc import Callable
from typing import Any

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.supervision import ChildNotFound, ChildUnavailable, Tree
from tests.support.supervision import Clock, Recorder, fake_system, quiet


class Puppet(Actor):
    """Does as it is told, and remembers what it was started with."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def on_start(self) -> Any:
        begin: Callable[[Puppet], Any] | None = self.options.get("begin")
        return begin(self) if begin else None

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message(self) if callable(message) else message

    def on_terminate(self, reason: Reason) -> None:
        finish: Callable[[Puppet, Reason], None] | None = self.options.get("finish")
        if finish:
            finish(self, reason)


class World:
    """A system whose clock stands still, its events, and the trees a test has started."""

    def __init__(self) -> None:
        self.events = Recorder()
        self.system: ActorSystem
        self.clock: Clock
        self.system, self.clock = fake_system(self.events)
        self.release = threading.Event()

    def start(self, spec: Any, **options: Any) -> Tree:
        return Tree.start(self.system, spec, **{"timeout": 5, **options})

    def settle(self) -> None:
        quiet(self.system)

    def crash(self, tree: Tree, path: str, error: BaseException | None = None) -> None:
        """Have a child crash, and wait until its supervisor has dealt with it."""
        ref = tree[path].ref()
        ref.tell(error or RuntimeError("boom"))
        ref.join(60)
        self.settle()

    def blocks(self) -> Callable[[Any, Any], None]:
        """Make a stop hook that does not end until the test is over."""
        return lambda *_: self.release.wait(60) and None

    def advance_until(self, done: Callable[[], bool], step: float = 0.5) -> float:
        """Let time pass in steps until something is so; says how much it took."""
        passed = 0.0
        while not done():
            time.sleep(0.005)
            if done():
                break
            self.clock.advance(step)
            passed += step
            assert passed < 200, "time alone does not do it"
        return passed

    def close(self) -> None:
        self.release.set()
        self.system.stop(3)


class Later:
    """Runs something in a thread of its own and keeps its result."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._answer: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._answer.append(action()))
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self, within: float = 60.0) -> Any:
        self._thread.join(within)
        assert not self._thread.is_alive(), "still running"
        return self._answer[0]


def attempt(action: Callable[[], Any]) -> Any:
    """Do something and return what it answered or raised."""
    try:
        return action()
    except Exception as error:
        return error


def is_up(tree: Tree, path: str) -> bool:
    try:
        return tree[path].ref().is_alive()
    except (ChildUnavailable, ChildNotFound):
        return False
