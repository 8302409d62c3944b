"""Scores have the columns of the contract, and intervals follow their formulas."""

import io
import json
from dataclasses import asdict, fields

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn import metrics as reference

from toolkit.validation.metrics import METRICS, perfect_calibration_errors
from toolkit.validation.predictions import format_predictions
from toolkit.validation.scores import (
    Score,
    _bounded_interval,
    _degrees_of_freedom,
    _mean_interval,
    find_score,
    jackknife_interval,
    score_predictions,
)

KINDS = {
    *("speaker jackknife t", "session jackknife t", "perfect calibration", "value"),
    *("mean over folds", "sd over folds", "speaker mean t"),
}

LOCAL = [name for name, metric in METRICS.items() if metric.local is not None]


@pytest.fixture(scope="module")
def table(make_predictions):
    decided = np.random.default_rng(8).integers(0, 3, 160)
    return make_predictions(
        n=160, n_speakers=10, folds=np.arange(160) % 10 // 2, y_pred=decided
    )


@pytest.fixture(scope="module")
def scores(table):
    return score_predictions(table)


def in_scope(scores, scope, metric, kind="value"):
    return {
        score.group: score
        for score in scores
        if (score.scope, score.metric, score.kind) == (scope, metric, kind)
    }


def macro_f1(table, rows):
    labels, given = table.labels[rows], table.y_pred[rows]
    return reference.f1_score(labels, given, labels=range(3), average="macro", zero_division=0)


def test_a_score_has_the_columns_of_the_contract():
    columns = "system,metric,scope,group,value,low,high,method,n"

    assert ",".join(field.name for field in fields(Score)) == columns


SIZES = np.array([40, 12, 9, 4, 31, 6, 18, 15, 22, 3])


@pytest.fixture(scope="module")
def unequal(make_predictions):
    """A system of ten speakers of very different size, in five sessions."""
    numbers = np.repeat(np.arange(10), SIZES)
    return make_predictions(
        n=160,
        speakers=np.array([f"P{k}" for k in numbers]),
        sessions=np.array([f"S{k // 2}" for k in numbers]),
        y_pred=np.random.default_rng(8).integers(0, 3, 160),
    )


def degrees_of_freedom(sizes):
    effective = np.sum(sizes) ** 2 / np.sum(np.square(sizes))
    return np.sqrt((len(sizes) - 1) * (effective - 1))


def half_width(left_out, sizes):
    n = len(sizes)
    spread = np.sum((left_out - np.mean(left_out)) ** 2)
    return stats.t.ppf(0.975, degrees_of_freedom(sizes)) * np.sqrt((n - 1) / n * spread)


def log_odds(p):
    return np.log(p / (1 - p))


