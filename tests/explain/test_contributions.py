"""Contributions by the fast path against the definition and the boosters' own."""

import re
import tracemalloc

import lightgbm as lgb
import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.explain import Explainer, Totals, centre
from toolkit.explain.contributions import ExplanationError, _sort_functionals, family_of
from toolkit.explain.trees import Forest, _gauss_legendre
from toolkit.explain.treeshap import LANES
from toolkit.models import FittedBooster


def test_contributions_are_the_shapley_values_of_the_trees(booster, rows, by_hand):
    X = rows[0][:6]
    trees = by_hand.read_trees(booster)
    n_trained = len(booster.classes)

    shares = Explainer.of(booster).explain(X)

    for row, found in zip(X, shares, strict=True):
        for c in range(n_trained):

            def value(known, row=row, c=c):
                return sum(by_hand.expect(tree, row, known) for tree in trees[c::n_trained])

            assert_allclose(found[c, :5], by_hand.shapley(value, 5), atol=1e-12)


def test_contributions_equal_the_boosters_own_and_add_up(booster, rows):
    X = rows[0]
    shares = Explainer.of(booster).explain(X)
    own = booster.contributions(X)

    tolerance = 1e-10 if booster.kind == "lightgbm" else 1e-5
    assert_allclose(shares, own, rtol=0, atol=tolerance)
    odds = np.exp(shares.sum(axis=2)[:, :3])
    proba = odds / odds.sum(axis=1, keepdims=True)
    assert_allclose(proba, booster.predict_proba(X)[:, :3], rtol=0, atol=tolerance)


def test_features_meet_twice_on_a_path_in_the_trees_compared(booster, by_hand):
    def longest(node, seen=()):
        if "leaf" in node:
            return len(seen) - len(set(seen))
        return max(longest(child, (*seen, node["feature"])) for child in node["children"])

    assert max(longest(tree) for tree in by_hand.read_trees(booster)) >= 2


def test_three_points_of_quadrature_integrate_the_fifth_power():
    points, weights = _gauss_legendre(3)

    assert_allclose((weights[2] * points[2] ** 5).sum(), 1 / 6)


def test_a_statistic_of_ones_own_is_its_own_family():
    assert [family_of(name) for name in ("delta_std", "energy")] == ["change", "energy"]


EGEMAPS = {
    # eGeMAPS, ComParE and emobase as openSMILE names them
    "F0semitoneFrom27.5Hz_sma3nz_percentile20.0": "pitch: percentile20.0",
    "F0final_sma_de_linregc2": "pitch: linregc2",
    "F1frequency_sma3nz_amean": "formants: amean",
    "F3amplitudeLogRelF0_sma3nz_stddevNorm": "formants: stddevNorm",
    "shimmerLocaldB_sma3nz_amean": "voice quality: amean",
    "logHNR_sma_iqr1-2": "voice quality: iqr1-2",
    "HNRdBACF_sma3nz_amean": "voice quality: amean",
    "voicingFinalUnclipped_sma_de_stddev": "voice quality: stddev",
    "loudness_sma3_pctlrange0-2": "energy: pctlrange0-2",
    "audspecRasta_lengthL1norm_sma_lpc0": "energy: lpc0",
    "pcm_RMSenergy_sma_range": "energy: range",
    "pcm_zcr_sma_amean": "energy: amean",
    "equivalentSoundLevel_dBp": "energy: value",
    "audSpec_Rfilt_sma_de[14]_skewness": "spectrum: skewness",
    "pcm_fftMag_spectralRollOff25.0_sma_de_lpc3": "spectrum: lpc3",
    "mfcc_sma[10]_minPos": "spectrum: minPos",
    "hammarbergIndexUV_sma3nz_amean": "spectrum: amean",
    "logRelF0-H1-A3_sma3nz_amean": "spectrum: amean",
    "MeanUnvoicedSegmentLength": "rate: value",
    "loudnessPeaksPerSec": "rate: value",
    "duration": "other: value",
}


def test_functionals_of_opensmile_have_family_and_functional():
    assert dict(zip(EGEMAPS, _sort_functionals([*EGEMAPS]), strict=True)) == EGEMAPS
    assert family_of("voice quality: amean") == "voice quality"
    # Others stay one family, also beside a few of openSMILE.
    assert _sort_functionals(["pitch", "F0 mean", "slope", "jitterLocal_sma3nz_amean"]) == ()


