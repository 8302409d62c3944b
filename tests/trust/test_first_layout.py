"""A study's folder of the first layout is refused with the command that makes it again."""

import shlex
import shutil
from zipfile import ZipFile

import pytest

from toolkit.study import dashboard
from toolkit.study.cli import main


@pytest.fixture
def earlier(finished, tmp_path):
    """Give a finished study as earlier versions wrote it: units are folders, at the top."""
    folder = shutil.copytree(finished, tmp_path / "my study")
    for path in (folder / "internal").iterdir():
        if path.name not in {"inventory.json", "kept.json", "derived.json"}:
            path.rename(folder / path.name)
    for unit in (folder / "units").glob("*/*.zip"):
        with ZipFile(unit) as archive:
            archive.extractall(unit.with_suffix(""))
        unit.unlink()
    # Models were described in another form, too: that is no damage.
    (folder / "models" / "final.json").write_text('{"systems": {}}')
    return folder


def read_tree(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def read_command(said):
    """Give the command that a message ends with, in words."""
    return shlex.split(said.rpartition("runs the study again: ")[2])


@pytest.mark.family
@pytest.mark.parametrize(
    "command",
    [
        *("report", "verify", "audit", "predict", "explain", "dashboard"),
        *("study", "study --only text/0"),
    ],
)
def test_every_command_refuses_it_and_changes_nothing(
    earlier, dyads, capsys, monkeypatch, command
):
    monkeypatch.setattr(dashboard, "make_server", lambda *_, **__: pytest.fail("it served"))
    table = str(dyads / "dataset.csv")
    name, *options = command.split()
    words = [str(earlier)]
    if name == "study":
        words = [str(earlier / "study.toml"), "--data", table, "--out", str(earlier), *options]
    words += {"predict": [table], "explain": ["Ses01F_impro01_F000"]}.get(name, [])
    before = read_tree(earlier)

    code = main([name, *words])
    said = capsys.readouterr().err

    assert code == 2
    assert "was written by an earlier version, with another layout" in said
    assert read_command(said) == [
        *("toolkit", "study", f"{earlier}/study.toml", "--data", "DATASET.csv"),
        *("--out", str(earlier), "--fresh"),
    ]
    assert read_tree(earlier) == before


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_the_command_that_is_named_sets_it_aside_and_runs_the_study(
    earlier, finished, dyads, capsys
):
    before = read_tree(earlier)
    assert main(["verify", str(earlier)]) == 2
    words = read_command(capsys.readouterr().err)
    words[words.index("DATASET.csv")] = str(dyads / "dataset.csv")

    assert main([*words[1:], "--workers", "1", "--quiet"]) == 0
    aside = read_tree(earlier.with_name("my study.1"))
    again = read_tree(earlier)

    assert before.items() <= aside.items()
    for name in ("predictions.csv", "scores.csv", "study.toml", "internal/units/text/01.zip"):
        assert again[name] == (finished / name).read_bytes(), name
    assert not any(name.startswith("units/") for name in again)
