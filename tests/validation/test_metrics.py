import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import metrics as reference

from toolkit.validation.metrics import METRICS, Rows

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

    tallies = metric.tally(Rows(LABELS, DECIDED, PROBA, GROUPS, 7))

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
