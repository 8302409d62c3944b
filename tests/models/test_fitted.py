import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax

from toolkit.models import FittedBooster, fit_booster, make_training_data

KINDS = ["lightgbm", "xgboost"]


@pytest.fixture(scope="module", params=KINDS)
def booster(request, sample, names):
    """A booster of classes 0, 1 and 3 of four, with a validation curve."""
    X, y = sample
    y = np.array([0, 1, 3])[y]
    data = make_training_data(request.param, X, y, n_classes=4, names=names, max_bin=31)
    return fit_booster(data, {}, n_rounds=8, seed=0, validation=(X, y))


def test_a_saved_booster_is_the_same_when_loaded(booster, sample, tmp_path):
    booster.save(tmp_path / "fold-00")

    loaded = FittedBooster.load(tmp_path / "fold-00")

    for field in ("kind", "names", "n_classes", "classes", "n_rounds"):
        assert getattr(loaded, field) == getattr(booster, field), field
    assert_array_equal(loaded.curve, booster.curve)
    assert_array_equal(loaded.predict_proba(sample[0]), booster.predict_proba(sample[0]))
    assert_array_equal(
        loaded.predict_proba(sample[0], n_rounds=3),
        booster.predict_proba(sample[0], n_rounds=3),
    )


def test_saving_twice_and_saving_what_was_loaded_give_the_same_bytes(booster, tmp_path):
    first = booster.save(tmp_path / "a")
    second = FittedBooster.load(tmp_path / "a").save(tmp_path / "b")

    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_the_model_file_is_in_the_library_s_own_format(booster, tmp_path):
    model, side = booster.save(tmp_path / "fold-00")

    text = model.read_text(encoding="utf-8")
    assert model.name == {"lightgbm": "fold-00.txt", "xgboost": "fold-00.json"}[booster.kind]
    assert side.name == "fold-00.meta.json"
    if booster.kind == "lightgbm":
        assert text.startswith("tree\nversion=")
    else:
        assert json.loads(text)["learner"]["feature_names"] == list(booster.names)


def test_a_damaged_model_file_is_refused(booster, tmp_path):
    model, _ = booster.save(tmp_path / "fold-00")
    model.write_bytes(model.read_bytes()[:-1])

    with pytest.raises(ValueError, match=r"fold-00.* is damaged"):
        FittedBooster.load(tmp_path / "fold-00")


def test_a_save_that_fails_leaves_the_old_model_whole(booster, tmp_path, monkeypatch):
    model, _ = booster.save(tmp_path / "a")
    before = model.read_bytes()

    def fail(_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        booster.save(tmp_path / "a")

    assert model.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


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


def test_contributions_of_the_first_rounds_are_those_of_a_shorter_booster(booster, sample):
    X = sample[0][:20]

    shares = booster.contributions(X, n_rounds=2)[:, [0, 1, 3]].sum(axis=2)

    log_proba = np.log(booster.predict_proba(X, n_rounds=2)[:, [0, 1, 3]])
    assert_allclose(log_softmax(shares, axis=1), log_proba, atol=1e-5)


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
        booster.contributions(sample[0], names=[*names[:11], "pitch"])


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


@pytest.mark.parametrize("n_rounds", [0, -1, 9])
def test_rounds_that_were_not_trained_are_refused(booster, sample, n_rounds):
    with pytest.raises(ValueError, match=rf"with {n_rounds} rounds; the booster has 1 to 8"):
        booster.predict_proba(sample[0], n_rounds=n_rounds)


def test_the_curve_cannot_be_written_to(booster):
    with pytest.raises(ValueError, match="read-only"):
        booster.curve[0] = 0
