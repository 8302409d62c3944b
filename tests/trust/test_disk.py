"""A disk that is full, broken or read-only, and files that it gives back changed."""

import os
import random
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.files import FolderError
from toolkit.models import FittedBooster
from toolkit.study import explaining as explanation
from toolkit.study import final_models
from toolkit.study.cli import main
from toolkit.study.folder import StudyFolder
from toolkit.study.runner import _rebuild_report
from toolkit.validation import Fold

ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES")
KEPT = "run the same command again: what was finished is kept."


@pytest.mark.slow
@pytest.mark.nightly
def test_the_nth_write_fails(whole, run_faults, read_results, tmp_path):
    # One unit at first: its first writes one by one, then every sixth; then the tables.
    _, expected, finished = whole
    _, alone = run_faults([{"out": tmp_path / "one"}] * 2, only="text/0")
    n_unit = run_faults([{"out": tmp_path / "two"}], only="text/0")[0]["write"]
    tried = [*range(1, min(25, n_unit + 1)), *range(25, n_unit + 1, 6)]
    fails = [{"fail": n, "errno": ERRORS[n % 4]} for n in tried]
    runs = [{"out": tmp_path / "two" / str(n)} | fail for n, fail in enumerate(fails)]
    endings = run_faults(runs, only="text/0")
    copy = shutil.copytree(finished, tmp_path / "copy")
    again = [{"out": copy, "fail": n, "errno": ERRORS[n % 4]} for n in range(1, 60, 4)]
    endings += (repeated := run_faults(again))
    few = runs[:: max(1, len(runs) // 6)]
    resumed = run_faults([{"out": each["out"]} for each in few] + [{"out": copy}])

    assert alone["round"] == 0
    assert all(each["code"] == 2 and KEPT in each["said"] for each in endings[: len(fails)])
    # A run of which everything is finished writes its tables again, and no more.
    failed = [each for each in repeated if each["code"]]
    assert len(failed) >= 6
    assert all(KEPT in each["said"] for each in failed)
    assert [each["code"] for each in resumed] == [0] * len(resumed)
    for each in [*few, {"out": copy}]:
        assert read_results(each["out"]) == expected


@pytest.fixture
def small_disk(tmp_path):
    """A disk in memory that can be made full, larger and read-only."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    if os.name == "nt" or shutil.which("mount") is None or not mount("size=200k"):
        pytest.skip("this system lets nobody mount a small disk")
    yield place, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.nightly
def test_a_full_disk_and_a_read_only_one(whole, run_faults, read_results, small_disk):
    place, remount = small_disk
    out = place / "study"
    (full,) = run_faults([{"out": out}])
    assert remount("size=20m,ro")
    (read_only,) = run_faults([{"out": out}])
    assert remount("size=20m,rw")
    (resumed,) = run_faults([{"out": out}])

    assert full["code"] == read_only["code"] == 2
    assert "full" in full["said"] or "No space left" in full["said"]
    assert "Read-only file system" in read_only["said"]
    assert "run the same command again" in full["said"]
    assert "choose another folder with --out" in read_only["said"]
    assert resumed["code"] == 0
    assert read_results(out) == whole[1]


def truncate(path, _):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path, _):
    path.write_bytes(b"")


def flip_a_bit(path, seed):
    content = bytearray(path.read_bytes())
    rng = random.Random(seed)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def remove(path, _):
    path.unlink()


DAMAGE = {"truncated": truncate, "emptied": empty, "flipped": flip_a_bit, "removed": remove}
FILES = ("model.txt", "model.meta.json", "unit.json", "test.npy", "inner.npy")
FILES += ("inner_rows.npy", "inner_present.npy", "present.npy", "checksums.json")


@pytest.fixture
def copied_unit(whole, tmp_path):
    """Folder of a study with one finished unit, and the unit."""
    folder = StudyFolder(tmp_path)
    copy = folder.unit("text", 1)
    copy.parent.mkdir(parents=True)
    return folder, shutil.copy2(StudyFolder(whole[2]).unit("text", 1), copy)


@pytest.mark.family
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_unit_is_refused_with_what_to_do(copied_unit, opened, name, damage):
    folder, unit = copied_unit
    with opened(unit) as place:
        DAMAGE[damage](place / name, name)

    with pytest.raises(FolderError, match=r"01\.zip is damaged: .* Delete it and run"):
        folder.read_unit("text", 1)


@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_damaged_archive_is_refused_with_what_to_do(copied_unit, damage):
    folder, unit = copied_unit
    damage(unit, 0)

    with pytest.raises(FolderError, match=r"01\.zip is damaged: .* Delete it and run"):
        folder.read_unit("text", 1)


def test_a_changed_model_is_not_explained(whole, opened, tmp_path, monkeypatch):
    folder = StudyFolder(tmp_path)
    shutil.copytree(StudyFolder(whole[2]).units, folder.units)
    with opened(folder.unit("text", 0)) as place:
        flip_a_bit(place / "model.txt", 1)
    monkeypatch.setattr(FittedBooster, "load", lambda _: pytest.fail("it was loaded"))
    fold = Fold(0, np.array([0]), np.array([1]), ("anna",))
    plan = SimpleNamespace(folder=folder, folds=(fold,))
    task = SimpleNamespace(plan=plan, system="text")

    with pytest.raises(FolderError, match=r"is damaged: model\.txt changed"):
        explanation._hold_out(task, None)


@pytest.mark.slow
@pytest.mark.nightly
def test_unknown_files_beside_models_are_left_alone_and_never_read(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    unknown = copy / "models" / "text" / "final.json"  # the ending of the other library
    unknown.write_text("no model")

    assert final_models.load_finals(copy)[1]["text"].kind == "lightgbm"
    _rebuild_report(copy)

    assert unknown.read_text() == "no model"


@pytest.mark.slow
@pytest.mark.nightly
def test_damaged_searches_and_pooled_features_are_made_again(
    whole, run_faults, read_results, tmp_path
):
    ending, expected, _ = whole
    base = tmp_path / "base"
    kill = ("round", ending["round"] - 1)  # the last search has finished trials and no unit
    assert run_faults([{"out": base, "kill": kill}]) == [{"signal": 9}]
    # A bit flipped in a trial's value leaves a sound database: only units have checksums.
    damages = [name for name in DAMAGE if name != "flipped"]
    for name in damages:
        copy = shutil.copytree(base, tmp_path / name)
        DAMAGE[name](StudyFolder(copy).database, 0)
    endings = run_faults([{"out": tmp_path / name} for name in damages])

    assert [each["code"] for each in endings] == [0] * len(damages), endings
    for name in damages:
        assert read_results(tmp_path / name) == expected, name
    assert (tmp_path / "truncated" / "internal" / "search.db.1").exists()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name",
    [
        *(f"internal/{name}" for name in ("provenance.json", "data.json", "rows.csv")),
        "study.toml",
    ],
)
def test_damaged_records_are_an_error_in_words(whole, tmp_path, capsys, name, damage):
    copy = shutil.copytree(whole[2], tmp_path / "copy")
    DAMAGE[damage](copy / name, 3)

    code = main(["verify", str(copy)])
    said = capsys.readouterr()
    assert code == 2
    assert "Traceback" not in said.err
    assert said.out or said.err.startswith("error: ")
