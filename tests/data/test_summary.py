import shutil
import weakref

import numpy as np
import pytest

from toolkit.data import (
    count_shared,
    find_recordings,
    read_manifest,
    summarise_manifest,
    summary,
)
from toolkit.data.summary import _find_duplicates

SPEAKERS = ("ann", "ben", "cid")
CLASSES = ("no", "yes")


class Folder:
    """A data set of six utterances, two a speaker and one a class, to be spoilt."""

    def __init__(self, root):
        self.root = root
        for number in range(6):
            rng = np.random.default_rng(number)
            self.save("voice", number, rng.normal(size=(10 + number, 3)).astype(np.float32))
            self.save("text", number, rng.normal(size=4).astype(np.float32))
        self.cells = {
            (modality, number): f"{modality}{number}.npy"
            for modality in ("voice", "text")
            for number in range(6)
        }

    def path(self, modality, number):
        return self.root / f"{modality}{number}.npy"

    def save(self, modality, number, array):
        np.save(self.path(modality, number), array)

    def read(self, **options):
        lines = ["utterance,speaker,session,label,voice,text"]
        for number in range(6):
            voice, text = self.cells["voice", number], self.cells["text", number]
            lines.append(
                f"u{number},{SPEAKERS[number // 2]},s,{CLASSES[number % 2]},{voice},{text}"
            )
        table = self.root / "dataset.csv"
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read_manifest(table, **options)

    def summarise(self, **options):
        return summarise_manifest(self.read(), **options)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_sound_data_set_has_no_problem(folder):
    found = folder.summarise()

    assert found.problems == found.warnings == ()
    assert (found.source, found.generated) == ("dataset.csv", False)
    assert (found.n_utterances, found.n_complete, found.n_sessions) == (6, 6, 1)
    assert found.classes == CLASSES
    assert found.speakers == SPEAKERS
    assert found.counts.tolist() == [[1, 1]] * 3
    assert not found.counts.flags.writeable


def test_each_modality_is_measured(folder):
    voice, text = folder.summarise().modalities

    assert (voice.modality, voice.n_files, voice.has_time) == ("voice", 6, True)
    assert dict(voice.dims) == {3: 6}
    assert voice.n_frames == (10, 12.5, 15)
    assert voice.n_bytes == sum(range(10, 16)) * 3 * 4
    assert (text.modality, text.n_files, text.has_time) == ("text", 6, False)
    assert dict(text.dims) == {4: 6}
    assert text.n_frames is None


def test_the_generated_corpus_is_sound(manifest):
    found = summarise_manifest(manifest)

    assert found.generated
    assert found.problems == ()
    assert found.n_utterances == found.counts.sum() == len(manifest)
    assert found.modalities[0].n_empty == manifest.paths["visual"].count(None) > 0
    assert found.n_complete == len(manifest) - found.modalities[0].n_empty


def test_the_warnings_of_the_table_come_first(manifest):
    assert summarise_manifest(manifest).warnings[: len(manifest.warnings)] == manifest.warnings


def test_an_empty_cell_is_missing_and_no_problem(folder):
    folder.cells["voice", 3] = ""

    found = folder.summarise()

    assert found.problems == found.warnings == ()
    assert found.n_complete == 5
    assert (found.modalities[0].n_files, found.modalities[0].n_empty) == (5, 1)


def test_a_file_that_is_absent_by_leave_is_counted_apart(folder):
    folder.cells["voice", 3] = ""
    folder.path("voice", 2).unlink()

    voice = summarise_manifest(folder.read(missing="allow"), missing="allow").modalities[0]

    assert (voice.n_files, voice.n_empty, voice.n_absent, voice.n_unreadable) == (4, 1, 1, 0)


def test_an_unreadable_file_is_a_problem(folder):
    folder.path("voice", 2).write_bytes(b"")

    found = folder.summarise()

    assert len(found.problems) == 1
    assert found.problems[0].startswith("utterance 'u2', modality 'voice': ")
    assert "voice2.npy is empty (0 bytes)" in found.problems[0]
    assert found.modalities[0].n_unreadable == 1
    assert found.n_complete == 5


def test_an_unreadable_file_may_count_as_missing(folder):
    folder.path("voice", 2).write_bytes(b"")

    found = folder.summarise(missing="allow")

    assert found.problems == ()
    assert found.warnings == (
        "Modality 'voice': files that cannot be read, and so count as missing: 1.",
    )
    assert found.modalities[0].n_unreadable == 1


def spoil_frames(folder, frames):
    sequence = np.load(folder.path("voice", 1))
    sequence[frames, 1] = np.nan
    folder.save("voice", 1, sequence)


def test_frames_that_are_not_finite_are_a_problem(folder):
    spoil_frames(folder, [4, 7])

    found = folder.summarise()

    assert len(found.problems) == 1
    assert "utterance 'u1', modality 'voice'" in found.problems[0]
    assert "frame 4 is not finite, one of 2 of 11 frames" in found.problems[0]
    assert found.modalities[0].n_not_finite == 1


@pytest.mark.parametrize("frames", ["drop", "interpolate"])
def test_frames_that_are_not_finite_may_be_repaired(folder, frames):
    spoil_frames(folder, [4, 7])

    found = folder.summarise(frames=frames)

    assert found.problems == ()
    assert "files with values that are not finite, dealt with as asked: 1." in found.warnings[0]


