"""The report on installed engines: usable means started and answered."""

import json
import shlex
from pathlib import Path

import pytest

from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.engines.check import EnginesReport, check_engines
from tests.support.raw_engine import REAL, needs_real


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLLD_ENGINE", raising=False)
    monkeypatch.delenv("MLLD_PACKAGE", raising=False)


def without_mlld(tmp_path: Path) -> EnginesReport:
    """Check on a machine that has nothing."""
    return check_engines(str(tmp_path / "mlld"))


def test_the_embedded_engine_is_usable_everywhere(tmp_path: Path) -> None:
    report = without_mlld(tmp_path)["embedded"]
    assert report.usable
    assert report.problem is None
    assert report.hello is not None
    assert (report.hello.engine, report.mlld) == ("embedded", report.hello.mlld)
    assert report.ready_after is not None


def test_a_missing_mlld_is_a_problem_with_a_hint_and_never_another_engine(tmp_path: Path) -> None:
    report = without_mlld(tmp_path)
    for engine, code in (("live", "COMMAND_NOT_FOUND"), ("bridge", "MLLD_PACKAGE_NOT_FOUND")):
        found = report[engine]  # type: ignore[index]
        assert (found.engine, found.usable, found.code) == (engine, False, code)
        assert found.problem
        assert found.hint
        assert found.hello is None


def test_a_program_that_is_no_engine_is_not_usable() -> None:
    [report] = check_engines("sleep", ["100"], engines=["live"], timeout=10).engines
    assert not report.usable
    assert report.argv[1:] == ("100", "live", "--stdio")
    assert report.problem


@pytest.mark.skipif(not REAL, reason="needs Node; set MLLD_COMMAND to the real mlld")
def test_a_package_the_bridge_does_not_know_is_reported_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "package.json").write_text(json.dumps({"name": "mlld", "version": "9.9.9", "main": "dist/index.cjs"}))
    (tmp_path / "dist" / "index.cjs").write_text("exports.execute = () => 1;")
    [report] = check_engines(engines=["bridge"], environ={"MLLD_PACKAGE": str(tmp_path)}).engines
    assert not report.usable
    assert "mlld 9.9.9 does not export analyzeModule" in (report.problem or "")
    assert 'engine="live"' in (report.hint or "")


@pytest.mark.parametrize("engine", [pytest.param("live", marks=needs_real), pytest.param("bridge", marks=needs_real)])
def test_the_real_mlld_is_reported_with_its_version(engine: str) -> None:
    command, *args = shlex.split(REAL or "mlld")
    [report] = check_engines(command, args, engines=[engine]).engines  # type: ignore[list-item]
    assert report.usable, str(report)
    assert (report.mlld or "").startswith("2.")
    assert (report.hello is not None) is (engine == "bridge")


def test_the_report_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLD_ENGINE", "embedded")
    lines = str(check_engines(engines=["bridge", "embedded"], environ={"PATH": str(tmp_path)})).splitlines()
    assert lines[0].startswith("bridge    unusable  no mlld package was found")
    assert lines[1].startswith("embedded  usable    mlld 2.0.5, ready in ")
    assert lines[1].endswith("(default)")


def test_a_default_that_names_no_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLD_ENGINE", "turbo")
    with pytest.raises(ConfigurationError, match=r"MLLD_ENGINE must be one of .*'turbo'"):
        check_engines(engines=[])
