"""The embedded engine's parser reads its part of mlld and names what it does not have."""

import pytest

from mlld_sdk.transport.embedded.errors import ScriptParseError, UnsupportedConstruct
from mlld_sdk.transport.embedded.language.parser import parse
from mlld_sdk.transport.embedded.language.scanner import LineMap
from mlld_sdk.transport.embedded.language.syntax import (
    Binary,
    Block,
    ExeStatement,
    FieldAccess,
    ForLoop,
    FunctionCall,
    Hole,
    ListLiteral,
    Literal,
    MethodCall,
    ObjectLiteral,
    PipedValue,
    Reference,
    RepeatLoop,
    ShellCommand,
    Template,
    Ternary,
    TextSpan,
    Unsupported,
    VarStatement,
    WhenExpression,
    is_simple,
)


def value_of(text: str) -> object:
    """Read `text` as the value of a variable."""
    (statement,) = parse(f"var @x = {text}").statements
    assert isinstance(statement, VarStatement)
    return statement.value


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('"plain"', "plain"),
        ("'single @x \\n'", "single @x \\n"),
        ("`tick`", "tick"),
        ("::colons::", "colons"),
        ('"a \\"b\\" \\n @@c \\@d"', 'a "b" \n @c @d'),
        ('""', ""),
        ("12", 12),
        ("-1.50", -1.5),
        ("2.0", 2),
        ("true", True),
        ("null", None),
    ],
)
def test_literals_are_read_as_what_they_mean(text: str, data: object) -> None:
    assert value_of(text) == Literal(data)


def test_a_text_with_holes_is_a_template() -> None:
    template = value_of("`Hi @name.first, @f(1)!`")
    assert isinstance(template, Template)
    first, name, comma, call, end = template.parts
    assert (first, comma, end) == ("Hi ", ", ", "!")
    assert isinstance(name, Hole)
    assert isinstance(name.value, FieldAccess)
    assert name.raw == "@name.first"
    assert isinstance(call, Hole)
    assert isinstance(call.value, FunctionCall)


def test_a_dot_that_ends_a_sentence_belongs_to_the_text() -> None:
    template = value_of("`see @x.`")
    assert isinstance(template, Template)
    assert template.parts[-1] == "."


def test_a_backslash_ends_a_name_inside_a_text() -> None:
    template = value_of("`@name\\.txt`")
    assert isinstance(template, Template)
    assert template.parts[1] == ".txt"


def test_operators_bind_as_in_arithmetic() -> None:
    value = value_of("1 + 2 * 3 == 7 && true")
    assert isinstance(value, Binary)
    assert value.operator == "&&"
    assert isinstance(value.left, Binary)
    assert value.left.operator == "=="
    assert isinstance(value_of("@a > 1 ? 2 : 3"), Ternary)


def test_what_stands_behind_a_value_is_chained() -> None:
    value = value_of('@a.b[0]["c"].trim()')
    assert isinstance(value, MethodCall)
    assert value.name == "trim"
    assert isinstance(value.target, FieldAccess)
    assert value.target.key == Literal("c")


def test_containers_nest_and_allow_a_last_comma() -> None:
    assert isinstance(value_of('[1, [2], {"a": 3},]'), ListLiteral)
    value = value_of('{ "a": 1, b: [2], ...@c }')
    assert isinstance(value, ObjectLiteral)
    assert [key for key, _ in value.entries] == ["a", "b", None]


def test_functions_have_labels_parameters_and_many_kinds_of_bodies() -> None:
    script = parse(
        "exe llm, net:w @a(p, q) = sh { echo \"}\" '}' {nested} }\n"
        "exe @b(x) = cmd {echo @x | cat}\n"
        "exe @c(x) = [\n  let @y = 1\n  => @y\n]\n"
        "exe @d(x) = when [\n  @x == 1 => 2\n  * => 3\n]\n"
    )
    bodies = [statement.body for statement in script.statements if isinstance(statement, ExeStatement)]
    assert [type(body) for body in bodies] == [ShellCommand, ShellCommand, Block, WhenExpression]
    first = script.statements[0]
    assert isinstance(first, ExeStatement)
    assert (first.labels, first.params) == (("llm", "net:w"), ("p", "q"))
    assert bodies[0].body == " echo \"}\" '}' {nested} "