def test_parts_of_functionals_add_up_to_the_contributions(train, rows):
    names = [f"audio__value__{k:04d}" for k in range(4)] + ["text__value__0000"]
    booster, X = train("lightgbm", names=names), rows[0][:7]
    named = ["F0_sma_amean", "F0_sma_max", "mfcc_sma[1]_max", "jitterLocal_sma_max"]
    explainer = Explainer.of(booster, {"audio": named, "text": ["a"]})

    totals, every = explainer.total(X), explainer.explain(X)
    assert totals.parts == (
        *(("audio", "pitch: amean"), ("audio", "pitch: max"), ("audio", "spectrum: max")),
        *(("audio", "voice quality: max"), ("text", "value")),
    )
    assert_allclose(totals.signed, every[:, :, :-1])


def test_a_class_without_training_rows_has_no_margin(booster, rows):
    shares = Explainer.of(booster).explain(rows[0])

    assert booster.classes == (0, 1, 2)
    assert not shares[:, 3].any()


@pytest.mark.parametrize("n_rows", [1, LANES, LANES + 1, 300])
def test_blocks_give_every_row_as_it_is_alone(booster, rows, n_rows):
    X = rows[0][:n_rows]
    explainer = Explainer.of(booster)

    blocks = [(block.rows, block.values.copy()) for block in explainer.blocks(X)]

    assert sum(part.stop - part.start for part, _ in blocks) == n_rows
    last, shares = blocks[-1]
    alone = explainer.explain(X[-1:])[0]
    assert_allclose(shares[:, :, last.stop - last.start - 1], alone[:3, explainer.columns])
    assert not shares[:, :, last.stop - last.start :].any()


def test_a_single_leaf_and_a_single_split_are_explained(kind, train):
    stumps = {"lightgbm": {"num_leaves": 2}, "xgboost": {"max_depth": 1}}
    booster = train(kind, params=stumps[kind], n_rounds=3)

    assert Explainer.of(booster).check(np.zeros((4, 5))) <= 1e-6


def test_missing_values_follow_zero_where_none_were_seen_in_training(kind, train, rows):
    X = np.nan_to_num(rows[0])
    booster = train(kind, X=X)
    asked = X[:20].copy()
    asked[::2, :3] = np.nan

    shares = Explainer.of(booster).explain(asked)

    assert_allclose(shares, booster.contributions(asked), rtol=0, atol=1e-6)


def test_a_split_between_present_and_missing_values_is_explained(kind, train, rows):
    X = rows[0].copy()
    X[rows[1] == 1, :3] = np.nan
    booster = train(kind, X=X, params={})
    assert bool(re.search(rb"[= ]inf\b", booster.to_bytes())) == (kind == "lightgbm")
    X[::2, :3] = 1e30

    shares = Explainer.of(booster).explain(X)

    assert_allclose(shares, booster.contributions(X), rtol=0, atol=1e-6)


def test_values_at_a_threshold_go_where_the_booster_sends_them(kind, train):
    """Thresholds lie between float32 neighbours; both boosters meet them exactly."""
    booster = train(kind, n_rounds=12)
    forest = Forest.of(booster)
    X = np.zeros((40, 5), dtype=np.float32)
    inner = np.flatnonzero(forest.feature >= 0)[:40]
    for row, node in enumerate(inner):
        X[row, forest.feature[node]] = forest.threshold[node]
    above = np.nextafter(X, np.float32(np.inf))

    for asked in (X, above):
        shares = Explainer.of(booster).explain(asked)
        assert_allclose(shares, booster.contributions(asked), rtol=0, atol=1e-5)


def test_contributions_that_are_not_the_boosters_stop_the_run(booster, train, rows, kind):
    other = train(kind, n_rounds=5)
    wrong = Explainer.of(other)
    object.__setattr__(wrong, "booster", booster)

    with pytest.raises(ExplanationError, match=r"differ by .* from the booster's own"):
        wrong.check(rows[0])


@pytest.mark.parametrize(
    ("settings", "categories", "why"),
    [
        ({"min_data_per_group": 5}, [4], "categorical splits"),
        ({"zero_as_missing": True}, [], "zeros for missing values"),
    ],
)
def test_what_only_lightgbm_explains_is_left_to_it(rows, settings, categories, why):
    made, X = train_otherwise(rows, settings, categories)

    explainer = Explainer.of(made)

    assert why in explainer.reason
    if (
        why != "linear leaves"
    ):  # of which LightGBM itself gives contributions that do not add up
        assert explainer.check(X) == 0
    assert_allclose(explainer.explain(X), made.contributions(X), atol=1e-12)


def test_linear_leaves_are_refused_since_nobody_explains_them(rows):
    made, _ = train_otherwise(rows, {"linear_tree": True}, [])

    with pytest.raises(ValueError, match=r"linear leaves, .* train without linear_tree"):
        Explainer.of(made)


