"""The inventory of a study's folder: files of others stay, and links are not followed."""

import json
import shutil

import pytest

from toolkit.files import FolderError, lock_folder, read_json, write_folder
from toolkit.study.cli import main
from toolkit.study.folder import StudyFolder
from toolkit.study.inventory import Inventory


def listed(folder):
    return json.loads((folder / "internal" / "inventory.json").read_text())["files"]


@pytest.fixture
def claimed(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    Inventory(folder).claim()
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "diary.txt").write_text("mine")
    return folder


def test_a_folder_of_something_else_is_neither_marked_locked_nor_set_aside(tmp_path, capsys):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")

    for more in ([], ["--fresh"], ["--only", "text/0"]):
        code = main(["study", "--out", str(home), "--quick", "--modality", "text", *more])
        assert code == 2
        assert "holds files but no study (thesis.tex)" in capsys.readouterr().err

    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "names", [(), (".DS_Store", ".lock"), ("internal/data.json", "notes.md")]
)
def test_new_folders_and_studies_are_taken(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    Inventory(tmp_path).claim()

    assert all((tmp_path / name).exists() for name in names)


def test_only_files_of_the_inventory_are_removed(claimed):
    Inventory(claimed).write({"figures/a.svg": b"1", "figures/b.svg": b"2"}, whole=True)
    unknown = [claimed / "figures" / name for name in ("mine.svg", ".DS_Store", "notes/x.csv")]
    for path in unknown:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")

    Inventory(claimed).write({"figures/b.svg": b"3"}, whole=True)

    assert [path.read_text() for path in unknown] == ["mine"] * 3
    assert not (claimed / "figures" / "a.svg").exists()
    assert (claimed / "figures" / "b.svg").read_bytes() == b"3"
    assert listed(claimed) == ["figures/b.svg"]


@pytest.mark.parametrize("kind", ["premium", "transfer"])
def test_a_run_of_another_kind_removes_the_files_of_earlier_runs(tmp_path, kind):
    folder = tmp_path / "out"
    Inventory(folder).claim(kind)
    # Earlier versions reserved the files, and wrote them one by one.
    Inventory(folder).reserve(["a.csv", "figures/b.svg", "gone.csv"])
    mine = [folder / name for name in ("mine.csv", "figures/mine.svg")]
    for path in (*mine, folder / "a.csv", folder / "figures" / "b.svg"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")

    Inventory(folder).write({"a.csv": b"2", "c.csv": b"2"}, whole=True)
    assert (folder / "a.csv").read_bytes() == b"2"
    assert not (folder / "figures" / "b.svg").exists()
    # A file that was removed is no longer the program's.
    (folder / "gone.csv").write_text("mine")
    with pytest.raises(FolderError, match=r"would replace: gone\.csv"):
        Inventory(folder).write({"gone.csv": b"3"}, whole=True)

    Inventory(folder).write({"c.csv": b"3"}, whole=True)
    assert not (folder / "a.csv").exists()
    assert all(path.exists() for path in (*mine, folder / "gone.csv"))


def test_a_file_of_somebody_else_is_not_replaced(claimed):
    (claimed / "report.md").write_text("mine")

    with pytest.raises(FolderError, match=r"did not write and would replace: report\.md"):
        Inventory(claimed).write({"a.csv": b"1", "report.md": b"2"}, whole=True)

    assert (claimed / "report.md").read_text() == "mine"
    assert not (claimed / "a.csv").exists()


def test_files_of_a_run_that_was_killed_are_replaced(claimed, monkeypatch):
    monkeypatch.setattr("toolkit.study.inventory.write_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Inventory(claimed).write({"a.csv": b"1"}, whole=True)
    monkeypatch.undo()
    (claimed / "a.csv").write_bytes(b"half")  # as if the process had ended after the file

    Inventory(claimed).write({"a.csv": b"1"}, whole=True)

    assert (claimed / "a.csv").read_bytes() == b"1"


@pytest.mark.parametrize(
    "name", ["../diary.txt", "/etc/x", "a/../../x", "internal/rows.csv", "", 3, "C:x"]
)
def test_an_inventory_of_other_files_is_refused(claimed, name):
    content = {"format": 1, "files": [name]}
    (claimed / "internal" / "inventory.json").write_text(json.dumps(content))

    with pytest.raises(FolderError, match="no list of files of this folder"):
        Inventory(claimed).write({"a.csv": b"1"}, whole=True)


@pytest.mark.parametrize("part", ["figures", "internal"])
def test_nothing_is_written_or_removed_through_links(claimed, elsewhere, part):
    Inventory(claimed).write({"figures/diary.txt": b"1"}, whole=True)
    shutil.move(claimed / part, claimed / "aside")
    for path in (claimed / "aside").iterdir():
        shutil.copy(path, elsewhere / f"{path.name}")
    (elsewhere / "diary.txt").write_text("mine")
    (claimed / part).symlink_to(elsewhere)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}

    for contents in ({"figures/x.svg": b"2"}, {"scores.csv": b"3"}):
        with pytest.raises(FolderError, match=f"{part} is a symbolic link"):
            Inventory(claimed).write(contents, whole=True)

    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_units_locks_and_searches_are_not_written_through_links(claimed, elsewhere):
    study = StudyFolder(claimed)
    study.units.symlink_to(elsewhere)
    for name in (".lock-owner", "search.db"):
        (claimed / "internal" / name).symlink_to(elsewhere / "diary.txt")

    with pytest.raises(FolderError, match="units is a symbolic link"):
        study.write_part(study.unit("text", 0), lambda folder: (folder / "x").touch())
    with (
        pytest.raises(FolderError, match="lock-owner is a symbolic link"),
        lock_folder(claimed),
    ):
        pass
    with pytest.raises(FolderError, match=r"search\.db is a symbolic link"):
        _ = study.storage_url

    assert [path.name for path in elsewhere.iterdir()] == ["diary.txt"]
    assert (elsewhere / "diary.txt").read_text() == "mine"


def test_temporary_files_of_killed_runs_are_removed_and_nothing_else(claimed, elsewhere):
    Inventory(claimed).write({"figures/text.svg": b"1"}, whole=True)
    begun = [
        "internal/units/text/.04.77.tmp/unit.json",
        "internal/units/text/.04.zip.77.tmp",
        "explain/contributions/.text.77.tmp/x",
        "figures/.text.svg.77.tmp",
        ".study.toml.77.tmp",
    ]
    kept = [
        "internal/units/text/03.zip",
        "internal/.lock",
        "a.tmp",
        ".draft.tmp",
        ".draft.77.tmp",
        "notes/.thesis.77.tmp",
        "figures/.mine.svg.77.tmp",
    ]
    for name in (*begun, *kept):
        (claimed / name).parent.mkdir(parents=True, exist_ok=True)
        (claimed / name).touch()
    (elsewhere / ".05.77.tmp").mkdir()
    (claimed / "internal" / "units" / "audio").symlink_to(elsewhere)

    Inventory(claimed).remove_leftovers()

    assert [name for name in (*begun, *kept) if (claimed / name).exists()] == kept
    assert (elsewhere / ".05.77.tmp").exists()


def test_a_notebook_s_checkpoints_stay_beside_finished_units(tmp_path):
    def write(folder):
        (folder / "a.csv").write_text("1")

    write_folder(tmp_path / "00", write)
    (tmp_path / "00" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "00" / ".ipynb_checkpoints" / "x").write_text("mine")

    write_folder(tmp_path / "00", write)

    assert (tmp_path / "00" / ".ipynb_checkpoints" / "x").read_text() == "mine"


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "{", "\xff"])
def test_json_that_is_damaged_or_too_deep_is_refused_by_name(tmp_path, text):
    path = tmp_path / "unit.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(FolderError, match=r"unit\.json is (nested too deeply|damaged)"):
        read_json(path)
