"""Views of the modalities that disagree: only what the numbers show is explained."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from toolkit.explain import GameRecord, PermutationRecord, ShareRecord
from toolkit.explain.shares import Attribution
from toolkit.report.modality_views import _compare_values, _compare_views, modality_parts
from toolkit.validation import METRICS


def make_share(modality, share, outcome="all", permuted=None):
    ends = (None, None) if permuted is None else (permuted - 0.05, permuted + 0.05)
    return ShareRecord(
        *("early", "modality", modality, "", outcome, "", "", 9),
        *(share, share - 0.02, share + 0.02, permuted, *ends, 0.5, None, 0.1),
    )


def make_attribution(worth, shares, losses, metric="f1_micro"):
    """Two modalities, a and b; what no set, a, b and both are worth."""
    nothing, a, b, both = worth
    value = {"a": (a - nothing + both - b) / 2, "b": (b - nothing + both - a) / 2}
    numbers = [("worth", who, v) for who, v in zip(("", "a", "b", "a+b"), worth, strict=True)]
    numbers += [("value", who, v) for who, v in value.items()]
    return Attribution(
        system="early",
        modalities=("a", "b"),
        shares=shares,
        games=[GameRecord("refit", metric, "", k, w, v, None, None, 5) for k, w, v in numbers],
        importance=[
            PermutationRecord("early", metric, "", who, loss, None, None, 0.0, 20)
            for who, loss in zip("ab", losses, strict=True)
        ],
        players=(),
        totals={},
        samples={},
    )


def explain(attribution, metric="f1_micro"):
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    part = _compare_views(
        SimpleNamespace(metric=METRICS[metric], sign=sign, baseline="majority"), attribution
    )
    return part.text if hasattr(part, "text") else " ".join(part.texts)


def test_views_that_agree_are_reported_as_alike():
    shares = [make_share("a", 0.7), make_share("b", 0.3)]

    text = explain(make_attribution((0.2, 0.6, 0.3, 0.7), shares, (0.3, 0.1)))

    assert text == "All views rank the modalities alike: a and b."


def test_a_loss_is_better_where_it_is_lower():
    shares = [make_share("a", 0.7), make_share("b", 0.3)]

    text = explain(
        make_attribution((1.4, 0.6, 1.2, 0.5), shares, (0.3, 0.1), "log_loss"), "log_loss"
    )

    assert text == "All views rank the modalities alike: a and b."


def test_redundant_modalities_are_distinguished_from_misleading_ones():
    shares = [make_share("a", 0.3), make_share("b", 0.7)]
    again = make_attribution((0.2, 0.6, 0.5, 0.62), shares, (0.1, 0.3))

    text = explain(again)

    assert "a has more worth than share: alone it gains +40.0 over majority" in text
    assert "beside all others +12.0" in text
    assert "b has more share than worth: early relies on it" in text
    assert "all others lose only 2.0 points" in text


@pytest.mark.parametrize(("wrong", "apart"), [(0.8, True), (0.71, False)])
def test_right_and_wrong_differ_where_their_intervals_do(wrong, apart):
    shares = [make_share("a", 0.3), make_share("b", 0.7)]
    shares += [make_share("b", 0.69, "right"), make_share("b", wrong, "wrong")]

    text = explain(make_attribution((0.2, 0.6, 0.5, 0.62), shares, (0.1, 0.3)))

    assert ("listens to it more where it is wrong" in text) is apart


def test_a_share_below_that_of_permuted_labels_is_named():
    shares = [make_share("a", 0.7, permuted=0.4), make_share("b", 0.3, permuted=0.6)]

    text = explain(make_attribution((0.2, 0.6, 0.3, 0.7), shares, (0.3, 0.1)))

    assert "a larger share to b (0.300 against 0.600)" in text
    assert "share to a" not in text


@pytest.mark.parametrize("order", ["a+b", "b+a"])
@pytest.mark.parametrize(
    ("metric", "numbers", "expected"),
    [
        # Intervals of a and of b may overlap: only that of their difference counts.
        ("f1_micro", (0.03, 0.01, 0.05), "The value of a is above that of b: difference +3.0 "),
        ("f1_micro", (0.03, -0.01, 0.07), "A difference between the values of a and b was not"),
        ("f1_micro", (0.03, 0.0, 0.06), "A difference between the values of a and b was not"),
        ("log_loss", (-0.03, -0.05, -0.01), "The value of a is below that of b: difference "),
        (
            "log_loss",
            (-0.03, -0.05, 0.01),
            "A difference between the values of a and b was not",
        ),
        ("f1_micro", (0.03, None, None), "The values of a and b were not compared."),
    ],
)
def test_values_are_compared_by_the_interval_of_their_difference(
    order, metric, numbers, expected
):
    value, low, high = numbers
    if order == "b+a" and low is not None:
        numbers = (-value, -high, -low)
    pair = GameRecord("refit", metric, "", "difference", order, *numbers, 9)
    base = make_attribution((0.2, 0.6, 0.3, 0.7), [], (0.3, 0.1), metric)
    facts = SimpleNamespace(metric=METRICS[metric], sign=-1 if metric == "log_loss" else 1)

    text = _compare_values(facts, replace(base, games=[*base.games, pair]), "a", "b")

    assert text.startswith(expected)
    if low is not None:
        ends = ("+1.0, +5.0" if low == 0.01 else None) if metric == "f1_micro" else None
        assert ends is None or f"+3.0 points [{ends}]" in text


@pytest.mark.parametrize(
    ("counts", "permuted"),
    [
        ([[4, 0], [3, 1]], "labels permuted within speakers"),
        ([[4, 0], [0, 4]], "labels exchanged between speakers"),
    ],
)
def test_the_reference_of_the_shares_names_what_was_permuted(facts, counts, permuted):
    shares = [make_share("a", 0.7, permuted=0.5), make_share("b", 0.3, permuted=0.5)]
    attribution = make_attribution((0.2, 0.6, 0.3, 0.7), shares, (0.3, 0.1))

    _, figure, table, *_ = modality_parts(replace(facts, counts=counts), attribution)

    assert f"(diamond: {permuted})" in figure.caption
    assert f"under {permuted}" in table.note
