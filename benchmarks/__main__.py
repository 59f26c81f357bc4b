"""Every benchmark, one after the other, as one Markdown report.

    python benchmarks [name ...] > report.md

Each benchmark runs in a process of its own and measures against its peers in the same run; quote ratios, not times.
"""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent


def machine() -> str:
    """Say what this was measured on."""
    packages = []
    for name in ("pykka", "msgspec", "mlld-sdk"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory} GiB, "
        f"Python {platform.python_version()}, {', '.join(packages)}."
    )


def main(names: list[str]) -> int:
    print(f"{machine()}\n", flush=True)
    known = {path.stem: path for path in sorted(HERE.glob("[a-z]*.py"))}
    for name in names or known:
        print(f"## {name.capitalize()}\n", flush=True)
        done = subprocess.run([sys.executable, str(known[name])], check=False)
        if done.returncode:
            print(f"\n{name} failed with status {done.returncode}.")
            return 1
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
