"""The outer loop: every person is predicted by a model chosen and fitted without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.data.manifest import HeldOut
from toolkit.models import Features, FittedBooster, class_priors
from toolkit.pooling import FeatureTable
from toolkit.validation.blending import add_linear_part, tune_logistic
from toolkit.validation.fits import InnerFits, make_features
from toolkit.validation.folds import (
    CONTENT_PARTS,
    Fold,
    derive_seed,
    inner_folds,
    make_folds,
    outer_grouping,
)
from toolkit.validation.ledger import Ledger
from toolkit.validation.predictions import Predictions
from toolkit.validation.search import SearchOptions, SearchResult, search_params


@dataclass(frozen=True, slots=True)
class Protocol:
    """Kind and number of the folds, and the seed of all random draws.

    Parameters
    ----------
    outer : str, default="speaker"
        ``speaker``, ``session``, ``split`` or a number of folds, perhaps with ``+content``.
    inner : int, default=3
        Number of inner folds, clipped to the training groups.
    seed : int, default=0
        The study's seed.
    content_parts : int, default=3
        Number of parts of the content, where it is held out.
    """

    outer: str = "speaker"
    inner: int = 3
    seed: int = 0
    content_parts: int = CONTENT_PARTS

    @property
    def partition(self) -> dict[str, Any]:
        """Arguments of :func:`toolkit.validation.folds.inner_folds`."""
        own = {"n_folds": self.inner, "seed": self.seed, "content_parts": self.content_parts}
        return {"grouping": outer_grouping(self.outer)} | own


@dataclass(frozen=True, slots=True, eq=False)
class UnitResult:
    """The results of one system in one outer fold.

    Parameters
    ----------
    system : str
        Name of the system.
    fold : int
        Number of the outer fold.
    proba : ndarray of float64, shape (n_test, n_classes)
        Class probabilities of the fold's test rows, in their order.
    present : ndarray of bool, shape (n_test,)
        Whether the row has a modality of the system.
    inner_rows : ndarray of int64
        The fold's training rows; empty for a baseline.
    inner_proba : ndarray of float64, shape (len(inner_rows), n_classes)
        Out-of-fold probabilities of the training rows, from an inner partition of their own.
    inner_present : ndarray of bool, shape (len(inner_rows),)
        Whether the training row has a modality of the system.
    search : SearchResult or None
        The search; None for a baseline.
    booster : FittedBooster or None
        The refitted model; None for a baseline.
    record : mapping
        Counts of the refit: its balancing, features, inner folds and absent classes.
    ledger : list of dict
        The ledger's entries.
    parts, inner_parts : mapping of str to ndarray of float64
        ``proba`` and ``inner_proba`` of ``trees`` and ``linear`` part alone; empty without a
        linear part.
    """

    system: str
    fold: int
    proba: NDArray[np.float64]
    present: NDArray[np.bool_]
    inner_rows: NDArray[np.int64]
    inner_proba: NDArray[np.float64]
    inner_present: NDArray[np.bool_]
    search: SearchResult | None
    booster: FittedBooster | None
    record: Mapping[str, Any]
    ledger: list[dict[str, Any]]
    parts: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    inner_parts: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def describe_search(self) -> dict[str, Any]:
        """Give the choices of its search as plain data.

        Returns
        -------
        dict
            Empty without a search.
        """
        search = self.search
        if search is None:
            return {}
        return {
            "params": dict(search.params),
            "n_rounds": search.n_rounds,
            "inner_score": search.score,
            "trials_done": len(search.trials),
            "stopped_by": search.stopped_by,
            "record": dict(self.record),
            **_describe_sample(search),
        }


def _describe_sample(search: SearchResult) -> dict[str, Any]:
    """Describe the sample and the finalists as plain data; nothing without a sample."""
    if not search.n_sampled:
        return {}
    keys = ("number", "score", "n_rounds", "state")
    finalists = [{key: trial[key] for key in keys} for trial in search.finalists]
    return {"sample": {"n_rows": search.n_sampled, "finalists": finalists}}


def run_unit(
    manifest: Manifest,
    features: Features,
    fold: Fold,
    *,
    system: str,
    protocol: Protocol,
    options: SearchOptions,
    storage: str | None = None,
    study_name: str = "search",
    n_threads: int = 1,
    device: str = "cpu",
) -> UnitResult:
    """Search, refit and predict one system in one outer fold.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    features : Features
        The system's features.
    fold : Fold
        The outer fold.
    system : str
        Name of the system; part of every seed.
    protocol : Protocol
        Kind and number of the inner folds, and the seed.
    options : SearchOptions
        Candidates and budget of the search.
    storage : str, optional
        URL of the Optuna storage that keeps finished trials.
    study_name : str
        Name of the unit's Optuna study there.
    n_threads : int, default=1
        Threads of a fit.
    device : {"cpu", "cuda"}
        Device of the boosters.

    Returns
    -------
    UnitResult
        With search, booster and out-of-fold probabilities.

    Raises
    ------
    LeakageError
        If a held-out row would take part in a fit or a choice.
    ValueError
        If the training rows that have the modality hold fewer than two classes.
    """
    grouping = outer_grouping(protocol.outer)
    n_classes = len(manifest.classes)
    ledger = Ledger(system, fold, manifest.utterances, manifest.groups(grouping))
    rows = _usable_rows(manifest, features, fold, system)
    fits = InnerFits(
        features,
        manifest.labels,
        rows,
        n_classes=n_classes,
        ledger=ledger,
        seed=derive_seed(protocol.seed, system, fold.number),
        n_threads=n_threads,
        device=device,
    )
    split = partial(inner_folds, manifest, fold, **protocol.partition)
    search_folds, fresh_folds = split(purpose="search"), split(purpose="out-of-fold")
    found = search_params(fits, search_folds, options, storage=storage, study_name=study_name)
    # Scores are optimistic on the folds that chose the parameters, so fusion learns from
    # predictions on a partition of its own.
    inner_rows, inner_proba = fits.out_of_fold(
        found.params, found.n_rounds, fresh_folds, purpose="out-of-fold"
    )
    booster, prepared = fits.fit(found.params, rows, fit="refit", n_rounds=found.n_rounds)
    record = dict(prepared.record)
    parts: dict[str, NDArray[np.float64]] = {}
    inner_parts: dict[str, NDArray[np.float64]] = {}
    fits.forget()
    if options.linear == "auto":
        blend = add_linear_part(fits, found.params, booster, fresh_folds, inner_proba)
        inner_parts = {"trees": inner_proba, "linear": blend.inner_linear}
        booster, inner_proba = blend.booster, blend.inner_proba
        record["linear"] = dict(blend.record)
        parts = fits.predict_parts(booster, prepared, fold.test, fold.train)
    # Made rows carry information of their parents into the fit.
    for label, n_made, parents in prepared.parents:
        made = f"refit: {n_made} rows made of class {manifest.classes[label]}"
        ledger.record(made, "resample parent", parents)
    # TreeSHAP weights a model's contributions by its covers, which count its training rows.
    ledger.record("refit", "explain background", rows)
    # Rows without the modality get these priors, also from a final model on new data.
    ledger.record("class shares", "train", fold.train)
    return UnitResult(
        system=system,
        fold=fold.number,
        proba=fits.predict_or_priors(booster, prepared, fold.test, fold.train),
        present=features.present[fold.test],
        inner_rows=inner_rows,
        inner_proba=inner_proba,
        inner_present=features.present[inner_rows],
        search=found,
        booster=booster,
        record=record
        | {"sampler": options.sampler, "inner_folds": len(search_folds)}
        | _describe_data(manifest, features, rows, len(prepared.columns)),
        ledger=ledger.entries(),
        parts=parts,
        inner_parts=inner_parts,
    )


def run_logistic_unit(
    manifest: Manifest,
    features: Features,
    fold: Fold,
    *,
    system: str,
    statistics: str,
    metric: str,
    protocol: Protocol,
) -> UnitResult:
    """Tune, fit and predict the logistic regression that a boosted system is compared with.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    features : Features
        The system's features.
    fold : Fold
        The outer fold.
    system : str
        Name of the baseline, for example ``"text-logistic"``.
    statistics : str
        Key of ``features.presets``: the columns used.
    metric : str
        Key of :data:`METRICS` that chooses the penalty, as it chooses trials.
    protocol : Protocol
        The kind of group and the seed.

    Returns
    -------
    UnitResult
        Without a search or a booster.
    """
    n_classes = len(manifest.classes)
    grouping = outer_grouping(protocol.outer)
    ledger = Ledger(system, fold, manifest.utterances, manifest.groups(grouping))
    rows = _usable_rows(manifest, features, fold, system)
    ledger.record("class shares", "train", fold.train)
    folds = inner_folds(manifest, fold, purpose="search", **protocol.partition)
    model, columns, multiple = tune_logistic(
        features,
        manifest.labels,
        rows,
        folds,
        statistics=statistics,
        metric=metric,
        n_classes=n_classes,
        ledger=ledger,
    )
    present = features.present[fold.test]
    fitted = features.fit(rows)
    predicted = model.predict_proba(fitted.take(fold.test[present], columns))
    priors = class_priors(manifest.labels[fold.train], n_classes)
    return UnitResult(
        system=system,
        fold=fold.number,
        proba=features.complete(fold.test, predicted, priors),
        present=present,
        inner_rows=np.empty(0, dtype=np.int64),
        inner_proba=np.empty((0, n_classes)),
        inner_present=np.empty(0, dtype=bool),
        search=None,
        booster=None,
        record={"C_times_p": multiple} | _describe_data(manifest, features, rows, len(columns)),
        ledger=ledger.entries(),
    )


def _usable_rows(
    manifest: Manifest, features: Features, fold: Fold, system: str
) -> NDArray[np.int64]:
    if len(features.present) != len(manifest):
        raise ValueError(
            f"The features have {len(features.present)} rows for {len(manifest)} utterances; "
            "pool them with this manifest."
        )
    rows = fold.train[features.present[fold.train]]
    n_seen = len(np.unique(manifest.labels[rows]))
    if n_seen < 2:
        raise ValueError(
            f"{system}/{fold.name} can learn from {len(rows)} utterances of {n_seen} class(es) "
            "only: the modality is missing elsewhere. Leave it out with --modality."
        )
    return rows


def _describe_data(
    manifest: Manifest, features: Features, rows: NDArray[np.int64], n_features: int
) -> dict[str, Any]:
    """Describe a refit: its width, the classes without rows, and any presets replaced."""
    seen = set(manifest.labels[rows].tolist())
    absent = [name for k, name in enumerate(manifest.classes) if k not in seen]
    record: dict[str, Any] = {"n_features": n_features, "absent_classes": absent}
    if features.screen != "none":
        record["screened"] = features.screen
    return record | ({"reduced": dict(features.reduced)} if features.reduced else {})


@dataclass(frozen=True, slots=True, eq=False)
class _NestedResult:
    """A system's predictions for unseen people (one row per utterance), and its units."""

    predictions: Predictions
    units: tuple[UnitResult, ...]


