import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import approx_fprime
from scipy.special import log_softmax

from toolkit.models import class_priors, fit_logistic


def test_shares_count_every_class_of_the_study():
    assert class_priors([3, 1, 1, 3], n_classes=5).tolist() == [0, 0.5, 0, 0.5, 0]


def test_a_tie_of_shares_goes_to_the_lowest_class():
    assert class_priors([2, 1, 2, 1], n_classes=3).argmax() == 1


def test_no_rows_have_no_shares():
    with pytest.raises(ValueError, match=r"class shares of no rows"):
        class_priors(np.array([], dtype=int), n_classes=2)


def test_shares_refuse_labels_outside_the_classes():
    with pytest.raises(ValueError, match=r"row 1 is 2; expected 0 to 1"):
        class_priors([0, 2], n_classes=2)


def test_coefficients_minimise_the_penalised_log_loss(sample):
    X, y = sample
    model = fit_logistic(X, y, n_classes=3, seed=0)
    filled = np.where(np.isnan(X), np.nanmedian(X, axis=0), X).astype(np.float64)
    columns = np.column_stack([filled, np.isnan(X[:, 5])])
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)

    def objective(flat):
        weights = flat.reshape(3, 14)
        margins = columns @ weights[:, 1:].T + weights[:, 0]
        log_loss = -log_softmax(margins, axis=1)[np.arange(len(y)), y].sum()
        return log_loss + 13 / 2 * (weights[:, 1:] ** 2).sum()  # 1 / C = the 13 columns

    fitted = np.column_stack([model.intercepts, model.coefficients]).ravel()

    assert_allclose(approx_fprime(fitted, objective, 1e-6), 0, atol=0.02)
    assert objective(fitted) < objective(fitted * 0.99)
    assert objective(fitted) < objective(fitted * 1.01)


def test_probabilities_follow_the_labels_and_sum_to_one(sample):
    X, y = sample
    proba = fit_logistic(X, y, n_classes=3, seed=0).predict_proba(X)

    assert_allclose(proba.sum(axis=1), 1)
    assert (proba.argmax(axis=1) == y).mean() > 0.6


def test_classes_without_rows_get_probability_0(sample):
    X, y = sample
    relabelled = np.array([1, 2, 4])[y]

    proba = fit_logistic(X, relabelled, n_classes=6, seed=0).predict_proba(X)

    assert_array_equal(proba[:, [0, 3, 5]], 0)
    assert_allclose(
        proba[:, [1, 2, 4]], fit_logistic(X, y, n_classes=3, seed=0).predict_proba(X)
    )


def test_two_classes_are_told_apart_the_right_way_round():
    model = fit_logistic([[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1], n_classes=2, seed=0)

    low, high = model.predict_proba([[0.0], [10.0]])

    assert low[0] > 0.7
    assert_allclose(low + high, 1)  # the two points lie symmetrically


def test_an_absent_block_gets_one_indicator(sample):
    X, y = sample
    X = X.copy()
    X[:, 5] = 0
    X[y == 2, 6:] = np.nan

    model = fit_logistic(X, y, n_classes=3, seed=0)

    assert model.flagged.tolist() == [6]
    assert model.coefficients.shape == (3, 13)
    blind = np.full((1, 12), np.nan)
    assert model.predict_proba(blind).argmax() == 2


def test_units_of_a_feature_do_not_matter(sample):
    X, y = sample
    proba = fit_logistic(X, y, n_classes=3, seed=0).predict_proba(X)

    scaled = X * np.float32(1024) + np.float32(8)

    assert_allclose(
        fit_logistic(scaled, y, n_classes=3, seed=0).predict_proba(scaled), proba, atol=1e-4
    )


def test_constant_and_empty_features_change_nothing(sample):
    X, y = sample
    padded = np.column_stack([X, np.full(len(X), 0.1), np.full(len(X), np.nan)])

    proba = fit_logistic(padded, y, n_classes=3, seed=0).predict_proba(padded)

    assert_allclose(proba, fit_logistic(X, y, n_classes=3, seed=0).predict_proba(X), atol=1e-4)


def test_far_more_features_than_rows_converge_without_a_warning():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 120)
    X = rng.normal(size=(120, 1500)) + 0.3 * rng.normal(size=(4, 1500))[y]

    proba = fit_logistic(X[:90], y[:90], n_classes=4, seed=0).predict_proba(X[90:])

    assert (proba.argmax(axis=1) == y[90:]).mean() > 0.8


def test_rows_of_one_class_are_refused():
    with pytest.raises(ValueError, match=r"2 training rows have 1 class"):
        fit_logistic([[0.0], [1.0]], [2, 2], n_classes=3, seed=0)


def test_another_width_is_refused_when_predicting(sample):
    model = fit_logistic(*sample, n_classes=3, seed=0)

    with pytest.raises(ValueError, match=r"11 columns; expected the 12"):
        model.predict_proba(sample[0][:, :11])


def test_the_fitted_arrays_cannot_be_written_to(sample):
    model = fit_logistic(*sample, n_classes=3, seed=0)

    with pytest.raises(ValueError, match="read-only"):
        model.coefficients[0] = 0
