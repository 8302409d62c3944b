import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from toolkit.data import planted
from toolkit.data.planted import (
    CLASSES,
    PLANTED,
    Utterance,
    _draw_bells,
    make_features,
    random_stream,
)

N_DIMS = 32
SPEAKERS = [f"{gender}0{session}" for session in range(1, 6) for gender in "FM"]


def utterance(number, label="anger", speaker="F01", n_frames=80, dialogue="impro01"):
    session = f"Session{speaker[-1]}"
    return Utterance(
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
        modality: np.array([make_features(3, modality, N_DIMS, each) for each in utterances])
        for modality in PLANTED
    }
    return labels, features


def test_a_bell_is_the_sum_of_four_random_bytes():
    raw = random_stream(0, "bells").random_raw(3).astype("<u8").view(np.uint8).reshape(6, 4)
    sums = raw.sum(axis=1, dtype=np.int64)
    # A byte is uniform over 0..255: mean 127.5, variance (256^2 - 1) / 12.
    expected = (sums - 4 * 127.5) / np.sqrt(4 * (256**2 - 1) / 12)

    bells = _draw_bells(random_stream(0, "bells"), (2, 3))

    assert bells.dtype == np.float32
    assert_allclose(bells.ravel(), expected, rtol=1e-6)


def test_bells_have_mean_0_and_deviation_1():
    bells = _draw_bells(random_stream(0, "many"), (100_001,)).astype(np.float64)

    assert_allclose(bells.mean(), 0, atol=0.015)
    assert_allclose(bells.std(), 1, atol=0.01)
    assert_allclose(np.corrcoef(bells[1:], bells[:-1])[0, 1], 0, atol=0.015)


def test_streams_depend_on_the_seed_and_on_every_name():
    keys = [(0, "a", "b"), (1, "a", "b"), (0, "a", "c"), (0, "ab"), (0, "a"), (0, "b", "a")]

    starts = {int(random_stream(*key).random_raw()) for key in keys}

    assert len(starts) == len(keys)
    assert int(random_stream(0, "a", "b").random_raw()) in starts


def test_features_depend_on_the_utterance_alone():
    one, other = utterance(1), utterance(2)

    forwards = [make_features(0, "audio", N_DIMS, each) for each in (one, other)]
    planted._trait.cache_clear()
    backwards = [make_features(0, "audio", N_DIMS, each) for each in (other, one)]

    assert_array_equal(forwards[0], backwards[1])
    assert_array_equal(forwards[1], backwards[0])
    assert not np.array_equal(forwards[0], forwards[1])


@pytest.mark.parametrize(
    ("modality", "shape"), [("text", (32,)), ("audio", (80, 32)), ("visual", (80, 32))]
)
def test_features_are_float32_of_the_shape_of_the_modality(modality, shape):
    features = make_features(0, modality, N_DIMS, utterance(1))

    assert features.shape == shape
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


