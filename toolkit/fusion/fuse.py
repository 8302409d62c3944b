"""All late systems of a study at once, derived again from finished units in seconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.fusion.inputs import (
    MAX_MODALITIES,
    InnerPredictions,
    NewPredictions,
    Rule,
    StackedPredictions,
    one_blas_thread,
)
from toolkit.fusion.late import FIXED_RULES, LATE_METHODS, describe_rule, fit_pool
from toolkit.fusion.learned import LearnedFusion
from toolkit.models import class_priors
from toolkit.models.boosters import CLIP
from toolkit.systems import BEST_SINGLE, EARLY, LOG_POOL
from toolkit.validation.folds import Fold, outer_grouping
from toolkit.validation.ledger import Ledger
from toolkit.validation.nested import UnitResult
from toolkit.validation.predictions import Predictions


@dataclass(frozen=True, slots=True, eq=False)
class _BasePredictions:
    """Predictions of one system: for held-out rows, and out of fold for training rows.

    - predictions: For held-out rows; these are fused and reported.
    - inner: Outer fold to the predictions for its training rows.
    - parts: Outer fold to the held-out probabilities of trees and linear part alone.
    """

    predictions: Predictions
    inner: Mapping[int, InnerPredictions]
    parts: Mapping[int, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def system(self) -> str:
        """Name of the system."""
        return self.predictions.system


def _make_base_predictions(
    predictions: Predictions,
    units: Sequence[UnitResult],
    *,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
) -> _BasePredictions:
    """Join a searched system's predictions with the inner predictions of its units.

    ``labels`` and ``groups`` are those of all the manifest's rows.
    """
    inner = {unit.fold: InnerPredictions.of_unit(unit, labels, groups) for unit in units}
    parts = {unit.fold: unit.parts for unit in units}
    return _BasePredictions(predictions, inner, parts)


@dataclass(frozen=True, slots=True, eq=False)
class FusionResult:
    """Late systems of a study, and the fusions learnt in every outer fold.

    - predictions: ``best-single``, then the late fusions.
    - offsets: The variants ``<system>-offset-f1`` and ``<system>-offset-uar``.
    - learnt: Outer fold to the fusion learnt from its training rows.
    - ledgers: System and outer fold to the ledger's entries; systems that learn nothing have
      none.
    - joined, weights: Fusions with systems from outside, which no ledger covers, and the
      weights that some of them learnt, by fold.
    """

    predictions: Mapping[str, Predictions]
    offsets: Mapping[str, Predictions]
    learnt: Mapping[int, LearnedFusion]
    ledgers: Mapping[str, Mapping[int, list[dict[str, Any]]]]
    records: tuple[FusionRecord, ...]
    joined: Mapping[str, Predictions] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Describe the learned fusions as plain data, by system and fold."""
        described: dict[str, dict[str, dict[str, Any]]] = {}
        for number, learnt in self.learnt.items():
            plain = learnt.describe()
            weights = plain["weighted"]
            if weights is not None:
                weights = dict(zip(plain["modalities"], weights, strict=True))
            of_fold: dict[str, dict[str, Any]] = {
                BEST_SINGLE: {"modality": plain["best-single"]},
                "weighted": {"weights": weights},
                LOG_POOL: {"weights": plain[LOG_POOL]},
                "stacked": {"C": plain["stacked"] and plain["stacked"]["C"]},
            }
            for variant, found in plain["offsets"].items():
                of_fold[variant] = {"offsets": found.pop("values")} | found
            for system, params in of_fold.items():
                if None not in params.values():
                    described.setdefault(system, {})[f"{number:02d}"] = params
        return described | dict(self.weights)


def fuse_systems(
    manifest: Manifest,
    folds: Sequence[Fold],
    units: Mapping[str, Sequence[UnitResult]],
    predictions: Mapping[str, Predictions],
    *,
    methods: Collection[str],
    metric: str,
    outer: str,
    outside: Mapping[str, Predictions] = MappingProxyType({}),
) -> FusionResult | None:
    """Derive the late fusions and class-offset variants of a study; None without a modality.

    - units, predictions: By system; units are in the order of the folds.
    - methods: Fusions to make where their systems are there; others than late are ignored.
    - metric: The metric that chooses the modality of ``best-single``.
    - outside: Predictions of the tested utterances by systems from outside.
    """
    groups = manifest.groups(outer_grouping(outer))
    base = {
        system: _make_base_predictions(
            predictions[system], units[system], labels=manifest.labels, groups=groups
        )
        for system in (*manifest.available, EARLY)
        if system in units
    }
    early = base.pop(EARLY, None)
    if not base:
        return None
    # Early fusion of a single modality is that modality.
    if len(base) == 1:
        early = None
    possible = [name for name in LATE_METHODS if len(base) > 1 and (name != LOG_POOL or early)]
    result = _fuse_all(
        list(base.values()),
        early,
        folds=folds,
        utterances=manifest.utterances,
        groups=groups,
        methods=[name for name in possible if name in methods],
        metric=metric,
    )
    joined: dict[str, Predictions] = {}
    weights: dict[str, Any] = {}
    for name, table in outside.items():
        whole = table.has_proba and len(table) == len(manifest)
        of_name = [m for m in methods if m == "vote" or (m == "stacked" and whole)]
        made, pools = _fuse_outside([base[m] for m in sorted(base)], name, table, of_name)
        joined, weights = joined | made, weights | pools
    return replace(result, joined=joined, weights=weights)


