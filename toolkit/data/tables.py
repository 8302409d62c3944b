"""Tables with a header: the frames of one clip, or the rows of many utterances.

CSV, ARFF or Parquet. Every column is a dimension, except those of ids, times and roles.
"""

import codecs
import csv
import io
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from toolkit.data.containers import file_signature, is_table, split_member
from toolkit.data.headers import SequenceError, SequenceHeader
from toolkit.data.roles import FURTHER, ROLES, join_words, suggest

_IDS = (ROLES["utterance"], (*FURTHER["utterance"], "name"))
_ID_NAMES = ", ".join(map(repr, (*_IDS[0], *_IDS[1])))
_TIMES = ("frame_time", "timestamp", "time", "start", "frame", "frame_index")
#: Row numbers that pandas writes, the end of a segment, and the other columns of ids and roles.
_PLAIN = {"", "unnamed_0", "index", "index_level_0", "end", *_TIMES, *_IDS[0], *_IDS[1]}
_OF_ROLES = {word for role in (*ROLES.values(), *FURTHER.values()) for word in role}
_OTHERS = _PLAIN | _OF_ROLES
_OPENFACE, _SPAN = ("face_id", "confidence", "success"), {"start", "end"}
_EXPECTED = {*_PLAIN, *_OPENFACE}
#: Further row numbers of pandas, as `Unnamed: 0.1`, and times with a unit, as `Time (s)`.
_INDEX = re.compile(r"(unnamed|(index_)?level)_\d+(_\d+)*")
_UNIT = re.compile(rf"^({'|'.join(_TIMES)}|end)_([mnuμ]?s(ecs?)?|(milli)?seconds?)$")
#: Known layouts, and the words of the headers that show them.
_LAYOUTS = {
    "openSMILE (name;frameTime;...)": ("name", "frame_time"),
    "OpenFace (frame, face_id, timestamp, confidence, success, ...)": (
        *("frame", "timestamp", "face_id", "confidence", "success"),
    ),
    "opensmile-python (file,start,end,...)": ("file", "start", "end"),
    "a table of utterances (id,...)": ("id",),
    "frames with times (time,...)": ("time",),
}


class NumberTable(NamedTuple):
    """The numbers of a table, the rows of each id, and whether these are frames (`timed`).

    - left_out: Columns that are no dimensions, without ids, times and others of a known layout.
    - lines: Number of each row in the file, empty for Parquet.
    """

    file: Path
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    numbers: NDArray[Any]
    rows: Mapping[str, list[int]]
    timed: bool
    fault: str
    lines: NDArray[Any]

    @classmethod
    def load(cls, path: Path | str) -> "NumberTable":
        """Read the table of a path, or take it from the last ones that were read."""
        member = cast("Any", split_member(path))
        with _lock:  # one reading serves all threads
            table = _load_version(file_signature(member.file), member.columns)
        if isinstance(table, str):
            raise SequenceError(table)
        return table

    @classmethod
    def read_rows(cls, path: Path | str) -> NDArray[Any]:
        """Read the rows of one path as a sequence, and check its shape."""
        array = cls.load(path).take(cast("Any", split_member(path)).name)
        SequenceHeader.of_array(array.shape, array.dtype, array.nbytes, path)
        return array

    def take(self, name: str | None) -> NDArray[Any]:
        """Take the rows of one id, or all rows as the frames of one clip."""
        if name is None:
            if len(self.rows) > 1:
                raise SequenceError(
                    f"{self.file} has rows of {len(self.rows):,} recordings "
                    f"({list_names(self.rows)}); name one as in {self.file.name}#"
                    f"{next(iter(self.rows))}, or give the file with --table."
                )
            return self.numbers
        if self.fault:
            raise SequenceError(self.fault)
        if name not in self.rows:
            raise SequenceError(
                f"{self.file} has no row {name!r};{suggest(name, list(self.rows))} it has "
                f"{len(self.rows):,}: {list_names(self.rows)}. Leave the cell in the table "
                "empty if the modality is missing there."
            )
        return self.numbers[self.rows[name] if self.timed else self.rows[name][0]]

    @classmethod
    def name_place(cls, path: Path, dimension: int, row: int | None = None) -> str:
        """Name a dimension of a file, and its line: in a table, by their header and number.

        - row: Row of the sequence that the path leads to; None for all.
        """
        if not is_table(path):
            return f"dimension {dimension}"
        table, member = cls.load(path), cast("Any", split_member(path))
        rows = range(len(table.numbers)) if member.name is None else table.rows[member.name]
        lines = table.lines[list(rows)] if len(table.lines) else ()
        line = f"line {lines[row]:,}, " if row is not None and len(lines) else ""
        return f"{line}column {table.names[dimension]!r}"


