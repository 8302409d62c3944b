"""The linear part of a model, and the tuned logistic regression that it is compared with.

Both choose their penalty by predictions for inner groups that the fit did not see. The linear
part is chosen beside the trees: its penalty is the one whose weighted sum with the trees has
the lowest out-of-fold log-loss.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.models import Features, FittedBooster, class_priors
from toolkit.models.linear import MULTIPLES, LinearModel, LinearPath, mix_margins, weigh_margins
from toolkit.models.preparation import Recipe, balance_rows
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import Fold
from toolkit.validation.ledger import Ledger
from toolkit.validation.metrics import METRICS
from toolkit.validation.racing import IntermediateValue


@dataclass(frozen=True, slots=True, eq=False)
class _Blend:
    """A linear part beside trees.

    - booster: The trees with the linear part.
    - inner_proba: Out-of-fold probabilities of the weighted sum.
    - inner_linear: Out-of-fold probabilities of the linear part alone.
    - record: Plain data: the multiple of C = 1 / p, and the weights of both parts.
    """

    booster: FittedBooster
    inner_proba: NDArray[np.float64]
    inner_linear: NDArray[np.float64]
    record: Mapping[str, Any]


def add_linear_part(
    fits: InnerFits,
    params: Mapping[str, Any],
    booster: FittedBooster,
    folds: Sequence[Fold],
    trees: NDArray[np.float64],
) -> _Blend:
    """Add a linear part to trees, on the same rows, columns and class weights.

    ``trees`` are their probabilities, out of ``folds``, of all outer training rows in order.
    """

    def predict(inner: Fold) -> list[NDArray[np.float64]]:
        fit, made_as = f"linear {inner.number}", f"out-of-fold {inner.number}"
        fits.ledger.record_split(fit, inner)
        train = inner.train[fits.features.present[inner.train]]
        path, columns = linear_path(fits, params, train, fit=fit, made_as=made_as)
        priors = class_priors(fits.labels[inner.train], fits.n_classes)
        return _predict_all(path, fits.features.fit(train), columns, inner, priors)

    rows, candidates = _out_of_fold(folds, predict)
    present, labels = fits.features.present[rows], fits.labels[rows]
    found = [
        weigh_margins(np.stack([linear[present], trees[present]]), labels[present])
        for linear in candidates
    ]
    # The first of equally good penalties, which is the strongest, is chosen.
    best = int(np.argmin([loss for _, loss in found]))
    weights, inner_linear = found[best][0], candidates[best]
    fits.ledger.record("linear part", "choose", fits.outer_rows)
    path, _ = linear_path(fits, params, fits.outer_rows, fit="linear refit", made_as="refit")
    inner_proba = trees.copy()  # rows without the modality have the class priors in both
    inner_proba[present] = mix_margins(
        weights, np.stack([inner_linear[present], trees[present]])
    )
    a, b = weights.tolist()
    return _Blend(
        replace(booster, linear=path.fit(MULTIPLES[best]), weights=(a, b)),
        inner_proba,
        inner_linear,
        {"C_times_p": MULTIPLES[best], "linear": a, "trees": b},
    )


def linear_path(
    fits: InnerFits,
    params: Mapping[str, Any],
    rows: NDArray[np.int64],
    *,
    fit: str,
    made_as: str,
) -> tuple[LinearPath, NDArray[np.int64]]:
    """Prepare logistic regressions on the rows that a fit of trees was given.

    - fit: Name in the ledger.
    - made_as: Name of the fit of the trees, whose resampled rows are made again.
    """
    columns, balanced = fits.balance(params, rows, fit=fit, made_as=made_as)
    path = LinearPath(
        balanced.X, balanced.y, n_classes=fits.n_classes, weights=balanced.weights
    )
    return path, columns


def tune_logistic(
    features: Features,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    folds: Sequence[Fold],
    *,
    statistics: str,
    metric: str,
    n_classes: int,
    ledger: Ledger,
) -> tuple[LinearModel, NDArray[np.int64], int]:
    """Fit the logistic regression whose penalty has the best out-of-fold score.

    Very wide columns are screened as for trees, in each fit. Returns the model of ``rows``, its
    columns and the chosen multiple of C = 1 / p.
    """
    recipe = Recipe("", statistics, features.screen, "none", 0)

    def make_path(
        fit: str, train: NDArray[np.int64]
    ) -> tuple[LinearPath, Features, NDArray[np.int64]]:
        ledger.record(fit, "train", train)
        if features.texts:
            ledger.record(fit, "vocabulary", train)
        if features.screen != "none":
            ledger.record(fit, "screen", train)
        fitted = features.fit(train)
        columns, found = balance_rows(recipe, fitted, train, labels, seed=0)
        path = LinearPath(found.X, found.y, n_classes=n_classes, indicators=True)
        return path, fitted, columns

    def predict(inner: Fold) -> list[NDArray[np.float64]]:
        fit = f"inner {inner.number}"
        ledger.record_split(fit, inner)
        path, fitted, columns = make_path(fit, inner.train[features.present[inner.train]])
        priors = class_priors(labels[inner.train], n_classes)
        return _predict_all(path, fitted, columns, inner, priors)

    found, candidates = _out_of_fold(folds, predict)
    # As in the search of the trees, rows without the modality are not scored.
    seen = features.present[found]
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    scores = [
        sign * IntermediateValue.compute(metric, labels[found][seen], each[seen]).score
        for each in candidates
    ]
    ledger.record("search", "choose", found)
    # The first of equally good penalties, which is the strongest, is chosen.
    best = MULTIPLES[int(np.argmax(scores))]
    path, _, columns = make_path("refit", rows)
    return path.fit(best), columns, best


def _predict_all(
    path: LinearPath,
    features: Features,
    columns: NDArray[np.int64],
    inner: Fold,
    priors: NDArray[np.float64],
) -> list[NDArray[np.float64]]:
    """Predict an inner fold's test rows under every penalty; absent ones get the priors."""
    X = features.take(inner.test[features.present[inner.test]], columns)
    return [
        features.complete(inner.test, path.fit(multiple).predict_proba(X), priors)
        for multiple in MULTIPLES
    ]


def _out_of_fold(
    folds: Sequence[Fold], predict: Callable[[Fold], list[NDArray[np.float64]]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Join the predictions of all folds: rows in order, and (n_candidates, n, n_classes)."""
    probas = np.concatenate([np.stack(predict(inner)) for inner in folds], axis=1)
    rows = np.concatenate([inner.test for inner in folds])
    order = np.argsort(rows)
    return rows[order], probas[:, order]
