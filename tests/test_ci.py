"""CI takes no Python for granted: one that is on the PATH may fail when it is called."""

import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"

pytestmark = pytest.mark.skipif(
    not RUN.exists() or shutil.which("bash") is None, reason="needs .ci/run and bash"
)


def find(folder):
    """What the script takes for Python 3.12, where nothing else is on the PATH."""
    text = RUN.read_text(encoding="utf-8")
    start = text.index("interpreter() {")
    function = text[start : text.index("\n}\n", start) + 3]
    done = subprocess.run(
        [shutil.which("bash"), "-euc", f"{function}\ninterpreter 3.12"],
        env={"PATH": str(folder / "bin"), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def put(path, exit_code):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(0o755)
    return path


def test_a_shim_that_fails_when_called_is_no_python(tmp_path):
    put(tmp_path / "bin" / "python3.12", 127)

    assert find(tmp_path) == ""


def test_behind_a_shim_the_one_that_runs_is_found(tmp_path):
    put(tmp_path / "bin" / "python3.12", 127)
    real = put(tmp_path / ".pyenv" / "versions" / "3.12.9" / "bin" / "python", 0)

    assert find(tmp_path) == str(real)


def test_one_that_runs_is_taken_from_the_path(tmp_path):
    put(tmp_path / "bin" / "python3.12", 0)

    assert find(tmp_path) == "python3.12"
