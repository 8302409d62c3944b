"""Answers of the commands on the terminal, and the two commands that only describe data."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from toolkit.data import DatasetSummary, ManifestError, make_corpus
from toolkit.study.examining import examine_data
from toolkit.study.options import Request, format_command, print_json
from toolkit.study.plan import Plan, plan_study
from toolkit.systems import System, variant_name
from toolkit.validation import METRICS

if TYPE_CHECKING:
    # Imported in earnest it would load the drawing of reports, which takes half a second.
    from toolkit.report.document import Table as Matrix
    from toolkit.study.outcome import StudyResult

_SHOWN = ("f1_micro", "uar")


def check_command(request: Request) -> int:
    """Validate a data set with the study's own plan, and describe it."""
    manifest = request.require_table()
    summary = examine_data(plan_study(request.config, manifest))
    if request.as_json:
        print_json(_describe_summary(summary))
    elif not is_quiet():
        study = format_command(request.config, request.arguments["study"])
        _show_summary(summary, manifest.ignored, study)
    elif summary.problems:
        raise ManifestError(summary.problems, source=manifest.source)
    return 2 if summary.problems else 0


def demo_command(request: Request) -> int:
    """Write the generated corpus."""
    source = make_corpus(request.arguments["folder"], full=request.arguments["full"])
    if request.as_json:
        print_json({"data": str(source)})
    elif not is_quiet():
        print(f"Generated data, with a planted signal: {source}")  # noqa: T201
    return 0


def is_quiet() -> bool:
    """Check for ``--quiet``: nothing is printed but errors, and data that were asked for."""
    return logging.getLogger("toolkit").getEffectiveLevel() >= logging.ERROR


def show_result(result: StudyResult, metric: str, *, as_json: bool = False) -> None:
    """Print the scores of a study, as a table or as JSON."""
    if as_json:
        print_json(
            {
                "folder": str(result.folder),
                "unfinished": list(result.unfinished),
                "scores": [
                    asdict(score) for score in result.all_scores if score.scope == "all"
                ],
            }
        )
        return
    if is_quiet():
        return
    console = Console()
    names = tuple(dict.fromkeys((metric, *_SHOWN)))
    table = _make_table("system", *(METRICS[name].title for name in names), "n")
    for system, scores in result.table(names).iterrows():
        n = len(result.systems[str(system)])
        table.add_row(*map(escape, map(str, (system, *scores, n))))
    console.print(table)
    if any(System.parse(name).is_outside for name in result.systems):
        console.print("A plus in a name: brought from outside; not audited.", highlight=False)
    console.print(
        "Intervals: 95 %, jackknife over speakers. Other decision thresholds: scores.csv.",
        highlight=False,
        soft_wrap=True,
    )
    where = f"Report: {result.folder / 'report.html'}"
    console.print(where, highlight=False, markup=False, soft_wrap=True)
    searches = f"Searches: toolkit dashboard {shlex.quote(str(result.folder))}"
    console.print(searches, highlight=False, markup=False, soft_wrap=True)


def print_table(table: Matrix) -> None:
    """Print a table of a report."""
    shown = _make_table(*map(escape, table.header))
    for row in table.rows:
        shown.add_row(*(escape(cell.text) for cell in row))
    console = Console()
    console.print(table.caption, highlight=False, markup=False, soft_wrap=True)
    console.print(shown)


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what a study would run, as a table or as JSON."""
    estimate = plan.estimate()
    if as_json:
        size = asdict(estimate) | {"units": list(estimate.units)}
        utterances = {"folder": str(plan.folder.path), "utterances": len(plan.manifest)}
        print_json(utterances | size)
        return
    if is_quiet():
        return
    console = Console()
    table = _make_table("system", "units", "trials per unit", "columns")
    for system, n_units in Counter(u.rpartition("/")[0] for u in estimate.units).items():
        is_logistic = System.parse(system).is_logistic
        trials = "" if is_logistic else str(plan.options.n_trials)
        columns = estimate.columns[variant_name(system, "") if is_logistic else system]
        table.add_row(system, str(n_units), trials, f"{columns:,}")
    console.print(table)
    cost = (
        f"{len(estimate.units)} units; {plan.config.n_workers} side by side take at most "
        f"{estimate.memory / 2**30:.1f} GB of memory."
    )
    where = (
        f"{len(plan.manifest)} utterances, {len(plan.folds)} outer folds, into "
        f"{plan.folder.path}"
    )
    for line in (where, cost):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_summary(summary: DatasetSummary, ignored: Sequence[str], study: str) -> None:
    """Print what a data set holds and what is wrong with it, or the command of a study."""
    console = Console()
    if summary.generated:
        console.print("Generated data: made by this software, with a planted signal.")
    console.print(
        f"{summary.source}: {summary.n_utterances} utterances, {len(summary.classes)} classes, "
        f"{len(summary.speakers)} speakers"
        + ("" if summary.n_sessions is None else f", {summary.n_sessions} sessions")
        + ("" if summary.n_contents is None else f", {summary.n_contents} scripts or sentences")
        + f"; {summary.n_complete} utterances have every modality.",
        highlight=False,
        markup=False,
    )
    people = _make_table("speaker", *map(escape, summary.classes), "all")
    for speaker, counts in zip(summary.speakers, summary.counts.tolist(), strict=True):
        people.add_row(escape(speaker), *map(str, counts), str(sum(counts)))
    totals = summary.counts.sum(axis=0).tolist()
    people.add_row("all", *map(str, totals), str(sum(totals)), style="bold")
    console.print(people)
    files = _make_table(
        *("modality", "dims", "frames", "files", "empty", "absent", "unreadable", "not finite")
    )
    for each in summary.modalities:
        frames = "no time axis"
        if each.n_frames is not None:
            shortest, middle, longest = each.n_frames
            frames = f"{shortest}-{longest} (median {middle:g})"
        counts = (each.n_files, each.n_empty, each.n_absent, each.n_unreadable)
        files.add_row(
            each.modality,
            ", ".join(str(n) if n else "words" for n in each.dims),
            frames,
            *map(str, counts),
            str(each.n_not_finite),
        )
    console.print(files)
    if ignored:
        console.print(f"Ignored columns: {', '.join(ignored)}", markup=False, soft_wrap=True)
    for sentence in summary.warnings:
        console.print(f"Note: {sentence}", highlight=False, markup=False, soft_wrap=True)
    for sentence in summary.problems:
        console.print(f"Problem: {sentence}", highlight=False, markup=False, soft_wrap=True)
    if not summary.problems:
        words = f"No problems found. Run: {study}"
        console.print(words, highlight=False, markup=False, soft_wrap=True)


def _describe_summary(summary: DatasetSummary) -> dict[str, Any]:
    """Give a data set's summary as plain data."""
    plain = {each.name: getattr(summary, each.name) for each in fields(summary)}
    del plain["present"], plain["notes"]  # one entry per utterance; among the warnings
    modalities = [
        {each.name: getattr(modality, each.name) for each in fields(modality)}
        | {"dims": dict(modality.dims)}
        for modality in summary.modalities
    ]
    return plain | {"counts": summary.counts.tolist(), "modalities": modalities}


def _make_table(*headers: str) -> Table:
    """Make a table that shows every word, also where the terminal is narrow."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
