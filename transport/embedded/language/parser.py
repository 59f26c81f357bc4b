"""Reading a whole script: the header lines and the statements."""

from mlld_sdk.transport.embedded.errors import ScriptParseError
from mlld_sdk.transport.embedded.language.scanner import Scanner
from mlld_sdk.transport.embedded.language.statements import PROSE, StatementParser
from mlld_sdk.transport.embedded.language.syntax import ParsedScript

RESUME_MODES = ("auto", "manual", "never")


def parse(text: str, *, lenient: bool = False) -> ParsedScript:
    """Read a script.

    Args:
        text: The script.
        lenient: Read past what this engine does not run, for `analyze`.

    Raises:
        ScriptParseError: When the text is no script.
        UnsupportedConstruct: When it uses something this engine does not have.
    """
    resume, start = _resume_header(text.removeprefix("\ufeff"))
    if text.startswith("\ufeff"):  # the real engine reads past it in front of a header only
        if resume is None:
            raise ScriptParseError(PROSE)
        text = text.removeprefix("\ufeff")
    frontmatter = None
    if text.startswith("---\n", start):
        close = text.find("\n---", start + 3)
        if close >= 0:
            frontmatter = text[start + 4 : close + 1]
            start = close + 4
    return ParsedScript(StatementParser(Scanner(text, start), lenient=lenient).all(), resume, frontmatter)


def _resume_header(text: str) -> tuple[str | None, int]:
    """Return the mode of a `resume:` line at the top, and where the text behind it begins."""
    first, newline, _ = text.partition("\n")
    head, colon, mode = first.partition(":")
    if not colon or head.strip().lower() != "resume":
        return None, 0
    wanted = mode.strip().strip("'\"").lower()
    if wanted not in RESUME_MODES:
        raise ScriptParseError(f'Invalid script resume mode "{mode.strip()}". Expected auto, manual, or never.')
    return wanted, len(first) + len(newline)
