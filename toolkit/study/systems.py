"""Which systems a study fits, and what each of them sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.explain import MAX_PLAYERS
from toolkit.study.config import ConfigError
from toolkit.systems import EARLY, System, early_name, logistic_name, proper_subsets
from toolkit.validation import FINAL, fold_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from toolkit.study.config import StudyConfig
    from toolkit.validation import Fold


def list_systems(config: StudyConfig, modalities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List the boosted systems of a study."""
    systems: dict[str, tuple[str, ...]] = {name: (name,) for name in modalities}
    if len(modalities) < 2 or EARLY not in config.fusion:
        return systems
    systems[EARLY] = tuple(modalities)
    if config.shapley not in ("refit", "seeds"):
        return systems
    if len(modalities) > MAX_PLAYERS:
        raise ConfigError(
            f"--shapley {config.shapley}: {len(modalities)} modalities would be "
            f"{2 ** len(modalities)} sets; at most {MAX_PLAYERS} are played. Choose some "
            "with --modality, or --shapley late."
        )
    # Each with the trials, space and inner folds of every other system: the game compares
    # sets of modalities, not budgets.
    sets = {
        early_name(some, modalities): tuple(some) for some in proper_subsets(list(modalities))
    }
    return systems | sets


def name_systems(systems: Iterable[str]) -> list[str]:
    """Name boosted systems and the baselines beside them."""
    boosted = list(systems)
    return [
        *boosted,
        *(logistic_name(name) for name in boosted if not System.parse(name).is_subset),
    ]


def check_only(
    only: str, systems: Iterable[str], folds: Sequence[Fold], seeded: Iterable[str] = ()
) -> str:
    """Check the name of a single unit."""
    system, _, said = only.rpartition("/")
    number = FINAL if said == fold_name(FINAL) else int(said)
    boosted = list(systems)
    there = {fold.number for fold in folds}
    if system in boosted and not System.parse(system).is_subset:
        there.add(FINAL)
    named = [*name_systems(boosted), *seeded]
    if system not in named or number not in there:
        raise ConfigError(
            f"--only {only}: there is no such unit. Systems: "
            f"{', '.join(named)}; folds 00 to {fold_name(len(folds) - 1)}, "
            "and final of the boosted ones."
        )
    return f"{system}/{fold_name(number)}"
