"""A study from one command: the same bytes whatever happens in between."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from toolkit.files import FolderError, lock_folder
from toolkit.models import boosters
from toolkit.study.cli import main
from toolkit.study.config import ConfigError, StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.runner import _rebuild_report, run_study
from toolkit.study.verify import _verify_study
from toolkit.validation import LeakageError

SMALL = {
    "quick": True,
    "trials": 2,
    "outer": "3",
    "inner": 2,
    "imbalance": "none",
    "screening": "none",
    "statistics": "minimal",
    "modality": ("text",),
    "workers": 1,
    "contributions": "none",
}
#: Written by every finished study; no times, hosts or paths in them.
STABLE = ("models", "figures")
STABLE_FILES = (
    *("predictions.csv", "scores.csv", "comparisons.csv", "fusion.csv", "study.toml"),
    *("report.md", "report.html", "table.tex", "MODEL_CARD.md"),
    *(
        f"internal/{name}"
        for name in ("folds.csv", "rows.csv", "data.json", "params.json", "audit.json")
    ),
    "internal/derived.json",
)


def contents(folder):
    """Bytes of all that must be the same, whatever happened in between."""
    files = [path for name in STABLE for path in sorted((folder / name).rglob("*"))]
    files = [path for path in files if path.is_file()] + [folder / n for n in STABLE_FILES]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(corpus, build_once):
    """Folder of an uninterrupted study of text."""
    return build_once("text", lambda folder: run(corpus, folder))


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished study that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "copy")


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(corpus, folder, **options):
    config = StudyConfig(data=corpus / "dataset.csv", out=folder, **(SMALL | options))
    return run_study(config)


def test_the_folder_holds_what_the_contract_says(finished, manifest):
    rows = read_rows(finished / "predictions.csv")

    assert list(dict.fromkeys(row["system"] for row in rows)) == [
        *("majority", "no-information", "text", "text-logistic")
    ]
    shown = [row["utterance"] for row in rows if row["system"] == "text"]
    assert shown == manifest.utterances.tolist()
    assert list(rows[0])[:8] == [
        "system",
        "utterance",
        "speaker",
        "session",
        "fold",
        "present",
        "label",
        "predicted",
    ]
    for name in (*STABLE, *STABLE_FILES):
        assert (finished / name).exists(), name
    assert {path.name for path in finished.iterdir()} == {
        *(name.partition("/")[0] for name in (*STABLE, *STABLE_FILES))
    }
    inside = {path.name for path in (finished / "internal").iterdir()}
    assert inside >= {"provenance.json", "search.db", "units", "inventory.json"}
    audit = json.loads((finished / "internal" / "audit.json").read_text())
    assert audit["verdict"] == "no leakage found"
    assert (finished / "models" / "text" / "final.txt").exists()
    assert (finished / "figures" / "confusion-text.svg").exists()


def test_decision_thresholds_are_variants_and_no_systems(finished):
    rows = read_rows(finished / "scores.csv")

    assert list(rows[0])[:3] == ["system", "variant", "metric"]
    assert {(row["system"], row["variant"]) for row in rows if row["variant"]} == {
        ("text", "offset-f1"),
        ("text", "offset-uar"),
    }
    assert not any("offset" in row["system"] for row in rows)


def test_a_finished_study_is_left_alone(corpus, copy, caplog, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    first = _rebuild_report(copy)
    after = {path: path.stat().st_mtime_ns for path in before}
    monkeypatch.setattr(
        "toolkit.study.collecting.derive_study", lambda *_: pytest.fail("computed again")
    )

    with caplog.at_level("INFO", "toolkit"):
        again = run(corpus, copy)

    assert "Nothing to do" in caplog.text
    kept = {path for path in before if path.name in {"report.html", "scores.csv"}}
    assert {path: path.stat().st_mtime_ns for path in kept} == {p: after[p] for p in kept}
    assert again.all_scores == first.all_scores
    assert again.all_comparisons == first.all_comparisons
    assert list(again.systems) == list(first.systems)


@pytest.mark.family
@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"files": 1, "inputs": ""}'])
def test_a_damaged_record_of_the_results_is_made_again(corpus, copy, finished, text):
    path = copy / "internal" / "derived.json"
    path.write_text(text)

    run(corpus, copy)

    assert path.read_bytes() == (finished / "internal" / "derived.json").read_bytes()


@pytest.mark.family
@pytest.mark.parametrize("change", ["edited", "removed", "another option"])
def test_results_that_are_no_longer_those_are_made_again(corpus, copy, finished, change):
    path = copy / "scores.csv"
    if change == "edited":
        path.write_text(path.read_text().replace("text", "best"))
    elif change == "removed":
        path.unlink()

    figures = ("svg", "png") if change == "another option" else ("svg",)
    run(corpus, copy, figures=figures)

    assert path.read_bytes() == (finished / "scores.csv").read_bytes()
    assert (copy / "figures" / "scores.png").exists() == (change == "another option")


def test_finished_units_are_never_computed_again(corpus, finished, monkeypatch):
    monkeypatch.setattr(
        "toolkit.study.workers.run_unit", lambda *_, **__: pytest.fail("computed again")
    )
    before = contents(finished)

    run(corpus, finished)

    assert contents(finished) == before


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(corpus, finished, tmp_path):
    run(corpus, tmp_path / "two", workers=2)

    assert contents(tmp_path / "two") == contents(finished)


def command(corpus, folder, *words):
    text = ["--quick", "--trials", "2", "--outer", "3", "--inner", "2"]
    text += ["--imbalance", "none", "--screening", "none", "--statistics", "minimal"]
    data = ["--data", str(corpus / "dataset.csv"), "--out", str(folder), "--modality", "text"]
    data += ["--contributions", "none"]
    return [sys.executable, "-m", "toolkit.study", *data, *text, "--workers", "1", *words]


#: Sends itself a signal when something is called for the nth time, at no other moment.
SIGNALLING = """
import os, signal, sys
from importlib import import_module

