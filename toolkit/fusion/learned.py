"""Late fusion as one object, learnt from training rows and applied to rows held out or new.

Every outer fold of a study learns one from the out-of-fold predictions of its training rows.
The final models learn theirs in the same way from all rows, and keep it as plain data.

Class offsets predict another class than the most probable one where a metric rewards it:
probabilities fitted to the log-loss rarely make a rare class the most probable. One offset per
class is added to the log-probabilities before the largest is taken; these stay as they are.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.fusion.inputs import (
    TIE,
    InnerPredictions,
    NewPredictions,
    Rule,
    StackedPredictions,
    one_blas_thread,
)
from toolkit.fusion.late import (
    FIXED_RULES,
    LATE_METHODS,
    describe_rule,
    learn_rule,
    restore_rule,
)
from toolkit.models import class_priors
from toolkit.systems import BEST_SINGLE, EARLY, LOG_POOL, variant_name
from toolkit.validation.folds import groups_of
from toolkit.validation.ledger import Ledger
from toolkit.validation.metrics import METRICS, Floats, GroupedRows
from toolkit.validation.scores import pooled_and_left_out

OFFSET_METRICS: Final = {"f1": "f1_micro", "uar": "uar"}
"""End of a variant's name (``text-offset-uar``) to the metric that it raises."""

_GRID: Final[NDArray[np.float64]] = np.arange(-20, 21) / 10
"""Values an offset may take."""
_GRID.setflags(write=False)


@dataclass(frozen=True, slots=True)
class _ClassOffsets:
    """Offsets fitted on one outer fold's training groups, and their gain there.

    - values: One per class, summing to 0; all 0 where they are not kept.
    - standard_error: Jackknife standard error of the gain over groups.
    - kept: Whether the gain exceeds its standard error.
    """

    values: tuple[float, ...]
    gain: float
    standard_error: float
    kept: bool

    @classmethod
    def learn(cls, inner: InnerPredictions, metric: str, ledger: Ledger) -> "_ClassOffsets":
        """Learn a system's offsets from the rows of one outer fold that it is present in."""
        seen = inner.present
        ledger.record("offsets", "calibrate", inner.rows[seen])
        groups = groups_of(inner.groups[seen])
        return _fit_offsets(inner.proba[seen], inner.labels[seen], groups, metric)

    def decide(self, proba: Floats) -> NDArray[np.int64]:
        """Predict positions of classes, shape (n,), as the offsets move them."""
        return _decide(proba, np.array(self.values))


def _decide(proba: Floats, offsets: Floats) -> NDArray[np.int64]:
    """Predict the class with the largest log-probability plus offset: positions, shape (n,).

    A class of probability 0 is never predicted.
    """
    return np.asarray(np.argmax(_log(proba) + offsets, axis=1))


def _fit_offsets(
    proba: Floats, labels: NDArray[np.int64], groups: NDArray[np.str_], metric: str
) -> _ClassOffsets:
    """Find the offsets of the largest metric from out-of-fold probabilities (n, n_classes).

    One class after the other takes the best value from -2 to 2 in steps of 0.1, the smallest
    in magnitude of equally good ones, until none gains anything; then their mean is taken
    off. The start is 0 for F1-micro and, for UAR, minus the logarithm of the class shares,
    which would be right if the probabilities were calibrated. A class without training rows,
    of probability 0, keeps 0.
    """
    support = np.bincount(labels, minlength=proba.shape[1])
    # A single group has no jackknife, so nothing would show whether a gain is chance.
    n_groups = len(np.unique(groups))
    zeros = np.zeros(proba.shape[1])
    if n_groups < 2:
        return _ClassOffsets(tuple(zeros.tolist()), 0.0, 0.0, kept=False)
    found = support > 0
    offsets = zeros.copy()
    if metric == "uar":
        offsets[found] = -np.log(support[found] / support.sum())
        offsets[found] -= offsets[found].mean()
        credit = 1 / (len(support) * np.maximum(support, 1))
    else:
        credit = np.full(len(support), 1 / support.sum())
    offsets = _ascend(_log(proba), labels, offsets, credit)
    offsets[found] -= offsets[found].mean()
    gain, error = _gain(proba, labels, groups, offsets, metric)
    kept = gain > error + TIE
    return _ClassOffsets(tuple((offsets if kept else zeros).tolist()), gain, error, kept)


def _ascend(logs: Floats, labels: NDArray[np.int64], offsets: Floats, credit: Floats) -> Floats:
    """Move one offset after the other to its best value until none gains anything.

    Both metrics are sums over hits, of the ``credit`` (n_classes,) of each hit's class: in UAR
    a hit of a rare class counts more.
    """
    best = -np.inf
    while True:
        before = best
        for code in range(len(offsets)):
            candidates = np.sort(np.append(_GRID, offsets[code]))
            hits = _candidate_hits(logs, labels, offsets, code, candidates)
            values = (hits * credit).sum(axis=1)
            best = float(values.max())
            # Equal values differ by rounding; the smallest offset among them changes least.
            sizes = np.where(values >= best - TIE, np.abs(candidates), np.inf)
            offsets[code] = candidates[sizes.argmin()]
        if best <= before + TIE:
            return offsets


