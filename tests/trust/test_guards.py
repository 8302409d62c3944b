"""The table of guards is true of the code: each can be taken out, and names tests there are."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "studies" / "benchmarks" / "guards.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the studies are not here")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("guards", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_guard_is_found_once_and_its_tests_exist(script):
    guards = script.read_guards()

    for guard in guards:
        assert script.take_out(guard, ROOT) != (ROOT / guard["file"]).read_text()
        for name in guard["tests"]:
            file, _, test = name.partition("::")
            assert f"def {test}" in (ROOT / file).read_text(encoding="utf-8"), guard["name"]
    assert len({guard["name"] for guard in guards}) == len(guards)


def test_every_trap_and_section_has_guards(script):
    first = {guard["name"].split()[0] for guard in script.read_guards()}

    assert first >= {*map(str, range(1, 17)), "s2", "s6"}


def test_a_guard_that_is_not_where_the_table_says_is_named(script, tmp_path):
    (tmp_path / "a.py").write_text("check()\ncheck()\n")
    guard = {"name": "1 x", "file": "a.py", "take": "check()", "leave": ""}

    with pytest.raises(ValueError, match=r"1 x: found 2 times in a\.py, expected once"):
        script.take_out(guard, tmp_path)
