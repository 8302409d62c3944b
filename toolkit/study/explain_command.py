"""The command ``toolkit explain``: contributions to one utterance, by part and by frame."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest, read_sequence, split_member
from toolkit.data.roles import suggest
from toolkit.explain import Explainer
from toolkit.explain.timeline import UtteranceExplanation, explain_utterance
from toolkit.files import FolderError, format_csv, format_json, write_bytes
from toolkit.pooling.statistics import clean_frames
from toolkit.report import render_figure
from toolkit.report.shap_figures import plot_utterance
from toolkit.study.config import ConfigError
from toolkit.study.folder import StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.options import Request
from toolkit.study.plan import Plan, plan_study
from toolkit.study.terminal import print_json
from toolkit.validation import make_features, outer_grouping
from toolkit.validation.ledger import Ledger

_MOST_SHOWN: Final = 5


_Explained = tuple[dict[str, Any], tuple[Path, ...]]


def _explain_from_study(
    folder: Path,
    utterance: str,
    *,
    system: str | None = None,
    data: Path | None = None,
    roots: Sequence[Path] = (),
    given_tables: Mapping[str, Path] | None = None,
) -> _Explained:
    """Explain one utterance of a finished study; give its numbers and the written files."""
    study = StudyFolder(folder)
    described = study.read_data()[1]["modalities"]
    provenance = study.read_provenance()
    before = provenance["data"] if provenance else {}
    data = data or (Path(path) if (path := before.get("path")) else None)
    known = {name: Path(table) for name, table in before.get("tables", {}).items()}
    now = {"data": data, "table": known | dict(given_tables or {}), "root": roots}
    config = study.read_config().model_copy(update=now)
    plan = plan_study(config)
    row = _find_row(plan.manifest, utterance)
    fold = next((fold for fold in plan.folds if row in fold.test), None)
    if fold is None:
        raise ConfigError(f"{utterance} is in no test fold: no model explains it.")
    system = _find_system(study, plan, system)
    booster = study.load_model(system, fold.number)
    modalities = study.read_modalities(system, fold.number) or []
    tables = {name: plan.pool(name) for name in modalities}
    study.check_identity(plan.make_provenance(tables.values()))
    options = plan.options
    seen = [plan.normalise(table) for table in tables.values()]
    pooled, features = (
        make_features(kind, options.statistics, most_columns=options.most_columns).apply(
            booster.texts
        )
        for kind in (tuple(tables.values()), seen)
    )
    if not features.present[row]:
        raise ConfigError(f"{system} has no features of {utterance}, so nothing is explained.")
    named = {name: known.get("dimensions", []) for name, known in described.items()}
    explainer = Explainer.of(booster, named)
    columns = features.find(explainer.booster.names)
    X = features.take(np.array([row]), columns)
    explainer.check(X)
    train = fold.train[features.present[fold.train]]
    groups = plan.manifest.groups(outer_grouping(config.outer))
    ledger = Ledger(system, fold, plan.manifest.utterances, groups)
    ledger.record("frames", "explain background", train)
    explanation = explain_utterance(
        explainer,
        X[0],
        _means(pooled.take(train, columns)),  # frames are in the units of the files
        {
            name: found
            for name in modalities
            if (found := _read_frames(plan, name, row)) is not None
        },
    )
    return _write(plan, folder, explanation, row=row, system=system, fold=fold.name)


def _find_row(manifest: Manifest, utterance: str) -> int:
    found = np.flatnonzero(manifest.utterances == utterance)
    if len(found) == 0:
        near = suggest(utterance, manifest.utterances.tolist())
        near = f";{near}" if near else "."
        raise ConfigError(f"There is no utterance {utterance!r} in the study{near}")
    return int(found[0])


def _find_system(folder: StudyFolder, plan: Plan, system: str | None) -> str:
    finished = [
        path.name
        for path in sorted(folder.units.glob("*"))
        if folder.model_sums(path.name, [0])
    ]
    if system is None:
        order = ["early", *plan.manifest.available]
        system = next((name for name in order if name in finished), None)
    if system is None or system not in finished:
        raise FolderError(
            f"No model of {system or 'any system'} is in {folder.path}. Systems with models: "
            f"{', '.join(finished) or 'none yet'}."
        )
    return system


def _means(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average the values of each column that are not missing; NaN where all are."""
    present = ~np.isnan(values)
    sums = np.where(present, values, 0).sum(axis=0, dtype=np.float64)
    counts = present.sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _read_frames(
    plan: Plan, modality: str, row: int
) -> tuple[NDArray[np.int64], NDArray[np.floating]] | None:
    """Read the pooled frames and their numbers; None of a fixed-size or missing modality."""
    path = plan.manifest.paths[modality][row]
    if path is None or modality in plan.manifest.texts:
        return None
    member = split_member(path)
    if not (member.file if member else path).exists():
        return None
    frames = read_sequence(path)
    if frames.ndim == 1:
        return None
    clean = clean_frames(frames, plan.config.frames, plan.config.missing)
    if len(clean.frames) == 0:
        return None
    alive = np.isfinite(clean.frames[0])
    numbers = np.arange(len(frames))
    if clean.n_dropped:
        numbers = np.flatnonzero(np.isfinite(frames[:, alive]).all(axis=1))
    # All frames share alike what a dimension without a finite value contributes.
    return numbers, np.where(alive, clean.frames, 0)