def _fuse_outside(
    modalities: Sequence[_BasePredictions],
    name: str,
    table: Predictions,
    methods: Collection[str],
) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """Fuse a system from outside with the modalities; give weights by system and fold too.

    A vote learns nothing. ``stacked+NAME`` is a sum of margins with weights of at least 0
    (Breiman 1996, Stacked regressions, Machine Learning 24). For the training rows of a fold
    the modalities have inner predictions, made without its test groups; the system from
    outside has its only ones, whose models were trained on these groups. A regression with
    free coefficients would read the labels of the test groups from that: their shares are
    missing in the models that predict them. No weight of at least 0 can. Without predictions
    of the training rows, or without probabilities, there is no such fusion.
    """
    n_classes = len(table.classes)
    proba = np.full_like(table.proba, 1 / n_classes)  # equal: decides no tie of a vote
    if table.has_proba:
        # A certain error would else be left out of the fit, and count in favour of the system.
        proba = np.maximum(table.proba, CLIP)
        proba /= proba.sum(axis=1, keepdims=True)
    tables = [*(one.predictions for one in modalities), replace(table, proba=proba)]
    applied: dict[int, dict[str, NewPredictions]] = {}
    weights: dict[str, Any] = {}
    for number, first in modalities[0].inner.items():
        priors = class_priors(first.labels, n_classes)
        rules: dict[str, Rule] = {f"vote+{name}": FIXED_RULES["vote"]}
        if "stacked" in methods:
            # Every utterance is tested once: a row of the table is one of the manifest.
            rows = first.rows
            theirs = replace(first, present=table.present[rows], proba=proba[rows], parts={})
            inner = [*(one.inner[number] for one in modalities), theirs]
            with one_blas_thread():
                pool = fit_pool(StackedPredictions.of(inner, priors), first.labels)
            rules[f"stacked+{name}"] = pool
            found = zip([each.system for each in tables], describe_rule(pool), strict=True)
            weights[f"{number:02d}"] = {"weights": dict(found)}
        tested = table.folds == number
        given = StackedPredictions.of(
            [
                NewPredictions(each.proba[tested], each.y_pred[tested], each.present[tested])
                for each in tables
            ],
            priors,
        )
        with one_blas_thread():
            applied[number] = {system: rule(given) for system, rule in rules.items()}
    made = {f"{method}+{name}": method for method in ("vote", "stacked") if method in methods}
    fused = {system: _gather(system, table, applied) for system in made}
    return fused, {f"stacked+{name}": weights} if weights else {}


def _fuse_all(
    modalities: Sequence[_BasePredictions],
    early: _BasePredictions | None = None,
    *,
    folds: Sequence[Fold],
    utterances: NDArray[np.str_],
    groups: NDArray[np.str_],
    methods: Collection[str],
    metric: str,
) -> FusionResult:
    """Derive every late system, its variants and the fusion ledger, fold by fold.

    One to eight modalities; of a single one only the offset variants are made. The result is
    the same, to the last bit, whatever the order of modalities and methods. A held-out row in
    a fit or choice raises LeakageError.
    """
    if not 1 <= len(modalities) <= MAX_MODALITIES:
        raise ValueError(f"Got {len(modalities)} modalities; expected 1 to {MAX_MODALITIES}.")
    # Sums over systems are taken in this order, whatever the order given.
    ordered = sorted(modalities, key=attrgetter("system"))
    everyone = ordered if early is None else [*ordered, early]
    first = ordered[0].predictions
    ledgers: dict[str, dict[int, Ledger]] = {}

    def open_ledger(system: str, fold: Fold) -> Ledger:
        ledger = Ledger(system, fold, utterances, groups)
        # A system may learn and then calibrate: both belong to one ledger.
        return ledgers.setdefault(system, {}).setdefault(fold.number, ledger)

    learnt: dict[int, LearnedFusion] = {}
    applied: dict[int, dict[str, NewPredictions]] = {}
    for fold in folds:
        number = fold.number
        learnt[number] = LearnedFusion.learn(
            {one.system: one.inner[number] for one in everyone},
            methods=methods,
            metric=metric,
            open_ledger=partial(open_ledger, fold=fold),
        )
        rows = first.folds == number
        tested = {
            one.system: NewPredictions(
                one.predictions.proba[rows],
                one.predictions.y_pred[rows],
                one.predictions.present[rows],
                one.parts.get(number, {}),
            )
            for one in everyone
        }
        applied[number] = learnt[number].apply(tested)
    given = {one.system for one in everyone}
    made = {
        system: _gather(system, first, applied)
        for system in next(iter(applied.values()))
        if system not in given
    }
    variants = {system: made.pop(system) for system in next(iter(learnt.values())).offsets}
    records: list[FusionRecord] = []
    if len(ordered) > 1:
        best, *fusions = made.values()
        records = fusion_records(
            [one.predictions for one in ordered],
            fusions if early is None else [early.predictions, *fusions],
            best,
        )
    return FusionResult(
        predictions=made,
        offsets=variants,
        learnt=learnt,
        ledgers={
            system: {fold: ledger.entries() for fold, ledger in opened.items()}
            for system, opened in ledgers.items()
        },
        records=tuple(records),
    )


