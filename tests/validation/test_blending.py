"""The linear part beside trees, and the tuned logistic regression, chosen out of fold."""

import base64
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from toolkit.models import Features, preparation
from toolkit.models.linear import LinearPath
from toolkit.validation import blending
from toolkit.validation.blending import add_linear_part, tune_logistic
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import final_fold, inner_folds, speaker_folds
from toolkit.validation.ledger import LeakageError, Ledger, audit_entries
from toolkit.validation.nested import Protocol, run_logistic_unit, run_unit
from toolkit.validation.search import SearchOptions

N_DIMS = 12
MULTIPLES = (1, 3, 10, 30, 100)
RECIPE = {"statistics": "rich", "screening": "none", "imbalance": "none", "max_bin": 31}
PARAMS = RECIPE | {
    "booster": "lightgbm",
    "learning_rate": 0.3,
    "num_leaves": 4,
    "min_data_in_leaf": 3,
}
XGBOOST = RECIPE | {"booster": "xgboost", "eta": 0.3, "max_depth": 2}
OPTIONS = SearchOptions(
    imbalance=("none", "weights"), screening=("none", "ftest-6"), n_trials=3, max_rounds=10
)


@pytest.fixture(scope="module")
def fold(manifest):
    return speaker_folds(manifest)[4]


@pytest.fixture(scope="module")
def folds(manifest, fold):
    return inner_folds(
        manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="out-of-fold"
    )


@pytest.fixture(scope="module")
def values(manifest):
    """Columns with a linear signal, one that bends, one far out, and some gaps."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(len(manifest), N_DIMS))
    values[:, :4] += 1.2 * np.eye(4)[manifest.labels]
    values[:, 4] = np.abs(values[:, 4] + 1.5 * (manifest.labels % 2))
    values[:, 5] = np.exp(2 * values[:, 5])
    values[::9, 6] = np.nan
    return values.astype(np.float32)


def make_features(values, present=None):
    return Features(
        values=np.asarray(values, dtype=np.float32),
        names=tuple(f"text__value__{i:04d}" for i in range(values.shape[1])),
        present=np.ones(len(values), dtype=bool) if present is None else present,
        presets={"rich": np.arange(values.shape[1])},
    )


@pytest.fixture(scope="module")
def make_fits(manifest, fold, values):
    def make(*, labels=manifest.labels, values=values, present=None):
        features = make_features(values, present)
        return InnerFits(
            features,
            labels,
            fold.train[features.present[fold.train]],
            n_classes=4,
            ledger=Ledger("text", fold, manifest.utterances, manifest.speakers),
            seed=0,
        )

    return make


def blend(fits, folds, params=PARAMS):
    """A linear part beside trees of eight rounds; the trees' out-of-fold probabilities too."""
    rows, trees = fits.out_of_fold(params, 8, folds, purpose="out-of-fold")
    booster, _ = fits.fit(params, fits.outer_rows, fit="refit", n_rounds=8)
    return rows, trees, add_linear_part(fits, params, booster, folds, trees)


def fit_exactly(X, y, multiple, new, *, weights=None, indicators=False):
    """Probabilities (n_new, 4) of new rows, by numpy and scikit-learn in float64."""
    X, new = X.astype(np.float64), new.astype(np.float64)
    means, sds = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
    centre = np.nanmean(np.clip((X - means) / sds, -3, 3), axis=0)
    gaps = np.isnan(X)
    flagged = [k for k in range(X.shape[1]) if indicators and gaps[:, k].any()]

    def prepare(rows):
        z = np.clip((rows - means) / sds, -3, 3)
        return np.column_stack([np.where(np.isnan(z), centre, z), np.isnan(rows[:, flagged])])

    columns = prepare(X)
    model = LogisticRegression(C=multiple / columns.shape[1], tol=1e-8, max_iter=10_000)
    model.fit(columns, y, sample_weight=weights)
    proba = np.zeros((len(new), 4))
    proba[:, model.classes_] = model.predict_proba(prepare(new))
    return proba


def weigh_exactly(linear, trees, labels):
    """Weights and penalised loss by another minimiser, from the definition."""
    members = [np.log(np.maximum(each, 1e-12)) for each in (linear, trees)]
    rows = np.arange(len(labels))

    def loss(weights):
        logs = log_softmax(weights[0] * members[0] + weights[1] * members[1], axis=1)
        pull = 30 / len(labels) * ((weights - 0.5) ** 2).sum()
        return -logs[rows, labels].mean() + pull

    options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 10_000}
    bounds = [(0, None), (0, None)]
    found = minimize(loss, [0.4, 0.6], method="Nelder-Mead", bounds=bounds, options=options)
    return found.x, found.fun


