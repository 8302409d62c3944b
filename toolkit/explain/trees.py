"""The trees of a saved booster as flat arrays, in one form for LightGBM and XGBoost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.models.libraries import dump

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from toolkit.explain.treeshap import Edges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from toolkit.models import FittedBooster

    Tree = dict[str, NDArray[Any]]

# Bits of LightGBM's decision_type: categorical split, default side, two of the missing type.
_CATEGORICAL: Final = 1
_DEFAULT_LEFT: Final = 2
_MISSING_ZERO: Final = 1
_MISSING_NAN: Final = 2


class UnsupportedTreeError(ValueError):
    """The trees hold something that only the booster itself explains."""


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Every tree of a booster, node after node.

    A row goes left where its float32 value is at most the threshold, whatever the library:
    of LightGBM's ``x <= t`` in float64 the threshold is the largest float32 up to t, of
    XGBoost's ``x < t`` in float32 it is the float32 below t, so nothing is rounded.

    - left, right: shape (n_nodes,); Positions of the children; -1 in a leaf.
    - feature: shape (n_nodes,); Column of the split; -1 in a leaf.
    - threshold: shape (n_nodes,); Largest value that goes left.
    - missing_left: shape (n_nodes,); Whether a missing value goes left.
    - cover: shape (n_nodes,); Weight of the training rows that reached the node.
    - value: shape (n_nodes,); What a leaf adds to the margin; 0 elsewhere.
    - starts: shape (n_trees + 1,); Where each tree begins; its first node is the root.
    - classes: shape (n_trees,); The margin that each tree adds to, a position among the classes
      trained on.
    - intercept: shape (n_trained_classes,); Margin before the first tree.
    - n_features: Number of columns.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    cover: NDArray[np.float64]
    value: NDArray[np.float64]
    starts: NDArray[np.int64]
    classes: NDArray[np.int64]
    intercept: NDArray[np.float64]
    n_features: int


def parse_forest(booster: FittedBooster) -> Forest:
    """Read the trees of a booster from its library's own format."""
    content = dump(booster.kind, booster.model)
    read: Callable[[bytes], tuple[list[Tree], NDArray[np.int64], NDArray[np.float64]]] = {
        "lightgbm": _read_lightgbm,
        "xgboost": _read_xgboost,
    }[booster.kind]
    trees, classes, intercept = read(content)
    starts = np.cumsum([0, *(len(tree["left"]) for tree in trees)])
    for tree, start in zip(trees, starts.tolist(), strict=False):
        for side in ("left", "right"):
            tree[side] = np.where(tree[side] < 0, -1, tree[side] + start)
    joined = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    if not (joined["cover"] > 0).all():
        raise UnsupportedTreeError("it has leaves that no training row reached")
    return Forest(
        **joined,
        starts=starts,
        classes=classes,
        intercept=intercept,
        n_features=len(booster.names),
    )


def _read_lightgbm(content: bytes) -> tuple[list[Tree], NDArray[np.int64], NDArray[np.float64]]:
    head, *blocks = content.decode().partition("\nend of trees")[0].split("\nTree=")
    general = _fields(head)
    n_classes = int(general["num_tree_per_iteration"])
    trees = [_read_lightgbm_tree(_fields(block)) for block in blocks]
    return trees, np.arange(len(trees)) % n_classes, np.zeros(n_classes)


def _fields(block: str) -> dict[str, str]:
    parts = (line.partition("=") for line in block.splitlines())
    return {name: value for name, equals, value in parts if equals}


