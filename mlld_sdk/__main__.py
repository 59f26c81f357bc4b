"""`python -m mlld_sdk` is `mlld-otp`."""

import sys

from mlld_sdk.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
