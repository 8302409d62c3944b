"""Arrays in HDF5 files and in the ``.csd`` files of CMU-SDK.

A ``.csd`` file keeps ``<sequence>/data/<id>/features``; the id alone names these. Links are
not followed: one could lead to any file of the machine.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.data.containers import Member, check_array, choose, sign
from toolkit.data.headers import SequenceError, SequenceHeader

_MOST_NAMES = 1000


def read_hdf5(
    h5py: Any, member: Member, path: Path | str, *, numbers: bool
) -> tuple[SequenceHeader, NDArray[Any] | None]:
    """Read one data set of an HDF5 file.

    Parameters
    ----------
    numbers : bool
        Whether to read more than its shape and type.
    """
    sign(member.file)
    try:
        with h5py.File(member.file, "r") as root:
            found = _find(h5py, root, member, path)
            if found.shape is None:
                raise SequenceError(f"{path} is empty; write the file again.")
            if found.external or found.is_virtual:
                raise SequenceError(
                    f"{path} keeps its numbers in other files; copy them into this one."
                )
            stored = found.id.get_storage_size()
            header = check_array(found.shape, found.dtype, stored, path)
            return header, np.asarray(found[...]) if numbers else None
    except (OSError, RuntimeError, KeyError) as error:
        raise SequenceError(
            f"{path} cannot be read as HDF5: {error}. Copy or write the file again."
        ) from error


def _find(h5py: Any, root: Any, member: Member, path: Path | str) -> Any:
    if member.name is None:
        names: list[str] = []
        _list_names(h5py, root, "", names)
        return _walk(h5py, root, choose(names, path), path)
    found = _walk(h5py, root, member.name, path)
    if found is None:
        nested = (_walk(h5py, root, f"{name}/data/{member.name}", path) for name in root)
        found = next((node for node in nested if node is not None), None)
    if found is not None and not isinstance(found, h5py.Dataset):
        found = _walk(h5py, found, "features", path)
    if isinstance(found, h5py.Dataset):
        return found
    names = []
    _list_names(h5py, root, "", names)
    short = [name.split("/")[2] for name in names if _is_of_csd(name)]
    choose(short or names, path)
    raise SequenceError(f"{path} is no data set; name one.")


def _is_of_csd(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 4 and parts[1] == "data" and parts[3] == "features"


def _walk(h5py: Any, node: Any, name: str, path: Path | str) -> Any:
    """Go from group to group; None where a name leads nowhere."""
    for step in name.strip("/").split("/"):
        if not isinstance(node, h5py.Group) or step in {"", ".", ".."}:
            return None
        link = node.get(step, getlink=True) if step in node else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise SequenceError(
                f"{path} is a link, perhaps to another file; copy the array to its place."
            )
        node = node[step]
    return node


def _list_names(h5py: Any, group: Any, above: str, names: list[str]) -> None:
    for name in group:
        if len(names) >= _MOST_NAMES:
            return
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            node = group[name]
            if isinstance(node, h5py.Dataset):
                names.append(f"{above}{name}")
            elif above.count("/") < 8:  # groups may be members of themselves
                _list_names(h5py, node, f"{above}{name}/", names)