def from_log_odds(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("unit", ["speaker", "session"])
def test_a_pooled_score_leaves_out_each_unit_on_the_logit(unequal, unit):
    groups = unequal.groups(unit)
    names, sizes = np.unique(groups, return_counts=True)
    left_out = np.array([macro_f1(unequal, groups != name) for name in names])
    theta = macro_f1(unequal, slice(None))
    half = half_width(log_odds(left_out), sizes)
    n, degrees = len(names), degrees_of_freedom(sizes)

    score = find_score(
        score_predictions(unequal), "system1", "f1_macro", kind=f"{unit} jackknife t"
    )

    ends = from_log_odds(log_odds(theta) + half * np.array([-1, 1]))
    assert_allclose([score.value, score.low, score.high], [theta, *ends])
    assert degrees < n - 1
    assert score.method == (
        f"{unit} jackknife t ({n} {unit}s, {degrees:.1f} degrees of freedom, on the logit)"
    )
    assert score.n == 160


def test_mcc_has_the_interval_of_fishers_z(unequal):
    names = np.unique(unequal.speakers)
    theta, *left_out = (
        reference.matthews_corrcoef(unequal.labels[rows], unequal.y_pred[rows])
        for rows in [slice(None), *(unequal.speakers != name for name in names)]
    )
    half = half_width(np.arctanh(left_out), SIZES)

    score = find_score(score_predictions(unequal), "system1", "mcc")

    ends = np.tanh(np.arctanh(theta) + half * np.array([-1, 1]))
    assert_allclose([score.low, score.high], ends)
    assert score.method.endswith("degrees of freedom, on Fisher's z)")


def test_losses_have_the_plain_interval(unequal):
    row_loss = -np.log(unequal.proba[np.arange(160), unequal.labels])
    names = np.unique(unequal.speakers)
    left_out = np.array([row_loss[unequal.speakers != name].mean() for name in names])
    half = half_width(left_out, SIZES)

    score = find_score(score_predictions(unequal), "system1", "log_loss")

    assert_allclose([score.low, score.high], row_loss.mean() + half * np.array([-1, 1]))
    assert score.method.endswith("degrees of freedom)")


@pytest.mark.parametrize("metric", LOCAL)
@pytest.mark.parametrize("scope", ["all", "present"])
def test_every_metric_is_pooled_with_intervals_over_speakers_and_sessions(
    table, scores, scope, metric
):
    rows = table.present if scope == "present" else np.ones(160, dtype=bool)
    expected = METRICS[metric].compute(
        table.labels[rows], table.proba[rows], table.y_pred[rows]
    )

    first, second = [s for s in scores if (s.scope, s.metric) == (scope, metric)]

    assert (first.kind, second.kind) == ("speaker jackknife t", "session jackknife t")
    assert first.value == second.value == expected
    assert METRICS[metric].low <= first.low < first.value < first.high <= METRICS[metric].high
    assert first.n == second.n == rows.sum()


@pytest.mark.parametrize(
    ("metric", "right"),
    [("f1_micro", 1), ("uar", 1), ("mcc", 1), ("f1_micro", 0), ("f1_weighted", 0)],
)
def test_a_score_at_its_end_has_a_bound(unequal, make_predictions, metric, right):
    given = unequal.labels if right else (unequal.labels + 1) % 3
    table = make_predictions(n=160, speakers=unequal.speakers, sessions=None, y_pred=given)
    effective = 160**2 / np.sum(np.square(SIZES))
    low = METRICS[metric].low
    bound = low + 0.025 ** (1 / effective) * (1 - low)

    score = find_score(score_predictions(table), "system1", metric)

    expected = (1, bound, 1) if right else (0, 0, 1 - bound)
    assert (score.value, score.low, score.high) == pytest.approx(expected)
    assert score.method == (
        f"speaker jackknife t (10 speakers, a bound, {effective:.1f} of equal size)"
    )


def test_without_sessions_only_speakers_are_the_unit(make_predictions):
    scores = score_predictions(make_predictions(sessions=None))

    assert {s.kind for s in scores} == KINDS - {"session jackknife t"}


def test_fewer_than_five_speakers_have_no_interval_and_this_is_said(make_predictions):
    scores = score_predictions(make_predictions(n_speakers=4))

    score = find_score(scores, "system1", "uar")
    assert (score.low, score.high) == (None, None)
    assert score.method == "speaker jackknife t (4 speakers: no interval below 5)"


def test_a_single_speaker_is_scored_without_a_warning(make_predictions):
    scores = score_predictions(make_predictions(n_speakers=1))

    assert find_score(scores, "system1", "f1_micro", scope="speaker", group="P00").n == 120
    summary = find_score(scores, "system1", "f1_micro", scope="speaker")
    assert (summary.low, summary.n) == (None, 1)
    assert "sd over folds" not in {score.kind for score in scores}


@pytest.mark.parametrize("metric", LOCAL)
def test_folds_have_values_a_mean_and_a_sample_deviation(scores, metric):
    values = [score.value for score in in_scope(scores, "fold", metric).values()]

    assert list(in_scope(scores, "fold", metric)) == ["00", "01", "02", "03", "04"]
    mean = find_score(scores, "system1", metric, scope="fold", kind="mean over folds")
    deviation = find_score(scores, "system1", metric, scope="fold", kind="sd over folds")
    assert_allclose([mean.value, deviation.value], [np.mean(values), np.std(values, ddof=1)])
    assert (mean.n, mean.low, deviation.n, deviation.high) == (5, None, 5, None)


@pytest.mark.parametrize("metric", LOCAL)
def test_speakers_have_values_and_their_mean_a_plain_t_interval(table, scores, metric):
    speakers = in_scope(scores, "speaker", metric)
    values = [score.value for score in speakers.values()]

    assert list(speakers) == np.unique(table.speakers).tolist()
    assert all(score.n == 16 for score in speakers.values())
    mean = find_score(scores, "system1", metric, scope="speaker")
    expected = stats.t.interval(0.95, 9, np.mean(values), stats.sem(values))
    assert_allclose(
        (mean.low, mean.high), np.clip(expected, METRICS[metric].low, METRICS[metric].high)
    )
    assert (mean.method, mean.n) == ("speaker mean t (10 speakers)", 10)


def test_a_speaker_is_not_punished_for_classes_that_he_never_shows(make_predictions):
    labels, given = np.array([0, 0, 2, 2, 0, 1]), np.array([0, 1, 2, 0, 0, 1])
    table = make_predictions(n=6, n_speakers=2, labels=labels, y_pred=given)

    scores = score_predictions(table)  # P00: labels 0 2 0, given 0 2 0; P01: 0 2 1, given 1 0 1

    first = find_score(scores, "system1", "uar", scope="speaker", group="P00")
    second = find_score(scores, "system1", "f1_macro", scope="speaker", group="P01")
    assert (first.value, first.method) == (1.0, "value (2 of 3 classes present)")
    assert second.value == pytest.approx((0 + 2 / 3 + 0) / 3)
    assert second.method == "value (3 of 3 classes present)"
    accuracy = find_score(scores, "system1", "f1_micro", scope="speaker", group="P00")
    assert accuracy.method == "value"


def test_classes_have_recall_precision_and_f1(table, scores):
    expected = reference.precision_recall_fscore_support(
        table.labels, table.y_pred, labels=range(3), zero_division=0
    )

    for name, values in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        found = in_scope(scores, "class", name, kind="speaker jackknife t")
        assert list(found) == list(table.classes)
        assert_allclose([score.value for score in found.values()], values)
        assert [score.n for score in found.values()] == expected[3].tolist()


@pytest.mark.parametrize("metric", ["recall", "precision", "f1"])
def test_a_class_interval_leaves_out_each_speaker_on_the_logit(unequal, metric):
    compute = getattr(reference, f"{metric}_score")
    names = np.unique(unequal.speakers)
    theta, *left_out = (
        compute(unequal.labels[rows], unequal.y_pred[rows], average=None)[1]
        for rows in [slice(None), *(unequal.speakers != name for name in names)]
    )
    true, given = (
        np.array([np.sum(codes[unequal.speakers == name] == 1) for name in names])
        for codes in (unequal.labels, unequal.y_pred)
    )
    sizes = {"recall": true, "precision": given, "f1": (true + given) / 2}[metric]
    half = half_width(log_odds(np.array(left_out)), sizes)

    score = find_score(
        score_predictions(unequal), "system1", metric, scope="class", group="joy"
    )

    assert (sizes > 0).all()
    ends = from_log_odds(log_odds(theta) + half * np.array([-1, 1]))
    assert_allclose((score.value, score.low, score.high), (theta, *ends))


def test_speakers_without_a_class_do_not_count_in_its_interval(make_predictions):
    # Of seven speakers with 20 rows each, two never show class 0; class 2 is that of two.
    labels = np.repeat([0, 0, 0, 0, 0, 2, 2], 20)
    labels[::2] = 1
    speakers = np.repeat([f"P{k}" for k in range(7)], 20)
    given = np.where(np.random.default_rng(4).random(140) < 0.7, labels, 1)
    table = make_predictions(n=140, labels=labels, y_pred=given, speakers=speakers)
    hits = np.array([np.sum((given == 0)[speakers == f"P{k}"]) for k in range(5)])
    left_out = (hits.sum() - hits) / 40
    half = half_width(log_odds(left_out), [10] * 5)

    scores = score_predictions(table)

    first = find_score(scores, "system1", "recall", scope="class", group="anger")
    ends = from_log_odds(log_odds(hits.sum() / 50) + half * np.array([-1, 1]))
    assert_allclose((first.low, first.high), ends)
    assert first.method.startswith("speaker jackknife t (5 speakers, 4.0 degrees of freedom")
    third = find_score(scores, "system1", "recall", scope="class", group="neutral")
    assert (third.low, third.high) == (None, None)
    assert third.method == "speaker jackknife t (2 speakers: no interval below 5)"


def test_a_class_that_nothing_has_or_gets_is_no_error(make_predictions):
    labels = np.arange(120) // 6 % 2
    scores = score_predictions(make_predictions(labels=labels, y_pred=1 - labels))

    found = find_score(scores, "system1", "precision", scope="class", group="neutral")
    assert (found.value, found.low, found.n) == (0, None, 0)
    assert found.method == "speaker jackknife t (0 speakers: no interval below 5)"


def test_calibration_stands_beside_that_of_a_perfect_system_and_only_pooled(table, scores):
    rows = [score for score in scores if score.metric.startswith("ece")]
    assert [(score.scope, score.metric) for score in rows] == [
        (scope, name)
        for scope in ("all", "present")
        for name in ("ece", "ece_perfect", "ece_excess", "ece_p")
    ]
    draws = perfect_calibration_errors(table.proba)

    error, perfect, excess, p = rows[:4]

    assert error.value == METRICS["ece"].compute(table.labels, table.proba, table.y_pred)
    assert (error.low, error.high, error.method) == (None, None, "value")
    assert perfect.value == pytest.approx(draws.mean())
    assert (perfect.low, perfect.high) == pytest.approx(
        tuple(np.quantile(draws, [0.025, 0.975]))
    )
    assert excess.value == pytest.approx(error.value - draws.mean())
    assert p.value == pytest.approx((1 + np.sum(draws >= error.value)) / 201)
    assert {score.method for score in rows[1:4]} == {"perfect calibration (200 draws)"}
    assert (excess.low, p.low) == (None, None)


def test_an_overconfident_system_differs_from_a_calibrated_one(make_predictions):
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 800)
    labels = (rng.random(800) > confidence).astype(int)  # right as often as it is confident
    fair = np.column_stack([confidence, 1 - confidence, np.zeros(800)])
    bold = np.column_stack([0.5 + confidence / 2, (1 - confidence) / 2, np.zeros(800)])

    found = [
        score_predictions(make_predictions(n=800, labels=labels, proba=proba))
        for proba in (fair, bold)
    ]

    p = [find_score(scores, "system1", "ece_p").value for scores in found]
    excess = [find_score(scores, "system1", "ece_excess").value for scores in found]
    assert p[0] > 0.05
    assert p[1] == 1 / 201
    assert excess[1] > 0.1
    assert abs(excess[0]) < 0.03


