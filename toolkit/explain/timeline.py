"""Contributions over time: those of pooled statistics, spread over the frames.

Frame t gets ``phi w_t`` of a statistic's contribution phi, with weights w that are not negative
and sum to 1. So frames, features without a time axis, absent modalities and the expected margin
add up to the margin. This is a convention, not a Shapley value of frames: no frame is replaced.

A statistic that is a sum of a_t over the frames, and has mean r over the fold's training rows,
weighs frame t by its addition in the direction in which the sum differs from r:
``max(0, s (a_t - r / n))`` with ``s = sign(sum a - r)``, normalised, or equally if all are 0.
Order statistics go to the frames of their value, deltas half to each of their frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.explain.contributions import Explainer, ExplanationError, family_of, parse_names
from toolkit.pooling.statistics import BUILT_IN, PERCENTILES, STATISTICS, THIRDS, VALUE, Frames
from toolkit.validation.metrics import Floats

Rule = Callable[[Frames, Floats], Floats]

_REGISTERED: dict[str, Rule] = {}
"""Rules of statistics that the user registered."""


def _frame_weights(statistic: str, frames: ArrayLike, reference: ArrayLike) -> Floats:
    """Compute the weights of a statistic's frames: (n_frames, n_dims), columns sum to 1.

    ``frames`` (n_frames, n_dims) are finite; ``reference`` (n_dims,) is the mean of the pooled
    feature over the fold's training rows, NaN where none had it.
    """
    if statistic == VALUE or statistic not in STATISTICS:
        raise ValueError(
            f"The statistic {statistic!r} cannot be handed back to frames; expected one of "
            f"{', '.join(STATISTICS)}."
        )
    shared = Frames(frames)
    means = np.asarray(reference, dtype=np.float64)
    # One frame takes all, and has no deltas to compute.
    if shared.n_frames == 1:
        return np.ones_like(shared.frames)
    # A constant dimension has no skew, and its reference may be missing: weights become equal.
    with np.errstate(invalid="ignore"):
        if statistic in _AT_FRAMES:
            return _normalise(_AT_FRAMES[statistic](shared))
        rule = _SUMS.get(statistic) or _REGISTERED.get(statistic)
        return _normalise(rule(shared, means) if rule else np.ones_like(shared.frames))


def register_frame_weights(statistic: str, rule: Callable[[Floats, Floats], ArrayLike]) -> None:
    """Register the frame weights of your own statistic, for this process.

    Parameters
    ----------
    statistic : str
        Its registered name.
    rule : callable
        Takes frames (n_frames, n_dims) and references (n_dims,), and gives weights of the
        shape of the frames. They are not negative, and will be normalised.

    Raises
    ------
    ValueError
        If the statistic comes with the toolkit or is unknown.
    """
    if statistic in BUILT_IN or statistic not in STATISTICS:
        raise ValueError(
            f"Weights are registered for statistics of one's own; {statistic!r} is not one "
            "that register_statistic made known."
        )

    def checked(shared: Frames, reference: Floats) -> Floats:
        weights = np.asarray(rule(shared.frames, reference), dtype=np.float64)
        if weights.shape != shared.frames.shape or not (weights >= 0).all():
            raise ValueError(
                f"The weights registered for {statistic!r} have shape {weights.shape} and "
                f"least value {weights.min()}; expected shape {shared.frames.shape} and "
                "numbers from 0."
            )
        return weights

    _REGISTERED[statistic] = checked


def _spread_over_frames(
    frames: ArrayLike,
    contributions: Mapping[str, ArrayLike],
    references: Mapping[str, ArrayLike],
) -> Floats:
    """Spread the contributions of one modality of one utterance over its frames.

    ``frames`` (n_frames, n_dims) are those that were pooled; a statistic's contributions have
    shape (..., n_dims), its references (n_dims,), and the result (..., n_frames).
    """
    n_frames = len(np.asarray(frames))
    leading = np.shape(next(iter(contributions.values())))[:-1]
    curve = np.zeros((*leading, n_frames))
    for statistic, phi in contributions.items():
        weights = _frame_weights(statistic, frames, references[statistic])
        curve += np.asarray(phi, dtype=np.float64) @ weights.T
    return curve


def _normalise(weights: Floats) -> Floats:
    """Make each dimension's weights sum to 1; equal ones replace zeros and missing values."""
    totals = weights.sum(axis=0)
    useful = np.isfinite(totals) & (totals > 0)
    return np.where(useful, weights / np.where(useful, totals, 1), 1 / len(weights))


