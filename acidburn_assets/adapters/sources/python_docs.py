"""The documentation that every Python brings along: real documents without a download.

Three parts: the language reference (`pydoc_data.topics`), the standard library's docstrings and
those of installed packages. Sources are read, not run; only what the standard library implements
in C is looked at through its modules. A unit is a module.

One document for each documented module, class (its public methods with it) and function. Where
the same text is found under several names, the shortest name keeps it.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import platform
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from acidburn_assets.adapters.sources import docstrings, planned
from acidburn_assets.adapters.sources.docstrings import Definition, Tree
from acidburn_assets.core.datasets import Dataset
from acidburn_assets.core.documents import Document, Problem
from acidburn_assets.core.errors import SourceError
from acidburn_assets.core.shards import Unit

MIN_CHARS = 200
"""A shorter docstring is a caption, not a document. Chosen, not measured."""

TOPICS = "pydoc_data.topics"

# fmt: off
COMPILED = (
    "array", "atexit", "binascii", "builtins", "cmath", "codecs", "collections", "contextvars",
    "csv", "datetime", "decimal", "functools", "gc", "io", "itertools", "marshal", "math",
    "operator", "os", "pickle", "queue", "re", "select", "signal", "socket", "struct", "sys",
    "threading", "time", "types", "unicodedata", "weakref",
)
# fmt: on
"""Modules of the standard library with much in C, and without effects when imported. Only such as
every build of CPython has."""


class PythonDocsSource:
    """Docstrings and language reference of the Python that runs this."""

    def __init__(self, dataset: Dataset) -> None:
        """Reads nothing yet.

        Args:
            dataset: `filters.include` and `filters.packages` say what; neither means everything
                that is installed.
        """
        self._dataset = dataset
        self._include = dataset.filters.include
        self._package_names = dataset.filters.packages
        self._is_all = not self._include and not self._package_names

    def revision(self) -> str:
        """sha256 over the versions of Python and the packages, and every unit's digest."""
        versions = [("python", platform.python_version()), *self._package_versions()]
        return planned.combined_digest(
            [*versions, *((unit.path, unit.digest) for unit in self.units())]
        )

    def units(self) -> list[Unit]:
        """One unit per module with documents."""
        return [
            Unit(
                path=module,
                index=0,
                first_row=documents[0].row,
                n_rows=len(documents),
                n_bytes=sum(len(document.text.encode()) for document in documents),
                digest=planned.documents_digest(documents),
            )
            for module, documents in self._modules.items()
        ]

    def read(self, units: Sequence[Unit]) -> Iterator[Document]:
        """Makes all documents: which name keeps a text is decided over all of them."""
        for unit in units:
            documents = self._modules.get(unit.path)
            if documents is None:
                raise planned.changed(unit, "now gone", dataset=self._dataset.name)
            planned.check_unchanged(
                unit, planned.documents_digest(documents), dataset=self._dataset.name
            )
            for index, document in enumerate(documents[: unit.n_rows]):
                yield document._replace(row=unit.first_row + index)

    def ids(self) -> None:
        """Qualified names are unique by themselves."""
        return

    @cached_property
    def _modules(self) -> Mapping[str, list[Document]]:
        """Module -> its documents; in the order of rows."""
        entries: list[_Entry] = []
        if self._is_all or "topics" in self._include:
            entries += _topics(self._dataset.name)
        if self._is_all or "stdlib" in self._include:
            tree = _standard_library()
            entries += _first_names([*_from_sources(tree), *_from_compiled(tree)])
        for name in self._packages():
            entries += _first_names(_from_sources(Tree({name: self._places(name)})))
        modules: dict[str, list[Document]] = {}
        seen: set[bytes] = set()
        row = 0
        for entry in entries:
            content = hashlib.sha256(entry.body.encode(errors="replace")).digest()
            if entry.problem is None and content in seen:
                continue
            seen.add(content)
            modules.setdefault(entry.module, []).append(entry.document(row))
            row += 1
        return modules

    def _packages(self) -> Sequence[str]:
        if not self._is_all:
            return sorted(self._package_names)
        return [
            name
            for name in sorted(importlib.metadata.packages_distributions())
            if name not in sys.stdlib_module_names
            and docstrings.is_public(name)
            and _source_places(name)
        ]

    def _places(self, name: str) -> Sequence[Path]:
        places = _source_places(name)
        if not places:
            raise SourceError(
                f"dataset {self._dataset.name!r}: no package {name!r} with Python sources is "
                "installed; install it, or remove it from filters.packages in datasets.yaml"
            )
        return places

    def _package_versions(self) -> Iterator[tuple[str, str]]:
        distributions = importlib.metadata.packages_distributions()
        for name in self._packages():
            for distribution in sorted(set(distributions.get(name, ()))):
                yield name, importlib.metadata.version(distribution)


