import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import xgboost as xgb
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax

from toolkit.models import FittedBooster
from toolkit.models.boosters import fit_booster, make_training_data
from toolkit.models.linear import LinearPath

KINDS = ["lightgbm", "xgboost"]
A, B = 0.7, 0.6


@pytest.fixture(scope="module", params=KINDS)
def trees(request, sample, names):
    """Trees of classes 0, 1 and 3 of four, with a validation curve."""
    X, y = sample
    y = np.array([0, 1, 3])[y]
    options = {"n_classes": 4, "names": names, "max_bin": 31}
    data = make_training_data(request.param, X, y, **options)
    followed = make_training_data(request.param, X, y, **options, reference=data)
    return fit_booster(data, {}, n_rounds=8, seed=0, validation=followed)


@pytest.fixture(scope="module")
def blended(trees, sample):
    """The trees with a linear part of the same rows."""
    X, y = sample
    path = LinearPath(X, np.array([0, 1, 3])[y], n_classes=4)
    return replace(trees, linear=path.fit(10), weights=(A, B))


@pytest.fixture(scope="module", params=["trees", "blended"])
def booster(request, trees, blended):
    """Trees alone, and trees with a linear part."""
    return {"trees": trees, "blended": blended}[request.param]


def save(booster, folder, name="fold-00"):
    """Save a booster to a folder of its own, and give its files by their endings."""
    folder.mkdir(exist_ok=True)
    booster.save(folder / name)
    return {path.name.removeprefix(name): path for path in folder.iterdir()}


def tree_margins(booster, X):
    """Margins of the trees by the library itself."""
    if booster.kind == "lightgbm":
        return booster.model.predict(X, raw_score=True)
    rows = xgb.DMatrix(X, feature_names=list(booster.names))
    return booster.model.predict(rows, output_margin=True)


def linear_margins(model, X):
    """Margins of a linear part, by its definition; a missing value adds nothing."""
    z = np.clip((X.astype(np.float64) - model.means) * model.scales, -3, 3) - model.centre
    return np.nan_to_num(z) @ model.coefficients.T + model.base


def test_margins_are_the_weighted_sum_of_both_parts(blended, sample):
    X = sample[0]
    trees = tree_margins(blended, X)
    expected = softmax(A * linear_margins(blended.linear, X) + B * trees, axis=1)

    proba = blended.predict_proba(X)

    assert_allclose(proba[:, [0, 1, 3]], expected, atol=1e-6)
    assert not proba[:, 2].any()


def test_parts_are_those_of_trees_and_linear_part_alone(trees, blended, sample):
    X = sample[0]

    parts = blended.predict_parts(X)

    assert list(parts) == ["trees", "linear"]
    assert_array_equal(parts["trees"], trees.predict_proba(X))
    expected = softmax(linear_margins(blended.linear, X), axis=1)
    assert_allclose(parts["linear"][:, [0, 1, 3]], expected)
    assert not parts["linear"][:, 2].any()
    assert list(trees.predict_parts(X)) == ["trees"]
    assert {each.shape for each in blended.predict_parts(X[:0]).values()} == {(0, 4)}


def test_weights_of_0_and_1_leave_one_part(trees, blended, sample):
    X = sample[0]

    alone = replace(blended, weights=(0.0, 1.0))
    linear = replace(blended, weights=(1.0, 0.0))

    assert_allclose(alone.predict_proba(X), trees.predict_proba(X), atol=1e-6)
    assert_allclose(linear.predict_proba(X), blended.linear.predict_proba(X))


def test_contributions_of_both_parts_add_up_to_the_margins(trees, blended, sample):
    X = sample[0][:40]
    classes = [0, 1, 3]

    values = blended.contributions(X)

    linear = blended.linear
    margins = A * linear_margins(linear, X) + B * tree_margins(blended, X)
    assert_allclose(values[:, classes].sum(axis=2), margins, atol=1e-5)
    z = np.clip((X - linear.means) * linear.scales, -3, 3) - linear.centre
    own = np.nan_to_num(z)[:, None] * linear.coefficients
    expected = B * trees.contributions(X)[:, classes]
    expected[:, :, :-1] += A * own
    expected[:, :, -1] += A * linear.base
    assert_allclose(values[:, classes], expected, rtol=1e-6, atol=1e-12)
    assert np.abs(own).max() > 0.1
    assert not values[:, 2].any()


def test_the_files_hold_both_parts_and_no_more(trees, blended, tmp_path):
    alone, both = save(trees, tmp_path / "a"), save(blended, tmp_path / "b")

    model = {"lightgbm": ".txt", "xgboost": ".json"}[trees.kind]
    assert set(alone) == {model, ".meta.json"}
    assert set(both) == {model, ".meta.json", ".linear.npy"}
    assert alone[model].read_bytes() == both[model].read_bytes()
    numbers = np.load(both[".linear.npy"], allow_pickle=False)
    assert_array_equal(numbers[0], blended.linear.means)
    assert_array_equal(numbers[3:], blended.linear.coefficients)
    meta = json.loads(both[".meta.json"].read_text())
    assert meta["linear"]["weights"] == [A, B]
    assert "linear" not in json.loads(alone[".meta.json"].read_text())


