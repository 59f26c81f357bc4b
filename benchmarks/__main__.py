"""Every benchmark, one after the other, as one Markdown report, held against the budgets.

    python benchmarks [name ...] [--into docs/performance.md]
    python benchmarks --check docs/performance.md

Each benchmark runs in a process of its own and measures against its peers in the same run; quote ratios, not times.
With `--into`, the sections that were measured replace those between the marks of that page, and the table of budgets
is computed from all of them; otherwise the report is printed. `--check` computes only, and fails when the page differs.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from _budgets import table

HERE = Path(__file__).parent
MEASURED, BUDGETS = ("<!-- measured -->", "<!-- /measured -->"), ("<!-- budgets -->", "<!-- /budgets -->")


def machine() -> str:
    """Say what this was measured on."""
    packages = []
    for name in ("pykka", "msgspec", "mlld-sdk"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    packages.append("with Erlang" if shutil.which("erl") else "no Erlang")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    hardware = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory} GiB"
    return f"{datetime.now(UTC):%Y-%m-%d}, {hardware}, Python {platform.python_version()}, {', '.join(packages)}."


def measure(names: list[str]) -> dict[str, str]:
    """Run the benchmarks and return their sections by title.

    Raises:
        CalledProcessError: One failed.
    """
    known = {path.stem: path for path in sorted(HERE.glob("[a-z]*.py"))}
    found = {}
    for name in names or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(known[name])], check=True, stdout=subprocess.PIPE, text=True)
        found[name.capitalize()] = f"{machine()}\n\n{done.stdout.strip()}"
    return found


def sections(report: str) -> dict[str, str]:
    """Take a report apart, by titles."""
    parts = [part.partition("\n") for part in report.split("\n## ")[1:]]
    return {title: text.strip() for title, _, text in parts}


def written(found: dict[str, str]) -> str:
    """Put a report together."""
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in sorted(found.items()))


def between(page: str, marks: tuple[str, str]) -> str:
    """Return what stands between two marks."""
    return page.partition(marks[0])[2].partition(marks[1])[0]


def replaced(page: str, marks: tuple[str, str], text: str) -> str:
    """Put something else between two marks."""
    before, _, rest = page.partition(marks[0])
    return f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{rest.partition(marks[1])[2]}"


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("names", nargs="*")
    words.add_argument("--into", type=Path)
    words.add_argument("--check", type=Path)
    options = words.parse_args()
    if options.check is not None:
        page = options.check.read_text(encoding="utf-8")
        if page != replaced(page, BUDGETS, table(between(page, MEASURED))):
            sys.exit(f"the budgets of {options.check} are not those of its report: write it with --into")
        return
    found = measure(options.names)
    if options.into is None:
        print(written(found), table(written(found)), sep="\n\n")
        return
    page = options.into.read_text(encoding="utf-8")
    report = written(sections(between(page, MEASURED)) | found)
    page = replaced(replaced(page, MEASURED, report), BUDGETS, table(report))
    options.into.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
