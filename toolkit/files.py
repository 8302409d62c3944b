"""Write files whole or not at all, lock folders, format plain tables and hash content."""

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo
from zipfile import Path as ZipPath

import numpy as np
import xxhash
from filelock import FileLock, Timeout
from numpy.typing import NDArray

#: Beside the files it is about: their names and SHA-256.
CHECKSUMS = "checksums.json"

#: Folder inside a result folder for files that only the program reads.
INTERNAL = "internal"

#: Folder of results, in the current folder.
OUTPUTS = Path("outputs")

_PATIENCE = 0.5

# What runs begins with an equals sign, or with another sign and calls or refers to something.
# Marks that were there before are counted in, so that taking one away gives the name again.
_FORMULA = re.compile(r"'*(=|[+\-@].*[(|!])", re.DOTALL)


#: A file or folder on the disk, or one inside an archive.
AnyPath = Path | ZipPath


class FolderError(ValueError):
    """An output folder that cannot be used as asked."""


def cache_folder() -> Path:
    """Name the folder that studies share for features and the generated corpus."""
    return Path(os.environ.get("TOOLKIT_CACHE") or OUTPUTS / ".cache")


def refuse_links(root: Path, path: Path) -> None:
    """Refuse to write or delete below a folder where a symbolic link would lead elsewhere."""
    for part in (path, *path.parents):
        if part == root:
            return
        if part.is_symlink():
            raise FolderError(
                f"{part} is a symbolic link: nothing is written or deleted through the "
                "links of a study's folder. Put the file or folder itself there."
            )


def explain_trouble(error: OSError) -> str:
    """Describe a refusal of the operating system, with advice where there is some."""
    advice = {
        errno.ENOSPC: "Free some space",
        getattr(errno, "EDQUOT", errno.ENOSPC): "Free some space",
        errno.EIO: "The disk fails: copy the folder to another one",
        errno.EROFS: "Make the disk writable, or choose another folder with --out",
        errno.EACCES: "Change the permissions, or choose another folder with --out",
        errno.EPERM: "Change the permissions, or choose another folder with --out",
        errno.EMFILE: "Allow more open files (ulimit -n)",
        errno.ENOMEM: "Free some memory, or use fewer --workers",
    }.get(error.errno or 0)
    if advice is None:
        return str(error)
    return f"{error}. {advice} and run the same command again: what was finished is kept."


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary file that takes the place of `path` if the block succeeds.

    A crash leaves the old content or the new, never a part. The folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, and its folder if missing, whole or not at all."""
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder of files, whole or not at all, in place of one that is there already.

    `write` fills the folder that it is given: one beside the final one, renamed into place with
    checksums, so a folder that can be seen is complete.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    _write_checked(temporary, write)
    for path in temporary.iterdir():
        _sync(path)
    _sync(temporary)
    if folder.exists():
        _keep_unknown(folder, temporary)
        shutil.rmtree(folder)
    temporary.rename(folder)
    _sync(folder.parent)


def _write_checked(temporary: Path, write: Callable[[Path], None]) -> None:
    """Write files and their checksums into a new folder, in place of one of a killed run."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    write_text(temporary / CHECKSUMS, format_json(hash_folder(temporary)))


def write_archive(path: Path, write: Callable[[Path], None]) -> None:
    """Write files with their checksums into one uncompressed ZIP archive, whole or not at all.

    `write` fills the folder that it is given. An archive that is there already is replaced. Its
    bytes depend on the files alone: all members have the same date and mode.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        _write_checked(temporary, write)
        with (
            replace_file(path) as packed,
            packed.open("wb") as opened,  # given a path, ZipFile tries again where a disk fails
            ZipFile(opened, "w") as archive,
        ):
            for file in sorted(temporary.iterdir()):
                archive.writestr(ZipInfo(file.name), file.read_bytes())
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(path.parent)


def read_archive(path: Path, *names: str) -> dict[str, bytes]:
    """Read files of an archive of :func:`write_archive`, or all of them; nothing is unpacked.

    A crafted archive is refused: its members are plain names, each once, uncompressed and
    together no larger than the file.
    """
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
            known = [entry.filename for entry in entries]
            if (
                len({*known}) == len(known)
                and all(re.fullmatch(r"\w[\w.-]*", name) for name in known)
                and all(entry.compress_type == ZIP_STORED for entry in entries)
                and sum(entry.file_size for entry in entries) <= path.stat().st_size
            ):
                return {name: archive.read(name) for name in names or known}
    except (BadZipFile, KeyError, RuntimeError, EOFError, ValueError, OverflowError) as error:
        raise FolderError(f"{path} is damaged ({error}).") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a negative place inside the file
            raise
        raise FolderError(f"{path} is damaged ({error}).") from None
    raise FolderError(f"{path} is no archive of finished work.")


@contextmanager
def open_archive(path: Path) -> Iterator[ZipPath]:
    """Give an archive of :func:`write_archive` as a folder, without unpacking it."""
    read_archive(path)  # refuses a damaged or a crafted one
    with ZipFile(path) as archive:
        yield ZipPath(archive)


def _keep_unknown(folder: Path, successor: Path) -> None:
    """Move what is no file of a finished folder, such as a notebook's checkpoints."""
    for path in folder.iterdir():
        if _is_unknown(path) and not os.path.lexists(successor / path.name):
            path.rename(successor / path.name)


