"""The page a script writes: pieces of text become one tidy document."""

import re

from mlld_sdk.transport.javascript import from_units, in_units

_FENCED = re.compile(r"```[\s\S]*?```")
_TABLE = re.compile(r"(?:^\|[^\n]*(?:\n|\Z))+", re.MULTILINE)
_TRAILING = re.compile(r"[ \t]+(?=[\n\r\u2028\u2029]|\Z)")
_BEFORE_HEADING = re.compile(r"\n(#{1,6}\s)")
_AFTER_HEADING = re.compile(r"(#{1,6}\s[^\n]+)\n([^\n#])")
_PARAGRAPHS = re.compile(r"([^{\[\n])\n([^\n#\s\-}\]])")
_MANY_BREAKS = re.compile(r"\n{3,}")
_FRONTMATTER = re.compile(r"---\n[\s\S]*?\n---\n")
_HELD = "\0PROTECTED_BLOCK\0"


def tidy(text: str) -> str:
    """Return a document as the real engine writes it.

    Blanks at line ends go, paragraphs and headings get blank lines around them, more than one blank line becomes one,
    and the document ends in one line end. Fenced code and tables stay as they are.
    """
    if not text.isascii() and max(text) > "\uffff":  # the real engine's patterns see each half of such a letter
        return from_units(tidy(in_units(text)))
    text = text.lstrip("\n")
    front = match.group() if (match := _FRONTMATTER.match(text)) else ""
    body = text[len(front) :]
    held: list[str] = []

    def hold(found: "re.Match[str]") -> str:
        is_table = found.re is _TABLE
        held.append(found.group().rstrip() if is_table else found.group())
        return _HELD + "\n" if is_table else _HELD

    body = _TABLE.sub(hold, _FENCED.sub(hold, body))
    body = _TRAILING.sub("", body.lstrip("\n"))
    body = _AFTER_HEADING.sub(r"\1\n\n\2", _BEFORE_HEADING.sub(r"\n\n\1", body))
    body = _MANY_BREAKS.sub("\n\n", _PARAGRAPHS.sub(r"\1\n\n\2", body))
    body = body.rstrip("\n") + "\n"
    for block in held:
        body = body.replace(_HELD, block, 1)
    gap = "\n" if front and body and not body.startswith("\n") else ""
    return front + gap + body
