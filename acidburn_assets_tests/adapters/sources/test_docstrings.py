"""What a package offers, read from its sources."""

from pathlib import Path
from textwrap import dedent

import pytest

from acidburn_assets.adapters.sources.docstrings import (
    Tree,
    clean_signature,
    is_public,
    parse,
    split_signature,
)


def tree(folder: Path, **sources: str) -> Tree:
    """A package `pkg`; keys are its modules, `__` for a dot in their path."""
    root = folder / "pkg"
    for name, source in sources.items():
        place = root.joinpath(*name.split("__")).with_suffix(".py")
        if name == "init":
            place = root / "__init__.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(dedent(source))
    return Tree({"pkg": [root]})


def test_public_name_is_followed_to_its_private_definition(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        init="""
            from ._impl import *
            from ._impl import Thing as Renamed
            from .missing import gone
            import os
            from os import path
        """,
        _impl="""
            __all__ = ["Thing"]
            __all__ += ["make"]
            from ._deep import make
            class Thing:
                "A thing."
            def not_exported(): "Hidden."
        """,
        _deep="""
            try:
                from ._compiled import make
            except ImportError:
                def make(a, /, b: int = 1, *, c=None) -> str:
                    "Makes."
        """,
    )
    assert found.public_modules() == ["pkg"]
    assert list(found.exports("pkg")) == ["Renamed", "gone", "Thing", "make"]
    thing, make = found.resolve("pkg", "Renamed"), found.resolve("pkg", "make")
    assert thing is not None
    assert (thing.kind, thing.name, thing.body) == ("class", "Thing", "A thing.")
    assert make is not None
    assert (make.signature, make.body) == ("(a, /, b: int=1, *, c=None) -> str", "Makes.")
    assert found.resolve("pkg", "gone") is None


def test_modules_that_import_each_other_whole_come_to_an_end(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        init="from .a import *",
        a="from .b import *\nfrom .b import x\ndef first(): 'First.'",
        b="from .a import *\nfrom .a import x\ndef second(): 'Second.'",
    )
    assert set(found.exports("pkg")) == {"first", "second"}
    assert found.resolve("pkg.a", "x") is None


def test_class_carries_its_public_methods(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        init='''
            class Box:
                """A box."""
                def __init__(self, size, *, lid=True):
                    """size: in litres."""
                @property
                def volume(self):
                    """In litres."""
                @volume.setter
                def volume(self, value):
                    """In litres."""
                @classmethod
                def empty(cls, n: int): "Without content."
                @staticmethod
                def parse(text): "From text."
                def undocumented(self): pass
                def _private(self): "Hidden."
                @overload
                def get(self, a: int): "Overload."
                def get(self, a): "Gets."
        ''',
    )
    box = found.resolve("pkg", "Box")
    assert box is not None
    assert box.signature == "(size, *, lid=True)"
    assert box.body == (
        "A box.\n\nsize: in litres.\n\nBox.volume\nIn litres.\n\n"
        "Box.empty(n: int)\nWithout content.\n\nBox.parse(text)\nFrom text.\n\nBox.get(a)\nGets."
    )


def test_added_docstrings_belong_to_compiled_objects(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        init="from ._core import array, ndarray\nfrom . import _add",
        _core="from ._compiled import array, ndarray",
        _add='''
            add_newdoc("pkg._core", "array", """
                array(
                    object,
                    dtype=None,
                )
                --

                Makes an array.
                """)
            add_newdoc("pkg._core", "ndarray", "An array.")
            add_newdoc("pkg._core", "ndarray", ("sum", "sum($self, /, axis=None)\\n--\\n\\nAdds."))
            add_newdoc("pkg._core", "ndarray", ("__len__", "Hidden."))
            add_newdoc("pkg._core", computed, "Ignored.")
        ''',
    )
    array, ndarray = found.resolve("pkg", "array"), found.resolve("pkg", "ndarray")
    assert array is not None
    assert ndarray is not None
    assert (array.signature, array.body) == ("(object, dtype=None)", "Makes an array.")
    assert (ndarray.kind, ndarray.body) == (
        "class",
        "An array.\n\nndarray.sum(axis=None)\nAdds.",
    )


@pytest.mark.parametrize("source", ["def broken(:", "x = '\0'", "-" * 100_000 + "1"])
def test_module_that_is_no_python_is_known_as_such(tmp_path: Path, source: str) -> None:
    found = tree(tmp_path, init="from .bad import thing", bad=source)
    module = found.module("pkg.bad")
    assert module is not None
    assert not module.is_readable
    assert found.resolve("pkg", "thing") is None


def test_nothing_is_run(tmp_path: Path) -> None:
    found = tree(tmp_path, init="raise SystemExit('imported')\ndef f(): 'Documented.'")
    assert found.resolve("pkg", "f") is not None


@pytest.mark.parametrize(
    ("source", "exports"),
    [
        ("__all__ = ['a', 'b']", ["a", "b"]),
        ("__all__ = ('a',) + ('b',)\n__all__.append('c')\n__all__.extend(['d'])", list("abcd")),
        ("__all__ = ['a']\n__all__ += other.__all__", None),
        ("__all__ = sorted(names)\n__all__ += ['a']", None),
        ("a = 1", None),
    ],
)
def test_exports_are_read_where_they_are_literal(source: str, exports: list[str] | None) -> None:
    assert parse(source.encode(), name="m", is_package=False).exports == exports


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("json.decoder", True),
        ("numpy._core.numeric", False),
        ("numpy.ma.tests.test_core", False),
        ("idlelib.run", False),
    ],
)
def test_private_and_test_modules_are_not_public(name: str, expected: bool) -> None:
    assert is_public(name) == expected


@pytest.mark.parametrize(
    ("docstring", "signature", "text"),
    [
        ("comb($module, n, k, /)\n--\n\nWays.", "(n, k, /)", "Ways."),
        ("comb(n)\n--\n\ncomb(n) -> int\n\nWays.", "", "comb(n) -> int\n\nWays."),
        ("Plain text -- with dashes.", "", "Plain text -- with dashes."),
    ],
)
def test_signature_of_a_compiled_object_is_taken_off(
    docstring: str, signature: str, text: str
) -> None:
    assert split_signature(docstring, "comb") == (signature, text)


def test_signature_reads_as_a_person_would_write_it() -> None:
    assert clean_signature("($self, /, n=<unrepresentable>)") == "(n=...)"
    assert clean_signature("($self)") == "()"
