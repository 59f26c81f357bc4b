"""What a program imports: few names at the front, every error in one place, and no extra work at import."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import mlld_sdk
import mlld_sdk.errors

MOST = 35


def product() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages(mlld_sdk.__path__, "mlld_sdk.")]
    return [name for name in found if not name.endswith("__main__")]


def test_the_front_door_is_small_enough_to_be_read() -> None:
    assert len(mlld_sdk.__all__) <= MOST


def test_every_error_that_programs_can_meet_is_among_the_errors() -> None:
    for name in product():
        importlib.import_module(name)
    missing = []
    kinds = [mlld_sdk.MlldError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        ours = kind.__module__.startswith("mlld_sdk.") and not kind.__name__.startswith("_")
        if ours and getattr(mlld_sdk.errors, kind.__name__, None) is not kind:
            missing.append(f"{kind.__module__}.{kind.__name__}")
    assert not missing, "add them to mlld_sdk/errors.py"


def test_asynchronous_twins_take_and_answer_the_same() -> None:
    twins = Path(__file__).parents[1] / "types" / "twins.py"
    done = subprocess.run([sys.executable, twins], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
