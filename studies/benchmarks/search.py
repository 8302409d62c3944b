"""How good a model each way of searching finds in its time, for the same people held out.

Every way gets the same outer folds, the same inner folds (grouped by speaker; FLAML makes
grouped ones of its own), one thread, and a budget of seconds an outer fold after which it
starts no further trial; the references fit once. The inner score chose, so only the outer one
counts, and one or two folds of it are noise: compare it over all folds (`--folds 10`).

Two ratios stand apart. *Same space*: the seconds of some trials, with and without racing, and
with the outer folds spread over workers, against those of cross_val_score on the very same
parameters, which is what bins made once, early stopping, racing and processes are worth.
*Shipped defaults*: trials a CPU second against a plain loop of Optuna over a wide space as
found in tutorials, which is what somebody gains who changes nothing else.

    python studies/benchmarks/search.py [--shape text-768] [--folds 1] [--budget 15] [--seeds 1]
    python studies/benchmarks/search.py --same 50 --folds 4 --workers 2 --only nothing
    python studies/benchmarks/search.py --data DATASET.csv --modality text --folds 10

A trial that runs is not cut short, so the wide spaces may take several times the budget for
their one trial: look at the seconds beside the score.

Peers that are not installed are left out and named:
`pip install flaml optuna-integration "autogluon.tabular[lightgbm]"`.
"""

import argparse
import csv
import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Self

import numpy as np
import optuna
from joblib import Parallel, delayed
from search_ways import PEERS, Found, Task, make_booster, make_task, search_trials, ways
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_limits

from toolkit.data import Manifest, make_corpus, read_manifest
from toolkit.models import Features
from toolkit.models.boosters import row_log_loss
from toolkit.pooling import pool_manifest
from toolkit.validation import SearchOptions, SearchResult, make_features, make_folds
from toolkit.validation.fits import _coarsen, _find_step
from toolkit.validation.folds import resolve_outer
from toolkit.validation.metrics import METRICS
from toolkit.validation.scores import score_interval

SHAPES = {"text-768": ("text", 768), "visual-10k": ("visual", 569)}  # 18 statistics of 569
CROSS_VALIDATED = "cross_val_score"
CHOICES = ("booster", "statistics", "screening", "imbalance")


def compare_same_trials(
    tasks: Sequence[Task], n_trials: int, workers: int
) -> Iterator[tuple[str, float, float]]:
    """Measure wall and CPU seconds of the same trials: ours, and scikit-learn's."""
    plain = {"screening": ("none",), "imbalance": ("none",), "n_trials": n_trials}
    plain |= {"timeout": None}

    def search(task: Task, *, racing: bool = True) -> SearchResult:
        with threadpool_limits(1):
            return search_trials(task, racing=racing, **plain)

    def score_again(task: Task, result: SearchResult) -> None:
        for trial in result.trials:
            # Fits as coarse as those of the search.
            params, step = _coarsen(trial["params"], _find_step(len(task.seen)))
            own = {k: v for k, v in params.items() if k not in CHOICES}
            own.pop("bagging_freq")
            n_rounds = ceil(SearchOptions().max_rounds / step)
            model = make_booster(task, n_estimators=n_rounds, **own)
            cross_val_score(model, task.seen, task.labels, cv=task.splits)

    with Clock() as clock:
        found = [search(task, racing=False) for task in tasks]
    yield "without racing", clock.wall, clock.cpu
    with Clock() as clock:
        for task in tasks:
            search(task)
    yield "with racing", clock.wall, clock.cpu
    if workers > 1:
        side_by_side = Parallel(n_jobs=workers, max_nbytes=None)
        side_by_side(delayed(search)(task) for task in tasks[:workers])  # to start them
        with Clock() as clock:
            side_by_side(delayed(search)(task) for task in tasks)
        yield f"with racing, {workers} workers", clock.wall, float("nan")
    with Clock() as clock:
        for task, result in zip(tasks, found, strict=True):
            score_again(task, result)
    yield CROSS_VALIDATED, clock.wall, clock.cpu


class Clock:
    """Seconds of a block, by the wall and by this process's processor time."""

    def __enter__(self) -> Self:
        self.began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self.began[0]
        self.cpu = time.process_time() - self.began[1]


def read_data(options: argparse.Namespace, folder: Path) -> tuple[Manifest, Features]:
    modality = options.modality
    if options.data is None:
        modality, n_dims = SHAPES[options.shape]
        dims = {"visual": 8, "audio": 8, "text": 8} | {modality: n_dims}
        source = make_corpus(folder / "corpus", n_utterances=options.utterances, dims=dims)
    else:
        source = options.data
    manifest = read_manifest(source, modalities=(modality,))
    table = pool_manifest(manifest, modality, statistics="rich", cache=folder / "cache")
    values = np.nan_to_num(np.asarray(table.values))  # scikit-learn's linear model wants it
    features = make_features([table], ("rich",))
    present = np.ones(len(manifest), dtype=bool)
    return manifest, replace(features, values=values, present=present)


