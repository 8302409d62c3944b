"""Sections on performance: computed again from predictions, and nothing shown twice."""

import dataclasses

import numpy as np
import pytest

from toolkit.report import draw_figures, summarise_study
from toolkit.report.document import Choice, Figure, Fold, Table
from toolkit.validation import Score


def section(facts, name):
    return next(s for s in summarise_study(facts).sections if s.name == name)


def tables(facts):
    return {
        part.name: part for part in summarise_study(facts).parts() if isinstance(part, Table)
    }


def shown_tables(facts, name):
    """Names of the tables of a section that no fold hides."""
    return [part.name for part in section(facts, name).parts if isinstance(part, Table)]


def test_the_title_is_study_and_data_set(facts):
    assert summarise_study(facts).title == "feelings: iemocap/dataset.csv"
    data = dict(facts.data) | {"generated": True}
    generated = dataclasses.replace(facts, data=data)
    assert summarise_study(generated).title == "feelings: generated data"


def test_the_caption_of_the_scores_holds_data_set_and_protocol(make_facts):
    caption = tables(make_facts(outer="session"))["scores"].caption

    assert caption.startswith(
        "Scores on iemocap/dataset.csv (400 utterances, 10 speakers, 4 classes); one session "
        "held out at a time."
    )


def test_long_tables_are_folded(facts):
    assert shown_tables(facts, "scores") == ["scores", "classes"]
    assert shown_tables(facts, "comparisons") == ["planned"]
    assert shown_tables(facts, "speakers") == []
    assert shown_tables(facts, "calibration") == []
    assert shown_tables(facts, "data") == ["balance", "modalities"]


def test_classes_of_the_primary_system_are_shown_and_all_others_folded(facts):
    made = tables(facts)

    assert {row[0].text for row in made["classes"].rows} == {"early"}
    assert {row[0].text for row in made["all-classes"].rows} == {*facts.systems}


