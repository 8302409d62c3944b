"""CI finds a Python that runs, and its workflow, hooks and forms say what they should."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RUN = ROOT / ".ci" / "run"

pytestmark = pytest.mark.skipif(
    not RUN.exists() or shutil.which("bash") is None, reason="needs .ci/run and bash"
)


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def read_commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


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


def test_the_workflow_runs_every_check_on_every_python():
    job = read_yaml(".github/workflows/ci.yml")["jobs"]["checks"]
    (python,) = (
        step["with"] for step in job["steps"] if "python-version" in step.get("with", {})
    )

    assert ".ci/run" in read_commands(job)
    assert python["python-version"].split() == ["3.11", "3.12", "3.13"]
    for version in python["python-version"].split():
        assert version in RUN.read_text(encoding="utf-8")


def test_the_workflow_runs_a_small_study_on_other_systems():
    job = read_yaml(".github/workflows/ci.yml")["jobs"]["smoke"]
    commands = "\n".join(read_commands(job))

    assert job["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    assert "-c constraints.txt" in commands
    for command in ("--help", "demo", "study", "verify"):
        assert f"toolkit {command}" in commands
    # The same study as in .ci/run.
    (study,) = (line for line in commands.splitlines() if "toolkit study" in line)
    assert study.removeprefix("toolkit ") in RUN.read_text(encoding="utf-8")


def test_the_hooks_are_checks_of_ci():
    (local,) = read_yaml(".pre-commit-config.yaml")["repos"]

    assert local["repo"] == "local"
    assert [hook["id"] for hook in local["hooks"]] == ["ruff-check", "ruff-format", "mypy"]
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        assert hook["name"] in RUN.read_text(encoding="utf-8")


def test_a_report_of_a_bug_comes_with_command_versions_and_check():
    form = read_yaml(".github/ISSUE_TEMPLATE/bug.yml")["body"]
    asked = {part["id"]: part for part in form if part["type"] != "markdown"}
    template = (ROOT / ".github" / "pull_request_template.md").read_text(encoding="utf-8")

    assert list(asked) == ["command", "result", "versions", "check"]
    assert all(part["validations"]["required"] for part in asked.values())
    for text in (str(form), template):
        for command in ("toolkit --version", "pip freeze | grep -iE", "toolkit check"):
            assert command in text
    assert read_yaml(".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": True}
