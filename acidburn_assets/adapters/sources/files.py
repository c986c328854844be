"""Finding the files of a dataset on this machine; their names are relative to its root."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.errors import SourceError


def place(dataset: Dataset) -> Path:
    """A dataset's path on this machine: relative to the current folder, or to `~`."""
    return Path(dataset.path).expanduser().absolute()


def root(dataset: Dataset) -> Path:
    """The folder that the paths of units are relative to.

    A folder is its own root, a file's root is the folder it is in, a glob's root is what stands
    before its first wildcard.
    """
    path = place(dataset)
    if path.is_dir():
        return path
    if not _is_glob(path):
        return path.parent
    return next(parent for parent in path.parents if not glob.has_magic(str(parent)))


def find(dataset: Dataset, *, suffixes: tuple[str, ...]) -> list[str]:
    """Files of a dataset whose path is a file, a folder or a glob (`**` crosses folders).

    Args:
        dataset: its path is looked at.
        suffixes: file types that are taken from a folder and its subfolders; a file or a glob
            must name only such. Hidden files are never taken.

    Returns:
        Paths relative to `root`, with `/`, sorted.

    Raises:
        SourceError: there is no file, or one of another type.
    """
    path = place(dataset)
    base = root(dataset)
    kinds = " or ".join(suffixes)
    if path.is_dir():
        found = {name for name in walk(path, dataset=dataset.name) if name.endswith(suffixes)}
    else:
        pattern = str(path.relative_to(base)) if _is_glob(path) else glob.escape(path.name)
        matches = glob.iglob(pattern, root_dir=base, recursive=True)
        found = {Path(match).as_posix() for match in matches if (base / match).is_file()}
    if not found:
        raise SourceError(
            f"dataset {dataset.name!r}: no {kinds} file at {dataset.path!r}; "
            "correct its path in datasets.yaml"
        )
    for name in found:
        check_name(name, dataset=dataset.name)
        if not name.endswith(suffixes):
            raise SourceError(
                f"dataset {dataset.name!r}: {name!r} is not a {kinds} file; "
                "narrow its path in datasets.yaml"
            )
    return sorted(found)


def walk(folder: Path, *, dataset: str, follow_links: bool = True) -> Iterator[str]:
    """Files of a folder and its subfolders, hidden ones excepted, in no order.

    Args:
        folder: where to begin.
        dataset: name, for the error.
        follow_links: take files that are symbolic links; linked folders are never entered.

    Raises:
        SourceError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise SourceError(
            f"dataset {dataset!r}: the folder {str(error.filename)!r} cannot be listed: "
            f"{error.strerror}"
        ) from error

    for inside, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(inside, name)
            is_taken = path.is_file() and (follow_links or not path.is_symlink())
            if is_taken and not name.startswith("."):
                yield path.relative_to(folder).as_posix()


def check_name(name: str, *, dataset: str) -> None:
    """Refuses a file name that no plan could hold.

    Raises:
        SourceError: its bytes are not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"dataset {dataset!r}: the file name {name!a} is not UTF-8; rename the file"
        ) from error


def _is_glob(path: Path) -> bool:
    # a file may be named `[x].parquet`: what exists is meant literally
    return glob.has_magic(str(path)) and not path.exists()
