"""Caveats: each is listed where it holds, and only there."""

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.models import SPACES
from toolkit.report import summarise_study
from toolkit.report.answer import caveats_section
from toolkit.report.performance import _describe_data
from toolkit.report.protocol import closing_sections
from toolkit.validation import score_predictions


def caveats(facts):
    return "\n".join(caveats_section(facts).parts[0].texts)


def with_modality(facts, **values):
    data = copy.deepcopy(dict(facts.data))
    data["modalities"]["text"] |= values
    return dataclasses.replace(facts, data=data)


def with_records(facts, **values):
    params = copy.deepcopy(dict(facts.params))
    for fold in ("00", "03"):
        params["text"][fold]["record"] = params["text"][fold]["record"] | values
    return dataclasses.replace(facts, params=params)


def test_nothing_is_said_without_a_reason(make_facts, make_search):
    facts = make_facts(
        skills=(("audio", 0.8), ("text", 0.9)),
        sessions=False,
        per_speaker=200,
        searches=make_search,
    )
    named = caveats(facts)

    for word in (
        "generated",
        "Only",
        "Perfect score",
        "single label",
        "time-limited",
        "near-duplicates",
    ):
        assert word not in named
    assert "No utterance of" not in named
    assert "leave out the variance over training sets" in named


@pytest.mark.parametrize(
    ("n", "counted", "intervals"),
    [
        (1, "Only 1 speaker was tested", "there are no intervals"),
        (4, "Only 4 speakers were tested", "there are no intervals"),
        (8, "Only 8 speakers were tested", "intervals are wide"),
    ],
)
def test_few_speakers_and_undecidable_tests_are_said(make_facts, n, counted, intervals):
    named = caveats(make_facts(n_speakers=n))

    assert f"{counted}: {intervals} and tests have little power." in named
    assert ("No comparison is decidable" in named) == (n < 6)
    # A test that cannot show a difference shows none too many.
    assert ("Tests then show too many differences" in named) == (n == 8 and "S00 has" in named)


@pytest.mark.parametrize("n_speakers", [4, 10])
def test_intervals_are_mentioned_where_they_are(make_facts, n_speakers):
    facts = make_facts(n_speakers=n_speakers)
    shown = {facts.score(name).low is not None for name in facts.predictions}

    report = summarise_study(facts)

    assert shown == {n_speakers > 4}
    captions = [part.caption for part in report.parts() if hasattr(part, "caption")]
    text = " ".join(
        [*captions, *(part.text for part in report.parts() if hasattr(part, "text"))]
    )
    assert ("with 95 % intervals over speakers" in text) == (n_speakers > 4)
    assert ("Intervals are 95 % delete-one-speaker" in text) == (n_speakers > 4)
    assert ("without intervals (below five speakers)" in text) == (n_speakers < 5)


def test_a_system_that_was_not_shown_to_beat_the_baseline_is_named(make_facts):
    facts = make_facts(skills=(("audio", 0.2), ("text", 0.9), ("face", 0.0)), fused=())
    shown = {
        name: facts.compare(name, facts.baseline).shows_difference for name in facts.modalities
    }
    rate = f"the no-information rate ({facts.score('no-information').value:.3f})"

    named = caveats(facts)

    assert shown == {"audio": False, "text": True, "face": True}
    p = f"{facts.compare('audio', facts.baseline).p_adjusted:.4f}".removeprefix("0")
    assert f"No difference from {rate} was shown for audio (smallest adjusted p {p})." in named
    assert f"Below {rate}, which uses no feature: face." in named
    assert "majority rate" not in named


