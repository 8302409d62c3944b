"""Recordings: their columns and segments, their samples, and each kind of file that is none."""

import csv
import importlib.metadata
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from toolkit.data import ManifestError, read_manifest, summarise_manifest
from toolkit.data.audio import Sound, _split_clip
from toolkit.data.examination import FileFacts
from toolkit.data.headers import SequenceError
from toolkit.data.manifest import read_unlabelled

EXTRACT = {"audio": "egemaps"}
RATE = 16_000


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def write_corpus(tmp_path, sounds):
    """Write a table of six utterances, with one tone for all of them."""

    def write(header="audio", cells=("wav/a.wav",) * 6, **more):
        (tmp_path / "wav").mkdir(exist_ok=True)
        if not (tmp_path / "wav" / "a.wav").exists():
            soundfile.write(tmp_path / "wav" / "a.wav", sounds.make_tone(150, 0, 1), RATE)
        columns = {
            "utterance": [f"u{i}" for i in range(6)],
            "speaker": ["ann", "ann", "bob", "bob", "cat", "cat"],
            "label": ["0", "1"] * 3,
            header: cells,
        } | more
        path = tmp_path / "dataset.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
        return path

    return write


def read(path, **options):
    return read_manifest(path, **{"extract": EXTRACT} | options)


def clips(manifest, modality="audio"):
    return [_split_clip(path)[1:] for path in manifest.paths[modality]]


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("audio", {}),
        ("Recording", {}),  # the only column of recordings
        ("file", {}),
        ("Wave files", {"columns": {"audio": "Wave files"}}),
    ],
)
def test_the_column_of_recordings_is_named_or_the_only_one(write_corpus, header, options):
    manifest = read(write_corpus(header), **options)
    assert manifest.modalities == ("audio",)
    assert clips(manifest) == [("egemaps", 0, None)] * 6
    assert header not in manifest.ignored


def test_one_column_serves_two_extractors(write_corpus):
    manifest = read(write_corpus("wav"), extract=EXTRACT | {"cepstra": "mfcc"})
    assert manifest.modalities == ("audio", "cepstra")
    assert {clip[0] for clip in clips(manifest, "cepstra")} == {"mfcc"}


def test_names_of_recordings_may_be_the_ids(write_corpus, tmp_path, sounds):
    names = [f"wav/{i}.wav" for i in range(6)]
    (tmp_path / "wav").mkdir()
    for name in names:
        soundfile.write(tmp_path / name, sounds.make_tone(150, 0, 0.1), RATE)
    path = write_corpus("file", names)
    path.write_text("\n".join(row.split(",", 1)[1] for row in path.read_text().splitlines()))
    assert read(path).utterances.tolist() == names


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        ({"header": "text", "cells": ["words"] * 6}, "no columns could be those of recordings"),
        (
            {"header": "near", "far": ["wav/a.wav"] * 6},
            "several columns could be those of recordings",
        ),
        ({"cells": ["wav/a.wav"] * 5 + ["a.mp3"]}, "'a.mp3' does not end in .wav or .flac"),
        ({"cells": ["wav/a.wav"] * 5 + ["wav/b.wav"]}, "'wav/b.wav' does not exist"),
        ({"start": ["0"] * 5 + ["x"]}, "row 7, column 'start': 'x' is no time"),
        ({"start": ["-1"] * 6}, "'-1' is no time"),
        ({"start": ["0.5"] * 6, "end": ["0.5"] * 6}, "ends at 0.5 s and starts at 0.5 s"),
        ({"end": ["0"] * 6}, "ends at 0 s and starts at"),
    ],
)
def test_what_is_wrong_with_the_table_is_named(write_corpus, write, expected):
    with pytest.raises(ManifestError) as caught:
        read(write_corpus(**write))
    assert expected in str(caught.value)


def test_a_header_that_does_not_exist_is_named(write_corpus):
    with pytest.raises(ManifestError, match="'wavs' was chosen for modality 'audio'"):
        read(write_corpus(), columns={"audio": "wavs"})


def test_a_table_or_a_wrong_name_beside_is_refused(write_corpus, tmp_path):
    with pytest.raises(ManifestError, match="has --table and --extract"):
        read(write_corpus(), tables={"audio": tmp_path / "x.csv"})
    with pytest.raises(ManifestError, match="--extract early: this cannot name a modality"):
        read(write_corpus(), extract={"early": "mfcc"})


def test_without_the_option_the_reason_names_it(write_corpus):
    with pytest.raises(ManifestError, match="--extract audio=egemaps"):
        read(write_corpus(), extract={})


def test_paths_of_extracted_features_are_no_cells(write_corpus):
    # They would be features that no option and no identity mentions.
    with pytest.raises(ManifestError, match="No column lists feature files"):
        read(write_corpus(cells=["wav/a.wav#egemaps@2.6.0"] * 6), extract={})


def test_a_library_that_is_missing_is_named_with_its_command(write_corpus, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "opensmile" or None)
    with pytest.raises(ManifestError) as caught:
        read(write_corpus())
    expected = "needs opensmile, not installed: pip install opensmile soundfile"
    assert expected in str(caught.value)


