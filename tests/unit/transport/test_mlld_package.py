"""Where the bridge looks for the installed mlld package, and what it says when that is of no use."""

import json
from pathlib import Path

import pytest

from mlld_sdk.transport.command import bridge_command
from mlld_sdk.transport.mlld_package import MlldPackageNotFound, MlldPackageUnusable, find_package

EXPORTS = {".": {"import": {"default": "./dist/index.mjs"}, "require": {"default": "./dist/index.cjs"}}}


def install(
    directory: Path, *, name: str = "mlld", version: str | None = "2.0.5", exports: object = EXPORTS, built: bool = True
) -> Path:
    """Lay out an installed package."""
    (directory / "dist").mkdir(parents=True)
    (directory / "bin").mkdir()
    manifest = {"name": name, "version": version, "main": "dist/index.cjs", "exports": exports}
    (directory / "package.json").write_text(json.dumps({key: value for key, value in manifest.items() if value}))
    for script in ("bin/mlld-wrapper.cjs", "dist/cli.cjs", *(["dist/index.cjs"] if built else [])):
        (directory / script).write_text("#!/usr/bin/env node\n")
        (directory / script).chmod(0o755)
    return directory


def program(file: Path, target: Path | None = None) -> Path:
    """Put a program on the PATH-to-be: a link, as npm makes it, or a shim."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if target is not None:
        file.symlink_to(target)
    else:
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    return file


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    program(tmp_path / "bin" / "node")
    return {"PATH": str(tmp_path / "bin")}


def test_the_link_that_npm_makes_leads_to_the_package(tmp_path: Path, path: dict[str, str]) -> None:
    package = install(tmp_path / "lib" / "node_modules" / "mlld")
    program(tmp_path / "bin" / "mlld", package / "bin" / "mlld-wrapper.cjs")
    found = find_package(environ=path)
    assert (found.directory, found.version, found.entry) == (package, "2.0.5", package / "dist" / "index.cjs")


def test_a_shim_that_is_no_link_is_followed_to_its_neighbour(tmp_path: Path, path: dict[str, str]) -> None:
    package = install(tmp_path / "lib" / "node_modules" / "mlld")
    program(tmp_path / "bin" / "mlld")
    assert find_package(environ=path).directory == package


def test_a_projects_own_installation_is_found_through_its_bin(tmp_path: Path) -> None:
    package = install(tmp_path / "node_modules" / "mlld")
    shim = program(tmp_path / "node_modules" / ".bin" / "mlld")
    assert find_package(shim, environ={"PATH": ""}).directory == package


def test_a_script_among_the_arguments_leads_to_its_package(tmp_path: Path, path: dict[str, str]) -> None:
    package = install(tmp_path / "checkout")
    args = ["--max-old-space-size=512", str(package / "dist" / "cli.cjs")]
    assert find_package("node", args, environ=path).directory == package


def test_the_variable_wins_over_the_command_and_the_argument_over_both(tmp_path: Path, path: dict[str, str]) -> None:
    behind, named, given = (install(tmp_path / name) for name in ("behind", "named", "given"))
    program(tmp_path / "bin" / "mlld", behind / "bin" / "mlld-wrapper.cjs")
    environ = {**path, "MLLD_PACKAGE": str(named)}
    assert find_package(environ=environ).directory == named
    assert find_package(environ=environ, package=given).directory == given


def test_a_package_of_another_name_is_not_taken(tmp_path: Path, path: dict[str, str]) -> None:
    other = install(tmp_path / "other", name="something-else")
    with pytest.raises(MlldPackageNotFound, match="no mlld package was found behind the command"):
        find_package("node", [str(other / "dist" / "cli.cjs")], environ=path)
    with pytest.raises(MlldPackageNotFound, match="is no mlld package"):
        find_package(package=other)


def test_a_missing_installation_says_how_to_get_one(path: dict[str, str]) -> None:
    with pytest.raises(MlldPackageNotFound) as caught:
        find_package(environ=path)
    assert caught.value.code == "MLLD_PACKAGE_NOT_FOUND"
    assert "npm install -g mlld" in (caught.value.hint or "")
    assert "MLLD_PACKAGE" in (caught.value.hint or "")


@pytest.mark.parametrize("version", ["2.0.4", "1.9.9", "2.0", None])
def test_a_package_that_is_too_old_is_refused_by_version(tmp_path: Path, version: str | None) -> None:
    package = install(tmp_path / "mlld", version=version)
    with pytest.raises(MlldPackageUnusable, match="too old for the bridge") as caught:
        find_package(package=package)
    assert caught.value.code == "MLLD_PACKAGE_UNUSABLE"
    assert (caught.value.directory, caught.value.version) == (package, version)
    assert 'engine="live"' in (caught.value.hint or "")


@pytest.mark.parametrize("version", ["2.0.5", "2.0.6", "2.1.0-rc.1", "3.0.0"])
def test_a_package_that_is_new_enough_is_taken(tmp_path: Path, version: str) -> None:
    assert find_package(package=install(tmp_path / "mlld", version=version)).version == version


def test_a_checkout_that_was_never_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MlldPackageUnusable, match=r"has no \./dist/index\.cjs"):
        find_package(package=install(tmp_path / "mlld", built=False))


@pytest.mark.parametrize("exports", [None, {".": "./dist/index.mjs"}, {".": {"import": "x"}}, "./dist/index.cjs"])
def test_without_a_named_entry_the_packages_main_is_taken(tmp_path: Path, exports: object) -> None:
    package = install(tmp_path / "mlld", exports=exports)
    assert find_package(package=package).entry == package / "dist" / "index.cjs"


def test_the_command_runs_the_bridge_on_private_pipes(tmp_path: Path, path: dict[str, str]) -> None:
    package = install(tmp_path / "mlld")
    made = bridge_command(
        package=package, cwd=tmp_path, environ={**path, "MINE": "1"}, heap=512, heap_snapshot_near_limit=2
    )
    node, *options, script = made.argv
    assert node == str(tmp_path / "bin" / "node")
    assert options == ["--max-old-space-size=512", "--heapsnapshot-near-heap-limit=2"]
    assert Path(script).name == "bridge.cjs"
    assert Path(script).is_file()
    assert (made.cwd, made.label, made.private_fds, made.extended) == (str(tmp_path), "bridge", True, True)
    assert made.environ["MLLD_OTP_BRIDGE_PACKAGE"] == str(package)
    assert made.environ["MINE"] == "1"


def test_the_node_of_the_command_is_the_node_of_the_bridge(tmp_path: Path, path: dict[str, str]) -> None:
    package = install(tmp_path / "mlld")
    node = program(tmp_path / "elsewhere" / "node22")
    assert bridge_command(node, [str(package / "dist" / "cli.cjs")], environ=path).argv[0] == str(node)


def test_a_missing_node_is_said(tmp_path: Path) -> None:
    package = install(tmp_path / "mlld")
    with pytest.raises(MlldPackageNotFound, match="`node` is not on PATH"):
        bridge_command(package=package, environ={"PATH": str(tmp_path)})
