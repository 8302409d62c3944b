"""Final models: fitted on everybody, handed on with checksums, applied to new utterances."""

import csv
import io
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from toolkit.data import ManifestError
from toolkit.data.corpora import CLASSES
from toolkit.data.manifest import read_unlabelled
from toolkit.files import FolderError
from toolkit.models import FittedBooster, class_priors
from toolkit.models.libraries import LIGHTGBM, XGBOOST
from toolkit.pooling import pool_manifest
from toolkit.study.cli import main
from toolkit.study.config import StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.outcome import _round
from toolkit.study.predict import _find_labels, _format_new, predict_new
from toolkit.study.runner import _rebuild_report, run_study
from toolkit.study.verify import _verify_study
from toolkit.validation import FINAL, Predictions, score_predictions

pytestmark = pytest.mark.usefixtures("no_drawings")


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def new(corpus, tmp_path):
    """The corpus under other speakers, without labels; one file of text is not there."""
    folder = shutil.copytree(corpus, tmp_path / "new")
    with (folder / "dataset.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    header = [name.strip() for name in header]
    kept = [i for i, name in enumerate(header) if "label" not in name]
    for number, row in enumerate(rows):
        row[header.index("speakers")] = f"P{number % 4}" if number else "F01"
        row[header.index("file_name_list")] = f"new{number:03d}"
    rows[5][header.index("lexical_features")] = ""
    with (folder / "dataset.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[row[i] for i in kept] for row in [header, *rows[:20]]])
    return folder / "dataset.csv"


def edit(path, change):
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_a_final_model_saw_everybody_and_was_searched_like_the_others(finished, manifest):
    unit = StudyFolder(finished).read_unit("text", FINAL)
    fold = StudyFolder(finished).read_unit("text", 0)

    refit = next(e for e in unit.ledger if (e["fit"], e["role"]) == ("refit", "train"))
    assert refit["n_rows"] == len(manifest)
    assert unit.inner_rows.tolist() == list(range(len(manifest)))
    assert len(unit.proba) == 0
    assert len(unit.search.trials) == len(fold.search.trials) == 2
    assert {e["fit"] for e in unit.ledger} == {e["fit"] for e in fold.ledger}


def test_out_of_fold_rows_of_everybody_hold_people_out(finished):
    unit = StudyFolder(finished).read_unit("text", FINAL)
    trained = {e["fit"]: e["n_rows"] for e in unit.ledger if e["role"] == "train"}
    validated = {e["fit"]: e["n_rows"] for e in unit.ledger if e["role"] == "validate"}

    fresh = [fit for fit in validated if fit.startswith("out-of-fold")]
    assert sum(validated[fit] for fit in fresh) == len(unit.inner_rows)
    assert all(trained[fit] + validated[fit] == len(unit.inner_rows) for fit in fresh)


def test_every_system_of_the_tables_is_applied(finished, new):
    result = predict_new(finished, new)

    tables = set(pd.read_csv(finished / "predictions.csv")["system"])
    baselines = {name for name in tables if name.endswith("-logistic")}
    baselines |= {"majority", "no-information"}
    assert set(result.names) == tables - baselines
    for said in result.systems.values():
        np.testing.assert_allclose(said.proba.sum(axis=1), 1, atol=1e-9)


def test_the_final_model_is_what_predicts(finished, new):
    with new.open(newline="") as file:
        cells = [row["lexical_features"] for row in csv.DictReader(file)]
    values = [np.load(new.parent / cell.lstrip("/")) for cell in cells if cell]

    said = predict_new(finished, new).systems["text"]

    booster = FittedBooster.load(finished / "models" / "text" / "final")
    expected = booster.predict_proba(np.stack(values).astype(np.float32))
    np.testing.assert_array_equal(said.proba[said.present], expected)


def test_an_absent_modality_gets_the_class_shares_of_everybody(finished, new, manifest):
    text = predict_new(finished, new).systems["text"]

    assert text.present.tolist() == [row != 5 for row in range(20)]
    np.testing.assert_array_equal(text.proba[5], class_priors(manifest.labels, 4))


def test_a_modality_that_no_new_utterance_has_is_missing_everywhere(finished, new):
    def empty(rows):
        at = rows[0].index("visual_features")
        for row in rows[1:]:
            row[at] = ""

    edit(new, empty)
    systems = predict_new(finished, new).systems

    assert not systems["visual"].present.any()
    assert systems["early"].present.all()


def test_speakers_seen_in_training_are_flagged(finished, new, caplog):
    result = predict_new(finished, new)

    assert result.known.tolist() == [True] + [False] * 19
    assert "1 of 20 utterances are by 1 speaker(s) who were in training (F01)" in caplog.text
    rows = list(csv.DictReader(io.StringIO(_format_new(result.table()))))
    assert [r["in_training"] for r in rows[:3]] == ["1", "0", "0"]


def test_a_speaker_seen_in_training_is_flagged_in_another_spelling(finished, new):
    def respell(rows):
        at = rows[0].index("speakers")
        for row in rows[1:]:
            row[at] = row[at].replace("F01", "f 1")

    edit(new, respell)

    assert predict_new(finished, new).known.tolist() == [True] + [False] * 19


def test_an_utterance_of_the_study_is_flagged_without_its_speaker(
    finished, manifest, new, caplog
):
    known = str(manifest.utterances[0])

    def drop(rows):
        at = rows[0].index("speakers")
        rows[1][rows[0].index("file_name_list")] = known
        for row in rows:
            del row[at]

    edit(new, drop)
    result = predict_new(finished, new)

    assert result.utterances[result.known].tolist() == [known]
    rows = list(csv.DictReader(io.StringIO(_format_new(result.table()))))
    assert {r["in_training"] for r in rows if r["utterance"].startswith("new")} == {""}
    assert "1 of 20 utterances are in training under the same ids" in caplog.text


def test_a_file_that_is_not_there_is_a_missing_modality_where_that_is_allowed(
    finished, new, capsys
):
    def misname(rows):
        rows[3][rows[0].index("acoustic_features")] = "features/gone.npy"

    edit(new, misname)

    assert main(["predict", str(finished), str(new)]) == 2
    assert "'features/gone.npy' does not exist" in capsys.readouterr().err
    allowed = ["--missing", "allow", "--system", "audio"]
    assert main(["predict", str(finished), str(new), *allowed]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    lacking = [r["utterance"] for r in rows if r["present"] == "0"]
    assert lacking == ["new002"]


def test_other_dimensions_are_refused_in_words(finished, new):
    for path in (new.parent / "features" / "acoustic_features").rglob("*.npy"):
        np.save(path, np.load(path)[:, :7])

    with pytest.raises(ValueError, match=r"audio features .* 7 dim.* trained on .* 10 dim"):
        predict_new(finished, new)


def test_a_lost_time_axis_is_refused_in_words(finished, new):
    for path in (new.parent / "features" / "acoustic_features").rglob("*.npy"):
        np.save(path, np.load(path)[0])

    with pytest.raises(ValueError, match=r"no time axis and 10 dim.* a time axis and 10 dim"):
        predict_new(finished, new)


def test_a_lacking_modality_is_refused_in_words(finished, new):
    def drop(rows):
        at = rows[0].index("acoustic_features")
        for row in rows:
            del row[at]

    edit(new, drop)
    with pytest.raises(ManifestError, match="No column lists the files of modality 'audio'"):
        predict_new(finished, new)


def test_a_model_is_loaded_only_if_it_is_the_one_that_was_written(copy, new, monkeypatch):
    path = copy / "models" / "audio" / "final.txt"
    path.write_bytes(path.read_bytes() + b"\n")
    monkeypatch.setattr(type(LIGHTGBM), "load", lambda *_: pytest.fail("loaded"))

    with pytest.raises(FolderError, match=r"audio/final\.txt is not what was written; it was"):
        predict_new(copy, new)

    path.unlink()
    with pytest.raises(FolderError, match=r"audio/final\.txt is missing"):
        predict_new(copy, new)


def test_a_study_without_final_models_says_what_to_do(copy, new):
    for path in StudyFolder(copy).units.glob("*/final.zip"):
        path.unlink()
    _rebuild_report(copy)

    assert not (copy / "MODEL_CARD.md").exists()
    assert not list((copy / "models").rglob("final.*"))
    with pytest.raises(FolderError, match=r"holds no models/final\.json"):
        predict_new(copy, new)


def test_a_damaged_list_of_models_is_named(copy, new):
    (copy / "models" / "final.json").write_text("{}")

    with pytest.raises(FolderError, match=r"models/final\.json is damaged"):
        predict_new(copy, new)


FINAL_FAULTS = {
    "no object": lambda _: [],
    "a class too few": lambda f: f["classes"].pop(),
    "a class that is no text": lambda f: f["classes"].__setitem__(0, 3),
    "shares that are no numbers": lambda f: f["fusion"]["shares"].__setitem__(0, "x"),
    "shares below 0": lambda f: f["fusion"]["shares"].__setitem__(0, -1.0),
    "weights of other systems": lambda f: f["fusion"]["weighted"].append(1.0),
    "a pool without early fusion": lambda f: f["systems"].pop("early"),
    "a pool of other members": lambda f: f["fusion"]["log-pool"].pop("text (trees)"),
    "a weight of the pool that is no number": lambda f: f["fusion"]["log-pool"].update(
        {"text (trees)": "x"}
    ),
    "a pool that is no mapping": lambda f: f["fusion"].update({"log-pool": [0.5] * 5}),
    "coefficients of other classes": lambda f: f["fusion"]["stacked"]["coefficients"].pop(),
    "a rule that does not exist": lambda f: f["fusion"]["methods"].append("pickle"),
    "a best modality that does not exist": lambda f: f["fusion"].update({"best-single": "x"}),
    "offsets of other classes": lambda f: [
        o["values"].append(0.0) or o.update(kept=True) for o in f["fusion"]["offsets"].values()
    ],
    "a path for a system": lambda f: f["systems"].update({"../x": f["systems"]["text"]}),
    "a path for a file": lambda f: f["systems"]["text"]["files"].update({"../../a": "0"}),
    "a list for a system": lambda f: f["systems"].update(text=[]),
    "no systems": lambda f: f["systems"].clear(),
    "unknown statistics": lambda f: f["modalities"]["text"].update(statistics=["x"]),
    "dimensions below 0": lambda f: f["modalities"]["text"].update(n_dims=-1),
}


@pytest.mark.parametrize("fault", FINAL_FAULTS)
def test_a_crafted_list_of_models_is_refused_before_anything_is_loaded(
    fault, copy, new, monkeypatch
):
    path = copy / "models" / "final.json"
    final = json.loads(path.read_text())
    changed = FINAL_FAULTS[fault](final)
    path.write_text(json.dumps(changed if fault == "no object" else final))
    for library in (LIGHTGBM, XGBOOST):
        monkeypatch.setattr(type(library), "load", lambda *_: pytest.fail("loaded"))

    with pytest.raises(FolderError, match=r"models/final\.json is damaged"):
        predict_new(copy, new)


def test_without_early_the_fusions_that_need_it_are_left_out(copy, new):
    StudyFolder(copy).unit("early", FINAL).unlink()
    _rebuild_report(copy)

    systems = predict_new(copy, new).systems

    assert "early" not in systems
    assert "log-pool" not in systems
    assert "stacked" in systems


def test_the_pool_of_a_finished_study_is_its_stored_weights_by_hand(
    finished, new, manifest, tmp_path
):
    final = json.loads((finished / "models" / "final.json").read_text())
    weights = final["fusion"]["log-pool"]
    assert list(weights) == [
        *("audio (trees)", "early (linear)", "early (trees)", "text (trees)"),
        "visual (trees)",
    ]
    modalities = ("audio", "text", "visual")
    rows = read_unlabelled(new, modalities)
    tables = {
        name: pool_manifest(rows, name, statistics="minimal", cache=tmp_path)
        for name in modalities
    }
    product = np.ones((len(rows), 4))
    for member, weight in weights.items():
        system, part = member.removesuffix(")").split(" (")
        seen = modalities if system == "early" else [system]
        booster = FittedBooster.load(finished / "models" / system / "final")
        names = [name for m in seen for name in tables[m].names]
        values = np.hstack([tables[m].values for m in seen])
        values = values[:, [names.index(name) for name in booster.names]]
        present = np.any([tables[m].present for m in seen], axis=0)
        proba = np.tile(class_priors(manifest.labels, 4), (len(rows), 1))
        proba[present] = booster.predict_parts(values[present])[part]
        product *= proba**weight

    pooled = predict_new(finished, new).systems["log-pool"]

    assert not tables["text"].present.all()
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pooled.proba, expected, rtol=1e-9)


def test_verify_finds_a_changed_final_model_and_card(copy):
    (copy / "MODEL_CARD.md").write_text("perfect\n")
    path = copy / "models" / "text" / "final.txt"
    path.write_bytes(path.read_bytes() + b"\n")

    wrong = {c.name: c.differences for c in _verify_study(copy)[0] if c.differences}

    assert set(wrong) == {"MODEL_CARD.md", "checksums of models"}
    assert wrong["checksums of models"][0] == "models/text/final.txt is not what was written."


@pytest.mark.slow
def test_the_card_names_data_scores_and_limits_and_keeps_the_authors_words(copy):
    card = (copy / "MODEL_CARD.md").read_text()
    score = next(
        s
        for s in csv.DictReader((copy / "scores.csv").read_text().splitlines())
        if (s["system"], s["metric"], s["scope"]) == ("text", "f1_micro", "all")
    )
    value, low, high = (float(score[name]) for name in ("value", "low", "high"))
    assert f"{value:.3f} \\[{low:.3f}, {high:.3f}\\]" in card
    assert "**Generated data." in card
    assert "Not stated yet" in card

    (copy / "intended_use.md").write_text("For *teaching* only.\n")
    _rebuild_report(copy)

    card = (copy / "MODEL_CARD.md").read_text()
    assert "## Intended use\n\nFor *teaching* only.\n\n## Models" in card
    assert not any(check.differences for check in _verify_study(copy)[0])


def test_the_command_writes_one_row_per_utterance_by_the_primary_system(
    finished, new, tmp_path, capsys
):
    out = tmp_path / "new.csv"
    result = predict_new(finished, new)

    assert main(["predict", str(finished), str(new), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"20 utterances, predicted by early: {out}\n"
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert list(rows[0]) == [
        *("utterance", "speaker", "in_training", "present", "predicted"),
        *("p_angry", "p_sad", "p_happy", "p_neutral"),
    ]
    assert [row["utterance"] for row in rows] == result.utterances.tolist()
    codes = result.systems["early"].y_pred.tolist()
    assert [row["predicted"] for row in rows] == [result.classes[code] for code in codes]
    assert not (tmp_path / "new.scores.csv").exists()
    assert main(["predict", str(finished), str(new)]) == 0
    assert capsys.readouterr().out == out.read_text()
    assert main(["predict", str(finished), str(new), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["systems"] == ["early"]
    assert plain["predictions"][3]["predicted"] == rows[3]["predicted"]
    assert plain["predictions"][3]["p_sad"] == float(rows[3]["p_sad"])


def test_all_systems_come_below_each_other_without_class_offsets(finished, new, capsys):
    assert main(["predict", str(finished), str(new), "--all-systems"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    names = [row["system"] for row in rows]
    assert Counter(names).keys() == {
        *("audio", "text", "visual", "early", "best-single"),
        *("vote", "soft", "weighted", "stacked", "log-pool"),
    }
    assert set(Counter(names).values()) == {20}
    assert main(["predict", str(finished), str(new), "--system", "soft"]) == 0
    alone = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [{"system": "soft", **row} for row in alone] == [
        row for row in rows if row["system"] == "soft"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "new.xlsx"], "predictions are written as .csv or .parquet"),
        (["--out", "rows"], "predictions are written as .csv or .parquet"),
        (
            ["--system", "text-logistic"],
            "logistic regressions in the outer folds alone. Choose",
        ),
        (
            ["--system", "lips"],
            "lips cannot predict: it has no final model. Choose among audio",
        ),
        (["--system", "text", "--all-systems"], "give one of them"),
    ],
)
def test_the_command_refuses_other_files_and_systems(
    options, message, finished, new, *, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)

    assert main(["predict", str(finished), str(new), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("new.*"))


def test_a_parquet_file_holds_the_same_table(finished, new, tmp_path):
    out = tmp_path / "new.parquet"

    assert main(["predict", str(finished), str(new), "--out", str(out)]) == 0

    pd.testing.assert_frame_equal(
        pd.read_parquet(out), predict_new(finished, new).table(), check_dtype=False
    )


def test_probabilities_are_rounded_to_millionths_that_sum_to_1():
    rng = np.random.default_rng(0)
    proba = np.vstack([rng.dirichlet(np.ones(7), size=500), np.full((1, 7), 1 / 7), np.eye(7)])

    rounded = _round(proba)

    millionths = [[round(p * 10**6) for p in row] for row in rounded.tolist()]
    assert [[float(f"{p:.6f}") for p in row] for row in rounded.tolist()] == rounded.tolist()
    assert {sum(row) for row in millionths} == {10**6}
    assert np.abs(rounded - proba).max() < 1e-6
    assert millionths[500] == [142858] + [142857] * 6  # a tie goes to the first
    assert rounded[501:].tolist() == np.eye(7).tolist()


def test_paths_may_be_text_and_the_table_may_be_in_memory(finished, new, monkeypatch):
    expected = predict_new(finished, new).table()

    pd.testing.assert_frame_equal(predict_new(str(finished), str(new)).table(), expected)
    monkeypatch.chdir(new.parent)
    frame = pd.read_csv(new, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(predict_new(str(finished), frame).table(), expected)


@pytest.fixture
def labelled(corpus, tmp_path):
    """The corpus by 12 other speakers and one of the study; some labels are of no class."""
    folder = shutil.copytree(corpus, tmp_path / "labelled")
    with (folder / "dataset.csv").open(newline="") as file:
        header, *rows = csv.reader(file, skipinitialspace=True)
    for number, row in enumerate(rows):
        row[header.index("speakers")] = f"P{number % 12:02d}" if number else "F01"
        row[header.index("file_name_list")] = f"new{number:03d}"
    rows[3][-2], rows[4][-2], rows[5][-2] = "disgust", "", "7"
    with (folder / "dataset.csv").open("w", newline="") as file:
        csv.writer(file).writerows(row[:-1] for row in [header, *rows[:100]])  # codes alone
    return folder / "dataset.csv"


def test_labels_give_scores_of_the_unseen_speakers(
    finished, labelled, manifest, *, tmp_path, capsys, caplog
):
    out = tmp_path / "new.csv"
    result = predict_new(finished, labelled)

    assert main(["predict", str(finished), str(labelled), "--out", str(out)]) == 0

    assert f"Scores of the labels in the table: {tmp_path / 'new.scores.csv'}" in (
        capsys.readouterr().out
    )
    assert "2 of 100 utterances have no score: their labels (7, disgust)" in caplog.text
    with labelled.open(newline="") as file:
        truth = [row["emotion_labels"] for row in csv.DictReader(file)]
    # Row 0 is by a speaker of the study, and rows 3 to 5 have no label of a class.
    rows = [row for row in range(100) if row not in {0, 3, 4, 5}]
    found = result.systems["early"]
    expected = score_predictions(
        Predictions(
            system="early",
            classes=CLASSES,
            utterances=np.array([f"new{row:03d}" for row in rows]),
            speakers=np.array([f"P{row % 12:02d}" for row in rows]),
            sessions=None,
            folds=np.zeros(len(rows), dtype=np.int64),
            present=found.present[rows],
            labels=np.array([int(truth[row]) for row in rows]),
            proba=found.proba[rows],
        )
    )
    with (tmp_path / "new.scores.csv").open(newline="") as file:
        scores = list(csv.DictReader(file))
    assert [
        (float(s["value"]), s["low"], s["n"]) for s in scores if s["system"] == "early"
    ] == [
        (s.value, "" if s.low is None else str(s.low), str(s.n))
        for s in expected
        if s.scope != "fold"
    ]
    (micro,) = [s for s in expected if (s.metric, s.scope) == ("f1_micro", "all")]
    assert micro.low is not None
    assert f"early, F1-micro: {micro.value:.3f} [{micro.low:.3f}, " in caplog.text
    largest = str(class_priors(manifest.labels, 4).argmax())
    share = np.mean([truth[row] == largest for row in rows])
    (majority,) = [
        float(s["value"])
        for s in scores
        if (s["system"], s["metric"], s["scope"]) == ("majority", "f1_micro", "all")
    ]
    assert majority == pytest.approx(share)


def test_columns_that_the_study_named_are_found_again(copy, labelled, caplog):
    caplog.set_level("INFO", logger="toolkit")
    expected = predict_new(copy, labelled)
    headers = {"speakers": "who", "emotion_labels": "feeling"}

    def rename(rows):
        rows[0][:] = [headers.get(name, name) for name in rows[0]]

    edit(labelled, rename)
    options, place = (copy / "study.toml").read_text(), copy / "study.toml"
    place.write_text(
        options.replace("column = {}", 'column = {speaker="who", label="feeling"}')
    )
    found = predict_new(copy, labelled)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.speakers.tolist() == expected.speakers.tolist()
    # A header of the caller wins; one that the new table lacks is no fault.
    chosen = predict_new(copy, labelled, columns={"label": "who"})
    assert set(chosen.labels.tolist()) == {-1}
    # Names of classes alone are labels as well.
    place.write_text(options.replace("column = {}", 'column = {label_name="feeling"}'))
    named = {str(code): name for code, name in enumerate(CLASSES)}

    def name_classes(rows):
        at = rows[0].index("feeling")
        for row in rows[1:]:
            row[at] = named.get(row[at], row[at])

    edit(labelled, name_classes)
    for columns in ({}, {"label": "feeling"}):
        found = predict_new(copy, labelled, columns=columns)
        assert found.labels.tolist() == expected.labels.tolist()
    place.write_text(options)
    caplog.clear()
    assert main(["predict", str(copy), str(labelled)]) == 0
    assert "There are no labels, and so no scores: --column label=HEADER" in caplog.text


def test_labels_decide_no_prediction(finished, labelled):
    before = predict_new(finished, labelled).table()

    def relabel(rows):
        for row in rows[1:]:
            row[rows[0].index("emotion_labels")] = "0"

    edit(labelled, relabel)

    pd.testing.assert_frame_equal(predict_new(finished, labelled).table(), before)


def test_names_and_merged_classes_are_the_study_s(manifest):
    trained = replace(
        manifest,
        classes=("sad", "glad", "calm", "cross"),
        codes=("0", "1", "2", "3"),
        merged={"excited": "glad"},
    )
    new = replace(
        manifest,
        classes=("excited", "glad", "2", "x"),
        codes=("9", "8", "2", "x"),
        labels=np.array([0, 1, 2, 3, -1] * 30),
    )

    assert _find_labels(new, trained).tolist() == [1, 1, 2, -1, -1] * 30


def test_a_code_with_another_name_is_another_label(manifest):
    codes, trained = ("0", "1", "2", "3"), replace(manifest, classes=("a", "b", "c", "d"))
    others = replace(manifest, classes=("fear", "b", "awe", "shame"), codes=codes)
    bare = replace(manifest, classes=codes, codes=codes)

    expected = np.where(others.labels == 1, 1, -1)
    assert _find_labels(others, trained).tolist() == expected.tolist()
    # Codes count where one side has no names.
    for new, study in ((bare, trained), (others, bare)):
        assert _find_labels(new, study).tolist() == new.labels.tolist()


def test_labels_are_found_in_another_case_where_one_class_is_meant(manifest):
    trained = replace(
        manifest,
        classes=("Sad", "glad", "GLAD", "calm"),
        codes=("0", "1", "2", "3"),
        merged={"Excited": "calm"},
    )
    new = replace(
        manifest,
        classes=("sAd", "glad", "GLAD", "Glad", "excited"),
        codes=("0", "1", "2", "7", "8"),
        labels=np.array([0, 1, 2, 3, 4] * 30),
    )

    assert _find_labels(new, trained).tolist() == [0, 1, 2, -1, 3] * 30


def test_rows_without_a_label_and_classes_without_a_row_are_told(finished, labelled, caplog):
    predict_new(finished, labelled)
    assert "1 of 100 utterances have no label: not scored." in caplog.text
    assert "No scored utterance is labelled" not in caplog.text
    caplog.clear()

    def relabel(rows):
        at = rows[0].index("emotion_labels")
        for row in rows[1:]:
            row[at] = "0" if row[at] == "1" else row[at]

    edit(labelled, relabel)
    predict_new(finished, labelled)
    assert (
        f"No scored utterance is labelled {CLASSES[1]}: UAR and F1-macro are means over all 4 "
        "classes of the study, and count 0 there." in caplog.text
    )


@pytest.mark.parametrize(
    ("n_speakers", "words"), [(3, "no intervals (below five speakers)"), (5, "95 % intervals")]
)
def test_intervals_are_mentioned_where_there_are_any(
    finished, labelled, caplog, n_speakers, words
):
    caplog.set_level("INFO", logger="toolkit")

    def regroup(rows):
        at = rows[0].index("speakers")
        for number, row in enumerate(rows[1:]):
            row[at] = f"P{number % n_speakers}"

    edit(labelled, regroup)
    assert main(["predict", str(finished), str(labelled)]) == 0
    assert f"labelled utterances by unseen speakers, {words}." in caplog.text


def test_scores_are_written_over_no_other_file(finished, labelled, tmp_path, capsys):
    beside = tmp_path / "new.scores.csv"
    beside.write_text("mine\n")
    command = ["predict", str(finished), str(labelled), "--out", str(tmp_path / "new.csv")]

    assert main(command) == 2
    assert "new.scores.csv holds no scores" in capsys.readouterr().err
    assert beside.read_text() == "mine\n"
    beside.unlink()
    assert main(command) == 0
    assert main(command) == 0  # its own scores are replaced


@pytest.mark.slow
def test_features_are_normalised_within_speakers_as_in_training(
    corpus, manifest, small_options, tmp_path
):
    folder = tmp_path / "normalised"
    options = small_options | {"modality": ("text",), "normalise": "speaker"}
    run_study(StudyConfig(data=corpus / "dataset.csv", out=folder, **options))
    raw = np.stack([np.load(path) for path in manifest.paths["text"]]).astype(np.float64)
    for name in set(manifest.speakers.tolist()):
        mine = manifest.speakers == name
        raw[mine] = (raw[mine] - raw[mine].mean(axis=0)) / raw[mine].std(axis=0)

    said = predict_new(folder, corpus / "dataset.csv").systems["text"]

    booster = FittedBooster.load(folder / "models" / "text" / "final")
    expected = booster.predict_proba(raw.astype(np.float32))
    # The last bit of a standardised value may lie on the other side of a split.
    assert np.isclose(said.proba, expected).all(axis=1).mean() > 0.97


def test_normalising_without_speakers_is_refused(copy, new):
    path = copy / "models" / "final.json"
    path.write_text(path.read_text().replace('"normalise": "none"', '"normalise": "speaker"'))

    def drop(rows):
        at = rows[0].index("speakers")
        for row in rows:
            del row[at]

    edit(new, drop)
    with pytest.raises(ValueError, match="standardised features within each speaker, and dat"):
        predict_new(copy, new)


def test_the_command_refuses_in_words(tmp_path, capsys):
    assert main(["predict", str(tmp_path), str(tmp_path / "new.csv")]) == 2
    assert "holds no models/final.json" in capsys.readouterr().err
