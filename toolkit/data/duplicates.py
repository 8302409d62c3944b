"""Utterances that hold the same numbers as another's."""

from collections.abc import Hashable, Mapping, Sequence

# Two people hardly ever share the numbers of so many frames, but a short word said by both
# may well have one vector, and so may two silent clips of a frame or two.
FRAMES_OF_A_RECORDING = 5
_NAMED = 3


def find_duplicates(
    utterances: Sequence[str],
    speakers: Sequence[str],
    digests: Mapping[str, Sequence[bytes | None]],
    n_frames: Sequence[int],
) -> tuple[list[str], list[str]]:
    """Find recordings that stand under several speakers, and utterances that merely coincide.

    A recording under two names is in the training and in the test rows at once, whatever the
    split by speakers. Utterances of two speakers are taken for one recording if they hold the
    same numbers in every modality and have at least five frames in one.

    Examples
    --------
    >>> digests = {"audio": [b"hm", b"hm", b"no", b"no"], "text": [b"ok", b"ok", None, b"no"]}
    >>> recordings, coincidences = find_duplicates("abcd", "FMFM", digests, [80, 80, 90, 90])
    >>> print(*recordings)
    Utterances 'a' and 'b' of speakers 'F' and 'M' hold the same numbers in every modality: one
    recording under several names. Keep one of them, or allow it with --duplicates allow.
    >>> print(*coincidences)
    Modality 'audio': 2 utterances hold the same numbers as another speaker's, such as 'c' and
    'd'.
    """
    recordings, coincidences = list[str](), list[str]()
    by_chance, again, told = list[int](), list[int](), set[int]()
    rows = list(zip(*digests.values(), strict=True))
    for group in _group([row if any(row) else None for row in rows]):
        names = sorted({speakers[i] for i in group})
        recorded = n_frames[group[0]] >= FRAMES_OF_A_RECORDING
        if len(names) == 1:
            again += group[1:] if recorded else []
            continue
        told.update(group)
        if recorded:
            recordings.append(
                f"Utterances {_list([utterances[i] for i in group])} of speakers "
                f"{_list(names)} hold the same numbers in every modality: one recording under "
                "several names. Keep one of them, or allow it with --duplicates allow."
            )
        else:
            by_chance += group
    if by_chance:
        coincidences.append(
            f"{len(by_chance):,} utterances hold the same numbers as another speaker's in "
            f"every modality, with fewer than {FRAMES_OF_A_RECORDING} frames, such as "
            f"{_list([utterances[i] for i in by_chance])}."
        )
    if again:
        coincidences.append(
            "Utterances that repeat another of the same speaker in every modality, and so "
            f"count twice: {len(again):,}, such as {_list([utterances[i] for i in again])}."
        )
    for modality, column in digests.items():
        groups = [group for group in _group(column) if len({speakers[i] for i in group}) > 1]
        if shared := sorted({i for group in groups for i in group} - told):
            coincidences.append(
                f"Modality {modality!r}: {len(shared):,} utterances hold the same numbers as "
                f"another speaker's, such as {_list([utterances[i] for i in shared])}."
            )
    return recordings, coincidences


def _group(keys: Sequence[Hashable]) -> list[list[int]]:
    """Group the positions of equal keys, without None and without keys that stand alone."""
    groups: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _list(names: Sequence[str]) -> str:
    """Name at most three, and count the rest."""
    shown = [repr(str(name)) for name in names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED:,} more")
    *first, last = shown
    return f"{', '.join(first)} and {last}" if first else last