@pytest.mark.parametrize("n", [60, 133, 500])
def test_an_error_of_rounding_alone_is_no_error(make_predictions, n):
    # Confident exactly as often as right: every draw is at least as far off.
    labels = np.random.default_rng(n).integers(0, 3, n)
    proba = np.tile(np.bincount(labels) / n, (n, 1))

    scores = score_predictions(make_predictions(n=n, labels=labels, proba=proba))

    assert find_score(scores, "system1", "ece").value < 1e-12
    assert find_score(scores, "system1", "ece_p").value == 1


def test_a_system_that_never_saw_anything_has_no_scores_on_present_rows(make_predictions):
    scores = score_predictions(make_predictions(present=np.zeros(120, dtype=bool)))

    assert {score.scope for score in scores} == {"all", "fold", "speaker", "class"}


def test_no_two_scores_say_they_are_the_same(scores):
    keys = [(s.system, s.metric, s.scope, s.group, s.kind) for s in scores]

    assert len(set(keys)) == len(keys)
    assert {s.kind for s in scores} == KINDS


def test_scores_are_plain_numbers_that_survive_json(scores):
    records = [asdict(score) for score in scores]

    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert {type(score.value) for score in scores} == {float}
    assert {type(score.n) for score in scores} == {int}


def test_the_order_of_speakers_names_does_not_matter(table, make_predictions):
    renamed = make_predictions(
        n=160,
        n_speakers=10,
        folds=table.folds,
        y_pred=table.y_pred,
        speakers=np.array([f"X{99 - int(name[1:])}" for name in table.speakers]),
    )

    ours = find_score(score_predictions(table), "system1", "f1_macro")
    theirs = find_score(score_predictions(renamed), "system1", "f1_macro")

    assert_allclose((ours.low, ours.high), (theirs.low, theirs.high), rtol=1e-12)