@pytest.mark.parametrize("one_speaker", [True, False])
def test_folds_have_a_table_where_they_are_not_the_speakers(facts, one_speaker):
    if not one_speaker:
        halves = {
            name: dataclasses.replace(table, folds=table.folds // 2)
            for name, table in facts.predictions.items()
        }
        scores = [s for s in facts.scores if not (s.scope == "fold" and int(s.group or 0) > 4)]
        facts = dataclasses.replace(facts, predictions=halves, scores=scores)

    assert ("by-fold" in tables(facts)) != one_speaker
    assert "by-speaker" in tables(facts)


def test_a_zero_width_interval_is_explained_where_there_is_one(facts):
    note = tables(facts)["scores"].note
    spread = [
        dataclasses.replace(s, low=0.1, high=0.9) if s.metric == "uar" else s
        for s in facts.scores
    ]

    majority = facts.score("majority", "uar")
    assert f"{majority.low:.3f}" == f"{majority.high:.3f}" == "0.250"
    assert "An interval of zero width" in note
    note = tables(dataclasses.replace(facts, scores=spread))["scores"].note
    assert "zero width" not in note


def test_the_confusion_of_the_primary_system_comes_first_with_those_of_the_regressions(facts):
    (choice,) = section(facts, "confusion").parts

    assert isinstance(choice, Choice)
    names = [matrix.option for matrix in choice.parts]
    assert names[0] == "early"
    assert {*names} == {*facts.systems, "audio-logistic", "text-logistic"}
    for matrix in choice.parts:
        table = facts.predictions[matrix.option]
        assert np.diag(matrix.counts).sum() == (table.y_pred == table.labels).sum()


def test_planned_differences_are_those_of_the_system_minus_its_reference(facts):
    table = tables(facts)["planned"]
    row = next(row for row in table.rows if row[0].text == "text")

    pairs = {frozenset((p.a, p.b)) for p in facts.comparisons if p.family == "confirmatory"}
    assert {row[0].text for row in table.rows} <= {name for pair in pairs for name in pair}
    for column, other in ((1, facts.baseline), (3, "text-logistic")):
        pair = facts.compare("text", other)
        gain = facts.score("text").value - facts.score(other).value
        assert frozenset(("text", other)) in pairs
        assert row[column].value == pytest.approx(gain)
        assert row[column].best == pair.shows_difference
        assert row[column + 1].value == pair.p_adjusted
    assert [cell.value for cell in row[5:]] == [None, None]  # text is no fusion


def count_pairs(table):
    """ROC AUC by its definition: pairs of both classes that are in the right order."""
    ahead = table.proba[table.labels == 1, 1][:, None] - table.proba[table.labels == 0, 1]
    return (ahead > 0).mean() + (ahead == 0).mean() / 2


def test_two_classes_have_curves_and_areas(make_facts):
    facts = make_facts(classes=("calm", "angry"))
    table = tables(facts)["areas"]

    stems = [part.stem for part in section(facts, "scores").parts if isinstance(part, Figure)]
    assert stems == ["roc"]
    assert "roc" in {stem for stem, _ in draw_figures(facts)}
    assert table.rows[0][0].text == "early"
    assert len(table.rows) == 5 + 1
    assert table.rows[-1][0].text == "majority"
    for row in table.rows:
        assert row[1].value == pytest.approx(count_pairs(facts.predictions[row[0].text]))
        assert row[1].text.endswith("]")
    assert "angry" in table.caption


def test_no_curve_is_compared_with_chance_where_people_are_held_out(make_facts):
    facts = make_facts(classes=("calm", "angry"))
    majority = facts.predictions["majority"]
    labels = majority.folds % 2  # one label per person
    shares = np.array([labels[majority.folds != fold].mean() for fold in majority.folds])
    proba = np.column_stack([1 - shares, shares])
    priors = dataclasses.replace(majority, labels=labels, proba=proba, y_pred=proba.argmax(1))
    held_out = dataclasses.replace(
        facts, predictions=dict(facts.predictions) | {"majority": priors}
    )

    area = tables(held_out)["areas"].rows[-1][1]

    assert area.value == count_pairs(priors) == 0
    [figure] = [part for part in section(facts, "scores").parts if isinstance(part, Figure)]
    assert "chance" not in figure.caption
    assert "Dashed: .5 and the class share." in figure.caption
    pushed = "Holding people out pushes it below .5"
    assert pushed in tables(facts)["areas"].note
    assert (
        pushed not in tables(make_facts(classes=("calm", "angry"), one_fold=True))["areas"].note
    )


@pytest.mark.parametrize("code", [0, 1])
def test_areas_of_one_tested_class_are_dashes_and_have_no_curve(make_facts, code):
    facts = make_facts(classes=("calm", "angry"))
    tested = {
        name: dataclasses.replace(table, labels=np.full(len(table), code))
        for name, table in facts.predictions.items()
    }
    facts = dataclasses.replace(facts, predictions=tested)

    cells = [row[1:] for row in tables(facts)["areas"].rows]

    assert {cell.text for row in cells for cell in row} == {"\N{EN DASH}"}
    assert "roc" not in {stem for stem, _ in draw_figures(facts)}
    assert not any(isinstance(part, Figure) for part in section(facts, "scores").parts)


def test_more_classes_have_no_areas(facts):
    assert "areas" not in tables(facts)
    assert "roc" not in {stem for stem, _ in draw_figures(facts)}


def test_a_learning_curve_is_shown_where_there_is_one(facts):
    curve = {
        size: Score("x", "f1_micro", "all", "", value, value - 0.1, value + 0.1, "jackknife", 9)
        for size, value in ((2, 0.4), (9, 0.6))
    }
    with_curve = dataclasses.replace(facts, curve=curve)

    ax = dict(draw_figures(with_curve))["learning-curve"]
    text = section(with_curve, "speakers").parts[1].text

    assert text.startswith(
        "Learning curve: F1-micro 0.400 [0.300, 0.500] with 2 training speakers, "
        "0.600 [0.500, 0.700] with 9."
    )
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert points.get_xdata().tolist() == [2, 9]
    assert points.get_ydata().tolist() == [0.4, 0.6]
    assert "learning-curve" not in {stem for stem, _ in draw_figures(facts)}


def test_the_class_balance_counts_utterances_and_speakers(facts):
    rows = {row[0].text: row for row in tables(facts)["balance"].rows}
    counts = np.array(facts.counts)

    for code, name in enumerate(facts.classes):
        assert rows[name][1].value == counts[:, code].sum()
        assert rows[name][2].value == (counts[:, code] > 0).sum()
        assert [cell.value for cell in rows[name][3:]] == [
            counts[:, code].min(),
            np.median(counts[:, code]),
            counts[:, code].max(),
        ]


def test_the_protocol_ends_with_a_citation_of_the_version_used(facts):
    fold = section(facts, "protocol").parts[-1]

    assert isinstance(fold, Fold)
    assert fold.parts[0].kind == "code"
    assert fold.parts[0].text.startswith("@software{")
    assert "version = {1.2.3}" in fold.parts[0].text


@pytest.mark.parametrize("linear", [False, True])
def test_the_protocol_names_what_is_fixed_and_what_is_learnt(make_facts, linear):
    facts = make_facts(fused=(("early", 0.5), ("vote", 0.5), ("soft", 0.5), ("stacked", 0.5)))
    if linear:
        part = {"linear": {"C_times_p": 10, "linear": 0.4, "trees": 0.6}}
        for fold in facts.params["text"].values():
            fold["record"] = fold["record"] | part

    text = section(facts, "protocol").parts[0].text

    assert "Late fusions with a fixed rule (vote and soft) learn nothing." in text
    assert "Late fusions with learnt weights (stacked) learn from out-of-fold" in text
    assert ("a multinomial logistic regression on the same columns" in text) == linear


def test_speakers_that_share_the_highest_score_are_counted(make_facts):
    facts = make_facts(fused=(), n_speakers=4)
    values = dict(zip(facts.tested_speakers, (0.25, 0.75, 0.75, 0.5), strict=True))
    scores = [
        dataclasses.replace(s, value=values.get(s.group, s.value))
        if (s.metric, s.scope) == ("f1_micro", "speaker")
        else s
        for s in facts.scores
    ]

    lead = section(dataclasses.replace(facts, scores=scores), "speakers").parts[0].text

    lowest = facts.tested_speakers[0]
    assert lead == f"F1-micro of audio: from 0.250 ({lowest}) to 0.750 (2 speakers)."


@pytest.mark.parametrize("other", ["mean", "value"])
@pytest.mark.parametrize("statistic", ["tfidf", "hashing", "value"])
def test_the_protocol_describes_the_features_of_every_modality(facts, statistic, other):
    modalities = {name: dict(each) for name, each in facts.data["modalities"].items()}
    for name, kind in (("text", statistic), ("audio", other)):
        modalities[name]["statistics"] = [kind]
        modalities[name]["frames"] = modalities[name]["frames"] if kind == "mean" else None
    data = dict(facts.data) | {"modalities": modalities}

    described = section(dataclasses.replace(facts, data=data), "protocol")
    text = described.parts[0].text

    unchanged = [name for name in modalities if modalities[name]["statistics"] == ["value"]]
    for sentence, holds in {
        "pooled over time into functionals: audio (12 dimensions, 1 statistic).": other
        == "mean",
        f"The features of {' and '.join(unchanged)} have no time axis": bool(unchanged),
        "The transcripts of text became hashed n-grams, without a fit.": statistic == "hashing",
        "fitted again within each training set, inner or outer": statistic == "tfidf",
        "in systems with text, from the rows of each training set.": statistic == "tfidf",
    }.items():
        assert (sentence in text) == holds
    assert ("used unchanged" in text) == bool(unchanged)


def test_best_single_is_planned_where_it_was_compared(make_facts):
    facts = make_facts()
    unfinished = dataclasses.replace(
        facts,
        comparisons=[p for p in facts.comparisons if "best-single" not in {p.a, p.b}],
    )

    for study, compared in ((facts, True), (unfinished, False)):
        text = section(study, "comparisons").parts[0].text
        assert ("each fusion with best-single" in text) == compared


@pytest.mark.parametrize("metric", ["f1_micro", "log_loss"])
def test_inner_scores_are_not_compared_with_outer_ones(make_facts, metric):
    facts = make_facts(metric=metric)
    report = summarise_study(facts)
    figure = next(p for p in report.parts() if isinstance(p, Figure) and p.stem == "search")

    for text in (figure.caption, tables(facts)["choices"].note):
        assert "cannot be compared with the scores above." in text
        assert "optimistic" not in text
