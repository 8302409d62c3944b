"""Shares of modalities and families, beside their values when labels mean nothing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.explain import Totals
from toolkit.explain.shares import compute_shares
from toolkit.validation import Predictions

PARTS = (("text", "value"), ("audio", "mean"), ("audio", "std"))


def make(signed, *, absolute=None, trained=None):
    n, n_classes, _ = signed.shape
    return Totals(
        parts=PARTS,
        signed=signed,
        absolute=np.abs(signed) if absolute is None else absolute,
        base=np.zeros((n, n_classes)),
        trained=np.ones((n, n_classes), dtype=bool) if trained is None else trained,
        of_feature={},
        of_dimension={},
    )


@pytest.fixture
def predictions():
    """Twelve utterances of six speakers, every second one wrong."""
    labels = np.arange(12) % 2
    decided = np.where(np.arange(12) % 4 < 2, labels, 1 - labels)
    return Predictions(
        system="early",
        classes=("calm", "tense"),
        utterances=np.array([f"u{k:02d}" for k in range(12)]),
        speakers=np.repeat([f"P{k}" for k in range(6)], 2),
        sessions=None,
        folds=np.repeat(np.arange(6), 2),
        present=np.ones(12, dtype=bool),
        labels=labels,
        proba=np.eye(2)[decided] * 0.4 + 0.3,
    )


def find(records, level, modality, part="", *, outcome="all", speaker="", class_name=""):
    key = (level, modality, part, outcome, speaker, class_name)
    return next(
        r
        for r in records
        if (r.level, r.modality, r.part, r.outcome, r.speaker, r.class_name) == key
    )


def test_what_cancels_within_a_modality_does_not_count(predictions):
    signed = np.zeros((12, 2, 3))
    signed[:, 0] = [1.0, 3.0, -3.0]  # of class calm; of tense 0

    records = compute_shares(predictions, make(signed))

    assert find(records, "modality", "text").share == 1
    assert find(records, "modality", "audio").share == 0
    assert_allclose(find(records, "modality", "audio").grows_with_width, 6 / 7)
    assert_allclose(find(records, "family", "audio", "level").share, 3 / 7)
    assert_allclose(find(records, "family", "audio", "spread").share, 3 / 7)


def test_a_shift_common_to_all_classes_counts_for_nothing(predictions):
    signed = np.zeros((12, 2, 3))
    signed[:, :, 0] = 5.0
    signed[:, 1, 1] = 1.0

    records = compute_shares(predictions, make(signed))

    assert find(records, "modality", "text").share == 0
    assert find(records, "modality", "audio").share == 1


def test_right_wrong_speakers_and_classes_are_apart(predictions):
    rng = np.random.default_rng(0)
    signed = rng.normal(size=(12, 2, 3))
    centred = signed - signed.mean(axis=1, keepdims=True)
    joint = np.abs(np.stack([centred[:, :, 0], centred[:, :, 1:].sum(2)], axis=2))
    right = predictions.y_pred == predictions.labels

    records = compute_shares(predictions, make(signed))

    for outcome, rows in (("right", right), ("wrong", ~right)):
        sums = joint[rows].sum(axis=(0, 1))
        record = find(records, "modality", "text", outcome=outcome)
        assert_allclose(record.share, sums[0] / sums.sum())
        assert record.n == rows.sum()
    sums = joint[4:6, 1].sum(axis=0)
    record = find(records, "modality", "audio", speaker="P2", class_name="tense")
    assert_allclose(record.share, sums[1] / sums.sum())
    truth = centred[np.arange(12), predictions.labels][:, 0]
    assert_allclose(find(records, "modality", "text").toward_truth, truth.mean())
    tense = truth[predictions.labels == 1].mean()
    assert_allclose(find(records, "modality", "text", class_name="tense").toward_truth, tense)


def test_the_interval_is_the_jackknife_over_speakers(predictions):
    signed = np.random.default_rng(1).normal(size=(12, 2, 3))
    centred = signed - signed.mean(axis=1, keepdims=True)
    joint = np.abs(np.stack([centred[:, :, 0], centred[:, :, 1:].sum(2)], axis=2)).sum(1)
    without = np.array(
        [
            joint[predictions.speakers != s].sum(0)[0] / joint[predictions.speakers != s].sum()
            for s in np.unique(predictions.speakers)
        ]
    )
    half = 2.5705818 * np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum())

    record = find(compute_shares(predictions, make(signed)), "modality", "text")

    assert_allclose([record.low, record.high], [record.share - half, record.share + half])


def test_permuted_shares_stand_beside(predictions):
    rng = np.random.default_rng(2)
    signed = rng.normal(size=(12, 2, 3))
    nulls = [make(rng.normal(size=(12, 2, 3))) for _ in range(3)]

    record = find(compute_shares(predictions, make(signed), nulls), "modality", "text")

    alone = [find(compute_shares(predictions, null), "modality", "text") for null in nulls]
    shares = [null.share for null in alone]
    assert_allclose(record.permuted, np.mean(shares))
    assert_allclose([record.permuted_low, record.permuted_high], [min(shares), max(shares)])
    wide = np.mean([null.grows_with_width for null in alone])
    assert_allclose(record.grows_with_width_permuted, wide)


def test_a_row_that_no_model_explains_is_left_out(predictions):
    signed = np.random.default_rng(3).normal(size=(12, 2, 3))
    trained = np.ones((12, 2), dtype=bool)
    trained[3] = False
    signed[3] = 0

    records = compute_shares(predictions, make(signed, trained=trained))

    assert find(records, "modality", "text").n == 11
    assert find(records, "modality", "text", speaker="P1").n == 1


def test_parts_of_a_level_add_up_to_one(predictions):
    signed = np.random.default_rng(4).normal(size=(12, 2, 3))

    records = compute_shares(predictions, make(signed))

    sums = {}
    for r in records:
        key = (r.level, r.outcome, r.speaker, r.class_name)
        sums[key] = sums.get(key, 0) + r.share
    assert len(sums) > 50
    assert_allclose(list(sums.values()), 1)


def test_totals_of_other_rows_are_refused(predictions):
    with pytest.raises(ValueError, match=r"Contributions of 3 rows do not belong to the 12"):
        compute_shares(predictions, make(np.zeros((3, 2, 3))))
