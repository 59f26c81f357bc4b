"""How the pages become a site: `make docs`."""

from importlib.metadata import version as installed

project = "mlld-otp"
author = "The mlld-otp authors"
copyright = "the mlld-otp authors"  # noqa: A001 - Sphinx wants it under this name
release = version = installed("mlld-otp")
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"mlld-otp {version}"
exclude_patterns = ["build", "_build"]
suppress_warnings = [
    "myst.xref_missing",  # links to files beside the pages, such as CONTRIBUTING.md, lead nowhere on a site
    "misc.highlighting_failure",
    "toc.excluded",
]
