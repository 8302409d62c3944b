"""Groups of people and abstention in the report: what is shown, and what is not claimed."""

import dataclasses

import numpy as np
import pytest

from toolkit.report.contents import summarise_study
from toolkit.report.document import Fold
from toolkit.report.people_views import draw_people
from toolkit.validation.people import make_sets, risk_curve, score_groups

SEX = ["f", "m"] * 5
#: Nothing is known of the last person.
LAND = [*["de"] * 5, *["en"] * 4, ""]


@pytest.fixture(scope="module")
def shown(facts):
    """The made-up study with groups of people and chosen errors."""
    cells = {"sex": SEX, "land": LAND}
    traits = {k: dict(zip(facts.tested_speakers, v, strict=True)) for k, v in cells.items()}
    tables = (facts.predictions[facts.primary], facts.predictions[facts.baseline])
    groups = score_groups(*tables, traits, "f1_micro")
    return dataclasses.replace(facts, groups=groups, errors=(0.05, 0.2, 0.4))


def section(facts, name):
    return next(s for s in summarise_study(facts).sections if s.name == name)


def test_a_study_without_the_options_has_neither_section_nor_figure(facts):
    assert not {"groups", "abstention"} & {s.name for s in summarise_study(facts).sections}
    assert not list(draw_people(facts))


def test_groups_stand_in_a_table_with_the_gap_below_them(shown):
    paragraph, figure, table = section(shown, "groups").parts
    names = [row[0].text for row in table.rows]

    assert names[:3] == ["sex: f", "sex: m", "sex: largest gap"]
    assert names[3:] == ["land: de", "land: en", "land: largest gap"]
    assert "[" in table.rows[0][1].text
    assert "[" not in table.rows[4][1].text  # four people
    assert table.rows[2][7].text == ".0079"  # 2 of 252 ways
    assert "No land is known of 1 of 10 people." in paragraph.text
    assert figure.alt == paragraph.text


def test_a_gap_is_named_only_where_it_was_shown(shown):
    gap = dataclasses.replace(
        next(g for g in shown.groups if not g.group), p_adjusted=0.05, value=0.25
    )
    for p, word in ((0.05, "A gap by sex"), (0.051, "No gap by sex")):
        groups = [dataclasses.replace(gap, p_adjusted=p)]
        text = section(dataclasses.replace(shown, groups=groups), "groups").parts[0].text
        assert text.startswith(f"{word} was shown: ")
        assert "0.250 above" in text


def test_the_figure_names_the_best_and_the_worst_person(shown):
    ax = dict(draw_people(shown))["groups"]
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


def test_no_set_is_shown_below_the_error_that_ten_people_can_keep_to(shown):
    paragraph, fold = section(shown, "abstention").parts
    _, table, people = fold.parts

    assert isinstance(fold, Fold)
    assert "no error below 0.100 can be kept to, for a new person none below 0.091" in (
        paragraph.text
    )
    assert [cell.text for cell in table.rows[0][4:]] == ["\N{EN DASH}"] * 5
    sets = make_sets(shown.predictions[shown.primary], 0.2)
    rates = list(sets.coverage.values())
    assert table.rows[1][4].value == pytest.approx(np.mean(rates))
    assert table.rows[1][5].value == min(rates)
    assert people.header[1:] == ("coverage at 0.2", "mean size", "coverage at 0.4", "mean size")
    assert [row[1].value for row in people.rows] == rates
    none = dataclasses.replace(shown, errors=(0.05,))
    assert len(section(none, "abstention").parts[1].parts) == 2  # no sets, no table of them
    assert dict(draw_people(none))["abstention"]


def test_the_curve_of_the_figure_ends_at_the_error_of_all(shown):
    ax = dict(draw_people(shown))["abstention"]
    table = shown.predictions[shown.primary]

    assert ax.lines[0].get_ydata().tolist() == risk_curve(table).tolist()
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(np.mean(table.y_pred != table.labels))
