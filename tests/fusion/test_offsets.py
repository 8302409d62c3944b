from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.fusion.fuse import _BasePredictions
from toolkit.fusion.learned import _GRID, _candidate_hits, _ClassOffsets, _decide, _fit_offsets
from toolkit.validation.ledger import LeakageError
from toolkit.validation.metrics import METRICS


def rare_class(hits=(0.4, 0.4, 0.4, 0.4)):
    """A rare class that is always second, at .4 for its own rows and at .1 for the others."""
    n_speakers = len(hits)
    labels = np.tile([1, 0, 0, 0, 0], n_speakers)
    groups = np.repeat([f"S{k}" for k in range(n_speakers)], 5)
    second = np.where(labels == 1, np.repeat(hits, 5), 0.1)
    return np.column_stack([1 - second, second]), labels, groups


def test_an_offset_moves_a_decision_only_across_its_lag():
    proba = np.array([[0.7, 0.3], [0.9, 0.1]])

    assert _decide(proba, np.array([-0.5, 0.5])).tolist() == [1, 0]


@pytest.mark.parametrize("metric", ["f1_micro", "uar"])
def test_a_rare_class_is_found_once_its_offset_reaches_its_lag(metric):
    proba, labels, groups = rare_class()

    found = _fit_offsets(proba, labels, groups, metric)

    assert found.kept
    assert found.decide(proba).tolist() == labels.tolist()
    lag = found.values[1] - found.values[0]
    assert np.log(0.6 / 0.4) < lag < np.log(0.9 / 0.1)
    assert sum(found.values) == pytest.approx(0, abs=1e-12)


def test_offsets_for_f1_are_the_smallest_tenths_that_help():
    proba, labels, groups = rare_class()

    found = _fit_offsets(proba, labels, groups, "f1_micro")

    # log(.6 / .4) = .405: the first class is tried first, and -.5 is its first tenth beyond.
    assert_allclose(found.values, [-0.25, 0.25], atol=1e-12)
    assert found.gain == pytest.approx(0.2, abs=1e-12)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_the_values_an_offset_may_take_cannot_be_changed():
    assert _GRID.tolist() == [tenth / 10 for tenth in range(-20, 21)]
    with pytest.raises(ValueError, match="read-only"):
        _GRID[0] = 0


def test_right_decisions_get_no_offsets():
    labels = np.tile([0, 1, 2], 6)
    proba = np.full((18, 3), 0.1)
    proba[np.arange(18), labels] = 0.8

    for metric in ("f1_micro", "uar"):
        found = _fit_offsets(proba, labels, np.repeat(list("abc"), 6), metric)
        assert found.values == (0, 0, 0)
        assert not found.kept


def test_uar_starts_where_calibrated_probabilities_would_want_it():
    # The rare class needs a lead of more than log(.988 / .012) = 4.41, but at 4.82 it would
    # take every row; from 0, offsets of -2 and 2 reach 4. The start, log(.99 / .01), is 4.60.
    labels = np.tile([1] + [0] * 99, 4)
    second = np.where(labels == 1, 0.012, 0.008)
    proba = np.column_stack([1 - second, second])
    groups = np.repeat(list("abcd"), 100)

    uar = _fit_offsets(proba, labels, groups, "uar")

    assert_allclose(uar.values, [-np.log(99) / 2, np.log(99) / 2], atol=1e-12)
    assert uar.gain == pytest.approx(0.5, abs=1e-12)
    assert _fit_offsets(proba, labels, groups, "f1_micro").values == (0, 0)


@pytest.mark.parametrize("metric", ["f1_micro", "uar"])
def test_no_pair_of_tenths_is_better(metric):
    rng = np.random.default_rng(4)
    labels = rng.choice(2, 150, p=[0.75, 0.25])
    proba = rng.dirichlet([3, 1], 150) * 0.5 + np.eye(2)[labels] * rng.random((150, 1)) * 0.5
    proba /= proba.sum(axis=1, keepdims=True)
    groups = rng.choice(list("abcde"), 150)
    score = METRICS[metric].compute

    found = _fit_offsets(proba, labels, groups, metric)

    best = max(
        score(labels, proba, _decide(proba, np.array(pair)))
        for pair in product(_GRID, repeat=2)
    )
    assert found.gain >= best - score(labels, proba) - 1e-12
    assert found.gain > 0.02


