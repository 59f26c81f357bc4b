"""The parts a script is made of, as the parser hands them to the evaluator.

Expressions give a value, statements do something. `Span` says where a part stands in the text; it becomes the `source`
of effects and the `invocationSite` of checkpoints.
"""

from typing import Any, NamedTuple


class TextSpan(NamedTuple):
    """From which character to which (exclusive), counted in the text as Python holds it."""

    start: int
    end: int


class Literal(NamedTuple):
    """A text without holes, a number, a boolean or `null`."""

    data: Any


class Template(NamedTuple):
    """Text with holes: strings, `Hole`s and `FileRead`s in a row."""

    parts: tuple[Any, ...]


class Hole(NamedTuple):
    """A value inside a text. `raw` is what stays there when the variable does not exist.

    `omit` drops the text when the value is false (`@x?`); `when` is the text that shows when it is not
    (``@x?`...` ``); `default` stands in for a missing value (`@x??"..."`).
    """

    value: Any
    raw: str
    omit: bool = False
    when: "Template | None" = None
    default: Any = None


class Reference(NamedTuple):
    """`@name`."""

    name: str


class FieldAccess(NamedTuple):
    """`.name`, `.2`, `["name"]`, `[2]` or `[@expression]` behind something. `key` is an expression."""

    target: Any
    key: Any


class Slice(NamedTuple):
    """`[1:3]` behind something."""

    target: Any
    start: int | None
    end: int | None


class FunctionCall(NamedTuple):
    """`@name(arguments)`."""

    name: str
    args: tuple[Any, ...]
    span: TextSpan


class MethodCall(NamedTuple):
    """`.name(arguments)` behind something."""

    target: Any
    name: str
    args: tuple[Any, ...]
    span: TextSpan


class ListLiteral(NamedTuple):
    """`[a, b]`."""

    items: tuple[Any, ...]


class ObjectLiteral(NamedTuple):
    """`{ "key": value, ...@other }`; a spread has the key None."""

    entries: tuple[tuple[str | None, Any], ...]


class Negation(NamedTuple):
    """`!a`."""

    operand: Any


class Binary(NamedTuple):
    """`a == b` and its like."""

    operator: str
    left: Any
    right: Any


class Ternary(NamedTuple):
    """`a ? b : c`."""

    condition: Any
    yes: Any
    no: Any


class WhenExpression(NamedTuple):
    """`when [ ... ]`, `when @subject [ ... ]` or `when condition => action`; the first branch that fits is taken.

    `branches` are pairs of condition and action; the condition None is `*`.
    """

    subject: Any
    branches: tuple[tuple[Any, Any], ...]


class Parallel(NamedTuple):
    """`parallel(cap, pace)`; both may be absent."""

    cap: Any
    pace: float


class ForLoop(NamedTuple):
    """`for @name in source when where => body` or `for @key, @name in source [ ... ]`."""

    key: str | None
    name: str
    source: Any
    where: Any
    body: Any
    parallel: Parallel | None
    span: TextSpan


class RepeatLoop(NamedTuple):
    """`loop(limit, pace) until condition [ ... ]`; the limit None is `endless`."""

    limit: Any
    pace: float
    until: Any
    body: "Block"


class Block(NamedTuple):
    """`[ statements ]`."""

    statements: tuple[Any, ...]


class ShellCommand(NamedTuple):
    """`sh { text }`, with a plain text, or `cmd { template }`, with a template. `variables` are passed to `sh`."""

    language: str
    body: Any
    variables: tuple[str, ...]
    stdin: Any
    stream: bool


class FileRead(NamedTuple):
    """`<path>`, which gives the file's text."""

    path: Template
    optional: bool


class PipedValue(NamedTuple):
    """`source | @stage | @stage`; a stage is a `Call` whose first argument is still missing, or a `Shell`."""

    source: Any
    stages: tuple[Any, ...]


class Unsupported(NamedTuple):
    """Something mlld has and this engine has not. `analyze` reads past it, a run refuses it before anything happens."""

    construct: str
    facts: dict[str, Any]


def is_simple(node: Any, word: str) -> bool:
    """Return whether a node is the simple statement with this word."""
    return isinstance(node, SimpleStatement) and node.word == word


def root_of(node: Any) -> Any:
    """Return what fields, slices and methods hang on: `@x` of `@x.a[0].trim()`."""
    while isinstance(node, (FieldAccess, Slice, MethodCall)):
        node = node.target
    return node


class VarStatement(NamedTuple):
    """`var labels @name = value`."""

    name: str
    labels: tuple[str, ...]
    value: Any
    span: TextSpan


class LetStatement(NamedTuple):
    """`let @name = value`, and `@name += value` with `augment`, inside a block."""

    name: str
    value: Any
    augment: bool


class ExeStatement(NamedTuple):
    """`exe labels @name(params) = body`."""

    name: str
    params: tuple[str, ...]
    labels: tuple[str, ...]
    body: Any
    span: TextSpan


class SimpleStatement(NamedTuple):
    """A word and at most one value.

    Attributes:
        word: `show`, `log`, `run`, `bail`, `checkpoint`, `continue`, `done` or `skip`; `=>` for what ends a block with
            a value; `say` for a quoted text as the action of a `when`.
        value: The value; None for `skip` and a `bail` without a message.
        span: Where it stands.
    """

    word: str
    value: Any
    span: TextSpan


class OutputStatement(NamedTuple):
    """`output value to target`. `kind` is `stdout`, `stderr`, `file` or `state`; `append` has the kind `append`."""

    value: Any
    kind: str
    target: Template
    span: TextSpan


class ImportStatement(NamedTuple):
    """`import { a as b } from source` or `import source as @name`. `source` is `@payload`, `@state` or a path."""

    names: tuple[tuple[str, str], ...]
    alias: str | None
    source: str
    span: TextSpan


class ExportStatement(NamedTuple):
    """`export { a, b }`."""

    names: tuple[str, ...]
    span: TextSpan


class IfStatement(NamedTuple):
    """`if condition [ ... ] else [ ... ]`."""

    condition: Any
    yes: Block
    no: Any


class ParsedScript(NamedTuple):
    """A whole script, with the mode of its `resume:` header and the text between `---` lines at the top, if any."""

    statements: tuple[Any, ...]
    resume: str | None
    frontmatter: str | None
