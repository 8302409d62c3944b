"""A study of transcripts alone: from one command to a report, files, and new utterances."""

import csv
import json

import numpy as np
import pytest

from toolkit.data import ManifestError, read_manifest
from toolkit.data.summary import summarise_manifest
from toolkit.models import FittedBooster
from toolkit.study.cli import main
from toolkit.study.config import ConfigError
from toolkit.study.folder import StudyFolder
from toolkit.study.options import load_config
from toolkit.study.predict import predict_new
from toolkit.study.transfer_command import _measure_transfer
from toolkit.study.verify import _verify_study

OWN = {"anger": "stop shut enough", "joy": "great love", "neutral": "paper number monday"}
SMALL = ("--quick", "--trials", "1", "--inner", "2", "--outer", "3", "--statistics", "minimal")
HEADER = ["utterance", "label", "speaker", "transcript"]


def make_rows():
    rng = np.random.default_rng(0)
    rows = []
    for number in range(48):
        label = list(OWN)[number % 3]
        words = [*rng.choice(["we", "go", "then", "I", "see", "it"], 4)]
        words += [str(rng.choice(OWN[label].split()))]
        rows.append([f"U{number:02d}", label, f"S{number // 12}", " ".join(words)])
    rows[0][3], rows[15][3] = "see you tomorrow", "See you tomorrow"
    return rows


def write(path, rows, header=HEADER):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def finished(build_once, undrawn):
    """A study folder beside its table."""

    def make(root):
        root.mkdir()
        source = write(root / "dataset.csv", make_rows())
        command = ["study", str(source), "--extract", "text=tfidf", *SMALL, "--workers", "1"]
        assert main([*command, "--out", str(root / "study")]) == 0

    with undrawn():
        return build_once("of-transcripts", make)


def test_one_command_gives_a_report_that_can_be_verified(finished):
    folder = finished / "study"
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "vocabulary, weights and components of transcripts" in page
    assert "2 of 48 utterances have one of 1 transcripts that several people speak" in page
    assert "Modality text: 2 utterances hold the same features as one of another" in page
    checks, audit = _verify_study(folder)
    assert not [line for check in checks for line in check.differences]
    assert audit["verdict"] == "no leakage found"
    # 3 inner fits per partition, their linear parts, refits; and those of the baseline.
    assert audit["systems"]["text"]["by_role"]["vocabulary"] > 0
    assert audit["systems"]["text-logistic"]["by_role"]["vocabulary"] > 0
    features = (folder / "explain" / "features.csv").read_text(encoding="utf-8")
    assert "text__tfidf__0000" in features


def test_a_unit_keeps_the_vocabulary_of_its_training_rows(finished):
    study = StudyFolder(finished / "study").read_study()
    texts = read_manifest(finished / "dataset.csv", extract={"text": "tfidf"}).texts["text"]
    for fold in study.folds:
        model = study.folder.load_model("text", fold.number).texts["text"]
        seen = {word for i in fold.train for word in texts[i].lower().split()}
        assert {*" ".join(model.vocabulary["words"]).split()} <= seen


@pytest.mark.slow
def test_workers_and_the_order_of_rows_change_no_byte(finished, contents, undrawn, tmp_path):
    (tmp_path / "of-transcripts").mkdir()
    source = write(tmp_path / "of-transcripts" / "dataset.csv", make_rows()[::-1])
    command = ["study", str(source), "--extract", "text=tfidf", *SMALL, "--workers", "2"]
    with undrawn():
        assert main([*command, "--out", str(tmp_path / "study")]) == 0
    first, second = contents(finished / "study"), contents(tmp_path / "study")
    assert [name for name in first if name.startswith("internal/units/text")]
    assert {name for name in first if first[name] != second.get(name)} <= {"study.toml"}


def test_new_transcripts_are_predicted_by_the_saved_vocabulary(finished, tmp_path):
    rows = [["N1", "joy", "X", "great love"], ["N2", "anger", "X", "qqq"], ["N3", "", "X", ""]]
    source = write(tmp_path / "new.csv", rows)
    with pytest.raises(ManifestError, match=r"row 4.*write the words"):
        predict_new(finished / "study", source)

    found = predict_new(finished / "study", source, missing="allow")

    system = found.systems["text"]
    assert system.present.tolist() == [True, True, False]
    assert found.classes[system.y_pred[0]] == "joy"
    np.testing.assert_allclose(system.proba[2], found.priors)
    # By hand: the files of the final model alone.
    booster = FittedBooster.load(finished / "study" / "models" / "text" / "final")
    X = booster.texts["text"].transform(("great love", "qqq"))
    assert not X[1].any()
    np.testing.assert_array_equal(booster.predict_proba(X), system.proba[:2])


