"""Which siblings take part when one child is restarted."""

from collections.abc import Sequence
from typing import TypeVar, assert_never

from mlld_sdk.supervision.spec import Strategy

K = TypeVar("K")


def affected(strategy: Strategy, order: Sequence[K], dead: K) -> Sequence[K]:
    """List the children a restart of `dead` replaces, itself included, in start order.

    Args:
        strategy: The supervisor's strategy.
        order: All its children in start order.
        dead: The child that is to be restarted.
    """
    match strategy:
        case "one_for_one":
            return (dead,)
        case "one_for_all":
            return order
        case "rest_for_one":
            return order[order.index(dead) :]
        case other:
            assert_never(other)
