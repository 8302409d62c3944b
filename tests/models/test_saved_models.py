"""Crafted models: each is refused before its library reads it, and no true model is."""

import hashlib
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from toolkit.models import FittedBooster
from toolkit.models.boosters import fit_booster, make_training_data
from toolkit.models.libraries import LIGHTGBM, XGBOOST
from toolkit.models.linear import LinearPath


def fit(kind, sample, names, params=None):
    X, y = sample
    data = make_training_data(kind, X, y, n_classes=3, names=names, max_bin=31)
    return fit_booster(data, params or {}, n_rounds=4, seed=0)


def load_crafted(booster, content, folder, monkeypatch, **meta):
    """Load a model whose checksum fits, where the library may not see it."""
    booster.save(folder / "final")
    side = folder / "final.meta.json"
    (folder / {"lightgbm": "final.txt", "xgboost": "final.json"}[booster.kind]).write_bytes(
        content
    )
    fields = json.loads(side.read_text()) | meta
    fields["sha256"] = hashlib.sha256(content).hexdigest()
    side.write_text(json.dumps(fields))
    for library in (LIGHTGBM, XGBOOST):
        monkeypatch.setattr(type(library), "load", lambda *_: pytest.fail("loaded"))
    return FittedBooster.load(folder / "final")


def edit_lightgbm(text, tree, field, change):
    """Change the numbers of a field of a tree, and set the sizes of the trees right."""
    head, *blocks = re.split(r"(?=\nTree=)", text)
    last, end, rest = blocks[-1].partition("end of trees")
    blocks = [block[1:] + "\n" for block in blocks[:-1]] + [last[1:]]
    lines = blocks[tree].split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{field}="))
    name, _, value = lines[at].partition("=")
    lines[at] = f"{name}={change(value)}"
    blocks[tree] = "\n".join(lines)
    sizes = " ".join(str(len(block)) for block in blocks)
    head = re.sub(r"tree_sizes=.*", f"tree_sizes={sizes}", head)
    return (head + "\n" + "".join(blocks) + end + rest).encode()


def put(value, at=0):
    def change(line):
        values = line.split()
        values[at] = str(value)
        return " ".join(values)

    return change


LIGHTGBM_FAULTS = {
    "a cycle": ("left_child", put(0)),
    "a child far away": ("right_child", put(1 << 20)),
    "a leaf far away": ("left_child", put(-(1 << 20))),
    "a leaf twice": ("left_child", lambda line: re.sub(r"-\d+", "-1", line)),
    "a feature that is not there": ("split_feature", put(12)),
    "a feature below 0": ("split_feature", put(-1)),
    "too few leaves": ("leaf_value", lambda line: line.rpartition(" ")[0]),
    "too many leaves announced": ("num_leaves", lambda _: "1000000"),
    "no leaves": ("num_leaves", lambda _: "0"),
    "a leaf that is no number": ("leaf_value", put("nan")),
    "an infinite threshold": ("threshold", put("1e999")),
    "present values on both sides of infinity": ("threshold", put("inf")),
    "a control character between thresholds": (
        "threshold",
        lambda line: line.replace(" ", "\x1c"),
    ),
    "a categorical split": ("decision_type", put(1)),
    "categories": ("num_cat", lambda _: "1"),
    "linear leaves": ("is_linear", lambda _: "1"),
    "a word for a number": ("internal_count", put("many")),
    "a number that ends elsewhere": ("split_feature", put("1_0")),
    "a control character between numbers": (
        "leaf_weight",
        lambda line: line.replace(" ", "\x1c"),
    ),
    "too large a number": ("leaf_count", put(1 << 80)),
}


@pytest.mark.parametrize("fault", LIGHTGBM_FAULTS)
def test_a_crafted_tree_of_lightgbm_is_refused(fault, sample, names, tmp_path, monkeypatch):
    booster = fit("lightgbm", sample, names)
    text = booster.to_bytes().decode()
    assert edit_lightgbm(text, 2, "leaf_value", lambda line: line).decode() == text
    content = edit_lightgbm(text, 2, *LIGHTGBM_FAULTS[fault])

    with pytest.raises(ValueError, match=r"final\.txt is refused: "):
        load_crafted(booster, content, tmp_path, monkeypatch)


LIGHTGBM_HEADS = {
    "another number of classes": ("num_class=3", "num_class=2"),
    "another number of trees per round": ("_per_iteration=3", "_per_iteration=1"),
    "another objective": ("multiclass num_class:3", "regression"),
    "fewer features": ("max_feature_idx=11", "max_feature_idx=0"),
    "more features": ("max_feature_idx=11", "max_feature_idx=99999999"),
    "a number of features that ends elsewhere": ("max_feature_idx=11", "max_feature_idx=1_1"),
    "sizes that lead elsewhere": ("tree_sizes=", "tree_sizes=9"),
    "sizes below 0": ("tree_sizes=", "tree_sizes=-"),
    "a line twice": ("label_index=0", "label_index=0\nnum_class=3"),
    "an unknown line": ("label_index=0", "average_output"),
    "another beginning": ("tree\n", "tree\nlinear_tree=1\n"),
    "a parameter of another form": ("[boosting: gbdt]", "boosting=gbdt"),
    "an unknown ending": ("pandas_categorical:null", "pandas_categorical:[[1]]"),
}