def test_a_score_that_is_not_there_is_named(scores):
    with pytest.raises(KeyError, match="No score of 'system1' has metric 'auc'"):
        find_score(scores, "system1", "auc")


def test_ten_lines_over_the_file_give_every_pooled_score(table, scores):
    text = format_predictions(table)

    t = pd.read_csv(io.StringIO(text), dtype={"fold": str})
    names = [c[2:] for c in t if c.startswith("p_")]
    p = t[[f"p_{name}" for name in names]].to_numpy()
    y, z = (t[c].map(names.index).to_numpy() for c in ("label", "predicted"))
    q = np.maximum(p, 1e-6) / np.maximum(p, 1e-6).sum(axis=1, keepdims=True)
    by_hand = {
        **{
            f"f1_{a}": reference.f1_score(y, z, average=a)
            for a in ("micro", "macro", "weighted")
        },
        "uar": reference.balanced_accuracy_score(y, z),
        "mcc": reference.matthews_corrcoef(y, z),
        "log_loss": reference.log_loss(y, q),
        "brier": ((p - np.eye(len(names))[y]) ** 2).sum(axis=1).mean(),
    }
    by_fold = {fold: (part.label == part.predicted).mean() for fold, part in t.groupby("fold")}

    for name, value in by_hand.items():
        assert find_score(scores, "system1", name).value == pytest.approx(value, rel=1e-12)
    found = {
        group: score.value for group, score in in_scope(scores, "fold", "f1_micro").items()
    }
    assert found == pytest.approx(by_fold, rel=1e-12)