def _candidate_hits(
    logs: Floats, labels: NDArray[np.int64], offsets: Floats, code: int, candidates: Floats
) -> NDArray[np.int64]:
    """Count hits per candidate offset of one class: shape (n_candidates, n_classes).

    A row is predicted as that class or as the best of the others, and this changes once: where
    the offset reaches the lead of the other. So rows are counted by the bin of their lead, not
    predicted again for every candidate.
    """
    n_classes, n_bins = logs.shape[1], len(candidates) + 1
    others = [k for k in range(n_classes) if k != code]
    other = np.full(len(labels), others[0])
    rival = logs[:, others[0]] + offsets[others[0]]
    for k in others[1:]:  # argmax over a short axis is ten times slower
        score = logs[:, k] + offsets[k]
        other[score > rival] = k
        rival = np.maximum(rival, score)
    lead = rival - logs[:, code]
    bins = np.searchsorted(candidates, lead, side="right")
    # A tie goes to the lower code, as in `_decide`.
    tied = (other > code) & (candidates[bins - 1] == lead)
    bins[tied] -= 1
    counts = np.zeros((2, n_classes, n_bins), dtype=np.int64)
    for kind, right in enumerate((labels == code, labels == other)):
        cells = labels[right] * n_bins + bins[right]
        counts[kind] = np.bincount(cells, minlength=n_classes * n_bins).reshape(
            n_classes, n_bins
        )
    # Larger offsets win rows for this class, and lose them for the others.
    won = counts[0].cumsum(axis=1)[:, :-1]
    kept = counts[1].sum(axis=1, keepdims=True) - counts[1].cumsum(axis=1)[:, :-1]
    return np.asarray((won + kept).T)


def _gain(
    proba: Floats,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    offsets: Floats,
    metric: str,
) -> tuple[float, float]:
    """Compute the gain of a metric by offsets, and its jackknife standard error over groups."""
    names, numbers = np.unique(groups, return_inverse=True)
    n, scored = len(names), METRICS[metric]
    moved, plain = (
        pooled_and_left_out(
            scored.value,
            scored.tally(GroupedRows(labels, _decide(proba, values), proba, numbers, n)),
        )
        for values in (offsets, np.zeros_like(offsets))
    )
    left_out = moved[1] - plain[1]
    spread = ((left_out - left_out.mean()) ** 2).sum()
    return float(moved[0] - plain[0]), float(np.sqrt((n - 1) / n * spread))


