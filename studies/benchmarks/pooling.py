"""How fast frames become statistics, side by side in one run, from files in the page cache.

Every way computes the 18 statistics of the `rich` preset, or what comes nearest to them in
its own library; the column `statistics` says how many. Rates are MB of raw float32 frames a
second, the best of several rounds in which the ways take turns, so that a busy machine slows
all of them alike. Slow ways get a share of the frames.

    python studies/benchmarks/pooling.py [--rounds 5] [--files 60] [--out pooling.csv]

On a machine that others use too, `--clock cpu` counts the time that this process really ran.
"""

import argparse
import csv
import importlib.util
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from toolkit.pooling import PRESETS, compute_statistics, pool_frames
from toolkit.pooling.reading import Reader

RICH = PRESETS["rich"]
SHAPES = {"visual": 2048, "acoustic": 128}
Clock = Callable[[], float]


@dataclass(frozen=True)
class Way:
    name: str
    statistics: int
    run: Callable[[Sequence[Path]], object]
    share: float = 1.0  # of the files
    dims: int | None = None  # where one file would take minutes


def ours(paths: Sequence[Path]) -> None:
    reader = Reader()
    for path in paths:
        frames, _ = reader.read(path)
        pool_frames(frames, RICH)


def ours_on_two_threads(paths: Sequence[Path]) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(ours, (paths[::2], paths[1::2])))


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
        thirds = np.array_split(x, 3)
        percentiles = np.percentile(x, [5, 25, 50, 75, 95], axis=0)
        lag1 = (deviations[1:] * deviations[:-1]).sum(axis=0) / (deviations**2).sum(axis=0)
        np.vstack(
            [
                *(mean, x.std(axis=0), x.min(axis=0), x.max(axis=0), percentiles),
                *(stats.skew(x, axis=0), stats.kurtosis(x, axis=0)),
                *(centred @ x / (centred @ centred), np.abs(deltas).mean(axis=0)),
                *(deltas.std(axis=0), lag1, *(third.mean(axis=0) for third in thirds)),
            ]
        )


def pandas_groupby(paths: Sequence[Path]) -> None:
    frames = [np.load(path) for path in paths]
    number = np.repeat(np.arange(len(frames)), [len(x) for x in frames])
    grouped = pd.DataFrame(np.concatenate(frames)).groupby(number)
    for name in ("mean", "std", "min", "max", "skew"):
        getattr(grouped, name)()
    grouped.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
    grouped.diff().abs().groupby(number).mean()


