"""One utterance: what each modality and family contributed, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.explain.contributions import ExplanationError, explain_rows
from toolkit.explain.families import family_of, parse_names
from toolkit.explain.frames import spread_over_frames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from toolkit.explain.contributions import Explainer

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
class Story:
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


def tell_story(
    explainer: Explainer,
    row: NDArray[np.float32],
    usual: NDArray[np.float64],
    sequences: Mapping[str, tuple[NDArray[np.int64], NDArray[np.floating]]],
) -> Story:
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
    Story
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
    return Story(parts, tuple(curves), lines, explainer.base, proba)
