"""The embedded engine as a live engine that keeps its caches where mlld's 2.1 line does: `engine_21.py live --stdio`.

Tests start it as a program of its own, from wherever they have put it.
"""

import os
import sys

from mlld_sdk.transport.embedded import __main__ as engine
from mlld_sdk.transport.embedded.interpreter import checkpoints

if __name__ == "__main__":
    checkpoints.DEFAULT_ROOT = os.path.join(".llm", "checkpoints")
    sys.argv[1:1] = ["--like-real", "--survive"]
    code = engine.main()
    sys.stderr.flush()
    os._exit(code)
