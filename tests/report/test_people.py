"""Groups of people and abstention in the report: what is shown, and what is not claimed."""

import dataclasses

import numpy as np
import pytest

from toolkit.report.contents import summarise_study
from toolkit.report.figures import draw_performance
from toolkit.validation.people import make_sets, risk_curve

#: Nothing is known of the land of the last person.
CELLS = {"sex": ["f", "m"] * 5, "land": [*["de"] * 5, *["en"] * 4, ""]}


@pytest.fixture(scope="module")
def shown(facts):
    """The made-up study with groups of people and chosen errors."""
    traits = [[k, dict(zip(facts.tested_speakers, v, strict=True))] for k, v in CELLS.items()]
    data = {**facts.data, "traits": traits}
    return dataclasses.replace(facts, data=data, errors=(0.05, 0.2, 0.4)).with_groups(0)


@pytest.fixture(scope="module")
def drawn(shown):
    return {
        name: ax for name, ax in draw_performance(shown) if name in {"groups", "abstention"}
    }


def section(facts, name):
    return next(s for s in summarise_study(facts).sections if s.name == name)


def test_a_study_without_the_options_has_neither_section(facts):
    assert not {"groups", "abstention"} & {s.name for s in summarise_study(facts).sections}


def test_groups_stand_in_a_table_beside_the_baseline(shown):
    paragraph, figure, table = section(shown, "groups").parts

    assert [row[0].text for row in table.rows] == ["sex: f", "sex: m", "land: de", "land: en"]
    assert "[" in table.rows[0][1].text
    assert "[" not in table.rows[3][1].text  # four people
    sexes = dict(zip(shown.tested_speakers, CELLS["sex"], strict=True))
    for system, column in ((shown.primary, 1), (shown.baseline, 2)):
        own = shown.predictions[system]
        right = (own.y_pred == own.labels)[[sexes[s] == "f" for s in own.speakers.tolist()]]
        assert table.rows[0][column].value == pytest.approx(right.mean())
        assert table.rows[0][4].value == len(right)
    assert "No land is known of 1 speaker." in paragraph.text
    assert "smallest possible .0079" in paragraph.text  # 2 of 252 ways
    assert figure.alt == paragraph.text


def test_a_gap_is_named_only_where_it_was_shown(shown):
    for p, word in ((0.05, "A larger gap"), (0.051, "No larger gap")):
        gap = dataclasses.replace(shown.gaps[0], p_adjusted=p, a="f", b="m", difference=0.25)
        text = section(dataclasses.replace(shown, gaps=[gap]), "groups").parts[0].text
        assert text.startswith(f"{word} by sex than between random groups of the same people")
        assert "f is 0.250 above m" in text


def test_the_figure_names_the_best_and_the_worst_person(shown, drawn):
    ax = drawn["groups"]
    scores = {
        s: shown.score(shown.primary, scope="speaker", group=s).value
        for s in shown.tested_speakers
    }
    named = {text.get_text(): text.get_position()[0] for text in ax.texts}
    for pick in (min, max):
        name = pick(scores, key=lambda s: (scores[s], s))
        assert named[name] == scores[name]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        *("everyone", "sex: f", "sex: m", "land: de", "land: en")
    ]
    assert sorted(ax.lines[0].get_xdata()) == sorted(scores.values())


def test_no_set_is_shown_below_the_error_that_ten_people_can_keep_to(shown):
    paragraph, _, table, fold = section(shown, "abstention").parts
    people = fold.parts[0]

    assert "there are no prediction sets for an error below 0.100" in paragraph.text
    assert [cell.text for cell in table.rows[0][3:]] == ["\N{EN DASH}"] * 3
    own = shown.predictions[shown.primary]
    covered = make_sets(own, 0.2)[np.arange(len(own)), own.labels]
    rates = [covered[own.speakers == name].mean() for name in shown.tested_speakers]
    assert table.rows[1][3].value == pytest.approx(min(rates))
    assert people.header[1:] == ("coverage at 0.2", "mean size", "coverage at 0.4", "mean size")
    assert [row[1].value for row in people.rows] == pytest.approx(rates)
    none = dataclasses.replace(shown, errors=(0.05,))
    assert len(section(none, "abstention").parts) == 3  # no sets, no table of them


def test_the_curve_of_the_figure_ends_at_the_error_of_all(shown, drawn):
    table, curve = shown.predictions[shown.primary], drawn["abstention"].lines[0].get_ydata()
    assert curve.tolist() == risk_curve(table).tolist()
    assert curve[-1] == pytest.approx(np.mean(table.y_pred != table.labels))
