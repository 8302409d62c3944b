"""Permutation importance of a whole modality: its block shuffled among a speaker's utterances.

All columns of the modality move together, so their joint information is lost at once. Rows are
shuffled within the held-out speaker, so the importance is blind to features that are constant
within a speaker.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.explain.contributions import parse_names
from toolkit.models import FittedBooster
from toolkit.validation import Predictions
from toolkit.validation.folds import derive_seed
from toolkit.validation.metrics import CLASS_METRICS, METRICS, GroupedRows
from toolkit.validation.scores import jackknife_interval, pooled_and_left_out


@dataclass(frozen=True, slots=True)
class PermutationRecord:
    """Loss of a system's metric without the information of a modality.

    Parameters
    ----------
    system, metric : str
        The system and the metric.
    class_name : str
        A class, or empty for all.
    modality : str
        The shuffled modality.
    value : float
        Loss of the metric, mean over repeats; below 0 it improves.
    low, high : float or None
        Ends of its 95 % jackknife interval over speakers.
    deviation : float
        Standard deviation over the repeats (ddof 1).
    n_repeats : int
        Number of shuffles.
    """

    system: str
    metric: str
    class_name: str
    modality: str
    value: float
    low: float | None
    high: float | None
    deviation: float
    n_repeats: int


def permute_modality(
    booster: FittedBooster,
    X: NDArray[np.float32],
    speakers: NDArray[np.str_],
    modality: str,
    *,
    seed: int,
    n_repeats: int = 20,
) -> NDArray[np.float64]:
    """Predict held-out rows with one modality shuffled within each speaker.

    Parameters
    ----------
    booster : FittedBooster
        The model that never saw these speakers.
    X : ndarray of float32, shape (n_rows, n_features)
        Their features in the order of training; NaN where missing.
    speakers : ndarray of str, shape (n_rows,)
        Speaker of every row.
    modality : str
        The shuffled modality: its columns move together, among the rows that have any of them.
    seed : int
        Seed of the shuffles.
    n_repeats : int, default=20
        Number of shuffles.

    Returns
    -------
    ndarray of float64, shape (n_repeats, n_rows, n_classes)
        Class probabilities.
    """
    columns = np.flatnonzero([name.modality == modality for name in parse_names(booster.names)])
    proba = np.empty((n_repeats, len(X), booster.n_classes))
    if len(columns) == 0:  # screened out, so a shuffle changes nothing
        proba[:] = booster.predict_proba(X)
        return proba
    # Absence stays where it is: only values of rows with the modality are exchanged.
    present = ~np.isnan(X[:, columns]).all(axis=1)
    shuffled = X.copy()
    for repeat in range(n_repeats):
        rng = np.random.default_rng(derive_seed(seed, "permutation", modality, repeat))
        source = np.arange(len(X))
        for speaker in np.unique(speakers):
            rows = np.flatnonzero((speakers == speaker) & present)
            source[rows] = rng.permutation(rows)
        shuffled[:, columns] = X[source][:, columns]
        proba[repeat] = booster.predict_proba(shuffled)
    return proba


def compute_importance(
    predictions: Predictions,
    permuted: Mapping[str, NDArray[np.float64]],
    *,
    metric: str = "f1_micro",
) -> list[PermutationRecord]:
    """Compare shuffled predictions with those of the system.

    Parameters
    ----------
    predictions : Predictions
        The system; it predicts the most probable class.
    permuted : mapping of str to ndarray of float64, shape (n_repeats, n, n_classes)
        Modality to the probabilities with it shuffled, row by row with the predictions.
    metric : str, default="f1_micro"
        The metric over all classes; by class it is the class's F1.

    Returns
    -------
    list of PermutationRecord
        Over all classes and then of every class, modality by modality.
    """
    system = predictions.system
    speakers, numbers = np.unique(predictions.speakers, return_inverse=True)
    records: list[PermutationRecord] = []

    def score(proba: NDArray[np.float64], code: int) -> NDArray[np.float64]:
        """Score all speakers together (first), and without each; code -1 is all classes."""
        rows = GroupedRows(
            predictions.labels, proba.argmax(axis=1), proba, numbers, len(speakers)
        )
        chosen = METRICS[metric if code < 0 else "f1_micro"]
        value = chosen.value if code < 0 else CLASS_METRICS["f1"]
        pooled, left_out = pooled_and_left_out(value, chosen.tally(rows))
        both = np.concatenate([pooled[None], left_out])
        return np.asarray(both if code < 0 else both[:, code])

    for modality, probas in permuted.items():
        for code, name in enumerate(("", *predictions.classes), start=-1):
            measured = metric if code < 0 else "f1"
            sign = 1 if code >= 0 or METRICS[metric].direction == "maximize" else -1
            before = score(predictions.proba, code)
            drops = np.array([sign * (before - score(one, code)) for one in probas])
            mean = drops.mean(axis=0)
            # The first column is of all speakers, the rest without each of them.
            value = float(mean[0])
            ends = jackknife_interval(value, mean[1:], np.bincount(numbers))
            spread = float(drops[:, 0].std(ddof=1)) if len(drops) > 1 else 0.0
            records.append(
                PermutationRecord(
                    system, measured, name, modality, value, *ends, spread, len(drops)
                )
            )
    return records