def out_of_fold(values, labels, folds, multiple, weigh=None, **options):
    """Out-of-fold probabilities of the linear part, in the order of the rows."""
    rows = np.concatenate([inner.test for inner in folds])
    probas = []
    for inner in folds:
        y = labels[inner.train]
        weights = weigh and weigh(y)
        probas.append(
            fit_exactly(
                values[inner.train], y, multiple, values[inner.test], weights=weights, **options
            )
        )
    return np.concatenate(probas)[np.argsort(rows)]


def choose_exactly(values, labels, folds, trees, *, keep=None, weigh=None):
    """The multiple of C, both weights and the linear probabilities, chosen beside trees."""
    rows = np.sort(np.concatenate([inner.test for inner in folds]))
    keep = np.ones(len(rows), dtype=bool) if keep is None else keep
    found = []
    for multiple in MULTIPLES:
        linear = out_of_fold(values, labels, folds, multiple, weigh)
        weights, loss = weigh_exactly(linear[keep], trees[keep], labels[rows][keep])
        found.append((loss, multiple, weights, linear))
    return min(found, key=lambda each: each[0])[1:]


def alone(values, labels, folds, **options):
    """The multiple of C of the lowest out-of-fold log-loss of the linear part alone."""
    rows = np.sort(np.concatenate([inner.test for inner in folds]))
    losses = []
    for multiple in MULTIPLES:
        proba = out_of_fold(values, labels, folds, multiple, **options)
        losses.append(-np.log(proba[np.arange(len(rows)), labels[rows]]).mean())
    return MULTIPLES[int(np.argmin(losses))]


def balance_classes(y):
    """Weights of rows by the definition: all classes together weigh the same."""
    counts = np.bincount(y, minlength=4)
    return len(y) / ((counts > 0).sum() * counts[y])


def mix(weights, linear, trees):
    return softmax(weights[0] * np.log(linear) + weights[1] * np.log(trees), axis=1)


def weights_of(found):
    return [found.record["linear"], found.record["trees"]]


@pytest.mark.parametrize("params", [PARAMS, XGBOOST], ids=lambda each: each["booster"])
def test_penalty_and_weights_minimise_the_out_of_fold_loss_beside_the_trees(
    make_fits, manifest, folds, values, params
):
    fits, labels = make_fits(), manifest.labels
    new = values[fits.ledger.fold.test]

    rows, trees, found = blend(fits, folds, params)

    multiple, weights, linear = choose_exactly(values, labels, folds, trees)
    assert found.record["C_times_p"] == multiple
    assert_allclose(weights_of(found), weights, atol=2e-3)
    assert found.booster.weights == tuple(weights_of(found))
    assert_allclose(found.inner_linear, linear, atol=1e-3)
    assert_allclose(found.inner_proba, mix(weights, linear, trees), atol=2e-3)
    # The model is refitted on all rows that may teach, under the same penalty.
    whole = fit_exactly(values[rows], labels[rows], multiple, new)
    own = found.booster.predict_parts(new)
    assert_allclose(own["linear"], whole, atol=1e-3)
    both = mix(weights, whole, own["trees"])
    assert_allclose(found.booster.predict_proba(new), both, atol=2e-3)


def test_the_penalty_is_not_that_of_the_linear_part_alone(make_fits, manifest, folds, values):
    _, _, found = blend(make_fits(), folds)

    assert alone(values, manifest.labels, folds) == 1
    assert found.record["C_times_p"] == 3


def test_class_weights_are_the_same_in_both_parts(make_fits, manifest, folds, values):
    labels, params = manifest.labels, PARAMS | {"imbalance": "weights"}

    _, trees, found = blend(make_fits(), folds, params)

    chosen = choose_exactly(values, labels, folds, trees, weigh=balance_classes)
    multiple, weights, linear = chosen
    assert found.record["C_times_p"] == multiple
    assert_allclose(weights_of(found), weights, atol=2e-3)
    assert_allclose(found.inner_linear, linear, atol=1e-3)
    unweighted = out_of_fold(values, labels, folds, multiple)
    assert np.abs(found.inner_linear - unweighted).max() > 0.01


