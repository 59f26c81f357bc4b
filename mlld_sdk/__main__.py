"""The command line: `python -m mlld_sdk` or `mlld-otp`."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 it failed, 2 the words were wrong."""
    parser = argparse.ArgumentParser(prog="mlld-otp", description="Supervised mlld agents.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="break something for real and watch it heal")
    demo.add_argument("name", nargs="?", choices=["recovery"], default="recovery")
    demo.add_argument("--engine", choices=["live", "bridge", "embedded"], default="embedded")
    demo.add_argument("--picture", type=Path, default=Path("recovery.svg"), help="where the picture goes (SVG)")
    commands.add_parser("doctor", help="say which engines are installed and answer")
    chosen = parser.parse_args(arguments)
    if chosen.command == "demo":
        from mlld_sdk.demo.recovery import main as recovery

        return recovery(chosen.engine, chosen.picture)
    from mlld_sdk.engine_check import check_engines

    print(check_engines())
    return 0


if __name__ == "__main__":
    sys.exit(main())
