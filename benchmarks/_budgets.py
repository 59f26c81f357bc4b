"""What is wanted of each piece of work, and whether a report of `python benchmarks` reaches it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

Table = list[dict[str, str]]


@dataclass(frozen=True)
class Figure:
    """One number of a report and its bound.

    Attributes:
        place: Headings that lead to the table, such as `Transport/Requests`.
        row: First cells of the row; rows that are alike count together.
        column: Heading of the column.
        at_most: Upper bound, unless there is a lower one.
        at_least: Lower bound.
    """

    place: str
    row: tuple[str, ...]
    column: str
    at_most: float | None = None
    at_least: float | None = None

    def values(self, tables: dict[str, Table]) -> list[float]:
        """Look the numbers up in a report; none where it was not measured."""
        rows = [row for row in tables.get(self.place, []) if tuple(row.values())[: len(self.row)] == self.row]
        found = [re.match(r"-?[\d.,]+(e[+]\d+)?", row.get(self.column, "")) for row in rows]
        return [float(number[0].replace(",", "")) for number in found if number]

    def is_reached(self, value: float) -> bool:
        """Whether a number keeps the bound."""
        return value <= self.at_most if self.at_most is not None else value >= (self.at_least or 0.0)


@dataclass(frozen=True)
class Budget:
    """What is wanted of one piece of work, told as one line of the table."""

    work: str
    against: str
    figures: tuple[Figure, ...]
    note: str = ""

    def line(self, tables: dict[str, Table]) -> str:
        """Write the line: what is wanted, what was measured, and whether that is enough."""
        measured = [figure.values(tables) for figure in self.figures]
        missed = [not all(map(figure.is_reached, found)) for figure, found in zip(self.figures, measured, strict=True)]
        if not any(measured):
            verdict = "not measured"
        elif any(missed):
            verdict = "missed" if len(missed) == 1 else f"missed in {sum(missed)} of {len(missed)}"
        else:
            verdict = "reached"
        if any(measured) and not all(measured):
            verdict += " where measured"
        cells = (self.work, self.against, bounds(self.figures), "; ".join(map(shown, measured)), verdict)
        return f"| {' | '.join(cells)}{f': {self.note}' if self.note else ''} |"


def bounds(figures: tuple[Figure, ...]) -> str:
    """Write bounds in words, those that are the same once."""
    most = list(dict.fromkeys(f"{figure.at_most:g}" for figure in figures if figure.at_most is not None))
    least = list(dict.fromkeys(f"{figure.at_least:g}" for figure in figures if figure.at_least is not None))
    return "; ".join([f"at most {', '.join(most)}"] * bool(most) + [f"at least {', '.join(least)}"] * bool(least))


def shown(values: list[float]) -> str:
    """Write a number, or the range of several."""
    words = list(dict.fromkeys(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in sorted(values)))
    return " to ".join([words[0], words[-1]] if len(words) > 1 else words) or "-"


def most(place: str, column: str, *rows: tuple[float, *tuple[str, ...]]) -> tuple[Figure, ...]:
    """Bound numbers of one table from above: each row is the bound and the first cells."""
    return tuple(Figure(place, row, column, at_most=bound) for bound, *cells in rows if (row := tuple(cells)))


def least(place: str, column: str, *rows: tuple[float, *tuple[str, ...]]) -> tuple[Figure, ...]:
    """Bound numbers of one table from below."""
    return tuple(Figure(place, row, column, at_least=bound) for bound, *cells in rows if (row := tuple(cells)))


RAW, ERLANG, UPSTREAM = "raw Pykka", "a real Erlang", "upstream's SDK"
FASTER = "against upstream's SDK"

BUDGETS = (
    Budget(
        "ask an idle actor; where callers run it", RAW,
        most("Actors", "ours / raw", (1.1, "ask an idle actor"), (0.15, "ask an idle actor, caller-runs")),
    ),
    Budget("pipelined asks", RAW, most("Actors", "ours / raw", (0.35, "pipelined asks, 100 at a time"))),
    Budget("tell", RAW, most("Actors", "ours / raw", (0.5, "tell until handled"))),
    Budget(
        "start 10,000 actors: linked; supervised static, dynamic in one call, in a call each",
        "raw Pykka, unsupervised",
        most("Actors", "ours / raw", (0.05, "start 10,000 linked actors, each (raw: 2,000)"))
        + most(
            "Supervision", "against raw", (0.05, "start 10,000, static, each"),
            (0.05, "start 10,000, dynamic, one call for all"), (0.05, "start 10,000, dynamic, a call for each"),
        ), "ours take 6 to 12 us, while raw Pykka takes 100 to 220 from run to run",
    ),
    Budget(
        "start and stop 10,000 and 100,000 supervised actors", ERLANG,
        most(
            "Supervision", "against Erlang", (5, "start 10,000, static, each"),
            (5, "stop 10,000, static, in order, each"), (5, "start 100,000, dynamic, a call for each"),
            (5, "stop 100,000, dynamic, each"),
        ),
    ),
    Budget(
        "bytes of an idle actor", "an Erlang process",
        most("Actors", "ours / Erlang", (1, "... bytes each (raw: 2,000, without kernel stacks)")),
    ),
    Budget(
        "crash to restarted: median; p99 in us", "a supervisor written by hand on Pykka",
        most("Supervision", "p50 against raw", (0.3, "here")) + most("Supervision", "p99 us", (1000, "here")),
    ),
    Budget(
        "embedded engine killed, answering again; with a spare", "bare spawn and first answer",
        most("Recovery/Engine killed, answering again", "against the floor", (1.4, "embedded", "agent"),
             (0.3, "embedded", "agent with a spare")),
    ),
    Budget(
        "the same with an engine that starts in 1 ms", "bare spawn and first answer",
        most("Recovery/Engine killed, answering again", "against the floor", (1.4, "trivial", "agent"),
             (0.3, "trivial", "agent with a spare")), "every real engine takes longer than 10 ms to start",
    ),
    Budget(
        "transport: 1, 16, 256 in flight", UPSTREAM,
        least("Transport/Requests", "against ours", (2, "1", "upstream SDK"), (4, "16", "upstream SDK"),
              (8, "256", "upstream SDK")), "alone it is two wake-ups of the kernel for either",
    ),
    Budget(
        "client: one thread, 16 and 256 in flight", UPSTREAM,
        least("Agents", FASTER, *((bound, load, "client, shared engine") for bound, load in
              ((2, "one thread"), (4, "16 in flight"), (8, "256 in flight")))),
        "with many in flight options, handle and result cost as much again as the transport",
    ),
    Budget(
        "agent that shares its engine: one thread, 16 and 256 in flight", UPSTREAM,
        least("Agents", FASTER, *((bound, load, "agent, shared engine") for bound, load in
              ((1, "one thread"), (3, "16 in flight"), (5, "256 in flight")))),
    ),
    Budget(
        "agent, each request on an engine of its own, one thread", UPSTREAM,
        least("Agents", FASTER, (1, "one thread", "agent")), "what upstream shares ends at the first failing script",
    ),
    Budget(
        "events to a callback: transport; client and shared agent with 10 a request, 16 at once", UPSTREAM,
        least("Transport/One request, 200,000 events", "against ours", (15, "upstream SDK"))
        + least("Agents", FASTER, *((15, "16 in flight, 10 events each", who) for who in
                ("client, shared engine", "agent, shared engine"))),
    ),
    Budget(
        "500 live engines: threads; KiB each", "-",
        most("Transport/500 live children", "more threads", (6, "ours"))
        + most("Transport/500 live children", "KiB each", (8, "ours")),
    ),
    Budget(
        "durable step, 1 and 16 writers", "raw SQLite with group commit",
        least("Recovery/Durable steps", "of the floor", (0.8, "1"), (0.8, "16")),
    ),
    Budget(
        "resume of 1,000 and 100,000 steps", "reading the rows raw",
        most("Recovery/Resuming a run", "times the floor", (3, "1,000"), (3, "100,000")),
    ),
    Budget(
        "an event, in us: nobody listens, one handler", "-",
        most("Telemetry/An event", "µs to emit, in bursts", (0.1, "nobody"), (0.5, "one handler")),
    ),
    Budget(
        "longest garbage collection at 100,000 actors, in ms", "-",
        most("Actors", "ours", (5, "longest GC pause, 100,000 actors, settled")),
    ),
    Budget(
        "`import mlld_sdk`; and `Runtime` and `Agent` used", "importing the three dependencies",
        most("Calls/Imports", "times the dependencies", (1.5, "`import mlld_sdk`"),
             (1.5, "... and `Runtime` and `Agent`")),
    ),
    Budget(
        "Python calls of a client's `process`", "-", most("Calls/Calls on the way", "calls", (30, "client: process"))
    ),
    Budget("Python calls of an `ask`", "-", most("Calls/Calls on the way", "calls", (16, "actor: ask"))),
    Budget(
        "Python calls of an agent's `process`; modules", "-",
        most("Calls/Calls on the way", "calls", (45, "agent: process"))
        + most("Calls/Calls on the way", "modules", (14, "agent: process")),
    ),
    Budget(
        "Python calls of its asynchronous twin", "-",
        most("Calls/Calls on the way", "calls", (55, "agent: process, asynchronous")),
    ),
    Budget(
        "Python calls of a run of one step", "-",
        most("Calls/Calls on the way", "calls", (500, "agent: run of one step")),
    ),
)  # fmt: skip


def table(report: str) -> str:
    """Hold a report against the budgets."""
    tables = dict(read(report))
    lines = [budget.line(tables) for budget in BUDGETS]
    return "\n".join(["| work | against | wanted | measured | |", "|---|---|---|---|---|", *lines])


def read(report: str) -> Iterator[tuple[str, Table]]:
    """Read the tables of a report, each under the headings that lead to it; several of one place are one."""
    found: dict[str, Table] = {}
    section = place = ""
    head: list[str] = []
    for line in report.splitlines():
        if line.startswith("## "):
            section = place = line[3:]
        elif line.startswith("### "):
            place = f"{section}/{line[4:]}"
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not head:
            head = cells
        elif not set(line) <= set("|-: "):
            # Of two columns with one heading, the first counts.
            named = zip(reversed(head), reversed(cells), strict=True)
            found.setdefault(place, []).append(dict(reversed(dict(named).items())))
    yield from found.items()
