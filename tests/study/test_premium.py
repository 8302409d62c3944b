"""``toolkit premium``: the same bytes however it is run, and a label on what leaks."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from toolkit.report.leakage_page import (
    _describe_modality,
    _describe_probe,
    _pool,
    format_premium,
    plot_premium,
)
from toolkit.study import plan, premium_command
from toolkit.study.cli import main
from toolkit.study.config import StudyConfig
from toolkit.study.inventory import Inventory
from toolkit.study.premium_command import _run_premium
from toolkit.validation import fixed as probes
from toolkit.validation import leakage

# Whole premiums, each of hundreds of fits.
pytestmark = pytest.mark.slow


def run(corpus, folder, *, n_permutations=9, **options):
    given = {"modality": ("text",), "workers": 1} | options
    config = StudyConfig(data=corpus / "dataset.csv", out=folder, **given)
    return _run_premium(config, n_permutations)


@pytest.fixture(scope="module", autouse=True)
def _few_draws():
    """Permute the rows 3 times in place of 20, and leave the content out: most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "N_ROW_DRAWS", 3)
        patch.setattr(leakage, "_leave_out_content", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def result(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("premium") / "out")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if "." in path.name[1:]}


def test_table_page_and_figure_are_written(result):
    assert set(contents(result.folder)) == {
        "premium.csv",
        "premium.md",
        "premium-text.svg",
    }
    with (result.folder / "premium.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chance = rows[-2:]
    assert [row["quantity"] for row in chance] == ["score, first seed", "chance"]
    assert [row["n_repeats"] for row in chance] == ["1", "9"]
    pooled = [row for row in rows[:-2] if not row["group"]]
    assert [row["quantity"] for row in pooled[-3:]] == [
        "speaker premium",
        "session premium",
        "partner premium",
    ]
    differences = {row["quantity"] for row in pooled if "difference" in row["quantity"]}
    assert len(differences) == 3 * 2
    assert all(row["low"] and row["high"] for row in pooled)
    assert len(rows) - 2 == len(pooled) * 11  # each of ten speakers besides


def test_every_mention_of_a_random_split_says_that_it_leaks(result):
    svg = (result.folder / "premium-text.svg").read_text().lower()
    for name in ("premium.csv", "premium.md"):
        text = (result.folder / name).read_text()
        assert "random-10 (leaking)" in text
        assert text.count("random-") == text.count(" (leaking)")
    assert "The random splits leak" in (result.folder / "premium.md").read_text()
    assert svg.count("random, ") == svg.count("leaking") == 2


def test_workers_change_no_byte(corpus, result, tmp_path):
    two = run(corpus, tmp_path / "two", workers=2)

    assert contents(two.folder) == contents(result.folder)


def test_a_speaker_is_drawn_once_a_pair(result):
    axes = plot_premium(result.scores, "text")

    drawn = [line for line in axes.lines if len(line.get_xdata()) == 2]
    people = [line for line in drawn if line.get_marker() == "."]
    assert len(people) == 3 * 10
    assert len(drawn) - len(people) == 6 + 1  # the intervals, and the level of chance


def state(scores, quantity, **values):
    """Sentences about scores of which one pooled number is given other values."""
    changed = [
        replace(s, **values) if s.quantity == quantity and not s.group else s for s in scores
    ]
    return _describe_modality(_pool(changed)["text"])


def test_a_premium_is_claimed_only_where_its_test_shows_it(result):
    shown = state(result.scores, "speaker premium", value=0.1, p_adjusted=0.05)[0]
    negative = state(result.scores, "speaker premium", value=-0.1, p_adjusted=0.05)[0]
    not_shown = state(result.scores, "speaker premium", p_adjusted=0.051)[0]

    real, permuted = (
        next(
            s.value
            for s in result.scores
            if s.quantity == f"speaker difference{end}" and not s.group
        )
        for end in ("", ", rows permuted")
    )
    both = (
        "text: the gain of random-10 (leaking) over leave-one-speaker-out in F1-micro is "
        f"{real:+.3f}, and {permuted:+.3f} on permuted rows, which hold no information."
    )
    for sentence in (shown, negative, not_shown):
        assert sentence.startswith(both)
        assert " scores " not in sentence
    more = "The gain is 0.100 {} than on permuted rows (speaker premium {}0.100 ["
    assert more.format("larger", "+") in shown
    assert more.format("smaller", "-") in negative
    assert "No speaker premium was shown (" in not_shown
    assert "adjusted p = .0510)." in not_shown
    assert "training rows of random-10 (leaking) hold other utterances of the tested" in shown
    assert "training rows" not in not_shown


def test_the_content_premium_is_described_where_it_was_measured(result):
    scores = []
    for score in result.scores:
        quantity = score.quantity.replace("partner", "content")
        against = score.against.replace("partner", "content")
        scores.append(replace(score, quantity=quantity, against=against))

    shown = state(scores, "content premium", value=0.1, p_adjusted=0.01)[2]

    assert (
        "left out) hold the scripts or sentences of the tested utterances, by other speakers."
    ) in shown
    about = "leaves out the part of the content that holds the tested utterances"
    measured = format_premium(scores, gaps=(), generated=True)
    other = format_premium(result.scores, gaps=(), generated=True)
    assert about in measured
    assert about not in other
    partner = "The partner premium compares two splits"
    assert partner in other
    assert partner not in measured


def test_the_level_of_chance_names_what_was_permuted_and_claims_no_more(result):
    numbers = {"value": 0.243, "low": 0.212, "high": 0.271}
    above = state(result.scores, "chance", **numbers, p=0.05)[-1]
    exchanged = state(
        result.scores, "chance", **numbers, p=0.06, against="labels exchanged between speakers"
    )[-1]

    assert above.startswith(
        "text: with the labels permuted within speakers, leave-one-speaker-out scores 0.243 in "
        "F1-micro on average (95 % of 9 permutations: 0.212 to 0.271); with the real labels 0."
    )
    assert above.endswith("(p = .0500).")
    assert "with the labels exchanged between speakers" in exchanged
    assert exchanged.endswith("No difference from chance was shown.")


def test_without_permutations_there_is_no_level_of_chance(corpus, tmp_path, result):
    without = run(corpus, tmp_path / "out", n_permutations=0)

    assert list(result.scores[:-2]) == list(without.scores)
    assert "## Chance" in (result.folder / "premium.md").read_text()
    assert "hance" not in (without.folder / "premium.md").read_text()
    bars = [
        [line for line in plot_premium(each.scores, "text").lines if line.get_linewidth() == 4]
        for each in (result, without)
    ]
    assert list(map(len, bars)) == [1, 0]
    chance = result.scores[-1]
    assert list(bars[0][0].get_ydata()) == [chance.low, chance.high]


def test_one_label_per_person_is_noted(corpus, tmp_path):
    plain = shutil.copytree(corpus, tmp_path / "plain")
    header, *rows = (plain / "dataset.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    rows = [",".join([*row[:-2], str(int(row[1][-1]) % 2)]) for row in cells]
    header = header.removesuffix(", label_name")
    (plain / "dataset.csv").write_text("\n".join([header, *rows]) + "\n")

    found = run(plain, tmp_path / "out", n_permutations=2)

    page = (found.folder / "premium.md").read_text()
    assert "recognising a person and knowing the label are the same thing" in page
    assert "with the labels exchanged between speakers" in page
    assert any("recognising a person" in gap for gap in found.gaps)


def test_the_page_says_of_generated_data_that_they_are(result):
    page = (result.folder / "premium.md").read_text()
    recorded = format_premium(result.scores, gaps=(*result.gaps, "So."), generated=False)

    assert "**Generated data.**" in page
    assert page == recorded.replace("- So.\n", "").replace(
        "One fixed", page[page.index(">") : page.index("One fixed")] + "One fixed", 1
    )


def test_without_sessions_the_rest_is_left_out_and_it_is_said(corpus, tmp_path):
    # Ids that are not IEMOCAP's, so that no session can be read from them.
    plain = shutil.copytree(corpus, tmp_path / "plain")
    header, *rows = (plain / "dataset.csv").read_text().splitlines()
    rows = [f"u{number:04d},{row.partition(',')[2]}" for number, row in enumerate(rows)]
    (plain / "dataset.csv").write_text("\n".join([header, *rows]) + "\n")

    found = run(plain, tmp_path / "out", n_permutations=0)

    premiums = {s.quantity for s in found.scores if s.quantity.endswith("premium")}
    assert premiums == {"speaker premium"}
    assert "The recordings have no sessions" in (found.folder / "premium.md").read_text()


@pytest.mark.parametrize("words", [[], ["--json", "--permutations", "199"]])
def test_the_command_answers_in_words_and_json(result, tmp_path, capsys, monkeypatch, words):
    asked = []
    monkeypatch.setattr(
        "toolkit.study.premium_command._run_premium",
        lambda config, n_permutations, **_: asked.append((config, n_permutations)) or result,
    )
    study = tmp_path / "study.toml"
    study.write_text('data = "dataset.csv"\nmodality = "text"\nouter = "5"\n')

    assert main(["premium", str(study), "--seed", "3", "--out", "there", *words]) == 0

    config = StudyConfig(
        data=tmp_path / "dataset.csv", modality=("text",), outer="5", seed=3, out="there"
    )
    assert asked == [(config, 199 if words else 99)]
    answer = capsys.readouterr().out
    if words:
        scores = json.loads(answer)["scores"]
        assert {s["split"] for s in scores} >= {"random-10 (leaking)", "speaker", "session"}
        assert {s["quantity"] for s in scores} >= {
            "chance",
            "speaker difference, rows permuted",
        }
    else:
        assert answer.count("random-10 (leaking)") == 1
        assert "with the labels permuted within speakers" in answer
        assert "premium.md" in answer


def test_the_folder_of_a_study_is_refused(corpus, tmp_path, capsys):
    Inventory(tmp_path / "study").claim()
    words = ["--data", str(corpus / "dataset.csv"), "--out", str(tmp_path / "study")]

    assert main(["premium", *words, "--modality", "text"]) == 2
    assert "holds a study" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused_and_nothing_in_it_replaced(
    corpus, tmp_path, capsys
):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "premium.md").write_text("mine")
    words = ["--data", str(corpus / "dataset.csv"), "--out", str(tmp_path / "notes")]

    assert main(["premium", *words, "--modality", "text"]) == 2

    assert "holds files but no premium (premium.md)" in capsys.readouterr().err
    assert [path.read_text() for path in (tmp_path / "notes").iterdir()] == ["mine"]


@pytest.mark.parametrize("word", ["random", "random-10", "random-10 (leaking)", "Random"])
def test_no_study_can_be_run_with_a_random_split(corpus, tmp_path, capsys, word):
    words = ["--data", str(corpus / "dataset.csv"), "--out", str(tmp_path / "out")]
    toml = tmp_path / "study.toml"
    toml.write_text(f'outer = "{word}"\n')

    for command in (["study", *words, "--outer", word], ["study", str(toml), *words]):
        assert main(command) == 2
        assert "choose auto, speaker, session, split or a number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_premium_has_no_outer_protocol_to_choose(capsys):
    with pytest.raises(SystemExit) as refusal:
        main(["premium", "--outer", "speaker"])

    assert refusal.value.code == 2
    assert "unknown option --outer" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["-1", "many", "9.5"])
