"""Data that passed are not read again while no file changes."""

import os
import shutil
import time

import numpy as np
import pytest

from toolkit.data import ManifestError
from toolkit.study import examining
from toolkit.study.config import StudyConfig
from toolkit.study.examining import check_data
from toolkit.study.plan import plan_study


@pytest.fixture
def data(corpus, tmp_path, monkeypatch):
    """Give the table of a corpus whose files are an hour old, and a count of examinations."""
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    for path in folder.rglob("*.npy"):
        os.utime(path, (time.time() - 3600,) * 2)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(examining, "_SETTLED", -1)  # the copies themselves are a moment old
    examined = []
    examine = examining.examine_data

    def count(plan, alone):
        examined.append(plan)
        return examine(plan, alone)

    monkeypatch.setattr(examining, "examine_data", count)
    return folder / "dataset.csv", examined


def check(table, **options):
    notes = check_data(plan_study(StudyConfig(data=table, **options))).notes
    return [note for own in notes.values() for note in own]


def test_files_that_passed_are_not_read_again_and_their_notes_stay(data):
    table, examined = data
    padded = next(table.parent.rglob("*acoustic*/**/*.npy"))
    for path in padded.parent.glob("*.npy"):
        frames = np.load(path)
        np.save(path, np.vstack([np.zeros((3, frames.shape[1]), frames.dtype), frames]))

    first, second = check(table), check(table)

    assert len(examined) == 1
    assert any("frames of zeros" in note for note in first)
    assert second == first


def test_a_changed_file_and_another_policy_are_examined_anew(data):
    table, examined = data
    check(table)
    check(table, frames="drop")
    assert len(examined) == 2
    path = next(table.parent.rglob("*.npy"))
    np.save(path, np.full_like(np.load(path), np.nan))

    for _ in range(2):  # what was refused is never kept
        with pytest.raises(ManifestError, match="not finite"):
            check(table)
    assert len(examined) == 4


def test_files_of_this_moment_and_damaged_notes_are_read_again(data, tmp_path, monkeypatch):
    table, examined = data
    check(table)
    (kept,) = (tmp_path / "cache" / "checked").iterdir()
    kept.write_text("[")
    check(table)
    assert len(examined) == 2

    monkeypatch.setattr(examining, "_SETTLED", 10**15)
    check(table)
    assert len(examined) == 3