module, name, left, signum = sys.argv.pop(1).split(":")
module, left = import_module(module), int(left)
honest = getattr(module, name)

def call(*said, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), int(signum))
    return honest(*said, **options)

setattr(module, name, call)
# A shell starts its background jobs deaf to SIGINT, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from toolkit.study.cli import main

sys.exit(main(["study", *sys.argv[1:]]))
"""


def start_signalling(place, n, signum, words):
    """Run a command (from its third word on) until a function is called for the nth time."""
    said = f"{place}:{n}:{int(signum)}"
    return subprocess.run(
        [sys.executable, "-c", SIGNALLING, said, *words[3:]],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_bytes(corpus, finished, tmp_path):
    folder = tmp_path / "killed"
    place = "toolkit.study.workers:run_unit"
    killed = start_signalling(place, 3, signal.SIGKILL, command(corpus, folder))
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("internal/units/text/*.zip")}

    subprocess.run(
        command(corpus, folder), check=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )

    assert killed.returncode == -signal.SIGKILL
    assert len(kept) == 2
    assert contents(folder) == contents(finished)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_how_to_go_on(corpus, tmp_path, signum, code):
    folder = tmp_path / "interrupted"
    place = "toolkit.validation.search:_run_trial"
    run = start_signalling(place, 2, signum, command(corpus, folder))

    assert run.returncode == code
    assert run.stderr.endswith("Interrupted. Run the same command again to go on.\n")
    assert not StudyFolder(folder).unit("text", 0).exists()


def test_a_leak_stops_the_study_and_is_no_failure_among_others(corpus, tmp_path, monkeypatch):
    def leak(*_, **__):
        raise LeakageError("Leakage stopped: fit 'refit' of text/00")

    monkeypatch.setattr("toolkit.study.workers.run_unit", leak)

    with pytest.raises(LeakageError, match="Leakage stopped"):
        run(corpus, tmp_path / "leak")


@pytest.mark.usefixtures("no_drawings")
def test_a_damaged_database_of_searches_is_set_aside(corpus, tmp_path, caplog):
    folder = tmp_path / "damaged"
    folder.mkdir()
    Inventory(folder).claim()
    (folder / "internal" / "search.db").write_bytes(b"no database" * 99)

    run(corpus, folder, only="text/0")

    assert (folder / "internal" / "search.db.1").read_bytes() == b"no database" * 99
    assert "finished units are kept" in caplog.text
    assert StudyFolder(folder).unit("text", 0).exists()


@pytest.mark.usefixtures("no_drawings")
def test_another_modality_is_added_later(corpus, copy, finished):
    result = run(corpus, copy, modality=("audio",))

    assert list(result.systems)[:10] == [
        "majority",
        "no-information",
        "audio",
        "text",
        "best-single",
        "vote",
        "soft",
        "weighted",
        "stacked",
        "audio-logistic",
    ]
    before, after = (
        [row for row in read_rows(folder / "predictions.csv") if row["system"] == "text"]
        for folder in (finished, copy)
    )
    assert after == before


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_more_trials_go_on_to_the_bytes_of_a_run_started_with_them(corpus, copy, tmp_path):
    run(corpus, copy, trials=3)
    run(corpus, tmp_path / "three", trials=3)

    assert contents(copy) == contents(tmp_path / "three")
    assert len(StudyFolder(copy).read_unit("text", 0).search.trials) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "--seed was 0, is 1"),
        ({"trials": 1}, r"--trials was 2, is 1 \(it may be raised only\)"),
        ({"outer": "speaker"}, "--outer was '3', is 'speaker'"),
    ],
)
def test_another_study_in_the_folder_is_refused_and_named(corpus, copy, options, message):
    before = contents(copy)

    with pytest.raises(FolderError, match=message):
        run(corpus, copy, **options)

    assert contents(copy) == before


def test_changed_labels_are_refused(corpus, copy, tmp_path):
    other = shutil.copytree(corpus, tmp_path / "other")
    text = (other / "dataset.csv").read_text().splitlines()
    row, *label = text[1].rsplit(",", 2)
    others = (line.rsplit(",", 2)[1:] for line in text[2:])
    text[1] = ",".join([row, *next(each for each in others if each != label)])
    (other / "dataset.csv").write_text("\n".join(text) + "\n")

    with pytest.raises(FolderError, match=r"the rows of dataset.csv"):
        run(other, copy)


def test_changed_features_are_refused(corpus, copy, tmp_path):
    other = shutil.copytree(corpus, tmp_path / "other")
    path = min((other / "features" / "lexical_features").rglob("*.npy"))
    content = bytearray(path.read_bytes())
    content[-4:] = b"\0\0\0\0"
    path.write_bytes(content)

    with pytest.raises(FolderError, match="Changed: the text features"):
        run(other, copy)


def test_a_folder_in_use_is_refused_and_left_alone(corpus, copy):
    before = contents(copy)

    with lock_folder(copy), pytest.raises(FolderError, match="Another run is working in"):
        run(corpus, copy)

    assert contents(copy) == before


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_fresh_sets_the_old_folder_aside(corpus, copy):
    run(corpus, copy, seed=1, fresh=True)

    assert (copy.with_name("copy.1") / "report.md").exists()
    assert "seed = 1" in (copy / "study.toml").read_text()


@pytest.mark.usefixtures("no_drawings")
def test_a_damaged_unit_is_named_with_what_to_do(corpus, copy, opened):
    path = StudyFolder(copy).unit("text", 2)
    with opened(path) as files:
        content = bytearray((files / "test.npy").read_bytes())
        content[-1] ^= 1
        (files / "test.npy").write_bytes(content)

    with pytest.raises(FolderError, match=r"text/02\.zip is damaged: test\.npy changed"):
        run(corpus, copy)

    path.unlink()
    before = (copy / "predictions.csv").read_bytes()
    run(corpus, copy)
    assert (copy / "predictions.csv").read_bytes() == before


@pytest.mark.usefixtures("no_drawings")
def test_a_single_unit_can_be_run_alone(corpus, tmp_path):
    folder = tmp_path / "only"

    result = run(corpus, folder, only="text/2")

    assert [path.name for path in (StudyFolder(folder).units / "text").iterdir()] == ["02.zip"]
    assert result.unfinished == ("text", "text-logistic")
    assert not (folder / "report.html").exists()
    with pytest.raises(ConfigError, match=r"no such unit\. Systems: text, text-logistic"):
        run(corpus, folder, only="smell/3")


#: Runs commands in processes of their own, three at a time: forks, which import nothing again.
ARRAY = """
import json, os, sys
import lightgbm, matplotlib.figure, optuna, pandas, sklearn.linear_model
from toolkit.study import cli, runner

