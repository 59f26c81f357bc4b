"""What of the host's environment an engine is started with."""

import os
from collections.abc import Sequence
from typing import Final, Literal

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.secrets import is_secret

Inheritance = Literal["all", "minimal"] | Sequence[str]
"""`all` of it, what a `minimal` one has, or the variables of these names."""

MINIMAL: Final = frozenset((
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "NO_COLOR",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
))  # fmt: skip
"""Variables of a minimal environment, besides those of `FAMILIES`; TMPDIR is a folder of the engine's own always."""

FAMILIES: Final = ("LC_", "NODE_", "MLLD_")
"""Beginnings of the names of others."""


def check_inheritance(option: str, value: object) -> None:
    """Refuse what says nothing about an environment, as `InvalidOption`."""
    if isinstance(value, str):
        fits = value in ("all", "minimal")
    else:
        fits = isinstance(value, Sequence) and not isinstance(value, bytes) and all(map(_is_name, value))
    if not fits:
        raise InvalidOption(option, value, "'all', 'minimal' or a list of names of environment variables")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name != "" and not {"=", "\0"} & set(name)


def inherited(inherit: Inheritance) -> dict[str, str]:
    """Return the part of this process's environment that an engine is given; a minimal one has no secrets."""
    if inherit == "all":
        return dict(os.environ)
    if inherit == "minimal":
        return {name: value for name, value in os.environ.items() if _is_minimal(name)}
    return {name: os.environ[name] for name in inherit if name in os.environ}


def _is_minimal(name: str) -> bool:
    return (name in MINIMAL or name.startswith(FAMILIES)) and not is_secret(name)
