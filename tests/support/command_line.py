"""The command line in this process: same words, output and status as in one of its own, without a start of Python."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from mlld_sdk.cli.main import main


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


def command_line(folder: Path, *words: str) -> Said:
    """Run a command in a folder. Only one thread may do so at a time: output and folder belong to the whole process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as end:  # words that argparse refuses
            status = end.code if isinstance(end.code, int) else 1
    return Said(status, out.getvalue(), err.getvalue())