class _Entry(NamedTuple):
    """A document before it has a row."""

    module: str
    doc_id: str
    title: str
    header: str  # the first line
    body: str
    is_alias: bool = False  # the definition calls itself otherwise
    problem: Problem | None = None

    def document(self, row: int) -> Document:
        text = f"{self.header}\n\n{self.body}" if self.header else self.body
        if self.problem is not None or not planned.is_unicode(text):
            return Document(row, self.doc_id, self.title, "", self.problem or "not_utf8")
        return Document(row, self.doc_id, self.title, text)


def _topics(dataset: str) -> Iterator[_Entry]:
    path = Path(sysconfig.get_path("stdlib"), *TOPICS.split(".")).with_suffix(".py")
    if not path.is_file():
        raise SourceError(
            f"dataset {dataset!r}: this Python was installed without {TOPICS}; "
            "remove topics from filters.include in datasets.yaml"
        )
    for node in ast.parse(path.read_bytes()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="topics")], value=value):
                topics: dict[str, str] = ast.literal_eval(value)
                for name, text in sorted(topics.items()):
                    title = f"{name} (language reference)"
                    yield _Entry(TOPICS, f"topics.{name}", title, "", text.strip())


def _standard_library() -> Tree:
    root = Path(sysconfig.get_path("stdlib"))
    packages: dict[str, list[Path]] = {}
    for name in sys.stdlib_module_names:
        places = [root / name, root / f"{name}.py"]
        packages[name] = [place for place in places if place.exists()]
    return Tree(packages)


def _source_places(name: str) -> Sequence[Path]:
    """The folders or the file of an installed top-level package; empty where it has no source."""
    if "." in name:  # to find a submodule would import its parent
        return []
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin is not None and spec.origin.endswith(".py") else []


def _first_names(entries: Sequence[_Entry] | Iterator[_Entry]) -> Sequence[_Entry]:
    """Entries by module and name, each text under its shortest name, the first of equals."""
    kept: dict[str, _Entry] = {}
    for entry in sorted(entries, key=_by_name):
        kept.setdefault(entry.body if entry.problem is None else entry.doc_id, entry)
    return sorted(kept.values(), key=lambda entry: (entry.module, entry.title))


def _by_name(entry: _Entry) -> tuple[int, bool, str]:
    return entry.title.count("."), entry.is_alias, entry.title


def _from_sources(tree: Tree) -> Iterator[_Entry]:
    for name in tree.public_modules():
        module = tree.module(name)
        if module is None:
            continue
        doc_id = f"{name}.__doc__"
        if not module.is_readable:
            yield _Entry(name, doc_id, name, "", "", problem="not_text")
        elif len(module.docstring) >= MIN_CHARS:
            yield _Entry(name, doc_id, name, f"module {name}", module.docstring)
        for export in tree.exports(name):
            definition = tree.resolve(name, export)
            if definition is not None and len(definition.body) >= MIN_CHARS:
                yield _entry(name, export, definition)


def _from_compiled(tree: Tree) -> Iterator[_Entry]:
    for name in COMPILED:
        module = importlib.import_module(name)
        for export in getattr(module, "__all__", dir(module)):
            found = getattr(module, export)
            is_compiled = isinstance(found, types.BuiltinFunctionType | type)
            if is_compiled and not export.startswith("_") and tree.resolve(name, export) is None:
                definition = _describe(found)
                if len(definition.body) >= MIN_CHARS:
                    yield _entry(name, export, definition)


def _entry(module: str, export: str, definition: Definition) -> _Entry:
    title = f"{module}.{export}"
    prefix = "class " if definition.kind == "class" else ""
    return _Entry(
        module,
        doc_id=title,
        title=title,
        header=f"{prefix}{title}{definition.signature}",
        body=definition.body,
        is_alias=definition.name != export,
    )


def _describe(found: Any) -> Definition:
    """A class or function written in C."""
    docs = {"": _docstring(found, found.__name__)}
    if isinstance(found, type):
        for attribute, member in sorted(vars(found).items()):
            if not attribute.startswith("_") and inspect.isroutine(member):
                docs[attribute] = _docstring(member, attribute)
    return docstrings.compiled(found.__name__, docs, is_class=isinstance(found, type))


def _docstring(found: Any, name: str) -> str:
    """With the signature that CPython has taken off."""
    text = found.__doc__
    if not isinstance(text, str):  # None, or the descriptor that a metaclass puts there
        return ""
    signature = getattr(found, "__text_signature__", None)
    return f"{name}{signature}\n--\n\n{text}" if signature else text
