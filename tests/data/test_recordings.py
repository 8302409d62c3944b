"""The same numbers found twice: one recording under two speakers, or another cause."""

import shutil

import numpy as np
import pytest

from toolkit.data import examination, read_manifest, read_sequence, summarise_manifest
from toolkit.data.examination import _find_duplicates, count_shared

A, B, C = b"a", b"b", b"c"


def find(rows, speakers="FFMM", n_frames=80, modalities=("audio", "text")):
    columns = zip(*rows, strict=True)
    recordings, coincidences = _find_duplicates(
        [f"u{i}" for i in range(len(rows))],
        speakers[: len(rows)],
        dict(zip(modalities, columns, strict=True)),
        [n_frames] * len(rows),
        modalities,
    )
    return recordings, [text for own in coincidences.values() for text in own]


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


def test_columns_of_large_units_and_of_one_value_make_no_near_duplicates():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 40)).astype(np.float32)
    values[:, 0] *= 1e30
    values[:, 1] = 0.1
    values[:, 2] = 1e6 + 0.5 * values[:, 2]
    values[7, 5] = np.nan
    speakers = np.array(["a", "b", "c"] * 100)
    values[200] = values[100]
    values[200, 3:] += 1e-3

    assert count_shared(values, speakers, compare=True) == (0, 2)
    # By definition, of the columns that vary.
    scores = np.delete(values.astype(float), 1, axis=1)
    scores = (scores - np.nanmean(scores, axis=0)) / np.nanstd(scores, axis=0)
    scores = np.nan_to_num(scores)
    cosines = scores @ scores.T / np.outer(*[np.linalg.norm(scores, axis=1)] * 2)
    near = (cosines >= 0.99) & (speakers[:, None] != speakers)
    assert near.any(axis=1).nonzero()[0].tolist() == [100, 200]


def test_vectors_of_few_dimensions_are_not_compared():
    values = np.random.default_rng(2).normal(size=(400, 40)).astype(np.float32)
    speakers = np.array(["a", "b"] * 200)
    values[:, 3:] = 1

    assert count_shared(values, speakers, compare=True) == (0, None)


@pytest.fixture
def people(tmp_path):
    """Give a maker of a table of two modalities from arrays, five people of four utterances."""

    def make(sound, words):
        lines = ["utterance,speaker,label,sound,words"]
        for i in range(20):
            np.save(tmp_path / f"sound{i}.npy", sound(i))
            np.save(tmp_path / f"words{i}.npy", words(i))
            cells = f"sound{i}.npy,words{i}.npy"
            lines.append(f"u{i:02d},{'abcde'[i // 4]}x,{i % 2},{cells}")
        table = tmp_path / "dataset.csv"
        table.write_text("\n".join(lines))
        return read_manifest(table)

    return make


def noise(i, shape=(9, 6)):
    return np.random.default_rng(i).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(np.float16),
        lambda array: array.astype(">f8"),
        np.asfortranarray,
        None,  # in an archive
    ],
)
def test_a_recording_is_found_however_it_is_saved(people, tmp_path, change):
    manifest = people(noise, lambda i: noise(100 + i, (5,)))
    for name, array in (("sound", noise(0)), ("words", noise(100, (5,)))):
        if change is None:
            np.savez_compressed(tmp_path / f"{name}13.npz", array)
        else:
            np.save(tmp_path / f"{name}13.npy", change(array))
    if change is None:
        table = tmp_path / "dataset.csv"
        table.write_text(table.read_text().replace("13.npy", "13.npz"))
        manifest = read_manifest(table)

    (problem,) = summarise_manifest(manifest).problems

    assert problem.startswith("Utterances 'u00' and 'u13' of speakers 'ax' and 'dx' hold")


def test_one_other_number_makes_another_recording(people):
    def sound(i):
        array = noise(0 if i in {0, 13} else i)
        array[5, 5] += 0.01 * i
        return array

    assert summarise_manifest(people(sound, lambda i: noise(0, (5,)) + i)).problems == ()


@pytest.mark.parametrize(("other", "n_notes"), [(1, 1), (2, 0), (5, 0)])
def test_one_recording_with_two_labels_of_one_speaker_is_named(people, other, n_notes):
    # u01 has another label, u02 the same, and u05 another speaker.
    manifest = people(lambda i: noise(0 if i == other else i), lambda i: noise(100 + i, (5,)))

    found = summarise_manifest(manifest)
    notes = [note for note in found.warnings if "with another label" in note]
    assert found.problems == ()
    assert len(notes) == n_notes
    assert all("such as 'u00' (0) and 'u01' (1). Correct the label" in note for note in notes)


