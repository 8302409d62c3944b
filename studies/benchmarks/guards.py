"""Take out each guard of the method once, and see that a test fails without it.

Run it from the repository: ``python studies/benchmarks/guards.py`` (about three quarters
of an hour on two cores). Words after it choose the guards with one of them in the name. Each
guard of ``guards.toml`` is taken out in a copy of the tree, and the few tests that should
catch it run there until one fails. A guard that none catches ends in exit code 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
N_COPIES = 2
TREE = ("toolkit", "tests", "studies", ".ci", "pyproject.toml", "README.md")
# Without a guard against loops the tests of a file may never end, which shows it as well.
_MOST_SECONDS = 600
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def read_guards(words=()):
    """Read the table, or those guards whose names hold one of the words."""
    with Path(__file__).with_suffix(".toml").open("rb") as file:
        guards = tomllib.load(file)["guard"]
    return [g for g in guards if not words or any(word in g["name"] for word in words)]


def take_out(guard, root):
    """Give a file's text without the guard; its place must be found exactly once."""
    text = (root / guard["file"]).read_text(encoding="utf-8")
    if (n := text.count(guard["take"])) != 1:
        raise ValueError(f"{guard['name']}: found {n} times in {guard['file']}, expected once.")
    return text.replace(guard["take"], guard["leave"])


def try_guard(guard, copy):
    """Say which test fails without the guard; None where none does."""
    path = copy / guard["file"]
    path.write_text(take_out(guard, ROOT), encoding="utf-8")
    words = ["-x", "-q", "-n", "0", "-m", "slow or not slow", "-p", "no:cacheprovider"]
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(copy / "numba"),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words, *guard["tests"]],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {_MOST_SECONDS} s"
    finally:
        shutil.copy2(ROOT / guard["file"], path)
    failed = _FAILED.search(done.stdout)
    if done.returncode not in (0, 1) and failed is None:
        raise RuntimeError(f"{guard['name']}: the tests did not run.\n{done.stdout[-2000:]}")
    return failed.group(1) if failed else None


def main(words):
    """Try the guards, two at a time, and print each with the test that caught it."""
    guards = read_guards(words)
    for guard in guards:
        take_out(guard, ROOT)
    n_caught = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(N_COPIES) as threads:
        # Times are kept and copies used again, so that what is compiled serves all guards.
        copies = SimpleQueue()
        for number in range(N_COPIES):
            copies.put(Path(folder, str(number)))
            for name in TREE:
                here, there = ROOT / name, Path(folder, str(number), name)
                there.parent.mkdir(exist_ok=True)
                (shutil.copytree if here.is_dir() else shutil.copy2)(here, there)

        def attempt(guard):
            copy = copies.get()
            try:
                return try_guard(guard, copy)
            finally:
                copies.put(copy)

        for guard, caught in zip(guards, threads.map(attempt, guards), strict=True):
            n_caught += caught is not None
            sys.stdout.write(f"| {guard['name']} | {caught or 'NOT CAUGHT'} |\n")
            sys.stdout.flush()
    sys.stdout.write(f"{n_caught} of {len(guards)} guards are caught.\n")
    return int(n_caught < len(guards))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
