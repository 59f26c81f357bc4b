"""How an engine was asked to behave, on its command line and in its environment."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

USAGE = """usage: python -m mlld_sdk.transport.embedded live --stdio [--like-real] [--survive] [--misbehave K=V,...]

  live --stdio   read requests from stdin and answer on stdout, one JSON object a line
  --like-real    take on the habits of the real engine: death after a failure, ghosts, truncation, late activation
  --survive      with --like-real: do not die after a failing script
  --misbehave    misbehave on purpose; the keys are listed in docs/embedded.md

The environment says the same: MLLD_EMBEDDED_LIKE_REAL=1, MLLD_EMBEDDED_SURVIVE=1, MLLD_EMBEDDED_MISBEHAVE=KEY=VALUE,...
"""
ON = ("1", "true", "yes", "on")


class BadOptions(Exception):
    """The engine cannot start like this. The first line says what is wrong, the second what to do."""


class EmbeddedOptions(NamedTuple):
    """What the command line and the environment ask for; `USAGE` says what it means."""

    like_real: bool = False
    survive: bool = False
    misbehave: Mapping[str, str] = {}  # never written
    request_fd: int = 0
    response_fd: int = 1


def read_options(argv: Sequence[str], environment: Mapping[str, str]) -> EmbeddedOptions:
    """Read both.

    Raises:
        BadOptions: When something is not understood.
    """
    words = list(argv)
    flags = {"--like-real": False, "--survive": False}
    misbehave = environment.get("MLLD_EMBEDDED_MISBEHAVE", "")
    seen: list[str] = []
    while words:
        word = words.pop(0)
        if word in flags:
            flags[word] = True
        elif word == "--misbehave" and words:
            misbehave = ",".join(part for part in (misbehave, words.pop(0)) if part)
        elif word.startswith("--misbehave="):
            misbehave = ",".join(part for part in (misbehave, word.partition("=")[2]) if part)
        elif word in ("live", "--stdio") and word not in seen:
            seen.append(word)
        else:
            raise BadOptions(f"unknown argument: {word}\n{USAGE}")
    if sorted(seen) != ["--stdio", "live"]:
        raise BadOptions(f"expected `live --stdio`\n{USAGE}")
    request_fd, response_fd = _descriptors(environment)
    return EmbeddedOptions(
        like_real=flags["--like-real"] or environment.get("MLLD_EMBEDDED_LIKE_REAL", "").lower() in ON,
        survive=flags["--survive"] or environment.get("MLLD_EMBEDDED_SURVIVE", "").lower() in ON,
        misbehave=_pairs(misbehave),
        request_fd=request_fd,
        response_fd=response_fd,
    )


def _pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _descriptors(environment: Mapping[str, str]) -> tuple[int, int]:
    """Read the private descriptors a host may have opened (XP-2)."""
    texts = environment.get("MLLD_ENGINE_REQUEST_FD"), environment.get("MLLD_ENGINE_RESPONSE_FD")
    if texts == (None, None):
        return 0, 1
    request, response = texts
    if request is None or response is None or not request.isdigit() or not response.isdigit():
        raise BadOptions(
            "MLLD_ENGINE_REQUEST_FD and MLLD_ENGINE_RESPONSE_FD must both be descriptor numbers, or both be absent\n"
            "set both or neither"
        )
    for number in (int(request), int(response)):
        try:
            os.set_inheritable(number, False)
        except OSError:
            raise BadOptions(f"descriptor {number} is not open\npass it on to the engine (pass_fds)") from None
    return int(request), int(response)
