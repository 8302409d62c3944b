"""The command line: instant help, refusals in words, exit codes."""

import ctypes
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import get_origin

import pytest

import toolkit.data
from toolkit.study.cli import _build_parser, main
from toolkit.study.config import StudyConfig
from toolkit.study.options import _GROUPS, _read_options


def parse(*words):
    parser, _ = _build_parser()
    said = vars(parser.parse_args(["study", *words]))
    own = {"source": said.pop("source")}
    for name in ("command", "debug", "json", "quiet", "verbose"):
        said.pop(name)
    options = _read_options(said, own)
    return StudyConfig(**options, **{"data": own["source"]} if own["source"] else {})


def test_nothing_said_is_the_default_configuration():
    assert parse() == StudyConfig()


def test_every_option_is_a_field_and_every_field_an_option():
    _, made = _build_parser()
    flags = {a.dest for a in made["study"]._actions if a.option_strings}

    tables = {"space", "grid", "published"}
    assert set(StudyConfig.model_fields) - tables <= flags
    assert not tables & flags


@pytest.mark.parametrize("table", ["space", "grid"])
def test_a_table_of_the_file_is_no_option_and_says_so(table, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["study", f"--{table}", "x"])

    assert f"--{table} is a table of study.toml: [{table}.lightgbm]" in capsys.readouterr().err


def test_lists_may_be_repeated_or_comma_separated():
    said = parse("--modality", "text,audio", "--modality", "visual")

    assert said.modality == ("text", "audio", "visual")


@pytest.mark.parametrize(
    "words",
    [
        ("--modality", "text", "audio", "my.csv"),
        ("--modality", "text,audio", "my.csv"),
        ("my.csv", "--modality", "text", "audio"),
        ("--modality", "text", "--modality", "audio", "--data", "my.csv"),
    ],
)
def test_names_are_separated_by_spaces_or_commas_and_a_file_is_no_name(words):
    said = parse(*words)

    assert said.modality == ("text", "audio")
    assert said.data == Path("my.csv")


MAPPINGS = ["column", "table", "frames_columns", "extract", "merge", "names", "with_"]


@pytest.mark.parametrize("name", MAPPINGS)
def test_a_key_with_two_values_is_refused_in_every_mapping(name):
    flag = "--" + name.rstrip("_").replace("_", "-")
    one, two = ("mfcc", "tfidf") if name == "extract" else ("one", "two")
    repeated = parse(flag, f"k={one}", flag, f"k = {one}", flag, f"j={two}")

    found = {key: Path(value).name for key, value in getattr(repeated, name).items()}
    assert found == {"k": one, "j": two}
    with pytest.raises(ValueError, match=f"^{flag} has k={one} and k={two}: leave one"):
        parse(flag, f"k={one}", flag, f"j={one}", flag, f"k={two}")


def test_no_mapping_is_left_out():
    kinds = {name: field.annotation for name, field in StudyConfig.model_fields.items()}

    assert {name for name, kind in kinds.items() if get_origin(kind) is dict} == {
        *MAPPINGS,
        "space",
        "grid",
    }


@pytest.mark.parametrize("command", ["study", "check", "pool", "premium"])
def test_help_groups_the_options_and_hides_rare_ones(command):
    _, made = _build_parser()
    shown, everything = io.StringIO(), io.StringIO()
    made[command].print_help(shown)
    with pytest.raises(SystemExit, match="0"), redirect_stdout(everything):
        main([command, "--help-all"])

    flags = [a.option_strings[-1] for a in made[command]._actions if a.option_strings]
    assert all(re.search(rf"{flag}\b", everything.getvalue()) for flag in flags)
    assert "basic options:" in shown.getvalue()
    assert "--spellings" not in shown.getvalue()
    assert "--spellings {refuse,join,keep}" in everything.getvalue()


@pytest.mark.parametrize("command", ["check", "premium", "pool"])
def test_a_command_for_a_table_of_utterances_can_read_what_a_study_reads(command):
    _, made = _build_parser()
    reading = [
        "column",
        "table",
        "frames_columns",
        "extract",
        "label",
        "bins",
        "classes",
        "merge",
    ]
    reading += ["spellings", "missing", "frames", "root"]

    assert {*reading} <= {action.dest for action in made[command]._actions}


