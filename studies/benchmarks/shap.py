"""How fast rows are explained, side by side in one run, one thread against one.

Each way explains the same rows of the same saved model and gives every class; what is timed is
the steady state: trees are read and code is compiled before. Ways take turns and the best of
several rounds counts, so a busy machine slows all alike. `difference` is the largest to the
booster's own contributions (LightGBM's in float64, XGBoost's in float32). `memory` is what
the totals by modality, statistic and class need at most beyond the rows, in MB.

    python studies/benchmarks/shap.py [--rounds 3] [--out shap.csv] [--quick]

On a machine that others use too, `--clock cpu` counts the time that this process really ran.
"""

import argparse
import csv
import platform
import sys
import time
import tracemalloc
from importlib.metadata import version
from pathlib import Path

# This file has the name of the library that it compares with: that one is meant below.
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]

import numpy as np  # noqa: E402
import shap  # noqa: E402

from toolkit.explain import Explainer  # noqa: E402
from toolkit.models.boosters import fit_booster, make_training_data  # noqa: E402

COLUMNS = ("booster", "trees", "features", "way", "seconds", "ratio", "difference", "memory")
N_TRAIN, N_ROWS, N_CLASSES, N_ROUNDS = 4800, 530, 4, 300
#: A tree sees few of many columns, as in the spaces that the searches use.
SETTINGS = {
    "lightgbm": {"num_leaves": 31, "feature_fraction": 0.1, "min_data_in_leaf": 5},
    "xgboost": {"max_depth": 6, "colsample_bytree": 0.1},
}


def make_model(kind, n_features, n_rounds):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_TRAIN, n_features)).astype(np.float32)
    y = rng.integers(0, N_CLASSES, N_TRAIN)
    X[np.arange(N_TRAIN), y] += 1
    names = [f"text__value__{k:04d}" for k in range(n_features)]
    fraction = "feature_fraction" if kind == "lightgbm" else "colsample_bytree"
    params = SETTINGS[kind] | ({fraction: 0.02} if n_features > 1000 else {})
    data = make_training_data(kind, X, y, n_classes=N_CLASSES, names=names, max_bin=31)
    booster = fit_booster(data, params, n_rounds=n_rounds, seed=0)
    return booster, np.ascontiguousarray(X[:N_ROWS])


def ways(booster, X, explainer):
    """Name each way, with the function to time."""
    yield "fast path, every feature", lambda: explainer.explain(X)
    yield (
        "fast path, streamed blocks",
        lambda: sum(1 for _ in explainer.blocks(X)),
    )
    yield "fast path, totals", lambda: explainer.total(X)
    yield "pred_contrib", lambda: booster.contributions(X)
    if booster.kind == "lightgbm":
        tree_explainer = shap.TreeExplainer(booster.model)
        yield "shap.TreeExplainer", lambda: tree_explainer.shap_values(X)


def measure_memory(explainer, X):
    tracemalloc.start()
    explainer.total(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--quick", action="store_true", help="768 features, 200 trees")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    print(
        f"{N_ROWS} rows, {N_CLASSES} classes; Python {platform.python_version()}, "
        f"{', '.join(f'{name} {version(name)}' for name in ('lightgbm', 'shap'))}; "
        f"{options.clock} time, best of {options.rounds}, one thread"
    )
    rows = []
    for n_features in (768,) if options.quick else (768, 10_000):
        for kind in SETTINGS:
            booster, X = make_model(kind, n_features, 50 if options.quick else N_ROUNDS)
            start = clock()
            explainer = Explainer.of(booster)
            n_trees = len(explainer.forest.classes)
            reading = clock() - start
            difference = np.abs(explainer.explain(X) - booster.contributions(X)).max()
            memory = measure_memory(explainer, X)
            best = {}
            for _ in range(options.rounds):
                for name, run in ways(booster, X, explainer):
                    start = clock()
                    run()
                    best[name] = min(best.get(name, np.inf), clock() - start)
            best["reading the trees"] = reading
            print(
                f"\n{kind}, {n_trees} trees, {n_features} features: "
                f"difference {difference:.1e}, memory {memory:.1f} MB"
            )
            for name, seconds in best.items():
                ratio = best["pred_contrib"] / seconds
                print(f"  {name:28} {seconds:8.3f} s   {ratio:6.1f} x")
                rows.append(
                    [kind, n_trees, n_features, name, seconds, ratio, difference, memory]
                )
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
