"""Trees laid out for the compiled passes, and the passes run over blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from toolkit.explain.compiled import Edges
    from toolkit.explain.trees import Forest


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Trees laid out for the compiled passes, for one way of naming players.

    - edges: See :mod:`toolkit.explain.compiled`.
    - columns: shape (n_used,); The features that some tree splits on.
    - expected: shape (n_trees,); Mean of every tree over its covers.
    - depth: Length of the longest path.
    """

    edges: Edges
    columns: NDArray[np.int64]
    expected: NDArray[np.float64]
    depth: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Contributions of a block of rows.

    - rows: The rows.
    - shares: shape (n_trained_classes, n_used, n_lanes); A row of the block in each lane; lanes
      behind the last row hold 0. The memory is used again for the next block.
    """

    rows: slice
    shares: NDArray[np.float64]


def make_walk(forest: Forest, players: NDArray[np.int64] | None = None) -> Walk:
    """Lay trees out edge by edge, merging the conditions of each player.

    Parameters
    ----------
    players : ndarray of int64, shape (n_features,), optional
        Number of every feature's player, for example of its modality. By default each
        feature that some tree splits on is a player.
    """
    from toolkit.explain import compiled  # noqa: PLC0415  (loads the compiler)

    inner = forest.feature[forest.feature >= 0]
    columns = np.unique(inner)
    place = np.zeros(forest.n_features, dtype=np.int64)
    place[columns] = np.arange(len(columns))
    n_trees = len(forest.starts) - 1
    n_edges = len(forest.left) - n_trees
    whole = {
        name: np.zeros(n_edges, dtype=np.int64)
        for name in ("depth", "above", "player", "column")
    }
    flags = {
        name: np.zeros(n_edges, dtype=bool)
        for name in ("goes_left", "missing_passes", "is_leaf")
    }
    edges = compiled.Edges(
        starts=np.zeros(n_trees + 1, dtype=np.int64),
        n_points=np.zeros(n_trees, dtype=np.int64),
        threshold=np.zeros(n_edges, dtype=np.float32),
        share=np.zeros(n_edges),
        value=np.zeros(n_edges),
        **whole,
        **flags,
    )
    longest = int(np.diff(forest.starts).max()) + 1
    expected = np.zeros(n_trees)
    depth = compiled.fill_edges(
        forest.left,
        forest.right,
        np.where(forest.feature >= 0, place[forest.feature], -1),
        forest.threshold,
        forest.missing_left,
        forest.cover,
        forest.value,
        forest.starts,
        np.arange(len(columns)) if players is None else players[columns],
        edges,
        expected,
        np.zeros((3, longest), dtype=np.int64),
        np.zeros((2, longest), dtype=np.int64),
        np.zeros((2, longest)),
    )
    return Walk(edges, columns, expected, int(depth))


def walk_blocks(
    forest: Forest, walk: Walk, matrix: NDArray[np.float32], n_players: int
) -> Iterator[Block]:
    """Run the fast path over blocks of rows.

    Parameters
    ----------
    matrix : ndarray of float32, shape (n_rows, n_features)
        Checked features.
    """
    from toolkit.explain import compiled  # noqa: PLC0415  (loads the compiler)
    from toolkit.jit import LANES  # noqa: PLC0415

    lanes = LANES
    n_points = int(walk.edges.n_points.max())
    points, weights = gauss_legendre(n_points)
    depth = walk.depth + 1
    scratch = compiled.Scratch(
        passes=np.zeros(depth * lanes),
        products=np.zeros(depth * n_points * lanes),
        sums=np.zeros(depth * n_points * lanes),
        totals=np.zeros(lanes),
        on_path=np.zeros(depth, dtype=np.int64),
    )
    n_classes = len(forest.intercept)
    of_class = [np.flatnonzero(forest.classes == c) for c in range(n_classes)]
    out = np.zeros((n_classes, n_players * lanes))
    for rows, values in lane_blocks(matrix, walk.columns, lanes):
        out[:] = 0
        for c in range(n_classes):
            compiled.add_contributions(
                walk.edges, of_class[c], values, points, weights, scratch, out[c]
            )
        shares = out.reshape(n_classes, n_players, lanes)
        shares[:, :, rows.stop - rows.start :] = 0
        yield Block(rows, shares)


def lane_blocks(
    matrix: NDArray[np.float32], columns: NDArray[np.int64], lanes: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Turn rows into lanes, a block at a time.

    Parameters
    ----------
    matrix : ndarray of float32, shape (n_rows, n_features)
        Features.

    Yields
    ------
    tuple of slice and ndarray of float32, shape (len(columns) * lanes,)
        The rows, and for each column the values of the block's rows; 0 behind the last row.
    """
    for start in range(0, len(matrix), lanes):
        rows = slice(start, min(start + lanes, len(matrix)))
        values = np.zeros((len(columns), lanes), dtype=np.float32)
        values[:, : rows.stop - start] = matrix[rows][:, columns].T
        yield rows, values.reshape(-1)


@lru_cache(maxsize=8)
def gauss_legendre(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the quadrature of every size up to n on the interval from 0 to 1.

    Returns
    -------
    tuple of ndarray of float64, shape (n, n)
        Points and weights; row k - 1 holds the k of size k, and 0 behind them.

    Examples
    --------
    Three points integrate t^5, whose integral is 1/6:

    >>> points, weights = gauss_legendre(3)
    >>> float((weights[2] * points[2] ** 5).sum())
    0.1667
    """
    points, weights = np.zeros((n, n)), np.zeros((n, n))
    for size in range(1, n + 1):
        place, weight = np.polynomial.legendre.leggauss(size)
        points[size - 1, :size] = (place + 1) / 2
        weights[size - 1, :size] = weight / 2
    points.flags.writeable = weights.flags.writeable = False
    return points, weights
