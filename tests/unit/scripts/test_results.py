"""Results: every spelling engines use is read, nothing is counted twice, and no history is lost."""

from typing import Any

from mlld_sdk.scripts import answers, results
from mlld_sdk.scripts.types import (
    AnalysisError,
    ContentSignature,
    Effect,
    Executable,
    FilesystemStatus,
    FileVerifyResult,
    Guard,
    GuardDenial,
    Import,
    Metrics,
    Needs,
    SessionFinalState,
    SessionWrite,
    StateWrite,
    Streaming,
    TraceEvent,
    Variable,
)
from mlld_sdk.transport.wire import EngineReply


def writes(*values: Any, indexed: bool = True) -> list[StateWrite]:
    return [StateWrite("x", value, index=place if indexed else None) for place, value in enumerate(values)]


def test_the_same_value_written_twice_stays_two_writes() -> None:  # C-22, upstream's P6
    final, streamed = writes("1", "2", "1"), writes("1", "2", "1")
    assert [write.value for write in results.merge_state_writes(final, streamed)] == ["1", "2", "1"]
    bare = writes("1", "2", "1", indexed=False)
    assert [write.value for write in results.merge_state_writes(bare, bare)] == ["1", "2", "1"]


def test_a_final_list_cut_by_the_engine_is_completed_from_the_events() -> None:  # C-22, upstream's P5
    streamed = writes(*range(250))
    assert results.merge_state_writes(streamed[:200], streamed) == streamed
    assert results.merge_state_writes(streamed, streamed[:10]) == streamed
    assert results.merge_state_writes([], streamed) == streamed
    assert results.merge_state_writes(streamed, []) == streamed


def test_the_event_is_believed_over_the_final_list_which_is_cut_one_level_higher() -> None:  # C-22
    final, streamed = [StateWrite("x", {"a": "[Object]"}, index=0)], [StateWrite("x", {"a": {"b": 1}}, index=0)]
    assert results.merge_state_writes(final, streamed) == streamed


def test_a_string_stays_a_string_and_still_counts_as_the_same_write() -> None:  # C-23, upstream's P7
    write = results.read(StateWrite, {"path": "s", "value": '{"a": 1}'})
    assert write is not None
    assert write.value == '{"a": 1}'
    decoded = StateWrite("s", {"a": 1})
    assert results.merge_state_writes([write], [decoded]) == [decoded]
    assert results.decoded("[1") == "[1"
    assert results.decoded("true") == "true"


def test_equal_denials_are_told_apart_by_how_often_they_happened() -> None:  # C-22
    denial = GuardDenial("g", "send", "no", labels=["a", "b"], args={"v": 1})
    again = GuardDenial("g", "send", "no", labels=["b", "a"], args={"v": 1})
    other = GuardDenial("g", "send", "still no")
    assert results.merge_denials([denial], [again]) == [again]
    assert results.merge_denials([denial], [denial, denial, other]) == [denial, denial, other]
    assert results.merge_denials([other], [denial]) == [denial, other]


def test_a_run_is_read_with_everything_in_it() -> None:  # C-20 C-21
    result = results.execute_result(
        {
            "output": "text\n",
            "effects": [
                {"type": "both", "content": "text\n", "security": {"labels": ["x"]}},
                {"type": "file", "content": "f", "path": "/f", "security": "[Circular]"},
                "[+1 more items]",
            ],
            "exports": {"answer": {"name": "answer", "value": 42}},
            "stateWrites": [{"path": "n", "value": 1, "timestamp": "t", "security": {}, "index": 0}, {"path": ""}],
            "denials": [{"guard": None, "operation": "op", "reason": "r", "rule": None, "labels": None}, {}],
            "metrics": {"totalMs": 5.5, "parseMs": 1, "evaluateMs": 4, "cacheHit": True, "effectCount": 3},
            "sessions": [{"frameId": "f", "declarationId": "d", "name": "n", "finalState": {"a": 1}}, {"name": "x"}],
            "traceEvents": [{"ts": "t", "level": "l", "category": "c", "event": "e", "scope": {}, "data": None}],
            "streaming": {"text": "a", "thinking": "b", "toolCalls": [{"id": 1}], "usage": {"n": 2}, "errors": []},
        }
    )
    assert result.output == "text\n"
    assert result.effects == [Effect("both", "text\n", {"labels": ["x"]}), Effect("file", "f", None, "/f")]
    assert result.exports["answer"]["value"] == 42
    assert result.state_writes == [StateWrite("n", 1, "t", {})]
    assert result.denials == [GuardDenial(None, "op", "r")]
    assert result.metrics == Metrics(5.5, 1, 4, cache_hit=True, effect_count=3)
    assert result.sessions == [SessionFinalState("f", "d", "n", {"a": 1})]
    assert result.trace_events == [TraceEvent("t", "l", "c", "e")]
    assert result.streaming == Streaming("a", "b", [{"id": 1}], {"n": 2}, [])


