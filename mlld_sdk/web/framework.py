"""What is used of Starlette, in one place, with an error that says how to get it."""

from mlld_sdk.base.errors import ExtraMissing

try:
    from anyio import CapacityLimiter as CapacityLimiter
    from anyio import create_task_group as create_task_group
    from anyio import move_on_after as move_on_after
    from anyio.to_thread import run_sync as run_sync
    from starlette.exceptions import HTTPException as HTTPException
    from starlette.requests import HTTPConnection as HTTPConnection
    from starlette.requests import Request as Request
    from starlette.responses import JSONResponse as JSONResponse
    from starlette.responses import Response as Response
    from starlette.routing import Route as Route
except ImportError as error:
    raise ExtraMissing("mlld_sdk.web", "starlette", "web") from error
