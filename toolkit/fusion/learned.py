"""Late fusion as one object, learnt from training rows and applied to rows held out or new.

Every outer fold of a study learns one from the out-of-fold predictions of its training rows.
The final models learn theirs in the same way from all rows, and keep it as plain data.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from toolkit.fusion.inputs import (
    InnerPredictions,
    NewPredictions,
    Rule,
    StackedPredictions,
    check_same_rows,
    one_blas_thread,
    pool_members,
)
from toolkit.fusion.late import FIXED_RULES, LATE_METHODS, Pool, Stacker, Weights, learn_rule
from toolkit.fusion.offsets import OFFSET_METRICS, ClassOffsets
from toolkit.models.baselines import class_priors
from toolkit.systems import BEST_SINGLE, EARLY, LOG_POOL, variant_name
from toolkit.validation.ledger import Ledger
from toolkit.validation.metrics import METRICS


@dataclass(frozen=True, slots=True, eq=False)
class LearnedFusion:
    """All late systems, learnt from one set of training rows.

    Parameters
    ----------
    modalities : tuple of str
        Sorted, as the weights and the stacker's columns are.
    priors : ndarray of float64, shape (n_classes,)
        Class priors of the training rows.
    best : str or None
        The modality of ``best-single``; None with one modality.
    rules : mapping of str to callable
        Late fusion to its rule, in the order of the tables.
    offsets : mapping of str to ClassOffsets
        Variant, such as ``"soft-offset-uar"``, to its class offsets.
    members : tuple of str
        Members of the pool of margins, in the order of its weights.
    """

    modalities: tuple[str, ...]
    priors: NDArray[np.float64]
    best: str | None
    rules: Mapping[str, Rule]
    offsets: Mapping[str, ClassOffsets]
    members: tuple[str, ...] = ()

    @property
    def pool_weights(self) -> list[float]:
        """Weights of the pool's members; empty without a pool."""
        pool = self.rules.get(LOG_POOL)
        return pool.values.tolist() if isinstance(pool, Pool) else []

    @classmethod
    def learn(
        cls,
        base: Mapping[str, InnerPredictions],
        *,
        scores: Mapping[str, float],
        methods: Collection[str],
        metric: str,
        open_ledger: Callable[[str], Ledger],
        offsets: Collection[str] = tuple(OFFSET_METRICS),
    ) -> Self:
        """Learn weights, a stacker, class offsets and the best modality from training rows.

        Parameters
        ----------
        base : mapping of str to InnerPredictions
            Modality, and ``early`` where there is one, to its predictions for the training
            rows.
        scores : mapping of str to float
            System to the inner score of its search.
        methods : collection of str
            A subset of :data:`LATE_METHODS`; empty for a single modality.
        metric : str
            Metric of the scores.
        open_ledger : callable
            Gives the ledger of a system that learns or chooses.
        offsets : collection of str, default=("f1", "uar")
            Variants to learn of every system, keys of :data:`OFFSET_METRICS`.

        Returns
        -------
        LearnedFusion
            The same whatever the order of the systems.

        Raises
        ------
        ValueError
            If the systems are not over the same rows.
        """
        check_same_rows(base)
        everyone = sorted(base)
        singles = [name for name in everyone if name != EARLY]
        first = base[everyone[0]]
        priors = class_priors(first.labels, first.proba.shape[1])
        best = _choose_best(singles, scores, metric) if len(singles) > 1 else None
        if best is not None:
            open_ledger(BEST_SINGLE).record("best modality", "choose", first.rows)
        rules: dict[str, Rule] = {}
        # Offsets of a fused system are learnt from its own out-of-fold probabilities.
        fused: dict[str, InnerPredictions] = {name: base[name] for name in everyone}
        with one_blas_thread():
            for method in (method for method in LATE_METHODS if method in methods):
                stacked = _stack(method, base, singles, priors)
                rules[method], proba = learn_rule(method, stacked, first, open_ledger)
                fused[method] = replace(first, present=stacked.seen, proba=proba)
        learnt = {}
        for system, inner in fused.items():
            for end in (end for end in OFFSET_METRICS if end in offsets):
                name = variant_name(system, f"offset-{end}")
                learnt[name] = ClassOffsets.learn(inner, OFFSET_METRICS[end], open_ledger(name))
        return cls(
            tuple(singles),
            priors,
            best,
            MappingProxyType(rules),
            MappingProxyType(learnt),
            tuple(pool_members(base)) if LOG_POOL in rules else (),
        )

    def apply(self, base: Mapping[str, NewPredictions]) -> dict[str, NewPredictions]:
        """Fuse predictions for rows that nothing was learnt from.

        Parameters
        ----------
        base : mapping of str to NewPredictions
            Every modality, and ``early`` where there is one, over the same rows.

        Returns
        -------
        dict of str to NewPredictions
            The given systems, ``best-single``, the late fusions, then the variants with class
            offsets.

        Raises
        ------
        ValueError
            If a system is missing.
        """
        needed = [*self.modalities, *([EARLY] if LOG_POOL in self.rules else [])]
        if lacking := [name for name in needed if name not in base]:
            raise ValueError(
                f"Predictions of {', '.join(lacking)} are missing; the fusions need them."
            )
        fused = dict(base)
        if LOG_POOL in self.rules and (members := tuple(pool_members(base))) != self.members:
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
        """Describe the fusion as plain data.

        Returns
        -------
        dict
            Lists, numbers and text; :meth:`restore` reads it back to the same numbers.
        """
        weights, stacker = self.rules.get("weighted"), self.rules.get("stacked")
        return {
            "modalities": list(self.modalities),
            "shares": self.priors.tolist(),
            "methods": list(self.rules),
            "best-single": self.best,
            "weighted": weights.values.tolist() if isinstance(weights, Weights) else None,
            "stacked": {
                "C": stacker.penalty,
                "coefficients": stacker.coefficients.tolist(),
                # JSON has no infinity: null marks a class that the training rows lack.
                "intercept": [
                    v if np.isfinite(v) else None for v in stacker.intercept.tolist()
                ],
            }
            if isinstance(stacker, Stacker)
            else None,
            LOG_POOL: dict(zip(self.members, self.pool_weights, strict=True)) or None,
            "offsets": {
                variant: asdict(found) | {"values": list(found.values)}
                for variant, found in self.offsets.items()
            },
        }

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """Read back the result of :meth:`describe`.

        Parameters
        ----------
        plain : mapping
            Plain data.

        Returns
        -------
        LearnedFusion
            Predicting the same to the last bit.
        """
        weighted, stacked = plain["weighted"], plain["stacked"]
        rules: dict[str, Rule] = dict(FIXED_RULES)
        pooled = plain.get(LOG_POOL)  # earlier versions have none
        if pooled is not None:
            rules[LOG_POOL] = Pool(np.array(list(pooled.values()), dtype=np.float64))
        if weighted is not None:
            rules["weighted"] = Weights(np.array(weighted, dtype=np.float64))
        if stacked is not None:
            rules["stacked"] = Stacker(
                np.array(stacked["coefficients"], dtype=np.float64),
                np.array([-np.inf if v is None else v for v in stacked["intercept"]]),
                stacked["C"],
            )
        return cls(
            modalities=tuple(plain["modalities"]),
            priors=np.array(plain["shares"], dtype=np.float64),
            best=plain["best-single"],
            members=() if pooled is None else tuple(pooled),
            rules=MappingProxyType({method: rules[method] for method in plain["methods"]}),
            offsets=MappingProxyType(
                {
                    variant: ClassOffsets(**(found | {"values": tuple(found["values"])}))
                    for variant, found in sorted(plain["offsets"].items())
                }
            ),
        )


def _stack(
    method: str,
    base: Mapping[str, InnerPredictions] | Mapping[str, NewPredictions],
    modalities: Sequence[str],
    priors: NDArray[np.float64],
) -> StackedPredictions:
    """Stack the predictions that a rule fuses: those of the modalities, or the pool's."""
    if method == LOG_POOL:
        return StackedPredictions.of(list(pool_members(base).values()), priors)
    return StackedPredictions.of([base[name] for name in modalities], priors)


def _choose_best(modalities: list[str], scores: Mapping[str, float], metric: str) -> str:
    """Choose the modality whose search scored best on training groups.

    The modality with the best reported score would be chosen with hindsight, and any system
    looks worse beside it.
    """
    if unscored := [name for name in modalities if name not in scores]:
        raise ValueError(
            f"{unscored} have no inner scores; expected voters that were searched, since the "
            "best one is chosen by its inner score."
        )
    pick = max if METRICS[metric].direction == "maximize" else min
    return pick(modalities, key=lambda name: scores[name])
