"""Arrays in list columns of Parquet files.

Either the file has a column of ids (``utterance``, ``id`` or ``file_name_list``) and a row an
utterance, whose list column holds ``(n_frames, n_dims)`` as a list of lists, or ``(n_dims,)``
as a list; or it has none and is one sequence, a row a frame.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.containers import Member, Remembered, check_array, choose, sign
from toolkit.data.headers import SequenceError, SequenceHeader
from toolkit.data.roles import ROLES

_last = Remembered()


class _Table:
    """One file: where each id stands, and the row group that was read last."""

    def __init__(self, file: Path) -> None:
        from pyarrow import parquet, types  # noqa: PLC0415  (an extra)

        self.file = file
        with parquet.ParquetFile(file) as source:
            schema, self.groups = source.schema_arrow, source.metadata.num_row_groups
            is_list = (types.is_list, types.is_large_list, types.is_fixed_size_list)
            self.lists = [field.name for field in schema if any(f(field.type) for f in is_list)]
            ids = [name for name in schema.names if name.casefold() in ROLES["utterance"]]
            self.places: dict[str, tuple[int, int]] | None = {} if ids else None
            self.twice: set[str] = set()
            for group in range(self.groups if ids else 0):
                column = source.read_row_group(group, columns=ids[:1]).column(0)
                for row, name in enumerate(map(str, column.to_pylist())):
                    if name in (self.places or {}):
                        self.twice.add(name)
                    self.places[name] = group, row  # type: ignore[index]
            self.sizes = [
                _measure_group(source.metadata.row_group(group), self.lists)
                for group in range(self.groups)
            ]
        self.group = -1
        self.column: Any = None

    def read_group(self, group: int, path: Path | str) -> Any:
        """Read the lists of one row group."""
        from pyarrow import parquet  # noqa: PLC0415  (an extra)

        if self.group != group:
            n_values, stored = self.sizes[group]
            check_array((n_values,), np.dtype(np.float64), stored, path)
            with parquet.ParquetFile(self.file) as source:
                table = source.read_row_group(group, columns=self.lists)
            self.column = table.column(0).combine_chunks()
            self.group = group
        return self.column


def read_parquet(
    member: Member, path: Path | str, *, numbers: bool
) -> tuple[SequenceHeader, NDArray[Any] | None]:
    """Read one array of a Parquet file."""
    from pyarrow import ArrowException  # noqa: PLC0415  (an extra)

    signature = sign(member.file)
    try:
        if _last.signature != signature:
            _last.content = _Table(member.file)
            _last.signature = signature
        array = _to_array(_find(_last.content, member, path), path)
    except (ArrowException, OSError, ValueError) as error:
        if isinstance(error, SequenceError):
            raise
        raise SequenceError(
            f"{path} cannot be read as Parquet: {error}. Copy or write the file again."
        ) from error
    return check_array(array.shape, array.dtype, array.nbytes, path), array if numbers else None


def _find(table: _Table, member: Member, path: Path | str) -> Any:
    if len(table.lists) != 1:
        raise SequenceError(
            f"{member.file} has {len(table.lists)} columns of lists "
            f"({', '.join(table.lists) or 'none'}); expected one. Write each modality into a "
            "file of its own."
        )
    if table.places is None:
        if member.name is not None:
            raise SequenceError(
                f"{member.file} has no column {' or '.join(ROLES['utterance'])} to find "
                f"{member.name!r} by; add one."
            )
        import pyarrow as pa  # noqa: PLC0415  (an extra)

        groups = [table.read_group(group, path) for group in range(table.groups)]
        return pa.concat_arrays(groups) if groups else pa.array([], pa.list_(pa.float32()))
    name = choose(tuple(table.places), path)
    if name in table.twice:
        raise SequenceError(f"{member.file} has several rows {name!r}; keep one.")
    group, row = table.places[name]
    value = table.read_group(group, path)[row]
    if not value.is_valid:
        raise SequenceError(
            f"{path} is null. Leave its cell in the table empty if the modality is missing "
            "there."
        )
    return value.values


def _to_array(values: Any, path: Path | str) -> NDArray[Any]:
    """Numbers of a list, or of a list of lists of one length."""
    from pyarrow import compute, types  # noqa: PLC0415  (an extra)

    if not (types.is_list(values.type) or types.is_large_list(values.type)) and not (
        types.is_fixed_size_list(values.type)
    ):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    widths = compute.list_value_length(values).unique().to_pylist()
    if len(widths) > 1 or None in widths:
        raise SequenceError(
            f"{path} has frames of different lengths ({', '.join(map(str, widths[:5]))}); "
            "expected as many dimensions in each."
        )
    flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False))
    return flat.reshape(len(values), widths[0] if widths else 0)


def _measure_group(group: Any, lists: list[str]) -> tuple[int, int]:
    """Numbers in the lists of a row group, and the bytes that they take."""
    columns = [group.column(k) for k in range(group.num_columns)]
    ours = [c for c in columns if c.path_in_schema.split(".")[0] in lists]
    return sum(c.num_values for c in ours), sum(c.total_compressed_size for c in ours)