_lock = threading.Lock()


@lru_cache(maxsize=2)
def _load_version(signature: tuple[Any, ...], chosen: str) -> NumberTable | str:
    # A fault is kept too: a large table would be read again for each of its rows.
    file = Path(signature[0])
    try:
        if file.suffix.casefold() != ".parquet":
            return _arrange(_Text(file, chosen))
        found = _arrange(_Parquet(file, chosen))
    except SequenceError as error:
        return str(error)
    from pyarrow import default_memory_pool  # noqa: PLC0415  (an extra)

    default_memory_pool().release_unused()
    return found


class _Text:
    """A CSV or ARFF file as cells."""

    def __init__(self, file: Path, chosen: str) -> None:
        self.file = file
        size = SequenceHeader((file.stat().st_size,), np.dtype("u1"), False, 0)
        with size.within_memory(file):
            content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            where = f"byte {error.start:,}"
            raise SequenceError(f"{file} is no text in UTF-8 ({where}); save it so.") from None
        first = text.lstrip().partition("\n")[0]
        separator = max((",", ";", "\t"), key=first.count)
        style: dict[str, Any] = {"delimiter": separator, "strict": True}
        self._signs, self._gaps, attributes, above = '"', {""}, None, 0
        if file.suffix.casefold() == ".arff":
            attributes, above = _read_attributes(text, file)
            separator, text = ",", text.split("\n", above)[above]
            style = {"quotechar": "'", "escapechar": "\\", "skipinitialspace": True}
            self._signs, self._gaps = '"%\\{', {"", "?"}
        reader = csv.reader(io.StringIO(text, newline=""), **style)
        try:
            self.header = [*(attributes or map(str.strip, next(filter(None, reader), ())))]
            if not self.header:
                raise SequenceError(f"{file} is empty; its first row must name the columns.")
            if not attributes and _lacks_names(self.header, chosen, file):
                self.header = [f"column {k}" for k in range(1, len(self.header) + 1)]
                reader = csv.reader(io.StringIO(text, newline=""), **style)
            self.dims = _find_dims(self.header, file, chosen)
            if attributes and not chosen:
                self.dims = [i for i in self.dims if attributes[self.header[i]]]
            others = sorted({*range(len(self.header))} - {*self.dims})
            self._texts: dict[int, list[str]] = {i: [] for i in others}
            self.lines, self._numbers, self._body = list[int](), cast("Any", []), b""
            if not self._parse_plain(content, separator, above + reader.line_num):
                for record in filter(None, reader):  # not a blank line
                    if not (attributes and record[0].startswith("%")):  # a comment
                        self._add(record, above + reader.line_num)
        except csv.Error as error:
            raise SequenceError(f"{file}, line {above + reader.line_num:,}: {error}.") from None
        self.n_rows = len(self.lines)

    def _parse_plain(self, content: bytes, separator: str, above: int) -> bool:
        """Parse the rows below the header at once, which quotes and ragged rows prevent."""
        from toolkit.data.csv_numbers import parse_cells  # noqa: PLC0415  (loads numba)

        body = b"".join(content.split(b"\n", above)[above:])
        special = any(sign in body for sign in self._signs.encode())
        if special or not body or b"\r" in content.replace(b"\r\n", b""):
            return False
        if (found := parse_cells(body, separator, len(self.header), self.dims)) is None:
            return False
        self._body, (self._numbers, self._spans, lines, hard) = body, found
        self.lines = (lines + above).tolist()
        for row, column, begin, end in hard.tolist():
            text = body[begin:end].decode()
            number = self._to_number(text, column, self.lines[row])
            self._numbers[row, self.dims.index(column)] = number
        return True

    def _add(self, record: list[str], line: int) -> None:
        if len(record) != len(self.header):
            raise SequenceError(
                f"{self.file}, line {line:,} has {len(record)} cells and the header "
                f"{len(self.header)}; copy or write the file again."
            )
        self.lines.append(line)
        for position, texts in self._texts.items():
            texts.append(record[position])
        self._numbers.append([self._to_number(record[i], i, line) for i in self.dims])

    def name_row(self, row: int) -> str:
        return f"line {self.lines[row]:,}"

    def read_texts(self, position: int) -> list[str]:
        if self._body:
            spans = self._spans[:, [*self._texts].index(position)].tolist()
            self._texts[position] = [self._body[begin:end].decode() for begin, end in spans]
        texts = map(str.strip, self._texts[position])
        # openSMILE writes names in single quotes.
        return [t[1:-1] if len(t) > 1 and t[0] == t[-1] == "'" else t for t in texts]

    def read_numbers(self) -> NDArray[Any]:
        return np.array(self._numbers)

    def _to_number(self, cell: str, position: int, line: int) -> float:
        if cell.strip() in self._gaps:  # a missing value
            return np.nan
        if _is_number(cell):
            return float(cell)
        # Ids are no number in any line; a later line holds a fault of its own.
        ids = _advise_ids(self.header, position) if line == self.lines[0] else ""
        comma = ", not a comma" * _is_number(cell.replace(",", "."))
        raise SequenceError(
            f"{self.file}, line {line:,}, column {self.header[position]!r}: {cell[:40]!r} is "
            f"no number (with a decimal point{comma}). {ids}Leave a missing value empty, and "
            f"text out of the file or of --frames-columns. {_describe_header(self.header)}"
        )