def test_every_option_is_in_one_group():
    fields = [name for names in _GROUPS.values() for name in names]

    assert sorted(fields) == sorted(StudyConfig.model_fields)


@pytest.mark.parametrize("command", [["check"], ["pool", "--out", "x"]])
def test_a_command_without_a_table_asks_for_one(command, capsys):
    assert main(command) == 2
    assert "Name a table of utterances" in capsys.readouterr().err


def test_two_tables_are_refused(capsys):
    assert main(["check", "a.csv", "--data", "b.csv"]) == 2
    assert "Two tables are given: a.csv, b.csv." in capsys.readouterr().err


def test_quiet_commands_print_nothing(corpus, capsys, tmp_path):
    table = str(corpus / "dataset.csv")
    for words in (["check", table], ["pool", table, "--out", str(tmp_path / "pooled")]):
        assert main([*words, "--quiet", "--modality", "text"]) == 0
        assert capsys.readouterr() == ("", "")
    assert main(["study", table, "--modality", "text", "--dry-run", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_pairs_are_put_together():
    assert parse("--merge", "excited=happiness", "--merge", "a=b").merge == {
        "excited": "happiness",
        "a": "b",
    }


@pytest.mark.parametrize("words", [("--help",), ("--trails", "3"), ("--trials", "none")])
def test_help_and_refusals_import_nothing_scientific(words):
    code = (
        "import sys\n"
        "from toolkit.study.cli import main\n"
        "try: main(['study', *sys.argv[1:]])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'sklearn', 'optuna', 'lightgbm', 'numba', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )

    assert "HEAVY []" in run.stdout


@pytest.mark.parametrize("words", [("check",), ("study", "--data")])
def test_a_refused_table_is_refused_before_anything_heavy_is_imported(words, tmp_path):
    # Which take ten times as long as reading a table of 5,531 rows.
    (tmp_path / "dataset.csv").write_text("utterance,label,speaker\n")
    code = (
        "import sys\n"
        "from toolkit.study.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = {'pandas', 'scipy', 'sklearn', 'optuna', 'lightgbm', 'numba', 'matplotlib'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", code, *words, str(tmp_path / "dataset.csv")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert run.returncode == 2, run.stderr
    assert "There is a header but no row below it" in run.stderr
    assert run.stdout == "HEAVY []\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "--trails", "3"], "unknown option --trails; did you mean 'trials'?"),
        (["study", "--nonsense"], "unknown option --nonsense"),
        (["predict", "x", "y", "--label=z"], "--label; write --column label=HEADER"),
        (
            ["report", "x", "--out", "y"],
            "unknown option --out of toolkit report: it is one of toolkit study\n",
        ),
        (["predict", "x", "y", "--al-systems"], "did you mean 'all-systems'?"),
        (["study", "a.toml", "b.toml"], "unexpected 'b.toml'"),
        (["train"], "invalid choice: 'train'"),
    ],
)
def test_a_request_that_is_not_understood_is_refused_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as refusal:
        main(words)

    assert refusal.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "--trials", "0"], "--trials '0'"),
        (["study", "--merge", "excited"], "--merge excited: write it as KEY=VALUE"),
        (["study", "missing.toml"], "There is no study file missing.toml"),
        (["study", "--data", "missing.csv"], "missing.csv"),
        (["check", "missing.csv"], "missing.csv"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_refused_in_words(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_debug_shows_where_it_went_wrong():
    with pytest.raises(ValueError, match=r"missing\.toml"):
        main(["study", "missing.toml", "--debug"])


def test_an_unknown_modality_is_refused_with_those_there_are(corpus, capsys, tmp_path):
    words = ["--data", str(corpus / "dataset.csv"), "--out", str(tmp_path / "out")]

    assert main(["study", *words, "--modality", "smell"]) == 2
    error = capsys.readouterr().err
    assert "smell" in error
    assert "'visual', 'audio', 'text'" in error
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(corpus, capsys, tmp_path):
    out = tmp_path / "out"

    assert (
        main(["study", "--data", str(corpus / "dataset.csv"), "--dry-run", "--out", str(out)])
        == 0
    )
    said = capsys.readouterr().out
    assert "text-logistic" in said
    assert "84 units" in said
    assert not out.exists()


def test_a_dry_run_names_every_unit_and_its_size(corpus, capsys):
    words = ["study", "--data", str(corpus / "dataset.csv"), "--outer", "session", "--json"]

    assert main([*words, "--dry-run", "--modality", "text", "--workers", "1"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert main([*words, "--dry-run", "--modality", "text", "--workers", "2"]) == 0
    two = json.loads(capsys.readouterr().out)

    folds = [f"{k:02d}" for k in range(5)]
    expected = [f"text/{fold}" for fold in [*folds, "final"]]
    assert one["units"] == expected + [f"text-logistic/{fold}" for fold in folds]
    assert one["columns"] == {"text": 24}
    assert 0 < one["memory"] < two["memory"]


def test_check_describes_a_data_set(corpus, capsys):
    assert main(["check", str(corpus / "dataset.csv")]) == 0
    answer = capsys.readouterr().out
    for word in ("150", "F01", "visual", "audio", "text"):
        assert word in answer


def test_check_answers_in_json(corpus, capsys):
    assert main(["check", str(corpus / "dataset.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_demo_writes_a_data_set_that_passes_its_check(tmp_path, capsys, monkeypatch):
    make = toolkit.data.make_corpus
    small = {"n_utterances": 80, "dims": {"visual": 8, "audio": 10, "text": 24}}
    monkeypatch.setattr(toolkit.data, "make_corpus", lambda folder, **_: make(folder, **small))

    assert main(["demo", str(tmp_path / "demo")]) == 0
    assert "Generated data" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "demo" / "dataset.csv")]) == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_ends_in_another_error_is_an_interrupt(
    monkeypatch, capsys, signum, code
):
    # Pools of processes and databases fail in many ways where they are interrupted.
    def work(_):
        try:
            signal.raise_signal(signum)
        except KeyboardInterrupt:
            raise RuntimeError("cannot join a process that has not started") from None

    monkeypatch.setattr("toolkit.study.datasets.demo_command", work)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)

    assert main(["demo", "nowhere"]) == code
    assert capsys.readouterr().err == "Interrupted. Run the same command again to go on.\n"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_interrupt_is_raised_while_xgboost_is_answered(monkeypatch, capsys, signum, code):
    # Raised in a callback it is lost, and XGBoost goes on without its rows.
    known = {}
    text = "def answer(signum): signal.raise_signal(signum); return 'whole'"
    exec(compile(text, "/packages/xgboost/core.py", "exec"), {"signal": signal}, known)
    answers = []

    def work(_):
        answers.append(known["answer"](signum))
        threading.Event().wait(60)

    monkeypatch.setattr("toolkit.study.datasets.demo_command", work)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)

    assert main(["demo", "nowhere"]) == code
    assert answers == ["whole"]
    assert capsys.readouterr().err == "Interrupted. Run the same command again to go on.\n"


class _Finalized:
    """Is interrupted while it is thrown away."""

    def __init__(self, act):
        self.act = act

    def __del__(self):
        self.act()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("way", ["finalizer", "callback"])
def test_an_interrupt_that_is_lost_comes_again(monkeypatch, capsys, signum, code, way):
    def work(_):
        if way == "finalizer":
            _Finalized(lambda: signal.raise_signal(signum))
        else:
            ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signum))()
        threading.Event().wait(60)

    monkeypatch.setattr("toolkit.study.datasets.demo_command", work)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    started = time.monotonic()

    assert main(["demo", "nowhere"]) == code
    assert time.monotonic() - started < 2  # before the process is ended where it stands
    assert capsys.readouterr().err == "Interrupted. Run the same command again to go on.\n"


def test_other_exceptions_that_are_lost_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(
        "toolkit.study.datasets.demo_command", lambda _: _Finalized(lambda: 1 / 0) and 0
    )

    assert main(["demo", "nowhere"]) == 0
    assert [lost.exc_type for lost in told] == [ZeroDivisionError]
