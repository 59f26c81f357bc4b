"""Everything a process logs as JSON, one object a line: our events, and what other code says through `logging`."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Final

from mlld_sdk.telemetry.bus import Bus
from mlld_sdk.telemetry.log import log_events, stderr_logger

ACCESS: Final = ("client", "method", "path", "http_version", "status")
"""What uvicorn hands over with a line of its access log, in this order."""


class JsonLines(logging.Formatter):
    """Writes a record of `logging` as one JSON object, with the keys that events have.

    For a file of logging settings: `{"formatters": {"json": {"()": "mlld_sdk.telemetry.json_lines.JsonLines"}}}`.
    """

    def __init__(self) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "process": record.process,
        }
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == len(ACCESS):
            line |= zip(ACCESS, record.args, strict=True)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str)


def log_json(bus: Bus, *, debug: bool = False) -> None:
    """Write each event of a runtime to stderr as a JSON object on a line of its own, and what `logging` says, too.

    ```python no-run
    log_json(runtime.bus)
    ```

    Args:
        bus: Where the events come from.
        debug: Whether single requests and steps are written.
    """
    logging_as_json()
    log_events(bus, stderr_logger(as_json=True).bind(process=os.getpid()), debug=debug)


def logging_as_json() -> None:
    """Let every handler of `logging` that writes to the terminal write JSON lines, those of a web server as well.

    Levels, filters and other handlers stay as they are; a program without any handler gets one for stderr. Warnings of
    Python become lines, too. What is printed past `logging` stays as it is.
    """
    if not logging.root.handlers:
        logging.root.addHandler(logging.StreamHandler())
    known = [
        logging.root,
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ]
    terminal = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    for handler in {handler for logger in known for handler in logger.handlers}:
        if isinstance(handler, logging.StreamHandler) and handler.stream in terminal:
            handler.setFormatter(JsonLines())
    logging.captureWarnings(True)
