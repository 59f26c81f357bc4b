"""Break everything for a while, and say what was tried and what came of it.

    make chaos MINUTES=60
    python -m tests.chaos --minutes 60 --seed 7 --only "disk full"

The seed chooses what is done and when; what happens then depends on the machine, too. Everything is done in folders
that are removed again, but for those of the first rounds in which something was wrong, by processes that end with it.
The exit status is 0 when nothing was lost, doubled or wrong.
"""

import argparse
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.scenarios import SCENARIOS, CannotBeTried, Trial
from tests.chaos.table import Row, complaints, table

ROUND = 30.0
"""Seconds things are broken in one round; a soak takes a sixth of the whole in one piece."""
LONGEST_SOAK = 900.0
MOST_KEPT = 3
BEGIN, END = "<!-- chaos -->\n", "<!-- /chaos -->\n"


def play(name: str, seed: str, seconds: float, row: Row, kept: list[Path]) -> None:
    """Play one round in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mlld-chaos-")).resolve()
    trial = Trial(folder, random.Random(seed), seconds)
    try:
        SCENARIOS[name](trial)
    except CannotBeTried as error:
        row.skipped = str(error)
    else:
        row.add(trial, seed)
    finally:
        trial.ledger.close()
        if trial.verdict.is_right or len(kept) >= MOST_KEPT:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            kept.append(folder)
    if not row.skipped:
        state = "right" if trial.verdict.is_right else "NOT RIGHT"
        print(f"{datetime.now(UTC):%H:%M:%S} {name}: {state}, seed {seed}", file=sys.stderr, flush=True)


def run(names: list[str], seconds: float, seed: int) -> tuple[dict[str, Row], list[Path]]:
    """Play rounds of all scenarios in turn until the time is over; each is played at least once."""
    rows = {name: Row() for name in names}
    kept: list[Path] = []
    until = time.monotonic() + seconds
    if "soak" in names:
        play("soak", f"{seed}/0/soak", min(LONGEST_SOAK, seconds / 6), rows["soak"], kept)
    others = [name for name in names if name != "soak"]
    length = min(ROUND, seconds / 2 / max(1, len(others)))
    turn = 0
    while others and (turn == 0 or time.monotonic() < until):
        for name in others:
            if not rows[name].skipped and (turn == 0 or time.monotonic() < until):
                play(name, f"{seed}/{turn}/{name}", length, rows[name], kept)
        turn += 1
    return rows, kept


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, about (default: 10)")
    parser.add_argument("--seed", type=int, default=None, help="which dice (default: any)")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="this scenario; may be repeated")
    parser.add_argument("--into", type=Path, default=None, help="a page that shows the table, between its marks")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what it has started is ended first
    began = time.monotonic()
    rows, kept = run(chosen.only or list(SCENARIOS), chosen.minutes * 60, seed)
    took = (time.monotonic() - began) / 60
    where = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} processors"
    head = f"{datetime.now(UTC):%d %B %Y}, {took:.0f} minutes, seed {seed}; {where}."
    print(f"\n{head}\n\n{table(rows)}")
    for line in complaints(rows):
        print(line)
    for folder in kept:
        print(f"kept: {folder}")
    if chosen.into is not None:
        write_into(chosen.into, f"{head}\n\n{table(rows)}")
    return 0 if all(row.verdict.is_right for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
