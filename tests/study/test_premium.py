"""``toolkit premium``: the same bytes however it is run, and a label on what leaks."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from toolkit.report import describe_premium, format_premium, plot_premium
from toolkit.study.cli import main
from toolkit.study.config import StudyConfig
from toolkit.study.premium_command import _run_premium


def run(corpus, folder, **options):
    said = {"modality": ("text",), "workers": 1} | options
    return _run_premium(StudyConfig(data=corpus / "dataset.csv", out=folder, **said))


@pytest.fixture(scope="module")
def result(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("premium") / "out")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_table_page_and_figure_are_written(result):
    assert set(contents(result.folder)) == {
        "premium.csv",
        "premium.md",
        "premium-text.svg",
    }
    with (result.folder / "premium.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pooled = [row for row in rows if not row["group"]]
    assert [row["quantity"] for row in pooled[-3:]] == [
        "speaker premium",
        "session premium",
        "partner premium",
    ]
    assert all(row["low"] and row["high"] for row in pooled)
    assert len(rows) == len(pooled) * 11  # each of ten speakers besides


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
    assert len(drawn) - len(people) == 6  # the intervals


def test_a_premium_is_named_only_where_its_test_shows_it(result):
    (premium,) = [s for s in result.scores if s.quantity == "speaker premium" and not s.group]

    shown = describe_premium(replace(premium, value=0.1, p_adjusted=0.05))
    negative = describe_premium(replace(premium, value=-0.1, p_adjusted=0.05))
    not_shown = describe_premium(replace(premium, p_adjusted=0.051))

    assert "random-10 (leaking) stands above speaker in F1-micro (+0.100" in shown
    assert "random-10 (leaking) stands below speaker" in negative
    assert "no difference in F1-micro was shown" in not_shown
    for sentence in (shown, not_shown):
        assert f"[{premium.low:+.3f}, {premium.high:+.3f}]" in sentence
    assert "adjusted p = .0510" in not_shown


def test_the_page_says_of_generated_data_that_they_are(result):
    page = (result.folder / "premium.md").read_text()
    recorded = format_premium(result.scores, gaps=("So.",), generated=False, n_seeds=3)

    assert "**Generated data.**" in page
    assert page == recorded.replace("- So.\n\n", "").replace(
        "One fixed", page[page.index(">") : page.index("One fixed")] + "One fixed", 1
    )


def test_without_sessions_the_rest_is_left_out_and_it_is_said(corpus, tmp_path):
    # Ids that are not IEMOCAP's, so that no session can be read from them.
    plain = shutil.copytree(corpus, tmp_path / "plain")
    header, *rows = (plain / "dataset.csv").read_text().splitlines()
    rows = [f"u{number:04d},{row.partition(',')[2]}" for number, row in enumerate(rows)]
    (plain / "dataset.csv").write_text("\n".join([header, *rows]) + "\n")

    said = run(plain, tmp_path / "out")

    assert {s.quantity for s in said.scores} == {"score", "speaker premium"}
    assert "The recordings have no sessions" in (said.folder / "premium.md").read_text()


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_the_command_answers_in_words_and_json(result, tmp_path, capsys, monkeypatch, words):
    asked = []
    monkeypatch.setattr(
        "toolkit.study.premium_command._run_premium",
        lambda config: asked.append(config) or result,
    )
    study = tmp_path / "study.toml"
    study.write_text('data = "dataset.csv"\nmodality = "text"\nouter = "5"\n')

    assert main(["premium", str(study), "--seed", "3", "--out", "there", *words]) == 0

    assert asked == [
        StudyConfig(
            data=tmp_path / "dataset.csv", modality=("text",), outer="5", seed=3, out="there"
        )
    ]
    answer = capsys.readouterr().out
    if words:
        splits = {score["split"] for score in json.loads(answer)["scores"]}
        assert splits >= {"random-10 (leaking)", "speaker", "session"}
    else:
        assert answer.count("random-10 (leaking)") == 1
        assert "premium.md" in answer


def test_the_folder_of_a_study_is_refused(corpus, tmp_path, capsys):
    (tmp_path / "study" / "units").mkdir(parents=True)
    words = ["--data", str(corpus / "dataset.csv"), "--out", str(tmp_path / "study")]

    assert main(["premium", *words, "--modality", "text"]) == 2
    assert "holds a study" in capsys.readouterr().err


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