def _gather(
    system: str, first: Predictions, applied: Mapping[int, Mapping[str, NewPredictions]]
) -> Predictions:
    """Join one system's predictions for the test rows of every outer fold."""
    proba, y_pred = np.empty_like(first.proba), np.empty_like(first.y_pred)
    present = np.empty_like(first.present)
    for fold, by_system in applied.items():
        rows, tested = first.folds == fold, by_system[system]
        proba[rows], y_pred[rows] = tested.proba, tested.y_pred
        present[rows] = tested.present
    return replace(first, system=system, present=present, proba=proba, y_pred=y_pred)


@dataclass(frozen=True, slots=True)
class FusionRecord:
    """One count of the fusion ledger.

    - system: A modality, a fusion, or ``"oracle"``.
    - reference: The system it is compared with: ``"best-single"``, the other modality of a
      pair, or empty.
    - scope, group: ``"all"``, ``"class"`` (the true one) or ``"speaker"``; its name.
    - quantity: One of those that :func:`fusion_records` lists.
    - value, n: Number of utterances, and number of those among which they were counted.
    """

    system: str
    reference: str
    scope: str
    group: str
    quantity: str
    value: int
    n: int


def fusion_records(
    modalities: Sequence[Predictions], fusions: Sequence[Predictions], best: Predictions
) -> list[FusionRecord]:
    """Count the decisions that fusions change, and the most that a fusion could gain.

    All predictions are aligned: of two modalities or more, of the fusions (early included) and
    of ``best-single``. Every quantity is over all utterances, then class by class, then speaker
    by speaker:

    - ``absent`` of every modality and fusion: it has no data of the utterance;
    - ``fixed`` and ``broken`` of every fusion: it is right where ``best-single`` is wrong, and
      the other way round;
    - ``right`` of the ``oracle``: some modality is right;
    - ``ties`` of ``vote``, if it is there: several classes have most votes, and
      ``ties_right``: of these the vote's decision is right;
    - ``agreement`` and ``double_fault`` (Giacinto and Roli 2001, Image and Vision Computing 19)
      of every pair: both decide for one class, and both are wrong; among the utterances where
      both are present.
    """
    # Sorted, so that each pair has one order in the table.
    modalities = sorted(modalities, key=lambda table: table.system)
    labels = best.labels
    right = {table.system: table.y_pred == labels for table in [*modalities, *fusions, best]}
    everything = np.ones_like(best.present)
    speakers, numbers = np.unique(best.speakers, return_inverse=True)
    scopes = (
        ("all", ("",), np.zeros_like(labels)),
        ("class", best.classes, labels),
        ("speaker", tuple(speakers.tolist()), numbers),
    )
    records: list[FusionRecord] = []

    def count(
        quantity: str,
        flags: NDArray[np.bool_],
        system: str,
        reference: str = "",
        among: NDArray[np.bool_] = everything,
    ) -> None:
        for scope, names, codes in scopes:
            n = np.bincount(codes[among], minlength=len(names)).tolist()
            values = np.bincount(codes[flags & among], minlength=len(names)).tolist()
            for group, value, total in zip(names, values, n, strict=True):
                records.append(
                    FusionRecord(system, reference, scope, group, quantity, value, total)
                )

    for table in [*modalities, *fusions]:
        count("absent", ~table.present, table.system)
    for table in fusions:
        ours, theirs = right[table.system], right[best.system]
        count("fixed", ours & ~theirs, table.system, best.system)
        count("broken", theirs & ~ours, table.system, best.system)
    count("right", np.any([right[table.system] for table in modalities], axis=0), "oracle")
    if "vote" in right:
        # Ties are of votes alone, so the priors may be anything.
        ties = StackedPredictions.of(modalities, np.zeros(len(best.classes))).tied
        count("ties", ties, "vote")
        count("ties_right", ties & right["vote"], "vote", among=ties)
    for first, second in combinations(modalities, 2):
        pair, both = (first.system, second.system), first.present & second.present
        count("agreement", first.y_pred == second.y_pred, *pair, both)
        wrong = ~right[first.system] & ~right[second.system]
        count("double_fault", wrong, *pair, both)
    return records