def test_a_transfer_tells_rows_of_training_by_their_words(finished, tmp_path):
    rows = make_rows()
    others = [[*row[:3], f"well {row[3]} {row[0]}"] for row in rows]
    renamed = [[f"N{row[0]}", row[1], f"N{row[2]}", row[3]] for row in rows]
    paths = [
        finished / "dataset.csv",
        write(tmp_path / "others.csv", others),
        write(tmp_path / "renamed.csv", renamed),
    ]

    own, known, alike = _measure_transfer([finished / "study"], paths)

    assert (own.kind, own.n_scored) == ("out-of-fold", 48)
    assert (known.kind, known.n_known, known.n_scored) == ("none", 48, 0)
    assert (alike.kind, alike.n_alike, alike.n_scored) == ("none", 48, 0)


def test_a_changed_vocabulary_is_refused(finished):
    models = finished / "study" / "models" / "text"
    meta = models / "final.meta.json"
    text = meta.read_text(encoding="utf-8")
    try:
        meta.write_text(text.replace('"great"', '"grate"'), encoding="utf-8")
        with pytest.raises(ValueError, match="is not what was written"):
            predict_new(finished / "study", finished / "dataset.csv")
        content = json.loads(text)
        content["texts"] = {"../text": content["texts"]["text"]}
        meta.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ValueError, match="does not describe a model"):
            FittedBooster.load(models / "final")
        content["texts"] = {"text": content["texts"].pop("../text")}
        content["texts"]["text"]["vocabulary"]["words"].pop()
        meta.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(ValueError, match="has not a column per n-gram"):
            FittedBooster.load(models / "final")
    finally:
        meta.write_text(text, encoding="utf-8")
    numbers = models / "final.text.ngrams.npy"
    content = numbers.read_bytes()
    try:
        numbers.write_bytes(content[:-1] + b"x")
        with pytest.raises(ValueError, match="its bytes are not those written"):
            FittedBooster.load(models / "final")
    finally:
        numbers.write_bytes(content)


def test_hashed_ngrams_have_a_table_and_fitted_ones_none(finished, tmp_path, capsys):
    command = ["pool", str(finished / "dataset.csv"), "--out", str(tmp_path / "pooled")]
    assert main([*command, "--extract", "text=hashing"]) == 0
    values = np.load(tmp_path / "pooled" / "text.npy")
    assert values.shape == (48, 1024)
    # Each kind of n-grams has length 1; equal words, but for case, have equal features.
    np.testing.assert_allclose((values[:, :512] ** 2).sum(axis=1), 1, rtol=1e-6)
    assert values[0].tobytes() == values[15].tobytes()
    assert main([*command, "--extract", "text=tfidf"]) == 2
    assert "fitted on training rows alone" in capsys.readouterr().err


def test_the_column_of_words_is_found_or_asked_for(tmp_path):
    rows = make_rows()
    tfidf = {"text": "tfidf"}
    for header in ("Utterance Text", "transcript", "text"):
        path = write(tmp_path / "data.csv", rows, [*HEADER[:3], header])
        assert read_manifest(path, extract=tfidf).texts["text"][0] == "see you tomorrow"
    path = write(tmp_path / "data.csv", rows, [*HEADER[:3], "sentence"])
    with pytest.raises(ManifestError, match="no columns could be those of words"):
        read_manifest(path, extract=tfidf)
    named = read_manifest(path, extract=tfidf, columns={"text": "sentence"})
    assert named.modalities == named.available == ("text",)
    path = write(tmp_path / "data.csv", [[*r, r[3]] for r in rows], [*HEADER, "text"])
    with pytest.raises(ManifestError, match=r"several columns.*words: 'transcript', 'text'"):
        read_manifest(path, extract=tfidf)


def test_an_empty_transcript_is_refused_or_missing(tmp_path):
    rows = make_rows()
    rows[4][3] = ""
    path = write(tmp_path / "data.csv", rows)
    with pytest.raises(ManifestError, match=r"row 6, column 'transcript'.*write the words"):
        read_manifest(path, extract={"text": "hashing"})
    manifest = read_manifest(path, extract={"text": "hashing"}, missing="allow")
    summary = summarise_manifest(manifest, missing="allow")
    assert summary.present["text"].sum() == 47
    assert summary.modalities[0].n_empty == 1


def test_fitted_features_are_not_standardised_by_speaker():
    with pytest.raises(ConfigError, match="tfidf is fitted within them"):
        load_config(None, {"extract": {"text": "tfidf"}, "normalise": "speaker"})