STATISTICS = {
    "value": lambda x: x,
    "mean": lambda x: x.mean(axis=1),
    "std": lambda x: x.std(axis=1),
    "p95": lambda x: np.percentile(x, 95, axis=1),
    "slope": lambda x: np.tensordot(np.linspace(-1, 1, x.shape[1]), x, (0, 1)),
    "delta_mean_abs": lambda x: np.abs(np.diff(x, axis=1)).mean(axis=1),
    "mean_end": lambda x: x[:, 2 * x.shape[1] // 3 :].mean(axis=1),
}


@pytest.mark.parametrize(
    ("modality", "kind"),
    [(modality, block.kind) for modality, blocks in PLANTED.items() for block in blocks],
)
def test_the_class_shows_in_the_statistic_that_is_said_to_show_it(one_speaker, modality, kind):
    labels, features = one_speaker
    block = next(block for block in PLANTED[modality] if block.kind == kind)
    x = features[modality][..., block.dimensions(N_DIMS)]
    nothing = features[modality][..., -8:]

    statistic = STATISTICS[block.shown_by[0]]

    shown = between_classes(statistic(x), labels).mean()
    assert shown > 2 * between_classes(statistic(nothing), labels).mean()


@pytest.mark.parametrize(
    ("modality", "kind"),
    [("audio", kind) for kind in ("delta", "peaks", "end")]
    + [("visual", kind) for kind in ("spread", "slope")],
)
def test_the_mean_does_not_show_what_is_planted_elsewhere(one_speaker, modality, kind):
    labels, features = one_speaker
    block = next(block for block in PLANTED[modality] if block.kind == kind)
    x = features[modality][..., block.dimensions(N_DIMS)]

    # The mean of this quantity is 1 / 75 with 75 utterances a class and nothing to be seen.
    assert between_classes(x.mean(axis=1), labels).mean() < 2 / 75


@pytest.mark.parametrize("n_frames", [20, 21, 22, 300])
def test_the_shapes_over_time_leave_the_mean_alone(n_frames):
    stream = random_stream(0, "rare")

    assert_allclose(planted._last_third(n_frames).mean(), 0, atol=1e-6)
    assert_allclose(planted._drift(n_frames).mean(), 0, atol=1e-6)
    rare = planted._rare_frames(stream, n_frames, 50)
    assert_allclose(rare.mean(axis=0), 0, atol=1e-6)
    assert 0.05 < (rare > 0).mean() < 0.13


def test_a_person_is_recognised_by_the_features():
    utterances = [
        utterance(i, CLASSES[i % 4], speaker) for i in range(8) for speaker in SPEAKERS
    ]
    means = np.array([make_features(0, "visual", 64, one).mean(axis=0) for one in utterances])
    known = means[:10]

    nearest = [np.argmin(((known - mean) ** 2).sum(axis=1)) for mean in means[10:]]

    assert np.mean(np.array(nearest) == np.tile(np.arange(10), 7)) > 0.95


@pytest.mark.parametrize(
    ("dialogue", "expected"), [("impro02", 0.2**2), ("impro01", 0.2**2 + 0.3**2)]
)
def test_partners_share_the_session_and_a_little_more_the_dialogue(dialogue, expected):
    def mean_of(speaker, dialogue):
        utterances = [
            utterance(i, "anger", speaker, 20, f"{speaker[1:]}{dialogue}") for i in range(8)
        ]
        features = [make_features(0, "visual", 8000, one) for one in utterances]
        return np.mean(features, axis=(0, 1))[4000:]

    first, partner = mean_of("F01", "impro01"), mean_of("M01", dialogue)
    stranger = mean_of("M02", dialogue)

    # Covariances over dimensions in which no class is planted.
    assert_allclose(np.cov(first, partner)[0, 1], expected, atol=0.03)
    assert_allclose(np.cov(first, stranger)[0, 1], 0, atol=0.03)


def test_the_noise_is_as_large_whatever_its_inertia():
    inertia = np.linspace(-0.8, 0.8, 5, dtype=np.float32)

    noise = planted._draw_noise(
        random_stream(0, "noise"), 20_000, 5, [("delta", slice(0, 5), inertia)]
    )

    assert_allclose(noise.std(axis=0), 1, rtol=0.03)
    lag1 = [np.corrcoef(column[1:], column[:-1])[0, 1] for column in noise.T]
    # Noise a e_t + b e_(t-1) with a^2 + b^2 = 1 has autocorrelation a b.
    assert_allclose(lag1, inertia * np.sqrt(1 - inertia**2), atol=0.03)


def test_the_doubt_about_an_utterance_is_shared_by_all_modalities(monkeypatch):
    one = utterance(1)
    before = {modality: make_features(0, modality, N_DIMS, one) for modality in PLANTED}
    monkeypatch.setattr(planted, "_shared_doubt", lambda *_: np.float32([0.5, -0.5, 0.5]))

    for modality, features in before.items():
        moved = (make_features(0, modality, N_DIMS, one) != features).reshape(-1, N_DIMS)
        dims = set(np.flatnonzero(moved.any(axis=0)).tolist())
        blocks = [range(N_DIMS)[block.dimensions(N_DIMS)] for block in PLANTED[modality]]
        assert dims <= {dim for block in blocks for dim in block}
        assert all(dims & set(block) for block in blocks)


def test_the_shared_doubt_has_its_size_and_leaves_room_for_that_of_each_block():
    draws = np.array([planted._shared_doubt(0, f"u{i}") for i in range(2000)])

    assert_allclose(draws.std(axis=0), planted._SHARED_DOUBT, rtol=0.05)
    blocks = [block for blocks in PLANTED.values() for block in blocks]
    assert all(block.doubt > planted._SHARED_DOUBT for block in blocks)


def test_blocks_of_a_modality_do_not_overlap_in_any_width():
    for blocks in PLANTED.values():
        for n_dims in (8, 25, 64, 768, 2048):
            taken = [set(range(n_dims)[block.dimensions(n_dims)]) for block in blocks]
            assert all(taken)
            assert sum(map(len, taken)) == len(set().union(*taken))
