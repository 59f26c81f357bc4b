"""What a step must give to count: a predicate of the caller, and what becomes of a value it does not take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.options import check_callable
from mlld_sdk.base.texts import text_of
from mlld_sdk.runs.errors import StepIsAsync, StepNotAccepted
from mlld_sdk.runs.functions import called, is_async

SHOWN: Final = 200
"""Characters of a value that was not accepted that are told."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A condition on what one step gives.

    Attributes:
        predicate: Takes the value; what it returns counts as true or false.
        of: Returns what of a step's result the predicate takes.
        forget: Called when it does not take it, so that the next attempt is not given the same by a cache.
    """

    predicate: Callable[[Any], object]
    of: Callable[[Any], Any] = lambda value: value
    forget: Callable[[], None] = lambda: None

    def judge(self, step: str, result: Any) -> None:  # noqa: ANN401
        """Let a result pass, or raise.

        Raises:
            StepNotAccepted: The predicate does not take it. What the predicate itself raises is passed on.
        """
        try:
            value = self.of(result)
            if not called(step, self.predicate, value):
                raise StepNotAccepted(step, text_of(value, SHOWN, say=repr), _name_of(self.predicate))
        except StepIsAsync:
            raise _awaited(self.predicate) from None
        except Exception:
            self.forget()
            raise


def accepting(accept: Callable[[Any], object] | None) -> None:
    """Refuse what is no predicate that can be called here.

    Raises:
        InvalidOption: It cannot be called, or is a coroutine function, whose verdict would have to be awaited.
    """
    if accept is None:
        return
    check_callable("accept", accept)
    if is_async(accept):
        raise _awaited(accept)


def _awaited(accept: object) -> InvalidOption:
    return InvalidOption("accept", accept, "a function that returns its verdict, and none to be awaited")


def _name_of(predicate: object) -> str:
    return text_of(getattr(predicate, "__qualname__", None) or predicate, SHOWN)
