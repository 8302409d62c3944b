"""Everything that is wrong with a data set, collected and told at once."""

from collections.abc import Sequence
from typing import NoReturn

SHOWN = 20


class ManifestError(ValueError):
    """A data set that cannot be used as it is, with every reason found.

    Parameters
    ----------
    problems : sequence of str
        One sentence a problem: where it is, what is wrong, what would mend it.
    source : str, default=""
        Name of the file that the problems are in.

    Attributes
    ----------
    problems : tuple of str
        All of them; the message shows the first 20 and counts the rest.

    Examples
    --------
    >>> error = ManifestError(["row 2: no label", "row 5: no label"], source="dataset.csv")
    >>> print(error)
    dataset.csv has 2 problems:
    - row 2: no label
    - row 5: no label
    """

    def __init__(self, problems: Sequence[str], *, source: str = "") -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.source = source
        # The problems are the only argument, so that the error survives being pickled on its
        # way out of a worker process.
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        name = self.source or "The data set"
        lines = [f"{name} has {count:,} problem{'' if count == 1 else 's'}:"]
        lines += [f"- {problem}" for problem in self.problems[:SHOWN]]
        if count > SHOWN:
            lines.append(f"... and {count - SHOWN:,} more.")
        return "\n".join(lines)


class Problems:
    """The problems found so far in one file.

    - source: Name of the file, for the messages.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, text: str, *, row: int | None = None, column: str | None = None) -> None:
        """Note one problem."""
        where = "" if row is None else f"row {row:,}"
        if column is not None:
            where += f"{', ' if where else ''}column {column!r}"
        # What concerns the whole table comes first: it often explains what the rows say.
        self._found.append((row or 0, f"{where}: {text}" if where else text))

    def raise_any(self) -> None:
        """Raise all problems, in row order, where there are any."""
        if self._found:
            ordered = sorted(self._found, key=lambda found: found[0])
            raise ManifestError([text for _, text in ordered], source=self.source)

    def refuse(self, text: str) -> NoReturn:
        """Raise at once, for what leaves nothing else to look at."""
        raise ManifestError([text], source=self.source)