class _Parquet:
    """A Parquet file of one column per dimension."""

    def __init__(self, file: Path, chosen: str) -> None:
        from pyarrow import ArrowException, parquet, types  # noqa: PLC0415  (an extra)

        self.file = file
        try:
            with parquet.ParquetFile(file) as source:
                schema, self.n_rows = source.schema_arrow, source.metadata.num_rows
                size = (max(self.n_rows, 1), len(schema.names))
                SequenceHeader.of_array(size, np.float64, file.stat().st_size, file)
            # Text stays a dictionary: a few bytes may name it millions of times.
            is_text = types.is_string, types.is_large_string
            texts = [f.name for f in schema if any(is_kind(f.type) for is_kind in is_text)]
            self.table = parquet.read_table(file, read_dictionary=texts)
        except (ArrowException, OSError) as error:
            raise SequenceError(
                f"{file} cannot be read as Parquet: {error}. Copy or write the file again."
            ) from error
        self.header = [str(name).strip() for name in schema.names]
        self.dims, self.lines = _find_dims(self.header, file, chosen), list[int]()

    def name_row(self, row: int) -> str:
        return f"row {row + 1:,}"

    def read_texts(self, position: int) -> list[str]:
        column = self.table.column(position)
        if not hasattr(column.type, "index_type"):
            return ["" if v is None else str(v).strip() for v in column.to_pylist()]
        column = column.unify_dictionaries().combine_chunks()
        texts = [str(text).strip() for text in column.dictionary.to_pylist()]
        return ["" if k is None else texts[k] for k in column.indices.to_pylist()]

    def read_numbers(self) -> NDArray[Any]:
        from pyarrow import types  # noqa: PLC0415  (an extra)

        kinds = []
        for position in self.dims:
            column = self.table.column(position)
            if not (types.is_integer(column.type) or types.is_floating(column.type)):
                raise SequenceError(
                    f"{self.file}, column {self.header[position]!r} is of type "
                    f"{column.type}; expected numbers. {_advise_ids(self.header, position)}"
                    "Leave other columns out of the file or of --frames-columns. "
                    f"{_describe_header(self.header)}"
                )
            gaps = column.null_count and types.is_integer(column.type)
            kinds.append(np.float64 if gaps else column.type.to_pandas_dtype())
        # Column by column: a large table is in memory twice, not four times.
        numbers = np.empty((self.n_rows, len(self.dims)), dtype=np.result_type(*kinds))
        for at, position in enumerate(self.dims):
            numbers[:, at] = self.table.column(position).to_numpy()
        return numbers


