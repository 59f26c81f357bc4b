"""What is said about an actor when it has ended, or failed to start."""

from mlld_sdk.actors.core import events
from mlld_sdk.actors.core.errors import StartIgnored
from mlld_sdk.actors.core.exits import Crash
from mlld_sdk.actors.core.mailbox import Entry
from mlld_sdk.actors.core.protocols import AnyCell
from mlld_sdk.base.events import Event


def end_report(
    cell: AnyCell, at: float, error: BaseException | None, last: Entry | None, refused: int, *, had_started: bool
) -> Event:
    """Describe an end.

    Args:
        cell: The one that has ended.
        at: When.
        error: What it ended with, if that was an exception.
        last: The message it was handling.
        refused: How many waiting messages were refused.
        had_started: Else its start failed, or it declined.
    """
    reason = cell.reason
    assert reason is not None, "it has ended"
    if not had_started:
        return events.ActorStartFailed(
            at=at,
            actor=cell.path,
            epoch=cell.epoch,
            kind=cell.traits.kind,
            reason=str(reason),
            ignored=isinstance(error, StartIgnored),
        )
    normal = reason.is_normal_family
    return events.ActorExited(
        at=at,
        actor=cell.path,
        epoch=cell.epoch,
        kind=cell.traits.kind,
        reason=str(reason),
        normal=normal,
        trace=reason.trace if isinstance(reason, Crash) else "",
        last_message="" if normal or last is None else cell.describe(last[0]),
        state="" if normal else _state_of(cell),
        queued=refused,
    )


def _state_of(cell: AnyCell) -> str:
    try:
        return str(cell.actor.format_state())[:2_000] if cell.actor else ""
    except Exception as error:  # noqa: BLE001 - a report must not fail
        return f"<format_state raised {type(error).__name__}>"
