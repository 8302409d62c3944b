"""Checks of a model's input and of saved models, before a library sees them.

LightGBM accepts NaN labels, infinite features and permuted columns without a word, so nothing
is left to the libraries. They trust their own files as well: a crafted one makes them write
outside of their memory, follow a cycle for ever, or read features that are not there.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rows checked together: the temporary mask stays small beside a wide matrix.
_BLOCK_ROWS: Final = 256


#: A deeper tree has no use, and the libraries walk trees by recursion.
_DEEPEST: Final = 1_000
_HEAD: Final = frozenset(
    (
        *("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx"),
        *("objective", "feature_names", "feature_infos", "tree_sizes"),
    )
)
#: Arrays of a LightGBM tree, per split and per leaf.
_OF_SPLITS: Final = (
    *("split_feature", "split_gain", "threshold", "decision_type", "left_child"),
    *("right_child", "internal_value", "internal_weight", "internal_count"),
)
_OF_LEAVES: Final = ("leaf_value", "leaf_weight", "leaf_count")
_OF_TREE: Final = frozenset(
    (*_OF_SPLITS, *_OF_LEAVES, "num_leaves", "num_cat", "is_linear", "shrinkage")
)
#: Kind of a split of LightGBM whose missing values go right.
_PRESENT_LEFT: Final = "8"
_UNKNOWN: Final = "tree {} has splits of an unknown kind"
_LOST: Final = "tree {} has nodes that are no part of it, or are reached twice"
_INFO: Final = re.compile(r"none|\[[-+.\dein]+:[-+.\dein]+\]")
#: Characters of numbers, none of which is left by ``translate``.
_NUMERIC: Final = dict.fromkeys(map(ord, "+-.0123456789Ee "))
_PARAMETER: Final = re.compile(r"\[\w+: [^\n]*\]")
#: Arrays of an XGBoost tree with a number per node.
_OF_NODES: Final = (
    *("left_children", "right_children", "parents", "split_indices", "split_conditions"),
    *("default_left", "split_type", "base_weights", "loss_changes", "sum_hessian"),
)
_INTEGERS: Final = frozenset(
    (
        *("split_feature", "decision_type", "left_child", "right_child", "leaf_count"),
        *("internal_count", "left_children", "right_children", "parents", "split_indices"),
        *("default_left", "split_type"),
    )
)


def check_matrix(X: ArrayLike, *, n_features: int | None = None) -> NDArray[np.float32]:
    """Convert features to C-contiguous float32; without a copy where they are that already.

    NaN is a missing value; infinite values, and another width than ``n_features``, are refused.
    """
    given = np.asarray(X)
    # bool and object are refused too: they may hold text, None or masks of values.
    if given.ndim != 2 or given.dtype.kind not in "fiu":
        raise ValueError(
            f"Features have shape {given.shape} and type {given.dtype}; expected a matrix of "
            "numbers, one row per utterance."
        )
    if n_features is not None and given.shape[1] != n_features:
        raise ValueError(
            f"Features have {given.shape[1]} columns; expected the {n_features} of training."
        )
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused below
        # Boosters give other results for other memory orders.
        matrix = np.ascontiguousarray(given, dtype=np.float32)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        infinite = np.isinf(matrix[start : start + _BLOCK_ROWS])
        if infinite.any():
            row, column = np.argwhere(infinite)[0].tolist()
            raise ValueError(
                f"Features hold {given[start + row, column]} at row {start + row}, column "
                f"{column}, which float32 takes as infinite; expected finite numbers, or NaN "
                "where a value is missing."
            )
    return matrix


def check_labels(y: ArrayLike, n_rows: int, n_classes: int | None = None) -> NDArray[np.int64]:
    """Check that labels are positions of classes, one per row; None allows any number."""
    labels = np.asarray(y)
    # Whole floats are refused too: a NaN may hide among them.
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"Labels have shape {labels.shape} and type {labels.dtype}; expected one whole "
            "number a row, the position of its class."
        )
    if len(labels) != n_rows:
        raise ValueError(f"There are {len(labels)} labels for {n_rows} rows of features.")
    outside = labels < 0 if n_classes is None else (labels < 0) | (labels >= n_classes)
    if outside.any():
        row = int(np.argmax(outside))
        positions = "0 or more" if n_classes is None else f"0 to {n_classes - 1}"
        raise ValueError(f"The label of row {row} is {labels[row]}; expected {positions}.")
    return labels.astype(np.int64)


def check_structure(kind: str, content: bytes, *, n_trained: int) -> None:
    """Refuse a model whose trees, counts or numbers are not those that training gives.

    ``n_trained`` is the number of classes that the training rows had.
    """
    try:
        {"lightgbm": _check_lightgbm, "xgboost": _check_xgboost}[kind](content, n_trained)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"it is incomplete ({type(error).__name__}: {error})") from None


def _require(holds: object, fault: str) -> None:
    if not holds:
        raise ValueError(fault)


def _require_all(holds: NDArray[np.bool_], sizes: Sequence[int], fault: str) -> None:
    """Require a condition of numbers, ``sizes`` of them per tree, or name the first tree."""
    if not holds.all():
        tree = np.searchsorted(np.cumsum(sizes), holds.argmin(), "right")
        raise ValueError(fault.format(tree))


def _check_lightgbm(content: bytes, n_trained: int) -> None:
    text = content.decode("ascii")
    _require(text.replace("\n", "").isprintable(), "it holds control characters")
    trees_text, end, rest = text.partition("end of trees\n")
    start = trees_text.find("\n\nTree=") + 2
    _require(end and start > 1 and text.startswith("tree\n"), "it is no text of LightGBM")
    head = _read_fields(trees_text[5:start], _HEAD)
    _check_characters((head["max_feature_idx"], head["tree_sizes"]))
    n_features = int(head["max_feature_idx"]) + 1
    _require(
        head["num_class"] == head["num_tree_per_iteration"] == str(n_trained)
        and head["objective"] == f"multiclass num_class:{n_trained}",
        f"its classes are not the {n_trained} of training",
    )
    infos = head["feature_infos"].split()
    _require(
        len(head["feature_names"].split()) == len(infos) == n_features
        and all(map(_INFO.fullmatch, infos)),
        "its features have other names or ranges than their number says",
    )
    # LightGBM takes the trees from where these sizes point.
    at, trees = 0, []
    body = trees_text[start:]
    sizes = [int(size) for size in head["tree_sizes"].split()]
    _require(sizes and len(sizes) % n_trained == 0, "it has no whole rounds of trees")
    for number, size in enumerate(sizes):
        block = body[at : at + size]
        title = f"Tree={number}\n"
        _require(
            size > 0 and block.startswith(title) and block.endswith("\n\n"),
            f"the size of tree {number} is not {size}",
        )
        trees.append(_read_fields(block[len(title) :], _OF_TREE))
        at += size
    _require(not body[at:].strip(), "it holds more than its trees")
    _check_lightgbm_trees(trees, n_features)
    _check_ending(rest)


def _check_ending(rest: str) -> None:
    """Check the importances, parameters and last line of a LightGBM model."""
    importances, _, rest = rest.partition("\nparameters:\n")
    parameters, _, last = rest.partition("\nend of parameters\n")
    lines = [line for line in parameters.splitlines() if line]
    _require(
        all(map(_PARAMETER.fullmatch, lines))
        and importances.lstrip("\n").startswith("feature_importances:\n")
        and last.strip() in {"", "pandas_categorical:null", "pandas_categorical:[]"},
        "what follows its trees is not what LightGBM writes",
    )


def _read_fields(block: str, names: frozenset[str]) -> dict[str, str]:
    """Read the lines ``name=value`` of a block; none twice, and no other."""
    fields: dict[str, str] = {}
    for line in filter(None, block.split("\n")):
        name, equals, value = line.partition("=")
        if not equals or name not in names or name in fields:
            raise ValueError(f"the line {line[:40]!r}")
        fields[name] = value
    return fields


def _check_characters(values: Iterable[str]) -> None:
    # Python reads 1_0 as 10, and LightGBM as 1 and 0.
    left = "".join(values).translate(_NUMERIC)
    _require(not left, f"its numbers hold {left[:1]!r}")


def _take_present_splits(fields: dict[str, str]) -> None:
    """Replace the threshold of splits between present and missing values, which is infinite."""
    kinds, values = fields.get("decision_type", ""), fields.get("threshold", "")
    pairs = zip_longest(kinds.split(" "), values.split(" "), fillvalue="")
    fields["threshold"] = " ".join(
        "0" if (kind, value) == (_PRESENT_LEFT, "inf") else value for kind, value in pairs
    )


def _check_lightgbm_trees(trees: Sequence[dict[str, str]], n_features: int) -> None:
    for fields in trees:
        _take_present_splits(fields)
    _check_characters(chain.from_iterable(fields.values() for fields in trees))
    n_leaves = [int(fields["num_leaves"]) for fields in trees]
    for number, fields in enumerate(trees):
        _require(
            n_leaves[number] >= 1 and fields["num_cat"] == fields.get("is_linear", "0") == "0",
            f"tree {number} has leaves or splits that training does not make",
        )
        if n_leaves[number] == 1:  # LightGBM reads its value alone
            fields |= {**dict.fromkeys(_OF_SPLITS, ""), "leaf_weight": "0", "leaf_count": "0"}

    def read(name: str, sizes: Sequence[int]) -> NDArray[Any]:
        return _read_array([fields[name].split() for fields in trees], name, sizes)

    n_splits = [n - 1 for n in n_leaves]
    read("shrinkage", [1] * len(trees))
    arrays = {name: read(name, n_splits) for name in _OF_SPLITS}
    for name in _OF_LEAVES:
        read(name, n_leaves)
    kinds = arrays["decision_type"]
    _require_all((kinds >= 0) & (kinds < 16) & (kinds & 1 == 0), n_splits, _UNKNOWN)
    _check_features(arrays["split_feature"], n_splits, n_features)
    splits, leaves = np.repeat(n_splits, n_splits), np.repeat(n_leaves, n_splits)
    is_leaf = np.repeat([False, True] * len(trees), np.stack([n_splits, n_leaves], 1).ravel())

    def find_children(name: str) -> NDArray[np.int64]:
        side = arrays[name]
        _require_all((side >= -leaves) & (side < splits), n_splits, _LOST)
        nodes = np.full(len(is_leaf), -1)
        # A child below 0 is the leaf ~child; here, leaves come after all splits.
        nodes[~is_leaf] = np.where(side < 0, splits + ~side, side)
        return nodes

    left, right = find_children("left_child"), find_children("right_child")
    _check_nodes(left, right, [2 * n - 1 for n in n_leaves], [0] * len(trees))


def _check_xgboost(content: bytes, n_trained: int) -> None:
    # The library takes other second characters for its binary form.
    _require(content.startswith(b'{"'), "it is no JSON of XGBoost")
    whole = json.loads(content, object_pairs_hook=_refuse_twice, parse_constant=_refuse)
    learner = whole["learner"]
    booster, shape = learner["gradient_booster"], learner["learner_model_param"]
    model, objective = booster["model"], learner["objective"]
    names, n_features = learner["feature_names"], int(shape["num_feature"])
    _require(
        booster["name"] == "gbtree" and objective["name"] == "multi:softprob",
        "it is not of the kind that training makes",
    )
    classes = (shape["num_class"], objective["softmax_multiclass_param"]["num_class"])
    _require(
        set(classes) == {str(n_trained)} and shape.get("num_target", "1") == "1",
        f"its classes are not the {n_trained} of training",
    )
    scores = shape["base_score"].strip("[]").split(",")
    _require(len(scores) in {1, n_trained}, "it has base scores of other classes")
    _require(np.isfinite(list(map(float, scores))).all(), "it has an infinite base score")
    _require(
        len(names) == n_features > 0
        and all(isinstance(name, str) for name in names)
        and not learner["feature_types"]
        and not any(model.get("cats", {}).values()),
        "its features are not those that their number says",
    )
    trees, n_trees = model["trees"], int(model["gbtree_model_param"]["num_trees"])
    rounds = list(range(0, n_trees + 1, n_trained))
    _require(
        len(trees) == n_trees > 0
        and n_trees % n_trained == 0
        and model["gbtree_model_param"]["num_parallel_tree"] == "1"
        and model["tree_info"] == [k % n_trained for k in range(n_trees)]
        and model.get("iteration_indptr", rounds) == rounds,
        "it has no whole rounds of trees",
    )
    sizes = [int(tree["tree_param"]["num_nodes"]) for tree in trees]
    for number, tree in enumerate(trees):
        param = tree["tree_param"]
        _require(
            sizes[number] > 0
            and int(param["num_feature"]) == n_features
            and param["size_leaf_vector"] in {"0", "1"}
            and tree["id"] == number
            and not any(tree[name] for name in tree if name.startswith("categories")),
            f"tree {number} has other sizes than the model",
        )
    arrays = {n: _read_array([tree[n] for tree in trees], n, sizes) for n in _OF_NODES}
    _require_all(arrays["split_type"] == 0, sizes, _UNKNOWN)
    _check_features(arrays["split_indices"], sizes, n_features)
    left, right = arrays["left_children"], arrays["right_children"]
    n_deleted = [int(tree["tree_param"]["num_deleted"]) for tree in trees]
    first = _check_nodes(left, right, sizes, n_deleted)
    inner = left >= 0
    own = (np.arange(len(left)) - first)[inner]
    for side in (left, right):
        parents = arrays["parents"][(first + side)[inner]]
        _require((parents == own).all(), "a node has a parent that does not lead to it")


def _refuse_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; of a name that stands twice, each parser may take another value."""
    found = dict(pairs)
    _require(len(found) == len(pairs), "a name stands twice in it")
    return found


