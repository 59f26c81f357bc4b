"""What can go wrong between a program and an engine process.

```
ConfigurationError
├── CommandNotFound           COMMAND_NOT_FOUND          no such program on PATH
├── CommandNotExecutable      COMMAND_NOT_EXECUTABLE     it is there, but the system will not run it
├── WorkingDirectoryMissing   WORKING_DIRECTORY_MISSING  the engine's directory does not exist
├── UnserialisableParams      UNSERIALISABLE             a request cannot be said in JSON; the message names the field
└── ForkedProcess             FORKED                     the engine belongs to the process this one was forked from
InfrastructureError
├── SpawnRefused              SPAWN_REFUSED              the system has no process, memory or descriptor left
├── EngineDied                TRANSPORT_ERROR            the engine is gone and took the request with it
│   └── EngineDiedAtStart     TRANSPORT_ERROR            it went before it said a word
├── EngineClosed              TRANSPORT_ERROR            this side closed or killed the engine
├── EngineSilent              ENGINE_SILENT              started, and does not answer
├── EngineBabbling            ENGINE_BABBLING            what it writes is not the protocol
├── EngineOverloaded          BACKPRESSURE               the engine does not read, or too much is in flight
├── AnswerUnreadable          ANSWER_UNREADABLE          the engine has answered, and nobody can read what
├── EngineAborted             ABORTED                    the engine gave the request up without being asked to
└── CallTimeout               TIMEOUT                    the deadline passed; also a `TimeoutError`
TaskError
└── ScriptError               the engine's own code      the engine answered with an error
    └── CommandFailed         COMMAND_FAILED             a command failed inside an `llm` function
MlldError
└── CallCancelled             ABORTED                    the call was cancelled
```

`TRANSPORT_ERROR`, `TIMEOUT` and `ABORTED` are the names mlld's own clients use for these, whatever class says more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError, TaskError
from mlld_sdk.base.secrets import redacted
from mlld_sdk.transport.exits import EngineExit


class CommandNotFound(ConfigurationError):
    """The engine's program is not on PATH. Install it, name it by its full path, or use the embedded engine."""

    code = "COMMAND_NOT_FOUND"


class CommandNotExecutable(ConfigurationError):
    """The engine's program exists and the system refuses to run it. Check its permissions and its first line."""

    code = "COMMAND_NOT_EXECUTABLE"


class WorkingDirectoryMissing(ConfigurationError):
    """The directory the engine is to run in does not exist. Create it before starting the engine."""

    code = "WORKING_DIRECTORY_MISSING"


@dataclass(eq=False, repr=False)
class UnserialisableParams(ConfigurationError):
    """A request holds something JSON has no word for (NaN, an object, a cycle).

    Attributes:
        field: Where: `payload.items[3].price`.
        why: What is wrong with it.
    """

    code = "UNSERIALISABLE"
    message = "{field}: {why}"
    hint = "pass text, numbers, booleans, None, lists and dicts with text keys"
    field: str
    why: str


class ForkedProcess(ConfigurationError):
    """The engine was started before this process was forked off; its pipes belong to the parent. Start one here."""

    code = "FORKED"


class SpawnRefused(InfrastructureError):
    """The system could not start a process now: too many processes or descriptors, or no memory."""

    code = "SPAWN_REFUSED"


class EngineDied(InfrastructureError):
    """The engine ended while a request was in flight; whether the script's effects happened is not known.

    Attributes:
        exit: How it ended, or `None` when only its output ended and the process was still to be reaped.
        stderr_tail: The last words it wrote to stderr, bounded.
    """

    code = "TRANSPORT_ERROR"

    def __init__(
        self, message: str, *, how: EngineExit | None = None, stderr_tail: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, returncode=how.returncode if how else None, hint=hint)
        self.exit = how
        self.stderr_tail = stderr_tail


class EngineDiedAtStart(EngineDied):
    """The engine ended soon after its start and said nothing in the protocol: wrong program, broken installation."""


class EngineClosed(InfrastructureError):
    """The engine was closed or killed from this side; start another."""

    code = "TRANSPORT_ERROR"


class EngineSilent(InfrastructureError):
    """The process runs and does not answer: it hangs, or it is no engine."""

    code = "ENGINE_SILENT"


class EngineBabbling(InfrastructureError):
    """The process writes what is not the protocol: no answer among the noise, or a line beyond every limit."""

    code = "ENGINE_BABBLING"


class EngineOverloaded(InfrastructureError):
    """The request was refused at once: the engine does not read its pipe, or too many requests are in flight."""

    code = "BACKPRESSURE"


class AnswerUnreadable(InfrastructureError):
    """The engine's answer is no JSON that can be read: bytes that are no UTF-8, a number too long, too many levels."""

    code = "ANSWER_UNREADABLE"
    hint = "the script ran; let it write such values to a file, or look at what it prints"


class EngineAborted(InfrastructureError):
    """The engine gave the request up by itself, as it does when another process signals it."""

    code = "ABORTED"


class CallTimeout(InfrastructureError, TimeoutError):
    """The deadline of a call passed. On an exclusive engine the process is dead by the time this is raised."""

    code = "TIMEOUT"


class CallCancelled(MlldError):
    """The call was cancelled. On an exclusive engine the process is dead by the time this is raised."""

    code = "ABORTED"


class ScriptError(TaskError):
    """The engine answered with an error.

    Attributes:
        name: Name of the engine's exception, if it said one.
        file_path: The script, if the engine said one.
        stack: The engine's stack trace, if it sent one.
        engine_code: The code as the engine sent it; `code` is normalised.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        name: str | None = None,
        file_path: str | None = None,
        stack: str | None = None,
        engine_code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.name = name
        self.file_path = file_path
        self.stack = stack
        self.engine_code = engine_code


class CommandFailed(ScriptError):
    """A command failed inside an `llm` function, and the call was made with `on_command_failure="fail"`.

    Attributes:
        function: The function, without `@`; empty where the engine does not say.
        command: The program, without its arguments.
        returncode: Its exit status; negative: killed by that signal.
        said: The last line it printed: to stderr, or else to stdout.
    """

    code = "COMMAND_FAILED"
    outage = True

    def __init__(self, message: str, *, file_path: str | None = None, unanswered: Mapping[str, Any]) -> None:
        super().__init__(message, code=self.code, name="CommandFailed", file_path=file_path, engine_code=self.code)
        self.hint = "the model was not to be had; try again later, with retry= in a step"
        status = unanswered.get("returncode")
        self.returncode = status if isinstance(status, int) else None
        self.function: str = str(unanswered.get("function") or "")
        self.command: str = str(unanswered.get("command") or "")
        self.said: str = redacted(str(unanswered.get("said") or ""))