def _is_unknown(path: AnyPath) -> bool:
    """Check for a name that no finished folder has: a hidden file, or a folder."""
    linked = isinstance(path, Path) and path.is_symlink()
    return path.name.startswith(".") or (path.is_dir() and not linked)


def _sync(path: Path) -> None:
    """Have the operating system write a file, or a folder's entries, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders, and needs not
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file with LF line ends, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def format_json(content: Any) -> str:
    """Format plain data as indented JSON with sorted keys: equal content is equal text."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def format_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table as CSV with LF line ends, None as an empty cell and formulas escaped."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow(
            [escape_formula(cell) if isinstance(cell, str) else cell for cell in row]
        )
    return text.getvalue()


def format_records(kind: type[Any], records: Iterable[Any]) -> str:
    """Write dataclass instances as CSV, one column per field."""
    names = [field.name for field in fields(kind)]
    # Not astuple, which copies every value: it takes seconds for the scores of a study.
    return format_csv(names, map(attrgetter(*names), records))


def parse_records(kind: type[Any], text: str) -> list[Any]:
    """Read the text of :func:`format_records` back; columns of no field are left out."""

    def read(cell: str, hint: Any) -> Any:
        if hint is str:
            return unescape_formula(cell)
        number = int if int in {hint, *get_args(hint)} else float
        return number(cell) if cell else None

    hints = get_type_hints(kind)
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [
        kind(**{name: read(row[name], hint) for name, hint in hints.items()}) for row in rows
    ]


def hash_file(path: AnyPath) -> str:
    """Hash a file with SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(cast("io.BufferedReader", file), "sha256").hexdigest()


def checksum(*parts: Any) -> str:
    """Hash bytes, contiguous arrays or files with 128-bit XXH3: against damage, not forgery.

    A path stands for its file, which is read a megabyte at a time.
    """
    state = xxhash.xxh3_128()
    for part in parts:
        if not isinstance(part, Path):
            state.update(part)
            continue
        with part.open("rb", buffering=0) as file:
            while chunk := file.read(1 << 20):
                state.update(chunk)
    return state.hexdigest()


def hash_folder(folder: AnyPath) -> dict[str, str]:
    """Hash the files of a folder by name, but for hidden ones and that of their checksums."""
    paths: list[AnyPath] = sorted([*folder.iterdir()], key=attrgetter("name"))
    named = [path for path in paths if not _is_unknown(path) and path.name != CHECKSUMS]
    return {path.name: hash_file(path) for path in named}


def read_checksums(folder: AnyPath) -> dict[str, str]:
    """Read the checksums by file name that :func:`write_folder` wrote."""
    sums = read_json(folder / CHECKSUMS)
    if not isinstance(sums, dict) or not all(isinstance(value, str) for value in sums.values()):
        raise ValueError(f"{folder / CHECKSUMS} holds no checksums.")
    return sums


def read_json(path: AnyPath) -> Any:
    """Read a JSON file; one that is damaged or nested too deeply is refused by name."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise FolderError(f"{path} is nested too deeply to be read.") from None
    except ValueError as error:
        raise FolderError(f"{path} is damaged ({error}).") from None


def format_array(array: NDArray[Any]) -> bytes:
    """Write one array as the bytes of a ``.npy`` file."""
    with io.BytesIO() as file:
        np.save(file, array, allow_pickle=False)
        return file.getvalue()


def read_array(path: AnyPath) -> NDArray[Any]:
    """Read an array of plain numbers; the file has as many as its header announces."""
    # A map is refused if the file is shorter: reading would allocate what a header claims.
    try:
        if isinstance(path, Path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, OverflowError, MemoryError) as error:
        raise FolderError(f"{path} cannot be read as an array: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise FolderError(f"{path} holds no numbers.")
    return np.array(array)


def free_name(path: Path) -> Path:
    """Find the first free name for a path to be set aside: its own with a number from 1."""
    return next(
        aside
        for number in count(1)
        if not (aside := path.with_name(f"{path.name}.{number}")).exists()
    )


@contextmanager
def lock_folder(folder: Path, *, wait: float = 0) -> Iterator[None]:
    """Keep a study's folder to this process, waiting up to `wait` seconds for it.

    The lock is the operating system's, so it ends with its process even if that is killed.
    """
    path = folder / INTERNAL / ".lock"
    owner = path.with_name(".lock-owner")
    for file in (path, owner):
        refuse_links(folder, file)
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        # An owner that was killed may be on its way out: a moment decides that.
        lock.acquire(timeout=max(wait, _PATIENCE))
    except Timeout:
        who = owner.read_text(encoding="utf-8").strip() if owner.exists() else ""
        raise FolderError(
            f"Another run is working in {folder} (process {who or 'unknown'}). Wait for it, or "
            "choose another folder with --out."
        ) from None
    try:
        owner.write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def escape_formula(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run."""
    return "'" + cell if _FORMULA.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """Remove the apostrophe of :func:`escape_formula`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
