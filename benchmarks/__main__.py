"""Every benchmark, one after the other, as one Markdown report.

    python benchmarks [name ...] [--into docs/performance.md]

Each benchmark runs in a process of its own and measures against its peers in the same run; quote ratios, not times.
With `--into`, the report replaces what stands between the two marks of that page; otherwise it is printed.
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

HERE = Path(__file__).parent


BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


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


def report(names: list[str]) -> str:
    """Run the benchmarks.

    Raises:
        CalledProcessError: One failed.
    """
    known = {path.stem: path for path in sorted(HERE.glob("[a-z]*.py"))}
    parts = [machine()]
    for name in names or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(known[name])], check=True, stdout=subprocess.PIPE, text=True)
        parts += [f"## {name.capitalize()}", done.stdout.strip()]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("names", nargs="*")
    words.add_argument("--into", type=Path)
    options = words.parse_args()
    found = report(options.names)
    if options.into is None:
        print(found)
        return
    before, _, rest = options.into.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    options.into.write_text(f"{before}{BEGIN}\n\n{found}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
