import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics

from toolkit.validation import metrics as confusion

RNG = np.random.default_rng(3)
LABELS = RNG.choice(5, 200, p=[0.1, 0.5, 0.2, 0.2, 0.0])  # the last class never occurs
GIVEN = RNG.choice(5, 200, p=[0.0, 0.4, 0.3, 0.2, 0.1])  # the first is never given
GROUPS = np.arange(200) % 4


def counts_of(labels, given):
    return confusion.class_counts(confusion.confusion_matrices(labels, given, 5)[0])


def test_matrices_have_true_classes_in_rows_group_by_group():
    matrices = confusion.confusion_matrices(LABELS, GIVEN, 5, GROUPS, n_groups=5)

    for group in range(5):
        mine = group == GROUPS
        expected = np.zeros((5, 5))
        np.add.at(expected, (LABELS[mine], GIVEN[mine]), 1)
        assert_array_equal(matrices[group], expected)


@pytest.mark.parametrize(
    ("score", "reference"),
    [
        (confusion.class_recall, metrics.recall_score),
        (confusion.class_precision, metrics.precision_score),
        (confusion.class_f1, metrics.f1_score),
    ],
)
def test_scores_of_classes_are_scikit_learns(score, reference):
    expected = reference(LABELS, GIVEN, labels=range(5), average=None, zero_division=0)

    assert_allclose(score(counts_of(LABELS, GIVEN)), expected)


@pytest.mark.parametrize(
    ("score", "average"),
    [
        (confusion.micro_f1, "micro"),
        (confusion.macro_f1, "macro"),
        (confusion.weighted_f1, "weighted"),
    ],
)
def test_averages_of_f1_are_scikit_learns_over_all_classes(score, average):
    expected = metrics.f1_score(
        LABELS, GIVEN, labels=range(5), average=average, zero_division=0
    )

    assert_allclose(score(counts_of(LABELS, GIVEN)), expected)


def test_macro_scores_may_be_over_the_classes_that_occur():
    counts = counts_of(LABELS, GIVEN)
    f1 = metrics.f1_score(LABELS, GIVEN, labels=range(4), average="macro", zero_division=0)
    recall = metrics.recall_score(
        LABELS, GIVEN, labels=range(4), average="macro", zero_division=0
    )

    assert_allclose(confusion.macro_f1(counts, present_only=True), f1)
    assert_allclose(confusion.unweighted_recall(counts, present_only=True), recall)
    assert_allclose(confusion.unweighted_recall(counts), recall * 4 / 5)


def test_correlation_is_scikit_learns_and_0_where_a_side_is_constant():
    constant = np.zeros_like(LABELS)

    assert_allclose(
        confusion.matthews_correlation(counts_of(LABELS, GIVEN)),
        metrics.matthews_corrcoef(LABELS, GIVEN),
    )
    assert confusion.matthews_correlation(counts_of(LABELS, constant)) == 0
    assert confusion.matthews_correlation(counts_of(constant, GIVEN)) == 0
    assert confusion.matthews_correlation(counts_of(LABELS, LABELS)) == pytest.approx(1)


def test_scores_of_a_stack_are_the_scores_of_each():
    stack = confusion.class_counts(
        confusion.confusion_matrices(LABELS, GIVEN, 5, GROUPS, n_groups=4)
    )

    for score in (confusion.micro_f1, confusion.macro_f1, confusion.matthews_correlation):
        assert_array_equal(score(stack), [score(counts) for counts in stack])


def test_no_rows_score_0_without_a_warning():
    nothing = np.zeros((3, 5))

    assert confusion.macro_f1(nothing, present_only=True) == 0
    assert confusion.micro_f1(nothing) == 0