def train_otherwise(rows, settings, categories):
    """Train LightGBM by settings that the toolkit itself never uses."""
    X, y = np.nan_to_num(rows[0]), rows[1]
    X[:, 4] = np.round(np.abs(X[:, 4]) * 3)
    names = tuple(f"text__value__000{k}" for k in range(5))
    params = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    params |= settings
    data = lgb.Dataset(
        X, y, feature_name=list(names), categorical_feature=categories, params=params
    )
    model = lgb.train(params, data, num_boost_round=3)
    return FittedBooster("lightgbm", names, 3, (0, 1, 2), np.empty(0), model), X


PARTS = (("text", "value"), ("audio", "mean"), ("audio", "std"), ("visual", "slope"))
COLUMNS = {PARTS[0]: [0], PARTS[1]: [1, 3], PARTS[2]: [2], PARTS[3]: [4]}


def full(booster, X):
    """All contributions, as they are and centred over the classes trained on."""
    shares = Explainer.of(booster).explain(X)[:, :, :-1]
    centred = shares - shares[:, :3].mean(axis=1, keepdims=True)
    centred[:, 3] = 0
    return shares, centred


def test_totals_are_sums_of_the_full_contributions(booster, rows):
    X = rows[0][: 2 * LANES + 9]
    shares, centred = full(booster, X)

    totals = Explainer.of(booster).total(X)

    assert totals.parts == PARTS
    for index, part in enumerate(PARTS):
        columns = COLUMNS[part]
        assert_allclose(totals.signed[:, :, index], shares[:, :, columns].sum(2), atol=1e-12)
        sizes = np.abs(centred[:, :, columns]).sum(2)
        assert_allclose(totals.absolute[:, :, index], sizes, atol=1e-12)
    for column, name in enumerate(booster.names):
        assert_allclose(totals.of_feature[name], np.abs(centred[:, :, column]).sum(0))
    means = np.abs(centred[:, :, 1] + centred[:, :, 2]).sum(0)
    assert_allclose(totals.of_dimension["audio", 0], means)


def test_signed_totals_and_base_add_up_to_the_margin(booster, rows):
    totals = Explainer.of(booster).total(rows[0])

    margins = booster.contributions(rows[0]).sum(axis=2)
    assert_allclose(totals.signed.sum(axis=2) + totals.base, margins, atol=1e-5)


def test_centred_contributions_sum_to_zero_over_the_classes_trained_on():
    rng = np.random.default_rng(0)
    shares = rng.normal(size=(4, 3, 2))
    trained = np.array([[True, True, True]] * 2 + [[True, False, True], [False] * 3])
    shares[~trained] = 0

    centred = centre(shares, trained)

    assert_allclose(centred.sum(axis=1), 0, atol=1e-12)
    assert_allclose(centred[2, 0] - centred[2, 2], shares[2, 0] - shares[2, 2])
    assert not centred[~trained].any()


def test_models_with_other_features_are_joined_by_name(kind, train, rows):
    X = rows[0]
    first = train(kind)
    order = [3, 4, 0, 1, 2]
    names = tuple(first.names[column] for column in order)
    second = train(kind, X=X[:, order], names=names)
    halves = np.arange(0, 300, 2), np.arange(1, 300, 2)
    parts = [
        Explainer.of(first).total(X[halves[0]]),
        Explainer.of(second).total(X[halves[1]][:, order]),
    ]

    joined = Totals.join(parts, halves, 301)

    for part, columns in COLUMNS.items():
        index = joined.parts.index(part)
        expected = full(second, X[:, order])[0][1::2][:, :, [order.index(k) for k in columns]]
        assert_allclose(joined.signed[1:300:2, :, index], expected.sum(2), atol=1e-12)
    assert not joined.trained[300].any()
    own = [part.of_feature["text__value__0000"] for part in parts]
    assert_allclose(joined.of_feature["text__value__0000"], own[0] + own[1])


def test_memory_does_not_grow_with_rows_times_features(train):
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 100)
    peaks = {}
    for n_features in (200, 2000):
        X = rng.normal(size=(300, n_features)).astype(np.float32)
        X[np.arange(300), labels] += 2
        names = tuple(f"text__value__{k:04d}" for k in range(n_features))
        booster = train("lightgbm", X=X, names=names, n_rounds=4)
        many = np.tile(X, (10, 1))
        explainer = Explainer.of(booster)
        explainer.total(many[:70])
        tracemalloc.start()
        explainer.total(many)
        peaks[n_features] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peaks[2000] < 1.5 * peaks[200] + 1e6
    assert peaks[2000] < 3000 * 2000 * 3 * 8 / 10
