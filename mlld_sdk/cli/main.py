"""The arguments of the command line, and how errors are printed.

Exit status: 0 done; 1 it failed, the reason is on stderr, or `doctor` found something broken; 2 wrong arguments;
3 `tree`: the tree is not healthy;
`run`: 0 all stopped in order, 75 something had to be killed, 1 the root gave up.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mlld_sdk.base.errors import MlldError
from mlld_sdk.cli import commands
from mlld_sdk.cli.render import complain
from mlld_sdk.cli.shell import Shell
from mlld_sdk.demo import DEMOS

STATES = ["pending", "running", "finished", "failed", "cancelled", "parked"]
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def span(text: str) -> float:
    """Read `90`, `90s`, `5m`, `1h` or `2d` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time; say 90s, 5m, 1h or 2d")
    return float(found[1]) * SECONDS[found[2] or "s"]


def count(text: str) -> int:
    """Read how many of something."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of things; say 0, 1, 2, ...")
    return int(text)


def process_id(text: str) -> int:
    """Read the id of a process; `all` is 0."""
    if text != "all" and (not text.isdecimal() or int(text) == 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no process id; say which, or all")
    return commands.ALL if text == "all" else int(text)


def runtime_name(text: str) -> str:
    """Read the name of a runtime, which is part of paths and of a file's name."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no name; use at most 64 letters, digits, '_', '-' and '.'")
    return text


def parser() -> argparse.ArgumentParser:
    """Make the parser."""
    prints, attaches = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    prints.add_argument("--json", action="store_true", help="print JSON")
    attaches.add_argument("--runtime", help="name of the runtime to attach to, if several are running")
    attaches.add_argument(
        "--pid", type=process_id, help="id of the process to attach to, if several run that runtime; or all of them"
    )
    cli_parser = argparse.ArgumentParser(prog="mlld-otp", description="Supervised mlld agents.")
    cli_parser.add_argument("--version", action="version", version=f"mlld-otp {version('mlld-otp')}")
    verbs = cli_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    takes = {"run": [], "demo": [], "shell": [attaches], "doctor": [prints], "config": [prints], "checkpoint": [prints]}

    def verb(name: str, work: object, text: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text, parents=takes.get(name, [prints, attaches]))
        one.set_defaults(work=work)
        return one

    one = verb("run", commands.run, "run a Python file that declares `tree` as a service")
    one.add_argument("file")
    one.add_argument("--store", help="file of the journal")
    one.add_argument("--quiet", action="store_true", help="write no log")
    one.add_argument("--name", type=runtime_name, help="name of the runtime, so that one file can run twice")
    verb("tree", commands.tree, "print the tree and its verdict")
    one = verb("top", commands.top, "print who works and what it costs")
    one.add_argument("--every", type=span, default=0.0, help="print again after so long")
    one = verb("why", commands.why, "print everything known about a crash or a place")
    one.add_argument("subject", metavar="PATH|CRASH")
    one = verb("events", commands.events, "print what happened")
    one.add_argument("--follow", action="store_true", help="go on printing as it happens")
    one.add_argument(
        "--limit", "--last", dest="limit", type=count, default=100, help="begin with so many of the last (default: 100)"
    )
    one = verb("crashes", commands.crashes, "print crashes, newest first")
    one.add_argument("path", nargs="?", help="only of this place and below")
    one.add_argument("--last", type=span, help="only of so long ago, as 90s, 5m, 1h or 2d")
    one.add_argument("--limit", type=count, default=50, help="at most so many (default: 50)")
    _runs(verb("runs", commands.runs, "list, show, retry, cancel, resolve or submit runs"))
    _checkpoint(verb("checkpoint", commands.checkpoint, "list, inspect, clean or fork caches of finished model calls"))
    for name, text in (
        ("pause", "stop a place and keep it stopped"),
        ("resume", "start again what was paused"),
        ("restart", "stop a place in order and start it again"),
        ("drain", "let an agent, pool or client finish its work and take no more"),
    ):
        one = verb(name, commands.operate, text)
        one.add_argument("path")
        one.add_argument("--reason", default="", help="why; kept and shown")
    one = verb("doctor", commands.doctor, "say which engines are installed and answer, and what this machine allows")
    one.add_argument("--store", help="file of the journal to look at")
    one = verb("config", commands.config, "print the effective settings of a service and where they come from")
    one.add_argument("file", nargs="?", help="the service's file, for what its code says")
    one.add_argument("--store", help="file of the journal, as for `run`")
    one = verb("evaluate", commands.evaluate, "run a line of mlld on an agent's engine")
    one.add_argument("agent")
    one.add_argument("script")
    verb("shell", shell, "talk to a running runtime line by line")
    one = verb("demo", commands.demo, "break something for real and watch it heal")
    one.formatter_class = argparse.RawDescriptionHelpFormatter
    one.epilog = "\n".join(f"{name:9} {what}" for name, what in DEMOS.items())
    one.add_argument("name", nargs="?", choices=list(DEMOS), default="recovery")
    one.add_argument("--engine", choices=["live", "bridge", "embedded"], default="embedded")
    one.add_argument("--picture", type=Path, help="where the picture goes (SVG); only recovery and breaker draw one")
    return cli_parser