def _log(proba: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(proba)


@dataclass(frozen=True, slots=True, eq=False)
class LearnedFusion:
    """All late systems, learnt from one set of training rows.

    - modalities: Sorted, as the weights and the stacker's columns are.
    - priors: shape (n_classes,); Class priors of the training rows.
    - best: The modality of ``best-single``; None with one modality.
    - rules: Late fusion to its rule, in the order of the tables.
    - offsets: Variant, such as ``"soft-offset-uar"``, to its class offsets.
    - members: Members of the pool of margins, in the order of its weights.
    """

    modalities: tuple[str, ...]
    priors: NDArray[np.float64]
    best: str | None
    rules: Mapping[str, Rule]
    offsets: Mapping[str, _ClassOffsets]
    members: tuple[str, ...] = ()

    @property
    def pool_weights(self) -> list[float]:
        """Weights of the pool's members; empty without a pool."""
        return describe_rule(self.rules.get(LOG_POOL)) or []

    @classmethod
    def learn(
        cls,
        base: Mapping[str, InnerPredictions],
        *,
        methods: Collection[str],
        metric: str,
        open_ledger: Callable[[str], Ledger],
    ) -> Self:
        """Learn weights, a stacker, class offsets and the best modality from training rows.

        The result is the same whatever the order of the systems. Systems that are not over the
        same rows raise ValueError.

        - base: Modalities, and ``early`` where there is one.
        - methods: A subset of :data:`LATE_METHODS`; empty for a single modality.
        - open_ledger: Gives the ledger of a system that learns or chooses.
        """
        everyone = sorted(base)
        singles = [name for name in everyone if name != EARLY]
        first = base[everyone[0]]
        for part, other in product(("rows", "labels", "groups"), everyone[1:]):
            if not np.array_equal(getattr(first, part), getattr(base[other], part)):
                raise ValueError(
                    f"The inner predictions of {everyone[0]!r} and {other!r} are not aligned: "
                    f"their {part} differ; expected the same training rows of one study."
                )
        priors = class_priors(first.labels, first.proba.shape[1])
        best = _choose_best({name: base[name] for name in singles}, priors, metric)
        if best is not None:
            open_ledger(BEST_SINGLE).record("best modality", "choose", first.rows)
        rules: dict[str, Rule] = {}
        # Offsets of a fused system are learnt from its own out-of-fold probabilities.
        fused = {name: base[name] for name in everyone}
        with one_blas_thread():
            for method in (method for method in LATE_METHODS if method in methods):
                stacked = _stack(method, base, singles, priors)
                rules[method], proba = learn_rule(method, stacked, first, open_ledger)
                fused[method] = replace(first, present=stacked.seen, proba=proba)
        learnt = {}
        for system, inner in fused.items():
            for end, scored in OFFSET_METRICS.items():
                name = variant_name(system, f"offset-{end}")
                learnt[name] = _ClassOffsets.learn(inner, scored, open_ledger(name))
        members = tuple(_pool_members(base)) if LOG_POOL in rules else ()
        return cls(tuple(singles), priors, best, rules, learnt, members)

    def apply(self, base: Mapping[str, NewPredictions]) -> dict[str, NewPredictions]:
        """Fuse predictions for the same rows, which nothing was learnt from.

        `base` holds every modality, and ``early`` where there is one; a missing one raises
        ValueError. The result adds ``best-single``, the late fusions, then the variants with
        class offsets.
        """
        needed = [*self.modalities, *([EARLY] if LOG_POOL in self.rules else [])]
        if lacking := [name for name in needed if name not in base]:
            raise ValueError(
                f"Predictions of {', '.join(lacking)} are missing; the fusions need them."
            )
        fused = dict(base)
        if LOG_POOL in self.rules and (members := tuple(_pool_members(base))) != self.members:
            raise ValueError(
                f"The pool of margins was learnt from {', '.join(self.members)}, and is given "
                f"{', '.join(members)}."
            )
        if self.best is not None:
            fused[BEST_SINGLE] = base[self.best]
        with one_blas_thread():
            for method, rule in self.rules.items():
                fused[method] = rule(_stack(method, base, self.modalities, self.priors))
        for variant, found in self.offsets.items():
            # A row that the system does not see keeps its decision by the priors.
            system = fused[variant_name(variant, "")]
            y_pred = system.y_pred.copy()
            if found.kept:
                rows = system.present
                y_pred[rows] = found.decide(system.proba[rows])
            fused[variant] = replace(system, y_pred=y_pred)
        return fused

    def describe(self) -> dict[str, Any]:
        """Describe the fusion as lists, numbers and text, which :meth:`restore` reads back."""
        return {
            "modalities": list(self.modalities),
            "shares": self.priors.tolist(),
            "methods": list(self.rules),
            "best-single": self.best,
            "weighted": describe_rule(self.rules.get("weighted")),
            "stacked": describe_rule(self.rules.get("stacked")),
            LOG_POOL: dict(zip(self.members, self.pool_weights, strict=True)) or None,
            "offsets": {
                variant: asdict(found) | {"values": list(found.values)}
                for variant, found in self.offsets.items()
            },
        }

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """Read back the result of :meth:`describe`: it predicts the same to the last bit."""
        pooled = plain.get(LOG_POOL) or {}  # earlier versions have none
        learnt = {name: plain[name] for name in ("weighted", "stacked")}
        learnt[LOG_POOL] = list(pooled.values())
        rules = {
            method: FIXED_RULES.get(method) or restore_rule(method, learnt[method])
            for method in plain["methods"]
        }
        return cls(
            modalities=tuple(plain["modalities"]),
            priors=np.array(plain["shares"], dtype=np.float64),
            best=plain["best-single"],
            members=tuple(pooled),
            rules=rules,
            offsets={
                variant: _ClassOffsets(**(found | {"values": tuple(found["values"])}))
                for variant, found in sorted(plain["offsets"].items())
            },
        )


def _pool_members(
    base: Mapping[str, InnerPredictions | NewPredictions],
) -> dict[str, InnerPredictions | NewPredictions]:
    """Name the members of the pool of margins, sorted.

    They are the trees of every modality and of early fusion, and the linear part of early
    fusion.
    """
    members: dict[str, InnerPredictions | NewPredictions] = {
        f"{name} (trees)": replace(one, proba=one.parts.get("trees", one.proba))
        for name, one in sorted(base.items())
    }
    if "linear" in base[EARLY].parts:
        members[f"{EARLY} (linear)"] = replace(base[EARLY], proba=base[EARLY].parts["linear"])
    return dict(sorted(members.items()))


def _stack(
    method: str,
    base: Mapping[str, InnerPredictions] | Mapping[str, NewPredictions],
    modalities: Sequence[str],
    priors: NDArray[np.float64],
) -> StackedPredictions:
    """Stack the predictions that a rule fuses: those of the modalities, or the pool's."""
    if method == LOG_POOL:
        return StackedPredictions.of(list(_pool_members(base).values()), priors)
    return StackedPredictions.of([base[name] for name in modalities], priors)


def _choose_best(
    modalities: Mapping[str, InnerPredictions], priors: Floats, metric: str
) -> str | None:
    """Choose the modality with the best out-of-fold score; None of a single one.

    The modality with the best reported score would be chosen with hindsight, and any system
    looks worse beside it.
    """
    if len(modalities) < 2:
        return None
    # All training rows count: a rare modality is easily best on the rows that have it.
    scores = {
        name: METRICS[metric].compute(
            inner.labels, np.where(inner.present[:, None], inner.proba, priors)
        )
        for name, inner in modalities.items()
    }
    pick = max if METRICS[metric].direction == "maximize" else min
    return pick(scores, key=lambda name: scores[name])
