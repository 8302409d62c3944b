"""The outer loop: every person is predicted by a model chosen and fitted without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.models import class_shares
from toolkit.validation.feature_sets import make_features
from toolkit.validation.folds import make_folds
from toolkit.validation.ledger import Ledger
from toolkit.validation.predictions import Predictions
from toolkit.validation.proposals import SearchOptions
from toolkit.validation.units import Protocol, UnitResult, run_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from toolkit.data import Manifest
    from toolkit.pooling import FeatureTable
    from toolkit.validation.folds import Fold, Unit


@dataclass(frozen=True, slots=True, eq=False)
class NestedResult:
    """A system's predictions for people never seen, and the units behind them.

    - predictions: One row a tested utterance.
    - units: One an outer fold.
    """

    predictions: Predictions
    units: tuple[UnitResult, ...]


def majority_predictions(manifest: Manifest, folds: Sequence[Fold]) -> Predictions:
    """Predict the class shares of each training fold, the least that any system must beat.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folds : sequence of Fold
        The outer folds.

    Returns
    -------
    Predictions
        Of the system ``majority``; its decision is the largest class (ties: lowest code).
    """
    n_classes = len(manifest.classes)
    return gather_predictions(
        manifest,
        folds,
        "majority",
        [
            np.tile(class_shares(manifest.labels[fold.train], n_classes), (len(fold.test), 1))
            for fold in folds
        ],
        [np.ones(len(fold.test), dtype=bool) for fold in folds],
    )


def majority_ledgers(
    manifest: Manifest, folds: Sequence[Fold], unit: Unit
) -> dict[int, list[dict[str, Any]]]:
    """Record what the majority learns from.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folds : sequence of Fold
        The outer folds.
    unit : {"speaker", "session"}
        What is held out.

    Returns
    -------
    dict of int to list of dict
        Number of each outer fold to its ledger's entries.

    Raises
    ------
    LeakageError
        If a fold learns from whom it holds out.
    """
    entries = {}
    for fold in folds:
        ledger = Ledger("majority", fold, manifest.utterances, manifest.groups(unit))
        ledger.record("class shares", "train", fold.train)
        entries[fold.number] = ledger.entries()
    return entries


def gather_predictions(
    manifest: Manifest,
    folds: Sequence[Fold],
    system: str,
    probas: Sequence[NDArray[np.float64]],
    present: Sequence[NDArray[np.bool_]],
) -> Predictions:
    """Put the test predictions of all folds into one table.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folds : sequence of Fold
        The outer folds, which test no row twice.
    system : str
        Name of the system.
    probas, present : sequence of ndarray
        One a fold, in the order of its test rows.

    Returns
    -------
    Predictions
        Rows in the order of the manifest, which is that of the utterance ids.
    """
    rows = np.concatenate([fold.test for fold in folds])
    order = np.argsort(rows)
    if len(np.unique(rows)) != len(rows):
        raise ValueError("The outer folds test some rows twice.")
    rows = rows[order]
    numbers = np.concatenate([np.full(len(fold.test), fold.number) for fold in folds])
    return Predictions(
        system=system,
        classes=manifest.classes,
        utterances=manifest.utterances[rows],
        speakers=manifest.speakers[rows],
        sessions=None if manifest.sessions is None else manifest.sessions[rows],
        folds=numbers[order],
        present=np.concatenate(list(present))[order],
        labels=manifest.labels[rows],
        proba=np.concatenate(list(probas))[order],
    )


def nested_cross_validate(
    manifest: Manifest,
    tables: Sequence[FeatureTable],
    *,
    system: str,
    protocol: Protocol | None = None,
    options: SearchOptions | None = None,
) -> NestedResult:
    """Predict every utterance by a model that was searched and fitted without its speaker.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    tables : sequence of FeatureTable
        The pooled features of one modality, or of several to be concatenated.
    system : str
        Name of the system.
    protocol : Protocol, optional
        How people are split; leave-one-speaker-out by default.
    options : SearchOptions, optional
        What the search may choose.

    Returns
    -------
    NestedResult
        Predictions and units.
    """
    protocol = protocol or Protocol()
    options = options or SearchOptions()
    folds = make_folds(manifest, protocol.outer, seed=protocol.seed)
    features = make_features(tables, options.statistics, most_columns=options.most_columns)
    units = tuple(
        run_unit(manifest, features, fold, system=system, protocol=protocol, options=options)
        for fold in folds
    )
    predictions = gather_predictions(
        manifest, folds, system, [unit.proba for unit in units], [u.present for u in units]
    )
    return NestedResult(predictions, units)
