"""The trees of a saved booster as flat arrays, and their layout for the compiled passes.

LightGBM and XGBoost are read into one form. This module and :mod:`toolkit.explain.treeshap`
hold all of the fast TreeSHAP; the rest of the room sees blocks of SHAP values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.models import FittedBooster

if TYPE_CHECKING:
    from toolkit.explain.treeshap import Edges

#: Nodes of each tree; arrays of all nodes; class of each tree; margins before the trees.
_Trees = tuple[NDArray[np.int64], dict[str, Any], NDArray[np.int64], NDArray[np.float64]]

# Bits of LightGBM's decision_type: categorical split, default side, two of the missing type.
_CATEGORICAL: Final = 1
_DEFAULT_LEFT: Final = 2
_MISSING_ZERO: Final = 1
_MISSING_NAN: Final = 2


class UnsupportedTreeError(ValueError):
    """The trees have a form that only their own library explains."""


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Every tree of a booster, node after node: arrays of n_nodes.

    A row goes left where its float32 value is at most the threshold, whatever the library:
    of LightGBM's ``x <= t`` in float64 the threshold is the largest float32 up to t, of
    XGBoost's ``x < t`` in float32 it is the float32 below t, so nothing is rounded.

    - left, right, feature: Positions of the children, column of the split; -1 in a leaf.
    - threshold: Largest value that goes left.
    - cover: Weight of the training rows that reached the node.
    - value: Contribution of a leaf to the margin; 0 elsewhere.
    - starts: shape (n_trees + 1,); first node of each tree, its root.
    - classes: shape (n_trees,); position of each tree's margin among the classes trained on.
    - intercept: shape (n_trained_classes,); margin before the first tree.
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

    @classmethod
    def of(cls, booster: FittedBooster) -> Self:
        """Read the trees of a booster from its library's own format."""
        read = {"lightgbm": _read_lightgbm, "xgboost": _read_xgboost}[booster.kind]
        sizes, nodes, classes, intercept = read(booster.to_bytes())
        starts = np.cumsum([0, *sizes])
        for side in ("left", "right"):
            first = np.repeat(starts[:-1], sizes)
            nodes[side] = np.where(nodes[side] < 0, -1, nodes[side] + first)
        # Fractions of cover are divided by, so none may be 0.
        if not (nodes["cover"] > 0).all():
            raise UnsupportedTreeError("it has leaves that no training row reached")
        return cls(
            **nodes,
            starts=starts,
            classes=classes,
            intercept=intercept,
            n_features=len(booster.names),
        )

    def lay_out(self, players: NDArray[np.int64] | None = None) -> TreeLayout:
        """Lay trees out edge by edge, merging the conditions of each player.

        ``players`` (n_features,) numbers every feature's player, for example its modality. By
        default each feature that some tree splits on is a player.
        """
        treeshap = load_treeshap()
        columns = np.unique(self.feature[self.feature >= 0])
        n_players = len(columns) if players is None else int(players.max()) + 1
        position = np.zeros(self.n_features, dtype=np.int64)
        position[columns] = np.arange(len(columns))
        n_trees = len(self.starts) - 1
        n_edges = len(self.left) - n_trees
        integers = ("depth", "ancestor", "player", "column")
        flags = ("goes_left", "missing_passes", "is_leaf")
        edges: Edges = treeshap.Edges(
            starts=np.zeros(n_trees + 1, dtype=np.int64),
            n_points=np.zeros(n_trees, dtype=np.int64),
            threshold=np.zeros(n_edges, dtype=np.float32),
            fraction=np.zeros(n_edges),
            value=np.zeros(n_edges),
            **{name: np.zeros(n_edges, dtype=np.int64) for name in integers},
            **{name: np.zeros(n_edges, dtype=bool) for name in flags},
        )
        longest = int(np.diff(self.starts).max()) + 1
        expected = np.zeros(n_trees)
        depth = treeshap.fill_edges(
            self.left,
            self.right,
            np.where(self.feature >= 0, position[self.feature], -1),
            self.threshold,
            self.missing_left,
            self.cover,
            self.value,
            self.starts,
            np.arange(len(columns)) if players is None else players[columns],
            edges,
            expected,
            np.zeros((3, longest), dtype=np.int64),
            np.zeros((2, longest), dtype=np.int64),
            np.zeros((2, longest)),
        )
        trees = [np.flatnonzero(self.classes == c) for c in range(len(self.intercept))]
        return TreeLayout(edges, columns, n_players, trees, expected, int(depth))


