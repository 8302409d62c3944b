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

from toolkit.validation.metrics import METRICS
from toolkit.validation.predictions import format_predictions
from toolkit.validation.scores import (
    _KINDS,
    Score,
    _jackknife_half_width,
    _mean_interval,
    find_score,
    jackknife_interval,
    score_predictions,
)

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


@pytest.mark.parametrize("unit", ["speaker", "session"])
def test_a_pooled_score_leaves_out_each_unit_for_its_interval(table, scores, unit):
    groups = table.groups(unit)
    names = np.unique(groups)
    left_out = np.array([macro_f1(table, groups != name) for name in names])
    n = len(names)
    spread = np.sum((left_out - left_out.mean()) ** 2)
    half = stats.t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * spread)
    theta = macro_f1(table, slice(None))

    score = find_score(scores, "system1", "f1_macro", kind=f"{unit} jackknife t")

    assert_allclose([score.value, score.low, score.high], [theta, theta - half, theta + half])
    assert score.method == f"{unit} jackknife t ({n} {unit}s)"
    assert score.n == 160


@pytest.mark.parametrize("metric", METRICS)
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


def test_without_sessions_only_speakers_are_the_unit(make_predictions):
    scores = score_predictions(make_predictions(sessions=None))

    assert {score.kind for score in scores} == set(_KINDS) - {"session jackknife t"}


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


def test_a_class_interval_leaves_out_each_speaker(table, scores):
    left_out = np.array(
        [
            reference.recall_score(table.labels[rows], table.y_pred[rows], average=None)[1]
            for rows in (table.speakers != name for name in np.unique(table.speakers))
        ]
    )
    half = stats.t.ppf(0.975, 9) * np.sqrt(0.9 * np.sum((left_out - left_out.mean()) ** 2))

    score = find_score(scores, "system1", "recall", scope="class", group="joy")

    assert_allclose((score.low, score.high), (score.value - half, score.value + half))


def test_calibration_stands_beside_that_of_a_perfect_system_and_only_pooled(scores):
    ece = [score for score in scores if score.metric.startswith("ece")]

    assert {score.scope for score in ece} == {"all", "present"}
    perfect = find_score(scores, "system1", "ece_perfect")
    assert perfect.method == "perfect calibration (200 draws)"
    assert 0 < perfect.low < perfect.value < perfect.high < 1


def test_a_system_that_never_saw_anything_has_no_scores_on_present_rows(make_predictions):
    scores = score_predictions(make_predictions(present=np.zeros(120, dtype=bool)))

    assert {score.scope for score in scores} == {"all", "fold", "speaker", "class"}


def test_no_two_scores_say_they_are_the_same(scores):
    keys = [(s.system, s.metric, s.scope, s.group, s.kind) for s in scores]

    assert len(set(keys)) == len(keys)
    assert {score.kind for score in scores} == set(_KINDS)


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
SIZES = np.array([40.0, 400, 90, 120, 60, 210])


def pooled_without(values, sizes):
    keep = ~np.eye(len(values), dtype=bool)
    return np.array([np.average(values[k], weights=sizes[k]) for k in keep])


def test_the_jackknife_of_a_mean_is_the_t_interval():
    left_out = pooled_without(VALUES, np.ones(6))
    expected = stats.t.interval(0.95, 5, VALUES.mean(), stats.sem(VALUES))

    assert_allclose(jackknife_interval(VALUES.mean(), left_out), expected)


def test_the_jackknife_of_a_pooled_value_follows_its_formula():
    left_out = pooled_without(VALUES, SIZES)
    theta = np.average(VALUES, weights=SIZES)
    spread = sum((value - left_out.mean()) ** 2 for value in left_out)
    half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * spread)

    assert_allclose(jackknife_interval(theta, left_out), (theta - half, theta + half))


def test_half_widths_of_a_stack_are_those_of_each():
    stack = np.stack([pooled_without(VALUES, SIZES), pooled_without(VALUES, np.ones(6))])

    assert_allclose(_jackknife_half_width(stack), [_jackknife_half_width(row) for row in stack])


def test_fewer_than_five_units_give_no_jackknife_interval():
    assert jackknife_interval(0.5, VALUES[:4]) == (None, None)
    assert None not in jackknife_interval(0.5, VALUES[:5])


def test_intervals_stay_within_the_range_of_what_they_describe():
    assert jackknife_interval(0.5, VALUES, low=0.4, high=0.6) == (0.4, 0.6)
    assert _mean_interval([0.0, 1.0], low=0, high=1) == (0.0, 1.0)


def test_the_mean_over_units_has_the_plain_t_interval():
    expected = stats.t.interval(0.95, 5, VALUES.mean(), stats.sem(VALUES))

    assert_allclose(_mean_interval(VALUES, low=0, high=1), expected)


def test_a_single_unit_gives_no_interval():
    assert _mean_interval([0.5], low=0, high=1) == (None, None)


def test_ends_are_floats_even_where_the_range_clips():
    ends = jackknife_interval(0.5, VALUES, low=0, high=1)

    assert [type(end) for end in ends] == [float, float]


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_equal_units_have_an_interval_of_no_width(shift):
    value = 0.5 + shift

    assert jackknife_interval(value, np.full(8, value)) == (value, value)
