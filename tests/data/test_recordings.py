"""One recording under two speakers is found, and nothing else is taken for one."""

import shutil

import numpy as np
import pytest

from toolkit.data import find_recordings, read_manifest


@pytest.fixture
def copy(corpus, tmp_path):
    """A corpus that a test may spoil."""
    return shutil.copytree(corpus, tmp_path / "corpus")


def rows_of(manifest, speaker):
    return [row for row in range(len(manifest)) if manifest.speakers[row] == speaker]


def duplicate(manifest, source, target, modalities):
    for modality in modalities:
        shutil.copyfile(manifest.paths[modality][source], manifest.paths[modality][target])


def complete(manifest, speaker):
    return next(
        row
        for row in rows_of(manifest, speaker)
        if all(paths[row] is not None for paths in manifest.paths.values())
    )


def test_a_clean_corpus_has_none(manifest):
    assert find_recordings(manifest) == []


def test_one_recording_under_two_speakers_is_named(copy):
    manifest = read_manifest(copy / "dataset.csv")
    one, other = complete(manifest, "F01"), complete(manifest, "M03")
    duplicate(manifest, one, other, manifest.modalities)

    (sentence,) = find_recordings(manifest)

    assert manifest.utterances[one] in sentence
    assert manifest.utterances[other] in sentence
    assert "--duplicates allow" in sentence


def test_the_same_text_said_by_two_people_is_none(copy):
    manifest = read_manifest(copy / "dataset.csv")
    duplicate(manifest, complete(manifest, "F01"), complete(manifest, "M03"), ["text"])

    assert find_recordings(manifest) == []


def test_one_person_may_repeat_a_recording(copy):
    manifest = read_manifest(copy / "dataset.csv")
    rows = [
        row
        for row in rows_of(manifest, "F01")
        if all(paths[row] is not None for paths in manifest.paths.values())
    ]
    duplicate(manifest, rows[0], rows[1], manifest.modalities)

    assert find_recordings(manifest) == []


def test_fixed_size_features_alone_are_never_a_recording(copy):
    manifest = read_manifest(copy / "dataset.csv", modalities=["text"])
    np.save(manifest.paths["text"][0], np.zeros(24))
    np.save(manifest.paths["text"][-1], np.zeros(24))

    assert find_recordings(manifest) == []
