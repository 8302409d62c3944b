import csv
import json
import re
from collections import Counter
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest

from toolkit.data import corpora
from toolkit.data.corpora import CORPUS_VERSION, make_corpus
from toolkit.data.manifest import read_manifest
from toolkit.data.planted import CLASSES, PLANTED
from toolkit.data.sequences import read_header

SMALL = {"visual": 8, "audio": 9, "text": 10}
SPEAKERS = {f"{gender}0{session}" for session in range(1, 6) for gender in "FM"}
SMALL_COUNTS = {"anger": 328, "sadness": 308, "happiness": 180, "neutral": 520}
FULL_COUNTS = {"anger": 1103, "sadness": 1084, "happiness": 1636, "neutral": 1708}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpora") / "demo", n_utterances=60, dims=SMALL)


@pytest.fixture(scope="module")
def rows(table):
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, skipinitialspace=True))


def digest(folder):
    content = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return content.hexdigest()


def test_the_table_has_the_first_line_of_the_task(table):
    assert table.read_bytes().split(b"\n")[0] == (
        b"file_name_list, speakers, visual_features, acoustic_features, lexical_features, "
        b"emotion_labels"
    )


def test_nothing_else_is_written(table):
    assert sorted(path.name for path in table.parent.iterdir()) == [
        "dataset.csv",
        "features",
        "generated.json",
    ]
    assert [path.name for path in table.parent.parent.iterdir()] == ["demo"]


def test_ids_speakers_and_paths_are_those_of_the_task(rows):
    for row in rows:
        name = row["file_name_list"]
        match = re.fullmatch(
            r"Ses0([1-5])[FM]_(impro0[1-8]|script0[1-3]_[12])_([FM])(\d{3})", name
        )
        assert match is not None
        session, _, gender, _ = match.groups()
        assert row["speakers"] == f"{gender}0{session}"
        for column in ("visual_features", "acoustic_features", "lexical_features"):
            path = f"/features/{column}/Session{session}/{name}.npy"
            assert row[column] == path or (column == "visual_features" and not row[column])
    assert len({row["file_name_list"] for row in rows}) == len(rows) == 60


def test_every_file_that_is_named_is_there_and_no_other(table, rows):
    named = {
        row[column].lstrip("/")
        for row in rows
        for column in ("visual_features", "acoustic_features", "lexical_features")
    }
    there = {
        path.relative_to(table.parent).as_posix()
        for path in (table.parent / "features").rglob("*.npy")
    }

    assert named - {""} == there


def test_files_have_the_shapes_of_the_task(table, rows):
    for row in rows:
        audio = read_header(table.parent / row["acoustic_features"][1:])
        text = read_header(table.parent / row["lexical_features"][1:])
        assert audio.n_dims == SMALL["audio"]
        assert 20 <= audio.n_frames <= 120
        assert text.shape == (SMALL["text"],)
        if row["visual_features"]:
            visual = read_header(table.parent / row["visual_features"][1:])
            assert visual.shape == (audio.n_frames, SMALL["visual"])


def test_files_are_those_of_numpy(table, rows):
    path = table.parent / rows[0]["acoustic_features"][1:]
    again = BytesIO()
    np.save(again, np.load(path))

    assert path.read_bytes() == again.getvalue()


def test_the_manifest_reads_it(table, rows):
    manifest = read_manifest(table)

    assert manifest.generated
    assert manifest.modalities == ("visual", "audio", "text")
    assert set(manifest.speakers) == SPEAKERS
    by_name = {row["file_name_list"]: row for row in rows}
    for name, label, path in zip(
        manifest.utterances, manifest.labels, manifest.paths["visual"], strict=True
    ):
        assert manifest.codes[label] == by_name[name]["emotion_labels"]
        assert (path is None) == (by_name[name]["visual_features"] == "")


def test_the_marker_names_classes_and_what_is_planted(table):
    marker = json.loads((table.parent / "generated.json").read_text(encoding="utf-8"))

    assert marker["classes"] == dict(zip("0123", CLASSES, strict=True))
    assert (marker["version"], marker["seed"], marker["n_utterances"]) == (
        CORPUS_VERSION,
        0,
        60,
    )
    assert {name: len(blocks) for name, blocks in marker["planted"].items()} == {
        name: len(blocks) for name, blocks in PLANTED.items()
    }
    assert marker["planted"]["audio"][0]["dimensions"] == [0, 2]  # a quarter of nine
    assert marker["planted"]["text"][0]["shown_by"] == ["value"]


def test_the_bytes_are_those_of_this_version(tmp_path):
    # On every platform, under every numpy: where this fails, CORPUS_VERSION must change too.
    make_corpus(tmp_path / "demo", n_utterances=40, dims=SMALL, seed=7)

    assert CORPUS_VERSION == "2"
    assert digest(tmp_path / "demo") == (
        "c0cb502c39f2dcb2181879521dc098508d2e1bf17394c2166a40c9cb69910e26"
    )


def test_the_seed_changes_features_and_nothing_of_the_proportions(tmp_path):
    tables = [
        make_corpus(tmp_path / name, n_utterances=40, dims=SMALL, seed=seed)
        for name, seed in [("a", 1), ("b", 2)]
    ]
    first, second = map(read_manifest, tables)

    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    assert Counter(first.speakers.tolist()) == Counter(second.speakers.tolist())
    assert Counter(first.labels.tolist()) == Counter(second.labels.tolist())


@pytest.mark.parametrize(("full", "expected"), [(False, SMALL_COUNTS), (True, FULL_COUNTS)])
def test_the_classes_are_as_many_as_in_the_task(full, expected):
    utterances = corpora._compose(full, None, 0)

    assert Counter(utterance.label for utterance in utterances) == expected
    assert len({utterance.name for utterance in utterances}) == sum(expected.values())


