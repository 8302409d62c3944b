"""``toolkit premium``: scores of random, speaker and session splits, compared."""

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from threadpoolctl import threadpool_limits

from toolkit.files import OUTPUTS, format_records, lock_folder
from toolkit.models import Features
from toolkit.report import render_figure
from toolkit.report.leakage_page import (
    describe_premiums,
    format_premium,
    plot_premium,
    plot_space,
)
from toolkit.study.config import StudyConfig
from toolkit.study.examining import check_data
from toolkit.study.inventory import Inventory
from toolkit.study.options import Request, load_config
from toolkit.study.plan import Plan, limit_fixed, plan_study
from toolkit.study.terminal import is_quiet, print_json, print_lines
from toolkit.study.workers import call_in_child
from toolkit.validation import make_features
from toolkit.validation.fixed import (
    FixedFits,
    PremiumScore,
    ProbeScore,
    Projection,
    make_probes,
    measure_chance,
    measure_probes,
    predict_rest,
    project_rows,
)
from toolkit.validation.folds import has_one_label_each
from toolkit.validation.leakage import describe_gaps, measure_premium
from toolkit.validation.metrics import Floats

logger = logging.getLogger(__name__)

_TRANSDUCTIVE: Final = (
    "Features were standardised within each speaker, tested ones included: every split is "
    "transductive."
)
_ONE_LABEL: Final = (
    "Each speaker has a single label: here, recognising a person and knowing the label are the "
    "same thing."
)

_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _PremiumResult:
    """Premiums of every modality, and the folder of their files.

    - gaps: comparisons that the data do not allow, in sentences.
    """

    folder: Path
    scores: tuple[PremiumScore, ...]
    gaps: tuple[str, ...]
    probes: tuple[ProbeScore, ...]


def _run_premium(
    config: StudyConfig, n_permutations: int, *, with_probes: bool = False
) -> _PremiumResult:
    """Fit one fixed configuration under all splits and write their differences."""
    # One fixed configuration of each modality: nothing is searched, and nothing is fused.
    fixed = {"outer": "speaker", "quick": False, "fusion": ("none",)}
    fixed |= {"statistics": config.searched_statistics[0]}
    plan = plan_study(config.model_copy(update=fixed))
    manifest = plan.manifest
    folder = config.out or OUTPUTS / f"{plan.name}-premium"
    inventory = Inventory(folder)
    inventory.claim("premium")
    scores: list[PremiumScore] = []
    probes: list[ProbeScore] = []
    projected: dict[str, Projection] = {}
    with lock_folder(folder):
        # Without the units of a study, no inner fold is examined: here, none is made.
        check_data(replace(plan, systems={}, seeded={}))
        gaps = describe_gaps(manifest, content_parts=config.content_parts)
        planned, absent = make_probes(manifest) if with_probes else ([], [])
        gaps += tuple(absent)
        run = partial(_map, workers=config.n_workers)
        for modality in manifest.modalities:
            found, notes = _measure_modality(plan, modality, n_permutations)
            scores += found
            gaps += notes
            if planned:
                features, seed = _make_features(plan, modality)(), config.seed
                logger.info("%s: %d linear probes", modality, len(planned))
                probes += measure_probes(
                    manifest, features, planned, modality=modality, seed=seed, run=run
                )
                with threadpool_limits(1):
                    space = project_rows(manifest, features, seed=seed)
                projected |= {} if space is None else {modality: space}
        if config.normalise == "speaker":
            gaps += (_TRANSDUCTIVE,)
        if has_one_label_each(manifest.labels, manifest.speakers):
            gaps += (_ONE_LABEL,)
        drawn = {
            f"space-{name}": plot_space(each, manifest.classes, name)
            for name, each in projected.items()
        }
        drawn |= {f"premium-{name}": plot_premium(scores, name) for name in manifest.modalities}
        tables = {"premium.csv": format_records(PremiumScore, scores)}
        tables |= {"probes.csv": format_records(ProbeScore, probes)} if probes else {}
        tables["premium.md"] = format_premium(
            scores, gaps=gaps, generated=manifest.generated, probes=probes, projected=projected
        )
        contents = {name: text.encode("utf-8") for name, text in tables.items()}
        for end in config.figures:
            contents |= {f"{stem}.{end}": render_figure(ax, end) for stem, ax in drawn.items()}
        inventory.write(contents, whole=True)
    return _PremiumResult(folder, tuple(scores), gaps, tuple(probes))


