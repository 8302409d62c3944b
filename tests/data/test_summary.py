import shutil
import weakref

import numpy as np
import pytest

from toolkit.data import examination, read_manifest, summarise_manifest

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
    assert "not finite: 2 of 11; the first is frame 4 (dimension " in found.problems[0]
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
    folder.save("voice", 1, np.full((11, 3), np.nan, dtype=np.float32))

    problems = folder.summarise(frames=frames, missing=missing).problems

    assert len(problems) == (missing == "refuse")
    assert all("no frame is left" in problem for problem in problems)


@pytest.mark.parametrize(
    ("options", "n_problems"),
    [
        ({}, 1),
        ({"missing": "allow"}, 0),
        ({"frames": "drop"}, 0),
        ({"frames": "interpolate"}, 0),
    ],
)
def test_a_dimension_without_a_finite_frame_costs_itself_alone(folder, options, n_problems):
    spoil_frames(folder, slice(None))

    found = folder.summarise(**options)

    assert len(found.problems) == n_problems
    assert all("dimension 1 is not finite in any frame" in text for text in found.problems)
    assert found.present["voice"].all()
    if not n_problems:
        assert found.warnings[-1] == (
            "Modality 'voice', no finite value, so that its features are missing: dimension 1 "
            "in 1 files."
        )


def test_repairs_are_counted_per_dimension(folder):
    for number, frame in ((0, [2, 3]), (4, [5])):
        sequence = np.load(folder.path("voice", number))
        sequence[frame, 2] = np.inf
        sequence[1, 0] = np.nan
        folder.save("voice", number, sequence)

    assert folder.summarise(frames="interpolate").warnings[-1] == (
        "Modality 'voice', values interpolated: 3 of dimension 2 in 2 files, 2 of dimension 0 "
        "in 2 files."
    )
    assert "dropped with their frames: " in folder.summarise(frames="drop").warnings[-1]


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

    monkeypatch.setattr(examination, "read_sequence", read)
    folder.summarise()
    assert len(alive) == 12


def test_padding_is_counted_from_two_frames_at_either_end(folder):
    for number, before, after in ((0, 4, 0), (3, 0, 2), (4, 1, 1)):
        frames = np.load(folder.path("voice", number))
        zeros = np.zeros((9, 3), dtype=np.float32)
        folder.save("voice", number, np.vstack([zeros[:before], frames, zeros[:after]]))

    (note,) = folder.summarise().warnings

    assert note.startswith("Modality 'voice': 2 of 6 files begin or end with several frames of")
    assert "padding" in note


def test_one_padded_file_is_no_news(folder):
    frames = np.load(folder.path("voice", 0))
    folder.save("voice", 0, np.vstack([np.zeros((9, 3), dtype=np.float32), frames]))

    assert folder.summarise().warnings == ()


@pytest.mark.parametrize(
    ("turn", "remedy"),
    [
        (lambda frames: frames.T, "np.load(path).T)"),
        (lambda frames: frames.T[None], "np.load(path)[0].T)"),
        (lambda frames: frames[None], "np.load(path)[0])"),
    ],
)
def test_time_on_another_axis_is_one_problem_with_the_line_that_turns_it(folder, turn, remedy):
    for number in range(6):
        folder.save("voice", number, turn(np.load(folder.path("voice", number))))

    (problem,) = folder.summarise().problems

    assert problem.startswith("Modality 'voice': one axis has 3 entries in all files and the")
    assert "10 to 15" in problem
    assert f"np.save(path, {remedy}" in problem


def test_a_modality_of_one_shape_with_few_frames_is_doubted(folder):
    for number in range(6):
        rng = np.random.default_rng(number)
        folder.save("voice", number, rng.normal(size=(3, 40)).astype(np.float32))

    (note,) = folder.summarise().warnings

    assert "every file has 3 frames of 40 dimensions. If the second axis is time" in note


def test_numbers_beyond_float32_are_a_problem_wherever_a_statistic_would_be(folder):
    for number, value in ((1, 1e300), (2, -3e38)):
        frames = np.load(folder.path("voice", number)).astype(np.float64)
        frames[1, 1] = value
        folder.save("voice", number, frames)

    problems = folder.summarise().problems

    assert len(problems) == 2
    assert "1e+300 is too large" in problems[0]
    assert "-3e+38 is too large" in problems[1]


def test_one_fault_of_many_files_is_one_problem_with_their_number(folder):
    for number in range(5):
        folder.path("voice", number).write_bytes(b"\x93NUX" + bytes(number))

    (problem,) = [text for text in folder.summarise().problems if "voice" in text]

    assert problem.startswith(
        "modality 'voice': 5 files have one fault, as in utterance 'u0': "
    )
    assert "'u1', 'u2', 'u3', 'u4'" in problem


def test_a_modality_without_a_usable_file_is_a_problem_even_where_files_may_be_missing(folder):
    for number in range(6):
        folder.save("voice", number, np.full((9, 3), np.nan, dtype=np.float32))

    (problem,) = folder.summarise(missing="allow").problems

    assert "has no file that can be used" in problem
