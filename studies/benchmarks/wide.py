"""Cost and score of a modality of more than 20,000 columns under each `--wide`.

    python studies/benchmarks/wide.py

The features are the visual ones of `toolkit demo --full`, for fewer utterances: 2,048
dimensions, 36,864 `rich` columns. Five sessions are held out in turn, with five trials, the
logistic baseline and one thread. Each way runs in a process of its own on the same pooled
table. With --folder, finished ways are kept, so that others can be added.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from toolkit.data import make_corpus, read_manifest
from toolkit.data.corpora import _compose, _make_features
from toolkit.pooling import PRESETS, FeatureTable, pool_frames
from toolkit.validation import (
    MOST_COLUMNS,
    Protocol,
    SearchOptions,
    compare_systems,
    fits,
    gather_predictions,
    make_features,
    make_folds,
    run_logistic_unit,
    run_unit,
    score_predictions,
)
from toolkit.validation.scores import find_score

WAYS = ("reduce", "keep", "ftest-2000", "ftest-5000", "ftest-10000")
N_DIMS, STATISTICS = 2_048, PRESETS["rich"]
GIVEN = {"protocol": Protocol(outer="session")}


def write_table(folder: Path, n: int) -> None:
    """Write a manifest and the pooled features of its utterances."""
    small = dict.fromkeys(("text", "audio", "visual"), 8)
    table = make_corpus(folder / "corpus", full=True, n_utterances=n, dims=small)
    utterances = {u.name: u for u in _compose(True, n, seed=0)}
    shape = (n, N_DIMS * len(STATISTICS))
    values = np.lib.format.open_memmap(folder / "values.npy", "w+", np.float32, shape)
    for row, name in enumerate(read_manifest(table, modalities=("text",)).utterances):
        frames = _make_features(0, "visual", N_DIMS, utterances[name])
        values[row] = pool_frames(frames, STATISTICS).ravel()


def run_way(folder: Path, way: str) -> dict:
    """Predict all utterances by a boosted system and its baseline, and measure the cost."""
    manifest = read_manifest(folder / "corpus" / "dataset.csv", modalities=("text",))
    values = np.load(folder / "values.npy", mmap_mode="r")
    names = tuple(f"visual__{s}__{k:04d}" for s in STATISTICS for k in range(N_DIMS))
    there, frames = np.ones(len(values), dtype=bool), np.ones(len(values), dtype=np.int64)
    table = FeatureTable("visual", STATISTICS, names, values, there, frames, "", {})
    limit = {"most_columns": MOST_COLUMNS} if way == "reduce" else {}
    if "-" in way:
        limit, fits.WIDE_SCREEN = {"screen_above": MOST_COLUMNS}, way
    options = SearchOptions(n_trials=5, **limit)
    features = make_features([table], options.statistics, **limit)
    folds = make_folds(manifest, "session", seed=0)
    seconds, probas = [time.process_time()], []
    with threadpool_limits(1):
        for run, more in (
            (run_unit, {"options": options}),
            (run_logistic_unit, {"statistics": "rich", "metric": options.metric}),
        ):
            units = [run(manifest, features, f, system=way, **GIVEN, **more) for f in folds]
            probas.append([unit.proba.tolist() for unit in units])
            seconds.append(time.process_time())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"probas": probas, "seconds": np.diff(seconds).tolist(), "memory": memory}


def show(folder: Path, answers: dict) -> None:
    """Print the table, with the differences from keeping all columns."""
    manifest = read_manifest(folder / "corpus" / "dataset.csv", modalities=("text",))
    folds = make_folds(manifest, "session", seed=0)
    systems = {}
    for way, each in answers.items():
        for kind, parts in zip(("", " logistic"), each["probas"], strict=True):
            there = [np.ones(len(fold.test), dtype=bool) for fold in folds]
            probas = [np.array(part) for part in parts]
            systems[way + kind] = gather_predictions(manifest, folds, way + kind, probas, there)
    print("| way | F1-micro | less keep | logistic | seconds | logistic, seconds | GB |")
    print("|---|---|---|---|---:|---:|---:|")
    for way, each in answers.items():
        names, less = (way, f"{way} logistic"), ""
        if way != "keep" and "keep" in answers:
            (gap,) = compare_systems([systems["keep"], systems[way]], pairs=[(way, "keep")])
            less = f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        found = [find_score(score_predictions(systems[n]), n, "f1_micro") for n in names]
        cells = [f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in found]
        sizes = [f"{number:.0f}" for number in each["seconds"]]
        sizes.append(f"{each['memory'] / 2**30:.1f}")
        print(f"| {' | '.join([way, cells[0], less, cells[1], *sizes])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=1500)
    parser.add_argument("--folder", type=Path, help="of the table and the results")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--one", action="store_true", help="run one way in this process")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if options.one:
            answer = json.dumps(run_way(folder, options.ways))
            (folder / f"{options.ways}.json").write_text(answer)
            return
        if not (folder / "values.npy").exists():
            write_table(folder, options.utterances)
        found = {}
        for way in options.ways.split(","):
            path = folder / f"{way}.json"
            if not path.exists():
                words = ["--one", "--ways", way, "--folder", str(folder)]
                subprocess.run([sys.executable, __file__, *words], check=True)
            found[way] = json.loads(path.read_text())
        show(folder, found)


if __name__ == "__main__":
    main()
