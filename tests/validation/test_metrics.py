"""Metrics follow their definitions; calibration is measured in bins."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics as reference

from toolkit.validation.metrics import (
    CLASS_METRICS,
    METRICS,
    GroupedRows,
    _class_counts,
    _confidence_bins,
    confusion_matrices,
    perfect_calibration_errors,
    reliability_bins,
)

RNG = np.random.default_rng(7)
LABELS = RNG.choice(4, 300, p=[0.2, 0.5, 0.3, 0.0])  # the last class never occurs
PROBA = RNG.dirichlet(np.full(4, 0.3), 300)
DECIDED = RNG.integers(0, 4, 300)
GROUPS = np.arange(300) % 7


def by_definition(name, labels, proba, given):
    options = {"labels": range(4), "zero_division": 0}
    match name:
        case "f1_micro" | "f1_macro" | "f1_weighted":
            return reference.f1_score(labels, given, average=name[3:], **options)
        case "uar":
            return reference.recall_score(labels, given, average="macro", **options)
        case "mcc":
            return reference.matthews_corrcoef(labels, given)
        case "log_loss":
            clipped = np.maximum(proba, 1e-6)
            clipped /= clipped.sum(axis=1, keepdims=True)
            return reference.log_loss(labels, clipped, labels=range(4))
        case "brier":
            return np.mean(np.sum((proba - np.eye(4)[labels]) ** 2, axis=1))
        case "ece":
            return ece_by_definition(labels, proba)


def ece_by_definition(labels, proba):
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == labels
    total = 0.0
    for m in range(15):
        here = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if here.any():
            total += here.mean() * abs(right[here].mean() - confidence[here].mean())
    return total


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_its_definition(name):
    value = METRICS[name].compute(LABELS, PROBA, DECIDED)

    assert_allclose(value, by_definition(name, LABELS, PROBA, DECIDED), rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_the_most_probable_class_is_scored_by_default(name):
    given = PROBA.argmax(axis=1)

    assert METRICS[name].compute(LABELS, PROBA) == METRICS[name].compute(LABELS, PROBA, given)


@pytest.mark.parametrize("name", METRICS)
def test_tallies_of_groups_add_up_to_the_pooled_score(name):
    metric = METRICS[name]

    tallies = metric.tally(GroupedRows(LABELS, DECIDED, PROBA, GROUPS, 7))

    assert len(tallies) == 7
    assert_allclose(
        metric.value(tallies.sum(axis=0)),
        metric.compute(LABELS, PROBA, DECIDED),
        rtol=1e-12,
    )
    one = GROUPS == 3
    assert_allclose(
        metric.value(tallies)[3],
        metric.compute(LABELS[one], PROBA[one], DECIDED[one]),
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", ["log_loss", "brier", "ece"])
def test_what_is_said_of_probabilities_does_not_depend_on_decisions(name):
    metric = METRICS[name]

    assert metric.compute(LABELS, PROBA, DECIDED) == metric.compute(LABELS, PROBA)


@pytest.mark.parametrize("name", METRICS)
def test_the_better_system_is_better_in_the_metrics_direction(name):
    metric = METRICS[name]
    good = 0.9 * np.eye(4)[LABELS] + 0.025
    bad = 0.9 * np.eye(4)[(LABELS + 1) % 4] + 0.025

    gain = metric.compute(LABELS, good) - metric.compute(LABELS, bad)

    assert (gain > 0) == (metric.direction == "maximize")
    assert all(metric.low <= metric.compute(LABELS, p) <= metric.high for p in (good, bad))


def test_a_certain_mistake_costs_no_infinite_log_loss():
    loss = METRICS["log_loss"].compute(np.array([1]), np.array([[1.0, 0.0]]))

    assert loss == pytest.approx(-np.log(1e-6 / (1 + 1e-6)), rel=1e-12)


def test_confidence_on_the_border_of_bins_belongs_to_the_lower_one():
    # 0.75 lies in the bin that 0.8 = 12 / 15 closes: their gaps, +0.2 and -0.75, add up.
    labels, proba = np.array([0, 1]), np.array([[0.8, 0.2], [0.75, 0.25]])

    assert METRICS["ece"].compute(labels, proba) == pytest.approx(abs(0.2 - 0.75) / 2)


def test_only_calibration_has_no_value_for_one_speaker():
    assert [name for name, metric in METRICS.items() if metric.local is None] == ["ece"]


def test_f1_micro_comes_first():
    assert list(METRICS) == [
        *("f1_micro", "f1_macro", "uar", "f1_weighted", "mcc", "log_loss", "brier", "ece")
    ]


def test_no_rows_have_no_score():
    with pytest.raises(ValueError, match="No rows to score by uar"):
        METRICS["uar"].compute(LABELS[:0], PROBA[:0])


DRAW = np.random.default_rng(3)
TRUE = DRAW.choice(5, 200, p=[0.1, 0.5, 0.2, 0.2, 0.0])  # the last class never occurs
GIVEN = DRAW.choice(5, 200, p=[0.0, 0.4, 0.3, 0.2, 0.1])  # the first is never given
QUARTERS = np.arange(200) % 4


def counts_of(labels, given):
    return _class_counts(confusion_matrices(labels, given, 5)[0])


def test_matrices_have_true_classes_in_rows_group_by_group():
    matrices = confusion_matrices(TRUE, GIVEN, 5, QUARTERS, n_groups=5)

    for group in range(5):
        mine = group == QUARTERS
        expected = np.zeros((5, 5))
        np.add.at(expected, (TRUE[mine], GIVEN[mine]), 1)
        assert_array_equal(matrices[group], expected)


@pytest.mark.parametrize(
    ("score", "reference"),
    [
        (CLASS_METRICS["recall"], reference.recall_score),
        (CLASS_METRICS["precision"], reference.precision_score),
        (CLASS_METRICS["f1"], reference.f1_score),
    ],
)
def test_scores_of_classes_are_scikit_learns(score, reference):
    expected = reference(TRUE, GIVEN, labels=range(5), average=None, zero_division=0)

    assert_allclose(score(counts_of(TRUE, GIVEN)), expected)


@pytest.mark.parametrize(
    ("score", "average"),
    [
        (METRICS["f1_micro"].value, "micro"),
        (METRICS["f1_macro"].value, "macro"),
        (METRICS["f1_weighted"].value, "weighted"),
    ],
)
def test_averages_of_f1_are_scikit_learns_over_all_classes(score, average):
    expected = reference.f1_score(
        TRUE, GIVEN, labels=range(5), average=average, zero_division=0
    )

    assert_allclose(score(counts_of(TRUE, GIVEN)), expected)


def test_macro_scores_may_be_over_the_classes_that_occur():
    counts = counts_of(TRUE, GIVEN)
    f1 = reference.f1_score(TRUE, GIVEN, labels=range(4), average="macro", zero_division=0)
    recall = reference.recall_score(
        TRUE, GIVEN, labels=range(4), average="macro", zero_division=0
    )

    assert_allclose(METRICS["f1_macro"].local(counts), f1)
    assert_allclose(METRICS["uar"].local(counts), recall)
    assert_allclose(METRICS["uar"].value(counts), recall * 4 / 5)


def test_correlation_is_scikit_learns_and_0_where_a_side_is_constant():
    constant = np.zeros_like(TRUE)

    assert_allclose(
        METRICS["mcc"].value(counts_of(TRUE, GIVEN)),
        reference.matthews_corrcoef(TRUE, GIVEN),
    )
    assert METRICS["mcc"].value(counts_of(TRUE, constant)) == 0
    assert METRICS["mcc"].value(counts_of(constant, GIVEN)) == 0
    assert METRICS["mcc"].value(counts_of(TRUE, TRUE)) == pytest.approx(1)


def test_scores_of_a_stack_are_the_scores_of_each():
    stack = _class_counts(confusion_matrices(TRUE, GIVEN, 5, QUARTERS, n_groups=4))

    for score in (METRICS["f1_micro"].value, METRICS["f1_macro"].value, METRICS["mcc"].value):
        assert_array_equal(score(stack), [score(counts) for counts in stack])


def test_no_rows_score_0_without_a_warning():
    nothing = np.zeros((3, 5))

    assert METRICS["f1_macro"].local(nothing) == 0
    assert METRICS["f1_micro"].value(nothing) == 0


def draw_labels(proba, seed):
    thresholds = np.random.default_rng(seed).random((len(proba), 1))
    return (proba.cumsum(axis=1) < thresholds).sum(axis=1).clip(max=proba.shape[1] - 1)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        (0.25, 3),
        (0.4, 5),
        (0.4001, 6),
        (0.5, 7),
        (0.8, 11),
        (0.99, 14),
        (1.0, 14),
        (1 + 5e-7, 14),
    ],
)
def test_bins_are_closed_above(confidence, expected):
    assert _confidence_bins(np.array([confidence])).tolist() == [expected]


def test_the_perfect_error_is_that_of_labels_drawn_from_the_probabilities():
    proba = np.random.default_rng(1).dirichlet(np.ones(4), 400)
    ece = METRICS["ece"]

    expected = [ece.compute(draw_labels(proba, seed), proba) for seed in range(200)]

    errors = perfect_calibration_errors(proba)
    standard_error = np.std(expected) / np.sqrt(200)
    assert np.mean(errors) == pytest.approx(np.mean(expected), abs=4 * standard_error)


def test_the_perfect_error_shrinks_with_rows_and_is_never_0():
    proba = np.random.default_rng(2).dirichlet(np.ones(4), 1336)

    few = perfect_calibration_errors(proba[:134]).mean()
    many = perfect_calibration_errors(proba).mean()

    assert 0.06 < few < 0.11
    assert 0.02 < many < 0.04


def test_an_overconfident_system_lies_outside_the_perfect_draws():
    proba = np.random.default_rng(3).dirichlet(np.ones(4), 1336)
    labels = draw_labels(proba, 4)
    sharpened = proba**3 / (proba**3).sum(axis=1, keepdims=True)
    ece = METRICS["ece"]

    assert ece.compute(labels, proba) <= perfect_calibration_errors(proba).max()
    assert ece.compute(labels, sharpened) > perfect_calibration_errors(sharpened).max()


def test_the_seed_decides_the_draws():
    proba = np.full((50, 2), 0.5)

    first = perfect_calibration_errors(proba, n_draws=5)

    assert_allclose(perfect_calibration_errors(proba, n_draws=5), first, rtol=0)
    assert (perfect_calibration_errors(proba, n_draws=5, seed=1) != first).any()


def test_the_calibration_error_has_bins_of_equal_width(make_predictions):
    table = make_predictions(n=400)
    confidence = table.proba.max(axis=1)
    right = table.proba.argmax(axis=1) == table.labels
    gaps = [
        abs(np.where(inside, right - confidence, 0).sum())
        for low in np.arange(15) / 15
        for inside in [(confidence > low) & (confidence <= low + 1 / 15)]
    ]

    assert sum(gaps) / 400 == pytest.approx(METRICS["ece"].compute(table.labels, table.proba))


@pytest.mark.parametrize(("n", "n_bins"), [(12, 1), (79, 1), (80, 2), (239, 5), (800, 10)])
def test_reliability_bins_hold_equally_many_rows_and_fewer_bins_where_rows_are_few(
    make_predictions, n, n_bins
):
    table = make_predictions(n=n)

    bins = reliability_bins(table)

    confidence = table.proba.max(axis=1)
    ranks = confidence.argsort().argsort()
    numbers = np.maximum(-(-ranks * n_bins // (n - 1)) - 1, 0)
    sizes = np.bincount(numbers)
    assert (len(sizes), np.ptp(sizes) <= 1) == (n_bins, True)
    right = table.proba.argmax(axis=1) == table.labels
    expected = [np.bincount(numbers, each) / sizes for each in (confidence, right)]
    assert_allclose(bins, expected)


def test_reliability_is_that_of_the_probabilities_whatever_was_decided(make_predictions):
    table = make_predictions()

    offset = make_predictions(y_pred=(table.y_pred + 1) % 3)

    assert_array_equal(reliability_bins(offset), reliability_bins(table))


def test_rows_of_the_same_confidence_share_a_bin(make_predictions):
    table = make_predictions(n=100, proba=np.tile([0.6, 0.3, 0.1], (100, 1)))

    assert_allclose(reliability_bins(table)[0], [0.6])
