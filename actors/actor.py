"""The actor base class."""

from typing import Any, ClassVar

import pykka

from mlld_sdk.actors.exits import Reason


class Actor(pykka.Actor):
    """An actor with OTP guarantees.

    Who runs what: `__init__` runs in the thread that starts the actor (keep it short, as in Pykka); every `on_*` hook
    runs as the actor, one at a time, on a worker of its system, and may block.
    """

    # -- class options
    slice: ClassVar[int] = 64
    mailbox_limit: ClassVar[int | None] = 100_000
    overflow: ClassVar[str] = "refuse"  # "drop_newest" | "drop_oldest" | "block"
    overflow_timeout: ClassVar[float] = 5.0
    answers: ClassVar[tuple[type[Exception], ...]] = ()  # expected errors: answered, not crashed on (plus errors.TaskError)
    threaded: ClassVar[bool] = False
    caller_runs: ClassVar[bool] = False
    urgent_exits: ClassVar[bool] = False  # Exit/Down before waiting messages: supervisors
    start_timeout: ClassVar[float] = 30.0
    idle_after: ClassVar[float | None] = None
    trap_exit: bool = False

    # -- hooks
    def on_start(self) -> Any: """None | IGNORE | Stop(reason) | Continue(value) | Idle(after); raising fails the start."""
    def on_receive(self, message: Any) -> Any: """Messages; Exit, Down and timer messages come here too. Return value answers ask/call."""
    def on_continue(self, value: Any) -> Any: ...
    def on_idle(self) -> Any: ...
    def on_terminate(self, reason: Reason) -> None: """Every end but a kill. Default: Pykka's on_failure after a crash, else on_stop."""
    def describe_message(self, message: Any) -> str: ...
    def format_state(self) -> str: ...

    # -- for use inside hooks
    # self.actor_ref, self.system, self.parent (ref|None), self.stopping (bool)
    # self.start_link(cls, *args, **kwargs), self.monitor(ref|name) -> Monitor, self.link(ref), self.unlink(ref)
    # self.send_after(delay, message, to=None) -> Timer
    # self.reply_to() -> ReplyTo  (then return NO_REPLY; .reply(v) / .fail(exc) later from anywhere)
    # self.own(resource, close=None) -> resource : killed/closed when the actor ends, however it ends
    # self.sleep(seconds) -> bool : False when woken by a stop
    # self.stop(reason=NORMAL)
