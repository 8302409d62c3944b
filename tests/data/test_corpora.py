import csv
import json
import re
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from toolkit.data import corpora
from toolkit.data.corpora import (
    CLASSES,
    CORPUS_VERSION,
    PLANTED,
    _draw_bells,
    _make_features,
    _random_stream,
    _Utterance,
    make_corpus,
)
from toolkit.data.manifest import read_manifest
from toolkit.data.sequences import read_header

SMALL = {"visual": 8, "audio": 9, "text": 10}
SPEAKERS = {f"{gender}0{session}" for session in range(1, 6) for gender in "FM"}
SMALL_COUNTS = {"angry": 328, "sad": 308, "happy": 180, "neutral": 520}
FULL_COUNTS = {"angry": 1103, "sad": 1084, "happy": 1636, "neutral": 1708}


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


def test_the_table_has_the_first_line_of_the_task_and_the_names_of_classes(table):
    assert table.read_bytes().split(b"\n")[0] == (
        b"file_name_list, speakers, visual_features, acoustic_features, lexical_features, "
        b"emotion_labels, label_name"
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
        n_frames, n_dims = audio.shape
        assert n_dims == SMALL["audio"]
        assert 20 <= n_frames <= 120
        assert text.shape == (SMALL["text"],)
        if row["visual_features"]:
            visual = read_header(table.parent / row["visual_features"][1:])
            assert visual.shape == (n_frames, SMALL["visual"])


def test_files_are_those_of_numpy(table, rows):
    path = table.parent / rows[0]["acoustic_features"][1:]
    again = BytesIO()
    np.save(again, np.load(path))

    assert path.read_bytes() == again.getvalue()


def test_the_manifest_reads_it(table, rows):
    manifest = read_manifest(table)

    assert manifest.generated
    assert manifest.classes == ("angry", "sad", "happy", "neutral")
    assert manifest.modalities == ("visual", "audio", "text")
    assert set(manifest.speakers) == SPEAKERS
    by_name = {row["file_name_list"]: row for row in rows}
    for name, label, path in zip(
        manifest.utterances, manifest.labels, manifest.paths["visual"], strict=True
    ):
        assert manifest.codes[label] == by_name[name]["emotion_labels"]
        assert manifest.classes[label] == by_name[name]["label_name"]
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

    assert CORPUS_VERSION == "3"
    assert digest(tmp_path / "demo") == (
        "d9a913cc694a4910ae2e63be68466f72b7ea2f2dc6bb794355e28306abf2e2da"
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
    angry = Counter(utterance.speaker for utterance in utterances if utterance.label == "angry")
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

    monkeypatch.setattr(corpora, "_write_marker", fail)
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


N_DIMS = 32
PEOPLE = [f"{gender}0{session}" for session in range(1, 6) for gender in "FM"]


def utterance(number, label="angry", speaker="F01", n_frames=80, dialogue="impro01"):
    session = f"Session{speaker[-1]}"
    return _Utterance(
        f"{dialogue}_{speaker}_{number}", speaker, session, dialogue, label, n_frames
    )


def between_classes(values, labels):
    """Variance between classes over variance within: about 1 / n where nothing differs."""
    groups = [values[labels == label] for label in range(len(CLASSES))]
    means = np.array([group.mean(axis=0) for group in groups])
    within = np.mean([group.var(axis=0) for group in groups], axis=0)
    return means.var(axis=0) / within


@pytest.fixture(scope="module")
def one_speaker():
    """300 utterances of one person: labels and features by modality."""
    labels = np.arange(300) % len(CLASSES)
    utterances = [utterance(i, CLASSES[label]) for i, label in enumerate(labels)]
    features = {
        modality: np.array([_make_features(3, modality, N_DIMS, each) for each in utterances])
        for modality in PLANTED
    }
    return labels, features


def test_a_bell_is_the_sum_of_four_random_bytes():
    raw = _random_stream(0, "bells").random_raw(3).astype("<u8").view(np.uint8).reshape(6, 4)
    sums = raw.sum(axis=1, dtype=np.int64)
    # A byte is uniform over 0..255: mean 127.5, variance (256^2 - 1) / 12.
    expected = (sums - 4 * 127.5) / np.sqrt(4 * (256**2 - 1) / 12)

    bells = _draw_bells(_random_stream(0, "bells"), (2, 3))

    assert bells.dtype == np.float32
    assert_allclose(bells.ravel(), expected, rtol=1e-6)


def test_bells_have_mean_0_and_deviation_1():
    bells = _draw_bells(_random_stream(0, "many"), (100_001,)).astype(np.float64)

    assert_allclose(bells.mean(), 0, atol=0.015)
    assert_allclose(bells.std(), 1, atol=0.01)
    assert_allclose(np.corrcoef(bells[1:], bells[:-1])[0, 1], 0, atol=0.015)


def test_streams_depend_on_the_seed_and_on_every_name():
    keys = [(0, "a", "b"), (1, "a", "b"), (0, "a", "c"), (0, "ab"), (0, "a"), (0, "b", "a")]

    starts = {int(_random_stream(*key).random_raw()) for key in keys}

    assert len(starts) == len(keys)
    assert int(_random_stream(0, "a", "b").random_raw()) in starts


def test_features_depend_on_the_utterance_alone():
    one, other = utterance(1), utterance(2)

    forwards = [_make_features(0, "audio", N_DIMS, each) for each in (one, other)]
    corpora._trait.cache_clear()
    backwards = [_make_features(0, "audio", N_DIMS, each) for each in (other, one)]

    assert_array_equal(forwards[0], backwards[1])
    assert_array_equal(forwards[1], backwards[0])
    assert not np.array_equal(forwards[0], forwards[1])


@pytest.mark.parametrize(
    ("modality", "shape"), [("text", (32,)), ("audio", (80, 32)), ("visual", (80, 32))]
)
def test_features_are_float32_of_the_shape_of_the_modality(modality, shape):
    features = _make_features(0, modality, N_DIMS, utterance(1))

    assert features.shape == shape
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


STATISTICS = {
    "value": lambda x: x,
    "distance": np.abs,
    # Neighbours of a pair are columns 2k and 2k + 1 of their block.
    "product": lambda x: x[:, ::2] * x[:, 1::2],
    "mean": lambda x: x.mean(axis=1),
    "std": lambda x: x.std(axis=1),
    "p95": lambda x: np.percentile(x, 95, axis=1),
    "slope": lambda x: np.tensordot(np.linspace(-1, 1, x.shape[1]), x, (0, 1)),
    "delta_mean_abs": lambda x: np.abs(np.diff(x, axis=1)).mean(axis=1),
    "mean_end": lambda x: x[:, 2 * x.shape[1] // 3 :].mean(axis=1),
}


#: A value alone shows the class to trees: they see both sides of a threshold, and pairs.
SHOWN_BY_TREES = {"threshold": "distance", "product": "product"}


@pytest.mark.parametrize(
    ("modality", "kind"),
    [(modality, block.kind) for modality, blocks in PLANTED.items() for block in blocks],
)
def test_the_class_shows_in_the_statistic_that_is_said_to_show_it(one_speaker, modality, kind):
    labels, features = one_speaker
    block = next(block for block in PLANTED[modality] if block.kind == kind)
    x = features[modality][..., block.dimensions(N_DIMS)]
    nothing = features[modality][..., -8:]

    statistic = STATISTICS[SHOWN_BY_TREES.get(kind, block.shown_by[0])]

    shown = between_classes(statistic(x), labels).mean()
    assert shown > 2 * between_classes(statistic(nothing), labels).mean()


@pytest.mark.parametrize(
    ("modality", "kind"),
    [("audio", kind) for kind in ("delta", "peaks", "end")]
    + [("visual", kind) for kind in ("spread", "slope")]
    + [("text", kind) for kind in ("threshold", "product")],
)
def test_the_mean_does_not_show_what_is_planted_elsewhere(one_speaker, modality, kind):
    labels, features = one_speaker
    block = next(block for block in PLANTED[modality] if block.kind == kind)
    x = features[modality][..., block.dimensions(N_DIMS)]

    # The mean of this quantity is 1 / 75 with 75 utterances a class and nothing to be seen.
    means = x if modality == "text" else x.mean(axis=1)
    assert between_classes(means, labels).mean() < 2 / 75


def planted_dims(kind, n_dims=N_DIMS):
    block = next(block for block in PLANTED["text"] if block.kind == kind)
    return block, range(n_dims)[block.dimensions(n_dims)]


def test_a_threshold_pushes_each_dimension_of_a_positive_cue_to_a_random_side():
    shown = np.array([1.7, -0.2, 0.01], dtype=np.float32)

    moved = [
        corpora._leave_middle(_random_stream(0, str(i)), shown, 10).tolist() for i in range(400)
    ]

    # Dimension i has cue i modulo 3; only the sign of a cue counts.
    pushed = np.arange(10) % 3 != 1
    assert_array_equal(np.abs(moved), np.tile(pushed, (400, 1)))
    assert_allclose(np.mean(moved, axis=0), 0, atol=0.2)  # four standard errors of 1 / 20


def test_the_product_of_two_neighbours_is_a_cue_and_each_alone_has_a_random_sign():
    shown = np.array([1.7, -0.2, 0.5], dtype=np.float32)

    moved = np.array(
        [corpora._multiply(_random_stream(0, str(i)), shown, 13) for i in range(400)]
    )

    assert_allclose(moved[:, 0:12:2] * moved[:, 1::2], np.tile(shown, (400, 2)), rtol=1e-6)
    assert_allclose(np.sign(moved).mean(axis=0), 0, atol=0.2)  # four standard errors of 1 / 20


@pytest.mark.parametrize("kind", ["threshold", "product"])
def test_a_class_moves_what_is_planted_for_trees_by_its_gain(kind, monkeypatch):
    block, dims = planted_dims(kind)
    one = utterance(1)

    def make(gain):
        monkeypatch.setattr(corpora, "PLANTED", {"text": [replace(block, gain=gain)]})
        return _make_features(0, "text", N_DIMS, one)

    none, small, large = map(make, (0.0, 1.0, 3.0))

    assert set(np.flatnonzero(small != none).tolist()) <= set(dims)
    assert (small != none)[dims].any()
    assert_allclose(large - none, 3 * (small - none), atol=1e-5)


@pytest.mark.parametrize("n_frames", [20, 21, 22, 300])
def test_the_shapes_over_time_leave_the_mean_alone(n_frames):
    stream = _random_stream(0, "rare")

    assert_allclose(corpora._last_third(n_frames).mean(), 0, atol=1e-6)
    assert_allclose(corpora._drift(n_frames).mean(), 0, atol=1e-6)
    rare = corpora._rare_frames(stream, n_frames, 50)
    assert_allclose(rare.mean(axis=0), 0, atol=1e-6)
    assert 0.05 < (rare > 0).mean() < 0.13


def test_a_person_is_recognised_by_the_features():
    utterances = [utterance(i, CLASSES[i % 4], speaker) for i in range(8) for speaker in PEOPLE]
    means = np.array([_make_features(0, "visual", 64, one).mean(axis=0) for one in utterances])
    known = means[:10]

    nearest = [np.argmin(((known - mean) ** 2).sum(axis=1)) for mean in means[10:]]

    assert np.mean(np.array(nearest) == np.tile(np.arange(10), 7)) > 0.95


@pytest.mark.parametrize(
    ("dialogue", "expected"), [("impro02", 0.2**2), ("impro01", 0.2**2 + 0.3**2)]
)
def test_partners_share_the_session_and_a_little_more_the_dialogue(dialogue, expected):
    def mean_of(speaker, dialogue):
        utterances = [
            utterance(i, "angry", speaker, 20, f"{speaker[1:]}{dialogue}") for i in range(8)
        ]
        features = [_make_features(0, "visual", 8000, one) for one in utterances]
        return np.mean(features, axis=(0, 1))[4000:]

    first, partner = mean_of("F01", "impro01"), mean_of("M01", dialogue)
    stranger = mean_of("M02", dialogue)

    # Covariances over dimensions in which no class is planted.
    assert_allclose(np.cov(first, partner)[0, 1], expected, atol=0.03)
    assert_allclose(np.cov(first, stranger)[0, 1], 0, atol=0.03)


def test_the_noise_is_as_large_whatever_its_inertia():
    inertia = np.linspace(-0.8, 0.8, 5, dtype=np.float32)

    noise = corpora._draw_noise(
        _random_stream(0, "noise"), 20_000, 5, [("delta", slice(0, 5), inertia)]
    )

    assert_allclose(noise.std(axis=0), 1, rtol=0.03)
    lag1 = [np.corrcoef(column[1:], column[:-1])[0, 1] for column in noise.T]
    # Noise a e_t + b e_(t-1) with a^2 + b^2 = 1 has autocorrelation a b.
    assert_allclose(lag1, inertia * np.sqrt(1 - inertia**2), atol=0.03)


def test_the_doubt_about_an_utterance_is_shared_by_all_modalities(monkeypatch):
    one = utterance(1)
    before = {modality: _make_features(0, modality, N_DIMS, one) for modality in PLANTED}
    monkeypatch.setattr(corpora, "_shared_doubt", lambda *_: np.float32([-50, 50, -50]))

    for modality, features in before.items():
        moved = (_make_features(0, modality, N_DIMS, one) != features).reshape(-1, N_DIMS)
        dims = set(np.flatnonzero(moved.any(axis=0)).tolist())
        blocks = [range(N_DIMS)[block.dimensions(N_DIMS)] for block in PLANTED[modality]]
        assert dims <= {dim for block in blocks for dim in block}
        assert all(dims & set(block) for block in blocks)


def test_the_shared_doubt_has_its_size_and_leaves_room_for_that_of_each_block():
    draws = np.array([corpora._shared_doubt(0, f"u{i}") for i in range(2000)])

    assert_allclose(draws.std(axis=0), corpora._SHARED_DOUBT, rtol=0.05)
    blocks = [block for blocks in PLANTED.values() for block in blocks]
    assert all(block.doubt > corpora._SHARED_DOUBT for block in blocks)


def test_blocks_of_a_modality_do_not_overlap_in_any_width():
    for blocks in PLANTED.values():
        for n_dims in (8, 25, 64, 768, 2048):
            taken = [set(range(n_dims)[block.dimensions(n_dims)]) for block in blocks]
            assert all(taken)
            assert sum(map(len, taken)) == len(set().union(*taken))
