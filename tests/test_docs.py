"""The documentation: every command runs, every formula gives what the toolkit computes."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import yaml

import toolkit
from toolkit.data import read_manifest
from toolkit.pooling import PRESETS
from toolkit.pooling.statistics import BUILT_IN, STATISTICS, compute_statistics
from toolkit.study.cli import _build_parser
from toolkit.study.config import StudyConfig
from toolkit.validation import METRICS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Little enough to be run by a test; the commands of the pages name this study.
STUDY = """
name = "my"
data = "dataset.csv"
out = "../outputs/my"
quick = true
trials = 1
outer = "3"
inner = 2
imbalance = "none"
screening = "none"
statistics = "minimal"
contributions = "none"
"""


def read_table(page, heading):
    """Cells of the rows of the page's first table with this first header."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text[text.index(f"| {heading} |") :].split("\n\n", 1)[0]
    return [[c.strip() for c in row.strip("|").split("|")] for row in table.splitlines()[2:]]


@pytest.mark.parametrize("n_frames", [2, 3, 17, 100])
def test_every_formula_of_the_page_is_what_is_computed(n_frames):
    x = np.random.default_rng(n_frames).normal(size=n_frames)
    T = len(x)
    known = {"np": np, "x": x, "T": T, "t": np.arange(T) / (T - 1), "d": x - x.mean()}
    known |= {"z": known["d"] / x.std(), "e": np.diff(x)}
    known["s"] = np.where(abs(known["d"]) <= 1e-6 * np.ptp(x), 0, np.sign(known["d"]))
    known["third"] = lambda x, k: x[k * T // 3 : max((k + 1) * T // 3, k * T // 3 + 1)]
    rows = [
        [cell.strip("`") for cell in row] for row in read_table("statistics.md", "statistic")
    ]
    assert [name for name, *_ in rows] == list(BUILT_IN)

    for name, formula, _ in rows:
        if name == "curvature" and T < 3:
            continue  # the page says 0, where a parabola is not determined
        expected = eval(formula, known)
        computed = compute_statistics(x[:, None], (name,))[0, 0]
        assert computed == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize(("n_rows", "K"), [(40, 2), (200, 4), (30, 5)])
def test_every_score_of_the_page_is_what_is_computed(n_rows, K):
    rng = np.random.default_rng(n_rows)
    y, p = rng.integers(K, size=n_rows), rng.dirichlet(np.full(K, 0.5), size=n_rows)
    p[0] = np.eye(K)[(y[0] + 1) % K]  # a certain mistake
    d = (p + 0.1 * np.eye(K)[0]).argmax(axis=1)  # a decision that is not the most probable
    known = {"np": np, "y": y, "d": d, "p": p, "K": K, "n": n_rows}
    page = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")
    for line in re.findall(r"^    (\w.* = .*)$", page, re.MULTILINE):
        exec(line, known)

    for name, formula, _ in read_table("scores.md", "metric"):
        expected = eval(formula.strip("`"), known)
        computed = METRICS[name.strip("`")].compute(y, p, d)
        assert computed == pytest.approx(expected, abs=1e-12), name

    assert {name.strip("`") for name, *_ in read_table("scores.md", "metric")} == set(METRICS)


def test_the_page_lists_the_presets_as_they_are():
    said = {
        row[0].strip("`"): re.findall(r"`(\w+)`", row[1])
        for row in read_table("statistics.md", "preset")
    }

    assert set(said) == set(PRESETS)
    for name in ("minimal", "basic", "rich"):
        assert tuple(said[name]) == PRESETS[name]
    assert set(BUILT_IN) <= set(STATISTICS)


def test_every_page_is_listed_and_part_of_the_site():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {path.name for path in PAGES[1:]}

    assert pages - {"README.md"} <= set(re.findall(r"\(([^)]*)\)", index))
    assert {path for entry in site["nav"] for path in entry.values()} == pages


def test_every_citation_names_the_version_of_the_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    readme = PAGES[0].read_text(encoding="utf-8")
    entry = dict(re.findall(r"^      (\w+) += \{+(.*?)\}+,?$", readme, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == entry["version"] == toolkit.__version__
    assert cited["title"] == entry["title"]
    assert cited["title"].startswith(project["name"])
    assert [author["name"] for author in cited["authors"]] == [entry["author"]]
    assert cited["license"] == entry["license"] == project["license"]
    assert cited["message"]
    assert cited["abstract"] == " ".join(readme.split("\n\n")[1].split())
    assert len(cited["keywords"]) > 3


def test_the_study_of_the_readme_can_be_called():
    readme = PAGES[0].read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    call = ast.parse(block).body[0].value
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}

    assert ast.unparse(call.func) == "toolkit.study"
    inspect.signature(toolkit.study).bind(*call.args, **arguments)


def describe_values(field):
    """Say which values a field takes, from its type and limits."""
    kind = field.annotation
    kinds = [arg for arg in get_args(kind) if arg is not type(None)]
    if get_origin(kind) in (Union, types.UnionType) and len(kinds) == 1:
        kind = kinds[0]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    limits = {type(limit).__name__.lower(): limit for limit in field.metadata}
    low, high = (getattr(limits.get(name), name, None) for name in ("ge", "le"))
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is dict:
        return "table" if field.json_schema_extra["table"] else "`KEY=VALUE`, repeatable"
    if get_origin(kind) is tuple and field.json_schema_extra["table"]:
        return "tables"
    if get_origin(kind) is tuple:
        named = get_args(get_args(kind)[0])
        return ", ".join(f"`{value}`" for value in named) if named else "names"
    if kind is int:
        return f"{low} and up" if high is None else f"{low:,} to {high:,}"
    return {bool: "on, off", float: "seconds", Path: "path", str: "text"}[kind]


def describe_default(field):
    if field.default in (None, (), {}):
        return ""
    if isinstance(field.default, tuple) and len(field.default) > 1:
        every = get_args(get_args(field.annotation)[0])
        return (
            "all of them"
            if len(field.default) >= len(every) - 1
            else ", ".join(f"`{value}`" for value in field.default)
        )
    default = field.default[0] if isinstance(field.default, tuple) else field.default
    return "off" if default is False else f"`{default}`"


def test_the_options_of_the_page_are_those_there_are():
    expected = [
        [
            f"`{name.rstrip('_')}`",
            describe_values(field),
            describe_default(field),
            "yes" if field.json_schema_extra["identity"] else "no",
            field.description.replace("<", r"\<"),
        ]
        for name, field in StudyConfig.model_fields.items()
    ]

    assert read_table("options.md", "option") == expected


def test_the_commands_of_the_page_are_those_there_are():
    _, made = _build_parser()

    said = {row[0].strip("`").split()[1]: row[1] for row in read_table("options.md", "command")}

    assert {name: f"{text.capitalize()}." for name, text in said.items()} == {
        name: parser.description for name, parser in made.items()
    }


#: Parts of commands that take minutes, and options that shorten them: a later option wins.
SHORTER = {
    " premium ": " --permutations 0",
    " --quick": " --trials 1 --outer 3 --inner 2 --imbalance none --screening none"
    " --statistics minimal --contributions none",
}


@pytest.fixture(scope="module")
def desk(corpus, tmp_path_factory, sounds):
    """A folder as the pages suppose it: data and a study in ``my/``, the command on PATH."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(corpus, folder / "my")
    (folder / "my" / "study.toml").write_text(STUDY)
    names = read_manifest(corpus / "dataset.csv").utterances.tolist()
    rows = [f"{name},{number},{number % 7}" for number, name in enumerate(names)]
    (folder / "my" / "egemaps.csv").write_text("\n".join(["file,loudness,pitch", *rows, ""]))
    sounds.make_recordings(folder / "my" / "recordings")
    words = ["stop that", "so nice to see you", "the table is there", "monday then", "well no"]
    rows = [f"U{k:02d},{k % 3},P{k % 4},{words[k % 3]} {words[k % 5]}" for k in range(48)]
    talks = "\n".join(["utterance,label,speaker,transcript", *rows, ""])
    (folder / "my" / "talks.csv").write_text(talks)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "toolkit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m toolkit "$@"\n')
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for path in programs.iterdir():
        path.chmod(0o755)
    return folder


def run(desk, command, **more):
    programs = [str(desk / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = os.environ | {"PATH": os.pathsep.join(programs), "TOOLKIT_CACHE": str(desk / "cache")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        check=False,
        cwd=desk,
        env=env | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", PAGES, ids=lambda path: path.relative_to(ROOT).with_suffix("").as_posix()
)
def test_every_command_of_a_page_runs(page, desk):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in "".join(blocks).splitlines():
        run(desk, line + "".join(more for part, more in SHORTER.items() if part in line))


def test_the_readme_is_read_in_one_sitting():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 230


def test_how_to_contribute_fits_on_one_screen():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)

    assert len(text.splitlines()) <= 60
    assert "docs/architecture.md" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_a_job_array_adds_up_to_the_study(desk):
    shutil.rmtree(desk / "outputs", ignore_errors=True)
    script = ROOT / "docs" / "examples" / "slurm.sh"
    listed = run(desk, "toolkit study my/study.toml --modality text --dry-run --json")
    n_units = len(json.loads(listed)["units"])
    assert n_units == 7
    (desk / "my" / "text.toml").write_text(STUDY + 'modality = ["text"]\nfusion = ["none"]\n')
    for number in reversed(range(n_units)):
        run(desk, ["bash", script, "my/text.toml"], SLURM_ARRAY_TASK_ID=str(number))

    assert "text-logistic" in run(desk, "toolkit report outputs/my")
    assert (desk / "outputs" / "my" / "MODEL_CARD.md").exists()


@pytest.mark.slow
def test_a_dask_cluster_on_this_machine_runs_a_study(desk):
    pytest.importorskip("distributed", reason="the extra cluster is not installed")
    shutil.rmtree(desk / "outputs", ignore_errors=True)
    (desk / "my" / "text.toml").write_text(STUDY + 'modality = ["text"]\nfusion = ["none"]\n')

    said = run(desk, ["bash", ROOT / "docs" / "examples" / "dask.sh", "my/text.toml"])

    assert "text-logistic" in said
