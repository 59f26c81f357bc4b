"""How the command line prints things: durations, ages, tables, crash reports. Plain text; prettier if rich is there."""

import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from mlld_sdk.base.texts import printable
from mlld_sdk.supervision.snapshot import duration, shorten

LINES: Final = {"text", "output", "trace", "traceback", "stack"}
"""Fields of answers that are meant to have lines."""

AS_JSON: Final = "value"
"""The field of answers that is shown as JSON, and therefore as it is."""


def for_people(answer: Any, *, lines: bool = False) -> Any:
    """Return an answer with all its texts fit to be shown; only those that are meant to have lines have any."""
    if isinstance(answer, str):
        return printable(answer, lines=lines)
    if isinstance(answer, dict):
        return {
            printable(name): one if name == AS_JSON else for_people(one, lines=name in LINES)
            for name, one in answer.items()
        }
    if isinstance(answer, list):
        return [for_people(one) for one in answer]
    return answer


def complain(text: str) -> None:
    """Print on stderr what went wrong; further lines of a text are indented, so that none passes for one of ours."""
    print("mlld-otp:", printable(text, lines=True).replace("\n", "\n  "), file=sys.stderr)


def ago(at: float) -> str:
    """Return how long ago a wall-clock moment was."""
    return f"{duration(max(0.0, time.time() - at))} ago"  # noqa: TID251 - compared with moments of other processes


def clock(at: float) -> str:
    """Return a wall-clock moment as hours, minutes, seconds."""
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"


def size(count: int) -> str:
    """Return a number of bytes in MiB."""
    return f"{count / (1 << 20):.0f} MiB"


def runs(backlog: dict[str, Any] | None) -> tuple[Any, ...]:
    """Return how many runs of an agent are at work and pending, the wait of the oldest, and how many are parked."""
    if backlog is None:
        return "", "", "", ""
    if not backlog["known"]:
        return "?", "?", "?", "?"
    oldest = duration(backlog["oldest"]) if backlog["waiting"] else ""
    return backlog["running"], backlog["pending"], oldest, backlog["parked"]


def where(stack: str) -> str:
    """Return the innermost place of a printed stack in a line."""
    places = re.findall(r'File "(.+?)", line (\d+), in (\S+)', stack)
    return f"{places[-1][2]} ({Path(places[-1][0]).name}:{places[-1][1]})" if places else "?"


def cut(text: str, most: int) -> str:
    """Cut a text visibly."""
    return text if len(text) <= most else text[: most - 1] + "…"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "none") -> str:
    """Lay out a table in columns as wide as they need to be, or return `empty`."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return empty
    widths = [max(len(row[at]) for row in [list(heads), *cells]) for at in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *cells]]
    return "\n".join(line.rstrip() for line in lines)


def crash_line(crash: dict[str, Any]) -> str:
    """Return a crash in one line."""
    head = f"{clock(crash['at'])}  {crash['crash_id']:<12} {crash['path']:<28} {crash['decision']:<8}"
    return f"{head} {shorten(crash['reason'])}"


def crash_report(crash: dict[str, Any]) -> str:
    """Return everything about a crash."""
    budget, engine = crash.get("budget"), crash.get("engine")
    when = f"{clock(crash['at'])} ({ago(crash['at'])})"
    lines = [
        f"{crash['path']} #{crash['incarnation']}   {crash['kind']}   {when}   {crash['crash_id']}",
        f"  reason    {crash['reason']}",
    ]
    if crash.get("wedged_for"):
        lines.append(f"  wedged    nothing finished for {duration(crash['wedged_for'])}")
    if engine:
        memory = ", memory ran out?" if engine.get("out_of_memory") else ""
        lines.append(f"  engine    {engine['engine']} (pid {engine['pid']}) ended: {engine['exit']}{memory}")
        lines += [f"            | {line}" for line in engine.get("stderr_tail", ())]
    if crash.get("lived") is not None:
        lines.append(f"  lived     {duration(crash['lived'])}")
    if crash.get("runs"):
        lines.append(f"  took      runs {', '.join(crash['runs'])}; they go on with the next incarnation")
    if crash.get("last_message") or crash.get("queued"):
        handling = f"was handling {shorten(crash['last_message'])}" if crash.get("last_message") else ""
        refused = f"waiting messages refused: {crash['queued']}" if crash.get("queued") else ""
        lines.append(f"  mailbox   {'; '.join(part for part in (handling, refused) if part)}")
    if crash.get("checkpoint"):
        lines.append(f"  cache     last answer kept {ago(crash['checkpoint'])}")
    if crash.get("last_step"):
        lines.append(f"  progress  last step finished {ago(crash['last_step'])}")
    decided = f"  decision  {crash['decision']}" + (f" by {crash['blame']}" if crash.get("blame") else "")
    if crash.get("next_attempt_in"):
        decided += f", next start after {crash['next_attempt_in']:.1f} s"
    lines.append(decided)
    if budget:
        lines.append(f"  budget    {budget['used']} of {budget['limit']} restarts within {budget['within']:g} s")
    if crash.get("trace"):
        lines += ["  trace", *(f"    {line}" for line in crash["trace"].rstrip().splitlines())]
    return "\n".join(lines)


def event_line(event: dict[str, Any]) -> str:
    """Return an event in one line."""
    shown = {name: value for name, value in event["fields"].items() if name not in ("at", "trace", "stderr_tail")}
    fields = " ".join(f"{name}={shorten(str(value), 48)}" for name, value in shown.items())
    return f"{clock(event['at'])}  {event['level']:<7} {event['name']:<24} {fields}"