def run(
    way: Callable[[Task], Found], tasks: Sequence[Task]
) -> tuple[list[Found], float, float, float]:
    """Run a way on every task; give its models, wall and CPU seconds, and peak memory in MB."""
    found, wall, cpu = [], time.perf_counter(), time.process_time()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    for task in tasks:
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            found.append(way(task))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1000
    return found, time.perf_counter() - wall, time.process_time() - cpu, peak


def score(
    tasks: Sequence[Task], found: Sequence[Found]
) -> tuple[float, float | None, float | None, float]:
    """F1-micro over all held-out rows, its jackknife interval over speakers, and log-loss."""
    pairs = list(zip(tasks, found, strict=True))
    people = np.concatenate([t.manifest.speakers[t.fold.test] for t in tasks])
    right = [f.proba.argmax(axis=1) == t.manifest.labels[t.fold.test] for t, f in pairs]
    losses = [row_log_loss(t.manifest.labels[t.fold.test], f.proba) for t, f in pairs]
    total = np.concatenate(right).mean()
    person = np.unique(people, return_inverse=True)[1]
    sizes = np.bincount(person)
    hits = np.bincount(person, weights=np.concatenate(right))
    without = (hits.sum() - hits) / np.maximum(sizes.sum() - sizes, 1)
    low, high = score_interval(METRICS["f1_micro"], float(total), without, sizes)
    return float(total), low, high, float(np.concatenate(losses).mean())


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="text-768", help="generated data")
    parser.add_argument("--utterances", type=int, default=600, help="of generated data")
    parser.add_argument("--data", type=Path, help="your own dataset.csv instead")
    parser.add_argument("--modality", default="text", help="of your own data")
    parser.add_argument("--folds", type=int, default=1, help="outer folds of --outer auto")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=float, default=10, help="seconds an outer fold")
    parser.add_argument("--same", type=int, default=12, help="trials of the same space")
    parser.add_argument("--workers", type=int, default=1, help="processes, in the same space")
    parser.add_argument("--only", default="", help="words of the ways, comma-separated")
    parser.add_argument("--out", type=Path, default=Path("search.csv"))
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    absent = [name for name in PEERS if not importlib.util.find_spec(name.split(".")[0])]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rates: dict[str, float] = {}
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        manifest, features = read_data(options, Path(folder))
        folds = make_folds(manifest, resolve_outer(manifest, "auto"), seed=0)
        tasks = [
            make_task(manifest, features, fold, seed=seed, budget=options.budget)
            for seed in range(options.seeds)
            for fold in folds[: options.folds]
        ]
        n_rows, n_columns = features.values.shape
        with threadpool_limits(1):
            same = list(compare_same_trials(tasks, options.same, options.workers))
        n_same = options.same * len(tasks)
        _, wall_of_all, cpu_of_all = same[-1]
        print(f"The same {options.same} trials of {len(tasks)} outer folds, seconds a trial:")
        for name, wall, cpu in same:
            print(
                f"  {name:24} wall {wall / n_same:.3f}   x {wall_of_all / wall:.1f}"
                f"   CPU {cpu / n_same:.3f}   x {cpu_of_all / cpu:.1f}"
            )
            way = f"same {options.same} trials, {name}"
            rows.append([n_rows, n_columns, len(tasks), way, n_same, wall, cpu])
        print(f"{n_rows} utterances, {n_columns} columns, {len(tasks)} searches a way")
        print(f"{'':42} trials  wall s   CPU s    MB  trials/CPU s  inner  log-loss  outer F1")
        for name, way in ways():
            if not any(word in name for word in options.only.split(",")):
                continue
            found, wall, cpu, peak = run(way, tasks)
            trials = sum(f.trials for f in found)
            inner = [f.inner for f in found if f.inner is not None]
            mean = float(np.mean(inner)) if inner else None
            value, low, high, loss = score(tasks, found)
            rates[name] = trials / cpu
            between = "" if low is None else f" [{low:.3f}, {high:.3f}]"
            print(
                f"{name:42} {trials:6} {wall:7.1f} {cpu:7.1f} {peak:5.0f} {rates[name]:13.3f}"
                f"  {'     ' if mean is None else f'{mean:.3f}'}  {loss:8.3f}"
                f"  {value:.3f}{between}",
                flush=True,
            )
            rows.append([n_rows, n_columns, len(tasks), name, trials, wall, cpu, mean])
            rows[-1] += [value, low, high, loss, peak]
    ours, wide = "toolkit, shipped defaults", "Optuna + cross_val_score, wide space"
    if ours in rates and wide in rates:
        ratio = rates[ours] / rates[wide]
        print(f"Shipped defaults against the wide space: x {ratio:.1f} trials a CPU second")
    if absent:
        print(f"Not installed, so not compared: {', '.join(absent)}.")
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ["rows", "columns", "searches", "way", "trials", "wall_s", "cpu_s"]
        writer.writerow(
            [*head, "inner", "outer_f1_micro", "low", "high", "log_loss", "peak_mb"]
        )
        writer.writerows(rows)


if __name__ == "__main__":
    main()
