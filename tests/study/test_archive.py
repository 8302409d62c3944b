"""Finished units: read back as they were written, and never unpickled."""

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit import files
from toolkit.files import FolderError, hash_file
from toolkit.study.folder import StudyFolder
from toolkit.validation import UnitResult


@pytest.fixture
def unit():
    return UnitResult(
        system="text-logistic",
        fold=2,
        proba=np.array([[0.25, 0.75], [1.0, 0.0]]),
        present=np.array([True, False]),
        inner_rows=np.empty(0, dtype=np.int64),
        inner_proba=np.empty((0, 2)),
        inner_present=np.empty(0, dtype=bool),
        search=None,
        booster=None,
        record={"n_features": 3},
        ledger=[{"fit": "refit", "role": "train", "times": 1, "n_rows": 0, "rows": ""}],
    )


def test_a_unit_reads_back_as_it_was_written(unit, tmp_path):
    folder = StudyFolder(tmp_path)
    folder.write_unit(unit, ["text"])

    found = folder.read_unit(unit.system, 2)

    for name in ("proba", "present", "inner_rows", "inner_proba", "inner_present"):
        assert np.array_equal(getattr(found, name), getattr(unit, name))
    for name in ("system", "fold", "search", "record", "ledger"):
        assert getattr(found, name) == getattr(unit, name)


def test_objects_in_a_unit_are_not_unpickled_even_if_the_checksums_fit(unit, tmp_path):
    study = StudyFolder(tmp_path)
    study.write_unit(unit, ["text"])
    folder = study.unit(unit.system, 2)
    for name in ("test", "present", "inner_rows", "inner", "inner_present"):
        path = folder / f"{name}.npy"
        before = path.read_bytes()
        np.save(path, np.array([{"runs": "code"}], dtype=object), allow_pickle=True)
        sums = json.loads((folder / "checksums.json").read_text())
        spoilt = sums | {path.name: hash_file(path)}
        (folder / "checksums.json").write_text(json.dumps(spoilt))

        with pytest.raises(ValueError, match="allow_pickle=False"):
            study.read_unit(unit.system, 2)

        path.write_bytes(before)
        (folder / "checksums.json").write_text(json.dumps(sums))


def test_a_unit_that_cannot_be_written_leaves_the_finished_one(unit, tmp_path, monkeypatch):
    folder = StudyFolder(tmp_path)
    folder.write_unit(unit, ["text"])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_unit(unit, ["text"])

    assert np.array_equal(folder.read_unit(unit.system, 2).proba, unit.proba)


def test_a_unit_is_on_the_disk_before_its_name_is(unit, tmp_path, monkeypatch):
    synced, named = set(), []
    monkeypatch.setattr(files, "_sync", lambda path: synced.add(path.name))
    rename = Path.rename

    def note(path, target):
        if path.is_dir():
            named.append((path.name, {each.name for each in path.iterdir()}, set(synced)))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", note)
    StudyFolder(tmp_path).write_unit(unit, ["text"])

    ((temporary, written, before),) = named
    assert len(written) == 7
    assert before == written | {temporary}


def test_a_file_that_was_added_to_a_unit_is_refused(unit, tmp_path):
    folder = StudyFolder(tmp_path)
    folder.write_unit(unit, ["text"])
    (folder.unit(unit.system, 2) / "model.pkl").touch()

    with pytest.raises(FolderError, match=r"model\.pkl changed since it was written"):
        folder.read_unit(unit.system, 2)
