"""The names of a study's systems: composed and parsed here, nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

EARLY: Final = "early"
MAJORITY: Final = "majority"
NO_INFORMATION: Final = "no-information"
BEST_SINGLE: Final = "best-single"
LOG_POOL: Final = "log-pool"

#: A late fusion of earlier versions, in whose place the pool of margins is.
HYBRID: Final = "hybrid"

#: Words of variants and bases, which no modality may be named.
RESERVED: Final = frozenset(
    {"early", "vote", "soft", "weighted", "stacked", "log_pool", "best_single", "majority"}
    | {"no_information", "logistic", "permuted", "ensemble", "offset", "seed", HYBRID}
)
# A modality's name holds no hyphen, so hyphens separate the parts of a system's name.
_NAME: Final = re.compile(
    rf"(?P<base>{BEST_SINGLE}|{LOG_POOL}|{NO_INFORMATION}|[^-]+)(?P<subset>(?:-[^-]+)*?)"
    r"(?:-(?P<variant>logistic|permuted|ensemble|offset-[^-]+|seed-\d+))?"
)


@dataclass(frozen=True, slots=True)
class System:
    """One system of a study, by the parts of its name.

    - base: A modality, ``early``, a late fusion or a baseline.
    - subset: Modalities of an early fusion that leaves some out, in column order.
    - variant: ``logistic`` (its baseline), ``offset-f1`` or ``offset-uar`` (other decisions),
      ``seed-N`` (further seed), ``ensemble`` (mean over seeds), ``permuted`` (permuted labels).

    >>> System.parse("early-text-audio-seed-2")
    System(base='early', subset=('text', 'audio'), variant='seed-2')
    >>> System("text").with_variant("logistic").name
    'text-logistic'
    """

    base: str
    subset: tuple[str, ...] = ()
    variant: str = ""

    @classmethod
    def parse(cls, name: str) -> System:
        """Split a system's name into its parts; refuse what is no such name."""
        found = _NAME.fullmatch(name)
        if found is None or (found["subset"] and found["base"] != EARLY):
            raise ValueError(f"{name!r} is not the name of a system.")
        subset = tuple(found["subset"].split("-")[1:])
        return cls(found["base"], subset, found["variant"] or "")

    @property
    def name(self) -> str:
        """The name in tables and folders."""
        return "-".join((self.base, *self.subset, *([self.variant] if self.variant else [])))

    @property
    def is_logistic(self) -> bool:
        """Whether it is the logistic regression on a system's features."""
        return self.variant == "logistic"

    @property
    def is_offset(self) -> bool:
        """Whether it is a system with other decision thresholds."""
        return self.variant.startswith("offset-")

    @property
    def is_seed(self) -> bool:
        """Whether it is a system under a further seed."""
        return self.variant.startswith("seed-")

    @property
    def is_subset(self) -> bool:
        """Whether it is the early fusion of some modalities, fitted for Shapley values."""
        return bool(self.subset) and not (self.is_logistic or self.is_offset)

    @property
    def is_baseline(self) -> bool:
        """Whether it reads no feature: ``majority`` or ``no-information``."""
        return self.base in {MAJORITY, NO_INFORMATION}

    @property
    def is_asked(self) -> bool:
        """Whether a study asks about it: a modality or fusion, no reference or variant.

        It was chosen before any result; a system from outside may be brought in afterwards.
        """
        known = self.is_baseline or self.is_outside or self.base == BEST_SINGLE
        return not (self.variant or self.subset or known)

    @property
    def is_outside(self) -> bool:
        """Whether it was brought from outside, or is a fusion with such a system."""
        return "+" in self.base

    def with_variant(self, variant: str) -> System:
        """Give a variant of this system, in place of its own."""
        return replace(self, variant=variant)


def variant_name(system: str, variant: str) -> str:
    """Name a variant of a system, in place of its own; an empty one names the system itself."""
    return System.parse(system).with_variant(variant).name


def logistic_name(system: str) -> str:
    """Name the logistic regression on a system's features."""
    return variant_name(system, "logistic")


def seed_name(system: str, number: int) -> str:
    """Name a system under a further seed; number 0 is the study's own seed.

    >>> seed_name("text", 2), seed_name("text", 0)
    ('text-seed-2', 'text')
    """
    return variant_name(system, f"seed-{number}" if number else "")


def early_name(subset: Sequence[str], modalities: Sequence[str]) -> str:
    """Name the system fitted on a subset of the modalities; both are in column order.

    >>> early_name(["audio", "text"], ["visual", "audio", "text"])
    'early-audio-text'
    """
    if len(subset) == 1:
        return subset[0]
    whole = len(subset) == len(modalities)
    return System(EARLY, () if whole else tuple(subset)).name


def list_subsets(modalities: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """List the non-empty subsets of the modalities in column order, small ones first."""
    for size in range(1, len(modalities) + 1):
        yield from combinations(modalities, size)


def proper_subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """List the subsets of at least two modalities that leave some out, for Shapley values."""
    return [names for names in list_subsets(modalities) if 1 < len(names) < len(modalities)]
