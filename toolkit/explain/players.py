"""Modalities as the players inside the trees, instead of single features.

The same trees, the same quadrature: conditions are merged by modality before they are shared
out, so a modality is known as a whole or not at all. Summed feature contributions and these
values are two ways of sharing one total; their difference is only that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from toolkit.explain.families import parse_names
from toolkit.explain.shapley import MAX_PLAYERS, interaction_index
from toolkit.explain.walks import lane_blocks, make_walk, walk_blocks
from toolkit.models.checks import check_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from toolkit.explain.contributions import Explainer
    from toolkit.explain.trees import Forest
    from toolkit.explain.walks import Walk


@dataclass(frozen=True, slots=True, eq=False)
class ModalityGame:
    """What each modality of a row is worth to the margins, by Shapley's rule.

    - modalities: The players, in the order of the model's features.
    - values: shape (n_rows, n_classes, n_modalities); Shapley value of each modality; with the
      expected margin they add up to the margin.
    - interactions: shape (n_rows, n_classes, n_modalities, n_modalities); Shapley interaction
      index of each pair, symmetric, 0 on the diagonal.
    """

    modalities: tuple[str, ...]
    values: NDArray[np.float64]
    interactions: NDArray[np.float64]


def explain_modalities(explainer: Explainer, X: ArrayLike) -> ModalityGame | None:
    """Share the margins out among whole modalities.

    Parameters
    ----------
    explainer : Explainer
        From :func:`make_explainer`.
    X : array-like, shape (n_rows, n_features)
        Features in the order of training; NaN where missing.

    Returns
    -------
    ModalityGame or None
        None where the booster itself has to explain: it knows no players but features.

    Raises
    ------
    ValueError
        If there are more than five modalities.
    """
    forest = explainer.forest
    if forest is None:
        return None
    booster = explainer.booster
    matrix = check_matrix(X, n_features=len(booster.names))
    names = parse_names(booster.names)
    modalities = tuple(dict.fromkeys(name.modality for name in names))
    n = len(modalities)
    if n > MAX_PLAYERS:
        raise ValueError(
            f"The model has {n} modalities; a game of at most {MAX_PLAYERS} is exact."
        )
    players = np.array([modalities.index(name.modality) for name in names], dtype=np.int64)
    walk = make_walk(forest, players)
    trained = list(booster.classes)
    values = np.zeros((len(matrix), booster.n_classes, n))
    for block in walk_blocks(forest, walk, matrix, n):
        n_here = block.rows.stop - block.rows.start
        values[block.rows, trained] = block.shares[:, :, :n_here].transpose(2, 0, 1)
    interactions = np.zeros((len(matrix), booster.n_classes, n, n))
    games = coalition_margins(forest, walk, matrix, n)
    interactions[:, trained] = interaction_index(games.transpose(2, 0, 1)).transpose(2, 3, 0, 1)
    return ModalityGame(modalities, values, interactions)


def coalition_margins(
    forest: Forest, walk: Walk, matrix: NDArray[np.float32], n_players: int
) -> NDArray[np.float64]:
    """Give the margins that are expected when only some players are known.

    Parameters
    ----------
    matrix : ndarray of float32, shape (n_rows, n_features)
        Checked features.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_trained_classes, 2 ** n_players)
        Set s holds player m where bit m of s is 1. Without the margin before the first tree.
    """
    from toolkit.explain.compiled_totals import add_coalitions  # noqa: PLC0415  (the compiler)
    from toolkit.jit import LANES  # noqa: PLC0415

    n_sets = 2**n_players
    n_classes = len(forest.intercept)
    of_class = [np.flatnonzero(forest.classes == c) for c in range(n_classes)]
    depth = walk.depth + 1
    passes, on_path = np.zeros(depth * LANES), np.zeros(depth, dtype=np.int64)
    reached = np.zeros(depth * n_sets * LANES)
    margins = np.zeros((len(matrix), n_classes, n_sets))
    single = np.diff(walk.edges.starts) == 0
    for c, trees in enumerate(of_class):
        # A tree of a single leaf has no edge to be visited by.
        margins[:, c] = walk.expected[trees[single[trees]]].sum()
    for rows, values in lane_blocks(matrix, walk.columns, LANES):
        for c, trees in enumerate(of_class):
            out = np.zeros((n_sets, LANES))
            add_coalitions(
                walk.edges, trees, values, n_players, passes, reached, on_path, out.reshape(-1)
            )
            margins[rows, c] += out[:, : rows.stop - rows.start].T
    return margins
