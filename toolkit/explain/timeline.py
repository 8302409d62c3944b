"""When: contributions of pooled statistics handed back to the frames that made them.

A contribution phi of a statistic goes to frame t as ``phi w_t``, with weights w that are not
negative and sum to 1, so frames, features without a time axis, absent modalities and the
expected margin together are the margin. It is a convention and not a Shapley value of frames:
what would have happened had a frame been another one is not asked.

A statistic that is a sum of a_t over the frames, and has mean r over the fold's training rows,
gives frame t what it adds in the direction in which the sum differs from r:
``max(0, s (a_t - r / n))`` with ``s = sign(sum a - r)``, normalised; equal parts where that is
nothing. Order statistics go to the frames of their value, deltas half to each of their frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.explain.contributions import ExplanationError, explain_rows, family_of, parse_names
from toolkit.pooling.frames import Frames, curvature_weights, slope_weights, third_of
from toolkit.pooling.statistics import BUILT_IN, PERCENTILES, STATISTICS, THIRDS, VALUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from toolkit.explain.contributions import Explainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Rule = Callable[[Frames, Floats], Floats]

_OWN: dict[str, Rule] = {}


def frame_weights(statistic: str, frames: ArrayLike, reference: ArrayLike) -> Floats:
    """Say how a statistic's contribution is shared out among the frames.

    Parameters
    ----------
    frames : array-like of shape (n_frames, n_dims)
        At least one frame, finite numbers.
    reference : array-like of shape (n_dims,)
        Mean of the pooled feature over the training rows of the fold, NaN where none had it.

    Returns
    -------
    ndarray of float64, shape (n_frames, n_dims)
        Not negative; every column sums to 1.

    Examples
    --------
    A maximum goes to the frames that reach it, a mean above its reference to frames above it:

    >>> frame_weights("max", [[1.0], [3.0], [3.0]], [0.0])[:, 0].tolist()
    [0.0, 0.5, 0.5]
    >>> frame_weights("mean", [[0.0], [1.0], [3.0]], [0.0])[:, 0].tolist()
    [0.0, 0.25, 0.75]
    """
    if statistic == VALUE or statistic not in STATISTICS:
        raise ValueError(
            f"The statistic {statistic!r} cannot be handed back to frames; expected one of "
            f"{', '.join(STATISTICS)}."
        )
    shared = Frames(frames)
    means = np.asarray(reference, dtype=np.float64)
    if means.shape != (shared.frames.shape[1],):
        raise ValueError(
            f"References have shape {means.shape}; expected ({shared.frames.shape[1]},), one a "
            "dimension."
        )
    if shared.n_frames == 1:
        return np.ones_like(shared.frames)
    with np.errstate(invalid="ignore"):
        if statistic in _PLACES:
            return _normalise(_PLACES[statistic](shared))
        rule = _SUMS.get(statistic) or _OWN.get(statistic)
        return _normalise(rule(shared, means) if rule else np.ones_like(shared.frames))


def register_frame_weights(statistic: str, rule: Callable[[Floats, Floats], ArrayLike]) -> None:
    """Say how a statistic of one's own is handed back to frames, for this process.

    Parameters
    ----------
    statistic : str
        What it was registered as.
    rule : callable
        Takes frames (n_frames, n_dims) and references (n_dims,), gives weights of the shape
        of the frames that are not negative; they are normalised.

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

    _OWN[statistic] = checked