@pytest.mark.parametrize("frames", ["drop", "interpolate"])
@pytest.mark.parametrize("missing", ["refuse", "allow"])
def test_a_file_without_any_finite_frame_is_a_missing_one(folder, frames, missing):
    spoil_frames(folder, slice(None))

    problems = folder.summarise(frames=frames, missing=missing).problems

    assert len(problems) == (missing == "refuse")
    assert all("no finite frame is left" in problem for problem in problems)


def test_interpolation_repairs_what_dropping_cannot(folder):
    sequence = np.load(folder.path("voice", 1))
    sequence[::2, 0] = sequence[1::2, 1] = np.inf
    folder.save("voice", 1, sequence)

    assert len(folder.summarise(frames="drop").problems) == 1
    assert folder.summarise(frames="interpolate").problems == ()


@pytest.mark.parametrize(("missing", "n_problems"), [("refuse", 1), ("allow", 0)])
def test_a_value_that_is_not_finite_may_count_as_missing(folder, missing, n_problems):
    folder.save("text", 5, np.array([1, 2, np.inf, 4], dtype=np.float32))

    found = folder.summarise(missing=missing, frames="drop")

    assert len(found.problems) == n_problems
    assert all("dimension 2 is not a finite number" in problem for problem in found.problems)
    assert found.modalities[1].n_not_finite == 1


def test_a_file_of_another_width_is_a_problem(folder):
    folder.save("voice", 4, np.ones((9, 2), dtype=np.float32))

    found = folder.summarise()

    assert len(found.problems) == 1
    assert found.problems[0].startswith("utterance 'u4', modality 'voice': ")
    assert found.problems[0].endswith(
        "voice4.npy has 2 dimensions and a time axis, and 5 of 6 files have 3 dimensions and a "
        "time axis; all must be alike."
    )
    assert list(found.modalities[0].dims.items()) == [(3, 5), (2, 1)]


def test_a_file_without_the_time_axis_of_the_others_is_a_problem(folder):
    folder.save("voice", 4, np.ones(3, dtype=np.float32))

    found = folder.summarise()

    assert "has 3 dimensions and no time axis, and 5 of 6" in found.problems[0]
    assert found.modalities[0].has_time


@pytest.mark.parametrize("duplicates", ["refuse", "allow"])
def test_a_recording_under_two_speakers_is_a_problem_unless_allowed(folder, duplicates):
    for modality in ("voice", "text"):
        shutil.copy(folder.path(modality, 0), folder.path(modality, 5))

    found = folder.summarise(duplicates=duplicates)

    sentences = found.problems if duplicates == "refuse" else found.warnings
    assert len(found.problems) + len(found.warnings) == 1
    assert sentences[0].startswith("Utterances 'u0' and 'u5' of speakers 'ann' and 'cid' hold")


def test_the_same_text_by_two_speakers_is_a_warning(folder):
    shutil.copy(folder.path("text", 0), folder.path("text", 5))

    found = folder.summarise()

    assert found.problems == ()
    assert found.warnings[0].startswith("Modality 'text': 2 utterances hold the same numbers")


def test_the_same_numbers_in_another_shape_are_not_the_same_recording(folder):
    folder.save("voice", 0, np.zeros((6, 3), dtype=np.float32))
    folder.save("voice", 2, np.zeros((9, 2), dtype=np.float32))
    folder.save("voice", 5, np.zeros((6, 3), dtype=np.float32))

    found = folder.summarise()

    assert any("Modality 'voice': 2 utterances" in warning for warning in found.warnings)


def test_progress_is_reported_file_by_file(folder):
    folder.cells["text", 0] = ""
    calls = []

    folder.summarise(progress=lambda done, total: calls.append((done, total)))

    assert calls == [(done, 11) for done in range(1, 12)]


def test_only_one_file_is_in_memory_at_a_time(folder, monkeypatch):
    alive = []

    def read(path):
        sequence = np.load(path)
        assert all(reference() is None for reference in alive)
        alive.append(weakref.ref(sequence))
        return sequence

    monkeypatch.setattr(summary, "read_sequence", read)
    folder.summarise()
    assert len(alive) == 12


A, B, C = b"a", b"b", b"c"


def find(rows, speakers="FFMM", n_frames=80, modalities=("audio", "text")):
    columns = zip(*rows, strict=True)
    return _find_duplicates(
        [f"u{i}" for i in range(len(rows))],
        speakers[: len(rows)],
        dict(zip(modalities, columns, strict=True)),
        [n_frames] * len(rows),
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
    assert find_recordings(manifest) == []


def test_one_recording_under_two_speakers_is_named(copy):
    manifest = read_manifest(copy / "dataset.csv")
    one, other = complete(manifest, "F01"), complete(manifest, "M03")
    duplicate(manifest, one, other, manifest.modalities)

    (sentence,) = find_recordings(manifest)

    assert manifest.utterances[one] in sentence
    assert manifest.utterances[other] in sentence
    assert "--duplicates allow" in sentence


def test_the_numbers_of_a_file_count_and_not_its_bytes(copy):
    manifest = read_manifest(copy / "dataset.csv")
    one, other = complete(manifest, "F01"), complete(manifest, "M03")
    for paths in manifest.paths.values():
        np.save(paths[other], np.load(paths[one]).astype(">f4"))

    assert len(find_recordings(manifest)) == 1


def test_the_same_text_spoken_by_two_people_is_none(copy):
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
