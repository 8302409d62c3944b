"""Inside a fold: who validates a fit teaches it nothing."""

import numpy as np
import pytest

from toolkit.models import Features
from toolkit.validation import fits, make_folds
from toolkit.validation.folds import inner_folds
from toolkit.validation.ledger import Ledger

PARAMS = {
    "booster": "lightgbm",
    "statistics": "rich",
    "screening": "ftest-5",
    "imbalance": "smote",
    "max_bin": 31,
    "learning_rate": 0.2,
    "num_leaves": 7,
    "min_data_in_leaf": 3,
}


@pytest.fixture
def inside(manifest):
    """Outer fold 1 of the corpus with random features, and its inner folds."""
    (_, fold, *_) = make_folds(manifest, "session", seed=0)
    folds = inner_folds(manifest, fold, grouping="session", n_folds=2, seed=0, purpose="search")
    values = np.random.default_rng(0).normal(size=(len(manifest), 10)).astype(np.float32)
    features = Features(
        values=values,
        names=tuple(f"text__value__{i:04d}" for i in range(10)),
        present=np.ones(len(manifest), dtype=bool),
        presets={"rich": np.arange(10)},
    )

    def make(labels):
        ledger = Ledger("text", fold, manifest.utterances, manifest.groups("session"))
        return fits.InnerFits(features, labels, fold.train, n_classes=4, ledger=ledger, seed=5)

    return make, folds


def turned(labels, rows):
    other = labels.copy()
    other[rows] = (other[rows] + 1) % 4
    return other


def test_out_of_fold_probabilities_ignore_the_labels_of_their_own_rows(inside, manifest):
    make, folds = inside
    found = []
    for labels in (manifest.labels, turned(manifest.labels, folds[0].test)):
        rows, proba = make(labels).out_of_fold(PARAMS, 8, folds, purpose="out-of-fold")
        own = np.isin(rows, folds[0].test)
        found.append((proba[own].tobytes(), proba[~own].tobytes()))

    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]  # those learn from the rows whose labels changed


def test_inner_labels_decide_when_a_fit_stops_and_nothing_else(inside, manifest, monkeypatch):
    make, folds = inside
    fitted = []
    fit_booster = fits.fit_booster

    def keep(*said, **options):
        fitted.append(fit_booster(*said, **options))
        return fitted[-1]

    monkeypatch.setattr(fits, "fit_booster", keep)
    for labels in (manifest.labels, turned(manifest.labels, folds[0].test)):
        told = {"metric": "f1_micro", "max_rounds": 20, "patience": 20}
        list(make(labels).evaluate(PARAMS, folds[:1], **told))
    X = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    before, after = fitted

    assert before.curve.tobytes() != after.curve.tobytes()
    assert before.names == after.names
    for n_rounds in range(1, min(len(before.curve), len(after.curve)) + 1):
        one, other = (b.model.predict(X, num_iteration=n_rounds) for b in fitted)
        assert one.tobytes() == other.tobytes()
