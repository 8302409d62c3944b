"""What a leaking split adds: found where it is planted, and not where it is not."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.models import Features
from toolkit.validation import LeakageError
from toolkit.validation.folds import Fold
from toolkit.validation.leakage import (
    _compute_premium,
    _fixed_params,
    _gather_split,
    _premium_pairs,
    _PremiumSplit,
    _training_sets,
    describe_gaps,
    predict_rest,
)

N_DIMS = 12


def make_features(values, present=None):
    present = np.ones(len(values), dtype=bool) if present is None else present
    return Features(
        values=values.astype(np.float32),
        names=tuple(f"text__value__{i:04d}" for i in range(values.shape[1])),
        present=present,
        presets={"rich": np.arange(values.shape[1])},
    )


def predict(manifest, values, *, n_seeds=1, quantities=3):
    """Predictions of the pairs, as the command computes them."""
    features = make_features(values)
    gathered = {}
    for seed in range(n_seeds):
        pairs = _premium_pairs(manifest, seed=seed)[:quantities]
        probas = {
            rows.tobytes(): predict_rest(manifest, features, rows, seed=seed)
            for rows in _training_sets(pairs)
        }
        for pair in pairs:
            gathered.setdefault(pair.quantity, []).append(
                (
                    _gather_split(manifest, features, pair.lenient, probas),
                    _gather_split(manifest, features, pair.strict, probas),
                )
            )
    return gathered


def compute(predictions, metric="f1_micro"):
    """All scores, and the pooled scores and premiums by name."""
    scores = _compute_premium(predictions, modality="text", metric=metric)
    pooled = [score for score in scores if not score.group]
    return scores, {
        score.split if score.quantity == "score" else score.quantity: score for score in pooled
    }


def measure(manifest, values):
    return compute(predict(manifest, values))[1]


def plant(manifest, *, groups=None):
    """Noise that shows the class itself or, with groups, which group's class it is.

    A class of a group is shown by numbers of that group's own: to have learnt from the
    group helps, to have learnt from others does not.
    """
    draw = np.random.default_rng(3)
    values = draw.normal(size=(len(manifest), N_DIMS))
    shown = manifest.labels if groups is None else hash_pairs(manifest.labels, groups)
    levels = np.random.default_rng(4).normal(size=(shown.max() + 1, N_DIMS))
    return values + 1.5 * levels[shown]


def hash_pairs(labels, groups):
    return np.unique(groups, return_inverse=True)[1] * (labels.max() + 1) + labels


def test_a_planted_speaker_gives_the_random_split_a_premium(manifest):
    pooled = measure(manifest, plant(manifest, groups=manifest.speakers))

    assert pooled["speaker premium"].low > 0.1
    assert pooled["speaker premium"].p_adjusted <= 0.05
    assert pooled["session premium"].low > 0.1
    # The partner shows the class in another way: to know the partner is worth nothing.
    assert abs(pooled["partner premium"].value) < 0.1


def test_a_planted_session_gives_the_partner_a_premium(manifest):
    pooled = measure(manifest, plant(manifest, groups=manifest.sessions))

    assert pooled["partner premium"].low > 0.1
    assert pooled["partner premium"].p_adjusted <= 0.05
    assert pooled["session premium"].low > 0.1
    # Whoever holds out speakers alone is paid too: the partner stays in training.
    assert pooled["speaker"].value > pooled["session"].value + 0.1


def test_without_a_planted_group_no_premium_is_shown(manifest):
    pooled = measure(manifest, plant(manifest))

    assert pooled["speaker"].value > 0.6  # there is something to lose
    for quantity in ("speaker premium", "session premium", "partner premium"):
        assert abs(pooled[quantity].value) < 0.06
        assert pooled[quantity].p_adjusted > 0.05


def test_a_premium_is_the_difference_of_its_scores(manifest):
    predictions = predict(
        manifest, plant(manifest, groups=manifest.speakers), n_seeds=2, quantities=1
    )

    for metric, sign in (("f1_micro", 1), ("log_loss", -1)):
        scores, pooled = compute(predictions, metric)
        premium = pooled["speaker premium"]
        expected = sign * (pooled["random-10 (leaking)"].value - pooled["speaker"].value)
        assert premium.value == pytest.approx(expected)
        assert premium.value > 0
        value = {
            (s.split, s.group): s.value for s in scores if s.quantity == "score" and s.group
        }
        for speaker in np.unique(manifest.speakers).tolist():
            (own,) = (
                s.value for s in scores if (s.quantity, s.group) == ("speaker premium", speaker)
            )
            leaking, honest = value["random-10 (leaking)", speaker], value["speaker", speaker]
            assert own == pytest.approx(sign * (leaking - honest))


def test_the_interval_is_a_jackknife_of_the_mean_over_seeds(manifest):
    values = plant(manifest, groups=manifest.speakers)
    predictions = predict(manifest, values, n_seeds=2, quantities=1)
    right = [
        [each.proba.argmax(axis=1) == manifest.labels for each in pair]
        for pair in predictions["speaker premium"]
    ]
    gain = np.mean([np.subtract(*map(np.float64, pair)) for pair in right], axis=0)
    groups = manifest.speakers
    left_out = np.array([gain[groups != name].mean() for name in np.unique(groups)])
    half = 2.262157 * np.sqrt((10 - 1) / 10 * ((left_out - left_out.mean()) ** 2).sum())

    premium = compute(predictions)[1]["speaker premium"]

    assert premium.value == pytest.approx(gain.mean())
    assert (premium.high - premium.low) / 2 == pytest.approx(half, rel=1e-5)


def test_splits_that_test_other_utterances_are_not_compared(manifest):
    ((leaking, honest),) = predict(manifest, plant(manifest), quantities=1)["speaker premium"]
    some = np.flatnonzero(honest.speakers != "F01")
    fewer = replace(
        honest,
        **{
            field: getattr(honest, field)[some]
            for field in ("utterances", "speakers", "sessions", "folds", "present")
        },
        labels=honest.labels[some],
        proba=honest.proba[some],
        y_pred=honest.y_pred[some],
    )

    with pytest.raises(ValueError, match="tested different utterances"):
        compute({"speaker premium": [(leaking, fewer)]})


def test_random_folds_are_as_many_and_of_equal_size(manifest):
    by_speaker, by_session, _ = _premium_pairs(manifest, seed=0)

    assert len(by_speaker.lenient.folds) == len(by_speaker.strict.folds) == 10
    assert len(by_session.lenient.folds) == len(by_session.strict.folds) == 5
    for pair in (by_speaker, by_session):
        folds = pair.lenient.folds
        assert sorted(np.concatenate([f.test for f in folds])) == list(range(len(manifest)))
        assert {len(fold.test) for fold in folds} <= {15, 30}
        for fold in folds:
            assert not set(fold.train) & set(fold.test)
        shares = [np.bincount(manifest.labels[f.test], minlength=4) for f in folds]
        assert (np.ptp(shares, axis=0) <= 1).all()


def test_the_word_leaking_is_in_the_name_of_what_leaks_and_of_nothing_else(manifest):
    for pair in _premium_pairs(manifest, seed=0):
        for split in (pair.lenient, pair.strict):
            crossing = any(
                set(manifest.speakers[fold.train]) & set(manifest.speakers[fold.test])
                for fold in split.folds
            )
            assert crossing == ("leaking" in split.name)


def test_the_partner_pair_learns_from_as_many_people(manifest):
    sessions = dict(zip(manifest.speakers.tolist(), manifest.sessions.tolist(), strict=True))
    pairs = [_premium_pairs(manifest, seed=seed)[2] for seed in range(3)]

    for pair in pairs:
        for another, partner in zip(pair.lenient.folds, pair.strict.folds, strict=True):
            assert np.array_equal(another.test, partner.test)
            heard = [set(manifest.speakers[fold.train].tolist()) for fold in (another, partner)]
            assert len(heard[0]) == len(heard[1]) == 8
            assert another.held_out[0] == partner.held_out[0]
            assert sessions[partner.held_out[1]] == sessions[partner.held_out[0]]
            assert sessions[another.held_out[1]] != sessions[another.held_out[0]]
    drawn = {tuple(fold.held_out for fold in pair.lenient.folds) for pair in pairs}
    assert len(drawn) == 3


def test_holding_out_a_dyad_and_leaving_out_the_partner_are_fitted_once(manifest):
    pairs = _premium_pairs(manifest, seed=0)

    sets = _training_sets(pairs)

    assert len({rows.tobytes() for rows in sets}) == len(sets)
    assert len(sets) <= 10 + 10 + 5 + 5 + 10


def test_rows_that_were_learnt_from_cannot_be_scored(manifest):
    features = make_features(plant(manifest))
    train = np.arange(100)
    probas = {train.tobytes(): predict_rest(manifest, features, train, seed=0)}
    wrong = Fold(0, train, np.arange(90, len(manifest)), ("nobody",))

    with pytest.raises(LeakageError, match="held out"):
        _gather_split(manifest, features, _PremiumSplit("x", "utterance", (wrong,)), probas)
    assert np.isnan(probas[train.tobytes()][train]).all()


def test_a_speaker_on_both_sides_of_a_split_that_is_not_called_leaking_is_refused(manifest):
    pair = _premium_pairs(manifest, seed=0)[0]
    features = make_features(plant(manifest))
    folds = tuple(
        replace(fold, held_out=tuple(np.unique(manifest.speakers[fold.test]).tolist()))
        for fold in pair.lenient.folds
    )
    disguised = replace(pair.lenient, name="speaker", grouping="speaker", folds=folds)

    with pytest.raises(LeakageError, match="held out"):
        _gather_split(manifest, features, disguised, {})


def test_held_out_rows_change_no_fit(manifest):
    values, train = plant(manifest), np.arange(100)
    noise = values.copy()
    noise[110:] = 1e6 * np.random.default_rng(5).normal(size=noise[110:].shape)

    one = predict_rest(manifest, make_features(values), train, seed=0)
    other = predict_rest(
        replace(manifest, labels=np.where(np.arange(len(manifest)) < 100, manifest.labels, 0)),
        make_features(noise),
        train,
        seed=0,
    )

    assert np.array_equal(one[100:110], other[100:110])


def test_an_absent_row_gets_the_class_shares_of_the_training_rows(manifest):
    present = np.arange(len(manifest)) % 5 != 0
    train = np.arange(100)

    proba = predict_rest(manifest, make_features(plant(manifest), present), train, seed=0)

    shares = np.bincount(manifest.labels[train], minlength=4) / len(train)
    assert np.allclose(proba[100:][~present[100:]], shares)
    assert not np.allclose(proba[101], shares)


def test_a_training_set_of_one_class_is_refused(manifest):
    train = np.flatnonzero(manifest.labels == 0)

    with pytest.raises(ValueError, match=r"holds 1 class\(es\) only"):
        predict_rest(manifest, make_features(plant(manifest)), train, seed=0)


def test_without_sessions_only_the_speaker_premium_is_left_and_it_is_said(manifest):
    alone = replace(manifest, sessions=None)

    assert [pair.quantity for pair in _premium_pairs(alone, seed=0)] == ["speaker premium"]
    assert describe_gaps(alone) == (
        "The recordings have no sessions: the session and the partner premium are left out.",
    )
    assert describe_gaps(manifest) == ()


def test_two_sessions_are_too_few(manifest):
    two = replace(manifest, sessions=np.where(manifest.speakers < "F03", "a", "b"))

    assert len(_premium_pairs(two, seed=0)) == 1
    assert "There are 2 sessions, at least 3 are needed" in describe_gaps(two)[0]


def test_speakers_without_a_partner_are_named_and_not_in_the_partner_premium(manifest):
    lonely = replace(
        manifest, sessions=np.where(manifest.speakers == "F01", "alone", manifest.sessions)
    )

    pair = _premium_pairs(lonely, seed=0)[2]

    assert {f.held_out[0] for f in pair.strict.folds} == set(manifest.speakers) - {"F01", "M01"}
    assert "All but F01, M01 can be in the partner premium" in describe_gaps(lonely)[0]


def test_speakers_in_several_sessions_leave_the_sessions_out_and_it_is_said(manifest):
    moving = replace(manifest, sessions=np.array([f"s{i % 4}" for i in range(len(manifest))]))

    assert [pair.quantity for pair in _premium_pairs(moving, seed=0)] == ["speaker premium"]
    assert "10 speaker(s) are in several sessions" in describe_gaps(moving)[0]


def test_the_configuration_depends_on_no_label_and_no_split(manifest):
    features = make_features(plant(manifest))

    params = _fixed_params(features, 150)

    assert params["feature_fraction"] == pytest.approx(8 / N_DIMS)
    assert params["min_data_in_leaf"] == 6
    assert (params["screening"], params["imbalance"]) == ("none", "none")