def test_new_utterances_may_lack_recordings(write_corpus):
    cells = ["wav/a.wav"] + [""] * 5
    manifest = read_unlabelled(write_corpus(cells=cells), ["audio"], extract=EXTRACT)
    assert [path is None for path in manifest.paths["audio"]] == [False] + [True] * 5


def test_times_are_seconds_or_spans_of_pandas(write_corpus):
    starts = ["0", "0.25", "0 days 00:00:00.5", "", "NaT", "00:00:00.125"]
    ends = ["0.2", "", "0 days 00:00:00.625000", "0 days 00:00:01", "0.5", "NaT"]
    manifest = read(write_corpus(start=starts, end=ends))
    assert [clip[1:] for clip in clips(manifest)] == [
        (0, 0.2),
        (0.25, None),
        (0.5, 0.625),
        (0, 1),
        (0, 0.5),
        (0.125, None),
    ]
    assert not {"start", "end"} & {*manifest.ignored}
    day = read(write_corpus(start=["1 days 01:02:03.25"] * 6))
    assert clips(day)[0][1] == ((24 + 1) * 60 + 2) * 60 + 3.25


def test_a_segment_is_that_part_of_the_samples(write_corpus, tmp_path):
    manifest = read(write_corpus(start=["0.25"] * 6, end=["0.5"] * 6))
    whole = soundfile.read(tmp_path / "wav" / "a.wav", dtype="float32")[0]
    sound = Sound.read(manifest.paths["audio"][0])
    np.testing.assert_array_equal(sound.samples, whole[4000:8000])
    assert sound.seconds == 0.25


def test_only_the_segment_is_decoded(tmp_path, sounds, monkeypatch):
    soundfile.write(tmp_path / "long.flac", sounds.make_tone(150, 0, 3), RATE)
    counts = []
    read_part = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, n, **more: counts.append(n) or read_part(self, n, **more),
    )
    Sound.read(tmp_path / "long.flac#mfcc@2.6.0:1-1.5")
    assert counts == [RATE // 2]


def test_rounded_ends_are_allowed_and_others_refused(tmp_path, sounds):
    soundfile.write(tmp_path / "a.wav", sounds.make_tone(150, 0, 0.9999), RATE)
    path = f"{tmp_path / 'a.wav'}#mfcc@2.6.0"
    assert len(Sound.read(f"{path}:0.5-1").samples) == round(0.9999 * RATE) - RATE // 2
    with pytest.raises(SequenceError, match=r"takes 1.00 s, and .* ask for 0.5 s to 1.5 s"):
        Sound.read(f"{path}:0.5-1.5")
    with pytest.raises(SequenceError, match=r"ask for 1\.5 s to its end"):
        Sound.read(f"{path}:1.5-")


def test_channels_are_averaged_and_loud_samples_keep_their_sign(tmp_path):
    left, right = np.full(RATE, 0.5), np.full(RATE, -0.25)
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], axis=1), RATE)
    sound = Sound.read(tmp_path / "two.wav#mfcc@2.6.0")
    np.testing.assert_allclose(sound.samples, 0.125)
    assert sound.n_channels == 2
    soundfile.write(tmp_path / "loud.wav", np.full(RATE, 1.5), RATE, subtype="FLOAT")
    samples = Sound.read(tmp_path / "loud.wav#mfcc@2.6.0").samples
    assert ((samples * 32768).astype(np.int16) == 32767).all()


@pytest.mark.parametrize(("amplitude", "expected"), [(0.9, 0), (1, 0), (1.5, 100), (-1.5, 100)])
def test_clipping_is_three_samples_in_a_row_at_full_scale(tmp_path, amplitude, expected):
    # A loud tone of 50 periods whose crests touch full scale is not clipped.
    tone = amplitude * np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "a.wav", np.clip(tone, -1, 1), RATE)
    assert Sound.read(tmp_path / "a.wav#mfcc@2.6.0").n_clipped == expected