def fork(words, path):
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), 1)
    code = cli.main(words)
    sys.stdout.flush()
    os._exit(code)

waiting, running, codes = json.load(sys.stdin), set(), []
while waiting or running:
    while waiting and len(running) < 3:
        running.add(fork(*waiting.pop()))
    pid, status = os.wait()
    running.remove(pid)
    codes.append(os.waitstatus_to_exitcode(status))
print(json.dumps(codes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_single_units_beside_one_another_add_up_to_the_study(corpus, finished, tmp_path):
    """As in a job array: processes of their own, in one folder, in any order."""
    folder = tmp_path / "array"
    names = [f"{s}/{k:02d}" for s in ("text", "text-logistic") for k in range(3)]
    jobs = [
        (
            ["study", *command(corpus, folder, "--only", name)[3:]],
            str(tmp_path / f"out-{number}"),
        )
        for number, name in enumerate(["text/final", *reversed(names)])
    ]
    done = subprocess.run(
        [sys.executable, "-c", ARRAY],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    assert json.loads(done.stdout) == [0] * len(jobs)
    assert all((tmp_path / path).read_text() == "" for _, path in jobs)
    assert main(["report", str(folder)]) == 0
    assert contents(folder) == contents(finished)


def test_a_unit_of_one_modality_does_not_read_the_others(corpus, tmp_path):
    spoilt = shutil.copytree(corpus, tmp_path / "spoilt")
    for path in (spoilt / "features" / "acoustic_features").rglob("*.npy"):
        path.write_bytes(b"nothing of the kind")

    run(spoilt, tmp_path / "out", only="text/0", modality=(), duplicates="allow")

    assert StudyFolder(tmp_path / "out").unit("text", 0).exists()


def test_generated_data_is_called_generated_everywhere(finished):
    assert "**Generated data." in (finished / "report.md").read_text()
    assert (
        json.loads((finished / "internal" / "provenance.json").read_text())["data"]["generated"]
        is True
    )


@pytest.mark.usefixtures("no_drawings")
def test_a_grid_ends_with_its_points_and_is_not_run_again(corpus, tmp_path):
    options = SMALL | {"sampler": "grid", "grid": {"lightgbm": {"num_leaves": [3, 5]}}}
    folder = tmp_path / "grid"
    del options["trials"]
    run_study(StudyConfig(data=corpus / "dataset.csv", out=folder, **options))
    params = json.loads((folder / "internal" / "params.json").read_text())["text"]
    before = StudyFolder(folder).unit("text", 0).stat().st_mtime_ns

    run_study(StudyConfig(data=corpus / "dataset.csv", out=folder, trials=40, **options))

    ends = {(unit["trials_done"], unit["stopped_by"]) for unit in params.values()}
    assert ends == {(2, "grid")}
    assert {unit["record"]["sampler"] for unit in params.values()} == {"grid"}
    assert StudyFolder(folder).unit("text", 0).stat().st_mtime_ns == before
    with pytest.raises(FolderError, match=r"--grid was \{.*is None"):
        run_study(
            StudyConfig(data=corpus / "dataset.csv", out=folder, **SMALL | {"sampler": "grid"})
        )


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    folder = tmp_path / "cuda"
    monkeypatch.setattr(boosters, "_device_problem", lambda *_: "there is no GPU")

    with pytest.raises(ValueError, match="lightgbm cannot fit on cuda here: there is no GPU"):
        run_study(StudyConfig(out=folder, device="cuda"))
    assert not folder.exists()


def test_a_study_that_cannot_fit_into_memory_is_refused(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.study.workers._available_memory", lambda: 10)

    with pytest.raises(ConfigError, match="side by side may need"):
        run_study(StudyConfig(data=corpus / "dataset.csv", out=tmp_path / "m", **SMALL))


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_a_very_wide_modality_is_reduced_in_words_and_in_the_record(
    corpus, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("toolkit.study.plan.MOST_COLUMNS", 60)
    options = SMALL | {"modality": ("visual",), "statistics": "rich", "trials": 1}
    options["wide"] = "reduce"

    run_study(StudyConfig(data=corpus / "dataset.csv", out=tmp_path / "w", **options))

    said = "visual: rich statistics make 144 columns, more than 60; basic statistics (56 col"
    assert any(said in message for message in caplog.messages)
    params = json.loads((tmp_path / "w" / "internal" / "params.json").read_text())["visual"]
    assert {
        unit["record"]["reduced"]["visual"]["rich"]["n_columns"] for unit in params.values()
    } == {56}
    report = (tmp_path / "w" / "report.md").read_text()
    assert "visual took basic statistics of visual (56 columns) in place of rich" in report


@pytest.mark.usefixtures("no_drawings")
def test_a_very_wide_modality_is_screened_in_words_and_in_the_record(
    corpus, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("toolkit.study.plan.MOST_COLUMNS", 60)
    monkeypatch.setattr("toolkit.validation.fits.WIDE_SCREEN", "ftest-20")
    options = SMALL | {"modality": ("visual",), "statistics": "rich", "trials": 1}
    folder = tmp_path / "w"

    run_study(StudyConfig(data=corpus / "dataset.csv", out=folder, **options))

    said = "visual: 144 columns are more than 60; "
    assert any(said in message for message in caplog.messages)
    params = json.loads((folder / "internal" / "params.json").read_text())["visual"]
    assert {unit["params"]["screening"] for unit in params.values()} == {"ftest-20"}
    assert {unit["record"]["n_features"] for unit in params.values()} == {20}
    assert "ftest-20 replaced the screening none" in (folder / "report.md").read_text()
    for kind in ("visual", "visual-logistic"):
        entries = StudyFolder(folder).read_unit(kind, 0).ledger
        assert {"screen"} <= {entry["role"] for entry in entries}
    assert not [each for check in _verify_study(folder)[0] for each in check.differences]
    text = (folder / "study.toml").read_text()
    (folder / "study.toml").write_text(text.replace('wide = "screen"', 'wide = "reduce"'))
    named = [each for check in _verify_study(folder)[0] for each in check.differences]
    assert "study.toml: wide is 'reduce'; provenance.json says 'screen'." in named


@pytest.mark.usefixtures("no_drawings")
def test_groups_of_people_are_scored_without_another_fit(corpus, copy, tmp_path):
    data = shutil.copytree(corpus, tmp_path / "corpus")
    rows = read_rows(data / "dataset.csv")
    speaker = next(name for name in rows[0] if name.strip().startswith("speaker"))
    people = sorted({row[speaker].strip() for row in rows})
    group = {name: f"group {number % 2}" for number, name in enumerate(people)}
    with (data / "dataset.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "split of people"])
        writer.writeheader()
        writer.writerows(row | {"split of people": group[row[speaker].strip()]} for row in rows)
    units = {path: path.read_bytes() for path in (copy / "internal/units").rglob("*.zip")}

    run(data, copy, by=("split of people",), abstain=(0.5,))

    own = [row for row in read_rows(copy / "predictions.csv") if row["system"] == "text"]
    table = read_rows(copy / "groups.csv")
    assert [row["group"] for row in table] == ["group 0", "group 1"] * 2
    for row in table[:2]:
        inside = [each for each in own if group[each["speaker"]] == row["group"]]
        right = [each["label"] == each["predicted"] for each in inside]
        assert int(row["n"]) == len(inside)
        assert float(row["value"]) == pytest.approx(sum(right) / len(inside))
    assert units == {path: path.read_bytes() for path in units}
    # The folder alone gives the same, and a study without the option has no such file.
    names = ("groups.csv", "gaps.csv", "report.md")
    before = [(copy / name).read_bytes() for name in names]
    _rebuild_report(copy)
    assert [(copy / name).read_bytes() for name in names] == before
    run(corpus, copy)
    assert not {"groups.csv", "gaps.csv"} & {path.name for path in copy.iterdir()}
