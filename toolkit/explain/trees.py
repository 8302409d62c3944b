"""The trees of a saved booster as flat arrays, in one form for LightGBM and XGBoost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.models.engines import get_engine

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
    content = get_engine(booster.kind).dump(booster.model)
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
