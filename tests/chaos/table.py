"""What a chaos run says at its end: one row a scenario, and below what was wrong."""

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.ledger import Verdict
from tests.chaos.scenarios import Trial

MOST_SHOWN = 20
HEAD = ("scenario", "tried", "runs", "acts", "repeated", "late", "lost", "doubled", "wrong", "worst latency")


@dataclass
class Row:
    """All rounds of one scenario."""

    rounds: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""

    def add(self, trial: Trial, seed: str) -> None:
        """Count a round; what was wrong is named with its seed."""
        self.rounds += 1
        self.tried.update(trial.tried)
        self.notes += trial.notes
        for name in ("lost", "doubled", "wrong"):
            found = getattr(trial.verdict, name)
            found[:] = [f"{what} (seed {seed})" for what in found]
        self.verdict.add(trial.verdict)

    def cells(self, name: str) -> tuple[str, ...]:
        """Write the row."""
        if self.skipped:
            return (name, f"skipped: {self.skipped}", *[""] * 8)
        tried = [f"{count:,} {what}" for what, count in self.tried.items() if count]
        verdict = self.verdict
        counts = (verdict.runs, verdict.acts, verdict.again, verdict.late)
        bad = (verdict.lost, verdict.doubled, verdict.wrong)
        return (
            name,
            "; ".join([f"{self.rounds} rounds", *tried, *self.notes]),
            *(f"{count:,}" for count in counts),
            *(f"{len(found):,}" for found in bad),
            f"{verdict.slowest:.1f} s",
        )


def table(rows: dict[str, Row]) -> str:
    """Write all rows as a table in Markdown."""
    lines = [HEAD, ("---", "---", *["---:"] * 8), *(row.cells(name) for name, row in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def complaints(rows: dict[str, Row]) -> list[str]:
    """List what was lost, doubled or wrong, the first ones of each scenario."""
    found = []
    for name, row in rows.items():
        for kind in ("lost", "doubled", "wrong"):
            all_of_it = getattr(row.verdict, kind)
            found += [f"{kind}: {name}: {what}" for what in all_of_it[:MOST_SHOWN]]
            if len(all_of_it) > MOST_SHOWN:
                found.append(f"{kind}: {name}: and {len(all_of_it) - MOST_SHOWN} more")
    return found