def _read_lightgbm_tree(said: Mapping[str, str]) -> Tree:
    if said.get("is_linear", "0") != "0":
        raise ValueError(
            "The LightGBM model has linear leaves, of which LightGBM itself gives no "
            "contributions; train without linear_tree to have it explained."
        )
    n_leaves = int(said["num_leaves"])
    values = np.array(said["leaf_value"].split(), dtype=np.float64)
    if n_leaves == 1:
        return _leaf(values)
    kinds = np.array(said["decision_type"].split(), dtype=np.int64)
    missing = kinds >> 2
    if (kinds & _CATEGORICAL).any():
        raise UnsupportedTreeError("it has categorical splits")
    if (missing == _MISSING_ZERO).any():
        raise UnsupportedTreeError("it takes zeros for missing values")
    thresholds = np.array(said["threshold"].split(), dtype=np.float64)
    n_splits = n_leaves - 1
    ends = np.full(n_leaves, -1)
    # A child below 0 is the leaf ~child; leaves come after all splits here.
    children = {}
    for side in ("left", "right"):
        child = np.array(said[f"{side}_child"].split(), dtype=np.int64)
        children[side] = np.concatenate([np.where(child < 0, n_splits + ~child, child), ends])
    covers = [*said["internal_count"].split(), *said["leaf_count"].split()]
    # Where nothing is said to be missing, LightGBM takes a missing value for 0.
    missing_left = np.where(
        missing == _MISSING_NAN, (kinds & _DEFAULT_LEFT) != 0, thresholds >= 0
    )
    return children | {
        "feature": np.concatenate([np.array(said["split_feature"].split(), np.int64), ends]),
        "threshold": np.concatenate([_round_down(thresholds), np.zeros(n_leaves, np.float32)]),
        "missing_left": np.concatenate([missing_left, np.zeros(n_leaves, dtype=bool)]),
        "cover": np.array(covers, dtype=np.float64),
        "value": np.concatenate([np.zeros(n_splits), values]),
    }


def _leaf(values: NDArray[np.float64]) -> Tree:
    return {
        "left": np.array([-1]),
        "right": np.array([-1]),
        "feature": np.array([-1]),
        "threshold": np.zeros(1, dtype=np.float32),
        "missing_left": np.zeros(1, dtype=bool),
        "cover": np.ones(1),
        "value": values,
    }


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    above = nearest.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _read_xgboost(content: bytes) -> tuple[list[Tree], NDArray[np.int64], NDArray[np.float64]]:
    learner = json.loads(content)["learner"]
    model = learner["gradient_booster"]["model"]
    n_classes = int(learner["learner_model_param"]["num_class"])
    score = np.array(
        learner["learner_model_param"]["base_score"].strip("[]").split(","), dtype=np.float32
    )
    trees = [_read_xgboost_tree(tree) for tree in model["trees"]]
    intercept = np.broadcast_to(score.astype(np.float64), n_classes)
    return trees, np.array(model["tree_info"], dtype=np.int64), intercept.copy()


def _read_xgboost_tree(said: Mapping[str, Any]) -> Tree:
    if any(said["split_type"]):
        raise UnsupportedTreeError("it has categorical splits")
    left = np.array(said["left_children"], dtype=np.int64)
    numbers = np.array(said["split_conditions"], dtype=np.float32)
    leaf = left < 0
    return {
        "left": left,
        "right": np.array(said["right_children"], dtype=np.int64),
        "feature": np.where(leaf, -1, np.array(said["split_indices"], dtype=np.int64)),
        "threshold": np.nextafter(numbers, np.float32(-np.inf)),
        "missing_left": np.array(said["default_left"], dtype=bool),
        "cover": np.array(said["sum_hessian"], dtype=np.float32).astype(np.float64),
        "value": np.where(leaf, numbers.astype(np.float64), 0.0),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Trees laid out for the compiled passes, for one way of naming players.

    - edges: See :mod:`toolkit.explain.treeshap`.
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
    from toolkit.explain import treeshap  # noqa: PLC0415  (loads the compiler)

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
    edges = treeshap.Edges(
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
    depth = treeshap.fill_edges(
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
    from toolkit.explain import treeshap  # noqa: PLC0415  (loads the compiler)
    from toolkit.jit import LANES  # noqa: PLC0415

    lanes = LANES
    n_points = int(walk.edges.n_points.max())
    points, weights = gauss_legendre(n_points)
    depth = walk.depth + 1
    scratch = treeshap.Scratch(
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
            treeshap.add_contributions(
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
