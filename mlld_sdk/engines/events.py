"""What happens on the way to an engine."""

from mlld_sdk.base.events import Event


class CheckpointLookup(Event, frozen=True, kw_only=True):
    """Base of what happens when a model call is looked up in the cache.

    Attributes:
        agent: Path of whose script made it: an agent, a pool or a client in a tree.
        function: Name of the function.
        key: Its key in the cache.
    """

    agent: str
    function: str
    key: str


class CheckpointHitEvent(CheckpointLookup, frozen=True, kw_only=True, tag="checkpoint.hit"):
    """A model call was answered from the cache; nothing was paid for it again."""


class CheckpointMissedEvent(CheckpointLookup, frozen=True, kw_only=True, tag="checkpoint.missed"):
    """A model call is made, and its answer kept if it is one."""


class ModelUnansweredEvent(Event, frozen=True, kw_only=True, tag="model.unanswered"):
    """A call of an `llm` function gave no answer: a command in it failed, or it came to nothing.

    Attributes:
        agent: Path of whose script made it: an agent, a pool or a client in a tree; empty for other clients.
        function: The function, without `@`; empty where the engine does not say.
        command: The program that failed, without its arguments; empty if none did.
        returncode: Its exit status; negative: killed by that signal. `None` if no command failed.
        said: The last line it printed: to stderr, or else to stdout.
    """

    agent: str
    function: str
    command: str = ""
    returncode: int | None = None
    said: str = ""