def watch_rows(monkeypatch):
    """Keep the rows, labels and weights that trees and linear parts are given."""
    trees, linear = [], []
    make = preparation.make_training_data

    def note_trees(kind, X, y, *, weights=None, **options):
        if "reference" in options:  # the trees that rank columns by gain have no bins of others
            trees.append((X, y, weights))
        return make(kind, X, y, weights=weights, **options)

    def note_linear(X, y, *, weights=None, **options):
        linear.append((X, y, weights))
        return LinearPath(X, y, weights=weights, **options)

    monkeypatch.setattr(preparation, "make_training_data", note_trees)
    monkeypatch.setattr(blending, "LinearPath", note_linear)
    return trees, linear


@pytest.mark.parametrize("params", [PARAMS, XGBOOST], ids=lambda each: each["booster"])
@pytest.mark.parametrize(
    "recipe",
    [
        {"imbalance": "smote", "screening": "none"},
        {"imbalance": "smote", "screening": "ftest-5"},
        {"imbalance": "oversample", "screening": "gain-5"},
        {"imbalance": "smote_tomek", "screening": "none"},
        {"imbalance": "weights", "screening": "ftest-5"},
    ],
)
def test_both_parts_are_given_the_same_rows(make_fits, folds, monkeypatch, params, recipe):
    trees, linear = watch_rows(monkeypatch)

    blend(make_fits(), folds, params | recipe)

    assert len(trees) == len(linear) == 4  # three inner fits and the refit
    for of_trees, of_linear in zip(trees, linear, strict=True):
        for one, other in zip(of_trees, of_linear, strict=True):
            assert_array_equal(one, other)
        assert of_trees[0].shape[1] == (12 if recipe["screening"] == "none" else 5)
    counts = [len(inner.train) for inner in folds]
    made = [len(y) for _, y, _ in linear[:3]]
    assert (made == counts) == (recipe["imbalance"] == "weights")


def test_rows_of_a_class_that_a_fit_did_not_see_decide_nothing(
    make_fits, manifest, folds, values
):
    # One inner part alone has class 3, so the fit that predicts it cannot know the class.
    labels = np.where(manifest.labels == 3, manifest.labels % 2, manifest.labels)
    own = folds[0].test
    labels[own[::4]] = 3
    rows = np.sort(np.concatenate([inner.test for inner in folds]))
    unseen = np.isin(rows, own) & (labels[rows] == 3)

    _, trees, found = blend(make_fits(labels=labels), folds)

    multiple, weights, linear = choose_exactly(values, labels, folds, trees, keep=~unseen)
    assert (trees[unseen, 3] == 0).all()
    assert (found.inner_linear[np.isin(rows, own), 3] == 0).all()
    assert (found.inner_proba[np.isin(rows, own), 3] == 0).all()
    assert found.record["C_times_p"] == multiple
    assert_allclose(weights_of(found), weights, atol=2e-3)
    with_them = weigh_exactly(linear, trees, labels[rows])[0]
    assert np.abs(with_them - weights).max() > 0.02
    assert found.booster.classes == found.booster.linear.classes == (0, 1, 2, 3)


def test_absent_rows_keep_the_priors_and_decide_nothing(make_fits, manifest, folds, values):
    present = np.arange(len(manifest)) % 4 != 1
    garbage, holes = values.copy(), values.copy()
    garbage[~present] = 1e6 * np.random.default_rng(1).normal(size=garbage[~present].shape)
    holes[~present] = np.nan

    (rows, trees, one), (_, _, other) = (
        blend(make_fits(values=each, present=present), folds) for each in (garbage, holes)
    )

    assert one.record == other.record
    assert_array_equal(one.inner_proba, other.inner_proba)
    assert_array_equal(one.booster.linear.coefficients, other.booster.linear.coefficients)
    for inner in folds:
        absent = np.isin(rows, inner.test) & ~present[rows]
        shares = np.bincount(manifest.labels[inner.train], minlength=4) / len(inner.train)
        for proba in (one.inner_proba, one.inner_linear):
            assert_allclose(proba[absent], np.tile(shares, (absent.sum(), 1)))
    there = [
        replace(
            inner, train=inner.train[present[inner.train]], test=inner.test[present[inner.test]]
        )
        for inner in folds
    ]
    multiple, weights, _ = choose_exactly(values, manifest.labels, there, trees[present[rows]])
    assert one.record["C_times_p"] == multiple
    assert_allclose(weights_of(one), weights, atol=2e-3)


