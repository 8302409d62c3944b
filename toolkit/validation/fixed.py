"""One fixed configuration, fitted under every split and permutation, and its level of chance.

Nothing is searched: a leaking split would leak into the inner folds of a search as well. The
configuration is small and strongly regularised, so that a thousand fits take minutes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.models import Features, class_priors, fit_booster, prepare, split_params
from toolkit.validation.folds import (
    Fold,
    derive_seed,
    has_one_label_each,
    permute_labels,
    speaker_folds,
)
from toolkit.validation.metrics import METRICS, Floats

_N_ROUNDS: Final = 80
#: Most points of a learning curve.
N_SIZES: Final = 5
# Scores this close are equal: sums in another order differ in their last bits.
_TOLERANCE: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class PremiumScore:
    """A score of a split, a difference of two, a premium, or the level of chance.

    Parameters
    ----------
    modality : str
        The modality of the features.
    metric : str
        Key of :data:`toolkit.validation.METRICS`.
    quantity : str
        One of these, where ``speaker`` may also be ``session``, ``partner`` or
        ``content``:

        - ``"score"``: the score of a split;
        - ``"speaker difference"``: the lenient split less the strict one, above 0 where the
          lenient one looks better; for losses too;
        - ``"score, rows permuted"`` and ``"speaker difference, rows permuted"``: the same on
          features whose rows are permuted over all utterances;
        - ``"speaker premium"``: the difference less the difference on permuted rows;
        - ``"score, first seed"``: what the level of chance is compared with;
        - ``"chance"``: the score on permuted labels, under the same split and seed.
    split, against : str
        The split; of a difference, the split whose score is subtracted; of the level of
        chance, the permutation of the labels in words.
    group : str
        The speaker; empty for all utterances pooled.
    value : float
        The number, a mean over its repeats.
    low, high : float, optional
        95 % jackknife interval over speakers, of a pooled number; of the level of chance, the
        2.5 % and 97.5 % quantiles of the permutations.
    p, p_adjusted : float, optional
        Of a pooled premium: two-sided p of swapping whole speakers between the splits, alone
        and adjusted for all premiums of the modality. Of the level of chance: p of the score
        with the real labels, one-sided.
    sd : float, optional
        Standard deviation (ddof 1) over the repeats; None for a single one.
    n_repeats : int
        Number of seeds, of permutations of the rows, or of permutations of the labels.
    n_utterances : int
        Number of utterances.
    """

    modality: str
    metric: str
    quantity: str
    split: str
    against: str
    group: str
    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    sd: float | None
    n_repeats: int
    n_utterances: int


@dataclass(frozen=True, slots=True, eq=False)
class FixedFits:
    """Fits of the fixed configuration that share their bin edges.

    Parameters
    ----------
    binned : ndarray of int64
        Rows of the features whose values set the bin edges, increasing.
    fits : tuple of tuple
        For each fit its seed, its training rows (increasing, among `binned`) and the labels of
        all rows.
    """

    binned: NDArray[np.int64]
    fits: tuple[tuple[int, NDArray[np.int64], NDArray[np.int64]], ...]


FitAll = Callable[[list[FixedFits]], list[list[Floats]]]
"""Calls :func:`predict_rest` for every task, and returns the results in order."""


def predict_rest(features: Features, task: FixedFits, *, n_classes: int) -> list[Floats]:
    """Fit the fixed configuration to some rows and predict all the others.

    Parameters
    ----------
    features : Features
        Features of all utterances; the first preset is used.
    task : FixedFits
        The fits. They learn from the training rows that have the modality.
    n_classes : int
        Number of the study's classes.

    Returns
    -------
    list of ndarray of float64, shape (n_rest, n_classes)
        For each fit, class probabilities of the rows that are not its training rows, in their
        order. A row without the modality gets the class shares of the training rows. So do all
        rows where the rows to learn from have a single class.
    """
    n = len(features.present)
    recipe, own = split_params(_fixed_params(features, n))
    make = partial(prepare, recipe, features, n_classes=n_classes, seed=0)
    binned = task.binned[features.present[task.binned]]
    bins = None
    probas = []
    for seed, train, labels in task.fits:
        rest = np.setdiff1d(np.arange(n), train)
        proba = np.tile(class_priors(labels[train], n_classes), (len(rest), 1))
        rows, present = train[features.present[train]], features.present[rest]
        if len(np.unique(labels[rows])) > 1 and present.any():
            # LightGBM copies the rows' bins: binning takes longer than the fit. Transcripts
            # have other features in each training set, and so other bins.
            if bins is None and not features.texts:
                bins = make(binned, labels).data
            places = np.searchsorted(binned, rows)
            prepared = make(rows, labels, reference=bins, positions=places)
            own_seed = derive_seed(seed, "premium", "booster")
            booster = fit_booster(prepared.data, own, n_rounds=_N_ROUNDS, seed=own_seed)
            X = prepared.features.take(rest[present], prepared.columns)
            proba[present] = booster.predict_proba(X, names=prepared.data.names)
        probas.append(proba)
    return probas


def predict_curve(
    features: Features,
    manifest: Manifest,
    outer_folds: Sequence[Fold],
    *,
    seed: int,
    on_done: Callable[[str], None],
) -> dict[int, list[Floats]]:
    """Predict the outer test rows by the fixed configuration, trained on few speakers.

    The training speakers of a fold are drawn once, in random order: a smaller set is a part of
    a larger one, and no test row, nor any other speaker's row, decides anything.

    Parameters
    ----------
    features : Features
        Features of all utterances; the first preset is used.
    manifest : Manifest
        The utterances.
    outer_folds : sequence of Fold
        The outer folds.
    seed : int
        Seed of the draws and of the fits.
    on_done : callable
        Takes the name of each finished fit.

    Returns
    -------
    dict of int to list of ndarray of float64
        Number of training speakers, up to five from 2 to all of the smallest fold, to the
        probabilities of each fold's test rows; empty with fewer than three training speakers.
    """
    trained = [np.unique(manifest.speakers[fold.train]) for fold in outer_folds]
    most = min(map(len, trained))
    sizes = sorted({round(size) for size in np.geomspace(2, most, N_SIZES)}) if most > 2 else []
    probas: dict[int, list[Floats]] = {size: [] for size in sizes}
    for fold, names in zip(outer_folds, trained, strict=True):
        own_seed = derive_seed(seed, "learning curve", fold.number)
        drawn = np.random.default_rng(own_seed).permutation(names)
        for size in sizes:
            train = fold.train[np.isin(manifest.speakers[fold.train], drawn[:size])]
            task = FixedFits(train, ((own_seed, train, manifest.labels),))
            (proba,) = predict_rest(features, task, n_classes=len(manifest.classes))
            rest = np.setdiff1d(np.arange(len(manifest)), train)
            probas[size].append(proba[np.searchsorted(rest, fold.test)])
            on_done(f"fold {fold.name}, {size} speakers")
    return probas


def _fixed_params(features: Features, n_rows: int) -> dict[str, Any]:
    """Return the one configuration of all fits."""
    preset = next(iter(features.presets))
    n_features = len(features.presets[preset])
    return {
        "booster": "lightgbm",
        "screening": "none",
        "imbalance": "none",
        "max_bin": 63,
        "learning_rate": 0.12,
        "num_leaves": 7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "extra_trees": True,
        "statistics": preset,
        "feature_fraction": min(1.0, max(8.0, n_features**0.5) / n_features),
        "min_data_in_leaf": max(1, round(0.5 * n_rows**0.5)),
    }


def measure_chance(
    manifest: Manifest,
    *,
    modality: str,
    metric: str,
    seed: int,
    n_permutations: int,
    fit_all: FitAll,
) -> list[PremiumScore]:
    """Score the split by speakers on permuted labels, beside its score on the real ones.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    modality : str
        The modality of the features.
    metric : str
        Key of :data:`toolkit.validation.METRICS`.
    seed : int
        Seed of the fits and of the permutations.
    n_permutations : int
        Number of permutations of the labels, at least 1.
    fit_all : callable
        Calls :func:`predict_rest` for every task, and returns the results in order.

    Returns
    -------
    list of PremiumScore
        The score with the real labels, and the level of chance with the p of this score.
    """
    folds = speaker_folds(manifest)
    label_sets = [manifest.labels]
    for draw in range(n_permutations):
        own = derive_seed(seed, "premium", "labels", draw)
        label_sets.append(permute_labels(manifest.labels, manifest.speakers, own))
    answers = fit_all(
        [
            FixedFits(f.train, tuple((seed, f.train, labels) for labels in label_sets))
            for f in folds
        ]
    )
    chosen = METRICS[metric]
    rows = np.concatenate([fold.test for fold in folds])
    found, *nulls = [
        chosen.compute(labels[rows], np.concatenate(probas))
        for labels, probas in zip(label_sets, zip(*answers, strict=True), strict=True)
    ]
    sign = 1 if chosen.direction == "maximize" else -1
    n_as_good = sum(sign * (null - found) >= -_TOLERANCE for null in nulls)
    real = PremiumScore(
        modality=modality,
        metric=metric,
        quantity="score, first seed",
        split="speaker",
        against="",
        group="",
        value=found,
        sd=None,
        n_repeats=1,
        n_utterances=len(manifest),
    )
    low, high = np.quantile(nulls, (0.025, 0.975)).tolist()
    exchanged = has_one_label_each(manifest.labels, manifest.speakers)
    chance = replace(
        real,
        quantity="chance",
        against=f"labels {'exchanged between' if exchanged else 'permuted within'} speakers",
        value=float(np.mean(nulls)),
        low=low,
        high=high,
        # Phipson and Smyth (2010): the real labels are one of the permutations.
        p=(n_as_good + 1) / (n_permutations + 1),
        sd=float(np.std(nulls, ddof=1)) if n_permutations > 1 else None,
        n_repeats=n_permutations,
    )
    return [real, chance]