def test_effects_cut_by_the_engine_are_completed_from_the_events() -> None:  # C-22
    streamed = [Effect("both", str(number)) for number in range(300)]
    cut = [{"type": "both", "content": str(number)} for number in range(200)] + ["[+1 more items]"]
    assert results.execute_result({"output": "", "effects": cut}, streamed_effects=streamed).effects == streamed


def test_output_is_text_whatever_the_engine_says() -> None:  # C-20
    assert results.output_text({"output": "a", "value": "b"}) == "a"
    assert results.output_text({"value": "b"}) == "b"
    assert results.output_text({"output": 7}) == "7"
    assert results.output_text({"output": {"value": [True, "é"]}}) == '{"value": [true, "é"]}'
    line = b'{"result":{"id":1,"output":{"value":[true,"\xc3\xa9"]}}}'
    assert answers.output_of(EngineReply(line), may_be_cut=True, strict=True) == '{"value": [true, "é"]}'
    assert results.output_text({}) == ""
    assert results.output_text(None) == ""


RICH = {
    "filepath": "/r/rich.mld",
    "valid": True,
    "errors": [],
    "warnings": [{"code": "W", "message": "hm", "location": {"line": 3, "column": 4}}],
    "frontmatter": {"name": "rich", "needs": {"cmd": ["git"], "sh": True}},
    "exports": ["@ask", 7],
    "executables": [{"name": "@ask", "params": ["q"], "labels": ["llm"], "language": "cmd"}, {"name": "@b"}],
    "guards": [{"name": "@g", "timing": "before", "filter": "secret"}, {"timing": "after", "trigger": "net:w"}],
    "imports": [{"source": "./lib.mld", "type": "module", "names": ["@p"]}, {"from": "@c", "names": [], "alias": "@a"}],
    "variables": [
        {"name": "@ask", "exported": True, "type": "executable", "labels": "[Circular]"},
        {"name": "@token", "type": "primitive", "labels": ["secret", "secret"]},
    ],
    "stats": {"lines": 22, "odd": "x"},
}


def test_an_analysis_is_read_in_both_spellings() -> None:  # C-24, upstream's E14
    result = results.analyze_result(RICH, "rich.mld")
    assert result.imports == [Import("./lib.mld", ["@p"], None, "module"), Import("@c", [], "@a")]
    assert result.guards == [Guard("@g", "before", "secret", "secret"), Guard("", "after", "net:w", "net:w")]
    assert result.needs == Needs(cmd=["git"], other={"sh": True})
    assert result.warnings == [AnalysisError("hm", 3, 4, "W")]
    assert result.executables == [Executable("@ask", ["q"], ["llm"], "cmd"), Executable("@b")]
    assert result.variables == [
        Variable("@ask", "executable", exported=True, labels=["llm"]),
        Variable("@token", "primitive", labels=["secret"]),
    ]
    assert (result.exports, result.stats) == (["@ask"], {"lines": 22})


def test_needs_and_places_of_errors_are_read_in_their_other_forms() -> None:  # C-24
    def needs(value: Any) -> Needs | None:
        return results.analyze_result({"needs": value}, "f").needs

    assert needs(["node", "git"]) == Needs(cmd=["node", "git"])
    assert needs({"packages": {"node": ["tsx"]}}) == Needs(node=["tsx"])
    assert needs(None) is None
    bad = results.analyze_result({"valid": False, "errors": [{"message": "m", "line": 1, "column": 2}, "x"]}, "f")
    assert (bad.filepath, bad.valid, bad.errors) == ("f", False, [AnalysisError("m", 1, 2)])


def test_signatures_are_read_in_both_spellings() -> None:  # C-25
    assert results.read_object(
        FileVerifyResult,
        {"path": "/p", "relativePath": "p", "status": "modified", "verified": False, "expectedHash": "h", "error": "e"},
    ) == FileVerifyResult("/p", "p", "modified", False, expected_hash="h", error="e")
    assert results.read_object(
        FilesystemStatus,
        {"path": "/p", "relative_path": "p", "status": "verified", "verified": True, "labels": ["a"], "taint": None},
    ) == FilesystemStatus("/p", "p", "verified", True, labels=["a"])
    assert results.read_object(
        ContentSignature,
        {
            "id": "i",
            "hash": "h",
            "algorithm": "a",
            "signed_by": "s",
            "contentLength": 3,
            "metadata": {"k": "v", "n": 1},
        },
    ) == ContentSignature("i", "h", "a", "s", "", 3, {"k": "v"})


def test_session_writes_need_their_five_names() -> None:  # C-21
    names = {"frame_id": "f", "session_name": "s", "declaration_id": "d", "slot_path": "p", "operation": "set"}
    assert results.read(SessionWrite, {**names, "prev": 1, "next": 2}) == SessionWrite(**names, prev=1, next=2)
    assert results.read(SessionWrite, {**names, "operation": ""}) is None
    assert results.read(SessionWrite, "x") is None


def test_a_state_value_that_only_begins_like_json_costs_no_result() -> None:
    text = "[" * 100_000
    result = results.execute_result({"output": "paid for", "stateWrites": [{"path": "a", "value": text}]})
    assert (result.output, result.state_writes[0].value) == ("paid for", text)