def test_linear_probabilities_are_blind_to_the_labels_of_their_own_inner_part(
    make_fits, manifest, folds, monkeypatch
):
    # With one penalty, the labels have nothing to choose.
    monkeypatch.setattr(blending, "MULTIPLES", (10,))
    inner, labels = folds[1], manifest.labels.copy()
    labels[inner.test] = (labels[inner.test] + 1) % 4

    (rows, _, one), (_, _, other) = (
        blend(make_fits(labels=each), folds) for each in (manifest.labels, labels)
    )

    own = np.isin(rows, inner.test)
    assert_array_equal(one.inner_linear[own], other.inner_linear[own])
    assert not np.array_equal(one.inner_linear[~own], other.inner_linear[~own])


def recorded(ledger_entries, n_rows):
    """Rows of each fit and role in a ledger."""
    return {
        (entry["fit"], entry["role"]): np.flatnonzero(
            np.unpackbits(
                np.frombuffer(base64.b64decode(entry["rows"]), np.uint8), count=n_rows
            )
        ).tolist()
        for entry in ledger_entries
    }


def test_every_fit_and_choice_of_the_linear_part_is_in_the_ledger(
    make_fits, manifest, fold, folds
):
    fits = make_fits()
    params = PARAMS | {"screening": "ftest-5", "imbalance": "smote"}

    blend(fits, folds, params)

    entries = fits.ledger.entries()
    found = recorded(entries, len(manifest))
    expected = {("linear part", "choose"): fold.train.tolist()}
    for role in ("screen", "resample parent", "train"):
        expected["linear refit", role] = fold.train.tolist()
        for inner in folds:
            expected[f"linear {inner.number}", role] = inner.train.tolist()
    for inner in folds:
        expected[f"linear {inner.number}", "validate"] = inner.test.tolist()
    assert {key: rows for key, rows in found.items() if "linear" in key[0]} == expected
    assert audit_entries("text", fold, entries, manifest.speakers) == []


def test_inner_sides_that_share_a_person_are_refused(make_fits, folds):
    fits = make_fits()
    _, trees = fits.out_of_fold(PARAMS, 2, folds, purpose="out-of-fold")
    booster, _ = fits.fit(PARAMS, fits.outer_rows, fit="refit", n_rounds=2)
    mixed = [replace(inner, train=np.union1d(inner.train, inner.test[:1])) for inner in folds]

    with pytest.raises(LeakageError, match=r"fit 'linear 0'.* validation utterance"):
        add_linear_part(fits, PARAMS, booster, mixed, trees)


def test_a_held_out_row_is_refused_in_the_refit(make_fits, fold, folds):
    fits = make_fits()
    _, trees = fits.out_of_fold(PARAMS, 2, folds, purpose="out-of-fold")
    booster, _ = fits.fit(PARAMS, fits.outer_rows, fit="refit", n_rounds=2)
    fits.outer_rows = np.append(fold.train, fold.test[0])

    with pytest.raises(LeakageError, match="held out"):
        add_linear_part(fits, PARAMS, booster, folds, trees)


def run(manifest, values, fold, *, present=None, **options):
    return run_unit(
        manifest,
        make_features(values, present),
        fold,
        system="text",
        protocol=Protocol(),
        options=replace(OPTIONS, **options),
    )


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost"])
def test_the_trees_of_a_unit_are_those_without_a_linear_part(manifest, values, fold, kind):
    both, trees = (
        run(manifest, values, fold, boosters=(kind,), linear=linear)
        for linear in ("auto", "none")
    )

    assert trees.booster.linear is None
    assert (trees.parts, trees.inner_parts) == ({}, {})
    assert both.search == trees.search
    assert both.booster.to_bytes() == trees.booster.to_bytes()
    assert_array_equal(both.parts["trees"], trees.proba)
    assert_array_equal(both.inner_parts["trees"], trees.inner_proba)
    assert {name: both.record[name] for name in trees.record} == trees.record
    assert both.record.keys() - trees.record.keys() == {"linear"}
    assert trees.ledger == [e for e in both.ledger if not e["fit"].startswith("linear")]


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost"])
def test_a_unit_predicts_by_the_weighted_sum_of_its_parts(manifest, values, fold, kind):
    present = np.ones(len(manifest), dtype=bool)
    present[[*fold.test[:2], *fold.train[:3]]] = False
    holes = np.where(present[:, None], values, np.nan)

    unit = run(manifest, holes, fold, present=present, boosters=(kind,))

    weights = [unit.record["linear"][part] for part in ("linear", "trees")]
    shares = np.bincount(manifest.labels[fold.train], minlength=4) / len(fold.train)
    for proba, parts, there in (
        (unit.proba, unit.parts, unit.present),
        (unit.inner_proba, unit.inner_parts, unit.inner_present),
    ):
        assert list(parts) == ["trees", "linear"]
        both = mix(weights, parts["linear"], parts["trees"])
        assert_allclose(proba[there], both[there], atol=1e-5)
        assert np.abs(proba[there] - parts["trees"][there]).max() > 0.02
    for proba in (unit.proba, *unit.parts.values()):
        assert_allclose(proba[:2], [shares, shares])
    assert audit_entries("text", fold, unit.ledger, manifest.speakers) == []


