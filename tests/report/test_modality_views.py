"""Why views of the modalities disagree: only what the numbers bear out is said."""

from types import SimpleNamespace

import pytest

from toolkit.explain import GameRecord, PermutationRecord, ShareRecord
from toolkit.explain.shares import Attribution
from toolkit.report.modality_views import compare_views
from toolkit.validation import METRICS


def make_share(modality, share, outcome="all", permuted=None):
    ends = (None, None) if permuted is None else (permuted - 0.05, permuted + 0.05)
    return ShareRecord(
        *("early", "modality", modality, "", outcome, "", "", 9),
        *(share, share - 0.02, share + 0.02, permuted, *ends, 0.5, None, 0.1),
    )


def make_evidence(worth, shares, losses, metric="f1_micro"):
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


def say(evidence, metric="f1_micro"):
    sign = 1 if METRICS[metric].direction == "maximize" else -1
    part = compare_views(SimpleNamespace(metric=METRICS[metric], sign=sign), evidence)
    return part.text if hasattr(part, "text") else " ".join(part.texts)


def test_views_that_agree_are_said_to():
    shares = [make_share("a", 0.7), make_share("b", 0.3)]

    said = say(make_evidence((0.2, 0.6, 0.3, 0.7), shares, (0.3, 0.1)))

    assert said == "All views rank the modalities alike: a and b."


def test_a_loss_is_better_where_it_is_lower():
    shares = [make_share("a", 0.7), make_share("b", 0.3)]

    said = say(make_evidence((1.4, 0.6, 1.2, 0.5), shares, (0.3, 0.1), "log_loss"), "log_loss")

    assert said == "All views rank the modalities alike: a and b."


def test_what_others_tell_as_well_is_told_from_what_is_heard_in_vain():
    shares = [make_share("a", 0.3), make_share("b", 0.7)]
    again = make_evidence((0.2, 0.6, 0.5, 0.62), shares, (0.1, 0.3))

    said = say(again)

    assert "a has more worth than share: alone it gains +40.0 over the majority" in said
    assert "beside all others +12.0" in said
    assert "b has more share than worth: early relies on it" in said
    assert "all others lose only 2.0 points" in said


@pytest.mark.parametrize(("wrong", "apart"), [(0.8, True), (0.71, False)])
def test_right_and_wrong_are_told_apart_by_their_intervals(wrong, apart):
    shares = [make_share("a", 0.3), make_share("b", 0.7)]
    shares += [make_share("b", 0.69, "right"), make_share("b", wrong, "wrong")]

    said = say(make_evidence((0.2, 0.6, 0.5, 0.62), shares, (0.1, 0.3)))

    assert ("listens to it more where it is wrong" in said) is apart


def test_less_than_labels_that_mean_nothing_give_is_said():
    shares = [make_share("a", 0.7, permuted=0.4), make_share("b", 0.3, permuted=0.6)]

    said = say(make_evidence((0.2, 0.6, 0.3, 0.7), shares, (0.3, 0.1)))

    assert "a larger share to b (0.300 against 0.600)" in said
    assert "share to a" not in said