VALUES = np.array([0.31, 0.52, 0.48, 0.77, 0.60, 0.55])
WEIGHTS = np.array([40.0, 400, 90, 120, 60, 210])
EQUAL = np.full(6, 50.0)


def pooled_without(values, sizes):
    keep = ~np.eye(len(values), dtype=bool)
    return np.array([np.average(values[k], weights=sizes[k]) for k in keep])


def test_the_jackknife_of_a_mean_is_the_t_interval():
    left_out = pooled_without(VALUES, EQUAL)
    expected = stats.t.interval(0.95, 5, VALUES.mean(), stats.sem(VALUES))

    assert_allclose(jackknife_interval(VALUES.mean(), left_out, EQUAL), expected)


def test_the_jackknife_of_a_pooled_value_follows_its_formula():
    left_out = pooled_without(VALUES, WEIGHTS)
    theta = np.average(VALUES, weights=WEIGHTS)
    spread = sum((value - left_out.mean()) ** 2 for value in left_out)
    # (sum n)^2 / sum n^2 = 920^2 / 231,800 = 3.651; sqrt(5 x 2.651) = 3.641
    half = stats.t.ppf(0.975, 3.6409) * np.sqrt(5 / 6 * spread)

    found = jackknife_interval(theta, left_out, WEIGHTS)

    assert_allclose(found, (theta - half, theta + half), rtol=1e-4)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([7] * 10, 9.0),  # of equal groups one less than there are
        ([100, 10, 10, 10, 10, 10], 2.3905),  # 150^2 / 10,500 = 2.1429; sqrt(5 x 1.1429)
    ],
)
def test_degrees_of_freedom_lie_between_the_number_and_the_effective_number(sizes, expected):
    n, effective = len(sizes), sum(sizes) ** 2 / sum(size**2 for size in sizes)

    found = _degrees_of_freedom(np.array(sizes, dtype=float))

    assert found == pytest.approx(expected, abs=1e-4)
    assert effective - 1 <= found * (1 + 1e-12)
    assert found <= n - 1


def test_the_bounded_interval_is_the_plain_one_of_log_odds():
    left_out = pooled_without(VALUES, WEIGHTS)
    theta = np.average(VALUES, weights=WEIGHTS)

    found = _bounded_interval(theta, left_out, WEIGHTS)

    plain = jackknife_interval(log_odds(theta), log_odds(left_out), WEIGHTS)
    assert_allclose(log_odds(np.array(found)), plain)
    assert 0 < found[0] < theta < found[1] < 1


def test_log_odds_reach_further_towards_the_middle():
    left_out = [0.96, 0.97, 0.955, 0.965, 0.95, 0.985]

    low, high = _bounded_interval(0.964, left_out, EQUAL)

    assert 0.964 - low > high - 0.964
    mirrored = _bounded_interval(1 - 0.964, 1 - np.array(left_out), EQUAL)
    assert_allclose(mirrored, (1 - high, 1 - low))


