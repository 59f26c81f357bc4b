"""The distribution: built, installed alone with its three dependencies, and used from there."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
PATIENCE = 250.0  # seconds for one command: a busy machine builds slowly
FOLDERS = ("src", "mlld_sdk", "transport", "actors", "supervision")
FILES = ("pyproject.toml", "README.md", "LICENSE")
DEPENDENCIES = ("pykka", "msgspec", "structlog")


def run(*command: object, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist, and from it a wheel, as a release would be."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=ignored)
    for file in FILES:
        shutil.copy(ROOT / file, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "dist", cwd=source)
    return source / "dist"


def test_the_wheel_holds_plain_files_and_everything_they_need(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {info.filename for info in archive.infolist()}
        links = [info.filename for info in archive.infolist() if (info.external_attr >> 16) & 0o170000 == 0o120000]
    assert not links
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"mlld_sdk"}
    sources = {
        f"mlld_sdk/{path.relative_to(ROOT / 'mlld_sdk')}"
        for folder in ("", "actors", "supervision", "transport")
        for path in (ROOT / "mlld_sdk" / folder).rglob("*")
        if path.suffix in (".py", ".cjs", ".typed")
    }
    assert sources <= names
    assert {"mlld_sdk/py.typed", "mlld_sdk/transport/bridge/bridge.cjs"} <= names


def test_the_sdist_builds_on_its_own(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[-1] for member in archive.getmembers()}
        assert not [member.name for member in archive.getmembers() if member.issym() or member.islnk()]
    assert {"pyproject.toml", "README.md", "LICENSE", "src/mlld_sdk/transport/bridge/bridge.cjs"} <= names


def test_the_wheel_works_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    for name in DEPENDENCIES:
        for file in distribution(name).files or ():
            if ".." not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel]
    run(*install, cwd=tmp_path)
    run(sys.executable, "-m", "pip", "--python", python, "check", cwd=tmp_path)

    where = run(python, "-c", "import mlld_sdk; print(mlld_sdk.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path)
    use = (
        "from mlld_sdk import Client\nwith Client(engine='embedded') as client: print(client.process('show \"hello\"'))"
    )
    assert run(python, "-I", "-c", use, cwd=tmp_path).strip() == "hello"
    command = tmp_path / "venv" / "bin" / "mlld-otp"
    assert "Proof:" in run(command, "demo", "recovery", cwd=tmp_path)
    assert (tmp_path / "recovery.svg").exists()
