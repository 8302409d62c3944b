"""Run studies in children of one process, each with a fault of its own; tell how they ended.

A program, started by the tests: everything is imported once, and each run is a fork, so that
dozens of them take seconds. It reads a list of runs as JSON and answers with as many endings.
"""

import builtins
import errno
import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

# All that a run imports on its way is here before the first fork.
import lightgbm  # noqa: F401
import optuna  # noqa: F401

from toolkit.files import explain_trouble, write_text
from toolkit.models import boosters
from toolkit.study import cli, runner
from toolkit.study.config import StudyConfig
from toolkit.study.results import derive_study


class Fault:
    """Count what happens, and kill or fail when it is time."""

    def __init__(self, said, folder):
        self.said, self.folder = said, str(folder)
        self.n = {"round": 0, "write": 0}

    def happen(self, kind):
        self.n[kind] += 1
        if self.said.get("kill") == [kind, self.n[kind]]:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "write" and self.said.get("fail") == self.n[kind]:
            code = self.said["errno"]
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    def watch(self, module, name, *, first=False):
        """Let every call of a function of the operating system count as a write."""
        honest = getattr(module, name)

        def call(*args, **options):
            where = args[0]
            mode = args[1] if len(args) > 1 else options.get("mode", "r")
            mine = isinstance(where, int) or str(where).startswith(self.folder)
            if mine and (not first or set(str(mode)) & set("wxa+")):
                self.happen("write")
            return honest(*args, **options)

        setattr(module, name, call)

    def install(self):
        for name in ("fsync", "replace", "rename"):
            self.watch(os, name)
        opener = io.open
        self.watch(io, "open", first=True)
        builtins.open = io.open if builtins.open is opener else builtins.open
        measure = boosters.row_log_loss

        def measure_and_count(labels, proba):
            self.happen("round")
            return measure(labels, proba)

        boosters.row_log_loss = measure_and_count
        if self.said.get("clock"):
            rng = random.Random(1)
            time.time = lambda: rng.uniform(0, 2e9)
            time.time_ns = lambda: rng.randrange(2 * 10**18)


def run(said):
    """Run one study in this process, and say how many rounds and writes it took."""
    folder = Path(said["out"])
    fault = Fault(said, folder)
    config = StudyConfig(data=said["data"], out=folder, **said["options"])
    if not said.get("drawings"):
        runner.collect_study = collect_without_drawings
    fault.install()
    try:
        runner.run_study(config)
    except OSError as error:
        return {"code": 2, "said": explain_trouble(error), **fault.n}
    except ValueError as error:
        return {"code": 2, "said": str(error), **fault.n}
    return {"code": 0, "said": "", **fault.n}


def collect_without_drawings(folder, **_):
    """Write all tables of a study: what takes long to draw has no fault of its own."""
    collected = derive_study(folder)
    for name, text in collected.tables.items():
        write_text(folder.path / name, text)
    return collected


def fork(said):
    """Run one study in a child, and tell how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        ending = {"code": 1, "said": "defect"}
        try:
            ending = run(said)
        except BaseException as error:  # noqa: BLE001  (told to the parent, whatever it is)
            ending["said"] = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(ending).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return json.loads(text)


if __name__ == "__main__":
    assert cli.main
    json.dump([fork(said) for said in json.load(sys.stdin)], sys.stdout)
