"""Tables of utterances without labels."""

import csv
import shutil

import numpy as np
import pytest

from toolkit.data import (
    ManifestError,
)
from toolkit.data.manifest import read_unlabelled


def write(folder, header, rows, name="new.csv"):
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return folder / name


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a", "c"):
        np.save(tmp_path / f"{name}.npy", np.ones((3, 2), np.float32))
    return tmp_path


def test_neither_labels_nor_speakers_are_needed(folder):
    path = write(folder, ["id", "voice"], [["b", "b.npy"], ["a", "a.npy"]])

    manifest = read_unlabelled(path, ["voice"])

    assert manifest.utterances.tolist() == ["a", "b"]
    assert manifest.labels.tolist() == [-1, -1]
    assert manifest.speakers.tolist() == ["", ""]
    assert [p.name for p in manifest.paths["voice"]] == ["a.npy", "b.npy"]
    assert "whether somebody was in training cannot be said" in manifest.warnings[-1]


def test_a_label_column_is_not_read(folder):
    path = write(folder, ["id", "speaker", "label", "voice"], [["a", "anna", "?", "a.npy"]])

    manifest = read_unlabelled(path, ["voice"])

    assert manifest.labels.tolist() == [-1]
    assert manifest.speakers.tolist() == ["anna"]


def test_speakers_are_read_from_the_ids_of_iemocap(folder):
    path = write(folder, ["id", "voice"], [["Ses01F_impro01_M003", "a.npy"]])

    manifest = read_unlabelled(path, ["voice"])

    assert manifest.speakers.tolist() == ["M01"]
    assert manifest.warnings == ("No column tells the speaker: read from the utterance ids.",)


def test_a_modality_without_a_column_is_named_with_what_was_found(folder):
    path = write(folder, ["id", "voice"], [["a", "a.npy"]])

    with pytest.raises(ManifestError, match=r"files of modality 'face'.*\(found: voice\)"):
        read_unlabelled(path, ["voice", "face"])


def test_a_column_without_a_file_is_a_modality_that_nobody_has(folder):
    path = write(folder, ["id", "voice", "face"], [["a", "a.npy", ""]])

    assert read_unlabelled(path, ["voice", "face"]).paths["face"] == (None,)


def test_a_column_that_the_models_do_not_know_is_left_alone(folder):
    path = write(folder, ["id", "voice", "face"], [["a", "a.npy", "nowhere.npy"]])

    assert read_unlabelled(path, ["voice"]).modalities == ("voice",)


def test_absent_files_are_refused_unless_they_may_be_missing(folder):
    path = write(folder, ["id", "voice"], [["a", "a.npy"], ["b", "gone.npy"]])

    with pytest.raises(ManifestError, match=r"gone\.npy"):
        read_unlabelled(path, ["voice"])
    assert read_unlabelled(path, ["voice"], missing="allow").absent == {"voice": 1}


def test_what_is_wrong_with_the_rows_is_told_in_one_message(folder):
    path = write(folder, ["id", "voice"], [["a", "a.npy"], ["a", "b.npy"], ["", "c.npy"]])

    with pytest.raises(ManifestError, match=r"(?s)'a' is in row 2 already.*the cell is empty"):
        read_unlabelled(path, ["voice"])


def test_the_generated_corpus_reads_without_its_labels(corpus, manifest, tmp_path):
    new = shutil.copytree(corpus, tmp_path / "new")
    with (new / "dataset.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    at = [i for i, name in enumerate(header) if "label" not in name]
    path = write(new, [header[i] for i in at], [[row[i] for i in at] for row in rows])

    found = read_unlabelled(path, manifest.modalities)

    assert found.utterances.tolist() == manifest.utterances.tolist()
    assert found.speakers.tolist() == manifest.speakers.tolist()
    assert found.generated