def test_the_larger_baseline_is_the_one_to_beat(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    tables = dict(facts.predictions)
    constant = tables["no-information"]
    # A majority that happens to follow the labels is right more often than any constant.
    tables["majority"] = dataclasses.replace(
        tables["majority"], proba=np.eye(4)[constant.labels], y_pred=constant.labels
    )

    assert facts.baseline == "no-information"
    assert dataclasses.replace(facts, predictions=tables).baseline == "majority"


def test_a_perfect_score_is_a_reason_to_look_for_labels_in_the_features(make_facts):
    facts = make_facts(skills=(("text", 0.9),), fused=())
    perfect = dataclasses.replace(facts.score("text-logistic"), value=1.0)
    scores = [perfect if s == facts.score("text-logistic") else s for s in facts.scores]
    warning = "Perfect score of text-logistic. This is rare: check for labels in the features."

    assert warning in caveats(dataclasses.replace(facts, scores=scores))
    assert "Perfect score" not in caveats(facts)


@pytest.mark.parametrize("n_speakers", [4, 6])
@pytest.mark.parametrize("value", [0, 1])
def test_an_interval_that_is_a_bound_is_explained(make_facts, n_speakers, value):
    facts = make_facts(n_speakers=n_speakers)
    text = facts.predictions["text"]
    y_pred = text.labels if value else (text.labels + 1) % 4
    exact = dataclasses.replace(text, y_pred=y_pred, proba=np.eye(4)[y_pred])
    scores = [*facts.scores, *score_predictions(exact)]
    explained = "A score of exactly 0 or 1 has no spread over speakers."

    assert (explained in caveats(dataclasses.replace(facts, scores=scores))) == (n_speakers > 4)
    plain = [s for s in facts.scores if s.value not in {0, 1}]
    assert explained not in caveats(dataclasses.replace(facts, scores=plain))


def test_one_label_per_person_is_a_caveat(facts):
    single = [[40, 0, 0, 0] if i % 2 else [0, 0, 40, 0] for i in range(len(facts.counts))]
    two = [*single[1:], [39, 1, 0, 0]]
    warning = "Each speaker has a single label"

    assert warning in caveats(dataclasses.replace(facts, counts=single))
    assert warning not in caveats(dataclasses.replace(facts, counts=two))


def test_a_class_without_test_rows_is_named_with_its_folds(facts):
    tables = dict(facts.predictions)
    table = tables["majority"]
    labels = np.where((table.folds == 2) & (table.labels == 1), 0, table.labels)
    tables["majority"] = dataclasses.replace(table, labels=labels)

    named = caveats(dataclasses.replace(facts, predictions=tables))

    assert "No utterance of sadness is among the test rows of fold 02." in named


def test_a_class_without_training_rows_is_named_with_its_folds(facts):
    changed = with_records(facts, absent_classes=["anger"])
    named = caveats(changed)

    assert "text: no utterance of anger was left to train on in folds 00 and 03;" in named
    assert named.count("was left to train on") == 1
    changed.params["audio"]["03"]["record"] = changed.params["text"]["03"]["record"]
    named = caveats(changed)
    assert "text: no utterance of anger was left to train on in folds 00 and 03;" in named
    assert "audio: no utterance of anger was left to train on in fold 03;" in named
    changed.params["audio"]["00"]["record"] = changed.params["text"]["03"]["record"]
    assert "audio and text: no utterance of anger was left to train on in folds" in caveats(
        changed
    )


def test_random_oversampling_in_place_of_smote_is_said(facts):
    named = caveats(with_records(facts, fallbacks=["1"]))

    assert "text: in 2 folds a class had too few rows for SMOTE" in named


def test_shared_text_is_counted(facts):
    named = caveats(with_modality(facts, same_as_other_speaker=3, near_other_speaker=5))

    assert "Modality text: 3 utterances hold the same features" in named
    assert "5 utterances are near-duplicates" in named
    assert "Modality audio" not in named


def test_generated_recordings_are_said(facts):
    data = dict(facts.data) | {"generated": True}

    assert "generated by this software" in caveats(dataclasses.replace(facts, data=data))


def test_time_limited_searches_are_called_not_reproducible(make_facts, make_search):
    facts = make_facts(searches=lambda seed: make_search(seed, stopped_by="time"))

    assert "20 (100 %) searches were time-limited" in caveats(facts)


@pytest.mark.parametrize("end", ["high", "low", None])
def test_an_optimum_at_the_edge_of_the_space_is_named(make_facts, make_search, end):
    ends = SPACES["lightgbm"]["learning_rate"]
    rate = {"high": ends.high, "low": ends.low, None: (ends.low * ends.high) ** 0.5}[end]
    facts = make_facts(searches=lambda seed: make_search(seed, learning_rate=rate))

    named = caveats(facts)

    said = f"text: learning_rate lies at the {end} end of its range in 10 of 10 folds"
    assert (said in named) == (end is not None)
    assert "num_leaves" not in named


@pytest.mark.parametrize(("chosen", "named"), [(0.3, True), (0.12, False)])
def test_the_edge_is_that_of_the_users_own_space(make_facts, make_search, chosen, named):
    facts = make_facts(searches=lambda seed: make_search(seed, learning_rate=chosen))
    own = {"space": {"lightgbm": {"learning_rate": [0.01, 0.3]}}}
    facts = dataclasses.replace(facts, options=dict(facts.options) | own)

    assert ("text: learning_rate lies at the high end" in caveats(facts)) == named


@pytest.mark.parametrize(("chosen", "end"), [(0.1, "low"), (0.2, None), (0.4, "high")])
def test_the_edge_of_a_grid_is_its_first_and_last_value(make_facts, make_search, chosen, end):
    facts = make_facts(searches=lambda seed: make_search(seed, learning_rate=chosen))
    grid = {"learning_rate": [0.1, 0.2, 0.4], "num_leaves": [8, 15]}
    own = {"sampler": "grid", "grid": {"lightgbm": grid}}

    named = caveats(dataclasses.replace(facts, options=dict(facts.options) | own))

    for each in ("low", "high"):
        assert (f"text: learning_rate lies at the {each} end" in named) == (each == end)
    assert "num_leaves" not in named


@pytest.mark.parametrize(("quick", "limit"), [(False, "limit"), (True, "limit of --quick")])
def test_rounds_at_their_limit_are_named(make_facts, make_search, quick, limit):
    facts = make_facts(
        searches=lambda seed: dataclasses.replace(make_search(seed), n_rounds=200)
    )
    facts = dataclasses.replace(facts, options=dict(facts.options) | {"quick": quick})

    assert (
        f"Boosting stopped at the {limit} of 200 rounds: audio in 10 of 10 folds and text in "
        "10 of 10 folds. More rounds may do better." in caveats(facts)
    )


@pytest.mark.parametrize("outer", ["speaker", "5", "split", "speaker+content"])
def test_partners_in_training_are_named_where_sessions_are_not_held_out(make_facts, outer):
    facts = dataclasses.replace(make_facts(outer=outer), n_known_session=40)
    known = "40 (10 %) of the tested utterances are from sessions that are also in the training"

    assert known in caveats(facts)
    assert ("--outer session holds out both partners." in caveats(facts)) == (outer != "split")
    assert "dialogue partner" not in caveats(dataclasses.replace(facts, n_known_session=0))


@pytest.mark.parametrize("change", ["two sessions", "a speaker in two sessions"])
def test_sessions_that_cannot_be_held_out_are_not_recommended(make_facts, change):
    facts = make_facts(n_speakers=4 if change == "two sessions" else 8)
    table = next(iter(facts.predictions.values()))
    assert facts.separable_sessions == (change != "two sessions")
    if change != "two sessions":
        sessions = table.sessions.copy()
        sessions[0] = sessions[-1]
        moved = {
            n: dataclasses.replace(t, sessions=sessions) for n, t in facts.predictions.items()
        }
        facts = dataclasses.replace(facts, predictions=moved)

    assert "from sessions that are also in the training" in caveats(facts)
    assert "--outer session" not in caveats(facts)


def test_no_speaker_of_several_equal_ones_is_singled_out(make_facts):
    named = caveats(make_facts(n_speakers=3))

    assert "may be about that person alone" not in named
    assert "The intervals describe new speakers" not in named
    assert "The intervals describe new speakers" in caveats(make_facts(n_speakers=5))


def test_models_without_contributions_are_named(facts):
    attribution = SimpleNamespace(system="audio", totals={"audio": None})
    partly = dataclasses.replace(facts, attribution=attribution)
    whole = SimpleNamespace(system="audio", totals={"audio": None, "text": None})

    assert (
        "The contributions of text are missing; the report shows those of audio. Run the same "
        "command again: it computes them, or names the reason." in caveats(partly)
    )
    named = caveats(dataclasses.replace(facts, attribution=whole)) + caveats(facts)
    assert "contributions of" not in named


@pytest.mark.parametrize("system", ["text", "text-logistic", "early"])
def test_every_system_with_uncalibrated_probabilities_is_named(facts, system):
    scores = [
        dataclasses.replace(s, value=0.01 if s.system == system else 0.5)
        if (s.metric, s.scope) == ("ece_p", "all")
        else s
        for s in facts.scores
    ]
    facts = dataclasses.replace(facts, scores=scores)

    assert (
        f"The calibration error of {system} is larger than chance explains among independent "
        "utterances (p unadjusted)."
    ) in caveats(facts)


def test_a_better_logistic_regression_is_said(facts):
    scores = [
        dataclasses.replace(s, value=0.99)
        if (s.system, s.metric, s.scope) == ("text-logistic", "f1_micro", "all")
        else s
        for s in facts.scores
    ]

    named = caveats(dataclasses.replace(facts, scores=scores))

    assert (
        "A logistic regression on the same features has a better score than "
        f"text (0.990 against {facts.score('text').value:.3f}; " in named
    )
    assert "audio (" not in named.partition("A logistic regression")[2].partition("\n")[0]


@pytest.mark.parametrize("metric", ["log_loss", "brier", "f1_macro"])
def test_no_caveat_calls_a_lower_loss_a_higher_score(make_facts, make_search, metric):
    facts = make_facts(
        skills=(("text", 0.1),),
        fused=(),
        metric=metric,
        searches=lambda seed: dataclasses.replace(make_search(seed), n_rounds=200),
    )
    value = 1.0 if facts.sign > 0 else 0.0
    scores = [
        dataclasses.replace(s, value=value)
        if (s.system, s.metric, s.scope) == ("text-logistic", metric, "all")
        else s
        for s in facts.scores
    ]

    named = caveats(dataclasses.replace(facts, scores=scores))

    assert "A logistic regression on the same features has a better score" in named
    assert "More rounds may do better." in named
    assert "higher" not in named


@pytest.mark.parametrize(("trials", "few"), [(1, True), (4, True), (5, False)])
def test_few_trials_are_called_few(facts, trials, few):
    options = dict(facts.options) | {"trials": trials}
    named = caveats(dataclasses.replace(facts, options=options))

    assert ("per search: few combinations of hyperparameters were tried." in named) == few
    assert "defaults" not in named


def test_missing_rows_and_unfinished_systems_are_said(make_facts):
    facts = dataclasses.replace(make_facts(absent=7), unfinished=("video",))

    named = caveats(facts)

    assert "text is missing in 7 (2 %) of the tested utterances" in named
    assert "Not finished, and in no table yet: " in named
    assert "video. Run the same command again." in named


@pytest.mark.parametrize(("share", "named"), [(0.2, False), (0.3, True)])
def test_a_speaker_with_much_of_the_data_is_named(facts, share, named):
    tables = dict(facts.predictions)
    table = tables["majority"]
    large = int(share * len(table))
    speakers = np.array(
        ["S00"] * large + [f"S{i % 9 + 1:02d}" for i in range(len(table) - large)]
    )
    tables["majority"] = dataclasses.replace(table, speakers=speakers)

    found = caveats(dataclasses.replace(facts, predictions=tables))

    assert (f"S00 has {large} ({100 * share:.0f} %) of the tested utterances" in found) == named


def test_one_of_two_speakers_with_most_of_the_utterances_is_named(make_facts):
    facts = make_facts()
    table = facts.predictions["majority"]
    n_large = 2 * len(table) // 5
    speakers = np.array(["S00"] * n_large + ["S01"] * n_large)
    speakers = np.append(
        speakers, [f"S{i % 8 + 2:02d}" for i in range(len(table) - 2 * n_large)]
    )
    majority = dataclasses.replace(table, speakers=speakers)

    found = caveats(
        dataclasses.replace(facts, predictions={**facts.predictions, "majority": majority})
    )

    assert f"S00 has {n_large} (40 %) of the tested utterances" in found


def test_the_share_of_tested_utterances_with_known_content_is_given(facts):
    n = len(facts.predictions["majority"])
    known = dataclasses.replace(facts, n_contents=11, n_known_content=n // 2)
    split = dataclasses.replace(known, options=dict(facts.options) | {"outer": "split"})

    assert (
        f"{n // 2:,} (50 %) of the tested utterances have their script, scene or sentence (one "
        "of 11) in the training data, by other speakers."
    ) in caveats(known)
    assert (
        "content premium of toolkit premium measures this; --outer speaker+content"
        in caveats(known)
    )
    assert "premium measures this." in caveats(split)
    assert "script" not in caveats(facts)
    assert "script" not in caveats(dataclasses.replace(known, n_contents=1))


def test_a_protocol_with_held_out_content_is_described(facts):
    options = dict(facts.options) | {"outer": "session+content", "content_parts": 3}
    audit = dict(facts.audit) | {"held_out_unit": "session+content"}
    changed = dataclasses.replace(facts, options=options, audit=audit, n_contents=11)

    sections = closing_sections(changed)
    text = " ".join(
        part.text for section in sections for part in section.parts if hasattr(part, "text")
    )

    assert "One session at a time was held out, both partners together." in text
    assert (
        "Content was held out as well: 11 scripts, scenes or sentences were divided into 3 "
        "parts of similar class shares. Each fold tests one held-out session on one part, and "
        "trains on utterances of neither."
    ) in text
    assert "inner folds grouped by session and content" in text
    assert "an utterance of a held-out session or content was used" in text
    assert _describe_data(changed).endswith(
        "one session held out at a time, and one of 3 parts of the content"
    )
