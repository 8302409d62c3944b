"""A leaking split: its premium is found where it is planted, and not where it is not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from toolkit.models import Features
from toolkit.validation import LeakageError
from toolkit.validation.fixed import predict_rest
from toolkit.validation.folds import Fold
from toolkit.validation.leakage import (
    _also_hold_out,
    _compute_premium,
    _gather_split,
    _leave_out_content,
    _premium_pairs,
    _PremiumSplit,
    _Repeat,
    _training_sets,
    describe_gaps,
    measure_premium,
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


def fit(features, repeat, manifest):
    """Probabilities of all fits of a repeat, in the order of its training sets."""
    n_classes = len(manifest.classes)
    tasks = repeat.make_tasks(manifest.labels)
    return [p for task in tasks for p in predict_rest(features, task, n_classes=n_classes)]


def predict(manifest, values, *, n_seeds=1, n_draws=2, quantities=3, make=_premium_pairs):
    """Predictions of the pairs on real rows and on permuted ones, by kind of premium."""
    features = make_features(values)
    pairs = [make(manifest, seed=seed)[:quantities] for seed in range(n_seeds)]
    repeats = [_Repeat(seed, own, None) for seed, own in enumerate(pairs)]
    rng = np.random.default_rng(6)
    for draw in range(n_draws):
        k = draw % n_seeds
        repeats.append(_Repeat(k, pairs[k], rng.permutation(len(manifest))))
    gathered = [
        each.gather(manifest, features.present, fit(features, each, manifest))
        for each in repeats
    ]
    kinds = [pair.kind for pair in pairs[0]]
    by_kind = dict(zip(kinds, map(list, zip(*gathered, strict=True)), strict=True))
    return (
        {kind: each[:n_seeds] for kind, each in by_kind.items()},
        {kind: each[n_seeds:] for kind, each in by_kind.items()},
    )


def compute(predictions, metric="f1_micro"):
    """All scores, and the pooled scores and premiums by name."""
    scores = _compute_premium(*predictions, modality="text", metric=metric)
    pooled = [score for score in scores if not score.group]
    return scores, {
        score.split if score.quantity == "score" else score.quantity: score
        for score in pooled
        if score.quantity != "score, rows permuted"
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


@pytest.mark.slow
def test_a_planted_speaker_gives_the_random_split_a_premium(manifest):
    pooled = measure(manifest, plant(manifest, groups=manifest.speakers))

    assert pooled["speaker premium"].low > 0.1
    assert pooled["speaker premium"].p_adjusted <= 0.05
    assert pooled["session premium"].low > 0.1
    # The partner shows the class in another way: to know the partner is worth nothing.
    assert abs(pooled["partner premium"].value) < 0.1


@pytest.mark.slow
def test_a_planted_session_gives_the_partner_a_premium(manifest):
    pooled = measure(manifest, plant(manifest, groups=manifest.sessions))

    assert pooled["partner premium"].low > 0.1
    assert pooled["partner premium"].p_adjusted <= 0.05
    assert pooled["session premium"].low > 0.1
    # Whoever holds out speakers alone is paid too: the partner stays in training.
    assert pooled["speaker"].value > pooled["session"].value + 0.1


@pytest.mark.slow
def test_without_a_planted_group_no_premium_is_shown(manifest):
    pooled = measure(manifest, plant(manifest))

    assert pooled["speaker"].value > 0.6  # there is something to lose
    for quantity in ("speaker premium", "session premium", "partner premium"):
        assert abs(pooled[quantity].value) < 0.06
        assert pooled[quantity].p_adjusted > 0.05


def test_random_folds_are_as_many_and_of_equal_size(manifest):
    by_speaker, by_session, *_ = _premium_pairs(manifest, seed=0)

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


def test_a_speaker_on_both_sides_of_a_split_that_is_not_called_leaking_is_refused(manifest):
    pair = _premium_pairs(manifest, seed=0)[0]
    folds = tuple(
        replace(fold, held_out=tuple(np.unique(manifest.speakers[fold.test]).tolist()))
        for fold in pair.lenient.folds
    )
    disguised = replace(pair.lenient, name="speaker", grouping="speaker", folds=folds)

    with pytest.raises(LeakageError, match="held out"):
        _gather_split(manifest, np.ones(len(manifest), dtype=bool), {}, disguised)


def test_without_sessions_only_the_speaker_premium_is_left_and_it_is_said(manifest):
    alone = replace(manifest, sessions=None, contents=None)

    assert [pair.kind for pair in _premium_pairs(alone, seed=0)] == ["speaker"]
    assert describe_gaps(alone) == (
        "The recordings have no sessions: the session and the partner premium are left out.",
    )
    assert describe_gaps(manifest) == ()


def test_two_sessions_are_too_few(manifest):
    sessions = np.where(manifest.speakers < "F03", "a", "b")
    two = replace(manifest, sessions=sessions, contents=None)

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
    sessions = np.array([f"s{i % 4}" for i in range(len(manifest))])
    moving = replace(manifest, sessions=sessions, contents=None)

    assert [pair.kind for pair in _premium_pairs(moving, seed=0)] == ["speaker"]
    assert "10 speaker(s) are in several sessions" in describe_gaps(moving)[0]


def test_a_premium_is_a_difference_less_that_of_permuted_rows(manifest):
    predictions = predict(
        manifest, plant(manifest, groups=manifest.speakers), n_seeds=2, n_draws=3, quantities=1
    )

    for metric, sign in (("f1_micro", 1), ("log_loss", -1)):
        scores, pooled = compute(predictions, metric)
        found = {(s.quantity, s.split, s.group): s.value for s in scores}
        for group in ("", *np.unique(manifest.speakers).tolist()):
            parts = []
            for suffix in ("", ", rows permuted"):
                lenient, strict = (
                    found[f"score{suffix}", split, group]
                    for split in ("random-10 (leaking)", "speaker")
                )
                parts.append(sign * (lenient - strict))
                difference = found[f"speaker difference{suffix}", "random-10 (leaking)", group]
                assert difference == pytest.approx(parts[-1])
            premium = found["speaker premium", "random-10 (leaking)", group]
            assert premium == pytest.approx(parts[0] - parts[1])
        assert pooled["speaker premium"].value > 0
        assert pooled["speaker difference"].n_repeats == 2
        assert pooled["speaker difference, rows permuted"].n_repeats == 3
        assert pooled["speaker premium"].sd is None


@pytest.mark.slow
def test_value_interval_and_p_are_those_of_a_plain_double_loop(manifest):
    # From probabilities alone: differences of accuracy, pooled, left out and swapped.
    real, permuted = predict(
        manifest, plant(manifest, groups=manifest.speakers), n_seeds=2, n_draws=3, quantities=1
    )
    right = {}
    for name, pairs in (("real", real["speaker"]), ("permuted", permuted["speaker"])):
        right[name] = [
            [(side.proba.argmax(axis=1) == manifest.labels).astype(float) for side in pair]
            for pair in pairs
        ]
    groups, names = manifest.speakers, np.unique(manifest.speakers)

    def premium(rows, swapped=()):
        """The premium over some rows, the predictions of some speakers exchanged."""
        means = []
        for pairs in right.values():
            total = 0.0
            for lenient, strict in pairs:
                exchanged = np.isin(groups, swapped)
                first = np.where(exchanged, strict, lenient)[rows].mean()
                second = np.where(exchanged, lenient, strict)[rows].mean()
                total += first - second
            means.append(total / len(pairs))
        return means[0] - means[1]

    everything = np.ones(len(groups), dtype=bool)
    left_out = np.array([premium(groups != name) for name in names])
    sizes = np.array([(groups == name).sum() for name in names])
    quantile = t.ppf(0.975, np.sqrt(9 * (sizes.sum() ** 2 / (sizes**2).sum() - 1)))
    half = quantile * np.sqrt((10 - 1) / 10 * ((left_out - left_out.mean()) ** 2).sum())
    swaps = [
        premium(everything, names[[bool(pattern >> k & 1) for k in range(10)]])
        for pattern in range(2**10)
    ]
    as_large = np.mean(np.abs(swaps) >= abs(premium(everything)) - 1e-12)

    found = compute((real, permuted))[1]["speaker premium"]

    assert found.value == pytest.approx(premium(everything))
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-5)
    assert found.p == pytest.approx(as_large)
    assert found.p_adjusted == found.p  # one premium alone has nothing to be adjusted for


def test_bin_edges_come_from_training_rows_wherever_the_rows_mean_something(manifest):
    pairs = _premium_pairs(manifest, seed=0)

    real = _Repeat(0, pairs, None).make_tasks(manifest.labels)
    order = np.random.default_rng(9).permutation(len(manifest))
    (permuted,) = _Repeat(0, pairs, order).make_tasks(manifest.labels)

    assert len(real) == len(permuted.fits) == len(_training_sets(pairs))
    for task in real:
        ((_, train, labels),) = task.fits
        assert np.array_equal(task.binned, train)
        assert labels is manifest.labels
    assert np.array_equal(permuted.binned, np.arange(len(manifest)))


def test_moving_labels_to_other_rows_is_moving_the_features(manifest):
    values, present = plant(manifest), np.arange(len(manifest)) % 5 != 0
    order = np.random.default_rng(7).permutation(len(manifest))
    pairs = _premium_pairs(manifest, seed=0)[:1]
    repeat = _Repeat(0, pairs, order)
    features = make_features(values, present)

    ((_, strict),) = repeat.gather(manifest, present, fit(features, repeat, manifest))

    assert np.array_equal(strict.present, present[order])
    absent = np.flatnonzero(~present[order])
    for row in absent[:5]:
        others = manifest.labels[manifest.speakers != manifest.speakers[row]]
        assert np.allclose(strict.proba[row], np.bincount(others, minlength=4) / len(others))
    # Features that name the class are of no use once their rows are permuted.
    loud = make_features(np.eye(4)[manifest.labels] + 0.01 * values[:, :4], present)
    plain = _Repeat(0, pairs, None)
    ((_, known),) = plain.gather(manifest, present, fit(loud, plain, manifest))
    ((_, lost),) = repeat.gather(manifest, present, fit(loud, repeat, manifest))
    hits = [
        (side.proba.argmax(axis=1) == manifest.labels)[side.present].mean()
        for side in (known, lost)
    ]
    assert hits[0] > 0.95
    assert hits[1] < 0.5
    # And where the labels move with the features, nothing is lost.
    moved = replace(manifest, labels=manifest.labels[order])
    ((_, kept),) = repeat.gather(moved, present, fit(loud, repeat, moved))
    assert (kept.proba.argmax(axis=1) == moved.labels)[kept.present].mean() > 0.95


@pytest.mark.slow
def test_noise_with_one_label_per_person_has_a_difference_and_no_premium(manifest):
    # To hold a person out makes that person's label rarer in training: no leak.
    names, who = np.unique(manifest.speakers, return_inverse=True)
    people = replace(
        manifest, labels=(np.arange(len(names)) % 2)[who], classes=("a", "b"), sessions=None
    )
    # Of the seeds 0 to 23, three give a p below .05.
    features = make_features(np.random.default_rng(6).normal(size=(len(people), N_DIMS)))

    def fit_all(tasks):
        return [predict_rest(features, task, n_classes=2) for task in tasks]

    scores = measure_premium(
        people, features, modality="text", metric="f1_micro", seed=0, fit_all=fit_all
    )

    found = {s.quantity: s for s in scores if not s.group}
    premium = found["speaker premium"]
    assert found["speaker difference"].low > 0.05
    assert found["speaker difference, rows permuted"].n_repeats == 20
    assert premium.low <= 0 <= premium.high
    assert abs(premium.value) < 0.05
    assert premium.p_adjusted > 0.05


def test_splits_that_test_other_utterances_are_not_compared(manifest):
    real, permuted = predict(manifest, plant(manifest), quantities=1)
    ((leaking, honest),) = real["speaker"]
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
        compute(({"speaker": [(leaking, fewer)]}, permuted))


def test_training_sets_that_two_splits_share_are_fitted_once(manifest):
    pairs = _premium_pairs(replace(manifest, contents=None), seed=0)

    sets = _training_sets(pairs)

    assert all(rows.tobytes() == key for key, rows in sets.items())
    assert len(sets) <= 10 + 10 + 5 + 5 + 10


def test_rows_that_were_learnt_from_cannot_be_scored(manifest):
    pair = _premium_pairs(manifest, seed=0)[0]
    train = pair.strict.folds[0].train
    wrong = Fold(0, train, np.arange(len(manifest)), ("unknown",))
    present = np.ones(len(manifest), dtype=bool)
    probas = {train.tobytes(): np.full((len(manifest), 4), 0.25)}

    with pytest.raises(LeakageError, match="held out"):
        _gather_split(manifest, present, probas, _PremiumSplit("x", "utterance", (wrong,)))


def test_a_training_set_of_one_class_is_refused(manifest):
    # Everyone but F01 has one class: without F01 nothing is left to tell apart.
    labels = np.where(manifest.speakers == "F01", manifest.labels, 0)
    few = replace(manifest, labels=labels, sessions=None)

    with pytest.raises(ValueError, match=r"holds 1 class\(es\) only"):
        measure_premium(
            few,
            make_features(plant(manifest)),
            modality="text",
            metric="f1_micro",
            seed=0,
            fit_all=lambda _: pytest.fail("fitted"),
        )


@pytest.fixture(scope="module")
def scripted(manifest):
    """Twelve scripts, spoken by all: each has a label of its own."""
    drawn = np.random.default_rng(5).integers(0, 12, len(manifest))
    contents = np.array([f"script{k:02d}" for k in drawn])
    return replace(manifest, contents=contents, labels=drawn.astype(np.int64) % 4)


def also_hold_out_content(manifest, seed=0, n_parts=3):
    cases = _leave_out_content(manifest, seed, n_parts)
    return _also_hold_out("content", "speaker+content", cases)


def measure_content(manifest, values):
    """Pooled numbers of the content premium alone, from few fits."""

    def make(manifest, *, seed):
        return (also_hold_out_content(manifest, seed, n_parts=2),)

    return compute(predict(manifest, values, n_draws=1, make=make))[1]


def test_the_content_pair_learns_from_as_many_utterances_of_each_class(scripted):
    pair = also_hold_out_content(scripted)

    tested = np.concatenate([fold.test for fold in pair.strict.folds])
    assert sorted(tested.tolist()) == list(range(len(scripted)))
    for control, strict in zip(pair.lenient.folds, pair.strict.folds, strict=True):
        assert np.array_equal(control.test, strict.test)
        sides = [scripted.labels[fold.train] for fold in (control, strict)]
        assert np.array_equal(*(np.bincount(labels, minlength=4) for labels in sides))
        known = [
            np.isin(scripted.contents[f.test], scripted.contents[f.train]).mean()
            for f in (control, strict)
        ]
        assert known[0] > 0.8
        assert known[1] == 0
        for fold in (control, strict):
            assert not set(scripted.speakers[fold.train]) & set(scripted.speakers[fold.test])
    drawn = [
        [f.train.tolist() for f in also_hold_out_content(scripted, s).lenient.folds]
        for s in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_content_of_most_utterances_has_a_control_of_as_many(scripted):
    common = replace(scripted, contents=np.where(np.arange(len(scripted)) % 10, "a", "b"))

    pair = also_hold_out_content(common, n_parts=2)

    for control, strict in zip(pair.lenient.folds, pair.strict.folds, strict=True):
        assert len(control.train) == len(strict.train)


def test_scripts_that_carry_the_label_have_a_premium_and_the_control_keeps_it(scripted):
    # Scripts are recognised, and nothing else of their labels.
    scripts = np.unique(scripted.contents, return_inverse=True)[1]
    levels = np.random.default_rng(4).normal(size=(12, N_DIMS))
    noise = np.random.default_rng(3).normal(size=(len(scripted), N_DIMS))

    pooled = measure_content(scripted, noise + 3 * levels[scripts])

    assert pooled["speaker, others left out"].value > 0.75
    assert pooled["speaker, content left out"].value < 0.4
    assert pooled["content premium"].low > 0.3
    assert pooled["content premium"].p_adjusted <= 0.05


def test_labels_that_scripts_do_not_carry_have_no_content_premium(scripted):
    pooled = measure_content(scripted, plant(scripted))

    assert pooled["speaker, content left out"].value > 0.6
    assert abs(pooled["content premium"].value) < 0.08
    assert pooled["content premium"].p_adjusted > 0.05


def test_a_fold_that_learns_from_the_content_it_holds_out_is_refused(scripted):
    pair = also_hold_out_content(scripted)
    (first, *others) = pair.strict.folds
    same = np.isin(scripted.contents, scripted.contents[first.test])
    other = same & (scripted.speakers != scripted.speakers[first.test[0]])
    mixed = replace(first, train=np.union1d(first.train, np.flatnonzero(other)[:1]))

    split = replace(pair.strict, folds=(mixed, *others))
    with pytest.raises(LeakageError, match="held out"):
        _gather_split(scripted, np.ones(len(scripted), dtype=bool), {}, split)


def test_without_two_contents_and_two_classes_there_is_no_content_premium(scripted):
    same = replace(scripted, contents=np.full(len(scripted), "a"))
    unknown = replace(scripted, contents=None)
    # Without the second script only one class is left: its utterances are in neither split.
    one_each = replace(scripted, contents=np.where(scripted.labels == 0, "a", "b"))

    assert "content" not in [pair.kind for pair in _premium_pairs(same, seed=0)]
    assert "content" not in [pair.kind for pair in _premium_pairs(unknown, seed=0)]
    assert "150 of 150 utterances are not in the content premium" in describe_gaps(same)[0]
    assert describe_gaps(unknown) == describe_gaps(scripted) == ()
    n_missing = int((scripted.labels > 0).sum())
    assert f"{n_missing} of 150 utterances" in describe_gaps(one_each)[0]