def spread_over_frames(
    frames: ArrayLike,
    contributions: Mapping[str, ArrayLike],
    references: Mapping[str, ArrayLike],
) -> Floats:
    """Hand the contributions of one modality of one utterance back to its frames.

    Parameters
    ----------
    frames : array-like of shape (n_frames, n_dims)
        The frames that were pooled.
    contributions : mapping of str to array-like of shape (..., n_dims)
        Statistic to what its features contribute, for example (n_classes, n_dims).
    references : mapping of str to array-like of shape (n_dims,)
        Statistic to the means of its features over the fold's training rows.

    Returns
    -------
    ndarray of float64, shape (..., n_frames)
        Every frame's part; over frames they sum to the contributions' sum.
    """
    n_frames = len(np.asarray(frames))
    lead = np.shape(next(iter(contributions.values())))[:-1]
    curve = np.zeros((*lead, n_frames))
    for statistic, phi in contributions.items():
        weights = frame_weights(statistic, frames, references[statistic])
        curve += np.asarray(phi, dtype=np.float64) @ weights.T
    return curve


def _normalise(weights: Floats) -> Floats:
    totals = weights.sum(axis=0)
    useful = np.isfinite(totals) & (totals > 0)
    return np.where(useful, weights / np.where(useful, totals, 1), 1 / len(weights))


def _toward(a: Floats, reference: Floats) -> Floats:
    """Weigh the items of a sum by what they add in the direction of its surprise."""
    sign = np.sign(a.sum(axis=0) - reference)
    return np.asarray(np.maximum(0.0, sign * (a - reference / len(a))))


def _halves(deltas: Floats) -> Floats:
    """Give half of each delta's weight to each of its frames."""
    normalised = _normalise(deltas)
    weights = np.zeros((len(deltas) + 1, *deltas.shape[1:]))
    weights[:-1] += normalised / 2
    weights[1:] += normalised / 2
    return weights


def _equals(values: Floats, one: Floats) -> Floats:
    return _normalise((values == one).astype(np.float64))


def _rank(values: Floats, share: float) -> Floats:
    """Weigh the frames of the two ranks that a percentile lies between."""
    ordered = np.sort(values, axis=0)
    rank = share * (len(values) - 1)
    lower = int(rank)
    upper = min(lower + 1, len(values) - 1)
    part = rank - lower
    low, high = _equals(values, ordered[lower]), _equals(values, ordered[upper])
    return np.asarray((1 - part) * low + part * high)


def _scale(x: Frames) -> Floats:
    """Give the unit in which a sequence's deviations are kept."""
    return np.asarray(np.ldexp(1.0, x.exponent))


def _mean(x: Frames, reference: Floats) -> Floats:
    return _toward(x.frames / x.n_frames, reference)


def _std(x: Frames, reference: Floats) -> Floats:
    return _toward((x.deviations * _scale(x)) ** 2 / x.n_frames, reference**2)


def _range(x: Frames) -> Floats:
    highest, lowest = x.frames.max(axis=0), x.frames.min(axis=0)
    return (_equals(x.frames, highest) + _equals(x.frames, lowest)) / 2


def _iqr(x: Frames) -> Floats:
    return (_rank(x.frames, 0.75) + _rank(x.frames, 0.25)) / 2


def _moment(x: Frames, reference: Floats, power: int) -> Floats:
    z = x.deviations / np.sqrt(x.power)
    excess = 3.0 if power == 4 else 0.0
    return _toward((z**power - excess) / x.n_frames, reference)


def _weighted(x: Frames, reference: Floats, weights: Callable[[int], Floats]) -> Floats:
    return _toward(weights(x.n_frames)[:, None] * x.deviations * _scale(x), reference)


def _frame(place: NDArray[np.intp], shape: tuple[int, ...]) -> Floats:
    weights = np.zeros(shape)
    weights[place, np.arange(shape[1])] = 1
    return weights


def _first(x: Frames) -> Floats:
    return _frame(np.zeros(x.frames.shape[1], dtype=np.intp), x.frames.shape)


def _last(x: Frames) -> Floats:
    return _frame(np.full(x.frames.shape[1], x.n_frames - 1, dtype=np.intp), x.frames.shape)


def _deltas(x: Frames) -> Floats:
    return np.asarray(x.deltas * _scale(x))


def _delta_mean_abs(x: Frames, reference: Floats) -> Floats:
    return _halves(_toward(np.abs(_deltas(x)) / (x.n_frames - 1), reference))


