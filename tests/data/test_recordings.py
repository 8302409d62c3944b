"""The same numbers found twice: one recording under two speakers, or another cause."""

import shutil

import numpy as np
import pytest

from toolkit.data import count_shared, read_manifest, summarise_manifest
from toolkit.data.recordings import _find_duplicates

A, B, C = b"a", b"b", b"c"


def find(rows, speakers="FFMM", n_frames=80, modalities=("audio", "text")):
    columns = zip(*rows, strict=True)
    return _find_duplicates(
        [f"u{i}" for i in range(len(rows))],
        speakers[: len(rows)],
        dict(zip(modalities, columns, strict=True)),
        [n_frames] * len(rows),
        modalities,
    )


def test_different_numbers_are_no_duplicates():
    assert find([(A, A), (B, B), (C, C)]) == ([], [])


def test_missing_modalities_are_not_alike():
    assert find([(None, None), (A, None), (None, None), (B, None)]) == ([], [])


def test_one_recording_under_two_speakers_is_found():
    (recording,), coincidences = find([(A, B), (B, C), (A, B), (C, A)])

    assert recording == (
        "Utterances 'u0' and 'u2' of speakers 'F' and 'M' hold the same numbers in every "
        "modality: one recording under several names. Keep one of them, or allow it with "
        "--duplicates allow."
    )
    assert coincidences == []


def test_a_recording_without_one_modality_is_found():
    recordings, _ = find([(A, None), (B, C), (A, None)])

    assert len(recordings) == 1


def test_another_pattern_of_missing_modalities_is_no_recording_twice():
    recordings, coincidences = find([(A, None), (B, C), (A, B)])

    assert recordings == []
    (only,) = coincidences
    assert only.startswith("Modality 'audio': 2 utterances hold the same numbers as another")
    assert only.endswith("such as 'u0' and 'u2'.")


@pytest.mark.parametrize(("n_frames", "n_recordings"), [(0, 0), (4, 0), (5, 1)])
def test_only_five_frames_make_a_recording(n_frames, n_recordings):
    recordings, coincidences = find([(A, B), (B, C), (A, B)], n_frames=n_frames)

    assert len(recordings) == n_recordings
    assert len(coincidences) == 1 - n_recordings
    assert all("2 utterances hold the same numbers" in text for text in coincidences)
    assert all("in every modality, with fewer than 5 frames" in text for text in coincidences)


def test_one_modality_alike_is_counted():
    recordings, coincidences = find([(A, A), (B, A), (C, A), (b"d", B)])

    assert recordings == []
    (only,) = coincidences
    assert only.startswith("Modality 'text': 3 utterances hold the same numbers as another")
    assert only.endswith("such as 'u0', 'u1' and 'u2'.")


def test_one_modality_alike_within_a_speaker_is_no_news():
    assert find([(A, A), (B, A), (C, B)]) == ([], [])


def test_a_recording_twice_by_one_speaker_is_counted():
    recordings, coincidences = find([(A, A), (A, A), (B, B)])

    assert recordings == []
    (only,) = coincidences
    assert only.endswith("and so count twice: 1, such as 'u1'.")


def test_a_word_spoken_twice_by_one_speaker_is_no_news():
    assert find([(A,), (A,), (B,)], n_frames=0, modalities=("text",)) == ([], [])


def test_many_are_counted_after_three():
    recordings, _ = find([(A, A)] * 5, speakers="FMFMF")

    assert "Utterances 'u0', 'u1', 'u2' and 2 more of speakers 'F' and 'M'" in recordings[0]


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
    assert summarise_manifest(manifest).problems == ()


def test_one_recording_under_two_speakers_is_named(copy):
    manifest = read_manifest(copy / "dataset.csv")
    one, other = complete(manifest, "F01"), complete(manifest, "M03")
    duplicate(manifest, one, other, manifest.modalities)

    (sentence,) = summarise_manifest(manifest).problems

    assert manifest.utterances[one] in sentence
    assert manifest.utterances[other] in sentence
    assert "--duplicates allow" in sentence


def test_the_numbers_of_a_file_count_and_not_its_bytes(copy):
    manifest = read_manifest(copy / "dataset.csv")
    one, other = complete(manifest, "F01"), complete(manifest, "M03")
    for paths in manifest.paths.values():
        np.save(paths[other], np.load(paths[one]).astype(">f4"))

    assert len(summarise_manifest(manifest).problems) == 1


def test_the_same_text_spoken_by_two_people_is_none(copy):
    manifest = read_manifest(copy / "dataset.csv")
    duplicate(manifest, complete(manifest, "F01"), complete(manifest, "M03"), ["text"])

    assert summarise_manifest(manifest).problems == ()


def test_one_person_may_repeat_a_recording(copy):
    manifest = read_manifest(copy / "dataset.csv")
    rows = [
        row
        for row in rows_of(manifest, "F01")
        if all(paths[row] is not None for paths in manifest.paths.values())
    ]
    duplicate(manifest, rows[0], rows[1], manifest.modalities)

    assert summarise_manifest(manifest).problems == ()


def test_fixed_size_features_alone_are_never_a_recording(copy):
    manifest = read_manifest(copy / "dataset.csv", modalities=["text"])
    np.save(manifest.paths["text"][0], np.zeros(24))
    np.save(manifest.paths["text"][-1], np.zeros(24))

    assert summarise_manifest(manifest).problems == ()


def test_equal_features_count_only_across_speakers():
    values = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    values[1] = values[0]  # the same speaker
    values[4] = values[2]  # another one

    assert count_shared(values, np.array(list("aabbcc")), compare=True) == (2, 0)
    assert count_shared(values, np.array(list("aabbcc")), compare=False) == (2, None)


def test_near_duplicates_are_counted_beside_equal_ones():
    values = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    values[40] = values[10] * 1.01 + 0.001
    values[41] = values[11]
    speakers = np.array(["a"] * 30 + ["b"] * 30)

    assert count_shared(values, speakers, compare=True) == (2, 2)