def test_loops_know_their_limits() -> None:
    loop = value_of("loop(5, 20ms) until @state.stop [\n  continue\n]")
    assert isinstance(loop, RepeatLoop)
    assert loop.pace == 0.02
    loop = value_of("for parallel(3) @k, @v in @x when @v > 1 => @v")
    assert isinstance(loop, ForLoop)
    assert (loop.key, loop.name, loop.where is not None) == ("k", "v", True)
    assert loop.parallel is not None
    assert loop.parallel.cap == Literal(3)


def test_a_pipe_is_read_stage_by_stage() -> None:
    pipe = value_of('"a" | @b(1) | cmd {cat}')
    assert isinstance(pipe, PipedValue)
    assert [type(stage) for stage in pipe.stages] == [FunctionCall, ShellCommand]


def test_a_show_at_the_top_takes_its_line_end_with_it() -> None:
    shows = [statement for statement in parse("show `a`\nshow `b`").statements if is_simple(statement, "show")]
    assert [show.span for show in shows] == [TextSpan(0, 9), TextSpan(9, 17)]


def test_positions_count_utf16_units() -> None:
    positions = LineMap("a😀b\nc")
    assert positions.point(2) == {"offset": 3, "line": 1, "column": 4}
    assert positions.point(4) == {"offset": 5, "line": 2, "column": 1}


@pytest.mark.parametrize(("header", "mode"), [("resume: auto", "auto"), ('resume: "Never"', "never"), ("", None)])
def test_the_resume_header_stands_on_the_first_line(header: str, mode: str | None) -> None:
    assert parse(f"{header}\nshow `x`").resume == mode


@pytest.mark.parametrize(
    "text",
    [
        "resume: sometimes\nshow `x`",
        "show `x`\nresume: auto",
        "plain words",
        "  show `indented`",
        "show `open",
        'var @x = "open',
        "var x = 1",
        "show 5",
        "run cmd {echo a; echo b}",
        "exe @f(a) = @a + 1",
        "for @i => show @i",
        "loop() [ continue ]",
        "exe @f() = [\n  loop(2) [\n    => 1\n  ]\n]",
        "when true => for @i in [1] => show @i",
        "var @x = 1e3",
    ],
)
def test_what_is_no_script_is_a_parse_error_with_its_place(text: str) -> None:
    with pytest.raises(ScriptParseError, match=r"^Parse error: .* at line \d+, column \d+$|resume mode"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("var @x = js { return 1 }", "'js { }'"),
        ("guard @g before secret = when [ * => allow ]", "'guard'"),
        ("var @x = foreach @f(@l)", "'foreach'"),
        ('show "a @x|@f b"', "a pipe inside a text"),
        ("exe @f() = <note.txt>", "a file as the body of an exe"),
        ('checkpoint "n" with { ttl: 2 }', "'checkpoint ... with'"),
    ],
)
def test_what_mlld_has_and_this_engine_has_not_is_refused_by_name(text: str, construct: str) -> None:
    with pytest.raises(UnsupportedConstruct) as caught:
        parse(text)
    assert caught.value.message.startswith(f"{construct} (line 1) is outside")


def test_analysis_reads_past_what_cannot_run() -> None:
    text = 'guard @g before secret = when [\n  * => deny "no"\n]\nexe @f() = js { return "}" }\nshow `x`'
    guard, function, _ = parse(text, lenient=True).statements
    assert isinstance(guard, Unsupported)
    assert guard.facts == {"name": "@g", "timing": "before", "filter": "secret"}
    assert isinstance(function, ExeStatement)
    assert isinstance(function.body, Unsupported)


def test_names_may_hold_hyphens_between_letters() -> None:
    assert isinstance(value_of("@max-count"), Reference)


@pytest.mark.parametrize("text", ["`@x[:smile:]`", "`@x[-]`", "`@x[- 1]`"])
def test_a_bracket_behind_a_name_that_holds_no_index_is_text(text: str) -> None:
    template = value_of(text)
    assert isinstance(template, Template)
    assert isinstance(template.parts[0], Hole)
    assert template.parts[1] == text[3:-1]


@pytest.mark.parametrize(
    "text", ["var @y = @x[:a]", "show @x[-]", "loop(3, ms) [ show `a` ]", "loop(3, -s) [ show `a` ]"]
)
def test_a_number_that_is_missing_is_told_as_an_error_of_the_script(text: str) -> None:
    with pytest.raises(ScriptParseError):
        parse(text)
