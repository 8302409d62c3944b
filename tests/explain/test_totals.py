"""Sums kept while contributions stream by, against the full array."""

import tracemalloc

import numpy as np
from numpy.testing import assert_allclose

from toolkit.explain import (
    centre,
    join_totals,
    make_explainer,
    sum_contributions,
)
from toolkit.explain.contributions import explain_rows
from toolkit.explain.treeshap import LANES

PARTS = (("text", "value"), ("audio", "mean"), ("audio", "std"), ("visual", "slope"))
COLUMNS = {PARTS[0]: [0], PARTS[1]: [1, 3], PARTS[2]: [2], PARTS[3]: [4]}


def full(booster, X):
    """All contributions, as they are and centred over the classes trained on."""
    shares = explain_rows(make_explainer(booster), X)[:, :, :-1]
    centred = shares - shares[:, :3].mean(axis=1, keepdims=True)
    centred[:, 3] = 0
    return shares, centred


def test_totals_are_sums_of_the_full_contributions(booster, rows):
    X = rows[0][: 2 * LANES + 9]
    shares, centred = full(booster, X)

    totals = sum_contributions(make_explainer(booster), X)

    assert totals.parts == PARTS
    for place, part in enumerate(PARTS):
        columns = COLUMNS[part]
        assert_allclose(totals.signed[:, :, place], shares[:, :, columns].sum(2), atol=1e-12)
        sizes = np.abs(centred[:, :, columns]).sum(2)
        assert_allclose(totals.absolute[:, :, place], sizes, atol=1e-12)
    for column, name in enumerate(booster.names):
        assert_allclose(totals.of_feature[name], np.abs(centred[:, :, column]).sum(0))
    means = np.abs(centred[:, :, 1] + centred[:, :, 2]).sum(0)
    assert_allclose(totals.of_dimension["audio", 0], means)


def test_signed_totals_and_base_add_up_to_the_margin(booster, rows):
    totals = sum_contributions(make_explainer(booster), rows[0])

    margins = booster.contributions(rows[0]).sum(axis=2)
    assert_allclose(totals.signed.sum(axis=2) + totals.base, margins, atol=1e-5)


def test_centred_contributions_sum_to_zero_over_the_classes_trained_on():
    rng = np.random.default_rng(0)
    shares = rng.normal(size=(4, 3, 2))
    trained = np.array([[True, True, True]] * 2 + [[True, False, True], [False] * 3])
    shares[~trained] = 0

    centred = centre(shares, trained)

    assert_allclose(centred.sum(axis=1), 0, atol=1e-12)
    assert_allclose(centred[2, 0] - centred[2, 2], shares[2, 0] - shares[2, 2])
    assert not centred[~trained].any()


def test_models_with_other_features_are_joined_by_name(kind, train, rows):
    X = rows[0]
    first = train(kind)
    order = [3, 4, 0, 1, 2]
    names = tuple(first.names[column] for column in order)
    second = train(kind, X=X[:, order], names=names)
    halves = np.arange(0, 300, 2), np.arange(1, 300, 2)
    parts = [
        sum_contributions(make_explainer(first), X[halves[0]]),
        sum_contributions(make_explainer(second), X[halves[1]][:, order]),
    ]

    joined = join_totals(parts, halves, 301)

    for part, columns in COLUMNS.items():
        place = joined.parts.index(part)
        expected = full(second, X[:, order])[0][1::2][:, :, [order.index(k) for k in columns]]
        assert_allclose(joined.signed[1:300:2, :, place], expected.sum(2), atol=1e-12)
    assert not joined.trained[300].any()
    own = [part.of_feature["text__value__0000"] for part in parts]
    assert_allclose(joined.of_feature["text__value__0000"], own[0] + own[1])


def test_memory_does_not_grow_with_rows_times_features(train):
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 100)
    peaks = {}
    for n_features in (200, 2000):
        X = rng.normal(size=(300, n_features)).astype(np.float32)
        X[np.arange(300), labels] += 2
        names = tuple(f"text__value__{k:04d}" for k in range(n_features))
        booster = train("lightgbm", X=X, names=names, n_rounds=4)
        many = np.tile(X, (10, 1))
        explainer = make_explainer(booster)
        sum_contributions(explainer, many[:70])
        tracemalloc.start()
        sum_contributions(explainer, many)
        peaks[n_features] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peaks[2000] < 1.5 * peaks[200] + 1e6
    assert peaks[2000] < 3000 * 2000 * 3 * 8 / 10