def premium_command(request: Request) -> int:
    """Measure what leaking splits add to the scores."""
    config, file = request.config, request.arguments.get("study")
    if config.out is not None and file is not None and config.out == load_config(file, {}).out:
        # The folder in study.toml is the study's: numbers of a leaking split stay apart.
        own = config.out.with_name(f"{config.out.name}-premium")
        config = config.model_copy(update={"out": own})
    arguments = request.arguments
    result = _run_premium(config, arguments["permutations"], with_probes=arguments["probes"])
    if request.as_json:
        scores = [asdict(score) for score in result.scores if not score.group]
        plain = {"folder": str(result.folder), "gaps": list(result.gaps), "scores": scores}
        probes = {"probes": [asdict(probe) for probe in result.probes]} if result.probes else {}
        print_json(plain | probes)
    elif not is_quiet():
        print_lines(*describe_premiums(result.scores, result.probes))
        print_lines(*(f"Note: {gap}" for gap in result.gaps))
        print_lines(f"Report: {result.folder / 'premium.md'}")
    return 0


def _measure_modality(
    plan: Plan, modality: str, n_permutations: int
) -> tuple[list[PremiumScore], tuple[str, ...]]:
    """Measure premiums and chance; the notes name a smaller preset of statistics."""
    config, manifest = plan.config, plan.manifest
    make = _make_features(plan, modality)
    fit = partial(_fit, make, len(manifest.classes))

    def fit_all(tasks: list[FixedFits]) -> list[list[Floats]]:
        n_fits = sum(len(task.fits) for task in tasks)
        logger.info("%s: %d fits of the fixed configuration", modality, n_fits)
        return _map(fit, tasks, workers=config.n_workers)

    features = make()
    shared: dict[str, Any] = {
        "modality": modality,
        "metric": config.metric,
        "seed": config.seed,
        "fit_all": fit_all,
    }
    parts = config.content_parts
    scores = measure_premium(manifest, features, **shared, content_parts=parts)
    if n_permutations:
        scores += measure_chance(manifest, n_permutations=n_permutations, **shared)
    notes = tuple(
        f"{modality}: {preset} statistics make {each['n_asked']:,} columns; "
        f"{each['statistics']} statistics ({each['n_columns']:,} columns) are used instead."
        for preset, each in features.reduced.get(modality, {}).items()
    )
    return scores, notes


def _make_features(plan: Plan, modality: str) -> Callable[[], Features]:
    return partial(
        make_features,
        [plan.normalise(plan.pool(modality))],
        [plan.config.searched_statistics[0]],
        most_columns=limit_fixed(plan.config),
    )


def _fit(make: Callable[[], Features], n_classes: int, task: FixedFits) -> list[Floats]:
    """Fit a task, with one thread: the last bits of sums must not depend on the cores."""
    with threadpool_limits(1):
        return predict_rest(make(), task, n_classes=n_classes)


def _map(fit: Callable[[_Task], _Answer], tasks: list[_Task], *, workers: int) -> list[_Answer]:
    workers = min(workers, len(tasks))
    if workers <= 1:
        return [fit(task) for task in tasks]
    from joblib import Parallel, delayed  # noqa: PLC0415  (only where processes are used)

    work = Parallel(n_jobs=workers)
    return list(work(delayed(call_in_child)(fit, task, os.getpid()) for task in tasks))
