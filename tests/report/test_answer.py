"""The summary: made from the numbers, and no difference without a test."""

import dataclasses
import re

import pytest

from toolkit.report.answer import _gain, _scores_figure, summary_section
from toolkit.report.document import Figure


def summary(facts):
    """Lead and list of the summary, one line each."""
    lead, items, *_ = summary_section(facts).parts
    return "\n".join([lead.text, *items.texts])


def with_pair(facts, pair, **change):
    """The study with one comparison changed."""
    others = [p for p in facts.comparisons if {p.a, p.b} != {pair.a, pair.b}]
    return dataclasses.replace(
        facts, comparisons=[*others, dataclasses.replace(pair, **change)]
    )


def test_a_difference_is_shown_where_the_test_shows_it(make_facts):
    facts = make_facts(skills=(("audio", 0.1), ("text", 0.3)), fused=(("early", 0.9),))
    pair = facts.compare("early", "best-single")
    score, gain = facts.score("best-single").value, _gain(facts, "early", "best-single")

    line = summary(facts).splitlines()[-1]

    assert pair.p_adjusted <= 0.05
    assert line.startswith(
        f"Best of 1 fusion: early. Against best-single ({score:.3f}), the modality with the "
        f"best out-of-fold score per fold (text): {100 * gain:.1f} points higher ["
    )
    assert "]; a difference was shown (adjusted p" in line


def test_fusions_with_the_best_score_are_all_named(make_facts):
    facts = make_facts(fused=(("early", 0.5), ("vote", 0.2), ("soft", 0.4)))
    best = facts.score("early").value
    scores = [
        dataclasses.replace(s, value=best)
        if (s.system, s.metric, s.scope) == ("soft", "f1_micro", "all")
        else s
        for s in facts.scores
    ]

    line = summary(dataclasses.replace(facts, scores=scores)).splitlines()[-1]

    assert line.startswith("Best of 3 fusions: early (equal: soft). Against best-single")


def test_no_difference_is_claimed_where_none_was_shown(make_facts):
    facts = make_facts(skills=(("audio", 0.1), ("text", 0.5)), fused=(("early", 0.5),))
    pair = facts.compare("early", "best-single")

    line = summary(facts).splitlines()[-1]

    assert pair.p_adjusted > 0.05
    assert "; no difference was shown (adjusted p" in line


def test_a_loss_against_the_best_modality_is_a_lower_score(make_facts):
    facts = make_facts(skills=(("text", 0.9), ("audio", 0.8)), fused=(("early", 0.1),))

    line = summary(facts).splitlines()[-1]

    assert " points lower [-" in line
    assert "a difference was shown" in line


def test_too_few_speakers_decide_nothing(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=(), n_speakers=4)

    text = summary(facts)

    assert "not decidable with 4 speakers, since p cannot fall below .1250" in text
    assert "was shown" not in text
    assert "too few speakers for an interval" in text


def test_of_losses_the_lowest_is_the_selected_one(make_facts):
    facts = make_facts(skills=(("audio", 0.3), ("text", 0.5)), fused=(), metric="log_loss")
    facts = dataclasses.replace(facts, data=facts.data | {"primary": ["audio"]})
    best = facts.score(
        min([*facts.systems, *facts.baselines], key=lambda name: facts.score(name).value)
    )

    text = summary(facts)

    assert best.system != "audio"
    assert (
        f"Lowest loss of {len(facts.predictions)} systems: {best.system}, {best.value:.3f} "
        f"[{best.low:.3f}, {best.high:.3f}]. It was selected on these data, so its score is "
        "optimistic on average." in text
    )
    assert "points" not in text
    assert re.search(r"\d (better|worse) \[", text)


def test_the_primary_system_leads_and_the_highest_is_marked_as_selected(facts):
    higher = dataclasses.replace(facts.score("text-logistic"), value=0.99)
    scores = [higher if s == facts.score("text-logistic") else s for s in facts.scores]
    boosted = max(facts.systems, key=lambda name: facts.score(name).value)

    text = summary(dataclasses.replace(facts, scores=scores))

    score = facts.score("early")
    assert text.startswith(
        f"The primary system, early, reaches F1-micro {score.value:.3f} [{score.low:.3f}, "
        f"{score.high:.3f}] on unseen speakers (10 speakers, each held out in turn)."
    )
    assert f"Highest score of {len(facts.predictions)} systems: text-logistic, 0.990 [" in text
    assert (
        "It was selected on these data, so its score is optimistic on average. Best boosted "
        f"system: {boosted}, {facts.score(boosted).value:.3f}." in text
    )


def test_a_primary_system_with_the_highest_score_is_not_called_selected(make_facts):
    facts = make_facts(fused=(("early", 0.95),))

    text = summary(facts)

    assert f"Highest score of {len(facts.predictions)} systems: early." in text
    assert "selected" not in text


def test_a_change_of_the_primary_system_is_stated(make_facts):
    changed = (
        "The primary system was text at the first run. It was changed to audio after results "
        "existed."
    )

    assert changed in summary(make_facts(primary=["text", "audio"]))
    assert "changed" not in summary(make_facts(primary=["text"]))


def test_a_primary_system_without_results_is_named_as_unfinished(make_facts):
    facts = make_facts(fused=(), primary=["early"])

    text = summary(facts)

    assert text.startswith("The primary system, early, is not finished yet.\nHighest score of")
    assert "reaches" not in text
    assert "no-information rate" not in text


@pytest.mark.parametrize("skill", [0.2, 0.9])
def test_the_better_baseline_is_the_one_to_beat(make_facts, skill):
    facts = make_facts(skills=(("text", skill),), fused=())
    rate = max(facts.score(name).value for name in ("majority", "no-information"))
    shown = facts.compare("text", facts.baseline).shows_difference

    line = summary(facts).splitlines()[2]

    assert facts.score(facts.baseline).value == rate
    assert shown == (skill > 0.2)
    assert line.startswith(f"Against the no-information rate ({rate:.3f}): ")
    assert ("; a difference was shown" in line) == shown
    assert ("; no difference was shown" in line) != shown


