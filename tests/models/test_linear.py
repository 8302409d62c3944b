"""Logistic regressions on clipped columns, and weighted sums of margins."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from toolkit.models.linear import (
    LinearModel,
    LinearPath,
    _log_margins,
    mix_margins,
    weigh_margins,
)


@pytest.fixture(scope="module")
def skewed(sample):
    """The shared sample with values far out, gaps and another column without any gap."""
    X, y = sample
    X = X.copy()
    X[:, 3] = np.exp(2 * X[:, 3])  # up to eight standard deviations above its mean
    X[4, 7] = -40
    X[y == 1, 9] = np.nan
    return X, y


def standardise(X):
    """Clipped columns of the rows themselves, their mean where a value is missing."""
    X = X.astype(np.float64)
    z = (X - np.nanmean(X, axis=0)) / np.nanstd(X, axis=0)
    z = np.where(z > 3, 3, np.where(z < -3, -3, z))
    return np.where(np.isnan(z), np.nanmean(z, axis=0), z)


def fit_exactly(z, y, C, weights=None):
    """Probabilities of the same rows by scikit-learn, in float64 and to a small tolerance."""
    exact = LogisticRegression(C=C, tol=1e-8, max_iter=10_000)
    return exact.fit(z, y, sample_weight=weights).predict_proba(z)


def fit(X, y, multiple=1, *, n_classes=3, **options):
    return LinearPath(X, y, n_classes=n_classes, **options).fit(multiple)


@pytest.mark.parametrize("multiple", [1, 10, 100])
def test_probabilities_are_those_of_a_tight_fit_on_clipped_columns(skewed, multiple):
    X, y = skewed

    proba = fit(X, y, multiple).predict_proba(X)

    assert (np.abs(standardise(X)) == 3).sum() > 3
    assert_allclose(proba, fit_exactly(standardise(X), y, multiple / 12), atol=1e-3)


def test_coefficients_minimise_the_penalised_log_loss(skewed):
    X, y = skewed
    weights = np.where(y == 0, 2.0, 0.5)
    model = fit(X, y, 4, weights=weights)
    z, truth = standardise(X), np.eye(3)[y]
    coefficients = model.coefficients
    intercepts = model.base - coefficients @ z.mean(axis=0)

    # The derivatives of sum w log-loss + 1 / (2 C) times the sum of squares, where C = 4 / 12.
    gaps = weights[:, None] * (softmax(z @ coefficients.T + intercepts, axis=1) - truth)
    by_coefficient = gaps.T @ z + 12 / 4 * coefficients

    assert_allclose(by_coefficient, 0, atol=0.02)
    assert_allclose(gaps.sum(axis=0), 0, atol=0.02)
    assert np.abs(12 / 4 * coefficients).max() > 1  # what must cancel is no rounding error


def test_weights_of_rows_count_as_copies(skewed):
    X, y = skewed
    weights = np.where(y == 2, 3, 1)
    z = standardise(X)

    proba = fit(X, y, 10, weights=weights.astype(float)).predict_proba(X)

    copies = np.repeat(np.arange(len(y)), weights)
    exact = LogisticRegression(C=10 / 12, tol=1e-8, max_iter=10_000).fit(z[copies], y[copies])
    assert_allclose(proba, exact.predict_proba(z), atol=1e-3)
    assert np.abs(proba - fit(X, y, 10).predict_proba(X)).max() > 0.05


def test_two_classes_are_those_of_a_tight_fit(skewed):
    X, y = skewed
    rows = y != 1
    X, y = np.delete(X[rows], 9, axis=1), y[rows] // 2

    proba = fit(X, y, 3, n_classes=2).predict_proba(X)

    assert_allclose(proba, fit_exactly(standardise(X), y, 3 / 11), atol=1e-3)
    assert (proba.argmax(axis=1) == y).mean() > 0.8


def test_indicators_are_columns_of_their_own(skewed):
    X, y = skewed
    gaps = np.isnan(X[:, [5, 9]])

    model = fit(X, y, 3, indicators=True)

    columns = np.column_stack([standardise(X), gaps])
    assert model.flagged.tolist() == [5, 9]
    assert_allclose(model.predict_proba(X), fit_exactly(columns, y, 3 / 14), atol=1e-3)
    assert np.abs(model.predict_proba(X) - fit(X, y, 3).predict_proba(X)).max() > 0.1


def test_an_absent_block_gets_one_indicator(sample):
    X, y = sample
    X = X.copy()
    X[:, 5] = 0
    X[y == 2, 6:] = np.nan

    model = fit(X, y, indicators=True)

    assert model.flagged.tolist() == [6]
    assert model.predict_proba(np.full((1, 12), np.nan)).argmax() == 2


def test_new_rows_are_standardised_by_the_training_rows(skewed):
    X, y = skewed
    train, new = X[:160], X[160:] + 0.5
    model = fit(train, y[:160], 10)

    means, sds = (f(train.astype(np.float64), axis=0) for f in (np.nanmean, np.nanstd))
    z = np.clip((new - means) / sds, -3, 3) - np.nanmean(
        np.clip((train - means) / sds, -3, 3), axis=0
    )
    expected = np.nan_to_num(z) @ model.coefficients.T + model.base

    assert_allclose(model.margins(new), expected, atol=1e-5)
    assert_allclose(model.predict_proba(new), softmax(expected, axis=1), atol=1e-5)


@pytest.mark.parametrize("before", [(), (1,), (1, 3, 10, 30), (1e4,)])
def test_a_fit_does_not_depend_on_the_fits_before(skewed, before):
    X, y = skewed
    path = LinearPath(X, y, n_classes=3)
    for multiple in before:
        path.fit(multiple)

    proba = path.fit(30).predict_proba(X)

    assert_allclose(proba, fit_exactly(standardise(X), y, 30 / 12), atol=2e-3)


def test_a_model_stays_as_it_is_when_the_path_goes_on(skewed):
    path = LinearPath(*skewed, n_classes=3)
    model = path.fit(1)
    before = model.coefficients.copy()

    path.fit(100)

    assert_array_equal(model.coefficients, before)


def test_the_base_is_the_mean_margin_and_coefficients_are_centred(skewed):
    X, y = skewed
    model = fit(X, y, 30)

    assert_allclose(model.margins(X).mean(axis=0), model.base, atol=1e-6)
    assert_allclose(model.coefficients.sum(axis=0), 0, atol=1e-6)
    assert model.base.sum() == pytest.approx(0, abs=1e-6)


def test_a_missing_value_contributes_nothing(skewed):
    X, y = skewed
    model = fit(X, y, 30)

    assert np.abs(model.centre[3]) > 0.04  # clipping moved the mean of a skewed column
    assert not model.centred(np.full((1, 12), np.nan, dtype=np.float32)).any()
    assert_array_equal(model.margins(np.full((1, 12), np.nan)), [model.base])
    gappy = X[:1].copy()
    gappy[0, 3] = np.nan
    gap = model.margins(X[:1]) - model.margins(gappy)
    assert_allclose(gap, model.centred(X[:1])[:, [3]] * model.coefficients[:, 3])


def test_values_far_out_are_clipped(skewed):
    model = fit(*skewed)
    near, far = np.zeros((2, 1, 12))
    near[0, 2] = model.means[2] + 3.5 / model.scales[2]
    far[0, 2] = 1e30

    assert_array_equal(model.margins(near), model.margins(far))


def test_contributions_add_up_by_group_and_to_the_margins(skewed):
    X, y = skewed
    model = fit(X, y, 10)
    group = np.arange(12) % 5
    belongs = np.eye(5)[group]

    sums = model.sum_by(X, belongs)

    for row in (0, 5, 239):
        for k in range(3):
            own = model.centred(X[row : row + 1])[0] * model.coefficients[k]
            assert_allclose(sums[row, k], [own[group == g].sum() for g in range(5)])
    assert_allclose(sums.sum(axis=2) + model.base, model.margins(X))


def test_many_rows_are_predicted_in_blocks(skewed):
    X, y = skewed
    model, many = fit(X, y), np.tile(X, (5, 1))

    assert_allclose(model.margins(many), np.tile(model.margins(X), (5, 1)))
    assert_allclose(
        model.sum_by(many, np.eye(12)), np.tile(model.sum_by(X, np.eye(12)), (5, 1, 1))
    )


def test_classes_without_rows_get_probability_0(sample):
    X, y = sample
    relabelled = np.array([1, 2, 4])[y]

    proba = fit(X, relabelled, n_classes=6).predict_proba(X)

    assert_array_equal(proba[:, [0, 3, 5]], 0)
    assert_array_equal(proba[:, [1, 2, 4]], fit(X, y).predict_proba(X))


def test_units_of_a_feature_do_not_matter(sample):
    X, y = sample
    scaled = X * np.float32(1024) + np.float32(8)

    assert_allclose(fit(scaled, y).predict_proba(scaled), fit(X, y).predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("factor", [1e-44, 1e37])
def test_numbers_at_the_ends_of_float32_are_columns_like_others(factor):
    X, y = np.array([[0.0], [2.0], [5.0], [8.0]]), [0, 0, 1, 1]

    proba = fit(X * factor, y, n_classes=2).predict_proba(X * factor)

    assert_allclose(proba, fit(X, y, n_classes=2).predict_proba(X), atol=0.02)


@pytest.mark.parametrize("indicators", [False, True])
def test_constant_and_empty_features_change_nothing(skewed, indicators):
    X, y = skewed
    padded = np.column_stack([X, np.full(len(X), 0.1), np.full(len(X), np.nan)])

    model = fit(padded, y, 10, indicators=indicators)

    expected = fit(X, y, 10, indicators=indicators).predict_proba(X)
    assert_allclose(model.predict_proba(padded), expected, atol=1e-4)
    others = np.column_stack([X, np.full(len(X), 7.0), np.full(len(X), -3.0)])
    assert_array_equal(model.predict_proba(others), model.predict_proba(padded))


def test_columns_without_spread_leave_the_priors():
    model = fit(np.ones((5, 2)), [0, 0, 0, 1, 1], n_classes=2)

    assert_allclose(model.predict_proba([[1.0, 1.0]]), [[0.6, 0.4]], atol=1e-4)


def test_far_more_features_than_rows_converge_without_a_warning():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 120)
    X = rng.normal(size=(120, 1500)) + 0.3 * rng.normal(size=(4, 1500))[y]

    proba = fit(X[:90], y[:90], 100, n_classes=4).predict_proba(X[90:])

    assert (proba.argmax(axis=1) == y[90:]).mean() > 0.8


def test_no_rows_have_no_predictions(sample):
    model = fit(*sample)

    assert model.predict_proba(np.zeros((0, 12))).shape == (0, 3)
    assert model.sum_by(np.zeros((0, 12), dtype=np.float32), np.ones((12, 1))).shape == (
        (0, 3, 1)
    )


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[0.0], [1.0]], [2, 2], r"2 training rows have 1 class\(es\)"),
        (np.zeros((0, 1)), np.array([], dtype=int), r"0 training rows have 0 class\(es\)"),
        ([[0.0], [1.0]], [0, 3], r"label of row 1 is 3; expected 0 to 2"),
        ([[0.0], [1.0]], [0, 1, 2], r"3 labels for 2 rows"),
        ([[0.0], [np.inf]], [0, 1], r"takes as infinite"),
        ([0.0, 1.0], [0, 1], r"shape \(2,\)"),
    ],
)
def test_rows_that_nothing_can_be_learnt_from_are_refused(X, y, message):
    with pytest.raises(ValueError, match=message):
        LinearPath(X, y, n_classes=3)


def test_another_width_is_refused_when_predicting(sample):
    with pytest.raises(ValueError, match=r"11 columns; expected the 12"):
        fit(*sample).predict_proba(sample[0][:, :11])


def test_the_fitted_arrays_cannot_be_written_to(sample):
    model = fit(*sample)

    for array in (model.means, model.scales, model.centre, model.coefficients, model.base):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.fixture(scope="module")
def stored(skewed):
    """A model of classes 0, 1 and 3 of four, and its numbers."""
    X, y = skewed
    model = fit(X, np.array([0, 1, 3])[y], 10, n_classes=4)
    return model, *model.to_arrays()


def read_back(numbers, base, **changed):
    fields = {"n_classes": 4, "classes": (0, 1, 3), "n_features": 12} | changed
    return LinearModel.of_arrays(numbers, base, **fields)


def test_a_model_that_is_read_back_predicts_the_same_bits(stored, skewed):
    model, numbers, base = stored

    again = read_back(numbers.copy(), base)

    assert numbers.shape == (6, 12)
    assert again.classes == model.classes
    assert_array_equal(again.margins(skewed[0]), model.margins(skewed[0]))
    assert_array_equal(again.predict_proba(skewed[0]), model.predict_proba(skewed[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda numbers: numbers[:5], r"shape \(5, 12\) and type float64; expected \(6, 12\)"),
        (lambda numbers: numbers[:, 1:], r"shape \(6, 11\)"),
        (lambda numbers: numbers[0], r"shape \(12,\)"),
        (lambda numbers: numbers[None], r"shape \(1, 6, 12\)"),
        (lambda numbers: numbers.T, r"shape \(12, 6\)"),
        (lambda numbers: numbers.astype(np.float32), r"type float32; .* and float64"),
        (lambda numbers: numbers.astype(np.int64), r"type int64"),
        (lambda numbers: numbers.astype(">f8"), r"type >f8"),
    ],
)
def test_arrays_of_another_form_are_refused(stored, change, message):
    _, numbers, base = stored

    with pytest.raises(ValueError, match=message):
        read_back(change(numbers), base)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", range(6))
def test_numbers_that_are_not_finite_are_refused(stored, row, value):
    _, numbers, base = stored
    numbers = numbers.copy()
    numbers[row, 4] = value

    with pytest.raises(ValueError, match="numbers that no fit gives"):
        read_back(numbers, base)


@pytest.mark.parametrize(
    "base", [[0.0, 1.0], [0.0, 1.0, 2.0, 3.0], [0.0, np.nan, 1.0], [0.0, np.inf, 1.0]]
)
def test_a_base_that_no_fit_gives_is_refused(stored, base):
    with pytest.raises(ValueError, match="numbers that no fit gives"):
        read_back(stored[1], base)


def test_a_negative_scale_is_refused(stored):
    _, numbers, base = stored
    numbers = numbers.copy()
    numbers[1, 3] *= -1

    with pytest.raises(ValueError, match="numbers that no fit gives"):
        read_back(numbers, base)


def test_numbers_of_other_classes_are_refused(stored):
    _, numbers, base = stored

    with pytest.raises(ValueError, match=r"expected \(5, 12\)"):
        read_back(numbers, base, classes=(0, 1))
    with pytest.raises(ValueError, match=r"expected \(6, 13\)"):
        read_back(numbers, base, n_features=13)


def make_members(n=60, *, seed=0, n_classes=3, strengths=(1.5, 1.0)):
    """Labels, and probabilities of members that know them more or less well."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    members = [
        softmax(strength * (np.eye(n_classes)[labels] + rng.normal(size=(n, n_classes))), 1)
        for strength in strengths
    ]
    return np.stack(members), labels


