"""The folder of a study: units are read back as written, and enough of the data is kept."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.files import FolderError
from toolkit.pooling import FeatureTable
from toolkit.study.folder import StudyFolder
from toolkit.study.units import describe_table
from toolkit.validation import UnitResult, make_folds


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


def test_objects_in_a_unit_are_not_unpickled_even_if_the_checksums_fit(unit, tmp_path, opened):
    study = StudyFolder(tmp_path)
    path = study.unit(unit.system, 2)
    for name in ("test", "present", "inner_rows", "inner", "inner_present"):
        study.write_unit(unit, ["text"])
        with opened(path, sums=True) as folder:
            array = np.array([{"runs": "code"}], dtype=object)
            np.save(folder / f"{name}.npy", array, allow_pickle=True)

        with pytest.raises(ValueError, match=r"cannot be read as an array: [Oo]bject"):
            study.read_unit(unit.system, 2)


def test_a_unit_that_cannot_be_written_leaves_the_finished_one(unit, tmp_path, monkeypatch):
    folder = StudyFolder(tmp_path)
    folder.write_unit(unit, ["text"])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_unit(unit, ["text"])

    assert np.array_equal(folder.read_unit(unit.system, 2).proba, unit.proba)


def test_a_unit_is_on_the_disk_before_its_name_is(unit, tmp_path, monkeypatch, synced):
    named, replace = [], Path.replace

    def note(path, target):
        named.append((Path(target).name, path.stat().st_ino in synced))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", note)
    study = StudyFolder(tmp_path)
    study.write_unit(unit, ["text"])

    path = study.unit(unit.system, 2)
    assert named[-1] == ("02.zip", True)
    assert path.parent.stat().st_ino in synced
    assert [each.name for each in path.parent.iterdir()] == ["02.zip"]


def test_a_file_that_was_added_to_a_unit_is_refused(unit, tmp_path, opened):
    folder = StudyFolder(tmp_path)
    folder.write_unit(unit, ["text"])
    with opened(folder.unit(unit.system, 2)) as files:
        (files / "model.pkl").touch()

    with pytest.raises(FolderError, match=r"model\.pkl changed since it was written"):
        folder.read_unit(unit.system, 2)


def make_table(values, *, timed=False, present=None, modality="text"):
    values = np.asarray(values, dtype=np.float32)
    n, width = values.shape
    statistic = "mean" if timed else "value"
    there = np.ones(n, dtype=bool) if present is None else np.asarray(present)
    return FeatureTable(
        modality=modality,
        statistics=(statistic,),
        names=tuple(f"{modality}__{statistic}__{i:04d}" for i in range(width)),
        values=values,
        present=there,
        n_frames=np.where(there, np.arange(n) + 3, 0) if timed else np.zeros(n, dtype=np.int64),
        digest="0",
        counts={"files_absent": int((~there).sum())},
    )


def random_table(n, **how):
    return make_table(np.random.default_rng(0).normal(size=(n, 40)), **how)


@pytest.mark.parametrize("outer", ["speaker", "session", "3"])
def test_rows_come_back_with_the_same_folds(manifest, tmp_path, outer):
    StudyFolder(tmp_path).write_data(
        manifest,
        {"text": random_table(len(manifest))},
        study="s",
        primary="text",
        explicit=False,
    )

    again, data = StudyFolder(tmp_path).read_data()

    assert again.digest(content=True) == manifest.digest(content=True)
    assert data["classes"] == list(manifest.classes)
    for before, after in zip(
        make_folds(manifest, outer, seed=1), make_folds(again, outer, seed=1), strict=True
    ):
        assert np.array_equal(before.train, after.train)
        assert np.array_equal(before.test, after.test)


def test_what_is_not_told_stays_untold(manifest, tmp_path):
    bare = dataclasses.replace(manifest, sessions=None, dialogues=None, contents=None)
    StudyFolder(tmp_path).write_data(
        bare, {"text": random_table(len(manifest))}, study="s", primary="text", explicit=False
    )

    again, _ = StudyFolder(tmp_path).read_data()

    assert again.sessions is None
    assert again.dialogues is None
    assert again.contents is None
    # As in folders of versions without content, which go on.
    assert (tmp_path / "internal" / "rows.csv").read_text().splitlines()[0] == (
        "utterance,label,speaker,session,dialogue,split"
    )
    assert again.digest() == bare.digest()


def test_modalities_of_earlier_runs_are_kept_in_the_order_of_their_columns(manifest, tmp_path):
    StudyFolder(tmp_path).write_data(
        manifest,
        {"text": random_table(len(manifest))},
        study="s",
        primary="text",
        explicit=False,
    )
    audio = random_table(len(manifest), timed=True, modality="audio")
    StudyFolder(tmp_path).write_data(
        manifest, {"audio": audio}, study="s", primary="text", explicit=False
    )

    _, data = StudyFolder(tmp_path).read_data()

    assert list(data["modalities"]) == ["audio", "text"]
    assert data["modalities"]["text"]["frames"] is None
    frames = np.arange(len(manifest)) + 3
    assert data["modalities"]["audio"]["frames"] == {
        "min": 3,
        "median": float(np.median(frames)),
        "max": int(frames.max()),
        "total": int(frames.sum()),
    }


def test_names_of_dimensions_stay_until_others_are_given(manifest, tmp_path):
    table = random_table(len(manifest))
    kept = []
    for named in (["a", "b"], None, ["c", "d"]):
        about = {"text": {"notes": []} | ({} if named is None else {"dimensions": named})}
        StudyFolder(tmp_path).write_data(
            manifest, {"text": table}, study="s", primary="text", explicit=False, about=about
        )
        kept.append(StudyFolder(tmp_path).read_data()[1]["modalities"]["text"]["dimensions"])

    assert kept == [["a", "b"], ["a", "b"], ["c", "d"]]


def test_missing_rows_are_no_duplicates():
    values = random_table(6).values.copy()
    values[[0, 5]] = np.nan
    present = np.array([False, True, True, True, True, False])

    described = describe_table(make_table(values, present=present), np.array(list("aabbcc")))

    assert (described["same_as_other_speaker"], described["near_other_speaker"]) == (0, 0)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(FolderError, match=r"holds no internal/data\.json"):
        StudyFolder(tmp_path).read_data()


@pytest.mark.parametrize("spoil", ["no json", '{"classes": []}'])
def test_damaged_data_are_named(manifest, tmp_path, spoil):
    StudyFolder(tmp_path).write_data(
        manifest,
        {"text": random_table(len(manifest))},
        study="s",
        primary="text",
        explicit=False,
    )
    (tmp_path / "internal" / "data.json").write_text(spoil)

    with pytest.raises(FolderError, match="kept of its data is damaged"):
        StudyFolder(tmp_path).read_data()


def test_nothing_of_the_machine_is_kept(manifest, tmp_path):
    StudyFolder(tmp_path).write_data(
        manifest,
        {"text": random_table(len(manifest))},
        study="s",
        primary="text",
        explicit=False,
    )

    text = (tmp_path / "internal" / "data.json").read_text() + (
        tmp_path / "internal" / "rows.csv"
    ).read_text()

    assert str(manifest.root) not in text
    assert (
        json.loads((tmp_path / "internal" / "data.json").read_text())["source"] == "dataset.csv"
    )


def write_primary(folder, manifest, primary, *, explicit):
    tables = {"text": random_table(len(manifest))}
    folder.write_data(manifest, tables, study="s", primary=primary, explicit=explicit)
    return folder.read_data()[1]["primary"]


def test_the_primary_system_is_recorded_once_and_changed_only_when_named(manifest, tmp_path):
    folder = StudyFolder(tmp_path)

    assert write_primary(folder, manifest, "text", explicit=False) == ["text"]
    # Nothing can have suggested a change before the first unit is finished.
    assert write_primary(folder, manifest, "early", explicit=False) == ["early"]
    folder.units.mkdir()
    assert write_primary(folder, manifest, "text", explicit=False) == ["early"]
    assert write_primary(folder, manifest, "text", explicit=True) == ["early", "text"]
    assert write_primary(folder, manifest, "text", explicit=True) == ["early", "text"]
    assert write_primary(folder, manifest, "early", explicit=False) == ["early", "text"]


def test_the_names_in_the_title_stay_when_folders_are_renamed(manifest, tmp_path):
    StudyFolder(tmp_path / "first").write_data(
        manifest, {}, study="s", primary="text", explicit=False
    )
    (tmp_path / "first").rename(tmp_path / "second")
    moved = dataclasses.replace(manifest, root=tmp_path / "elsewhere")
    StudyFolder(tmp_path / "second").write_data(
        moved, {}, study="t", primary="text", explicit=False
    )

    _, data = StudyFolder(tmp_path / "second").read_data()

    assert (data["name"], data["corpus"]) == ("s", manifest.root.name)