def _arrange(source: _Text | _Parquet) -> NumberTable:
    """Find the columns of a table, and read ids, times and numbers."""
    header, dims, file = source.header, source.dims, source.file
    # A chosen column is a dimension, whatever its header.
    own = {*dims}
    words = tuple("" if i in own else w for i, w in enumerate(_join_words(tuple(header))))
    if not source.n_rows:
        raise SequenceError(f"{file} has a header and no row below it; write it again.")
    ids, fault = _find_ids(header, words, file)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(source.read_texts(ids) if ids is not None else ()):
        rows.setdefault(name, []).append(row)
    if "" in rows:
        where = source.name_row(rows[""][0])
        raise SequenceError(f"{file}, {where}: the id in column {header[ids or 0]!r} is empty.")
    numbers = _read_numbers(source, words)
    time = next((words.index(word) for word in _TIMES if word in words), None)
    twice = next(((name, same) for name, same in rows.items() if len(same) > 1), None)
    if twice and time is None:
        name, same = twice
        places = f"{source.name_row(same[0])} and {source.name_row(same[1])}"
        fault = (
            f"{file}: {places} are both of {name!r}. Keep one row per utterance; frames need a "
            f"column of times ({', '.join(_TIMES)})."
        )
    if time is not None:
        _check_times(source, time, rows)
    names = tuple(header[i] for i in dims)
    # Rows of one per id need no time: it may be a feature, as in LIWC.
    doubtful = {*_TIMES, "end"} - (_SPAN if {*words} >= _SPAN else set())
    known = _EXPECTED - (doubtful if len(rows) > 1 and not twice else set())
    # Every table has ids, times or the columns of its layout; a dimension has no word here.
    left_out = tuple(h for h, word in zip(header, words, strict=True) if word not in known)
    timed, lines = twice is not None, np.array(source.lines)
    return NumberTable(file, names, left_out, numbers, rows, timed, fault, lines)


def _lacks_names(header: Sequence[str], chosen: str, file: Path) -> bool:
    """Whether the first row is one of numbers, and columns are chosen by numbers alone."""
    if not _is_number(*header):
        return False
    if [*map(str, range(len(header)))] == [*header] or not re.fullmatch(r"[\d\s,-]+", chosen):
        raise SequenceError(
            f"{file} begins with numbers; its first row must name the columns. Where it is a "
            "row of features, choose columns by number, as in --frames-columns MODALITY=1-."
        )
    return True


def _find_dims(header: Sequence[str], file: Path, chosen: str) -> list[int]:
    """Find the columns of features: the chosen ones, else all but ids, times and roles."""
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise SequenceError(f"{file} has several columns {twice[0]!r}; rename or remove one.")
    if "" in header[1:]:
        raise SequenceError(f"{file}: column {header.index('', 1) + 1} has no name; name it.")
    words = _join_words(tuple(header))
    if chosen:
        dims = _choose_columns(header, chosen, file)
        if "success" in (words[i] for i in dims):
            raise SequenceError(
                f"{file}: --frames-columns: 'success' is no dimension, since it tells missing "
                "frames of OpenFace; rename the column where it does not."
            )
        return dims
    others = {*_OTHERS, *filter(_INDEX.fullmatch, words), *_find_openface(words)}
    # A name of signs alone is one; a first column without a name holds row numbers.
    dims = [i for i, word in enumerate(words) if word not in others or (header[i] and not word)]
    if not dims:
        raise SequenceError(f"{file} has no column of features. {_describe_header(header)}")
    return dims


@lru_cache(maxsize=16)
def _join_words(header: tuple[str, ...]) -> tuple[str, ...]:
    # Kept, since thousands of files have one header.
    return tuple(_UNIT.sub(r"\1", join_words(name)) for name in header)


def _find_openface(words: Collection[str]) -> tuple[str, ...]:
    return _OPENFACE if "success" in words or {*words} >= {"face_id", "confidence"} else ()


def _is_number(*texts: str) -> bool:
    try:
        for text in texts:
            float(text)
    except ValueError:
        return False
    return "_" not in "".join(texts)  # 1_000 is a number to Python


def _find_ids(
    header: Sequence[str], words: Sequence[str], file: Path
) -> tuple[int | None, str]:
    """Find the column of ids; or say why a row cannot be found by its id."""
    for known in _IDS:
        positions = [i for i, word in enumerate(words) if word in known]
        if len(positions) == 1:
            return positions[0], ""
        if positions:
            names = " and ".join(repr(header[i]) for i in positions)
            return None, f"{file}: columns {names} could each hold the ids; keep one."
    return None, (
        f"{file} has no column of utterance ids; expected one called "
        f"{_ID_NAMES}. {_describe_header(header)}"
    )


def _advise_ids(header: Sequence[str], position: int) -> str:
    """Advise to rename a column of text, where no column has a header of ids."""
    if {*map(join_words, header)} & {*_IDS[0], *_IDS[1]}:
        return ""
    return (
        f"If column {header[position]!r} holds utterance ids, call it one of {_ID_NAMES}; no "
        "column has such a header. "
    )