def _runs(one: argparse.ArgumentParser) -> None:
    one.add_argument("action", choices=["ls", "show", "retry", "cancel", "resolve", "submit"])
    one.add_argument("run", nargs="?", help="id of the run; for submit, the agent")
    one.add_argument("payload", nargs="?", help="for submit: the payload as JSON; for resolve: the step, as 1 or 2.1.3")
    one.add_argument("value", nargs="?", help="for resolve: what the step has given, as JSON")
    one.add_argument("--agent", help="for ls: only runs of this agent")
    one.add_argument("--before", metavar="RUN", help="for ls: only runs submitted before this one; for paging")
    one.add_argument(
        "--state", action="append", choices=STATES, help="for ls: only in this state; may be given several times"
    )
    one.add_argument("--limit", type=count, default=100, help="for ls: at most so many, newest first (default: 100)")
    one.add_argument("--key", help="for submit: idempotency key")
    one.add_argument("--reason", default="cancelled by an operator", help="for cancel")
    one.add_argument("--rerun-interrupted", action="store_true", help="for retry: repeat steps not declared harmless")


def _checkpoint(one: argparse.ArgumentParser) -> None:
    one.add_argument("action", choices=["ls", "inspect", "clean", "fork"])
    one.add_argument("script", nargs="?")
    one.add_argument(
        "only", nargs="?", help="clean: only these, as @fn, @fn:2, '@fn(\"prefix\")'; fork: the other script"
    )
    one.add_argument("--dir", type=Path, default=Path(), help="working directory of the engines")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without box drawing still shows the tree
    try:
        status = _command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough; the flush at exit must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130
    return status


def _command(arguments: Sequence[str] | None) -> int:
    cli_parser = parser()
    options = cli_parser.parse_args(arguments)
    if options.command == "runs" and options.action != "ls" and options.run is None:
        cli_parser.error(f"runs {options.action} needs a run (or, for submit, an agent)")
    if options.command == "runs" and options.action == "resolve" and options.value is None:
        cli_parser.error("runs resolve needs a run, the position of a step, and what it gave as JSON (null if nothing)")
    if options.command == "runs" and options.action != "resolve" and options.value is not None:
        cli_parser.error(f"runs {options.action} has no use for {options.value!r}")
    if options.command == "checkpoint" and options.action != "ls" and options.script is None:
        cli_parser.error(f"checkpoint {options.action} needs a script")
    if options.command == "checkpoint" and options.action == "fork" and options.only is None:
        cli_parser.error("checkpoint fork needs two scripts: from and to")
    if options.command == "demo" and options.picture is not None:
        if options.name not in ("recovery", "breaker"):
            cli_parser.error(f"demo {options.name} draws no picture, only recovery and breaker do")
        if not options.picture.absolute().parent.is_dir():
            cli_parser.error(f"--picture: there is no folder {options.picture.absolute().parent}")
    try:
        status: int = options.work(options)
    except MlldError as error:
        complain(error.message)
        if error.hint:
            complain(error.hint)
        return 1
    return status


def shell(options: argparse.Namespace) -> int:
    """Talk to a runtime line by line."""
    runtime = ["--runtime", options.runtime] if options.runtime else []
    return Shell(main, [*runtime, *(["--pid", str(options.pid)] if options.pid else [])]).talk()
