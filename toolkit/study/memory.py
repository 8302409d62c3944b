"""What a study needs in memory, before it starts: refused where it cannot fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from toolkit.study.config import ConfigError
from toolkit.validation import estimate_memory, make_presets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.study.executors import UnitTask

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")
_SAMPLED: Final = ("none", "weights")


def available_memory() -> int | None:
    """Tell how much memory this process and its workers may still take."""
    limits = [_group_memory(), _system_memory()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def check_memory(tasks: Sequence[UnitTask], *, workers: int, available: int | None) -> None:
    """Refuse a study whose workers would not fit into memory side by side."""
    needs = {task.system: estimate_task(task) for task in tasks}
    largest = sorted((needs[task.system] for task in tasks), reverse=True)
    if available is None or sum(largest[:workers]) <= available:
        return
    fitting = max((n for n in range(1, workers) if sum(largest[:n]) <= available), default=0)
    system = max(needs, key=lambda name: needs[name])
    task = next(task for task in tasks if task.system == system)
    hints = [f"--workers {fitting}"] if fitting else []
    hints += _smaller_statistics(tasks, workers, available)
    left = {name for name, need in needs.items() if need <= available}
    if not hints and left:
        hints.append(f"without {', '.join(sorted(set(needs) - left))}")
    raise ConfigError(
        f"{workers} worker(s) side by side may need {_gigabytes(sum(largest[:workers]))} of "
        f"memory, and {_gigabytes(available)} are free. The largest is {system}: "
        f"{len(task.manifest)} utterances, {_widest(task):,} columns, "
        f"{_gigabytes(needs[system])}. What would fit: "
        f"{', or '.join(hints) if hints else 'fewer dimensions a modality, or more memory'}."
    )


def estimate_task(task: UnitTask, statistics: Sequence[str] | None = None) -> int:
    """Estimate the most memory that one unit takes at a time."""
    presets = statistics or task.options.statistics
    widths = _widths(task, presets)
    return estimate_memory(
        len(task.manifest),
        max(widths),
        side_by_side=max(widths) if len(task.tables) > 1 else 0,
        resampled=bool(set(task.options.imbalance) - set(_SAMPLED)),
        logistic=task.logistic,
    )


def _smaller_statistics(tasks: Sequence[UnitTask], workers: int, available: int) -> list[str]:
    """Name the largest preset with which all would fit, if there is one."""
    for preset in ("basic", "minimal"):
        try:
            needs = sorted((estimate_task(task, (preset,)) for task in tasks), reverse=True)
        except ValueError:  # a table was pooled without it
            continue
        if sum(needs[:workers]) <= available:
            return [f"--statistics {preset}"]
    return []


def _widest(task: UnitTask) -> int:
    return max(_widths(task, task.options.statistics))


def _widths(task: UnitTask, presets: Sequence[str]) -> list[int]:
    """Count the columns of each preset, over the unit's tables."""
    taken = [
        make_presets(table, presets, task.options.most_columns)[0] for table in task.tables
    ]
    return [sum(len(columns[preset]) for columns in taken) for preset in presets]


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GB"


def _system_memory() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # neither Linux nor another Unix
        return None


def _group_memory() -> int | None:
    """Tell what the control group of a container leaves; pages of files can be dropped."""
    try:
        most = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        taken = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        files = sum(int(n) for name, n in map(str.split, lines) if name == "inactive_file")
        return None if most == "max" else max(int(most) - taken + files, 0)
    except (OSError, ValueError):
        return None