def test_speakers_differ_in_size_and_in_mood():
    utterances = corpora._compose(False, None, 0)
    sizes = Counter(utterance.speaker for utterance in utterances)
    angry = Counter(utterance.speaker for utterance in utterances if utterance.label == "anger")
    shares = [angry[speaker] / sizes[speaker] for speaker in sorted(SPEAKERS)]

    assert set(sizes) == SPEAKERS
    assert max(sizes.values()) > 1.5 * min(sizes.values())
    assert max(shares) > 1.2 * min(shares)


def test_dialogues_have_both_partners_and_a_mood():
    utterances = corpora._compose(False, None, 0)
    partners: dict[str, set[str]] = {}
    moods: dict[str, Counter[str]] = {}
    for utterance in utterances:
        partners.setdefault(utterance.dialogue, set()).add(utterance.speaker)
        moods.setdefault(utterance.dialogue, Counter())[utterance.label] += 1

    assert all(len(speakers) == 2 for speakers in partners.values())
    expected = {label: n / 1336 for label, n in SMALL_COUNTS.items()}
    raised = [
        max(mood[label] / mood.total() / expected[label] for label in CLASSES)
        for mood in moods.values()
    ]
    assert np.mean(raised) > 1.5


@pytest.mark.parametrize("n_utterances", [40, 41, 60, 67, 99, 150, 1336, 3001])
def test_every_speaker_and_every_class_is_in_a_corpus_of_any_size(n_utterances):
    utterances = corpora._compose(False, n_utterances, 0)

    assert len(utterances) == n_utterances
    assert {utterance.speaker for utterance in utterances} == SPEAKERS
    assert {utterance.label for utterance in utterances} == set(CLASSES)
    assert len({utterance.name for utterance in utterances}) == n_utterances


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, (1, 1), [5, 5]),
        (11, (1, 1), [6, 5]),
        (2, (1, 1000), [1, 1]),
        (1, (1, 3), [0, 1]),
        (10, (1, 2, 4), [2, 3, 5]),
    ],
)
def test_shares_follow_the_largest_remainders_after_one_each(total, weights, expected):
    assert corpora._apportion(total, weights) == expected


@pytest.mark.parametrize(
    ("full", "expected"),
    [(False, (60e6, 100e6)), (True, (6.3e9, 7.5e9))],
    ids=["small", "full"],
)
def test_the_corpus_is_as_large_as_it_is_said_to_be(full, expected):
    n_frames = np.array([utterance.n_frames for utterance in corpora._compose(full, None, 0)])
    dims = corpora._DIMS[full]
    values = n_frames.sum() * (0.97 * dims["visual"] + dims["audio"])

    assert expected[0] < 4 * (values + len(n_frames) * dims["text"]) < expected[1]
    assert n_frames.min() == 20
    assert n_frames.max() == (300 if full else 120)


@pytest.mark.parametrize(("n_utterances", "expected"), [(40, 1), (100, 3), (150, 4)])
def test_three_percent_have_no_visual_file(tmp_path, n_utterances, expected):
    table = make_corpus(tmp_path / "demo", n_utterances=n_utterances, dims=SMALL)

    assert read_manifest(table).paths["visual"].count(None) == expected


def test_progress_is_told(tmp_path):
    calls = []

    make_corpus(
        tmp_path / "demo",
        n_utterances=40,
        dims=SMALL,
        progress=lambda done, total: calls.append((done, total)),
    )

    assert calls == [(done, 40) for done in range(1, 41)]


def test_a_folder_with_anything_in_it_is_refused_before_the_work(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="exists already, and nothing is overwritten"):
        make_corpus(
            tmp_path, n_utterances=40, dims=SMALL, progress=lambda *_: pytest.fail("worked")
        )
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "demo").write_text("mine")

    with pytest.raises(FileExistsError, match="exists already"):
        make_corpus(tmp_path / "demo", n_utterances=40, dims=SMALL)


def test_an_empty_folder_is_filled_and_stays_itself(tmp_path, monkeypatch):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    number = folder.stat().st_ino

    make_corpus(".", n_utterances=40, dims=SMALL)

    assert folder.stat().st_ino == number
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset.csv",
        "features",
        "generated.json",
    ]
    assert list(tmp_path.iterdir()) == [folder]


def test_missing_parents_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert make_corpus("new/deep/demo", n_utterances=40, dims=SMALL).is_file()


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_corpus_that_cannot_be_completed_leaves_nothing(tmp_path, monkeypatch, stop):
    def fail(*_args):
        raise stop

    monkeypatch.setattr(corpora, "_write_table", fail)
    with pytest.raises(type(stop), match="No space left" if stop.args else None):
        make_corpus(tmp_path / "demo", n_utterances=40, dims=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_filled_meanwhile_is_left_alone(tmp_path):
    folder = tmp_path / "demo"

    def other(*_progress):
        folder.mkdir(exist_ok=True)
        (folder / "dataset.csv").write_text("of another process")

    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        make_corpus(folder, n_utterances=40, dims=SMALL, progress=other)
    assert (folder / "dataset.csv").read_text() == "of another process"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_utterances": 39}, "n_utterances is 39; expected at least 40"),
        ({"dims": {"lexical": 8}}, r"Unknown modalities \['lexical'\] in dims; choose among"),
        ({"dims": {"audio": 7}}, "'audio' got 7 dimensions; expected at least 8"),
    ],
)
def test_a_corpus_too_small_to_hold_the_truth_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_corpus(tmp_path / "demo", **options)
    assert list(tmp_path.iterdir()) == []