def test_scores_are_moved_half_an_utterance_from_their_ends():
    # One speaker of 50 has the only mistake: without it the rest is right.
    left_out = np.array([1.0, *[249 / 250] * 5])
    moved = log_odds(np.array([1 - 0.5 / 300, *[249 / 250] * 5]))
    theta = log_odds(299 / 300)
    half = half_width(moved, EQUAL)

    found = _bounded_interval(299 / 300, left_out, EQUAL)

    assert_allclose(found, from_log_odds(np.array([theta - half, theta + half])))
    assert found[1] < 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1)])
def test_a_value_at_an_end_has_the_bound_of_as_many_equal_groups(low, high):
    effective = 920**2 / np.sum(WEIGHTS**2)
    bound = 0.025 ** (1 / effective)  # as many groups, all right: p^n = .025
    width = high - low

    top = _bounded_interval(high, np.full(6, high), WEIGHTS, low=low, high=high)
    bottom = _bounded_interval(low, np.full(6, low), WEIGHTS, low=low, high=high)

    assert_allclose(top, (low + bound * width, high))
    assert_allclose(bottom, (low, high - bound * width))
    assert _bounded_interval(1, np.ones(10), np.full(10, 7))[0] == pytest.approx(
        stats.beta.ppf(0.025, 10, 1)  # Clopper and Pearson of 10 of 10
    )


@pytest.mark.parametrize("find", [jackknife_interval, _bounded_interval])
def test_groups_without_utterances_do_not_count(find):
    theta = np.average(VALUES, weights=WEIGHTS)
    left_out = pooled_without(VALUES, WEIGHTS)
    expected = find(theta, left_out, WEIGHTS)

    found = find(theta, [theta, *left_out, theta], [0, *WEIGHTS, 0])

    assert found == expected
    assert find(0.5, [0.4, 0.5, 0.6, 0.5, 0.5, 0.5], [3, 4, 5, 6, 0, 0]) == (None, None)


@pytest.mark.parametrize("largest", [1e3, 1e6, 1e9])
def test_nearly_all_rows_in_one_group_give_no_nan(largest):
    sizes = [largest, 1, 1, 1, 1]
    for value, left_out in [
        (0.5, [0.5] * 5),
        (0.5, [0.2, 0.5, 0.5, 0.5, 0.5001]),
        (1.0, [1.0] * 5),
    ]:
        for low, high in (
            jackknife_interval(value, left_out, sizes, low=0, high=1),
            _bounded_interval(value, left_out, sizes),
        ):
            assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize("find", [jackknife_interval, _bounded_interval])
def test_fewer_than_five_units_give_no_jackknife_interval(find):
    assert find(0.5, VALUES[:4], EQUAL[:4]) == (None, None)
    assert find(1.0, [1.0] * 4, EQUAL[:4]) == (None, None)
    assert None not in find(0.5, VALUES[:5], EQUAL[:5])


def test_intervals_stay_within_the_range_of_what_they_describe():
    assert jackknife_interval(0.5, VALUES, EQUAL, low=0.4, high=0.6) == (0.4, 0.6)
    assert _mean_interval([0.0, 1.0], low=0, high=1) == (0.0, 1.0)


def test_the_mean_over_units_has_the_plain_t_interval():
    expected = stats.t.interval(0.95, 5, VALUES.mean(), stats.sem(VALUES))

    assert_allclose(_mean_interval(VALUES, low=0, high=1), expected)


def test_a_single_unit_gives_no_interval():
    assert _mean_interval([0.5], low=0, high=1) == (None, None)


def test_ends_are_floats_even_where_the_range_clips():
    ends = [
        *jackknife_interval(0.5, VALUES, EQUAL, low=0, high=1),
        *_bounded_interval(0.5, VALUES, EQUAL),
        *_bounded_interval(1, np.ones(6), EQUAL),
    ]

    assert {type(end) for end in ends} == {float}


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_equal_units_have_an_interval_of_no_width(shift):
    value = 0.5 + shift

    assert jackknife_interval(value, np.full(6, value), EQUAL) == (value, value)
    assert _bounded_interval(0.5, np.full(6, 0.5), WEIGHTS) == (0.5, 0.5)