def _refuse(constant: str) -> None:
    _require(False, f"it holds {constant}")


def _read_array(
    values: Sequence[Sequence[Any]], name: str, sizes: Sequence[int]
) -> NDArray[Any]:
    """Join the numbers that each tree has of a name, as many as its size."""
    for number, (given, size) in enumerate(zip(values, sizes, strict=True)):
        if not isinstance(given, list) or len(given) != size:
            found = f"{len(given)} numbers of {name}"
            raise ValueError(f"tree {number} has {found}, expected {size}")
    joined = list(chain.from_iterable(values))
    if name in _INTEGERS:
        _require(float not in set(map(type, joined)), f"{name} is not of whole numbers")
        return np.array(list(map(int, joined)), dtype=np.int64)
    numbers = np.array(list(map(float, joined)), dtype=np.float64)
    _require_all(np.isfinite(numbers), sizes, "tree {} holds numbers that are not finite")
    return numbers


def _check_features(features: NDArray[np.int64], sizes: Sequence[int], n_features: int) -> None:
    known = (features >= 0) & (features < n_features)
    _require_all(known, sizes, "tree {} splits on features that the model does not have")


def _check_nodes(
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    sizes: Sequence[int],
    n_deleted: Sequence[int],
) -> NDArray[np.int64]:
    """Check that children below 0 are both missing, and every node is reached once.

    Children are counted from the first node of their tree; that of each node is returned.
    """
    of_node = np.repeat(sizes, sizes)
    for side in (left, right):
        _require_all((side >= -1) & (side < of_node), sizes, _LOST)
    _require_all((left < 0) == (right < 0), sizes, _LOST)
    n_nodes: NDArray[np.int64] = np.array(sizes)
    roots = np.cumsum(n_nodes) - n_nodes
    first, tree = np.repeat(roots, sizes), np.repeat(np.arange(len(sizes)), sizes)
    times = np.zeros(len(left), dtype=np.int64)
    level = roots
    for _ in range(_DEEPEST):
        np.add.at(times, level, 1)
        for node in level[times[level] > 1][:1]:
            raise ValueError(_LOST.format(tree[node]))
        inner = level[left[level] >= 0]
        level = np.concatenate([first[inner] + side[inner] for side in (left, right)])
        if not len(level):
            break
    for node in level[:1]:
        raise ValueError(f"tree {tree[node]} is deeper than {_DEEPEST:,} splits")
    # Pruning leaves nodes of XGBoost in place, and counts them.
    n_unreached = np.bincount(tree[times == 0], minlength=len(sizes))
    _require_all(n_unreached == n_deleted, [1] * len(sizes), _LOST)
    return first
