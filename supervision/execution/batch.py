"""Several management calls in one message: each is answered for itself, and the message when all of them are."""

from typing import Any

import msgspec

from mlld_sdk.actors.core.directives import UNSET
from mlld_sdk.actors.core.ref import ReplyTo


class BatchAnswers:
    """The answers to one message's calls so far; used by its supervisor only."""

    __slots__ = ("call", "missing", "values")

    def __init__(self, call: ReplyTo, count: int) -> None:
        self.call = call
        self.values: list[Any] = [UNSET] * count
        self.missing = count


class BatchCall(msgspec.Struct, frozen=True):
    """One of the calls: what decisions answer."""

    answers: BatchAnswers
    index: int

    def reply(self, value: Any) -> None:
        """Answer with a value; a second answer is ignored."""
        answers, index = self.answers, self.index
        if answers.values[index] is UNSET:
            answers.values[index] = value
            answers.missing -= 1
            if not answers.missing:
                answers.call.reply(answers.values)

    fail = reply
    """Answer with an error, which is a value in the list of answers."""