def test_a_class_absent_from_training_has_no_probability_in_any_part(manifest, values, fold):
    labels = manifest.labels.copy()
    labels[fold.train] = np.where(labels[fold.train] == 2, 3, labels[fold.train])

    unit = run(replace(manifest, labels=labels), values, fold)

    assert unit.booster.linear.classes == (0, 1, 3)
    for proba in (unit.proba, unit.inner_proba, *unit.parts.values()):
        assert (proba[:, 2] == 0).all()


def test_two_classes_have_a_linear_part_too(manifest, values, fold):
    two = replace(manifest, labels=manifest.labels % 2, classes=("even", "odd"))

    unit = run(two, values, fold)

    weights = [unit.record["linear"][part] for part in ("linear", "trees")]
    both = mix(weights, unit.parts["linear"], unit.parts["trees"])
    assert_allclose(unit.proba, both, atol=1e-5)
    assert (unit.proba.argmax(axis=1) == two.labels[fold.test]).mean() > 0.6


def test_a_final_model_has_a_linear_part_and_no_test_rows(manifest, values):
    unit = run(manifest, values, final_fold(manifest))

    assert unit.booster.linear is not None
    assert {part: proba.shape for part, proba in unit.parts.items()} == {
        "trees": (0, 4),
        "linear": (0, 4),
    }


def tune(manifest, values, fold, folds, *, labels=None, present=None, metric="log_loss"):
    labels = manifest.labels if labels is None else labels
    features = make_features(values, present)
    ledger = Ledger("text-logistic", fold, manifest.utterances, manifest.speakers)
    model, _, multiple = tune_logistic(
        features,
        labels,
        fold.train[features.present[fold.train]],
        folds,
        statistics="rich",
        metric=metric,
        n_classes=4,
        ledger=ledger,
    )
    return model, multiple, ledger.entries()


@pytest.mark.parametrize("noise", [1.0, 0.5])
def test_the_logistic_baseline_takes_the_penalty_of_the_lowest_out_of_fold_loss(
    manifest, values, fold, folds, noise
):
    labels, expected = manifest.labels, {1.0: 1, 0.5: 10}[noise]
    clearer, signal = values.copy(), 1.2 * np.eye(4)[labels]
    clearer[:, :4] = (values[:, :4] - signal) * noise + signal

    model, multiple, _ = tune(manifest, clearer, fold, folds)

    assert multiple == alone(clearer, labels, folds, indicators=True) == expected
    exact = fit_exactly(
        clearer[fold.train],
        labels[fold.train],
        multiple,
        clearer[fold.test],
        indicators=True,
    )
    assert_allclose(model.predict_proba(clearer[fold.test]), exact, atol=2e-3)


def test_the_penalty_of_the_baseline_has_the_best_score_by_the_metric(
    manifest, values, fold, folds
):
    labels = manifest.labels
    signal = 1.2 * np.eye(4)[labels]
    values = values.copy()
    values[:, :4] = (values[:, :4] - signal) * 0.5 + signal
    right = [
        (
            out_of_fold(values, labels, folds, each, indicators=True).argmax(axis=1)
            == labels[np.sort(np.concatenate([inner.test for inner in folds]))]
        ).sum()
        for each in MULTIPLES
    ]

    _, by_hits, _ = tune(manifest, values, fold, folds, metric="f1_micro")
    _, by_loss, _ = tune(manifest, values, fold, folds)

    assert by_hits == MULTIPLES[int(np.argmax(right))]
    assert by_hits != by_loss


