"""The number of rounds: from the curves of the inner folds to the score and the later fits.

The fits of a trial have four times the learning rate of the model and a quarter of the rounds,
those out of fold twice and half. Expected values come from sums done by hand, and from the
libraries called directly.
"""

from types import SimpleNamespace

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb

from toolkit.models import Features
from toolkit.models.spaces import make_grid
from toolkit.validation import fits as inner_fits
from toolkit.validation.folds import inner_folds, speaker_folds
from toolkit.validation.ledger import Ledger
from toolkit.validation.nested import Protocol, run_unit
from toolkit.validation.search import SearchOptions

N_DIMS, MAX_BIN, MAX_ROUNDS, PATIENCE = 4, 15, 93, 10
#: All rows and columns for every tree: no seed matters.
PARAMS = {
    "lightgbm": {
        "num_leaves": 3,
        "min_data_in_leaf": 5,
        "lambda_l2": 1.0,
        "feature_fraction": 1.0,
        "bagging_fraction": 1.0,
        "extra_trees": False,
    },
    "xgboost": {
        "max_depth": 2,
        "min_child_weight": 1.0,
        "reg_lambda": 1.0,
        "colsample_bytree": 1.0,
        "subsample": 1.0,
    },
}
RATE = {"lightgbm": "learning_rate", "xgboost": "eta"}
#: The slowest trial ends at the limit, the others stop before it; the second is the best. Four
#: times the third and the fourth would be above 1.
RATES = [0.01, 0.05, 0.35, 0.7]
#: The learning rate of a trial's fits, their rounds and their patience, rounded up.
COARSE = {
    0.01: (0.04, 24, 3),
    0.05: (0.2, 24, 3),
    0.35: (1.0, 33, 4),
    0.7: (1.0, 66, 7),
}


@pytest.fixture(scope="module")
def fold(manifest):
    return speaker_folds(manifest)[1]


@pytest.fixture(scope="module")
def features(manifest):
    # With this seed the inner folds ask for clearly different numbers of rounds.
    values = np.random.default_rng(1).normal(size=(len(manifest), N_DIMS))
    values[:, 0] += manifest.labels
    return Features(
        values=values.astype(np.float32),
        names=tuple(f"text__value__{i:04d}" for i in range(N_DIMS)),
        present=np.ones(len(manifest), dtype=bool),
        presets={"rich": np.arange(N_DIMS)},
    )


@pytest.fixture(scope="module")
def split(manifest, fold):
    def make(purpose):
        options = {"grouping": "speaker", "n_folds": 3, "seed": 0}
        return inner_folds(manifest, fold, purpose=purpose, **options)

    return make


RECIPE = {
    "booster": "lightgbm",
    "statistics": "rich",
    "screening": "none",
    "imbalance": "none",
    "max_bin": MAX_BIN,
}


@pytest.fixture
def fits(manifest, fold, features):
    ledger = Ledger("text", fold, manifest.utterances, manifest.speakers)
    return inner_fits.InnerFits(
        features, manifest.labels, fold.train, n_classes=4, ledger=ledger, seed=0
    )


def test_rounds_and_score_of_a_trial_are_those_of_sums_done_by_hand(fits, split, monkeypatch):
    # Log-loss in bits after each round. The first fold stopped and stays at its last value,
    # so the sums are 7 4 9 6 8 over two folds, and 11 10 10 9 11 over three.
    curves = iter([[2, 1, 4], [5, 3, 5, 2, 4], [4, 6, 1, 3, 3]])

    def follow_the_curve(*_, validation, on_round, **__):
        bits, labels = np.array(next(curves)), validation.labels
        for p in 0.5**bits:
            proba = np.full((len(labels), 4), (1 - p) / 3)
            proba[np.arange(len(labels)), labels] = p
            on_round(proba)
        return SimpleNamespace(curve=bits * np.log(2))

    monkeypatch.setattr(inner_fits, "fit_booster", follow_the_curve)
    folds = split("search")
    found = list(fits.evaluate(RECIPE, folds, metric="log_loss", max_rounds=5, patience=1))

    # All rows weigh the same in the score, all folds in the choice of the rounds.
    a, b, c = (len(inner.test) for inner in folds)
    bits = [1, (a + 3 * b) / (a + b), (4 * a + 2 * b + 3 * c) / (a + b + c)]
    assert [n_rounds for _, n_rounds in found] == [2, 2, 4]
    scores = [value.score for value, _ in found]
    assert scores == pytest.approx(np.log(2) * np.array(bits), rel=1e-6)


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    # 2,739 rows are the geometric mean of both limits, 2.83 that of both steps.
    [(1, 4), (1_500, 4), (2_739, 2.83), (5_000, 2), (1_000_000, 2)],
)
def test_the_step_of_trials_lies_between_those_of_few_and_of_many_rows(n_rows, expected):
    assert inner_fits._find_step(n_rows) == expected


def test_the_fits_of_a_trial_have_the_step_of_their_rows(fits, split, monkeypatch):
    called = []

    def note(_, params, *, n_rounds, patience, validation, on_round, **__):
        called.append((params["learning_rate"], n_rounds, patience))
        on_round(np.full((len(validation.labels), 4), 0.25))
        return SimpleNamespace(curve=np.array([1.0]))

    monkeypatch.setattr(inner_fits, "fit_booster", note)
    # Half-way on logarithmic scales: 4 / sqrt(2) = 2.83.
    n = len(fits.outer_rows)
    monkeypatch.setattr(inner_fits, "COARSE_ROWS", (n / 2, 2 * n))
    params = RECIPE | {"learning_rate": 0.1}
    found = list(
        fits.evaluate(params, split("search"), metric="uar", max_rounds=100, patience=16)
    )

    assert called == 3 * [(pytest.approx(0.283), 36, 6)]
    assert [n_rounds for _, n_rounds in found] == [3, 3, 3]


