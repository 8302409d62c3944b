"""The cells of a CSV text without quotes, in one compiled pass; importing this loads numba."""

from functools import partial

import numpy as np

from toolkit.jit import Array, jit, jit_cached

#: Up to here, integers and powers of ten are doubles, and one division or product rounds once.
_LARGEST, _MOST_TENS = 1 << 53, 22
_TENS = 10.0 ** np.arange(_MOST_TENS + 1)
_NEWLINE, _RETURN, _SPACE, _TAB, _PLUS, _MINUS, _POINT = 10, 13, 32, 9, 43, 45, 46
_BIG_E, _SMALL_E = 69, 101


@partial(jit, contract=False)
def _parse_number(text: Array, begin: int, end: int, tens: Array) -> tuple[bool, float]:
    """Parse a plain decimal number that one rounding gives; else say that it is none."""
    k = begin
    negative = k < end and text[k] == _MINUS
    if negative or (k < end and text[k] == _PLUS):
        k += 1
    mantissa, power, n_digits, has_point = 0, 0, 0, 0
    while k < end and mantissa <= _LARGEST:
        digit = int(text[k]) - 48
        if 0 <= digit <= 9:
            mantissa = 10 * mantissa + digit
            n_digits += 1
            power -= has_point
        elif text[k] == _POINT and not has_point:
            has_point = 1
        else:
            break
        k += 1
    if n_digits and k + 1 < end and (text[k] == _BIG_E or text[k] == _SMALL_E):
        k += 1
        sign = -1 if text[k] == _MINUS else 1
        first = k + 1 if text[k] == _MINUS or text[k] == _PLUS else k
        exponent, k = 0, first
        while k < end and 48 <= text[k] <= 57 and exponent < 1000:
            exponent = 10 * exponent + int(text[k]) - 48
            k += 1
        power += sign * exponent
        n_digits = k - first
    if n_digits == 0 or k < end or mantissa > _LARGEST or abs(power) > _MOST_TENS:
        return False, 0.0
    number = float(mantissa)
    number = number / tens[-power] if power < 0 else number * tens[power]
    return True, -number if negative else number


@jit
def _find_cell(text: Array, begin: int, separator: int) -> tuple[int, int, int, bool]:
    """Find the cell that starts at a place: its text, its end, and whether it ends a row."""
    at, size = begin, len(text)
    while at < size and text[at] != separator and text[at] != _NEWLINE:
        at += 1
    is_last = at == size or text[at] == _NEWLINE
    end = at
    while begin < end and (text[begin] == _SPACE or text[begin] == _TAB):
        begin += 1
    while begin < end and (
        text[end - 1] == _SPACE
        or text[end - 1] == _TAB
        or (text[end - 1] == _RETURN and is_last)
    ):
        end -= 1
    return begin, end, at, is_last


@partial(jit_cached, contract=False)
def _parse_rows(  # noqa: PLR0917
    text: Array,
    separator: int,
    is_dim: Array,
    tens: Array,
    numbers: Array,
    spans: Array,
    lines: Array,
    hard: Array,
) -> tuple[int, int]:
    """Parse the numbers of the columns of dimensions, and find the other cells.

    Gives the number of rows, -1 where one is ragged, and that of cells that are not plain.
    """
    at, row, n_hard, line, size = 0, 0, 0, 0, len(text)
    while at < size:
        line += 1
        is_blank = text[at] == _RETURN and at + 1 < size and text[at + 1] == _NEWLINE
        if is_blank or text[at] == _NEWLINE:
            at += 1 + is_blank
            continue
        if row == len(lines):
            return -1, 0
        lines[row] = line
        dim, other = 0, 0
        for column in range(len(is_dim)):
            begin, end, at, is_last = _find_cell(text, at, separator)
            at += 1
            if is_last != (column == len(is_dim) - 1):
                return -1, 0
            if not is_dim[column]:
                spans[row, other, 0], spans[row, other, 1] = begin, end
                other += 1
                continue
            plain, number = _parse_number(text, begin, end, tens)
            numbers[row, dim] = number if plain else np.nan  # also of an empty cell
            if begin < end and not plain:
                hard[n_hard, 0], hard[n_hard, 1] = row, column
                hard[n_hard, 2], hard[n_hard, 3] = begin, end
                n_hard += 1
            dim += 1
        row += 1
    return row, n_hard


def parse_cells(
    body: bytes, separator: str, n_columns: int, dims: list[int]
) -> tuple[Array, Array, Array, Array] | None:
    """Parse the numbers of the body of a CSV file, and find its other cells.

    Gives the numbers; begin and end of each other cell; the line of each row, counted from 1;
    and row, column, begin and end of cells that are not plain decimal numbers. It is None where
    the body needs another reader, as with rows of different length.
    """
    is_dim = np.zeros(n_columns, np.bool_)
    is_dim[dims] = True
    # A row has a byte per cell at least, so nothing here is larger than the file allows.
    most = min(body.count(b"\n") + 1, len(body) // n_columns + 1)
    numbers = np.empty((most, len(dims)))
    spans = np.empty((most, n_columns - len(dims), 2), np.int64)
    lines = np.empty(most, np.int64)
    hard = np.empty((most * len(dims), 4), np.int64)
    text, found = np.frombuffer(body, np.uint8), (numbers, spans, lines, hard)
    n, n_hard = _parse_rows(text, ord(separator), is_dim, _TENS, *found)
    return None if n < 0 else (numbers[:n], spans[:n], lines[:n], hard[:n_hard])