def polars_groupby(paths: Sequence[Path]) -> None:
    import polars as pl  # noqa: PLC0415

    for path in paths:
        columns = pl.all()
        quantiles = [columns.quantile(q, "linear") for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        simple = [columns.mean(), columns.std(ddof=0), columns.min(), columns.max()]
        shape = [columns.skew(), columns.kurtosis()]
        deltas = [columns.diff().abs().mean(), columns.diff().std(ddof=0)]
        table = pl.from_numpy(np.load(path))
        names = [*simple, *quantiles, *shape, *deltas]
        table.select(name.name.suffix(f"_{k}") for k, name in enumerate(names))


def tsfresh_extract(paths: Sequence[Path], dims: int) -> None:
    from tsfresh import extract_features  # noqa: PLC0415

    names = ("mean", "standard_deviation", "minimum", "maximum", "skewness", "kurtosis")
    settings: dict[str, list[dict[str, object]] | None] = dict.fromkeys(names)
    settings["quantile"] = [{"q": q} for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    settings["linear_trend"] = [{"attr": "slope"}]
    settings["mean_abs_change"] = None
    settings["autocorrelation"] = [{"lag": 1}]
    for path in paths:
        table = pd.DataFrame(np.load(path)[:, :dims])
        table["id"] = 0
        extract_features(
            table,
            column_id="id",
            default_fc_parameters=settings,
            n_jobs=0,
            disable_progressbar=True,
        )


def tsfel_extract(paths: Sequence[Path], dims: int) -> None:
    import tsfel  # noqa: PLC0415

    settings = tsfel.get_features_by_domain("statistical")
    for path in paths:
        table = pd.DataFrame(np.load(path)[:, :dims])
        tsfel.time_series_features_extractor(settings, table, fs=1, verbose=0)


def load_into_fresh_memory(paths: Sequence[Path]) -> object:
    return [np.load(path) for path in paths]


def load_and_forget(paths: Sequence[Path]) -> None:
    for path in paths:
        np.load(path)


def read_again(paths: Sequence[Path]) -> None:
    reader = Reader()
    for path in paths:
        reader.read(path)


def sum_in_memory(frames: Sequence[np.ndarray]) -> None:
    for x in frames:
        np.sum(x)


def ways() -> Iterator[Way]:
    yield Way("this toolkit, one thread", 18, ours)
    yield Way("this toolkit, two threads", 18, ours_on_two_threads)
    yield Way("this toolkit, plain definitions", 18, definitions, share=0.2)
    yield Way("numpy + scipy, shared percentiles", 18, numpy_and_scipy, share=0.2)
    yield Way("pandas groupby (its 11)", 11, pandas_groupby, share=0.2)
    if importlib.util.find_spec("polars"):
        yield Way("polars (its 13)", 13, polars_groupby, share=0.1)
    if importlib.util.find_spec("tsfresh"):
        run = tsfresh_extract
        yield Way("tsfresh (its 14)", 14, lambda paths: run(paths, 16), share=0.05, dims=16)
    if importlib.util.find_spec("tsfel"):
        extract = tsfel_extract
        way = Way("tsfel, statistical", 0, lambda paths: extract(paths, 8), 0.05, dims=8)
        yield way
    yield Way("read into used memory and fingerprint", 0, read_again)
    yield Way("np.load, kept (fresh memory)", 0, load_into_fresh_memory)
    yield Way("np.load, forgotten", 0, load_and_forget)


def write_files(folder: Path, n_dims: int, n_files: int) -> list[Path]:
    rng = np.random.default_rng(n_dims)
    paths = []
    for number in range(n_files):
        paths.append(folder / f"{n_dims}-{number:04d}.npy")
        frames = rng.standard_normal((rng.integers(20, 301), n_dims), dtype=np.float32)
        np.save(paths[-1], frames)
    return paths


def measure(way: Way, paths: Sequence[Path], n_dims: int, clock: Clock) -> float:
    """MB of frames a second."""
    few = paths[: max(2, int(len(paths) * way.share))]
    size = sum(path.stat().st_size for path in few) * (way.dims or n_dims) / n_dims
    start = clock()
    way.run(few)
    return size / 1e6 / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=60, help="visual; of acoustic ten times")
    parser.add_argument("--out", type=Path, default=Path("pooling.csv"))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    pool_frames(np.zeros((3, 3), np.float32), RICH)  # compiled before the clock runs
    rows = []
    for name, n_dims in SHAPES.items():
        n_files = options.files * (10 if name == "acoustic" else 1)
        with tempfile.TemporaryDirectory() as folder:
            paths = write_files(Path(folder), n_dims, n_files)
            rates = {way: [measure(way, paths, n_dims, clock)] for way in ways()}
            for _ in range(options.rounds - 1):
                for way, measured in rates.items():
                    measured.append(measure(way, paths, n_dims, clock))
            frames = [np.load(path) for path in paths[:20]]
            start = clock()
            sum_in_memory(frames)
            summed = sum(x.nbytes for x in frames) / 1e6 / (clock() - start)
        best = {way.name: max(measured) for way, measured in rates.items()}
        reference = best["this toolkit, one thread"]
        print(f"\n{name}: T x {n_dims}, {n_files} files, T from 20 to 300")
        for way in rates:
            ratio = reference / best[way.name]
            print(f"  {way.name:40} {best[way.name]:9.1f} MB/s   one thread is x {ratio:.2f}")
            rows.append(
                [name, way.name, way.statistics, f"{best[way.name]:.1f}", f"{ratio:.3f}"]
            )
        print(f"  {'np.sum of arrays in memory':40} {summed:9.1f} MB/s")
        rows.append([name, "np.sum of arrays in memory", 1, f"{summed:.1f}", ""])
    absent = [n for n in ("polars", "tsfresh", "tsfel") if not importlib.util.find_spec(n)]
    if absent:
        print(f"\nNot installed, so not compared: {', '.join(absent)}.")
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["shape", "way", "statistics", "mb_per_s", "toolkit_ratio"])
        writer.writerows(rows)
    print(f"\n{platform.processor() or platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
