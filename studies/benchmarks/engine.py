"""What linear part, pool of margins and tuned baseline are worth, on several data sets.

    python studies/benchmarks/engine.py --data ravdess=DATASET.csv mosi=DATASET.csv
        [--seeds 3] [--out engine]

Each set is a whole study per seed, kept in ``engine/SET-SEED`` and resumed; a table with a
split is tested on that split. A study keeps the predictions of trees and linear part alone, so
trees without a linear part need no run of their own: they are those of ``--linear none``. Rows:

- ``old logistic``: C = 1 / p, columns standardised and not clipped, medians for missing values;
- ``logistic``: the study's tuned baseline;
- ``trees``, ``linear``: the parts alone; ``trees and linear``: the shipped model;
- ``best fusion of trees``: the best of early, vote, soft, weighted, stacked and the mean of all
  (the former hybrid) over trees alone; ``best fusion``: the best of the shipped ones.

The best fusion is chosen with hindsight on both sides. Scores are means over seeds, with the
standard error over seeds.
"""

import argparse
import resource
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from toolkit.fusion import soft_vote
from toolkit.fusion.fuse import fuse_systems
from toolkit.fusion.inputs import training_priors
from toolkit.models import class_priors
from toolkit.study.config import StudyConfig
from toolkit.study.folder import StudyFolder
from toolkit.study.plan import plan_study
from toolkit.validation import majority_predictions, score_predictions
from toolkit.validation.scores import find_score

METRICS = ("f1_micro", "uar", "log_loss")
LATE = ("vote", "soft", "weighted", "stacked")


def run_study(name, data, seed, out):
    """Run a study or resume it; give its folder and processor seconds (0 where it was done)."""
    folder = out / f"{name}-{seed}"
    words = ["--contributions", "none", "--shapley", "none", "--workers", "1"]
    if name == "generated":
        words += ["--modality", "text"]
    else:
        words += ["--data", str(data)]
        if "split" in data.read_text(encoding="utf-8").partition("\n")[0].split(","):
            words += ["--outer", "split"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "toolkit.study", *words, "--seed", str(seed)]
    subprocess.run([*command, "--out", str(folder)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return folder, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def read_units(study, system):
    """Read the units of a system in the order of the folds."""
    return [study.read_unit(system, fold.number) for fold in study.folds]


def only_trees(units):
    """Give units as they are without a linear part."""
    return [
        replace(
            unit,
            proba=unit.parts["trees"],
            inner_proba=unit.inner_parts["trees"],
            parts={},
            inner_parts={},
        )
        for unit in units
    ]


def fit_old_logistic(study, values, present):
    """Predict every fold by a baseline neither tuned nor clipped."""
    labels, n_classes = study.manifest.labels, len(study.manifest.classes)
    probas = []
    for fold in study.folds:
        rows = fold.train[present[fold.train]]
        X = values[rows].astype(np.float64)
        medians = np.nanmedian(X, axis=0)
        X = np.where(np.isnan(X), medians, X)
        means, scales = X.mean(axis=0), X.std(axis=0)
        scales[scales == 0] = 1
        C = 1 / max(int((X.max(axis=0) > X.min(axis=0)).sum()), 1)
        model = LogisticRegression(C=C, max_iter=1000).fit((X - means) / scales, labels[rows])
        proba = np.tile(class_priors(labels[fold.train], n_classes), (len(fold.test), 1))
        seen = present[fold.test]
        tested = values[fold.test[seen]].astype(np.float64)
        tested = (np.where(np.isnan(tested), medians, tested) - means) / scales
        proba[seen] = 0
        proba[np.ix_(seen, model.classes_)] = model.predict_proba(tested)
        probas.append(proba)
    return probas


def measure(folder, plan):
    """Score the rows of the table for one finished study: name to a value per metric."""
    study = StudyFolder(folder).read_study()
    finished = study.folder.units
    names = [name for name in study.manifest.available if (finished / name).exists()]
    systems = [*names, *(["early"] if len(names) > 1 else [])]
    units = {name: read_units(study, name) for name in systems}
    trees = {name: only_trees(found) for name, found in units.items()}
    tables = {}

    def gather(key, found):
        tables[key] = study.gather(key[1], found)

    for name in systems:
        gather(("trees and linear", name), units[name])
        gather(("trees", name), trees[name])
        gather(("linear", name), [replace(u, proba=u.parts["linear"]) for u in units[name]])
        gather(("logistic", name), read_units(study, f"{name}-logistic"))
    features = {name: plan.pool(name) for name in names}
    for name in systems:
        own = list(features.values()) if name == "early" else [features[name]]
        values = np.hstack([table.values for table in own])
        present = np.any([table.present for table in own], axis=0)
        found = fit_old_logistic(study, values, present)
        units_of = zip(units[name], found, strict=True)
        gather(("old logistic", name), [replace(unit, proba=proba) for unit, proba in units_of])
    scores = {key: score(table) for key, table in tables.items()}
    if len(names) > 1:
        scores |= score_fusions(study, units, "best fusion", ("log-pool", *LATE), tables)
        scores |= score_fusions(study, trees, "best fusion of trees", LATE, tables)
    return scores


def score(table):
    found = score_predictions(table)
    return [find_score(found, table.system, metric).value for metric in METRICS]


def score_fusions(study, units, row, methods, tables):
    """Score the best fusion by F1-micro, under its name; early fusion is one of them."""
    kind = "trees" if row.endswith("trees") else "trees and linear"
    single = {name: table for (of, name), table in tables.items() if of == kind}
    fused = fuse_systems(
        study.manifest,
        study.folds,
        units,
        single,
        methods=methods,
        metric=study.config.metric,
        outer=study.config.outer,
    ).predictions
    candidates = {name: fused[name] for name in methods} | {"early": single["early"]}
    if kind == "trees":  # the former hybrid
        priors = training_priors(majority_predictions(study.manifest, study.folds))
        candidates["hybrid"] = soft_vote(list(single.values()), priors, system="hybrid")
    scores = {(f"{row}: {name}", "all"): score(table) for name, table in candidates.items()}
    best = max(scores, key=lambda key: scores[key][0])
    return scores | {(row, "all"): scores[best]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=DATASET.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("engine"))
    arguments = parser.parse_args()
    sets = {"generated": None} | {
        name: Path(path) for name, path in (word.split("=", 1) for word in arguments.data)
    }
    for name, data in sets.items():
        seconds, found = [], defaultdict(list)
        for seed in range(arguments.seeds):
            folder, spent = run_study(name, data, seed, arguments.out)
            seconds.append(spent)
            only = ("text",) if data is None else ()
            plan = plan_study(StudyConfig(data=data, modality=only, seed=seed))
            for key, values in measure(folder, plan).items():
                found[key].append(values)
        print(f"\n{name}: {np.mean(seconds):.0f} s of processor time per study")
        print("| system | row | F1-micro | UAR | log-loss |\n|---|---|---|---|---|")
        for (row, system), values in found.items():
            mean = np.mean(values, axis=0)
            error = (
                np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
                if len(values) > 1
                else mean * 0
            )
            cells = [f"{m:.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True)]
            print(f"| {system} | {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