@pytest.mark.parametrize("sound", [lambda i: noise(i % 2, (4, 6)), lambda _: np.ones((9, 6))])
def test_short_and_constant_clips_of_two_labels_are_no_news(people, sound):
    manifest = people(lambda i: sound(i) if i < 4 else noise(i), lambda i: noise(i, (5,)))

    assert not any("another label" in note for note in summarise_manifest(manifest).warnings)


@pytest.mark.parametrize(
    ("column", "named"),
    [
        (lambda i: i % 2, True),
        (lambda i: 7.5 - (i % 2), True),
        (lambda i: np.nan if i == 3 else i % 2, True),
        (lambda i: (i % 2) if i < 19 else 0, False),
        (lambda i: (i % 2) + i / 1000, False),
        (lambda _: 1, False),
    ],
)
def test_labels_among_features_are_named(people, column, named):
    def sound(i):
        frames = noise(i)
        frames[:, 4] = column(i)
        return frames

    manifest = people(sound, lambda i: np.r_[noise(i, (3,)), column(i)])
    notes = summarise_manifest(manifest, missing="allow", frames="drop").warnings

    found = [note for note in notes if "one value per class" in note]
    expected = [("sound", 4), ("words", 3)] if named else []
    for note, (modality, dimension) in zip(found, expected, strict=True):
        assert note.startswith(f"Modality '{modality}': one value per class")
        assert f"in all 20 utterances: dimension {dimension}. A system" in note


def test_few_files_are_read_where_no_dimension_gives_the_label(people, monkeypatch):
    read = []
    monkeypatch.setattr(
        examination, "read_sequence", lambda path: read.append(path) or read_sequence(path)
    )
    people_of_zeros = people(
        lambda i: np.hstack([noise(i), np.zeros((9, 1))]), lambda i: noise(100 + i, (5,))
    )
    summarise_manifest(people_of_zeros)

    assert len(read) <= 2 * (20 + 4)


def test_fixed_sentences_are_no_recording(people):
    found = summarise_manifest(people(noise, lambda i: noise(i % 2, (7, 6))))

    assert found.problems == ()
    (note,) = [note for note in found.warnings if "'words'" in note]
    assert "hold the same numbers as another speaker's" in note  # sentences are of text alone


def test_fixed_sentences_of_text_are_named(people, tmp_path):
    people(lambda i: noise(i % 2, (7, 6)), noise)
    table = tmp_path / "dataset.csv"
    table.write_text(table.read_text().replace(",sound,words", ",text,words"))

    for modalities in (("text",), ()):
        found = summarise_manifest(read_manifest(table, modalities=modalities))

        assert found.problems == ()
        assert found.warnings[0].startswith(
            "Modality 'text': 20 of 20 utterances share 2 vectors over people: fixed sentences."
        )


def test_clips_of_one_frame_throughout_are_no_recording(people):
    def sound(i):
        return np.zeros((9, 6), dtype=np.float32) if i in {0, 13, 17} else noise(i)

    found = summarise_manifest(people(sound, lambda i: noise(0 if i == 13 else i, (9,))))

    assert found.problems == ()
    assert found.warnings[0].startswith(
        "Modality 'sound': 3 files hold one frame or number throughout, as where no face was "
        "found: 'u00', 'u13', 'u17'."
    )


def test_a_constant_modality_is_named_once(people):
    found = summarise_manifest(people(noise, lambda _: np.ones(9)))

    (note,) = [note for note in found.warnings if "words" in note]
    assert note.startswith("Modality 'words' is constant: all 20 files hold the same numbers.")
    assert "--modality" in note


def test_one_file_for_all_rows_is_named(people, tmp_path):
    people(noise, noise)
    table = tmp_path / "dataset.csv"
    rows = [line.rpartition(",")[0] for line in table.read_text().splitlines()]
    table.write_text(
        "\n".join([rows[0] + ",words", *(row + ",words3.npy" for row in rows[1:])])
    )

    notes = summarise_manifest(read_manifest(table)).warnings

    assert any("all 20 rows name one file" in note and "FILE#NAME" in note for note in notes)
