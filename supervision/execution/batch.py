"""Several management calls in one message: each is answered for itself, and the message when all of them are."""

from typing import Any

from mlld_sdk.actors.core.directives import UNSET
from mlld_sdk.actors.core.ref import ReplyTo


class BatchAnswers:
    """The answers to one message's calls so far; used by its supervisor only."""

    __slots__ = ("_call", "_missing", "_values")

    def __init__(self, call: ReplyTo, count: int) -> None:
        self._call = call
        self._values: list[Any] = [UNSET] * count
        self._missing = count

    def put(self, index: int, value: Any) -> None:
        """Take the answer to one of the calls; a second answer to the same one is ignored."""
        if self._values[index] is UNSET:
            self._values[index] = value
            self._missing -= 1
            if not self._missing:
                self._call.reply(self._values)


class BatchCall:
    """One of the calls: what decisions answer."""

    __slots__ = ("_answers", "_index")

    def __init__(self, answers: BatchAnswers, index: int) -> None:
        self._answers = answers
        self._index = index

    def reply(self, value: Any) -> None:
        """Answer with a value."""
        self._answers.put(self._index, value)

    fail = reply
    """Answer with an error, which is a value in the list of answers."""