def _toward(a: Floats, reference: Floats) -> Floats:
    """Weigh the items of a sum by their part in its difference from the reference."""
    sign = np.sign(a.sum(axis=0) - reference)
    return np.asarray(np.maximum(0.0, sign * (a - reference / len(a))))


def _halve_pairs(pairs: Floats) -> Floats:
    """Give each of two neighbouring frames half of what the pair has."""
    halves = np.zeros((len(pairs) + 1, *pairs.shape[1:]))
    halves[:-1] += pairs / 2
    halves[1:] += pairs / 2
    return halves


def _delta_weights(deltas: Floats) -> Floats:
    """Weigh frames by the normalised weights of their deltas."""
    return _halve_pairs(_normalise(deltas))


def _rank(values: Floats, share: float) -> Floats:
    """Weigh the frames of the two ranks that a percentile lies between."""
    ordered = np.sort(values, axis=0)
    rank = share * (len(values) - 1)
    lower = int(rank)
    upper = min(lower + 1, len(values) - 1)
    part = rank - lower
    low, high = (
        _normalise((values == ordered[at]).astype(np.float64)) for at in (lower, upper)
    )
    return np.asarray((1 - part) * low + part * high)


def _mean(x: Frames, reference: Floats) -> Floats:
    return _toward(x.frames / x.n_frames, reference)


def _std(x: Frames, reference: Floats) -> Floats:
    return _toward(x.unscaled(x.deviations) ** 2 / x.n_frames, reference**2)


def _moment(x: Frames, reference: Floats, power: int) -> Floats:
    z = x.deviations / np.sqrt(x.power)
    excess = 3.0 if power == 4 else 0.0
    return _toward((z**power - excess) / x.n_frames, reference)


def _weighted(x: Frames, reference: Floats, weights: Floats) -> Floats:
    return _toward(x.unscaled(weights[:, None] * x.deviations), reference)


def _one_frame(x: Frames, index: NDArray[np.intp] | int) -> Floats:
    """Give all weight of each dimension to one frame."""
    weights = np.zeros_like(x.frames)
    weights[index, np.arange(weights.shape[1])] = 1
    return weights


def _delta_mean_abs(x: Frames, reference: Floats) -> Floats:
    return _delta_weights(_toward(np.abs(x.unscaled(x.deltas)) / (x.n_frames - 1), reference))


def _delta_std(x: Frames, reference: Floats) -> Floats:
    deltas = x.unscaled(x.deltas)
    parts = (deltas - deltas.mean(axis=0)) ** 2 / (x.n_frames - 1)
    return _delta_weights(_toward(parts, reference**2))


def _lag1(x: Frames, reference: Floats) -> Floats:
    products = x.deviations[1:] * x.deviations[:-1]
    return _toward(_halve_pairs(products) / (x.power * x.n_frames), reference)


def _crossing_rate(x: Frames) -> Floats:
    # A zero takes the sign before it, so a crossing lies before the frame that is beyond.
    latest = np.maximum.accumulate(
        np.where(x.signs != 0, np.arange(x.n_frames)[:, None], 0), axis=0
    )
    sides = np.take_along_axis(x.signs, latest, axis=0)
    crossings = sides[1:] * sides[:-1] < 0
    # A dimension without crossings stays at 0, which means equal weights.
    return _delta_weights(crossings.astype(np.float64)) * crossings.any(axis=0)


def _third(x: Frames, reference: Floats, number: int, rule: Rule) -> Floats:
    part = x.third(number)
    weights = np.zeros_like(x.frames)
    weights[part] = _normalise(rule(Frames(x.frames[part]), reference))
    return weights


_AT_FRAMES: Final[Mapping[str, Callable[[Frames], Floats]]] = {
    "min": lambda x: _rank(x.frames, 0),
    "max": lambda x: _rank(x.frames, 1),
    "range": lambda x: (_rank(x.frames, 1) + _rank(x.frames, 0)) / 2,
    "first": lambda x: _one_frame(x, 0),
    "last": lambda x: _one_frame(x, -1),
    "argmax_position": lambda x: _one_frame(x, x.frames.argmax(axis=0)),
    "argmin_position": lambda x: _one_frame(x, x.frames.argmin(axis=0)),
    **{
        name: partial(lambda x, share: _rank(x.frames, share), share=share)
        for name, share in PERCENTILES.items()
    },
    "iqr": lambda x: (_rank(x.frames, 0.75) + _rank(x.frames, 0.25)) / 2,
    "delta_max_abs": lambda x: _delta_weights(_rank(np.abs(x.deltas), 1)),
    "delta_p90_abs": lambda x: _delta_weights(_rank(np.abs(x.deltas), 0.9)),
    "crossing_rate": _crossing_rate,
}
"""Statistics whose value is that of certain frames, whatever the reference."""