def _read_lightgbm(content: bytes) -> _Trees:
    head, *blocks = content.decode().partition("\nend of trees")[0].split("\nTree=")
    n_classes = int(_fields(head)["num_tree_per_iteration"])
    trees = [_fields(block) for block in blocks]
    if any(tree.get("is_linear", "0") != "0" for tree in trees):
        raise ValueError(
            "The LightGBM model has linear leaves, of which LightGBM itself gives no "
            "contributions; train without linear_tree to have it explained."
        )

    def read(name: str, dtype: type[np.generic] = np.int64) -> NDArray[Any]:
        return np.array(" ".join(tree[name] for tree in trees).split(), dtype)

    kinds, thresholds = read("decision_type"), read("threshold", np.float64)
    missing = kinds >> 2
    if (kinds & _CATEGORICAL).any():
        raise UnsupportedTreeError("it has categorical splits")
    if (missing == _MISSING_ZERO).any():
        raise UnsupportedTreeError("it takes zeros for missing values")
    n_leaves = read("num_leaves")
    n_splits = n_leaves - 1
    # This layout puts the leaves of a tree after all of its splits.
    is_leaf = np.repeat([False, True] * len(trees), np.stack([n_splits, n_leaves], 1).ravel())

    def place(of_splits: NDArray[Any], of_leaves: ArrayLike) -> NDArray[Any]:
        nodes = np.empty(len(is_leaf), of_splits.dtype)
        nodes[~is_leaf], nodes[is_leaf] = of_splits, of_leaves
        return nodes

    def read_children(name: str) -> NDArray[Any]:
        child = read(name)  # below 0 it is the leaf ~child
        return place(np.where(child < 0, np.repeat(n_splits, n_splits) + ~child, child), -1)

    for tree in trees:
        if tree["num_leaves"] == "1":  # LightGBM counts no rows in a tree without splits
            tree["leaf_count"] = "1"
    nodes = {
        "left": read_children("left_child"),
        "right": read_children("right_child"),
        "feature": place(read("split_feature"), -1),
        "threshold": place(_round_down(thresholds), 0),
        # A split without a missing type takes a missing value for 0.
        "missing_left": place(
            np.where(missing == _MISSING_NAN, (kinds & _DEFAULT_LEFT) != 0, thresholds >= 0),
            False,
        ),
        "cover": place(read("internal_count", np.float64), read("leaf_count", np.float64)),
        "value": place(np.zeros(len(kinds)), read("leaf_value", np.float64)),
    }
    return n_splits + n_leaves, nodes, np.arange(len(trees)) % n_classes, np.zeros(n_classes)