def test_equal_scores_are_given_as_scores_and_not_as_equality(make_facts):
    facts = make_facts(skills=(("text", 0.5), ("audio", 0.1)), fused=(("early", 0.5),))
    same = [s for s in facts.scores if s.system != "early"]
    same += [
        dataclasses.replace(s, system="early")
        for s in facts.scores
        if s.system == "best-single"
    ]
    pair = facts.compare("early", "best-single")
    facts = with_pair(facts, pair, difference=0.0, p=1.0, p_adjusted=1.0)

    line = summary(dataclasses.replace(facts, scores=same)).splitlines()[-1]

    assert ": the same score [" in line
    assert "no difference was shown (adjusted p = 1)" in line


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"p_adjusted": 0.01}, "a difference was shown"),
        ({"p_adjusted": 0.2}, "no difference was shown"),
        (
            {"p_adjusted": 0.2, "smallest_p": 0.1},
            "not decidable with 10 speakers, since p cannot fall below .1000",
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_interval_of_a_difference_is_of_the_primary_system(
    make_facts, change, found, turned
):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    gain = _gain(facts, "text", "text-logistic")
    names = ("text-logistic", "text") if turned else ("text", "text-logistic")
    size = -gain if turned else gain
    changed = with_pair(
        facts,
        facts.compare("text", "text-logistic"),
        a=names[0],
        b=names[1],
        difference=size,
        low=size - 0.02,
        high=size + 0.03,
        **change,
    )
    low, high = (gain - 0.03, gain + 0.02) if turned else (gain - 0.02, gain + 0.03)
    value = facts.score("text-logistic").value

    line = summary(changed).splitlines()[-1]

    p_adjusted = f"{change['p_adjusted']:.4f}".removeprefix("0")
    assert line == (
        f"Against text-logistic ({value:.3f}), a logistic regression on the same features: "
        f"{100 * gain:.1f} points higher [{100 * low:+.1f}, {100 * high:+.1f}]; {found} "
        f"(adjusted p = {p_adjusted})."
    )


def test_a_lower_loss_than_the_logistic_regression_is_better(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=(), metric="log_loss")
    gain = facts.score("text-logistic").value - facts.score("text").value

    line = summary(facts).splitlines()[-1]

    low, high = (float(end) for end in re.search(r"\[(.*), (.*)\]", line).groups())
    assert gain > 0
    assert f"{gain:.3f} better [" in line
    assert low < gain < high


def test_a_shared_highest_score_names_all_that_have_it(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    score, other = facts.score("text"), facts.score("text-logistic")
    same = dataclasses.replace(other, value=score.value)
    scores = [same if s == other else s for s in facts.scores]

    shared = summary(dataclasses.replace(facts, scores=scores))

    assert "Highest score of 4 systems: text." in summary(facts)
    assert "Highest score of 4 systems: text and text-logistic." in shared


@pytest.mark.parametrize(
    ("record", "kind"),
    [({}, "(boosted trees)"), ({"linear": {}}, "(boosted trees and a linear part)")],
)
def test_the_summary_names_the_kind_of_model(make_facts, record, kind):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    params = {
        fold: found | {"record": found["record"] | record}
        for fold, found in facts.params["text"].items()
    }

    changed = dataclasses.replace(facts, params=facts.params | {"text": params})

    assert f"The primary system, text {kind}, reaches" in summary(changed)


@pytest.mark.parametrize(
    ("outer", "held_out"),
    [
        ("speaker", "10 speakers, each held out in turn"),
        ("session", "10 speakers, held out in 10 sessions"),
        ("10", "10 speakers, held out in 10 groups"),
        ("split", "10 speakers, held out by the split of the data"),
    ],
)
def test_the_first_line_gives_the_held_out_groups(make_facts, outer, held_out):
    assert f"on unseen speakers ({held_out})." in summary(make_facts(outer=outer))


@pytest.mark.parametrize("metric", ["f1_micro", "uar", "mcc", "brier"])
def test_every_number_of_the_summary_is_a_number_of_the_study(make_facts, metric):
    facts = make_facts(metric=metric)
    known = {f"{abs(x):.3f}" for s in facts.scores for x in (s.value, s.low, s.high) if x}
    known |= {
        f"{abs(_gain(facts, a, b)):.3f}" for a in facts.predictions for b in facts.predictions
    }
    known |= {
        f"{abs(x):.3f}" for p in facts.comparisons for x in (p.low, p.high) if x is not None
    }

    numbers = re.findall(r"\d\.\d{3}\b", summary(facts))

    assert numbers
    assert set(numbers) <= known


def test_the_summary_has_one_figure_with_every_system_in_words(facts):
    figures = [p for p in summary_section(facts).parts if isinstance(p, Figure)]

    assert [figure.stem for figure in figures] == ["scores"]
    for system in facts.systems:
        assert f"{system} {facts.score(system).value:.3f}" in figures[0].alt


@pytest.mark.parametrize("metric", ["f1_micro", "uar"])
def test_diamonds_are_explained_where_a_published_score_is_drawn(facts, metric):
    one = {"system": "X", "metric": metric, "value": 0.512, "protocol": "p", "source": "s"}
    options = dict(facts.options) | {"published": [one]}

    figure = _scores_figure(dataclasses.replace(facts, options=options))

    assert ("Diamonds: published" in figure.caption) == (metric == "f1_micro")
    assert ("X 0.512 (published, p)" in figure.alt) == (metric == "f1_micro")
