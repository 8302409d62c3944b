"""Late fusion for new recordings: learnt from everybody, applied where nobody is held out.

In a study every fold learns its own weights, stackers and offsets. What is handed on after
it is one set of them, learnt in the same way from out-of-fold predictions of all speakers,
and kept as plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.fusion.fuse import LATE_METHODS
from toolkit.fusion.inputs import Rule, StackedPredictions, inner_panel, one_blas_thread
from toolkit.fusion.late import Stacker, average, count_votes, learn_stacker, learn_weights
from toolkit.fusion.offsets import OFFSET_METRICS, ClassOffsets, decide, fit_offsets
from toolkit.models.baselines import class_priors
from toolkit.systems import BEST_SINGLE, EARLY, variant_name
from toolkit.validation.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from toolkit.fusion.inputs import InnerPredictions
    from toolkit.validation.ledger import Ledger


@dataclass(frozen=True, slots=True, eq=False)
class FinalFusion:
    """Everything that late systems need to know of the speakers they learnt from.

    Parameters
    ----------
    modalities : tuple of str
        Sorted, as the rows of ``weights`` and of the stacker's columns are.
    shares : ndarray of float64, shape (n_classes,)
        Class shares of all training rows: what is said of a row that no voter saw.
    methods : tuple of str
        Late fusions there are, in the order of :data:`LATE_METHODS`.
    best : str or None
        The modality of ``best-single``; None where there is only one.
    weights : ndarray of float64, shape (n_modalities,), or None
        Of ``weighted``.
    stacker : Stacker or None
        Of ``stacked``.
    penalty : float or None
        The stacker's C.
    offsets : mapping of str to ClassOffsets
        Variant, such as ``"soft-offset-uar"``, to its offsets.
    """

    modalities: tuple[str, ...]
    shares: NDArray[np.float64]
    methods: tuple[str, ...]
    best: str | None
    weights: NDArray[np.float64] | None
    stacker: Stacker | None
    penalty: float | None
    offsets: Mapping[str, ClassOffsets]


@dataclass(frozen=True, slots=True, eq=False)
class NewPredictions:
    """What one system says of new recordings.

    Parameters
    ----------
    proba : ndarray of float64, shape (n, n_classes)
        Class probabilities.
    y_pred : ndarray of int64, shape (n,)
        Positions of the predicted classes.
    present : ndarray of bool, shape (n,)
        Whether the system had something to see.
    """

    proba: NDArray[np.float64]
    y_pred: NDArray[np.int64]
    present: NDArray[np.bool_]


def learn_final(
    voters: Mapping[str, InnerPredictions],
    *,
    scores: Mapping[str, float],
    methods: Collection[str],
    metric: str,
    open_ledger: Callable[[str], Ledger],
) -> FinalFusion:
    """Learn weights, a stacker and class offsets from out-of-fold predictions of everybody.

    Parameters
    ----------
    voters : mapping of str to InnerPredictions
        Modality, and ``early`` where there is one, to its predictions for all rows, each
        made by a model that did not see the row's group.
    scores : mapping of str to float
        BasePredictions to the inner score of its search.
    methods : collection of str
        Some of :data:`LATE_METHODS`.
    metric : str
        What the scores are.
    open_ledger : callable
        Gives the ledger of a system.

    Returns
    -------
    FinalFusion
        The same whatever the order of the voters.

    Raises
    ------
    ValueError
        If the voters are not over the same rows.
    """
    singles = sorted(name for name in voters if name != EARLY)
    everyone = sorted(voters)
    first = voters[everyone[0]]
    _check_rows(voters)
    shares = class_priors(first.labels, first.proba.shape[1])
    fused: dict[str, InnerPredictions] = {}
    weights = stacker = penalty = best = None
    if len(singles) > 1:
        panel = inner_panel([voters[name] for name in singles], shares)
        sign = 1 if METRICS[metric].direction == "maximize" else -1
        best = singles[int(np.argmax([sign * scores[name] for name in singles]))]
        open_ledger("best-single").record("best modality", "choose", first.rows)
        learnt: dict[str, NDArray[np.float64]] = {}
        with one_blas_thread():
            if "vote" in methods:
                learnt["vote"] = count_votes(panel).proba
            if "soft" in methods:
                learnt["soft"] = average(panel).proba
            if "weighted" in methods:
                weights, learnt["weighted"] = learn_weights(
                    panel, first, open_ledger("weighted")
                )
            if "stacked" in methods:
                stacker, penalty, learnt["stacked"] = learn_stacker(
                    panel, first, open_ledger("stacked")
                )
            if "hybrid" in methods:
                mixed = inner_panel([voters[name] for name in everyone], shares)
                learnt["hybrid"] = average(mixed).proba
        fused = {
            name: replace(first, present=panel.seen, proba=proba)
            for name, proba in learnt.items()
        }
    offsets = {}
    for system, inner in ({name: voters[name] for name in everyone} | fused).items():
        seen = inner.present
        for end, served in OFFSET_METRICS.items():
            variant = variant_name(system, f"offset-{end}")
            open_ledger(variant).record("offsets", "calibrate", inner.rows[seen])
            offsets[variant] = fit_offsets(
                inner.proba[seen], inner.labels[seen], inner.groups[seen], served
            )
    return FinalFusion(
        modalities=tuple(singles),
        shares=shares,
        methods=tuple(name for name in LATE_METHODS if name in fused),
        best=best,
        weights=weights,
        stacker=stacker,
        penalty=penalty,
        offsets=MappingProxyType(offsets),
    )


def apply_final(
    learnt: FinalFusion, voters: Mapping[str, NewPredictions]
) -> dict[str, NewPredictions]:
    """Fuse what the final models say of new recordings.

    Parameters
    ----------
    learnt : FinalFusion
        From :func:`learn_final`.
    voters : mapping of str to NewPredictions
        Every modality, and ``early`` where there is one, over the same rows.

    Returns
    -------
    dict of str to NewPredictions
        The voters, ``best-single``, the late fusions, then the variants with class offsets.

    Raises
    ------
    ValueError
        If a voter is missing.
    """
    needed = [*learnt.modalities, *([EARLY] if "hybrid" in learnt.methods else [])]
    if lacking := [name for name in needed if name not in voters]:
        raise ValueError(f"Nothing is said by {', '.join(lacking)}, which the fusions need.")
    said = dict(voters)
    if learnt.best is not None:
        said[BEST_SINGLE] = voters[learnt.best]
        panel = _new_panel(learnt, [voters[name] for name in learnt.modalities])
        whole = _new_panel(learnt, [voters[name] for name in sorted(needed)])
        rules: dict[str, Rule] = {
            "vote": count_votes,
            "soft": average,
            "weighted": lambda rows: average(rows, learnt.weights),
            "hybrid": average,
        }
        if learnt.stacker is not None:
            rules["stacked"] = learnt.stacker
        with one_blas_thread():
            for method in learnt.methods:
                rows = whole if method == "hybrid" else panel
                said[method] = NewPredictions(*rules[method](rows), rows.seen)
    for variant, found in learnt.offsets.items():
        said[variant] = _decide_again(said[variant_name(variant, "")], found)
    return said


def describe_final(learnt: FinalFusion) -> dict[str, Any]:
    """Give what was learnt as plain data.

    Parameters
    ----------
    learnt : FinalFusion
        From :func:`learn_final`.

    Returns
    -------
    dict
        Lists, numbers and text; :func:`restore_final` reads it back to the same numbers.
    """
    stacker = learnt.stacker
    return {
        "modalities": list(learnt.modalities),
        "shares": learnt.shares.tolist(),
        "methods": list(learnt.methods),
        "best-single": learnt.best,
        "weighted": None if learnt.weights is None else learnt.weights.tolist(),
        "stacked": stacker
        and {
            "C": learnt.penalty,
            "coefficients": stacker.coefficients.tolist(),
            # JSON has no infinity: null marks a class that the training rows lack.
            "intercept": [v if np.isfinite(v) else None for v in stacker.intercept.tolist()],
        },
        "offsets": {
            variant: {
                "values": list(found.values),
                "gain": found.gain,
                "standard_error": found.standard_error,
                "kept": found.kept,
            }
            for variant, found in learnt.offsets.items()
        },
    }


def restore_final(plain: Mapping[str, Any]) -> FinalFusion:
    """Read back what :func:`describe_final` gave.

    Parameters
    ----------
    plain : mapping
        Plain data.

    Returns
    -------
    FinalFusion
        Deciding the same to the last bit.
    """
    stacked, weighted = plain["stacked"], plain["weighted"]
    return FinalFusion(
        modalities=tuple(plain["modalities"]),
        shares=np.array(plain["shares"], dtype=np.float64),
        methods=tuple(plain["methods"]),
        best=plain["best-single"],
        weights=None if weighted is None else np.array(weighted, dtype=np.float64),
        stacker=None
        if stacked is None
        else Stacker(
            np.array(stacked["coefficients"], dtype=np.float64),
            np.array([-np.inf if v is None else v for v in stacked["intercept"]]),
        ),
        penalty=None if stacked is None else stacked["C"],
        offsets=MappingProxyType(
            {
                variant: ClassOffsets(**(found | {"values": tuple(found["values"])}))
                for variant, found in sorted(plain["offsets"].items())
            }
        ),
    )


def _check_rows(voters: Mapping[str, InnerPredictions]) -> None:
    (name, first), *others = voters.items()
    for other, inner in others:
        for part in ("rows", "labels", "groups"):
            if not np.array_equal(getattr(first, part), getattr(inner, part)):
                raise ValueError(
                    f"The out-of-fold predictions of {name!r} and {other!r} are not aligned: "
                    f"their {part} differ; expected the same rows of one study."
                )


def _new_panel(learnt: FinalFusion, voters: list[NewPredictions]) -> StackedPredictions:
    return StackedPredictions(
        np.stack([voter.y_pred for voter in voters]),
        np.stack([voter.proba for voter in voters]),
        np.stack([voter.present for voter in voters]),
        np.tile(learnt.shares, (len(voters[0].y_pred), 1)),
    )


def _decide_again(said: NewPredictions, found: ClassOffsets) -> NewPredictions:
    y_pred = said.y_pred.copy()
    if found.kept:
        y_pred[said.present] = decide(said.proba[said.present], np.array(found.values))
    return replace(said, y_pred=y_pred)
