import pytest

from toolkit.data.summary import find_duplicates

A, B, C = b"a", b"b", b"c"


def find(rows, speakers="FFMM", n_frames=80, modalities=("audio", "text")):
    columns = zip(*rows, strict=True)
    return find_duplicates(
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
    recordings, coincidences = find([(A, B), (B, C), (A, B), (C, A)])

    assert len(recordings) == 1
    assert recordings[0].startswith("Utterances 'u0' and 'u2' of speakers 'F' and 'M' hold")
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


def test_a_word_said_twice_by_one_speaker_is_no_news():
    assert find([(A,), (A,), (B,)], n_frames=0, modalities=("text",)) == ([], [])


def test_many_are_counted_after_three():
    recordings, _ = find([(A, A)] * 5, speakers="FMFMF")

    assert "Utterances 'u0', 'u1', 'u2' and 2 more of speakers 'F' and 'M'" in recordings[0]
