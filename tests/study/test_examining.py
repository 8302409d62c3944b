"""Data that passed are not read again while no file changes."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from toolkit.data import ManifestError
from toolkit.study import examining
from toolkit.study.cli import main
from toolkit.study.config import StudyConfig
from toolkit.study.examining import check_data
from toolkit.study.options import load_config
from toolkit.study.plan import plan_study
from toolkit.validation.folds import derive_seed, final_fold, inner_folds, make_folds


@pytest.fixture
def data(corpus, tmp_path, monkeypatch):
    """Give the table of a corpus whose files are an hour old, and a count of examinations."""
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    for path in folder.rglob("*.npy"):
        os.utime(path, (time.time() - 3600,) * 2)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(examining, "_SETTLED", -1)  # the copies themselves are a moment old
    examined = []
    examine = examining._examine_data

    def count(plan, alone=None):
        examined.append(plan)
        return examine(plan, alone)

    monkeypatch.setattr(examining, "_examine_data", count)
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


def test_names_of_dimensions_are_checked_whether_or_not_the_files_were_read_before(
    data, tmp_path, capsys
):
    table, examined = data
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"coefficient {k}" for k in range(10)))
    plan = plan_study(StudyConfig(data=table, names={"audio": names}))

    assert check_data(plan).names == {"audio": tuple(f"coefficient {k}" for k in range(10))}
    names.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"names.txt has 2 names and modality 'audio' 10 dim"):
        check_data(plan)
    assert len(examined) == 1
    words = ["check", str(table), "--names", f"audio={names}"]
    assert main(words) == 2
    assert "names.txt has 2 names" in " ".join(capsys.readouterr().out.split())
    assert main([*words[:-1], f"voice={names}"]) == 2
    assert "--names voice: there is no such modality; choose among visual" in " ".join(
        capsys.readouterr().out.split()
    )


def test_names_are_no_part_of_the_identity(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text('[names]\naudio = "names.txt"\n')

    named = load_config(file, {})

    assert named.names == {"audio": tmp_path / "names.txt"}
    assert named.identity() == StudyConfig().identity()


def test_a_changed_file_and_another_policy_are_examined_anew(data):
    table, examined = data
    check(table)
    check(table, frames="drop")
    assert len(examined) == 2
    path = next(table.parent.rglob("*.npy"))
    np.save(path, np.full_like(np.load(path), np.nan))

    for _ in range(2):  # what was refused is never kept
        with pytest.raises(ManifestError, match="is finite"):
            check(table)
    assert len(examined) == 4


def test_partitions_that_no_check_has_seen_are_examined(data):
    table, examined = data
    plan = plan_study(StudyConfig(data=table, outer="3"))
    check_data(replace(plan, systems={}, seeded={}))  # a premium: no inner fold

    for options in ({}, {"inner": 2}, {"seeds": 2}, {"inner": 2}):
        check(table, outer="3", **options)

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


@pytest.fixture(scope="module")
def partitions(manifest):
    """Folds of a study under two seeds, by definition: outer, search and out-of-fold ones."""
    outer, shared = make_folds(manifest, "3", seed=0), {"grouping": "speaker", "n_folds": 2}
    found = [("outer", fold) for fold in outer]
    own = {0: (*outer, final_fold(manifest)), derive_seed(0, "seed noise", 1): outer}
    for seed, folds in own.items():
        for fold in folds:
            for purpose in ("search", "out-of-fold"):
                parts = inner_folds(manifest, fold, seed=seed, purpose=purpose, **shared)
                where = ("final " * (fold.number < 0), " again" * (seed > 0))
                found += [(purpose.join(where), part) for part in parts]
    return found


def test_a_modality_is_refused_where_one_partition_cannot_learn_or_stop(
    manifest, partitions, monkeypatch
):
    plan = plan_study(StudyConfig(outer="3", inner=2, seeds=2), manifest)
    # A premium makes no inner folds.
    bare = replace(plan, systems={}, seeded={})
    assert [fold for _, fold, _ in examining._list_splits(bare)] == [*plan.folds]
    splits = [*examining._list_splits(plan)]
    monkeypatch.setattr(examining, "_list_splits", lambda _: splits)
    names, rng, verdicts = manifest.speakers, np.random.default_rng(0), []
    having = [rng.choice(np.unique(names), rng.integers(2, 9), False) for _ in range(100)]
    having += [names[fold.test] for _, fold in partitions]
    for people in having:
        present = np.isin(names, people)
        failing = {
            kind
            for kind, fold in partitions
            if len({*manifest.labels[fold.train[present[fold.train]]].tolist()}) < 2
            or ("search" in kind and not present[fold.test].any())
        }

        found = [*examining._find_unlearnable(plan, {"text": present})]

        assert len(found) == bool(failing)
        verdicts.append(failing)
    assert set() in verdicts
    for only in ("search", "out-of-fold", "final", "again"):
        assert any(v and all(only in kind for kind in v) for v in verdicts)