def penalised_loss(weights, members, labels):
    """Mean log-loss of the weighted margins, and 30 / n times the squares about 1 / M."""
    total = 0.0
    for row, label in enumerate(labels):
        margins = sum(w * np.log(p[row]) for w, p in zip(weights, members, strict=True))
        total -= log_softmax(margins)[label]
    pull = sum((w - 1 / len(members)) ** 2 for w in weights)
    return total / len(labels) + 30 / len(labels) * pull


@pytest.mark.parametrize(
    ("n", "strengths"), [(8, (1.5, 1.0)), (60, (1.5, 1.0)), (60, (1.0, 0.7, 2.0)), (60, (1.0,))]
)
def test_weights_minimise_the_penalised_loss(n, strengths):
    members, labels = make_members(n, strengths=strengths)

    weights, loss = weigh_margins(members, labels)

    start = np.full(len(strengths), 0.3)
    options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 10_000}
    exact = minimize(penalised_loss, start, (members, labels), "Nelder-Mead", options=options)
    assert (exact.x > 0).all()
    assert_allclose(weights, exact.x, atol=1e-3)
    assert loss == pytest.approx(exact.fun, abs=1e-6)
    assert penalised_loss(weights, members, labels) == pytest.approx(loss)


def test_a_member_that_misleads_gets_no_weight():
    members, labels = make_members(200, strengths=(2.0, -2.0))

    (good, bad), loss = weigh_margins(members, labels)

    grid = np.linspace(0, 3, 61)
    losses = [[penalised_loss((a, b), members, labels) for b in grid[:5]] for a in grid]
    best = np.unravel_index(np.argmin(losses), (61, 5))
    assert bad == 0 == grid[best[1]]
    assert good == pytest.approx(grid[best[0]], abs=0.05)
    assert loss <= np.min(losses)