def damage(kind, path, sounds):
    """Write a file that is damaged in one way."""
    tone = sounds.make_tone(150, 0, 1)
    soundfile.write(path, tone, RATE)
    whole = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, tone[:0], RATE)
    elif kind == "too short":
        soundfile.write(path, tone[: RATE // 20], RATE)
    elif kind == "not finite":
        soundfile.write(path, np.where(tone > 0.2, np.nan, tone), RATE, subtype="FLOAT")
    elif kind == "rate":
        path.write_bytes(whole[:24] + struct.pack("<I", 50) + whole[28:])
    elif kind == "text":
        path.write_text("Not found" * 20)
    elif kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "1 GB claimed, wav":
        path.write_bytes(whole[:40] + struct.pack("<I", 10**9) + whole[44:])
    elif kind == "1 GB claimed, flac":
        # The last 32 bits of the number of samples, behind "fLaC" and 17 bytes of its block.
        path.write_bytes(whole[:22] + struct.pack(">I", 2 * 10**8) + whole[26:])


@pytest.mark.parametrize(
    ("ending", "kind", "expected"),
    [
        ("wav", "empty", "is empty (0 bytes)"),
        ("wav", "no samples", "holds no samples"),
        ("wav", "too short", "0.050 s of sound give no frame; at least 0.06 s are needed"),
        ("wav", "not finite", "has samples that are not finite"),
        ("wav", "rate", "has a sample rate of 50 Hz; expected 8,000 to 384,000"),
        ("wav", "text", "cannot be read as a recording (Error opening"),
        ("wav", "cut", "is cut short: its header announces 32000 bytes of samples"),
        ("flac", "cut", "cannot be read as a recording"),
        ("ogg", "cut", "is cut short. Copy or save it again."),
        ("wav", "1 GB claimed, wav", "its header announces 1000000000 bytes of samples"),
        ("flac", "1 GB claimed, flac", "would expand to 800,000,000"),
    ],
)
def test_a_bad_file_has_its_name_and_utterance_in_the_answer(
    write_corpus, tmp_path, sounds, *, ending, kind, expected
):
    (tmp_path / "wav").mkdir()
    damage(kind, tmp_path / "wav" / f"bad.{ending}", sounds)
    path = write_corpus(cells=["wav/a.wav"] * 5 + [f"wav/bad.{ending}"])
    summary = summarise_manifest(read(path), n_threads=2, duplicates="allow")
    assert len(summary.problems) == 1
    assert summary.problems[0].startswith("utterance 'u5', modality 'audio': ")
    assert str(tmp_path / "wav" / f"bad.{ending}") in summary.problems[0]
    assert expected in summary.problems[0]
    allowed = summarise_manifest(read(path), missing="allow", duplicates="allow")
    assert not allowed.problems
    assert allowed.present["audio"].tolist() == [True] * 5 + [False]


def test_fewer_samples_than_announced_are_no_recording(tmp_path, sounds, monkeypatch):
    soundfile.write(tmp_path / "a.wav", sounds.make_tone(150, 0, 1), RATE)
    read_part = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, n, **more: read_part(self, n - 1, **more)
    )
    with pytest.raises(SequenceError, match="is cut short"):
        Sound.read(tmp_path / "a.wav#mfcc@2.6.0")


def test_an_interrupt_waits_for_no_further_recording(write_corpus, monkeypatch):
    read_paths = []
    facts = FileFacts(Path("a.wav"))

    def read_slowly(path, *_, **__):
        read_paths.append(path)
        time.sleep(0.02)
        return facts

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FileFacts, "read", read_slowly)
    with pytest.raises(KeyboardInterrupt):
        summarise_manifest(read(write_corpus()), n_threads=2, progress=interrupt)
    assert len(read_paths) < 6


def test_the_index_of_audformat_cuts_segments(write_corpus):
    starts = [f"0 days 00:00:00.{k}00000" for k in range(6)]
    path = write_corpus("file", start=starts, end=["0 days 00:00:00.9"] * 6)
    path.write_text("\n".join(row.split(",", 1)[1] for row in path.read_text().splitlines()))
    manifest = read(path, columns={"utterance": "file+start"})
    assert clips(manifest) == [("egemaps", k / 10, 0.9) for k in range(6)]
    assert manifest.utterances[0] == "wav/a.wav_0 days 00:00:00.000000"


def test_new_utterances_need_a_column_of_recordings(write_corpus):
    with pytest.raises(ManifestError, match="no columns could be those of recordings"):
        read_unlabelled(write_corpus("text", ["words"] * 6), ["audio"], extract=EXTRACT)


def test_check_describes_recordings_and_counts_what_is_odd(tmp_path, write_corpus, sounds):
    (tmp_path / "wav").mkdir()
    tone = sounds.make_tone(150, 0, 1)
    soundfile.write(tmp_path / "wav" / "two.wav", np.stack([tone, tone], axis=1), RATE)
    soundfile.write(tmp_path / "wav" / "clipped.wav", np.clip(9 * tone, -1, 1), RATE)
    low = sounds.make_tone(150, 0, 1, rate=8000)
    soundfile.write(tmp_path / "wav" / "low.wav", low, 8000)
    names = ("two", "clipped", "low", "a", "a", "a")
    path = write_corpus(cells=[f"wav/{name}.wav" for name in names])
    summary = summarise_manifest(read(path), duplicates="allow")
    first, *others = summary.notes["audio"]
    assert "6 segments of 4 recordings, 0.1 minutes, 8,000 Hz (1) and 16,000 Hz (5)" in first
    assert "1 channel (5) and 2 channels (1); features by egemaps of openSMILE" in first
    assert "several sample rates" in others[0]
    assert "1 of 6 have several channels, whose mean was used" in others[1]
    assert "1 of 6 are clipped" in others[2]


def test_features_of_another_version_have_another_path(write_corpus, monkeypatch):
    before = read(write_corpus()).paths["audio"][0]
    version = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"{version(name)}.1")
    after = read(write_corpus()).paths["audio"][0]
    assert before.name == f"a.wav#egemaps@{version('opensmile')}"
    assert after.name == f"{before.name}.1"
