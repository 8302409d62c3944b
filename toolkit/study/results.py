"""Results of a study, derived from its finished units; no fit is made."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import toolkit
from toolkit.explain.shares import Attribution
from toolkit.files import (
    INTERNAL,
    FolderError,
    format_csv,
    format_json,
    format_records,
    read_array,
    read_json,
)
from toolkit.fusion.fuse import FusionRecord, FusionResult, fuse_systems
from toolkit.fusion.learned import LearnedFusion
from toolkit.report import Report, StudyFacts, format_markdown, summarise_study
from toolkit.report.document import Table
from toolkit.study.attribution import derive_attribution, tested_rows
from toolkit.study.final_models import format_finals, learn_finals
from toolkit.study.folder import CURVE, SUMMARY, Study, StudyFolder
from toolkit.study.inventory import Inventory
from toolkit.study.options import OUTSIDE
from toolkit.study.outcome import format_scores
from toolkit.study.outside import Outside, read_outside
from toolkit.systems import (
    EARLY,
    MAJORITY,
    NO_INFORMATION,
    System,
    early_name,
    logistic_name,
    proper_subsets,
    seed_name,
    variant_name,
)
from toolkit.validation import (
    FINAL,
    ROLES,
    Comparison,
    Fold,
    LeakageError,
    Predictions,
    Score,
    UnitResult,
    gather_predictions,
    majority_predictions,
    no_information_predictions,
    outer_grouping,
    score_predictions,
)
from toolkit.validation.comparison import compare_families
from toolkit.validation.folds import final_fold, fold_name
from toolkit.validation.ledger import audit_entries
from toolkit.validation.nested import majority_ledgers
from toolkit.validation.predictions import format_predictions
from toolkit.validation.scores import average_seeds, find_score, group_seeds, score_systems

logger = logging.getLogger(__name__)

Ledgers = Mapping[str, Mapping[int, Sequence[dict[str, Any]]]]

#: Options that a report needs beside those of the identity.
_SHOWN_OPTIONS: Final = ("content_parts", "space", "grid", "table_metrics", "seeds")
AUDIT: Final = f"{INTERNAL}/audit.json"
FOLDS: Final = f"{INTERNAL}/folds.csv"


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """All that the finished units of a study give, before it is audited and scored.

    - units, fitted: Finished systems to their units, and to their out-of-fold predictions.
    - fused: Late fusions and class offsets; None where nothing is fused.
    - attribution, explanations: Of :func:`derive_attribution`.
    - final_units: Finished systems to their unit that was fitted on every speaker.
    - learnt: The fusions of the final models; None where there are none.
    - ledgers: Every system's entries by fold.
    - leaks: Messages of fits that the ledger refused.
    """

    study: Study
    units: Mapping[str, Sequence[UnitResult]]
    unfinished: tuple[str, ...]
    fitted: Mapping[str, Predictions]
    fused: FusionResult | None
    attribution: Attribution | None
    explanations: Mapping[str, str]
    final_units: Mapping[str, UnitResult]
    learnt: LearnedFusion | None
    ledgers: Ledgers
    final_ledgers: Mapping[str, Sequence[dict[str, Any]]]
    leaks: tuple[str, ...]
    outside: Mapping[str, Outside]

    def format_folds(self) -> str:
        """Write the tested and the training groups of every outer fold."""
        groups = self.study.groups
        rows: list[tuple[object, ...]] = []
        for fold in self.study.folds:
            for role, members in (("test", fold.test), ("train", fold.train)):
                sizes = Counter(groups[members].ravel().tolist())
                rows += [(fold.name, name, role, n) for name, n in sorted(sizes.items())]
        return format_csv(["fold", "group", "role", "n"], rows)


def derive_units(study: Study) -> Derived:
    """Read the finished units and derive fusions, explanations and final models from them.

    Late fusions are derived again at every call: they cost seconds.
    """
    manifest, folds = study.manifest, study.folds
    units, unfinished = _read_units(study)
    fitted = {system: study.gather(system, found) for system, found in units.items()}
    majority = majority_predictions(manifest, folds)
    try:
        outside = read_outside(study.config, majority, manifest.available)
    except (ValueError, OSError) as error:
        raise FolderError(
            f"The files in {Path(OUTSIDE).parent} are damaged: {error} Run the study's own "
            "command again: finished units are kept."
        ) from None
    # A refused fit is a result here: the audit lists it, and every other caller raises it.
    leaks: list[str] = []
    fused = learnt = None
    try:
        fused = fuse_systems(
            manifest,
            folds,
            units,
            fitted,
            methods=study.config.fusion,
            metric=study.config.metric,
            outer=study.config.outer,
            outside={name: one.table for name, one in outside.items()},
        )
    except LeakageError as error:
        leaks.append(str(error))
    constant = no_information_predictions(majority)
    fitted = {MAJORITY: majority, NO_INFORMATION: constant} | fitted
    attribution, explaining_ledgers, explanations = derive_attribution(study, fitted, fused)
    finals = {system: study.read_unit(system, FINAL) for system in units}
    final_units = {system: unit for system, unit in finals.items() if unit is not None}
    final_ledgers: Mapping[str, Sequence[dict[str, Any]]] = {}
    try:
        if final_units:
            learnt, final_ledgers = learn_finals(study, final_units)
    except LeakageError as error:
        leaks.append(str(error))
    ledgers: Ledgers = {
        MAJORITY: majority_ledgers(manifest, folds, outer_grouping(study.config.outer)),
        **{system: {u.fold: u.ledger for u in found} for system, found in units.items()},
        **(fused.ledgers if fused else {}),
        **explaining_ledgers,
    }
    return Derived(
        study=study,
        units=units,
        unfinished=unfinished,
        fitted=fitted,
        fused=fused,
        attribution=attribution,
        explanations=explanations,
        final_units=final_units,
        learnt=learnt,
        ledgers=ledgers,
        final_ledgers=final_ledgers,
        leaks=tuple(leaks),
        outside=outside,
    )


def _read_units(study: Study) -> tuple[dict[str, list[UnitResult]], tuple[str, ...]]:
    """Read every system whose folds are all finished; name those that lack some."""
    available = study.manifest.available
    subsets = [early_name(subset, available) for subset in proper_subsets(available)]
    names = [*available, EARLY, *subsets]
    boosted = [name for name in names if (study.folder.units / name).exists()]
    asked = [name for name in boosted if not System.parse(name).is_subset]
    repeated = boosted if study.config.shapley == "seeds" else asked
    seeds = [seed_name(n, k) for k in range(1, study.config.seeds) for n in repeated]
    systems = [*boosted, *map(logistic_name, asked), *seeds]
    units, unfinished = {}, []
    for system in systems:
        found = [study.read_unit(system, fold.number) for fold in study.folds]
        complete = [unit for unit in found if unit is not None]
        if len(complete) == len(found):
            units[system] = complete
        else:
            unfinished.append(system)
            logger.warning(
                "%s has %d of its %d folds and is in no table yet.",
                system,
                len(complete),
                len(found),
            )
    # A mean is over all seeds, or there is none.
    searched = [name for name in unfinished if not System.parse(name).is_logistic]
    lacking = {variant_name(name, "") for name in searched}
    for system in seeds:
        if variant_name(system, "") in lacking:
            units.pop(system, None)
    return units, tuple(unfinished)


def audit_study(
    study: Study,
    ledgers: Ledgers,
    final_ledgers: Mapping[str, Sequence[dict[str, Any]]] = MappingProxyType({}),
    predictions: Mapping[str, Predictions] = MappingProxyType({}),
) -> dict[str, Any]:
    """Derive the leakage verdict from folds, recorded entries and scored rows."""
    manifest, folds, groups = study.manifest, study.folds, study.groups
    problems = [
        f"Fold {fold.name} trains on {', '.join(sorted(shared))}, who are held out in it."
        for fold in folds
        if (shared := set(groups[fold.train].flat) & set(groups[fold.test].flat))
    ]
    tested = np.bincount(np.concatenate([fold.test for fold in folds]), minlength=len(manifest))
    if tested.max() > 1:
        problems.append(f"{int((tested > 1).sum())} utterances are tested more than once.")
    # A split of the data's own tests one part; all other folds test every row in turn.
    if len(folds) > 1 and not tested.all():
        problems.append(f"{int((tested == 0).sum())} utterances are tested in no fold.")
    for system, table in predictions.items():
        problems += _check_rows(study, system, table)
    for system, entries in ledgers.items():
        for fold in folds:
            if fold.number not in entries:
                problems.append(f"{system}/{fold.name}: nothing was recorded.")
                continue
            problems += audit_entries(system, fold, entries[fold.number], groups)
    outside = [name for name in predictions if System.parse(name).is_outside]
    everyone = final_fold(manifest)
    for system, recorded in final_ledgers.items():
        problems += audit_entries(system, everyone, recorded, groups)
    return {
        "verdict": "leakage found" if problems else "no leakage found",
        "problems": problems,
        "held_out_unit": outer_grouping(study.config.outer),
        "n_folds": len(folds),
        "n_tested": int((tested > 0).sum()),
        "n_utterances": len(manifest),
        "systems": {
            system: {"folds": len(by_fold)} | _count(chain.from_iterable(by_fold.values()))
            for system, by_fold in ledgers.items()
        },
        "final_models": {system: _count(found) for system, found in final_ledgers.items()},
    } | ({"outside": outside} if outside else {})


def _count(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Count recorded fits and choices by the role of their rows, in the order of ROLES."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry["role"]] += entry["times"]
    by_role = {role: counts[role] for role in ROLES if role in counts}
    return {"fits_and_choices": sum(by_role.values()), "by_role": by_role}


def _check_rows(study: Study, system: str, table: Predictions) -> list[str]:
    """Name the rows, folds, speakers or labels of a scored system that are not the data's."""
    manifest = study.manifest
    rows = tested_rows(study.folds)
    if table.utterances.tolist() != manifest.utterances[rows].tolist():
        return [f"{system} is scored on other utterances than the outer folds test."]
    numbers = np.full(len(manifest), -1)
    for fold in study.folds:
        numbers[fold.test] = fold.number
    truth = np.array(manifest.classes)[manifest.labels[rows]]
    expected = {
        "folds": (table.folds, numbers[rows]),
        "speakers": (table.speakers, manifest.speakers[rows]),
        "labels": (np.array(table.classes)[table.labels], truth),
    }
    return [
        f"{system} is scored with other {name} than the data's, first in {utterance}."
        for name, (found, right) in expected.items()
        for utterance in table.utterances[found != right][:1].tolist()
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """The results of a study, before anything is written.

    - tables: Path inside the folder to the text of every file of numbers and words; the page
      and the figures are not among them.
    """

    derived: Derived
    facts: StudyFacts
    report: Report
    tables: Mapping[str, str]


def derive_study(folder: StudyFolder, derived: Derived | None = None) -> Collected:
    """Derive a study's numbers and words from its folder, and refuse a study that leaks.

    - derived: What :func:`derive_units` gave already; then nothing is written.
    """
    write_audit = derived is None
    derived = derived or derive_units(folder.read_study())
    if derived.leaks:
        raise LeakageError(derived.leaks[0])
    study, config, fused = derived.study, derived.study.config, derived.fused
    late, offsets = (dict(fused.predictions), dict(fused.offsets)) if fused else ({}, {})
    late |= {one.table.system: one.table for one in derived.outside.values()}
    late |= fused.joined if fused else {}
    scored = {**derived.fitted, **late, **offsets}
    audit = audit_study(study, derived.ledgers, derived.final_ledgers, scored)
    if audit["problems"]:
        if write_audit:
            verdict = {AUDIT: format_json(audit).encode("utf-8")}
            Inventory(folder.path).write(verdict, whole=False)
        raise LeakageError("The audit failed: " + " ".join(audit["problems"]))

    kinds: dict[str, dict[str, Predictions]] = defaultdict(dict)
    for name, table in derived.fitted.items():
        system = System.parse(name)
        kind = "logistic" if system.is_logistic else "subset" if system.is_subset else "main"
        kinds["seed" if system.is_seed else kind][name] = table
    repeated = group_seeds(derived.fitted)
    averaged = [average_seeds(repeated[name]) for name in kinds["main"] if name in repeated]
    ensembles = {table.system: table for table in averaged}
    main = kinds["main"] | late | ensembles | kinds["logistic"]
    # Sets of modalities are played with, and scored; compared they would cost all other
    # comparisons power.
    predictions = main | offsets | kinds["subset"] | kinds["seed"]
    # With no finished system there are only baselines, and nothing to compare.
    comparisons = (
        compare_families(
            list(main.values()), study.manifest.available, config.metric, config.seed, repeated
        )
        if derived.units
        else []
    )
    speakers, index = np.unique(study.manifest.speakers, return_inverse=True)
    counts = np.zeros((len(speakers), len(study.manifest.classes)), dtype=np.int64)
    np.add.at(counts, (index, study.manifest.labels), 1)
    boosted = {
        system: found
        for system, found in derived.units.items()
        if not System.parse(system).is_logistic
    }
    n_contents, n_known_content = _count_known(study.manifest.contents, study.folds)
    n_sessions, n_known_session = _count_known(study.manifest.sessions, study.folds)
    facts = StudyFacts(
        data=study.data,
        speakers=tuple(speakers.tolist()),
        counts=counts.tolist(),
        predictions=predictions,
        scores=score_systems(predictions),
        comparisons=comparisons,
        fusion=fused.records if fused else (),
        params=_collect_params(boosted) | (fused.describe() if fused else {}),
        searches={
            name: [unit.search for unit in found if unit.search is not None]
            for name, found in boosted.items()
            if not System.parse(name).is_seed
        },
        audit=audit,
        options=config.identity()
        | {name: getattr(config, name) for name in _SHOWN_OPTIONS}
        | {"trials": config.n_trials, "rounds": config.count_rounds(len(study.manifest))}
        | {"published": [each.model_dump() for each in config.published]}
        | {"outside": {name: one.n_folds for name, one in derived.outside.items()}}
        | {"version": toolkit.__version__},
        unfinished=derived.unfinished,
        attribution=derived.attribution,
        curve=_score_curve(study),
        errors=config.abstain if study.data["primary"][-1] in predictions else (),
        n_contents=n_contents,
        n_known_content=n_known_content,
        n_known_session=n_known_session if n_sessions > 1 else 0,
    )
    facts = facts.with_groups(config.seed)
    report = summarise_study(facts)
    tables = _format_tables(facts, report) | dict(derived.explanations)
    tables |= {one.kept: one.text for one in derived.outside.values()}
    tables[FOLDS] = derived.format_folds()
    if derived.learnt is not None:
        tables |= format_finals(study, derived.final_units, learnt=derived.learnt, facts=facts)
    return Collected(derived, facts, report, tables)


def _count_known(names: NDArray[np.str_] | None, folds: Sequence[Fold]) -> tuple[int, int]:
    """Count contents or sessions, and tested utterances with theirs in the training rows."""
    if names is None:
        return 0, 0
    known = [np.isin(names[f.test], names[f.train]).sum() for f in folds]
    return len(np.unique(names)), int(sum(known))


def _score_curve(study: Study) -> dict[int, Score]:
    """Score the learning curve: number of training speakers to the score of the study."""
    path = study.folder.path / CURVE
    if not path.exists():
        return {}
    ends = np.cumsum([len(fold.test) for fold in study.folds])[:-1]
    present = [np.ones(len(fold.test), dtype=bool) for fold in study.folds]
    curve = {}
    with study.folder.open_part(path) as kept:
        for size in read_json(kept / SUMMARY)["sizes"]:
            probas = np.split(read_array(kept / f"{size}.npy"), ends)
            system = f"{size}speakers"
            table = gather_predictions(study.manifest, study.folds, system, probas, present)
            curve[size] = find_score(score_predictions(table), system, study.config.metric)
    return curve


def _format_tables(facts: StudyFacts, report: Report) -> dict[str, str]:
    scores = next(
        part for part in report.parts() if isinstance(part, Table) and part.name == "scores"
    )
    systems = [
        table for name, table in facts.predictions.items() if not System.parse(name).is_offset
    ]
    people = [("groups.csv", Score, facts.group_scores), ("gaps.csv", Comparison, facts.gaps)]
    made = {n: format_records(kind, found) for n, kind, found in people if facts.group_scores}
    return made | {
        "predictions.csv": format_predictions(*systems),
        "scores.csv": format_scores(facts.scores),
        "comparisons.csv": format_records(Comparison, facts.comparisons),
        "fusion.csv": format_records(FusionRecord, facts.fusion),
        f"{INTERNAL}/params.json": format_json(facts.params),
        AUDIT: format_json(facts.audit),
        "report.md": format_markdown(report),
        "table.tex": scores.format_tex(),
    }


def _collect_params(boosted: Mapping[str, Sequence[UnitResult]]) -> dict[str, Any]:
    return {
        system: {
            fold_name(unit.fold): unit.describe_search()
            | {"trials_failed": sum(t["state"] == "fail" for t in unit.search.trials)}
            for unit in found
            if unit.search is not None
        }
        for system, found in boosted.items()
    }
