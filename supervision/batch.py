"""Several management calls in one message: each is answered for itself, and the message when all of them are."""

from typing import Any

from mlld_sdk.actors.core.directives import UNSET
from mlld_sdk.actors.core.ref import ReplyTo


class BatchAnswers:
    """What has been answered of one message's calls; only its supervisor uses it."""

    __slots__ = ("_call", "_missing", "_values")

    def __init__(self, call: ReplyTo, count: int) -> None:
        self._call = call
        self._values: list[Any] = [UNSET] * count
        self._missing = count

    def put(self, index: int, value: Any) -> None:
        """Take the answer to one of the calls; what comes after it for the same one is nothing."""
        if self._values[index] is UNSET:
            self._values[index] = value
            self._missing -= 1
            if not self._missing:
                self._call.reply(self._values)


class BatchCall:
    """One of the calls, as decisions know it: something that can be answered."""

    __slots__ = ("_answers", "_index")

    def __init__(self, answers: BatchAnswers, index: int) -> None:
        self._answers = answers
        self._index = index

    def reply(self, value: Any) -> None:
        """Answer with a value."""
        self._answers.put(self._index, value)

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self._answers.put(self._index, error)
