"""From recordings to explain/: what was planted is ranked as it was planted."""

import csv

import numpy as np
import pytest

from toolkit.data import make_corpus
from toolkit.data.corpora import PLANTED
from toolkit.explain.contributions import FAMILIES
from toolkit.study.cli import main
from toolkit.study.config import StudyConfig
from toolkit.study.runner import run_study

RANKED = ("text", "audio", "visual", "noise")


def add_column(source, header, make):
    """Add a modality: a file of frames for every row."""
    with source.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    (source.parent / header).mkdir()
    for row in rows:
        np.save(source.parent / header / f"{row[0]}.npy", make(row).astype(np.float32))
        row.insert(-1, f"/{header}/{row[0]}.npy")
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([[*head[:-1], header, head[-1]], *rows])


@pytest.fixture(scope="module")
def explained(undrawn, tmp_path_factory):
    """Folder of a study of the generated corpus with a modality more, of noise alone."""
    root = tmp_path_factory.mktemp("driving")
    dims = {"visual": 32, "audio": 64, "text": 384}
    source = make_corpus(root / "corpus", n_utterances=500, dims=dims)
    rng = np.random.default_rng(5)
    add_column(source, "noise_features", lambda _: rng.normal(size=(30, 4)))
    config = StudyConfig(
        data=source,
        out=root / "study",
        quick=True,
        trials=2,
        imbalance="none",
        screening="none",
        outer="3",
        inner=2,
        fusion=("early",),
        shapley="refit",
        workers=1,
    )
    with undrawn():
        run_study(config)
    return root / "study"


def rows_of(folder, name, **wanted):
    with (folder / "explain" / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def shares_of(folder, level):
    everything = {"system": "early", "outcome": "all", "speaker": "", "class_name": ""}
    return {
        (row["modality"], row["part"]): row
        for row in rows_of(folder, "shares.csv", level=level, **everything)
    }


@pytest.mark.nightly
def test_modalities_are_worth_what_was_planted_in_them(explained):
    rows = rows_of(explained, "shapley.csv", game="refit", kind="value", group="")
    value = {row["players"]: row for row in rows}
    lost = {r["modality"]: r for r in rows_of(explained, "importance.csv", class_name="")}

    assert sorted(value, key=lambda name: -float(value[name]["value"])) == list(RANKED)
    assert float(value["audio"]["low"]) > 0
    noise = value["noise"]
    holds_zero = float(noise["low"]) <= 0 <= float(noise["high"])
    assert holds_zero or abs(float(noise["value"])) <= 0.02
    assert float(lost["text"]["value"]) > float(lost["audio"]["value"])
    assert float(lost["audio"]["value"]) > abs(float(lost["noise"]["value"]))


@pytest.mark.nightly
def test_shares_rank_the_modalities_and_noise_has_none_beyond_permuted_labels(explained):
    shares = {name: row for (name, _), row in shares_of(explained, "modality").items()}

    assert sorted(shares, key=lambda name: -float(shares[name]["share"])) == list(RANKED)
    truth = {name: float(row["toward_truth"]) for name, row in shares.items()}
    assert truth["text"] > truth["audio"] > truth["visual"] > 5 * abs(truth["noise"])
    assert float(shares["text"]["share"]) > float(shares["text"]["permuted_high"])
    # Its share is below: with true labels the others have more to say, and shares add up to 1.
    assert float(shares["noise"]["share"]) <= float(shares["noise"]["permuted_high"])


@pytest.mark.nightly
def test_families_that_show_what_was_planted_are_found(explained):
    """Basic statistics show three of the four blocks of audio, and of its spread nothing."""
    truth = {
        key: float(row["toward_truth"]) for key, row in shares_of(explained, "family").items()
    }
    shown = {FAMILIES[name] for block in PLANTED["audio"] for name in block.shown_by}
    mine = {family: value for (name, family), value in truth.items() if name == "audio"}

    first, second = sorted(truth, key=lambda key: -truth[key])[:2]
    assert (first, second) == (("text", "value"), ("audio", "level"))
    planted = [value for family, value in mine.items() if family in shown]
    others = [value for family, value in mine.items() if family not in shown]
    assert len(planted) == 3
    assert others
    assert min(planted) > max(others)  # rare peaks widen the spread as well
    noise = [abs(value) for (name, _), value in truth.items() if name == "noise"]
    assert min(planted) > 5 * max(noise)


EVENT = slice(22, 26)
N_FRAMES = 40


@pytest.fixture(scope="module")
def eventful(undrawn, tmp_path_factory):
    """A study of two classes that differ in nothing but a burst at known frames."""
    root = tmp_path_factory.mktemp("event")
    rng = np.random.default_rng(2)
    (root / "voice").mkdir()
    lines = ["utterance,speaker,label,voice"]
    for speaker in range(6):
        for number in range(16):
            name, label = f"s{speaker}u{number:02d}", ("calm", "burst")[number % 2]
            frames = rng.normal(size=(N_FRAMES, 3)) + rng.normal(size=3)
            if label == "burst":
                frames[EVENT, 0] += 6
            np.save(root / "voice" / f"{name}.npy", frames.astype(np.float32))
            lines.append(f"{name},S{speaker},{label},voice/{name}.npy")
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")
    config = {
        "quick": True,
        "trials": 2,
        "imbalance": "none",
        "workers": 1,
        "outer": "3",
        "inner": 2,
    }
    with undrawn():
        run_study(StudyConfig(data=root / "dataset.csv", out=root / "study", **config))
    return root / "study"


def test_an_event_is_found_at_its_frames(eventful, capsys):
    found = []
    for utterance in ("s1u03", "s4u11"):
        assert main(["explain", str(eventful), utterance]) == 0
        path = eventful / "explain" / "frames" / f"{utterance}-voice.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        curve = np.array([float(row["burst"]) - float(row["calm"]) for row in rows])
        assert len(curve) == N_FRAMES
        found.append(curve[EVENT].sum() / np.abs(curve).sum())
        assert set(np.argsort(-curve)[:4]) == set(range(N_FRAMES)[EVENT])
        assert str(path) in capsys.readouterr().out

    assert min(found) > 0.6  # of all that is said, in a tenth of the frames