def _fields(block: str) -> dict[str, str]:
    parts = (line.partition("=") for line in block.splitlines())
    return {name: value for name, equals, value in parts if equals}


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the largest float32 that is not above each threshold."""
    # LightGBM compares in float64, this layout in float32: rounding up would let rows through.
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    above = nearest.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _read_xgboost(content: bytes) -> _Trees:
    learner = json.loads(content)["learner"]
    model = learner["gradient_booster"]["model"]
    shape = learner["learner_model_param"]
    score = np.array(shape["base_score"].strip("[]").split(","), dtype=np.float32)

    def read(name: str, dtype: type[np.generic] = np.int64) -> NDArray[Any]:
        return np.array(list(chain.from_iterable(t[name] for t in model["trees"])), dtype)

    if read("split_type").any():
        raise UnsupportedTreeError("it has categorical splits")
    left, numbers = read("left_children"), read("split_conditions", np.float32)
    nodes = {
        "left": left,
        "right": read("right_children"),
        "feature": np.where(left < 0, -1, read("split_indices")),
        # XGBoost goes left where x < t, which is x <= the float32 below t.
        "threshold": np.nextafter(numbers, np.float32(-np.inf)),
        "missing_left": read("default_left", np.bool_),
        "cover": read("sum_hessian", np.float32).astype(np.float64),
        "value": np.where(left < 0, numbers.astype(np.float64), 0.0),
    }
    sizes = np.array([len(tree["left_children"]) for tree in model["trees"]])
    intercept = np.broadcast_to(score.astype(np.float64), int(shape["num_class"]))
    return sizes, nodes, np.array(model["tree_info"], dtype=np.int64), intercept.copy()


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """SHAP values of a block of rows: shape (n_trained_classes, n_used, n_lanes).

    Each lane holds a row; the lanes behind the last row hold 0. The memory may be used again
    for the next block.
    """

    rows: slice
    values: NDArray[np.float64]

    @property
    def by_row(self) -> NDArray[np.float64]:
        """The values of the rows alone: shape (n_rows, n_trained_classes, n_used)."""
        n_rows = self.rows.stop - self.rows.start
        return self.values[:, :, :n_rows].transpose(2, 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class TreeLayout:
    """Trees laid out for the compiled passes, for one assignment of features to players.

    - columns: shape (n_used,); the features that some tree splits on.
    - trees_by_class: The trees that add to the margin of each class trained on.
    - expected: shape (n_trees,); mean of every tree over its covers.
    - depth: Length of the longest path.
    """

    edges: Edges
    columns: NDArray[np.int64]
    n_players: int
    trees_by_class: list[NDArray[np.int64]]
    expected: NDArray[np.float64]
    depth: int

    def shap_blocks(self, matrix: NDArray[np.float32]) -> Iterator[Block]:
        """Compute SHAP values block by block; ``matrix`` (n_rows, n_features) is checked."""
        treeshap = load_treeshap()
        lanes = treeshap.LANES
        n_points = int(self.edges.n_points.max())
        points, weights = _gauss_legendre(n_points)
        depth = self.depth + 1
        scratch = treeshap.Scratch(
            passes=np.zeros(depth * lanes),
            products=np.zeros(depth * n_points * lanes),
            sums=np.zeros(depth * n_points * lanes),
            totals=np.zeros(lanes),
            on_path=np.zeros(depth, dtype=np.int64),
        )
        n_classes = len(self.trees_by_class)
        out = np.zeros((n_classes, self.n_players * lanes))
        for rows, features in _lane_blocks(matrix, self.columns, lanes):
            out[:] = 0
            for c, trees in enumerate(self.trees_by_class):
                treeshap.add_contributions(
                    self.edges, trees, features, points, weights, scratch, out[c]
                )
            values = out.reshape(n_classes, self.n_players, lanes)
            values[:, :, rows.stop - rows.start :] = 0
            yield Block(rows, values)

    def coalition_margins(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute v(S), the margin expected when the players in S are known, for every S.

        Shape (n_rows, n_trained_classes, 2 ** n_players), without the margin before the first
        tree.
        """
        treeshap = load_treeshap()
        lanes = treeshap.LANES
        n_sets = 2**self.n_players
        depth = self.depth + 1
        passes, on_path = np.zeros(depth * lanes), np.zeros(depth, dtype=np.int64)
        reached = np.zeros(depth * n_sets * lanes)
        margins = np.zeros((len(matrix), len(self.trees_by_class), n_sets))
        single = np.diff(self.edges.starts) == 0
        for c, trees in enumerate(self.trees_by_class):
            # The pass visits edges, and a tree of a single leaf has none.
            margins[:, c] = self.expected[trees[single[trees]]].sum()
        for rows, features in _lane_blocks(matrix, self.columns, lanes):
            for c, trees in enumerate(self.trees_by_class):
                out = np.zeros((n_sets, lanes))
                treeshap.add_coalitions(
                    self.edges,
                    trees,
                    features,
                    self.n_players,
                    passes,
                    reached,
                    on_path,
                    out.reshape(-1),
                )
                margins[rows, c] += out[:, : rows.stop - rows.start].T
        return margins


def load_treeshap() -> ModuleType:
    """Import the compiled passes; this loads numba, which takes a second."""
    from toolkit.explain import treeshap  # noqa: PLC0415

    return treeshap


def _lane_blocks(
    matrix: NDArray[np.float32], columns: NDArray[np.int64], lanes: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield rows, and their features as lanes (len(columns) * lanes,), 0 behind the last."""
    for start in range(0, len(matrix), lanes):
        rows = slice(start, min(start + lanes, len(matrix)))
        features = np.zeros((len(columns), lanes), dtype=np.float32)
        features[:, : rows.stop - start] = matrix[rows][:, columns].T
        yield rows, features.reshape(-1)


@lru_cache(maxsize=8)
def _gauss_legendre(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute points and weights (n, n) of every quadrature up to size n, from 0 to 1.

    Row k - 1 holds the k of size k, and 0 behind them.
    """
    points, weights = np.zeros((n, n)), np.zeros((n, n))
    for size in range(1, n + 1):
        nodes, weight = np.polynomial.legendre.leggauss(size)
        points[size - 1, :size] = (nodes + 1) / 2
        weights[size - 1, :size] = weight / 2
    # The arrays are cached, so a caller must not change them.
    points.flags.writeable = weights.flags.writeable = False
    return points, weights