@pytest.mark.parametrize("fault", LIGHTGBM_HEADS)
def test_a_crafted_head_of_lightgbm_is_refused(fault, sample, names, tmp_path, monkeypatch):
    booster = fit("lightgbm", sample, names)
    text = booster.to_bytes().decode()
    content = text.replace(*LIGHTGBM_HEADS[fault], 1).encode()
    assert content.decode() != text

    with pytest.raises(ValueError, match=r"final\.txt is refused: "):
        load_crafted(booster, content, tmp_path, monkeypatch)


def at_node(name, value, node=0):
    def change(learner):
        learner["gradient_booster"]["model"]["trees"][1][name][node] = value

    return change


def in_model(change):
    return lambda learner: change(learner["gradient_booster"]["model"])


XGBOOST_FAULTS = {
    "a cycle": at_node("left_children", 0),
    "a child far away": at_node("right_children", 1 << 30),
    "a child below -1": at_node("left_children", -7),
    "one child alone": at_node("right_children", -1),
    "another parent": at_node("parents", 4, 1),
    "a feature that is not there": at_node("split_indices", 12),
    "a threshold that is no number": at_node("split_conditions", float("nan")),
    "an infinite leaf": at_node("split_conditions", float("inf"), -1),
    "a float for a node": at_node("left_children", 1.0),
    "a categorical split": at_node("split_type", 1),
    "categories": in_model(lambda model: model["trees"][0]["categories"].append(3)),
    "too few nodes": in_model(lambda model: model["trees"][0]["parents"].pop()),
    "more nodes announced": in_model(
        lambda model: model["trees"][0]["tree_param"].update(num_nodes="9999999")
    ),
    "nodes that are deleted": in_model(
        lambda model: model["trees"][0]["tree_param"].update(num_deleted="5")
    ),
    "vectors as leaves": in_model(
        lambda model: model["trees"][0]["tree_param"].update(size_leaf_vector="9")
    ),
    "trees of other classes": in_model(lambda model: model["tree_info"].reverse()),
    "rounds that end elsewhere": in_model(lambda model: model["iteration_indptr"].append(99)),
    "more trees announced": in_model(
        lambda model: model["gbtree_model_param"].update(num_trees="99")
    ),
    "another number of classes": lambda learner: learner["learner_model_param"].update(
        num_class="2"
    ),
    "more features": lambda learner: learner["learner_model_param"].update(num_feature="99"),
    "a base score that is no number": lambda learner: learner["learner_model_param"].update(
        base_score="[nan,0,0]"
    ),
    "another objective": lambda learner: learner["objective"].update(name="reg:squarederror"),
    "another booster": lambda learner: learner["gradient_booster"].update(name="dart"),
    "no trees": lambda learner: learner["gradient_booster"].pop("model"),
    "a list for the trees": in_model(lambda model: model.update(trees={"0": 1})),
}


@pytest.mark.parametrize("fault", XGBOOST_FAULTS)
def test_a_crafted_model_of_xgboost_is_refused(fault, sample, names, tmp_path, monkeypatch):
    booster = fit("xgboost", sample, names)
    model = json.loads(booster.to_bytes())
    XGBOOST_FAULTS[fault](model["learner"])

    with pytest.raises(ValueError, match=r"final\.json is refused: "):
        load_crafted(booster, json.dumps(model).encode(), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "content", [b'{"a":' * 100_000, b'{"learner":{},"learner":{}}', b"{L\x00\x00", b"[]", b"{}"]
)
def test_json_that_is_no_model_is_refused(content, sample, names, tmp_path, monkeypatch):
    booster = fit("xgboost", sample, names)

    with pytest.raises(ValueError, match=r"final\.json is refused: "):
        load_crafted(booster, content, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "meta",
    [
        {"classes": [0, 1]},
        {"classes": [2, 1, 0]},
        {"classes": [-1, 0, 1]},
        {"classes": [0, 1, 3]},
        {"classes": "012"},
        {"n_classes": 2},
        {"n_classes": 1 << 40},
        {"kind": "pickle"},
        {"kind": None},
        {"curve": ["1"]},
        {"curve": [10**400]},
        {"curve": [float("nan")]},
    ],
)
def test_a_description_of_another_model_is_refused(meta, sample, names, tmp_path, monkeypatch):
    boosters = [fit(kind, sample, names) for kind in ("lightgbm", "xgboost")]
    for booster in boosters:
        with pytest.raises(ValueError, match=r"refused|does not describe|Unknown booster"):
            load_crafted(booster, booster.to_bytes(), tmp_path, monkeypatch, **meta)


