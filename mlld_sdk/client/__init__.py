"""The client for programs without a runtime: handles, module-level functions and their twins for coroutines.

A `Client` starts engines and asks them; what it calls and how it answers is that of mlld's own Python SDK. Nothing here
knows of actors or runs: what supervises a client lies above and is named by text. Programs come in, and the
examples; agents have the same calls on their own handles.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.client.aio import AsyncClient as AsyncClient
    from mlld_sdk.client.aio import AsyncExecuteHandle as AsyncExecuteHandle
    from mlld_sdk.client.aio import AsyncProcessHandle as AsyncProcessHandle
    from mlld_sdk.client.client import Client as Client
    from mlld_sdk.client.functions import analyze as analyze
    from mlld_sdk.client.functions import close as close
    from mlld_sdk.client.functions import default_client as default_client
    from mlld_sdk.client.functions import execute as execute
    from mlld_sdk.client.functions import execute_async as execute_async
    from mlld_sdk.client.functions import fs_status as fs_status
    from mlld_sdk.client.functions import process as process
    from mlld_sdk.client.functions import process_async as process_async
    from mlld_sdk.client.functions import process_result as process_result
    from mlld_sdk.client.functions import set_default_client as set_default_client
    from mlld_sdk.client.functions import sign as sign
    from mlld_sdk.client.functions import sign_content as sign_content
    from mlld_sdk.client.functions import verify as verify
    from mlld_sdk.client.handles import ExecuteHandle as ExecuteHandle
    from mlld_sdk.client.handles import ProcessHandle as ProcessHandle
    from mlld_sdk.scripts.labels import labeled as labeled
    from mlld_sdk.scripts.labels import trusted as trusted
    from mlld_sdk.scripts.labels import untrusted as untrusted
else:
    __all__, __getattr__, __dir__ = exports(__name__)