def test_a_saved_booster_is_the_same_when_loaded(booster, sample, tmp_path):
    booster.save(tmp_path / "fold-00")

    loaded = FittedBooster.load(tmp_path / "fold-00")

    for field in ("kind", "names", "n_classes", "classes"):
        assert getattr(loaded, field) == getattr(booster, field), field
    assert loaded.weights == booster.weights
    assert (loaded.linear is None) == (booster.linear is None)
    assert_array_equal(loaded.curve, booster.curve)
    assert_array_equal(loaded.predict_proba(sample[0]), booster.predict_proba(sample[0]))
    assert_array_equal(loaded.contributions(sample[0]), booster.contributions(sample[0]))


def test_saving_twice_and_saving_what_was_loaded_give_the_same_bytes(booster, tmp_path):
    first = save(booster, tmp_path / "a")
    second = save(FittedBooster.load(tmp_path / "a" / "fold-00"), tmp_path / "b")

    assert first.keys() == second.keys()
    for ending, path in first.items():
        assert path.read_bytes() == second[ending].read_bytes()


def test_the_model_file_is_in_the_library_s_own_format(booster, tmp_path):
    files = save(booster, tmp_path)

    model = files[{"lightgbm": ".txt", "xgboost": ".json"}[booster.kind]]
    text = model.read_text(encoding="utf-8")
    if booster.kind == "lightgbm":
        assert text.startswith("tree\nversion=")
    else:
        assert json.loads(text)["learner"]["feature_names"] == list(booster.names)


def test_a_damaged_model_file_is_refused(booster, tmp_path):
    files = save(booster, tmp_path)
    del files[".meta.json"]

    for ending, path in files.items():
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(ValueError, match=rf"fold-00\{ending} is damaged"):
            FittedBooster.load(tmp_path / "fold-00")
        path.write_bytes(content)
    FittedBooster.load(tmp_path / "fold-00")


def test_a_save_that_fails_leaves_the_old_model_whole(booster, tmp_path, monkeypatch):
    files = save(booster, tmp_path, "a")
    before = {path: path.read_bytes() for path in files.values()}

    def fail(_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        booster.save(tmp_path / "a")

    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_booster_travels_between_processes(booster, sample):
    copy = pickle.loads(pickle.dumps(booster))

    assert_array_equal(copy.predict_proba(sample[0]), booster.predict_proba(sample[0]))


def test_contributions_add_up_to_the_margins(booster, sample):
    X = sample[0][:20]

    shares = booster.contributions(X)

    assert shares.shape == (20, 4, 13)
    trained = [0, 1, 3]
    log_proba = np.log(booster.predict_proba(X)[:, trained])
    assert_allclose(log_softmax(shares.sum(axis=2)[:, trained], axis=1), log_proba, atol=1e-5)


def test_a_class_without_rows_has_no_contributions(booster, sample):
    assert not booster.contributions(sample[0][:5])[:, 2].any()


def test_a_missing_value_is_not_a_zero(booster, sample):
    X = np.nan_to_num(sample[0])
    gaps = X.copy()
    gaps[:, 5] = np.nan  # a feature that had gaps in training

    zeros = np.where(np.isnan(gaps), 0, gaps)

    assert (booster.predict_proba(gaps) != booster.predict_proba(zeros)).any()


def test_no_rows_have_no_predictions(booster):
    assert booster.predict_proba(np.zeros((0, 12))).shape == (0, 4)
    assert booster.contributions(np.zeros((0, 12))).shape == (0, 4, 13)


def test_features_in_another_order_are_refused(booster, sample, names):
    swapped = [names[1], names[0], *names[2:]]

    with pytest.raises(
        ValueError, match=r"in another order: column 0 is 'text__mean__01', exp"
    ):
        booster.predict_proba(sample[0], names=swapped)


def test_other_features_are_refused(booster, sample, names):
    with pytest.raises(ValueError, match=r"not those of training: column 11 is 'pitch'"):
        booster.predict_proba(sample[0], names=[*names[:11], "pitch"])


def test_features_of_the_right_names_are_taken(booster, sample, names):
    proba = booster.predict_proba(sample[0], names=list(names))

    assert_array_equal(proba, booster.predict_proba(sample[0]))


@pytest.mark.parametrize(
    ("X", "given", "message"),
    [
        (np.zeros((2, 11)), None, r"have 11 columns; expected the 12 of training"),
        (np.zeros((2, 13)), None, r"have 13 columns; expected the 12 of training"),
        (np.zeros((2, 12)), ["a"], r"1 feature names; expected the 12 of training"),
        (np.full((2, 12), np.inf), None, r"takes as infinite"),
    ],
)
def test_rows_of_another_shape_are_refused(booster, X, given, message):
    with pytest.raises(ValueError, match=message):
        booster.predict_proba(X, names=given)


def test_the_curve_cannot_be_written_to(booster):
    with pytest.raises(ValueError, match="read-only"):
        booster.curve[0] = 0