def _write(
    plan: Plan,
    folder: Path,
    explanation: UtteranceExplanation,
    *,
    row: int,
    system: str,
    fold: str,
) -> _Explained:
    manifest = plan.manifest
    classes = manifest.classes
    name = str(manifest.utterances[row])
    label, y_pred = int(manifest.labels[row]), int(explanation.proba.argmax())

    def by_class(values: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(classes, values.tolist(), strict=True))

    summary = {
        "utterance": name,
        "speaker": str(manifest.speakers[row]),
        "system": system,
        "fold": fold,
        "true": classes[label],
        "predicted": classes[y_pred],
        "probabilities": by_class(explanation.proba),
        "margins": by_class(explanation.margins),
        "expected_margins": by_class(explanation.base),
        "contributions": [
            {"modality": modality, "family": family, "margins": by_class(phi)}
            for (modality, family), phi in explanation.parts.items()
        ],
        "frames": {
            curve.modality: {"n": len(curve.frames), "margins": by_class(total)}
            for curve in explanation.curves
            for total in [curve.contributions.sum(axis=1)]
        },
        "leading_frames": {
            classes[k]: _find_leading(
                (f"{curve.modality} {frame}", value)
                for curve in explanation.curves
                for frame, value in zip(
                    curve.frames.tolist(),
                    (curve.contributions[k] - curve.contributions.mean(axis=0)).tolist(),
                    strict=True,
                )
            )
            for k in dict.fromkeys((y_pred, label))
        },
        "without_frames": {m: by_class(phi) for m, phi in explanation.constant_terms.items()},
        "note": "Contributions of frames are a convention that adds up exactly, not Shapley "
        "values of frames.",
    }
    stem = f"explain/frames/{_file_name(name)}-{system}"
    rows = [
        (curve.modality, int(frame), *values)
        for curve in explanation.curves
        for frame, values in zip(curve.frames, curve.contributions.T.tolist(), strict=True)
    ]
    ax = plot_utterance(
        explanation,
        classes,
        label=label,
        y_pred=y_pred,
        title=f"{name}, {system}: {classes[y_pred]} (true: {classes[label]})",
    )
    contents = {
        ".json": format_json(summary).encode(),
        ".csv": format_csv(["modality", "frame", *classes], rows).encode(),
    } | {f".{end}": render_figure(ax, end) for end in plan.config.figures}
    Inventory(folder).reserve(stem + end for end in contents)
    for end, content in contents.items():
        write_bytes(folder / (stem + end), content)
    return summary, tuple(folder / (stem + end) for end in contents)


def _file_name(utterance: str) -> str:
    """Give a portable name of its own to the files of an utterance."""
    portable = re.sub(r"[^A-Za-z0-9._-]", "_", utterance)
    if portable == utterance:
        return utterance
    return f"{portable}-{hashlib.sha256(utterance.encode('utf-8')).hexdigest()[:8]}"


def _find_leading(named: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Keep the contributions of largest size, largest first."""
    return dict(sorted(named, key=lambda pair: -abs(pair[1]))[:_MOST_SHOWN])


def _describe_leading(summary: dict[str, Any], name: str) -> list[str]:
    """List the modalities, families and frames that contribute most to a class."""
    modalities, families = Counter[str](), Counter[str]()
    for part in summary["contributions"]:
        # As in the figure: what raises all classes alike moves no probability.
        value = part["margins"][name] - mean(part["margins"].values())
        modalities[part["modality"]] += value
        families[f"{part['modality']} {part['family']}"] = value
    leading = {
        "modalities": _find_leading(modalities.items()),
        "families": _find_leading(families.items()),
        "frames": summary["leading_frames"][name],
    }
    return [
        f"Contributions to class {name} minus their mean over classes, in log-odds:",
        *(
            f"  {kind}: " + ", ".join(f"{key} {value:+.3f}" for key, value in found.items())
            for kind, found in leading.items()
            if found
        ),
    ]


def explain_command(request: Request) -> int:
    """Explain one utterance of a study: print what contributed most, and its files."""
    given = {name: value for name, value in request.arguments.items() if name != "study"}
    options = request.config
    tables = options.table
    summary, files = _explain_from_study(**given, roots=options.root, given_tables=tables)
    if request.as_json:
        print_json(summary | {"files": [str(path) for path in files]})
        return 0
    probabilities = (f"{name} {p:.3f}" for name, p in summary["probabilities"].items())
    who = f"{summary['utterance']} ({summary['speaker']}), by {summary['system']}"
    decided = f"predicted {summary['predicted']}, true {summary['true']}"
    lines = [f"{who} of fold {summary['fold']}: {decided}"]
    lines.append(f"Probabilities: {', '.join(probabilities)}")
    for name in summary["leading_frames"]:
        lines += _describe_leading(summary, name)
    print("\n".join([*lines, "Files:", *(f"  {path}" for path in files)]))  # noqa: T201
    return 0
