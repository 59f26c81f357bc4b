"""Starts the embedded engine: `python -m mlld_sdk.transport.embedded live --stdio`."""

import os
import sys

from mlld_sdk.transport.embedded.server.options import BadOptions, read_options

CANNOT_START = 78


def main() -> int:
    """Run the engine and return its exit code."""
    try:
        options = read_options(sys.argv[1:], os.environ)
        for name in ("MLLD_ENGINE_REQUEST_FD", "MLLD_ENGINE_RESPONSE_FD"):
            os.environ.pop(name, None)
        from mlld_sdk.transport.embedded.server.server import EmbeddedServer

        return EmbeddedServer(options).serve()
    except BadOptions as fault:
        sys.stderr.write(f"embedded engine: {fault}\n")
        return CANNOT_START


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Scripts of aborted requests may still hold threads; nothing they could do matters any more.
    os._exit(code)