def test_few_rows_stay_near_equal_weights_and_many_do_not():
    members, labels = make_members(2000, strengths=(2.0, -1.0))

    few, _ = weigh_margins(members[:, :4], labels[:4])
    many, _ = weigh_margins(members, labels)

    assert_allclose(few, 0.5, atol=0.15)
    assert many[0] - many[1] > 0.3


def test_rows_whose_class_a_member_cannot_give_are_left_out():
    members, labels = make_members(60)
    unseen = labels == 2
    unseen[30:] = False  # a fold of training rows without the class
    members = members.copy()
    members[0, unseen, 2] = 0
    members[0] /= members[0].sum(axis=1, keepdims=True)

    found = weigh_margins(members, labels)
    expected = weigh_margins(members[:, ~unseen], labels[~unseen])

    assert unseen.sum() > 5
    assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_without_rows_the_weights_are_equal():
    members, labels = make_members(4, strengths=(1.0, 1.0, 1.0))
    certain = np.zeros_like(members)
    certain[:, np.arange(4), (labels + 1) % 3] = 1

    for each, truth in ((members[:, :0], labels[:0]), (certain, labels)):
        weights, loss = weigh_margins(each, truth)
        assert_allclose(weights, 1 / 3)
        assert loss == 0


def test_margins_are_logarithms_about_their_mean():
    margins = _log_margins(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))

    assert_allclose(margins[0], np.log(2) * np.array([2, -1, -1]) / 3)
    gap = 12 * np.log(10)  # a probability below 1e-12 counts as that
    assert_allclose(margins[1], gap * np.array([2, -1, -1]) / 3)


def test_mixed_margins_are_weighted_odds():
    members = np.array([[[0.8, 0.2]], [[0.4, 0.6]]])

    odds = (0.8 / 0.2) ** 2 * (0.4 / 0.6) ** 0.5

    mixed = mix_margins([2, 0.5], members)
    assert_allclose(mixed, [[odds / (1 + odds), 1 / (1 + odds)]])
    assert_allclose(mix_margins([0, 1], members), members[1])
    assert_allclose(mix_margins([0, 0], members), [[0.5, 0.5]])


def test_a_class_that_no_member_gives_stays_at_0():
    members = np.array([[[0.5, 0.5, 0.0, 0.0]], [[0.9, 0.0, 0.1, 0.0]]])

    mixed = mix_margins([1.0, 1.0], members)

    # A member without the class counts as 1e-12.
    products = np.array([0.5 * 0.9, 0.5 * 1e-12, 1e-12 * 0.1, 0])
    assert_allclose(mixed, [products / products.sum()])
    assert mixed[0, 3] == 0