_SUMS: Final[Mapping[str, Rule]] = {
    "mean": _mean,
    "std": _std,
    "skew": partial(_moment, power=3),
    "kurtosis": partial(_moment, power=4),
    "slope": lambda x, reference: _weighted(x, reference, x.slope_weights),
    "curvature": lambda x, reference: _weighted(x, reference, x.curvature_weights),
    "delta_mean_abs": _delta_mean_abs,
    "delta_std": _delta_std,
    "lag1": _lag1,
    "share_above_mean": lambda x, reference: _toward((x.signs > 0) / x.n_frames, reference),
    **{f"mean_{name}": partial(_third, number=k, rule=_mean) for name, k in THIRDS.items()},
    **{f"std_{name}": partial(_third, number=k, rule=_std) for name, k in THIRDS.items()},
}
"""Statistics that are sums over frames, compared with their reference."""


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """Contributions of the frames of one modality.

    - frames: shape (n_frames,), numbers in the file; dropped frames are missing.
    - contributions: shape (n_classes, n_frames).
    """

    modality: str
    frames: NDArray[np.int64]
    contributions: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class UtteranceExplanation:
    """The margins of one utterance as sums of contributions, arrays of shape (n_classes,).

    - parts: Modality and family to their contribution.
    - curves: Modalities with a time axis that the utterance has.
    - constant_terms: Contribution of each other modality: of fixed size, or absent.
    - base: Expected margins.
    """

    parts: Mapping[tuple[str, str], NDArray[np.float64]]
    curves: tuple[_Curve, ...]
    constant_terms: Mapping[str, NDArray[np.float64]]
    base: NDArray[np.float64]
    proba: NDArray[np.float64]

    @property
    def margins(self) -> NDArray[np.float64]:
        """Margin of every class: the expected one and all parts."""
        return np.asarray(self.base + np.sum(list(self.parts.values()), axis=0))


def explain_utterance(
    explainer: Explainer,
    row: NDArray[np.float32],
    training_means: NDArray[np.float64],
    sequences: Mapping[str, tuple[NDArray[np.int64], NDArray[np.floating]]],
) -> UtteranceExplanation:
    """Explain one utterance by modality, family and frame.

    ``explainer`` is of the model that never saw the speaker. ``row`` and ``training_means``
    (n_features,) are in the order of training; NaN where missing, or where no training row of
    the fold has the feature. ``sequences`` gives, per modality with a time axis that the
    utterance has, the numbers of its pooled frames and the finite frames (n_frames, n_dims).

    ExplanationError, a defect, is raised if the parts do not add up to the margin.
    """
    booster = explainer.booster
    contributions = explainer.explain(row[None])[0]
    names = parse_names(booster.names)
    parts: dict[tuple[str, str], Floats] = {}
    for column, (modality, statistic) in enumerate(map(explainer.part_of, names)):
        key = (modality, family_of(statistic))
        parts[key] = parts.get(key, np.zeros(booster.n_classes)) + contributions[:, column]
    curves = []
    constant_terms: dict[str, Floats] = {}
    for modality in dict.fromkeys(name.modality for name in names):
        columns = [k for k, name in enumerate(names) if name.modality == modality]
        if modality not in sequences:
            constant_terms[modality] = contributions[:, columns].sum(axis=1)
            continue
        numbers, frames = sequences[modality]
        # Features that screening left out contribute nothing, and have no mean here.
        statistics = dict.fromkeys(names[k].statistic for k in columns)
        n_dims = frames.shape[1]
        phi = {name: np.zeros((booster.n_classes, n_dims)) for name in statistics}
        references = {name: np.full(n_dims, np.nan) for name in statistics}
        for column in columns:
            name = names[column]
            phi[name.statistic][:, name.dimension] = contributions[:, column]
            references[name.statistic][name.dimension] = training_means[column]
        curves.append(_Curve(modality, numbers, _spread_over_frames(frames, phi, references)))
    proba = booster.predict_proba(row[None])[0]
    total = sum((curve.contributions.sum(axis=1) for curve in curves), explainer.base.copy())
    total = total + sum(constant_terms.values())
    gap = float(np.abs(total - contributions.sum(axis=1)).max())
    # The parts differ from the margin by rounding alone.
    if gap > 1e-9 * max(1.0, float(np.abs(contributions).sum())):
        raise ExplanationError(
            f"Contributions of frames and modalities are {gap:.3g} off the margin; expected "
            "them to add up. Please report this as a defect."
        )
    return UtteranceExplanation(parts, tuple(curves), constant_terms, explainer.base, proba)
