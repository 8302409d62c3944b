"""All that a study knows of which modality drives it, before anyone words or draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.explain.totals import centre

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from toolkit.explain.permutation import PermutationRecord
    from toolkit.explain.shapley import GameRecord
    from toolkit.explain.shares import ShareRecord
    from toolkit.explain.totals import Totals

OTHERS = "all other features"
"""Name of the last column of a sample: what the features that are not shown contribute."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Contributions of a system's most important features, as plots show them.

    Parameters
    ----------
    names : tuple of str
        The features, then :data:`OTHERS`, so that a row adds up to its margin.
    contributions : ndarray of float64, shape (n_rows, n_classes, n_names)
        To the margin of each class.
    values : ndarray of float32, shape (n_rows, n_names)
        Values of the features; NaN where missing and for the others.
    base : ndarray of float64, shape (n_rows, n_classes)
        Expected margins.
    """

    names: tuple[str, ...]
    contributions: NDArray[np.float64]
    values: NDArray[np.float32]
    base: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlayerRecord:
    """A modality, or a pair of them, as players inside the trees of a system.

    Parameters
    ----------
    system : str
        The system.
    kind : str
        ``"value"`` of a modality or ``"interaction"`` of a pair.
    players : str
        The modality, or two joined by ``"+"``.
    share : float
        Of a modality its part of the magnitudes of all values; of a pair the magnitude of
        its interaction, in the same unit.
    summed : float or None
        The modality's share where its features are the players and are summed.
    difference : float or None
        Mean magnitude by which the two ways of sharing credit differ for the modality,
        again in that unit. It says nothing else: it can be 0 where modalities interact.
    """

    system: str
    kind: str
    players: str
    share: float
    summed: float | None
    difference: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a study knows of which modality drives it.

    Parameters
    ----------
    system : str
        The system of all modalities (``early``), or the only one.
    modalities : tuple of str
        What it sees.
    shares : sequence of ShareRecord
        Of every explained system.
    games : sequence of GameRecord
        Over late fusion and by refit, as far as they were played.
    importance : sequence of PermutationRecord
        Of whole modalities of `system`.
    players : sequence of PlayerRecord
        Modalities inside the trees of `system`.
    totals : mapping of str to Totals
        Explained system to its contributions, a row a tested utterance.
    samples : mapping of str to Sample
        Explained system to its most important features.
    """

    system: str
    modalities: tuple[str, ...]
    shares: Sequence[ShareRecord]
    games: Sequence[GameRecord]
    importance: Sequence[PermutationRecord]
    players: Sequence[PlayerRecord]
    totals: Mapping[str, Totals]
    samples: Mapping[str, Sample]


def compare_players(
    system: str,
    modalities: Sequence[str],
    totals: Totals,
    values: NDArray[np.float64],
    interactions: NDArray[np.float64],
) -> list[PlayerRecord]:
    """Set values of modalities inside the trees beside summed contributions of features.

    Parameters
    ----------
    system : str
        The system.
    modalities : sequence of str
        The players.
    totals : Totals
        Its contributions by feature, summed by modality and statistic.
    values : ndarray of float64, shape (n_rows, n_classes, n_modalities)
        Values of the modalities as players.
    interactions : ndarray of float64, shape (n_rows, n_classes, n_modalities, n_modalities)
        Their interactions.

    Returns
    -------
    list of PlayerRecord
        Modalities, then pairs.
    """
    players = centre(values, totals.trained)
    belongs = np.array(
        [[float(part[0] == name) for name in modalities] for part in totals.parts]
    )
    summed = centre(totals.signed @ belongs, totals.trained)
    whole = float(np.abs(players).sum()) or 1.0
    by_sum = np.abs(summed).sum(axis=(0, 1))
    records = [
        PlayerRecord(
            system,
            "value",
            name,
            float(np.abs(players[:, :, place]).sum()) / whole,
            float(by_sum[place] / (by_sum.sum() or 1.0)),
            float(np.abs(players[:, :, place] - summed[:, :, place]).sum()) / whole,
        )
        for place, name in enumerate(modalities)
    ]
    pairs = centre(interactions, totals.trained)
    records += [
        PlayerRecord(
            system,
            "interaction",
            f"{modalities[a]}+{modalities[b]}",
            float(np.abs(pairs[:, :, a, b]).sum()) / whole,
            None,
            None,
        )
        for a in range(len(modalities))
        for b in range(a + 1, len(modalities))
    ]
    return records