def _read_numbers(source: _Text | _Parquet, words: Sequence[str]) -> NDArray[Any]:
    """Read the numbers; those of OpenFace without a face do not show it and become missing."""
    file, numbers = source.file, source.read_numbers()
    names_faces = _find_openface(_join_words(tuple(source.header))) and "face_id" in words
    if names_faces and len({*source.read_texts(words.index("face_id"))}) > 1:
        raise SequenceError(f"{file} holds several faces (face_id); keep the rows of one.")
    if "success" not in words:
        return numbers
    texts = source.read_texts(words.index("success"))
    success = np.array([float(text) if _is_number(text) else np.nan for text in texts])
    if not np.isin(success, (0, 1)).all():
        raise SequenceError(f"{file}: column 'success' holds something else than 0 and 1.")
    return np.where(success[:, None] == 1, numbers, np.nan)


def _check_times(source: _Text | _Parquet, time: int, rows: Mapping[str, list[int]]) -> None:
    """Refuse frames that are not in the order of their times."""
    texts = source.read_texts(time)
    # Spans such as 0 days 00:00:01.5 are in order as texts.
    times = list(map(float, texts)) if _is_number(*texts) else texts
    for same in rows.values() or [range(len(texts))]:
        for before, after in pairwise(same):
            if not times[before] < times[after]:  # type: ignore[operator]
                raise SequenceError(
                    f"{source.file}, {source.name_row(after)}: time {texts[after]!r} does not "
                    f"come after {texts[before]!r}; sort the frames, each once."
                )


def list_names(names: Iterable[str]) -> str:
    """List the first of some names."""
    names = list(names)
    return ", ".join(repr(name[:80]) for name in names[:5]) + ", ..." * (len(names) > 5)


#: `@attribute NAME TYPE` of ARFF, with quotes around a name that holds white space.
_ATTRIBUTE = re.compile(
    r"@attribute\s+(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([^\s'\"{]+))\s+(\S.*)",
    re.IGNORECASE,
)


def _read_attributes(text: str, file: Path) -> tuple[dict[str, bool], int]:
    """Read the attributes of ARFF, whether each is numeric, and the lines above the data."""
    attributes: dict[str, bool] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip()
        keyword = words.split(None, 1)[0].casefold() if words else ""
        if keyword == "@data":
            return attributes, number
        if not words or words.startswith("%") or keyword == "@relation":
            continue
        match = _ATTRIBUTE.fullmatch(words)
        kind = match[4].casefold() if match else ""
        is_number = kind in {"numeric", "real", "integer"}
        if not match or not (is_number or kind.startswith(("string", "{", "date"))):
            raise SequenceError(
                f"{file}, line {number:,}: {words[:80]!r} is no attribute of type numeric, "
                "string, date or {...}, nor @relation or @data."
            )
        name = re.sub(r"\\(.)", r"\1", match[1] or match[2] or match[3])
        if name in attributes:
            raise SequenceError(f"{file} has several columns {name!r}; rename or remove one.")
        attributes[name] = is_number
    raise SequenceError(f"{file} has no line @data; copy or write the file again.")


def _choose_columns(header: Sequence[str], chosen: str, file: Path) -> list[int]:
    """Find the columns of a choice: numbers from 1, ranges as 2-40 and 2-, and headers."""
    dims: set[int] = set()
    for part in map(str.strip, chosen.split(",")):
        match = re.fullmatch(r"(\d+)(?:(-)(\d*))?", part)
        option = f"{file}: --frames-columns, {part!r}"
        if not match:
            if part not in header:
                near = f"{suggest(part, header)} it has {list_names(header)}."
                raise SequenceError(f"{option} is no column;{near}")
            dims.add(header.index(part))
            continue
        first, last = int(match[1]), int(match[3] or (len(header) if match[2] else match[1]))
        if not 1 <= first <= last <= len(header):
            raise SequenceError(f"{option} is no range of its {len(header):,} columns.")
        if part in header and header.index(part) != first - 1:
            raise SequenceError(f"{option} is a number and a header; write {part}-{part}.")
        dims |= {*range(first - 1, last)}
    return sorted(dims)


def _describe_header(header: Sequence[str]) -> str:
    """Say what the header of a table is, and which known layout is nearest."""
    words = {*_join_words(tuple(header))}
    # The largest part of the words of a layout that the header has.
    near, parts = max(_LAYOUTS.items(), key=lambda item: len(words & {*item[1]}) / len(item[1]))
    lacks = [repr(word) for word in parts if word not in words]
    differs = f"which also has {', '.join(lacks)}" if lacks else "whose columns it has"
    nearest = f"the nearest known layout is {near}, {differs}"
    seen = f"Its {len(header):,} columns are {list_names(header)}"
    return f"{seen}; {nearest if words & {*parts} else 'no known layout is near'}."
