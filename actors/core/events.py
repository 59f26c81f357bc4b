"""What happens to actors, as events: one for each transition."""

from mlld_sdk.base.events import Event


class ActorEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one incarnation of an actor.

    Attributes:
        actor: Its path.
        epoch: The number of this incarnation.
    """

    actor: str
    epoch: int


class ActorStarted(ActorEvent, frozen=True, kw_only=True, tag="actor.started"):
    """An actor finished its start: its `on_start` has returned.

    Attributes:
        kind: Name of its class.
    """

    kind: str


class ActorStartFailed(ActorEvent, frozen=True, kw_only=True, tag="actor.start_failed"):
    """An actor did not come up, or declined to.

    Attributes:
        kind: Name of its class.
        reason: Why, in words.
        ignored: It declined; nothing is wrong.
    """

    kind: str
    reason: str
    ignored: bool = False


class ActorExited(ActorEvent, frozen=True, kw_only=True, tag="actor.exited"):
    """An actor that had started ended.

    Attributes:
        kind: Name of its class.
        reason: Why, in words.
        normal: Whether that is an ordinary end.
        trace: Formatted traceback of a crash.
        last_message: What it was handling, as its class describes messages.
        state: Its state, as its class formats it; only for abnormal ends.
        queued: Messages that were still waiting and were refused.
    """

    kind: str
    reason: str
    normal: bool
    trace: str = ""
    last_message: str = ""
    state: str = ""
    queued: int = 0


class ZombieLeft(ActorEvent, frozen=True, kw_only=True, tag="zombie.left"):
    """A killed actor's thread is still running its last handler; the pool got a new worker for it.

    Attributes:
        thread: Name of the thread.
    """

    thread: str


class ZombieEnded(ActorEvent, frozen=True, kw_only=True, tag="zombie.ended"):
    """The thread of a killed actor came back.

    Attributes:
        after: Seconds it took.
    """

    after: float


class MessageUnhandled(ActorEvent, frozen=True, kw_only=True, tag="message.unhandled"):
    """An actor got a message it has no code for and dropped it.

    Attributes:
        message: The message, as its class describes it.
    """

    message: str


class MailboxOverflowed(ActorEvent, frozen=True, kw_only=True, tag="mailbox.overflowed"):
    """A mailbox reached its limit. Said once; again only after it has been empty in between.

    Attributes:
        limit: Messages it may hold.
        policy: What happens to those beyond.
    """

    limit: int
    policy: str


class ResourceCloseFailed(ActorEvent, frozen=True, kw_only=True, tag="resource.close_failed"):
    """Something an ended actor owned could not be closed.

    Attributes:
        resource: What it was.
        error: What was raised.
    """

    resource: str
    error: str


class ActorCallbackFailed(Event, frozen=True, kw_only=True, tag="callback.failed"):
    """A done-callback of a future or a monitor's callback raised; the others still ran.

    Attributes:
        error: What it raised.
        trace: Its traceback.
    """

    error: str
    trace: str


class WorkersExhausted(Event, frozen=True, kw_only=True, tag="workers.exhausted"):
    """All workers are blocked and the pool is at its limit: actors wait until one comes back, supervisors do not.

    Attributes:
        limit: The most workers allowed.
    """

    limit: int


class ErrorUnheard(ActorEvent, frozen=True, kw_only=True, tag="error.unheard"):
    """An expected error was raised for a message whose sender waits for no answer.

    Attributes:
        error: The error.
    """

    error: str