def test_a_number_of_permutations_is_a_number_from_0(words, capsys):
    with pytest.raises(SystemExit) as refusal:
        main(["premium", f"--permutations={words}"])

    assert refusal.value.code == 2
    assert "write a number from 0" in capsys.readouterr().err


def test_a_wide_modality_is_reduced_as_in_a_study_and_it_is_noted(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(plan, "MOST_COLUMNS", 100)  # 8 dimensions x 18 statistics: 144
    options = {"modality": ("visual",), "n_permutations": 0}

    reduced = run(corpus, tmp_path / "reduced", **options)
    whole = run(corpus, tmp_path / "whole", **options, wide="keep")

    note = (
        "visual: rich statistics make 144 columns; basic statistics (56 columns) are used "
        "instead."
    )
    assert {*reduced.gaps} - {*whole.gaps} == {note}
    assert note in (reduced.folder / "premium.md").read_text()
    assert reduced.scores != whole.scores


def test_inner_folds_that_a_premium_does_not_make_are_not_examined(
    corpus, tmp_path, monkeypatch
):
    examined = []
    monkeypatch.setattr(
        premium_command, "check_data", lambda plan: examined.append(plan.list_units()) or 1 / 0
    )

    with pytest.raises(ZeroDivisionError):
        run(corpus, tmp_path / "out", seeds=2)

    assert examined == [[]]


def test_the_folder_of_a_study_file_stays_the_studys(corpus, tmp_path):
    file = tmp_path / "study.toml"
    data = (corpus / "dataset.csv").as_posix()
    file.write_text(f'data = "{data}"\nout = "{(tmp_path / "own").as_posix()}"\n')
    words = [
        "premium",
        str(file),
        "--modality",
        "text",
        "--permutations",
        "0",
        "--workers",
        "1",
    ]

    assert main([*words, "--json"]) == 0
    assert main([*words, "--out", str(tmp_path / "asked")]) == 0

    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "asked",
        "own-premium",
    ]


