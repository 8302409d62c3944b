import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.validation.metrics import (
    METRICS,
    confidence_bins,
    perfect_calibration_errors,
    reliability_bins,
)


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
    assert confidence_bins(np.array([confidence])).tolist() == [expected]


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


def test_reliability_bins_hold_every_row_once_and_weigh_up_to_the_calibration_error(
    make_predictions,
):
    table = make_predictions(n=400)

    bins = reliability_bins(table)

    assert len(bins) == 15
    assert sum(each.n for each in bins) == 400
    gaps = [abs(each.accuracy - each.confidence) * each.n for each in bins if each.n]
    assert sum(gaps) / 400 == pytest.approx(METRICS["ece"].compute(table.labels, table.proba))


def test_reliability_is_that_of_the_probabilities_whatever_was_decided(make_predictions):
    table = make_predictions()

    offset = make_predictions(y_pred=(table.y_pred + 1) % 3)

    assert reliability_bins(offset) == reliability_bins(table)


def test_an_empty_bin_has_no_accuracy(make_predictions):
    table = make_predictions(
        n=2, labels=np.array([0, 1]), proba=np.array([[0.9, 0.1, 0.0], [0.95, 0.05, 0.0]])
    )

    bins = reliability_bins(table)

    assert [(each.n, each.accuracy) for each in bins[12:]] == [(0, None), (1, 1.0), (1, 0.0)]
    assert bins[12].confidence == pytest.approx((bins[12].low + bins[12].high) / 2)
    assert bins[13].confidence == 0.9
