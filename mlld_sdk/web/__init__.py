"""A runtime inside a web application: started and stopped with it, found by its handlers, asked how it is.

`serving` starts, stops and hands over the runtime, `probes` answers whether it is alive and ready, `metrics` gathers
what all processes of one runtime measure. It is for FastAPI and Starlette (extra `web`), and nothing else imports it.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.web.probes import health as health
    from mlld_sdk.web.probes import health_routes as health_routes
    from mlld_sdk.web.serving import current as current
    from mlld_sdk.web.serving import lifespan as lifespan
else:
    __all__, __getattr__, __dir__ = exports(__name__)