def exact_ascent(proba, labels, metric):
    """The ascent from its description, scores counted in fractions."""
    counts = np.bincount(labels, minlength=proba.shape[1]).tolist()

    def score(offsets):
        right = (np.log(proba) + offsets).argmax(axis=1) == labels
        hits = np.bincount(labels[right], minlength=len(counts)).tolist()
        if metric == "f1_micro":
            return Fraction(sum(hits), len(labels))
        return sum(Fraction(hit, n) for hit, n in zip(hits, counts, strict=True))

    def moved(code, value):
        return np.where(np.arange(len(counts)) == code, value, offsets)

    offsets = np.zeros(len(counts))
    if metric == "uar":
        offsets = -np.log(np.array(counts) / len(labels))
        offsets -= offsets.mean()
    before, best = None, Fraction(-1)
    while best != before:
        before = best
        for code in range(len(counts)):
            scores = [
                (score(moved(code, value)), -abs(value), -value)
                for value in (*_GRID.tolist(), offsets[code])
            ]
            best, _, lowered = max(scores)
            offsets = moved(code, -lowered)
    return offsets - offsets.mean()


@pytest.mark.parametrize("metric", ["f1_micro", "uar"])
@pytest.mark.parametrize(("n_classes", "seed"), [(3, 5), (3, 8), (4, 4), (4, 5)])
def test_the_ascent_is_that_of_exact_arithmetic(n_classes, seed, metric):
    rng = np.random.default_rng(seed)
    odds = np.arange(1, n_classes + 1)
    labels = rng.choice(n_classes, 60, p=odds / odds.sum())
    proba = 0.6 * rng.dirichlet(odds, 60)
    proba += 0.4 * np.eye(n_classes)[labels] * rng.random((60, 1))
    proba /= proba.sum(axis=1, keepdims=True)
    # Speakers who are all alike leave the gain no standard error.
    alike = np.tile(proba, (3, 1)), np.tile(labels, 3), np.repeat(list("abc"), 60)

    found = _fit_offsets(*alike, metric)

    expected = exact_ascent(proba, labels, metric)
    gain = METRICS[metric].compute(labels, proba, _decide(proba, expected))
    assert found.gain == pytest.approx(gain - METRICS[metric].compute(labels, proba), abs=1e-12)
    assert found.kept
    assert_allclose(found.values, expected, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_counted_hits_are_those_of_deciding_anew(n_classes):
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(0, n_classes, 300)
    # Coarse logarithms make ties, which go to the lower code.
    logs = rng.integers(-12, 0, (300, n_classes)) / 4
    candidates = np.arange(-8, 9) / 4
    offsets = rng.integers(-4, 5, n_classes) / 4

    for code in range(n_classes):
        hits = _candidate_hits(logs, labels, offsets, code, candidates)
        for candidate, counted in zip(candidates, hits, strict=True):
            moved = np.where(np.arange(n_classes) == code, candidate, offsets)
            right = (logs + moved).argmax(axis=1) == labels
            assert counted.tolist() == np.bincount(labels[right], minlength=n_classes).tolist()


def test_a_gain_within_one_standard_error_is_not_kept():
    proba, labels, groups = rare_class(hits=(0.4, *[0.05] * 6))

    found = _fit_offsets(proba, labels, groups, "f1_micro")

    # One hit of 35, of one speaker in seven: without that one the gain is 0 of 30, without
    # another it is 1 of 30. These average 1/35, and
    # 6/7 ((1/35)^2 + 6 (1/30 - 1/35)^2) = (1/35)^2, but for rounding.
    assert found.gain == pytest.approx(1 / 35, abs=1e-12)
    assert found.standard_error == pytest.approx(1 / 35, abs=1e-12)
    assert not found.kept
    assert found.values == (0, 0)


def test_the_standard_error_is_the_jackknife_over_speakers():
    rng = np.random.default_rng(2)
    labels = rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    odds = np.exp(rng.normal(size=(200, 3)) + np.eye(3)[labels] + np.log([0.6, 0.3, 0.1]))
    proba = odds / odds.sum(axis=1, keepdims=True)
    groups = rng.choice(list("abcdef"), 200)
    score = METRICS["uar"].compute

    found = _fit_offsets(proba, labels, groups, "uar")

    assert found.kept
    decided = found.decide(proba)
    left_out = np.array(
        [
            score(labels[rest], proba[rest], decided[rest]) - score(labels[rest], proba[rest])
            for rest in (groups != name for name in "abcdef")
        ]
    )
    expected = np.sqrt(5 / 6 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(expected, abs=1e-12)
    gain = score(labels, proba, decided) - score(labels, proba)
    assert found.gain == pytest.approx(gain, abs=1e-12)


def test_a_class_without_training_rows_keeps_no_offset_and_is_never_decided_for():
    proba, labels, groups = rare_class()
    proba = np.insert(proba, 1, 0.0, axis=1)

    for metric in ("f1_micro", "uar"):
        found = _fit_offsets(proba, labels * 2, groups, metric)
        assert found.kept
        assert found.values[1] == 0
        assert sum(found.values) == pytest.approx(0, abs=1e-12)
        assert found.decide(proba).tolist() == (labels * 2).tolist()


def test_one_speaker_alone_has_no_standard_error_and_no_offsets():
    proba, labels, groups = rare_class()

    found = _fit_offsets(proba, labels, np.full_like(groups, "S0"), "uar")

    assert (found.values, found.kept) == ((0, 0), False)


def offset_voter(study):
    """A voter that leans towards the rarest class."""
    voter = study.voters[0]
    skew = np.array([0.7, 0.1, 0.1, 0.1])

    def skewed(table):
        proba = np.where(table.present[:, None], table.proba * skew, table.proba)
        return replace(table, proba=proba / proba.sum(axis=1, keepdims=True))

    predictions = skewed(voter.predictions)
    predictions = replace(predictions, y_pred=predictions.proba.argmax(axis=1))
    return _BasePredictions(
        predictions, {fold: skewed(inner) for fold, inner in voter.inner.items()}
    )


def offset_system(study, fuse, voter, end):
    """The variant of a single system, and the offsets of every fold."""
    result = fuse(study, [voter], methods=())
    name = f"{voter.system}-offset-{end}"
    return result.offsets[name], {k: one.offsets[name] for k, one in result.learnt.items()}


@pytest.mark.parametrize(("end", "metric"), [("f1", "f1_micro"), ("uar", "uar")])
def test_a_variant_decides_otherwise_with_the_same_probabilities(study, fuse, end, metric):
    voter = offset_voter(study)

    variant, fitted = offset_system(study, fuse, voter, end)

    table = voter.predictions
    assert variant.system == f"visual-offset-{end}"
    assert variant.proba.tobytes() == table.proba.tobytes()
    assert any(one.kept for one in fitted.values())
    for fold in study.folds:
        inner = voter.inner[fold.number]
        seen = inner.present
        expected = _fit_offsets(
            inner.proba[seen], inner.labels[seen], inner.groups[seen], metric
        )
        assert fitted[fold.number] == expected
        rows = fold.test[table.present[fold.test]]
        moved = expected.decide(table.proba[rows])
        assert variant.y_pred[rows].tolist() == moved.tolist()
    score = METRICS[metric].compute
    assert score(table.labels, table.proba, variant.y_pred) > score(table.labels, table.proba)


def test_rows_the_system_did_not_see_are_decided_as_before(study, fuse):
    voter = offset_voter(study)

    variant, _ = offset_system(study, fuse, voter, "uar")

    absent = ~voter.predictions.present
    assert variant.y_pred[absent].tolist() == voter.predictions.y_pred[absent].tolist()
    assert (variant.y_pred != voter.predictions.y_pred).any()


def test_offsets_that_are_not_kept_leave_the_systems_own_decisions(study, fuse):
    voter = study.voters[0]
    sure = {
        fold: replace(inner, proba=np.eye(4)[inner.labels])
        for fold, inner in voter.inner.items()
    }
    second_best = np.argsort(voter.predictions.proba, axis=1)[:, -2]
    own = replace(voter.predictions, y_pred=second_best)

    variant, fitted = offset_system(study, fuse, _BasePredictions(own, sure), "f1")

    assert not any(one.kept for one in fitted.values())
    assert variant.y_pred.tolist() == second_best.tolist()


def test_no_held_out_label_touches_the_offsets(study, fuse):
    voter = offset_voter(study)
    turned = replace(voter, predictions=replace(voter.predictions, labels=3 - study.labels))

    ours, theirs = (offset_system(study, fuse, v, "uar")[1] for v in (voter, turned))

    assert ours == theirs


def test_the_ledger_holds_the_rows_that_calibrated(study):
    for fold in study.folds:
        inner, ledger = study.voters[0].inner[fold.number], study.ledgers()[fold.number]

        _ClassOffsets.learn(inner, "uar", ledger)

        (entry,) = ledger.entries()
        assert entry["role"] == "calibrate"
        assert entry["n_rows"] == inner.present.sum()


def test_a_held_out_speaker_stops_the_fit(study):
    with pytest.raises(LeakageError, match="held out utterance"):
        _ClassOffsets.learn(study.voters[0].inner[0], "f1_micro", study.ledgers()[1])
