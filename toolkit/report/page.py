"""The report as Markdown: the answer first, then the tables it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.validation import METRICS, find_score, outer_unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from toolkit.data import Manifest
    from toolkit.fusion import FusionRecord
    from toolkit.validation import Comparison, Predictions, Score

#: Metrics of the table of scores, in its order; the files hold all of them.
_SHOWN: Final = ("f1_micro", "f1_macro", "uar", "mcc", "log_loss")

_SCORES_NOTE: Final = (
    "Intervals are 95 %, jackknife over speakers: they describe new speakers for these "
    "systems, not other training sets or seeds. `majority` predicts its training fold's class "
    "shares. All metrics, folds, speakers and classes are in `scores.csv`."
)
_COMPARISONS_NOTE: Final = (
    "p by exchanging both systems' predictions of whole speakers; adjusted over all pairs by "
    "step-down max-T. Only an adjusted p of at most .05 is called a difference."
)

_PROTOCOL: Final = (
    "Of {n} utterances by {n_speakers} speakers, {n_tested} were tested, each once, in "
    "{n_folds} outer folds: {scheme}. In every outer fold the hyperparameters were searched on "
    "its training {unit}s alone ({trials} trials of {sampler} by {metric}, at most {inner} "
    "inner folds grouped by {unit}, at most {rounds} boosting rounds, stopped early on the "
    "inner folds), then one model was fitted on all of them. Screening, resampling and weights "
    "were fitted inside the training folds; bin edges, which see no label, on the outer "
    "training rows. The leakage ledger of {n_fits} fits and choices says: {verdict}. Seed "
    "{seed}."
)


def format_report(
    *,
    manifest: Manifest,
    predictions: Mapping[str, Predictions],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
    fusion: Sequence[FusionRecord],
    params: Mapping[str, Any],
    audit: Mapping[str, Any],
    options: Mapping[str, Any],
    drawn: Sequence[str],
) -> str:
    """Write the report of a study.

    Parameters
    ----------
    manifest : Manifest
        The data.
    predictions : mapping of str to Predictions
        System to its predictions.
    scores : sequence of Score
        Of these systems.
    comparisons : sequence of Comparison
        Of their pairs.
    fusion : sequence of FusionRecord
        What the fusions fix and break; empty where there is none.
    params : mapping
        Searched system to fold to what its search chose.
    audit : mapping
        The leakage ledger's verdict.
    options : mapping
        What decided the study.
    drawn : sequence of str
        Systems whose confusion matrix was drawn.

    Returns
    -------
    str
        Markdown; the same text for the same numbers.
    """
    metric = str(options["metric"])
    parts = [
        "# How well is the label of a person never seen predicted?",
        _generated_note(manifest),
        _answer(params, scores, comparisons, metric),
        "## Scores",
        _score_table(predictions, scores),
        _SCORES_NOTE,
        "## Comparisons",
        _comparison_table(comparisons, metric),
        _COMPARISONS_NOTE,
        "## Fusion" if fusion else "",
        _fusion_section(fusion),
        "## Data",
        _data_section(manifest),
        "## Protocol",
        _protocol(manifest, params, audit, options),
        "## What was chosen",
        _choices(params),
        "## Confusion matrices",
        "\n".join(
            f"![{_confusion_text(predictions[system])}](figures/confusion-{system}.svg)"
            for system in drawn
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _generated_note(manifest: Manifest) -> str:
    if not manifest.generated:
        return ""
    return (
        "> **Generated data.** These recordings were made by this software with a planted "
        "signal. The numbers say nothing about people."
    )


def _answer(
    systems: Iterable[str],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
    metric: str,
) -> str:
    title = METRICS[metric].title
    majority = find_score(scores, "majority", metric)
    sentences = []
    for system in systems:
        score = find_score(scores, system, metric)
        against = next(c for c in comparisons if {c.a, c.b} == {system, "majority"})
        better = (score.value > majority.value) == (METRICS[metric].direction == "maximize")
        verdict = (
            f"{'above' if better else 'below'} the majority baseline ({majority.value:.3f})"
            if against.shows_difference
            else f"no difference from the majority baseline ({majority.value:.3f}) was shown"
        )
        sentences.append(
            f"**{_cell(system)}** reaches {title} {_with_interval(score)} on people never "
            f"seen: {verdict}, adjusted p {_p(against.p_adjusted)}, "
            f"{against.n_speakers} speakers."
        )
    return " ".join(sentences)


def _score_table(predictions: Mapping[str, Predictions], scores: Sequence[Score]) -> str:
    header = ["system", *(METRICS[name].title for name in _SHOWN), "n"]
    rows = []
    for system, table in predictions.items():
        values = [_with_interval(find_score(scores, system, name)) for name in _SHOWN]
        rows.append([system, *values, str(len(table))])
    return _table(header, rows)


def _comparison_table(comparisons: Sequence[Comparison], metric: str) -> str:
    header = ["a", "b", f"{METRICS[metric].title}: a - b", "p", "p adjusted", "smallest p"]
    rows = [
        [
            pair.a,
            pair.b,
            f"{pair.difference:+.3f}"
            + ("" if pair.low is None else f" [{pair.low:+.3f}, {pair.high:+.3f}]"),
            _p(pair.p),
            _p(pair.p_adjusted),
            _p(pair.smallest_p),
        ]
        for pair in comparisons
    ]
    return _table(header, rows)


def _fusion_section(records: Sequence[FusionRecord]) -> str:
    if not records:
        return ""
    everywhere = [record for record in records if record.scope == "all"]
    fusions = [record.system for record in everywhere if record.quantity == "fixed"]
    count = {(record.system, record.quantity): record for record in everywhere}
    rows = [
        [
            system,
            str(count[system, "fixed"].value),
            str(count[system, "broken"].value),
        ]
        for system in fusions
    ]
    oracle = count["oracle", "right"]
    ties = count.get(("vote", "ties"))
    best = (
        f"Some modality was right for {oracle.value} of {oracle.n} utterances: no choice among "
        "them can do better."
    )
    tied = (
        f" The vote was tied for {ties.value} of {ties.n}; a tie goes to the larger sum of "
        "probabilities."
        if ties
        else ""
    )
    table = _table(["system", "fixed", "broken"], rows)
    return (
        "Against `best-single`, which takes in each fold the modality with the best inner "
        f"score:\n\n{table}\n\n{best}{tied} Classes, speakers, agreement and double "
        "faults are in `fusion.csv`."
    )


def _data_section(manifest: Manifest) -> str:
    speakers = np.unique(manifest.speakers)
    rows = []
    for speaker in speakers:
        counts = np.bincount(
            manifest.labels[manifest.speakers == speaker], minlength=len(manifest.classes)
        )
        rows.append([str(speaker), *map(str, counts), str(counts.sum())])
    totals = np.bincount(manifest.labels, minlength=len(manifest.classes))
    rows.append(["all", *map(str, totals), str(totals.sum())])
    lines = [_table(["speaker", *manifest.classes, "all"], rows)]
    lines += [
        f"- `{modality}` is missing for {sum(path is None for path in paths)} utterances."
        for modality, paths in manifest.paths.items()
        if any(path is None for path in paths)
    ]
    lines += [
        f"- Left out by the choice of classes: {count} utterances of {_cell(name)}."
        for name, count in manifest.excluded.items()
    ]
    lines += [f"- {_cell(old)} counts as {_cell(new)}." for old, new in manifest.merged.items()]
    lines += [f"- {_cell(warning)}" for warning in manifest.warnings]
    return lines[0] + ("\n\n" + "\n".join(lines[1:]) if lines[1:] else "")


def _protocol(
    manifest: Manifest,
    params: Mapping[str, Any],
    audit: Mapping[str, Any],
    options: Mapping[str, Any],
) -> str:
    unit = outer_unit(str(options["outer"]))
    scheme = {
        "speaker": "one speaker at a time was held out",
        "session": "one session at a time was held out, both partners together",
        "split": "the data's own split was honoured and only its test rows are scored",
    }.get(str(options["outer"]), f"the speakers were packed into {options['outer']} folds")
    records = [fold for folds in params.values() for fold in folds.values()]
    limited = sum(record["stopped_by"] == "time" for record in records)
    failed = sum(record["trials_failed"] for record in records)
    absent = sorted({name for r in records for name in r["record"]["absent_classes"]})
    n_fits = sum(system["fits_and_choices"] for system in audit["systems"].values())
    sentences = [
        _PROTOCOL.format(
            n=len(manifest),
            n_speakers=len(np.unique(manifest.speakers)),
            unit=unit,
            scheme=scheme,
            n_fits=n_fits,
            **audit,
            **options,
        )
    ]
    if limited:
        sentences.append(f"**{limited} searches were time-limited: not reproducible.**")
    if failed:
        sentences.append(f"{failed} trials failed in the booster and were left out.")
    if absent:
        sentences.append(
            f"In some training folds no utterance of {', '.join(map(_cell, absent))} was left; "
            "its probability is 0 there."
        )
    return " ".join(sentences)


def _choices(params: Mapping[str, Any]) -> str:
    header = ["system", "fold", "booster", "statistics", "screening", "imbalance"]
    header += ["features", "rounds", "inner score"]
    rows = [
        [
            system,
            fold,
            *(str(chosen["params"][key]) for key in header[2:6]),
            str(chosen["record"]["n_features"]),
            str(chosen["n_rounds"]),
            f"{chosen['inner_score']:.3f}",
        ]
        for system, folds in params.items()
        for fold, chosen in folds.items()
    ]
    return _table(header, rows) + (
        "\n\nThe inner score chose the parameters and is therefore optimistic; all "
        "hyperparameters are in `params.json`."
    )


def _confusion_text(table: Predictions) -> str:
    right = float(np.mean(table.decided == table.labels))
    return f"Confusion matrix of {_cell(table.system)}: {right:.1%} of {len(table)} right"


def _with_interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _p(value: float) -> str:
    return f"{value:.4f}".lstrip("0") if value < 1 else "1"


def _table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    header = [_cell(name) for name in header]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Keep a name of the data from being read as markup."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")
