"""The calls that clients, agents, pools and checkouts have in common, with their signatures written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from mlld_sdk.base.durations import DEFAULT, Timeout
from mlld_sdk.client.handles import ExecuteHandle, ProcessHandle
from mlld_sdk.engines.requests import AnyPath, EngineRequests
from mlld_sdk.scripts import results
from mlld_sdk.scripts.answers import mapping
from mlld_sdk.scripts.params import RunOptions, only_given
from mlld_sdk.scripts.types import AnalyzeResult, ContentSignature, ExecuteResult, FilesystemStatus, FileVerifyResult


class Requests:
    """Runs scripts on the engines of an owner, and waits for the answers.

    Attributes:
        reach: Returns the way to the owner's engines, or raises why there is none now.
    """

    def __init__(self, reach: Callable[[], EngineRequests]) -> None:
        self.reach = reach

    def process(
        self, script: str, *, file_path: AnyPath | None = None, payload: object = None, **options: Unpack[RunOptions]
    ) -> str:
        r"""Run script text and return its output.

        Args:
            script: The text.
            file_path: Where the text counts as being, for imports and relative paths; need not exist.
            payload: Seen by the script as `@payload`: text or a dict, whose fields may be labeled values.
            **options: See `RunOptions`.

        Raises:
            ScriptError: The script failed.
            InfrastructureError: What runs scripts failed, so nothing is known about this one.
            ConfigurationError: An option or the owner is wrong.

        >>> from mlld_sdk import Client
        >>> with Client(engine="embedded") as client:
        ...     client.process("show @payload.name", payload={"name": "Ada"})
        'Ada\n'
        """
        return self.reach().process(script, file_path, payload, options)

    def process_result(
        self, script: str, *, file_path: AnyPath | None = None, payload: object = None, **options: Unpack[RunOptions]
    ) -> ExecuteResult:
        """Do what `process` does and return everything the run produced, not only its output."""
        requests = self.reach()
        return requests.result(*requests.text(script, file_path, payload, options))

    def execute(self, filepath: AnyPath, payload: object = None, **options: Unpack[RunOptions]) -> ExecuteResult:
        """Run a script file and return everything it produced.

        To an agent or a pool this is a single request and no run: it is not written down, and not repeated if the
        engine fails.

        Args:
            filepath: The file; relative to the working directory.
            payload: Seen by the script as `@payload`: text or a dict, whose fields may be labeled values.
            **options: See `RunOptions`.

        Raises:
            ScriptError: The script failed, or there is no such file (`code` is `FILE_NOT_FOUND`).
            InfrastructureError: What runs scripts failed, so nothing is known about this one. Of an agent or a pool:
                none is there (`AgentUnavailable`), or its circuit breaker refuses requests (`BreakerOpen`).
            ConfigurationError: An option or the owner is wrong.
        """
        requests = self.reach()
        return requests.result(*requests.file(filepath, payload, options))

    def analyze(self, filepath: AnyPath, *, timeout: Timeout = DEFAULT) -> AnalyzeResult:
        """Return what a module defines, imports and needs, without running it. A bad one is `valid=False`, no error.

        Args:
            filepath: The file; relative to the working directory.
            timeout: Seconds from now; what requests of this owner have unless given.
        """
        return self.reach().analyze(filepath, timeout)


class HandleRequests(Requests):
    """Requests that can also be begun: their handles are futures, to watch, steer, cancel and await."""

    def process_async(
        self, script: str, *, file_path: AnyPath | None = None, payload: object = None, **options: Unpack[RunOptions]
    ) -> ProcessHandle:
        """Begin what `process` does and return its handle at once.

        Its errors are those of `process`; what keeps it from being begun at all is raised here.
        """
        requests = self.reach()
        return ProcessHandle(requests.begin(*requests.text(script, file_path, payload, options)))

    def execute_async(self, filepath: AnyPath, payload: object = None, **options: Unpack[RunOptions]) -> ExecuteHandle:
        """Begin what `execute` does and return its handle at once."""
        requests = self.reach()
        return ExecuteHandle(requests.begin(*requests.file(filepath, payload, options)))


class ClientRequests(HandleRequests):
    """All that a client is asked: scripts, analyses, and signatures.

    Attributes:
        reach_other: Returns the way to the engine for what runs no script, which is that for scripts unless given.
    """

    def __init__(
        self, reach: Callable[[], EngineRequests], reach_other: Callable[[], EngineRequests] | None = None
    ) -> None:
        super().__init__(reach)
        self.reach_other: Callable[[], EngineRequests] = reach_other or reach

    def analyze(self, filepath: AnyPath, *, timeout: Timeout = DEFAULT) -> AnalyzeResult:
        """Return what a module defines, imports and needs, without running it. A bad one is `valid=False`, no error."""
        return self.reach_other().analyze(filepath, timeout)

    def fs_status(
        self, glob: str | None = None, *, base_path: str | None = None, timeout: Timeout = DEFAULT
    ) -> list[FilesystemStatus]:
        """List signed files and whether they still are what was signed."""
        params = only_given(glob=glob, basePath=base_path)
        items = self.reach_other().ask_list("fs:status", params, timeout)
        return [results.read_object(FilesystemStatus, item) for item in items]

    def sign(
        self,
        path: str,
        *,
        identity: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        base_path: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> FileVerifyResult:
        """Sign a file.

        Args:
            path: The file, relative to the project.
            identity: Who signs, such as `user:alice`; the engine's user unless given.
            metadata: Kept beside the signature.
            base_path: The project's root.
            timeout: Seconds from now; the client's unless given.
        """
        params = only_given(path=path, identity=identity, metadata=metadata, basePath=base_path)
        return results.read_object(FileVerifyResult, self._mapping("sig:sign", params, timeout))

    def verify(self, path: str, *, base_path: str | None = None, timeout: Timeout = DEFAULT) -> FileVerifyResult:
        """Return whether a file is signed and still what was signed."""
        return results.read_object(
            FileVerifyResult, self._mapping("sig:verify", only_given(path=path, basePath=base_path), timeout)
        )

    def sign_content(
        self,
        content: str,
        identity: str,
        *,
        metadata: Mapping[str, str] | None = None,
        signature_id: str | None = None,
        base_path: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> ContentSignature:
        """Sign a piece of content that is no file, and keep it in the project's signature store.

        Args:
            content: The text.
            identity: Who signs.
            metadata: Kept beside the signature.
            signature_id: Name of the signature; a random one unless given.
            base_path: The project's root.
            timeout: Seconds from now; the client's unless given.
        """
        params = only_given(content=content, identity=identity, metadata=metadata, id=signature_id, basePath=base_path)
        return results.read_object(ContentSignature, self._mapping("sig:sign-content", params, timeout))

    def _mapping(self, method: str, params: dict[str, Any], timeout: Timeout) -> dict[str, Any]:
        return mapping(self.reach_other().ask(method, params, timeout), method)