def _delta_std(x: Frames, reference: Floats) -> Floats:
    deltas = _deltas(x)
    parts = (deltas - deltas.mean(axis=0)) ** 2 / (x.n_frames - 1)
    return _halves(_toward(parts, reference**2))


def _delta_max_abs(x: Frames) -> Floats:
    sizes = np.abs(x.deltas)
    return _halves(_equals(sizes, sizes.max(axis=0)))


def _delta_p90_abs(x: Frames) -> Floats:
    return _halves(_rank(np.abs(x.deltas), 0.9))


def _lag1(x: Frames, reference: Floats) -> Floats:
    products = x.deviations[1:] * x.deviations[:-1]
    halves = np.zeros_like(x.deviations)
    halves[:-1] += products / 2
    halves[1:] += products / 2
    return _toward(halves / (x.power * x.n_frames), reference)


def _share_above_mean(x: Frames, reference: Floats) -> Floats:
    return _toward((x.signs > 0) / x.n_frames, reference)


def _crossing_rate(x: Frames) -> Floats:
    # A zero takes the sign before it, so a crossing lies before the frame that is beyond.
    latest = np.maximum.accumulate(
        np.where(x.signs != 0, np.arange(x.n_frames)[:, None], 0), axis=0
    )
    sides = np.take_along_axis(x.signs, latest, axis=0)
    crossings = sides[1:] * sides[:-1] < 0
    # A dimension without crossings is left at 0, to be shared out equally.
    return _halves(crossings.astype(np.float64)) * crossings.any(axis=0)


def _third(x: Frames, reference: Floats, number: int, rule: Rule) -> Floats:
    part = third_of(x.n_frames, number)
    weights = np.zeros_like(x.frames)
    inside = Frames(x.frames[part])
    weights[part] = _normalise(rule(inside, reference))
    return weights


_PLACES: Final[Mapping[str, Callable[[Frames], Floats]]] = MappingProxyType(
    {
        "min": lambda x: _equals(x.frames, x.frames.min(axis=0)),
        "max": lambda x: _equals(x.frames, x.frames.max(axis=0)),
        "range": _range,
        "first": _first,
        "last": _last,
        "argmax_position": lambda x: _frame(x.frames.argmax(axis=0), x.frames.shape),
        "argmin_position": lambda x: _frame(x.frames.argmin(axis=0), x.frames.shape),
        **{
            name: partial(lambda x, share: _rank(x.frames, share), share=share)
            for name, share in PERCENTILES.items()
        },
        "iqr": _iqr,
        "delta_max_abs": _delta_max_abs,
        "delta_p90_abs": _delta_p90_abs,
        "crossing_rate": _crossing_rate,
    }
)
"""Statistics that stand at certain frames, whatever is usual."""

_SUMS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "mean": _mean,
        "std": _std,
        "skew": partial(_moment, power=3),
        "kurtosis": partial(_moment, power=4),
        "slope": partial(_weighted, weights=slope_weights),
        "curvature": partial(_weighted, weights=curvature_weights),
        "delta_mean_abs": _delta_mean_abs,
        "delta_std": _delta_std,
        "lag1": _lag1,
        "share_above_mean": _share_above_mean,
        **{f"mean_{name}": partial(_third, number=k, rule=_mean) for name, k in THIRDS.items()},
        **{f"std_{name}": partial(_third, number=k, rule=_std) for name, k in THIRDS.items()},
    }
)
"""Statistics that are sums over frames, which have to be told what is usual."""


