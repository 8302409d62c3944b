from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_info, threadpool_limits

from toolkit.models import BoosterError, libraries
from toolkit.models.balancing import balance
from toolkit.models.boosters import (
    _device_problem,
    check_device,
    fit_booster,
    make_training_data,
)

KINDS = ["lightgbm", "xgboost"]
PARAMS = {
    "lightgbm": {"num_leaves": 4, "bagging_fraction": 0.8, "bagging_freq": 1}
    | {"feature_fraction": 0.5, "extra_trees": True, "min_data_in_leaf": 3},
    "xgboost": {"max_depth": 2, "subsample": 0.8, "colsample_bytree": 0.5},
}
STEP = {"lightgbm": "learning_rate", "xgboost": "eta"}


@pytest.fixture
def bin_up(sample, names):
    """Bin the rows of the sample, or other ones."""

    def make(kind, X=None, y=None, **options):
        X = sample[0] if X is None else X
        y = sample[1] if y is None else y
        options = {"n_classes": 3, "names": names, "max_bin": 31} | options
        return make_training_data(kind, X, y, **options)

    return make


def bin_by(data, X, y):
    """Bin other rows by the edges of training data."""
    shared = {"n_classes": data.n_classes, "names": data.names, "max_bin": data.max_bin}
    return make_training_data(data.kind, X, y, **shared, reference=data)


def dump(booster):
    return booster.to_bytes()


def count_rounds(booster):
    if booster.kind == "lightgbm":
        return booster.model.current_iteration()
    return booster.model.num_boosted_rounds()