def test_a_node_that_both_sides_lead_to_is_refused(sample, names, tmp_path, monkeypatch):
    booster = fit("xgboost", sample, names)
    model = json.loads(booster.to_bytes())
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    for name in tree:
        if isinstance(tree[name], list) and tree[name]:
            tree[name] = [0, 0]
    # Through forty of them there are 2 ** 40 ways.
    tree.update(left_children=[1, -1], right_children=[1, -1], parents=[0x7FFFFFFF, 0])
    tree["tree_param"].update(num_nodes="2", num_deleted="0")

    with pytest.raises(ValueError, match="reached twice"):
        load_crafted(booster, json.dumps(model).encode(), tmp_path, monkeypatch)


def test_a_tree_as_deep_as_a_chain_is_refused(sample, names, tmp_path, monkeypatch):
    booster = fit("xgboost", sample, names)
    model = json.loads(booster.to_bytes())
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    n = 2 * 5_000 + 1  # split k has the leaf 2k + 1 and the next split 2k + 2
    for name in tree:
        if isinstance(tree[name], list) and tree[name]:
            tree[name] = [0] * n
    tree["left_children"] = [k + 1 if k % 2 == 0 and k < n - 1 else -1 for k in range(n)]
    tree["right_children"] = [k + 2 if k % 2 == 0 and k < n - 1 else -1 for k in range(n)]
    tree["parents"] = [0x7FFFFFFF, *((k - 1) // 2 * 2 for k in range(1, n))]
    tree["tree_param"].update(num_nodes=str(n), num_deleted="0")

    with pytest.raises(ValueError, match="deeper than"):
        load_crafted(booster, json.dumps(model).encode(), tmp_path, monkeypatch)


PARAMS = {
    "lightgbm": [
        {"num_leaves": 2, "max_depth": 1},
        {"num_leaves": 63, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0.0},
        {"extra_trees": True, "bagging_fraction": 0.5, "bagging_freq": 1, "path_smooth": 1.0},
        {"min_gain_to_split": 1e9},  # trees of a single leaf
        {"feature_fraction": 0.1, "lambda_l1": 100.0},
    ],
    "xgboost": [
        {"max_depth": 1},
        {"gamma": 3.0, "max_depth": 8},  # pruned
        {"grow_policy": "lossguide", "max_leaves": 40, "max_depth": 0},
        {"gamma": 1e9},
        {"min_child_weight": 0.0, "reg_lambda": 0.0, "max_depth": 12, "subsample": 0.5},
    ],
}


@pytest.mark.parametrize(("kind", "number"), [(k, n) for k in PARAMS for n in range(5)])
def test_every_true_model_is_read(kind, number, sample, names, tmp_path):
    X, y = sample
    X = X.copy()
    X[:, 7] = 0  # a constant feature has no range
    booster = fit(kind, (X, y), names, PARAMS[kind][number])
    booster.save(tmp_path / "final")

    loaded = FittedBooster.load(tmp_path / "final")

    assert np.array_equal(loaded.predict_proba(X), booster.predict_proba(X))


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost"])
def test_a_split_between_present_and_missing_values_is_read(kind, sample, names, tmp_path):
    X, y = sample
    X = X.copy()
    X[y == 1, :6] = np.nan  # one class lacks a modality: only its absence matters
    booster = fit(kind, (X, y), names)
    # LightGBM writes the split as a threshold that no value exceeds.
    assert bool(re.search(rb"[= ]inf\b", booster.to_bytes())) == (kind == "lightgbm")
    booster.save(tmp_path / "final")

    loaded = FittedBooster.load(tmp_path / "final")

    X[::2, :6] = np.float32(3e38)
    assert np.array_equal(loaded.predict_proba(X), booster.predict_proba(X))


@pytest.fixture(scope="module", params=["lightgbm", "xgboost"])
def blended(request, sample, names):
    """Trees with a linear part."""
    X, y = sample
    linear = LinearPath(X, y, n_classes=3).fit(3)
    return replace(fit(request.param, sample, names), linear=linear, weights=(0.4, 0.8))


def to_npy(array):
    with io.BytesIO() as file:
        np.save(file, array, allow_pickle=True)
        return file.getvalue()


def load_with_array(booster, content, folder):
    """Load a model whose linear part is another file, of a checksum that fits."""
    booster.save(folder / "final")
    (folder / "final.linear.npy").write_bytes(content)
    side = folder / "final.meta.json"
    meta = json.loads(side.read_text())
    meta["linear"]["sha256"] = hashlib.sha256(content).hexdigest()
    side.write_text(json.dumps(meta))
    return FittedBooster.load(folder / "final")


def put_number(value):
    def change(numbers):
        numbers = numbers.copy()
        numbers[1, 4] = value
        return to_npy(numbers)

    return change


ARRAY_FAULTS = {
    "no array": lambda _: b"not an array",
    "an empty file": lambda _: b"",
    "half a file": lambda numbers: to_npy(numbers)[:-100],
    "a pickle": lambda _: to_npy(np.array([{}, None], dtype=object)),
    "text": lambda _: to_npy(np.array(["a", "b"])),
    "a table of fields": lambda _: to_npy(np.zeros(3, dtype=[("a", float)])),
    "more than memory holds": lambda numbers: to_npy(numbers).replace(
        b"'shape': (6, 12), ", b"'shape': (6, 1" + 12 * b"0" + b"), "
    ),
    "fewer columns": lambda numbers: to_npy(numbers[:, :-1]),
    "more columns": lambda numbers: to_npy(np.hstack([numbers, numbers])),
    "fewer classes": lambda numbers: to_npy(numbers[:-1]),
    "another type": lambda numbers: to_npy(numbers.astype(np.float32)),
    "a number that is none": put_number(np.nan),
    "an infinite number": put_number(np.inf),
    "a negative scale": put_number(-1.0),
}


@pytest.mark.parametrize("fault", ARRAY_FAULTS)
def test_a_crafted_linear_part_is_refused(fault, blended, tmp_path):
    numbers, _ = blended.linear.to_arrays()

    with pytest.raises(ValueError, match=r"final\.linear\.npy is refused: "):
        load_with_array(blended, ARRAY_FAULTS[fault](numbers), tmp_path)


def test_a_linear_part_of_the_same_numbers_is_read(blended, sample, tmp_path):
    numbers, _ = blended.linear.to_arrays()

    loaded = load_with_array(blended, to_npy(numbers), tmp_path)

    assert np.array_equal(loaded.predict_proba(sample[0]), blended.predict_proba(sample[0]))


def test_a_linear_part_that_is_missing_or_changed_is_refused(blended, tmp_path):
    numbers, _ = blended.linear.to_arrays()
    blended.save(tmp_path / "final")
    path = tmp_path / "final.linear.npy"

    path.write_bytes(to_npy(numbers * 1.001))
    with pytest.raises(ValueError, match=r"final\.linear\.npy is damaged"):
        FittedBooster.load(tmp_path / "final")
    path.unlink()
    with pytest.raises(ValueError, match=r"final\.linear\.npy is damaged"):
        FittedBooster.load(tmp_path / "final")


def test_an_array_that_the_description_does_not_name_is_not_read(blended, sample, tmp_path):
    trees = replace(blended, linear=None, weights=(0.0, 1.0))
    trees.save(tmp_path / "final")
    (tmp_path / "final.linear.npy").write_bytes(b"of another model")

    loaded = FittedBooster.load(tmp_path / "final")

    assert loaded.linear is None
    assert np.array_equal(loaded.predict_proba(sample[0]), trees.predict_proba(sample[0]))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [float("nan"), 1.0]},
        {"weights": [1.0, float("inf")]},
        {"weights": [10**400, 1.0]},
        {"weights": [-0.1, 1.0]},
        {"weights": [1.0, -0.1]},
        {"weights": [1.0]},
        {"weights": [1.0, 1.0, 1.0]},
        {"weights": ["1", 1.0]},
        {"weights": None},
        {"base": [float("nan"), 0.0, 0.0]},
        {"base": [10**400, 0.0, 0.0]},
        {"base": ["0", 0.0, 0.0]},
        {"base": "000"},
        {"sha256": None},
        None,
        [],
        "none",
    ],
)
def test_a_crafted_description_of_a_linear_part_is_refused(change, blended, tmp_path):
    blended.save(tmp_path / "final")
    side = tmp_path / "final.meta.json"
    meta = json.loads(side.read_text())
    meta["linear"] = meta["linear"] | change if isinstance(change, dict) else change
    side.write_text(json.dumps(meta))

    with pytest.raises(ValueError, match=r"final\.meta\.json does not describe a model"):
        FittedBooster.load(tmp_path / "final")


@pytest.mark.parametrize("base", [[], [0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
def test_a_base_of_other_classes_is_refused(base, blended, tmp_path):
    blended.save(tmp_path / "final")
    side = tmp_path / "final.meta.json"
    meta = json.loads(side.read_text())
    meta["linear"]["base"] = base
    side.write_text(json.dumps(meta))

    with pytest.raises(ValueError, match=r"final\.linear\.npy is refused: "):
        FittedBooster.load(tmp_path / "final")