@pytest.fixture
def probed(corpus, result, tmp_path, monkeypatch):
    """The premium with probes of a table with a column of sex; the splits are not fitted."""
    with (corpus / "dataset.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    table = corpus / f"{tmp_path.name}.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([[*header, "Gender"], *([*row, row[1][0]] for row in rows)])
    monkeypatch.setattr(premium_command, "_measure_modality", lambda *_: (result.scores, ()))
    monkeypatch.setattr(probes, "N_PROBE_DRAWS", 1)
    given = {"modality": ("text",), "by": ("gender",), "workers": 1}
    config = StudyConfig(data=table, out=tmp_path / "out", **given)
    yield _run_premium(config, 0, with_probes=True)
    table.unlink()


def test_probes_are_a_table_a_section_and_a_figure(probed):
    names = set(contents(probed.folder))
    assert {"probes.csv", "space-text.svg"} <= names
    with (probed.folder / "probes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == ["label", "speaker", "Gender", "content"]
    assert [row["n_classes"] for row in rows][:3] == ["4", "10", "2"]
    page = (probed.folder / "premium.md").read_text()
    assert "## What the features tell" in page
    assert f"the speaker from the features: UAR {float(rows[1]['value']):.3f} " in page


def test_a_probe_tells_only_where_its_p_shows_it(probed):
    shown, hidden = (_describe_probe(replace(probed.probes[0], p=p)) for p in (0.05, 0.051))

    assert "a linear probe tells the label" in shown
    assert "a linear probe was not shown to tell the label" in hidden


def test_files_of_an_earlier_premium_are_removed_and_no_others(corpus, probed, monkeypatch):
    mine = [probed.folder / name for name in ("thesis.csv", "space-mine.svg")]
    for path in mine:
        path.write_text("mine")
    config = StudyConfig(data=corpus / "dataset.csv", out=probed.folder, modality=("audio",))
    scores = [replace(score, modality="audio") for score in probed.scores]
    monkeypatch.setattr(premium_command, "_measure_modality", lambda *_: (scores, ()))

    _run_premium(config, 0)

    assert set(contents(probed.folder)) == {
        *("premium.csv", "premium.md", "premium-audio.svg"),
        *("thesis.csv", "space-mine.svg"),
    }


def test_without_probes_nothing_about_them_is_written(result):
    assert not result.probes
    assert "What the features tell" not in (result.folder / "premium.md").read_text()