def fit(data, *, n_rounds=12, seed=0, **options):
    return fit_booster(data, PARAMS[data.kind], n_rounds=n_rounds, seed=seed, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_booster_learns_and_its_probabilities_sum_to_one(kind, sample, bin_up):
    X, y = sample

    proba = fit(bin_up(kind)).predict_proba(X)

    assert proba.dtype == np.float64
    assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (proba.argmax(axis=1) == y).mean() > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_classes_missing_from_training_keep_their_columns_at_0(kind, sample, bin_up):
    X, y = sample
    plain = fit(bin_up(kind)).predict_proba(X)

    booster = fit(bin_up(kind, y=np.array([0, 1, 3])[y], n_classes=5))

    assert booster.classes == (0, 1, 3)
    assert_array_equal(booster.predict_proba(X)[:, [0, 1, 3]], plain)
    assert_array_equal(booster.predict_proba(X)[:, [2, 4]], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_two_classes_have_two_columns(kind, sample, bin_up):
    X, y = sample
    two = y < 2

    booster = fit(bin_up(kind, X[two], y[two], n_classes=2))
    proba = booster.predict_proba(X[two])

    assert proba.shape == (two.sum(), 2)
    assert (proba.argmax(axis=1) == y[two]).mean() > 0.7
    assert booster.contributions(X[:3]).shape == (3, 2, 13)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_fit_gives_the_same_bytes_and_another_seed_does_not(kind, bin_up):
    data = bin_up(kind)

    first, again, fresh = fit(data), fit(data), fit(bin_up(kind))

    assert dump(first) == dump(again) == dump(fresh)
    assert dump(fit(data, seed=1)) != dump(first)


@pytest.mark.parametrize("kind", KINDS)
def test_two_threads_predict_what_one_does(kind, sample, bin_up):
    one = fit(bin_up(kind), n_rounds=2)
    two = fit(bin_up(kind), n_rounds=2, n_threads=2)

    assert_array_equal(one.predict_proba(sample[0]), two.predict_proba(sample[0]))


@pytest.mark.parametrize("strategy", ["weights", "smote"])
def test_threads_of_lightgbm_change_no_byte_and_reach_no_other_library(strategy):
    """Rows are many enough for threads to share them, and limits of other libraries hold."""
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(2500, 12)) * np.exp(rng.normal(size=12) * 3)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    y = np.searchsorted([0.5, 0.8, 0.95], rng.random(2500))
    rows = balance(X, y, strategy, seed=0)
    options = {"n_classes": 4, "names": list("abcdefghijkl"), "max_bin": 63}
    data = make_training_data("lightgbm", rows.X, rows.y, weights=rows.weights, **options)
    tasks = Path("/proc/self/task")
    with threadpool_limits(1):
        one = dump(fit(data, n_rounds=3))
        before = len([*tasks.glob("*")])
        three = dump(fit(data, n_rounds=3, n_threads=3))
        held = {library["num_threads"] for library in threadpool_info()}
        n_started = len([*tasks.glob("*")]) - before

    assert one == three
    assert held == {1}
    assert strategy != "weights" or not tasks.exists() or n_started > 0


@pytest.mark.parametrize("kind", KINDS)
def test_fits_of_other_parameters_leave_the_binned_rows_as_they_were(kind, bin_up):
    data, validation = bin_up(kind), None
    expected = dump(fit(data))

    validation = bin_up(kind, reference=data)
    other = PARAMS[kind] | {STEP[kind]: 0.9}
    fit_booster(data, other, n_rounds=5, seed=3, validation=validation, patience=1)

    assert dump(fit(data)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_leaf_sizes_are_free_on_shared_bins(kind, sample, bin_up):
    name = {"lightgbm": "min_data_in_leaf", "xgboost": "min_child_weight"}[kind]
    data = bin_up(kind)
    blunt = fit_booster(data, {name: 100}, n_rounds=5, seed=0)
    fine = fit_booster(data, {name: 1}, n_rounds=5, seed=0)

    expected = fit_booster(bin_up(kind), {name: 1}, n_rounds=5, seed=0)

    assert_array_equal(fine.predict_proba(sample[0]), expected.predict_proba(sample[0]))
    assert (fine.predict_proba(sample[0]) != blunt.predict_proba(sample[0])).any()


def test_a_feature_that_few_rows_have_is_there_for_trials_with_small_leaves():
    X = np.zeros((200, 1))
    X[:8] = 1
    y = X[:, 0].astype(int)
    data = make_training_data("lightgbm", X, y, n_classes=2, names=["a"], max_bin=31)

    booster = fit_booster(data, {"min_data_in_leaf": 1}, n_rounds=30, seed=0)

    assert booster.predict_proba([[1.0], [0.0]]).argmax(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_validation_does_not_change_what_is_learnt(kind, bin_up):
    data = bin_up(kind)

    followed = fit(data, validation=bin_up(kind, reference=data))

    assert dump(followed) == dump(fit(data))


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_is_the_log_loss_of_predicting_with_the_first_rounds(kind, sample, bin_up):
    X, y = sample
    data = bin_up(kind, X[:160], y[:160])

    booster = fit(data, validation=bin_by(data, X[160:], y[160:]))

    assert count_rounds(booster) == len(booster.curve) == 12
    for n_rounds in (1, 5, 12):
        proba = fit(data, n_rounds=n_rounds).predict_proba(X[160:])
        log_loss = -np.log(proba[np.arange(80), y[160:]]).mean()
        assert_allclose(booster.curve[n_rounds - 1], log_loss, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_validation_class_that_training_lacks_costs_the_log_of_a_millionth(
    kind, sample, bin_up
):
    X, y = sample
    known = y < 2

    data = bin_up(kind, X[known], y[known])
    booster = fit(data, validation=bin_by(data, X[~known], y[~known]))

    # The missing class is lifted to 1e-6 and the three are brought back to a sum of 1.
    assert_allclose(booster.curve, np.log(1e6) + np.log(1 + 1e-6), rtol=0, atol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_followed_has_a_column_a_class_of_the_study(kind, sample, bin_up):
    X, y = sample
    codes = np.array([0, 1, 3])[y]
    followed = []

    data = bin_up(kind, y=codes, n_classes=5)
    booster = fit(data, validation=bin_by(data, X, codes), on_round=followed.append)

    # XGBoost tells its rounds in float32, and predicts rows that are binned.
    assert_allclose(followed[-1], booster.predict_proba(X), rtol=0, atol=1e-6)
    assert_array_equal(followed[-1][:, [2, 4]], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_followed_stays_as_it_was(kind, sample, bin_up):
    followed, copies = [], []

    def follow(proba):
        followed.append(proba)
        copies.append(proba.copy())

    data = bin_up(kind)
    booster = fit(data, validation=bin_by(data, *sample), on_round=follow)

    assert_array_equal(followed, copies)
    assert not np.array_equal(copies[0], copies[-1])
    assert_allclose(copies[-1], booster.predict_proba(sample[0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_patience_ends_training_and_keeps_the_rounds_after_the_best(kind, sample, bin_up):
    X, y = sample
    data = bin_up(kind, X[:160], y[:160])
    steep = PARAMS[kind] | {STEP[kind]: 0.8}

    booster = fit_booster(
        data, steep, n_rounds=200, seed=0, validation=bin_by(data, X[160:], y[160:]), patience=7
    )

    best = int(np.argmin(booster.curve)) + 1
    assert count_rounds(booster) == len(booster.curve) == best + 7 < 200
    assert (booster.curve[best:] >= booster.curve[best - 1]).all()


@pytest.mark.parametrize("n_rows", [20_000, 20_001])
def test_edges_of_many_rows_come_from_a_sample(n_rows):
    X = np.zeros((n_rows, 1), dtype=np.float32)
    X[: n_rows // 2] = 1
    y = (X[:, 0] > 0).astype(np.int64)
    data = make_training_data("lightgbm", X, y, n_classes=2, names=["a"], max_bin=63)
    text = fit_booster(data, {}, n_rounds=1, seed=0).model.model_to_string()

    assert ("[bin_construct_sample_cnt: 20000]" in text) == (n_rows > 20_000)


@pytest.mark.parametrize(
    ("kind", "own_edge", "shared_edge"),
    # Of edges that part 1 from 10 equally well LightGBM takes the last, half-way between two
    # values, and XGBoost the first, at the upper one.
    [("lightgbm", 5.5, 7.5), ("xgboost", 10.0, 2.0)],
)
def test_bin_edges_come_from_the_reference(kind, own_edge, shared_edge):
    options = {"n_classes": 2, "names": ["a"], "max_bin": 31}
    values = np.repeat([[1.0], [2.0], [3.0], [4.0], [5.0], [10.0]], 20, axis=0)
    reference = make_training_data(kind, values, np.repeat([0, 1], 60), **options)
    ends, y = np.repeat([[1.0], [10.0]], 20, axis=0), np.repeat([0, 1], 20)

    def predicts_1(data, value):
        return fit_booster(data, {}, n_rounds=3, seed=0).predict_proba([[value]])[0, 1] > 0.5

    own = make_training_data(kind, ends, y, **options)
    shared = make_training_data(kind, ends, y, **options, reference=reference)

    for data, edge in ((own, own_edge), (shared, shared_edge)):
        assert not predicts_1(data, edge - 0.01)
        assert predicts_1(data, edge + 0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_weighted_twice_count_as_rows_given_twice(kind, sample, bin_up):
    X, y = sample
    X, y = X[:60], y[:60]
    shared = bin_up(kind, X, y)
    params = {"lightgbm": {"min_data_in_leaf": 1, "lambda_l2": 1}, "xgboost": {}}[kind]
    doubled = bin_up(kind, np.vstack([X, X]), np.concatenate([y, y]), reference=shared)
    weighted = bin_up(kind, X, y, weights=np.full(60, 2.0), reference=shared)

    one = fit_booster(doubled, params, n_rounds=4, seed=0).predict_proba(X)
    two = fit_booster(weighted, params, n_rounds=4, seed=0).predict_proba(X)
    plain = fit_booster(shared, params, n_rounds=4, seed=0).predict_proba(X)

    assert_allclose(one, two, atol=1e-5)
    assert not np.allclose(two, plain, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_say_nothing_give_the_class_shares(kind):
    X, y = np.ones((40, 2)), np.repeat([0, 1], [10, 30])
    data = make_training_data(kind, X, y, n_classes=2, names=["a", "b"], max_bin=31)

    booster = fit_booster(data, {}, n_rounds=60, seed=0)

    assert_allclose(booster.predict_proba(X[:1]), [[0.25, 0.75]], atol=1e-3)
    assert count_rounds(booster) >= 1


def test_a_round_without_a_split_is_drawn_again():
    # One of fifty columns says something; a tree sees one, so most rounds find no split.
    X = np.zeros((60, 50))
    X[:, 1:] = np.eye(49)[np.arange(60) % 49]
    X[:, 0] = np.arange(60) >= 30
    y = X[:, 0].astype(int)
    names = [f"a{k}" for k in range(50)]
    data = make_training_data("lightgbm", X, y, n_classes=2, names=names, max_bin=31)

    booster = fit_booster(
        data,
        {"feature_fraction": 0.1, "min_data_in_leaf": 20},
        n_rounds=5,
        seed=2,
        validation=bin_by(data, X, y),
    )

    assert count_rounds(booster) == len(booster.curve) == 5
    assert booster.predict_proba(X).argmax(axis=1).tolist() == y.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_s_own_failure_is_a_booster_error_that_says_the_same_every_time(
    kind, bin_up
):
    with pytest.raises(BoosterError, match=rf"^{kind} stopped: [^\[][^\n]*$") as error:
        fit_booster(bin_up(kind), {STEP[kind]: -1.0}, n_rounds=2, seed=0)

    assert "Stack trace" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_printed(kind, sample, bin_up, capfd):
    X, y = sample
    data = bin_up(kind, X[:9], y[:9])
    validation = bin_up(kind, X[9:], y[9:], reference=data)

    def work():
        fit(data, n_rounds=40, validation=validation, patience=3).predict_proba(X)

    # LightGBM keeps its log level a thread: quiet binning does not make training quiet.
    thread = Thread(target=work)
    thread.start()
    thread.join()

    assert capfd.readouterr() == ("", "")


def test_rows_of_a_single_class_are_refused(bin_up, sample):
    data = bin_up("lightgbm", sample[0][:5], np.full(5, 2))

    with pytest.raises(ValueError, match=r"All 5 training rows are of class 2"):
        fit(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_rounds": 0}, r"n_rounds must be at least 1, got 0"),
        ({"patience": 3}, r"got 3 without them"),
        ({"patience": 0, "validation": ([[0.0] * 12], [0])}, r"got 0 with them"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message, bin_up):
    with pytest.raises(ValueError, match=message):
        fit(bin_up("lightgbm"), **options)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("lightgbm", "num_leafs", r"'num_leafs'; did you mean 'num_leaves'"),
        ("xgboost", "learning_rate", r"Unknown xgboost parameter 'learning_rate'"),
        ("lightgbm", "seed", r"Unknown lightgbm parameter 'seed'"),
        ("lightgbm", "num_class", r"Unknown lightgbm parameter 'num_class'"),
    ],
)
def test_parameters_that_would_be_ignored_or_are_not_the_caller_s_are_refused(
    kind, name, message, bin_up
):
    with pytest.raises(ValueError, match=message):
        fit_booster(bin_up(kind), {name: 1}, n_rounds=1, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_rows_with_other_edges_are_refused(kind, bin_up):
    with pytest.raises(ValueError, match=r"binned by other edges"):
        fit(bin_up(kind), validation=bin_up(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_found_in_the_reference_give_the_bytes_of_rows_binned_by_it(
    kind, weighted, sample, bin_up
):
    X, y = sample
    reference = bin_up(kind)
    places = np.flatnonzero(np.random.default_rng(4).random(len(y)) < 0.7)
    rest = np.setdiff1d(np.arange(len(y)), places)
    labels = np.random.default_rng(5).permutation(y)

    def boost(*, found):
        def rows_at(rows, **own):
            own |= {"reference": reference, "positions": rows if found else None}
            return bin_up(kind, X[rows], labels[rows], **own)

        learnt = rows_at(places, weights=1.0 + places % 3 if weighted else None)
        booster = fit(learnt, validation=rows_at(rest), patience=5)
        return booster.to_bytes(), booster.curve

    (found, curve), (binned, expected) = boost(found=True), boost(found=False)

    assert found == binned
    assert_array_equal(curve, expected)


@pytest.mark.parametrize("places", [[0, 1], [0, 2, 1], [0, 1, 1], [-1, 0, 1], [0, 1, 999]])
def test_places_that_are_not_of_the_reference_are_refused(places, sample, bin_up):
    X, y = sample
    reference = bin_up("lightgbm")

    with pytest.raises(ValueError, match=r"The places of 3 rows in a reference of \d+ are"):
        bin_up("lightgbm", X[:3], y[:3], reference=reference, positions=np.array(places))
    with pytest.raises(ValueError, match="in a reference of 0 are"):
        bin_up("lightgbm", X[:3], y[:3], positions=np.arange(3))


@pytest.mark.parametrize(
    "changed",
    [{"max_bin": 63}, {"names": [f"other{k}" for k in range(12)]}, {"kind": "xgboost"}],
    ids=["bins", "names", "kind"],
)
def test_a_reference_of_other_data_is_refused(changed, bin_up):
    reference = bin_up("lightgbm")

    with pytest.raises(
        ValueError, match=r"The reference is lightgbm data of 12 features in 31"
    ):
        bin_up(**({"kind": "lightgbm", "reference": reference} | changed))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "catboost"}, r"Unknown booster 'catboost'; choose among \['lightgbm', 'xgb"),
        ({"X": np.full((240, 12), np.inf)}, r"which float32 takes as infinite"),
        ({"y": np.full(240, np.nan)}, r"type float64; expected one whole number"),
        ({"y": np.full(240, 3)}, r"row 0 is 3; expected 0 to 2"),
        ({"names": ["a[0]", *"bcdefghijkl"]}, r"refused or changed by a booster"),
        ({"X": np.zeros((0, 12)), "y": np.zeros(0, int)}, r"expected at least one value"),
    ],
    ids=["kind", "infinite", "nan labels", "label", "names", "empty"],
)
def test_input_that_a_library_would_take_in_silence_is_refused(options, message, bin_up):
    with pytest.raises(ValueError, match=message):
        bin_up(**({"kind": "lightgbm"} | options))


@pytest.mark.parametrize("kind", KINDS)
def test_the_cpu_is_there(kind):
    check_device(kind, "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_a_build_without_cuda_is_refused_in_one_sentence_and_nothing_else_is_said(kind, capfd):
    if _device_problem(kind, "cuda") is None:
        pytest.skip("this machine has a GPU and builds for it")

    with pytest.raises(ValueError, match=rf"^{kind} cannot fit on cuda here: .*device cpu\.$"):
        check_device(kind, "cuda")
    assert capfd.readouterr() == ("", "")


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="Unknown device 'tpu'; choose 'cpu' or 'cuda'"):
        check_device("lightgbm", "tpu")


@pytest.mark.parametrize(("kind", "name"), [("lightgbm", "device_type"), ("xgboost", "device")])
def test_the_device_reaches_the_library(kind, name, bin_up, monkeypatch):
    seen = {}
    library, error = {
        "lightgbm": (libraries.lgb, libraries.lgb.basic.LightGBMError),
        "xgboost": (libraries.xgb, libraries.xgb.core.XGBoostError),
    }[kind]
    data = bin_up(kind)

    def refuse(settings, *_):
        seen.update(settings)
        raise error("seen")

    monkeypatch.setattr(library, "Booster", refuse)
    with pytest.raises(BoosterError, match="seen"):
        fit(replace(data, device="cuda"))

    assert seen[name] == "cuda"