def boost_lightgbm(params, data, train, n_rounds):
    """Fit on some of the outer rows, and give the function of rows and rounds that predicts."""
    X, y, outer = data
    bins = {"max_bin": MAX_BIN, "feature_pre_filter": False, "verbosity": -1, "num_threads": 1}
    edges = lgb.Dataset(X[outer], y[outer], params=bins)
    rows = lgb.Dataset(X[train], y[train], reference=edges, params=bins)
    model = lgb.train(params | bins | {"objective": "multiclass"}, rows, n_rounds)
    return lambda rows, n: model.predict(X[rows], num_iteration=n)


def boost_xgboost(params, data, train, n_rounds):
    """Do the same by the other library."""
    X, y, outer = data
    bins = {"max_bin": MAX_BIN, "nthread": 1}
    edges = xgb.QuantileDMatrix(X[outer], y[outer], **bins)
    rows = xgb.QuantileDMatrix(X[train], y[train], ref=edges, **bins)
    model = xgb.train(params | bins | {"objective": "multi:softprob"}, rows, n_rounds)
    return lambda rows, n: model.inplace_predict(X[rows], iteration_range=(0, n))


@pytest.fixture(scope="module", params=["lightgbm", "xgboost"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def boost(manifest, fold, features, kind):
    data = features.values, manifest.labels, fold.train
    fit_directly = {"lightgbm": boost_lightgbm, "xgboost": boost_xgboost}[kind]

    def fit(rate, train, n_rounds):
        params = PARAMS[kind] | {RATE[kind]: rate, "num_class": 4}
        return fit_directly(params, data, train, n_rounds)

    return fit


@pytest.fixture(scope="module")
def unit(manifest, fold, features, kind):
    grid = PARAMS[kind] | {RATE[kind]: RATES, "max_bin": MAX_BIN}
    options = SearchOptions(
        boosters=(kind,),
        screening=("none",),
        imbalance=("none",),
        sampler="grid",
        grids={kind: make_grid(kind, grid)},
        metric="log_loss",
        racing=False,
        max_rounds=MAX_ROUNDS,
        patience=PATIENCE,
        linear="none",
    )
    return run_unit(
        manifest, features, fold, system="text", protocol=Protocol(), options=options
    )


def follow_until_stop(predict, rows, labels, max_rounds, patience):
    """Log-losses of the rows by round, until `patience` rounds after the lowest mean."""
    path = []
    for n in range(1, max_rounds + 1):
        path.append(-np.log(predict(rows, n)[np.arange(len(rows)), labels[rows]]))
        if n - 1 - np.argmin([losses.mean() for losses in path]) == patience:
            break
    return path


@pytest.fixture(scope="module")
def paths(manifest, split, boost):
    """Give the log-losses of each inner fold's rows round by round, for every rate."""
    return {
        rate: [
            follow_until_stop(
                boost(coarse, inner.train, most), inner.test, manifest.labels, most, patience
            )
            for inner in split("search")
        ]
        for rate, (coarse, most, patience) in COARSE.items()
    }


def choose_by_hand(paths):
    """Rounds where the mean curve is lowest, the score there, and every fold's own rounds."""
    longest = max(len(path) for path in paths)
    padded = [path + [path[-1]] * (longest - len(path)) for path in paths]
    curves = np.array([[losses.mean() for losses in path] for path in padded])
    n_rounds = int(curves.sum(axis=0).argmin()) + 1
    score = np.concatenate([path[n_rounds - 1] for path in padded]).mean()
    return n_rounds, score, curves.argmin(axis=1) + 1


def test_rounds_and_score_of_every_trial_are_those_of_direct_fits(unit, paths, kind):
    for trial in unit.search.trials:
        rate = trial["params"][RATE[kind]]
        n_rounds, score, _ = choose_by_hand(paths[rate])
        assert trial["n_rounds"] == min(round(n_rounds * COARSE[rate][0] / rate), MAX_ROUNDS)
        assert trial["score"] == pytest.approx(score, rel=1e-5)
    assert len(unit.search.trials) == len(RATES)


def test_the_chosen_trial_is_no_easy_case(unit, paths, kind):
    # One fold stopped before the rounds chosen, another went on after them, and the last
    # fold alone asks for others.
    n_rounds, score, own = choose_by_hand(paths[RATES[1]])
    lengths = [len(path) for path in paths[RATES[1]]]

    assert min(lengths) < n_rounds < max(lengths)
    assert n_rounds != own[-1]
    assert score == min(choose_by_hand(each)[1] for each in paths.values())
    assert unit.search.params[RATE[kind]] == RATES[1]


@pytest.fixture(scope="module")
def chosen(paths):
    """Give the rounds at the learning rate itself: four for each of the coarse fits."""
    return 4 * choose_by_hand(paths[RATES[1]])[0]


def test_the_refit_has_the_rounds_of_the_mean_curve(fold, unit, boost, chosen):
    expected = boost(RATES[1], fold.train, chosen)(fold.test, chosen)

    assert unit.search.n_rounds == chosen
    np.testing.assert_allclose(unit.proba, expected, rtol=0, atol=1e-5)


def test_out_of_fold_fits_have_the_rounds_of_the_mean_curve(unit, split, boost, chosen):
    for inner in split("out-of-fold"):
        n_rounds = chosen // 2
        expected = boost(2 * RATES[1], inner.train, n_rounds)(inner.test, n_rounds)
        own = unit.inner_proba[np.isin(unit.inner_rows, inner.test)]
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)