def test_absent_rows_are_not_scored_where_a_metric_chooses_the_penalty(
    manifest, values, fold, folds
):
    present = np.arange(len(manifest)) % 2 != 1
    labels = np.where(present, manifest.labels, 2)  # those absent make class 2 a large one
    there = [
        replace(
            inner, train=inner.train[present[inner.train]], test=inner.test[present[inner.test]]
        )
        for inner in folds
    ]
    rows = np.sort(np.concatenate([inner.test for inner in there]))
    scores = [
        f1_score(
            labels[rows],
            out_of_fold(values, labels, there, each, indicators=True).argmax(axis=1),
            average="macro",
        )
        for each in MULTIPLES
    ]

    _, multiple, _ = tune(
        manifest, values, fold, folds, labels=labels, present=present, metric="f1_macro"
    )

    assert multiple == MULTIPLES[int(np.argmax(scores))]


def test_the_baseline_of_a_unit_is_tuned_on_the_folds_that_search_the_trees(
    manifest, values, fold
):
    searched = inner_folds(
        manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="search"
    )

    unit = run_logistic_unit(
        manifest,
        make_features(values),
        fold,
        system="text-logistic",
        statistics="rich",
        metric="log_loss",
        protocol=Protocol(),
    )

    multiple = alone(values, manifest.labels, searched, indicators=True)
    assert unit.record["C_times_p"] == multiple
    exact = fit_exactly(
        values[fold.train],
        manifest.labels[fold.train],
        multiple,
        values[fold.test],
        indicators=True,
    )
    assert_allclose(unit.proba, exact, atol=2e-3)
    found = recorded(unit.ledger, len(manifest))
    expected = {
        ("class shares", "train"): fold.train.tolist(),
        ("search", "choose"): fold.train.tolist(),
        ("refit", "train"): fold.train.tolist(),
    }
    for inner in searched:
        expected[f"inner {inner.number}", "train"] = inner.train.tolist()
        expected[f"inner {inner.number}", "validate"] = inner.test.tolist()
    assert found == expected


def test_absent_rows_choose_no_penalty_of_the_baseline(manifest, values, fold, folds):
    present = np.arange(len(manifest)) % 4 != 1
    there = [
        replace(
            inner, train=inner.train[present[inner.train]], test=inner.test[present[inner.test]]
        )
        for inner in folds
    ]
    garbage = values.copy()
    garbage[~present] = 1e6

    model, multiple, entries = tune(manifest, garbage, fold, folds, present=present)

    assert multiple == alone(values, manifest.labels, there, indicators=True)
    rows = fold.train[present[fold.train]]
    exact = fit_exactly(
        values[rows], manifest.labels[rows], multiple, values[fold.test], indicators=True
    )
    assert_allclose(model.predict_proba(values[fold.test]), exact, atol=2e-3)
    assert recorded(entries, len(manifest))["refit", "train"] == rows.tolist()


def test_the_baseline_is_tuned_though_an_inner_fit_lacks_a_class(manifest, values, fold, folds):
    labels = np.where(manifest.labels == 3, manifest.labels % 2, manifest.labels)
    own = folds[0].test
    labels[own[::4]] = 3

    model, multiple, _ = tune(manifest, values, fold, folds, labels=labels)

    rows = np.sort(np.concatenate([inner.test for inner in folds]))
    seen = ~(np.isin(rows, own) & (labels[rows] == 3))
    losses = []
    for each in MULTIPLES:
        proba = out_of_fold(values, labels, folds, each, indicators=True)
        losses.append(-np.log(proba[np.arange(len(rows)), labels[rows]][seen]).mean())
    assert multiple == MULTIPLES[int(np.argmin(losses))]
    assert model.classes == (0, 1, 2, 3)


def test_a_baseline_whose_inner_sides_share_a_person_is_refused(manifest, values, fold, folds):
    mixed = [replace(inner, train=np.union1d(inner.train, inner.test[:1])) for inner in folds]

    with pytest.raises(LeakageError, match="validation utterance"):
        tune(manifest, values, fold, mixed)


def test_features_of_held_out_people_change_no_baseline(manifest, values, fold, folds):
    noise = values.copy()
    noise[fold.test] = 1e6

    (one, *_), (other, *_) = (tune(manifest, each, fold, folds) for each in (values, noise))

    for name in ("means", "scales", "centre", "coefficients", "base", "effects"):
        assert_array_equal(getattr(one, name), getattr(other, name))