_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What the frames of one modality contribute.

    - modality: The modality.
    - frames: shape (n_frames,); Their numbers in the file; some are missing where frames were
      dropped.
    - contributions: shape (n_classes, n_frames); To the margin of each class.
    """

    modality: str
    frames: NDArray[np.int64]
    contributions: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class UtteranceExplanation:
    """How the margins of one utterance came about.

    Parameters
    ----------
    parts : mapping of (str, str) to ndarray of float64, shape (n_classes,)
        Modality and family to what they contribute to each margin.
    curves : tuple of Curve
        Modalities with a time axis, as far as they are there.
    lines : mapping of str to ndarray of float64, shape (n_classes,)
        What the other modalities contribute: of fixed size, or absent.
    base : ndarray of float64, shape (n_classes,)
        Expected margins.
    proba : ndarray of float64, shape (n_classes,)
        Predicted probabilities.
    """

    parts: Mapping[tuple[str, str], NDArray[np.float64]]
    curves: tuple[Curve, ...]
    lines: Mapping[str, NDArray[np.float64]]
    base: NDArray[np.float64]
    proba: NDArray[np.float64]

    @property
    def margins(self) -> NDArray[np.float64]:
        """Margin of every class: the expected one and all parts."""
        return np.asarray(self.base + np.sum(list(self.parts.values()), axis=0))


def explain_utterance(
    explainer: Explainer,
    row: NDArray[np.float32],
    usual: NDArray[np.float64],
    sequences: Mapping[str, tuple[NDArray[np.int64], NDArray[np.floating]]],
) -> UtteranceExplanation:
    """Explain one utterance by modality, family and frame.

    Parameters
    ----------
    explainer : Explainer
        Of the model that never saw the speaker.
    row : ndarray of float32, shape (n_features,)
        The utterance's features in the order of training; NaN where missing.
    usual : ndarray of float64, shape (n_features,)
        Means of the features over the fold's training rows; NaN where none had them.
    sequences : mapping of str to (ndarray, ndarray)
        Modality to the numbers of its frames and the frames that were pooled, finite, of
        shape (n_frames, n_dims). Modalities of fixed size and absent ones are left out.

    Returns
    -------
    UtteranceExplanation
        Frames, the other modalities and the expected margin add up to the margin.

    Raises
    ------
    ExplanationError
        If they do not, which is a defect.
    """
    booster = explainer.booster
    shares = explain_rows(explainer, row[None])[0]
    names = parse_names(booster.names)
    parts: dict[tuple[str, str], NDArray[np.float64]] = {}
    for column, name in enumerate(names):
        key = (name.modality, family_of(name.statistic))
        parts[key] = parts.get(key, np.zeros(booster.n_classes)) + shares[:, column]
    curves = []
    lines: dict[str, NDArray[np.float64]] = {}
    for modality in dict.fromkeys(name.modality for name in names):
        mine = [k for k, name in enumerate(names) if name.modality == modality]
        if modality not in sequences:
            lines[modality] = shares[:, mine].sum(axis=1)
            continue
        numbers, frames = sequences[modality]
        phi: dict[str, NDArray[np.float64]] = {}
        means: dict[str, NDArray[np.float64]] = {}
        for column in mine:
            name = names[column]
            # Features that screening left out contribute nothing, and have no mean here.
            empty = np.zeros((booster.n_classes, frames.shape[1]))
            phi.setdefault(name.statistic, empty)[:, name.dimension] = shares[:, column]
            nothing = np.full(frames.shape[1], np.nan)
            means.setdefault(name.statistic, nothing)[name.dimension] = usual[column]
        curves.append(Curve(modality, numbers, spread_over_frames(frames, phi, means)))
    proba = booster.predict_proba(row[None])[0]
    placed = sum((curve.contributions.sum(axis=1) for curve in curves), explainer.base.copy())
    placed = placed + sum(lines.values())
    gap = float(np.abs(placed - shares.sum(axis=1)).max())
    if gap > _TOLERANCE * max(1.0, float(np.abs(shares).sum())):
        raise ExplanationError(
            f"Contributions of frames and modalities are {gap:.3g} off the margin; expected "
            "them to add up. Please report this as a defect."
        )
    return UtteranceExplanation(parts, tuple(curves), lines, explainer.base, proba)
