"""How fast frames become statistics, side by side in one run, from files in the page cache.

Every way computes the 18 statistics of the `rich` preset, or what comes nearest to them in
its own library: the column `statistics` says how many. Rates are MB of raw float32 frames a
second, the best of several rounds in which the ways take turns, so that a busy machine slows
all of them alike. Slow ways get a share of the frames; tsfresh and tsfel, which take minutes
for one file, get a few dimensions of one in a process of their own that is given up after
`--patience` seconds. Threads are compared on a corpus of its own, table and all.

    python studies/benchmarks/pooling.py [--rounds 3] [--files 40] [--corpus 800]

`--clock cpu` counts the time that this process really ran, for machines that others use too.
polars, tsfresh and tsfel are compared where they are installed; the toolkit needs none of them.
"""

import argparse
import csv
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from toolkit.data import read_manifest
from toolkit.pooling import PRESETS, pool_frames, pool_manifest
from toolkit.pooling.corpus import _Reader
from toolkit.pooling.statistics import compute_statistics

RICH = PRESETS["rich"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SHAPES = {"visual": 2048, "acoustic": 128}
Clock = Callable[[], float]


@dataclass(frozen=True)
class Way:
    name: str
    statistics: int
    run: Callable[[Sequence[Path]], object]
    share: float = 1.0  # of the files
    rounds: int = 100  # at most


def ours(paths: Sequence[Path]) -> None:
    reader = _Reader()
    for path in paths:
        frames, _ = reader.read(path)
        pool_frames(frames, RICH)


def definitions(paths: Sequence[Path]) -> None:
    for path in paths:
        compute_statistics(np.load(path), RICH)


def numpy_and_scipy(paths: Sequence[Path]) -> None:
    for path in paths:
        x = np.load(path)
        time_axis = np.linspace(0, 1, len(x))
        centred = time_axis - time_axis.mean()
        mean, deltas = x.mean(axis=0), np.diff(x, axis=0)
        deviations = x - mean
        percentiles = np.percentile(x, [100 * q for q in QUANTILES], axis=0)
        lag1 = (deviations[1:] * deviations[:-1]).sum(axis=0) / (deviations**2).sum(axis=0)
        np.vstack(
            [
                *(mean, x.std(axis=0), x.min(axis=0), x.max(axis=0), percentiles),
                *(stats.skew(x, axis=0), stats.kurtosis(x, axis=0)),
                *(centred @ x / (centred @ centred), np.abs(deltas).mean(axis=0)),
                *(deltas.std(axis=0), lag1),
                *(third.mean(axis=0) for third in np.array_split(x, 3)),
            ]
        )


def pandas_groupby(paths: Sequence[Path]) -> None:
    arrays = [np.load(path) for path in paths]
    lengths = [len(x) for x in arrays]
    number = np.repeat(np.arange(len(arrays)), lengths)
    third = np.concatenate([np.arange(n) * 3 // n for n in lengths])
    slopes = np.concatenate([centre / (centre @ centre) for centre in map(centre_of, lengths)])
    table = pd.DataFrame(np.concatenate(arrays))
    grouped = table.groupby(number)
    for name in ("mean", "min", "max", "skew", "kurt"):
        getattr(grouped, name)()
    grouped.std(ddof=0)
    grouped.quantile(list(QUANTILES))
    table.mul(slopes, axis=0).groupby(number).sum()
    deltas = grouped.diff()
    deltas.abs().groupby(number).mean()
    deltas.groupby(number).std(ddof=0)
    deviations = table - grouped.transform("mean")
    products = deviations * deviations.groupby(number).shift()
    products.groupby(number).sum() / (deviations**2).groupby(number).sum()
    table.groupby([number, third]).mean()


def centre_of(n_frames: int) -> np.ndarray:
    return np.linspace(0, 1, n_frames) - 0.5


def polars_expressions(paths: Sequence[Path]) -> None:
    import polars as pl  # noqa: PLC0415

    x, deviation = pl.all(), pl.all() - pl.all().mean()
    fixed = [
        *(x.mean(), x.std(ddof=0), x.min(), x.max()),
        *(x.quantile(q, "linear") for q in QUANTILES),
        *(x.skew(), x.kurtosis(), x.diff().abs().mean(), x.diff().std(ddof=0)),
        (deviation * deviation.shift()).sum() / (deviation * deviation).sum(),
    ]
    for path in paths:
        frames = np.load(path)
        n, centre = len(frames), centre_of(len(frames))
        thirds = [x.slice(k * n // 3, (k + 1) * n // 3 - k * n // 3).mean() for k in range(3)]
        slope = (x * pl.Series(centre / (centre @ centre))).sum()
        wanted = [*fixed, slope, *thirds]
        table = pl.from_numpy(frames)
        table.select(each.name.suffix(f"_{k}") for k, each in enumerate(wanted))


def tsfresh_extract(frames: np.ndarray) -> int:
    from tsfresh import extract_features  # noqa: PLC0415

    names = ("mean", "standard_deviation", "minimum", "maximum", "skewness", "kurtosis")
    settings: dict[str, list[dict[str, object]] | None] = dict.fromkeys(names)
    settings["quantile"] = [{"q": q} for q in QUANTILES]
    settings["linear_trend"] = [{"attr": "slope"}]
    settings["mean_abs_change"] = None
    settings["autocorrelation"] = [{"lag": 1}]
    table = pd.DataFrame(frames)
    table["id"] = 0
    extract_features(
        table,
        column_id="id",
        default_fc_parameters=settings,
        n_jobs=0,
        disable_progressbar=True,
    )
    return 14


def tsfel_extract(frames: np.ndarray) -> int:
    import tsfel  # noqa: PLC0415

    settings = tsfel.get_features_by_domain("statistical")
    tsfel.time_series_features_extractor(settings, pd.DataFrame(frames), fs=1, verbose=0)
    return sum(len(features) for features in settings.values())


SLOW = {"tsfresh": (tsfresh_extract, 16), "tsfel": (tsfel_extract, 16)}


def load_into_fresh_memory(paths: Sequence[Path]) -> object:
    return [np.load(path) for path in paths]


def load_and_forget(paths: Sequence[Path]) -> None:
    for path in paths:
        np.load(path)


def load_and_sum(paths: Sequence[Path]) -> None:
    for path in paths:
        np.load(path).sum(axis=0)


def read_again(paths: Sequence[Path]) -> None:
    reader = _Reader()
    for path in paths:
        reader.read(path)


def read_bare(paths: Sequence[Path]) -> None:
    buffer = bytearray(max(path.stat().st_size for path in paths))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            file.readinto(buffer)


def make_ways() -> list[Way]:
    ways = [
        Way("this toolkit, one thread", 18, ours),
        Way("this toolkit, plain definitions", 18, definitions, share=0.1),
        Way("numpy + scipy, shared percentiles", 18, numpy_and_scipy, share=0.2),
        Way("pandas groupby", 18, pandas_groupby, share=0.2, rounds=2),
        Way("read into used memory and fingerprint", 0, read_again),
        Way("readinto used memory alone", 0, read_bare),
        Way("np.load, kept (fresh memory)", 0, load_into_fresh_memory),
        Way("np.load, forgotten (memory used again)", 0, load_and_forget),
        Way("np.load, then np.sum", 1, load_and_sum),
    ]
    if importlib.util.find_spec("polars"):
        ways.insert(5, Way("polars", 18, polars_expressions, share=0.05, rounds=2))
    return ways


def write_files(folder: Path, n_dims: int, n_files: int) -> list[Path]:
    rng = np.random.default_rng(n_dims)
    paths = []
    for number in range(n_files):
        paths.append(folder / f"{n_dims}-{number:04d}.npy")
        frames = rng.standard_normal((rng.integers(20, 301), n_dims), dtype=np.float32)
        np.save(paths[-1], frames)
    return paths


def measure(way: Way, paths: Sequence[Path], clock: Clock) -> float:
    """MB of frames a second."""
    few = paths[: max(2, int(len(paths) * way.share))]
    start = clock()
    way.run(few)
    return sum(path.stat().st_size for path in few) / 1e6 / (clock() - start)


def measure_slow(name: str, path: Path, patience: float) -> tuple[float, int] | None:
    """MB a second and statistics, or None if it took too long."""
    command = [sys.executable, "-W", "ignore", __file__, "--slow", name, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=patience
        )
    except subprocess.TimeoutExpired:
        return None
    rate, statistics = done.stdout.split()[-2:]
    return float(rate), int(statistics)


def run_slow(name: str, path: Path) -> None:
    """Print MB a second of processor time, and the number of statistics."""
    extract, n_dims = SLOW[name]
    frames = np.load(path)[:, :n_dims]
    extract(frames[:10, :2])  # imports and compiles
    start = time.process_time()
    statistics = extract(frames)
    print(frames.nbytes / 1e6 / (time.process_time() - start), statistics)


def compare(
    paths: Sequence[Path], options: argparse.Namespace, clock: Clock
) -> list[tuple[str, int, float]]:
    """Name, statistics and rate of each way; rounds take turns over the ways."""
    ways = make_ways()
    best = dict.fromkeys(ways, 0.0)
    for number in range(options.rounds):
        for way in ways:
            if number < way.rounds:
                best[way] = max(best[way], measure(way, paths, clock))
    rows = [(way.name, way.statistics, rate) for way, rate in best.items()]
    for name in SLOW:
        if importlib.util.find_spec(name):
            found = measure_slow(name, paths[0], options.patience)
            label = f"{name}, its nearest"
            rows.append((label, found[1], found[0]) if found else (f"{label} (gave up)", 0, 0))
    frames = [np.load(path) for path in paths[:20]]
    start = clock()
    for x in frames:
        np.sum(x)
    summed = sum(x.nbytes for x in frames) / 1e6 / (clock() - start)
    return [*rows, ("np.sum of arrays in memory", 1, summed)]


def compare_threads(n_dims: int, n_files: int, rounds: int) -> tuple[float, float]:
    """MB a second of a whole corpus, from files to checked table, by one thread and by two.

    By the wall: the processor's seconds are those of both threads.
    """
    best = {1: 0.0, 2: 0.0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_files(folder, n_dims, n_files)
        lines = [f"u{k},{k % 2},s{k % 4},{path.name}" for k, path in enumerate(paths)]
        table = folder / "dataset.csv"
        table.write_text("\n".join(["utterance,label,speaker,frames", *lines]) + "\n")
        manifest = read_manifest(table)
        size = sum(path.stat().st_size for path in paths) / 1e6
        for number in range(2 * rounds):
            n_threads = 1 + number % 2
            with tempfile.TemporaryDirectory() as cache:
                start = time.perf_counter()
                pool_manifest(manifest, "frames", cache=cache, n_threads=n_threads)
                rate = size / (time.perf_counter() - start)
            best[n_threads] = max(best[n_threads], rate)
    return best[1], best[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=40, help="visual; of acoustic ten times")
    parser.add_argument("--corpus", type=int, default=800, help="files; of acoustic ten times")
    parser.add_argument("--out", type=Path, default=Path("pooling.csv"))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--patience", type=float, default=30)
    parser.add_argument("--slow", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.slow:
        run_slow(options.slow[0], Path(options.slow[1]))
        return
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    pool_frames(np.zeros((3, 3), np.float32), RICH)  # compiled before the clock runs
    lines = []
    for name, n_dims in SHAPES.items():
        n_files = options.files * (10 if name == "acoustic" else 1)
        with tempfile.TemporaryDirectory() as folder:
            paths = write_files(Path(folder), n_dims, n_files)
            ours(paths[:2])
            rows = compare(paths, options, clock)
            size = sum(path.stat().st_size for path in paths) / 1e6 / n_files
        rates = {label: rate for label, _, rate in rows}
        reference = rates["this toolkit, one thread"]
        print(f"\n{name}: T x {n_dims}, {n_files} files, T from 20 to 300")
        for label, statistics, rate in rows:
            ratio = f"{reference / rate:.2f}" if rate else ""
            print(f"  {label:40} {statistics:3} {rate:10.2f} MB/s   toolkit is x {ratio}")
            lines.append([name, label, statistics, f"{rate:.2f}", ratio])
        used = size / rates["read into used memory and fingerprint"]
        bare = size / rates["readinto used memory alone"]
        print(f"  opening and fingerprint: {1e6 * (used - bare):.0f} us a file above the read")
        n_files = options.corpus * (10 if name == "acoustic" else 1)
        if n_files:
            one, two = compare_threads(n_dims, n_files, options.rounds)
            print(f"  a corpus of {n_files} files, one thread {one:17.2f} MB/s")
            print(f"  the same, two threads {two:30.2f} MB/s   x {two / one:.2f}")
            lines.append([name, f"corpus of {n_files}, one thread", 18, f"{one:.2f}", ""])
            lines.append([name, f"corpus of {n_files}, two threads", 18, f"{two:.2f}", ""])
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["shape", "way", "statistics", "mb_per_s", "toolkit_ratio"])
        writer.writerows(lines)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"\n{platform.machine()}, {cores} cores, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
