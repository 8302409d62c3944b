"""Contributions of modalities: claims rest on intervals; gains of losses are above 0 too."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from toolkit.explain import ShareRecord
from toolkit.explain.shapley import GameRecord, PermutationRecord
from toolkit.explain.shares import Attribution, LinearRecord, PlayerRecord
from toolkit.report.document import Fold, count_words
from toolkit.report.drivers import _families_table
from toolkit.report.modality_views import (
    _compare_values,
    _describe_pairs,
    _opening_sentences,
    _permutation_table,
    _players_table,
    _shares_table,
    modality_parts,
)
from toolkit.report.shap_figures import _plot_class_gains, _plot_gains
from toolkit.validation import METRICS


def make_share(modality, share, outcome="all", permuted=None):
    ends = (None, None) if permuted is None else (permuted - 0.05, permuted + 0.05)
    return ShareRecord(
        *("early", "modality", modality, "", outcome, "", "", 9),
        *(share, share - 0.02, share + 0.02, permuted, *ends, 0.5, None, 0.1),
    )


def make_game(kind, players, value, half=0.01, *, metric="f1_micro", game="refit"):
    """A number of a game with an interval of `half` on both sides; none without it."""
    ends = (None, None) if half is None else (value - half, value + half)
    return GameRecord(game, metric, "", kind, players, value, *ends, 9)


def make_attribution(games=(), shares=(), losses=(), modalities=("a", "b"), players=()):
    """Numbers of two modalities, a and b, by default."""
    return Attribution(
        system="early",
        modalities=modalities,
        shares=shares,
        games=games,
        importance=[
            PermutationRecord("early", "f1_micro", "", who, loss, None, None, 0.0, 20)
            for who, loss in zip(modalities, losses, strict=False)
        ],
        players=players,
        totals={},
        samples={},
    )


def make_facts(metric="f1_micro", counts=((4, 4), (4, 4))):
    return SimpleNamespace(
        metric=METRICS[metric],
        baseline="majority",
        classes=("yes", "no"),
        has_one_label_each=all(min(count) == 0 for count in counts),
    )


#: a alone 30 points, b alone 20, both 35.
GAMES = [
    *(make_game("value", name, value) for name, value in (("a", 0.225), ("b", 0.125))),
    *(make_game("alone", name, value) for name, value in (("a", 0.3), ("b", 0.2))),
    *(make_game("last", name, value) for name, value in (("a", 0.15), ("b", 0.05))),
    make_game("interaction", "a+b", -0.15),
    make_game("difference", "a+b", 0.1),
]


def test_three_numbers_of_the_first_modality_and_its_lead_over_the_second():
    lead, pairs = _opening_sentences(make_facts(), make_attribution(GAMES))

    assert lead.kind == "lead"
    assert lead.text == (
        "a has the largest Shapley value in early fusion: +22.5 points [+21.5, +23.5] of "
        "F1-micro. Alone it gains +30.0 points [+29.0, +31.0] over the majority baseline, and "
        "+15.0 points [+14.0, +16.0] when it is added last. The difference from b is +10.0 "
        "points [+9.0, +11.0]."
    )
    assert pairs.text == (
        "a and b gain less together than separately (overlap, or one dilutes the other): "
        "their interaction is -15.0 points [-16.0, -14.0]."
    )


@pytest.mark.parametrize(("half", "idle"), [(0.04, False), (0.05, True), (0.06, True)])
def test_a_gain_beside_the_others_is_shown_where_its_interval_excludes_0(half, idle):
    games = [r for r in GAMES if (r.kind, r.players) != ("last", "b")]
    games.append(make_game("last", "b", 0.05, half))

    lead, _ = _opening_sentences(make_facts(), make_attribution(games))

    assert ("No gain beside the others is shown for b (+5.0 points [" in lead.text) is idle
    assert "for a" not in lead.text


def test_numbers_of_a_loss_are_shown_as_gains():
    games = [
        replace(r, metric="log_loss", value=-r.value, low=-r.high, high=-r.low) for r in GAMES
    ]

    lead, pairs = _opening_sentences(make_facts("log_loss"), make_attribution(games))

    assert lead.text.startswith("a has the largest Shapley value in early fusion: +0.225 [+0.2")
    assert "The difference from b is +0.100 [+0.090, +0.110]." in lead.text
    assert "gain less together than separately (overlap, or" in pairs.text


def test_few_speakers_give_no_intervals_and_no_claims():
    games = [replace(r, low=None, high=None) for r in GAMES]

    lead, pairs = _opening_sentences(make_facts(), make_attribution(games))

    assert "Fewer than five speakers give no intervals, so no modality is preferred." in (
        lead.text
    )
    assert "difference" not in lead.text
    assert pairs.text.startswith("Fewer than five speakers")


def test_without_a_game_the_shares_are_named():
    shares = [make_share("a", 0.7), make_share("b", 0.3)]

    (lead,) = _opening_sentences(make_facts(), make_attribution(shares=shares))

    assert lead.text == (
        "No Shapley values were computed. SHAP shares in early: a 0.700 and b 0.300."
    )


@pytest.mark.parametrize("order", ["a+b", "b+a"])
@pytest.mark.parametrize(
    ("metric", "numbers", "expected"),
    [
        # Intervals of a and of b may overlap: only that of their difference counts.
        ("f1_micro", (0.03, 0.01, 0.05), "The difference from b is +3.0 points [+1.0, +5.0]."),
        (
            "f1_micro",
            (0.03, -0.01, 0.07),
            "No difference from b is shown: the interval of +3.0 points",
        ),
        (
            "f1_micro",
            (0.03, 0.0, 0.06),
            "No difference from b is shown: the interval of +3.0 points",
        ),
        ("log_loss", (-0.03, -0.05, -0.01), "The difference from b is +0.030 [+0.010, +0.050]"),
        (
            "log_loss",
            (-0.03, -0.05, 0.01),
            "No difference from b is shown: the interval of +0.030",
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

    text = _compare_values(make_facts(metric), make_attribution([pair]), "a", "b")

    assert text.startswith(expected)


@pytest.mark.parametrize(
    ("metric", "value", "half", "expected"),
    [
        ("f1_micro", -0.1, 0.05, "a and b gain less together than"),
        ("f1_micro", 0.1, 0.05, "a and b gain more together than separately"),
        ("log_loss", 0.1, 0.05, "a and b gain less together than"),
        ("f1_micro", -0.1, 0.1, "No two modalities are shown"),
        ("f1_micro", 0.1, 0.2, "No two modalities are shown"),
    ],
)
def test_an_interaction_is_claimed_where_its_interval_excludes_0(metric, value, half, expected):
    pair = make_game("interaction", "a+b", value, half, metric=metric)

    text = _describe_pairs(make_facts(metric), make_attribution([pair]))

    assert text.startswith(expected)


def test_the_largest_interactions_are_named_and_the_others_counted():
    pairs = [make_game("interaction", f"a+{k}", -0.1 * k) for k in range(1, 6)]

    text = _describe_pairs(make_facts(), make_attribution(pairs))

    assert [f"a and {k} gain less" in text for k in range(1, 6)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert text.endswith(
        " 2 more pairs: see below. The intervals are not adjusted for the number of pairs, 5."
    )


def test_only_pairs_of_the_first_game_are_named():
    pairs = [
        make_game("interaction", "a+b", -0.01, 0.05),
        make_game("interaction", "a+b", -0.2, game="late-soft"),
    ]

    text = _describe_pairs(make_facts(), make_attribution(pairs))

    assert text == (
        "No two modalities are shown to gain more or less together than separately: in early "
        "fusion, fitted again for every set of modalities, every interval of an interaction "
        "includes 0."
    )


@pytest.mark.parametrize(("half", "noise"), [(0.05, False), (0.2, True), (0.3, True)])
@pytest.mark.parametrize("which", ["a", "b"])
def test_no_overlap_is_claimed_of_a_modality_without_a_shown_gain_alone(which, half, noise):
    games = [
        make_game("alone", r.players, 0.2, half if r.players == which else 0.01)
        if r.kind == "alone"
        else r
        for r in GAMES
    ]

    text = _describe_pairs(make_facts(), make_attribution(games))

    assert ("(one may dilute the other)" in text) is noise
    assert ("overlap" in text) is not noise
    assert "information" not in text


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_number_of_permutations_is_the_computed_one(n):
    shares = [make_share("a", 0.7, permuted=0.5), make_share("b", 0.3, permuted=0.5)]
    attribution = replace(make_attribution(GAMES, shares), n_permuted=n)
    families = [replace(share, level="family", part="level") for share in shares]
    attribution = replace(attribution, shares=[*shares, *families])

    assert (
        f"speakers, mean of {count_words(n, 'run')}."
        in _shares_table(make_facts(), attribution).note
    )
    note = _families_table(attribution, families).note
    assert f"mean share of {count_words(n, 'fit')} to labels" in note


def test_the_linear_part_is_explained_and_belongs_to_the_models():
    shares = [make_share("a", 0.7), make_share("b", 0.3)]
    plain = make_attribution(GAMES, shares)
    linear = replace(plain, linear=[LinearRecord("early", "a", 0.4, 0.3, 0.5)])
    words = "Linear part: its share of the modality's contributions, trees the rest."

    assert words in _shares_table(make_facts(), linear).note
    assert words not in _shares_table(make_facts(), plain).note
    assert "in the models of early" in _players_table(plain).caption


def test_without_early_fusion_the_late_games_are_shown_and_no_shares(facts):
    games = [replace(r, game="late-soft") for r in GAMES]
    attribution = make_attribution(games, [make_share("a", 1.0)], modalities=("a",))

    lead, _, *parts = modality_parts(facts, attribution, [])

    assert lead.text.startswith("a has the largest Shapley value in late fusion (mean of prob")
    assert [part.title for part in parts if isinstance(part, Fold)] == [
        "Gains and interactions in numbers"
    ]
    names = [label.get_text() for label in _plot_gains(facts, attribution).get_yticklabels()]
    assert names == ["a", "b"]


def test_an_order_unlike_that_of_the_shapley_values_has_a_reason():
    shares = [make_share("a", 0.3), make_share("b", 0.7)]
    players = [PlayerRecord("early", "value", name, s, s, 0.0) for name, s in (("a", 0.6),)]
    unlike = make_attribution(GAMES, shares, (0.1, 0.3), players=players)

    share = _shares_table(make_facts(), unlike).note
    loss = _permutation_table(make_facts(), unlike).note

    for note, reason in ((share, "whether it helps or misleads"), (loss, "can replace it")):
        assert (
            "The order, b first, then a, differs from that of the Shapley values (a, b)" in note
        )
        assert reason in note
    # An order that lacks a modality is not compared.
    assert "order" not in _players_table(unlike).note.lower()
    late = replace(unlike, games=[replace(r, game="late-soft") for r in GAMES])
    words = "The Shapley values are of late fusion, this order of early."
    for table in (_shares_table, _permutation_table):
        assert words in table(make_facts(), late).note
        assert words not in table(make_facts(), unlike).note


def test_an_order_like_that_of_the_shapley_values_has_one_sentence():
    shares = [make_share("a", 0.7), make_share("b", 0.3)]

    note = _shares_table(make_facts(), make_attribution(GAMES, shares)).note

    assert note.endswith("The order is that of the Shapley values: a first, then b.")


@pytest.mark.parametrize(("permuted", "below"), [(0.6, True), (0.36, False)])
def test_a_share_below_that_of_permuted_labels_is_named(permuted, below):
    shares = [make_share("a", 0.7, permuted=0.4), make_share("b", 0.3, permuted=permuted)]

    note = _shares_table(make_facts(), make_attribution(GAMES, shares)).note

    assert ("The share of b is below that under permuted labels" in note) is below
    assert "The share of a" not in note


@pytest.mark.parametrize(("half", "named"), [(0.1, False), (0.2, True)])
def test_a_large_share_without_a_shown_gain_is_named(half, named):
    games = [r for r in GAMES if (r.kind, r.players) != ("last", "a")]
    shares = [make_share("a", 0.7), make_share("b", 0.3)]
    attribution = make_attribution([*games, make_game("last", "a", 0.15, half)], shares)

    note = _shares_table(make_facts(), attribution).note

    assert ("no gain beside the others that is shown: a. Such" in note) is named


@pytest.mark.parametrize(
    ("counts", "permuted"),
    [
        ([[4, 0], [3, 1]], "labels permuted within speakers"),
        ([[4, 0], [0, 4]], "labels exchanged between speakers"),
    ],
)
def test_the_reference_of_the_shares_names_what_was_permuted(facts, counts, permuted):
    shares = [make_share("a", 0.7, permuted=0.5), make_share("b", 0.3, permuted=0.5)]
    attribution = make_attribution(GAMES, shares)

    *_, others = modality_parts(replace(facts, counts=counts), attribution, [])

    assert isinstance(others, Fold)
    assert f"models fitted to {permuted}" in others.parts[0].note


def test_the_first_figure_has_three_gains_per_modality_with_their_intervals(facts):
    ax = _plot_gains(facts, make_attribution(GAMES))

    marks = {
        (round(float(y), 2), float(x))
        for line in ax.lines
        if line.get_marker() != "None"
        for x, y in line.get_xydata()
    }
    expected = {"alone": (30, 20), "value": (22.5, 12.5), "last": (15, 5)}
    for shift, gains in zip((-0.22, 0, 0.22), expected.values(), strict=True):
        for row, gain in enumerate(gains):
            assert any(y == row + shift and x == pytest.approx(gain) for y, x in marks)
    assert len(marks) == 6
    spans = [line.get_xdata() for line in ax.lines if line.get_marker() == "None"][:-1]
    assert_allclose([b - a for a, b in spans], 2)
    legend = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert legend == ["alone", "Shapley value", "added last"]


def test_every_class_has_a_panel_of_its_own_gains(facts):
    games = [
        replace(r, group=name, value=r.value + 0.1 * k)
        for k, name in enumerate(facts.classes)
        for r in GAMES
    ]

    axes = _plot_class_gains(facts, make_attribution([*GAMES, *games])).figure.axes

    assert [ax.get_title() for ax in axes] == list(facts.classes)
    for k, ax in enumerate(axes):
        drawn = [
            line.get_xdata()[0] for line in ax.lines if line.get_marker() not in {"None", ""}
        ]
        assert np.isclose(np.max(drawn), 30 + 10 * k)