def majority_predictions(manifest: Manifest, folds: Sequence[Fold]) -> Predictions:
    """Predict the class priors of each training fold: a lower bound for every system.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folds : sequence of Fold
        The outer folds.

    Returns
    -------
    Predictions
        Of the system ``majority``; it predicts the largest class (ties: lowest code).
    """
    n_classes = len(manifest.classes)
    return gather_predictions(
        manifest,
        folds,
        "majority",
        [
            np.tile(class_priors(manifest.labels[fold.train], n_classes), (len(fold.test), 1))
            for fold in folds
        ],
        [np.ones(len(fold.test), dtype=bool) for fold in folds],
    )


def majority_ledgers(
    manifest: Manifest, folds: Sequence[Fold], grouping: HeldOut
) -> dict[int, list[dict[str, Any]]]:
    """Record the training rows of the majority baseline, by the number of each outer fold.

    A fold that trains on a group that it holds out raises LeakageError.
    """
    entries = {}
    for fold in folds:
        ledger = Ledger("majority", fold, manifest.utterances, manifest.groups(grouping))
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
    """Gather the test predictions of all folds into one table.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folds : sequence of Fold
        The outer folds, which test no row twice.
    system : str
        Name of the system.
    probas, present : sequence of ndarray
        One per fold, in the order of its test rows.

    Returns
    -------
    Predictions
        Rows in the order of the manifest, which is that of the utterance ids.
    """
    tested = np.concatenate([fold.test for fold in folds])
    rows, order = np.unique(tested, return_index=True)
    # A row predicted twice would count twice in every score.
    if len(rows) < len(tested):
        raise ValueError("The outer folds test some rows twice.")
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
) -> _NestedResult:
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
        Kind and number of the folds; leave-one-speaker-out by default.
    options : SearchOptions, optional
        Candidates and budget of the search.

    Returns
    -------
    _NestedResult
        Predictions and units.
    """
    protocol = protocol or Protocol()
    options = options or SearchOptions()
    parts = protocol.content_parts
    folds = make_folds(manifest, protocol.outer, seed=protocol.seed, content_parts=parts)
    features = make_features(
        tables,
        options.statistics,
        most_columns=options.most_columns,
        screen_above=options.screen_above,
    )
    units = tuple(
        run_unit(manifest, features, fold, system=system, protocol=protocol, options=options)
        for fold in folds
    )
    predictions = gather_predictions(
        manifest, folds, system, [unit.proba for unit in units], [u.present for u in units]
    )
    return _NestedResult(predictions, units)
