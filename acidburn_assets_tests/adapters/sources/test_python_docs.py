import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acidburn_assets.adapters.sources import Source, open_source, python_docs
from acidburn_assets.core.documents import Document
from acidburn_assets.core.errors import SourceChanged, SourceError
from acidburn_assets_tests.adapters.sources.declared import declare

LONG = "Words that fill a docstring until it is a document of its own. " * 5


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Source]:
    def open_docs(**filters: Any) -> Source:
        return open_source(declare("python_docs", filters=filters), cache=tmp_path / "cache")

    return open_docs


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package `acidburn_sample`."""
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    root = tmp_path / "lib" / "acidburn_sample"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("")
    return root


def read(source: Source) -> dict[str, Document]:
    return {document.doc_id: document for document in source.read(source.units())}


def test_standard_library_reads_well(opened: Any) -> None:
    found = read(opened(include=("stdlib",)))
    assert len(found) > 800
    decoder = found["json.JSONDecoder"].text
    assert decoder.startswith("class json.JSONDecoder(*, object_hook=None, ")
    assert "\n\nSimple JSON <https://json.org> decoder\n" in decoder
    assert "\n\nJSONDecoder.raw_decode(s, idx=0)\nDecode a JSON document from" in decoder
    assert found["json.__doc__"].text.startswith("module json\n\nJSON (JavaScript Object Notation)")
    assert found["math.comb"].text.startswith("math.comb(n, k, /)\n\nNumber of ways to choose")
    assert "str.removeprefix(prefix, /)\nReturn a str" in found["builtins.str"].text
    assert "collections.abc.Mapping" in found  # defined in a private module
    assert "json.decoder.JSONDecoder" not in found  # the same text under a longer name
    assert "test.support" not in found
    for document in found.values():
        assert document.problem is None
        assert "Alias for field number" not in document.text
        assert "$self" not in document.text
        assert len(document.text) >= python_docs.MIN_CHARS
    bodies = [document.text.partition("\n\n")[2] for document in found.values()]
    assert len(set(bodies)) == len(bodies)


def test_language_reference_reads_well(opened: Any) -> None:
    source = opened(include=("topics",))
    assert [unit.path for unit in source.units()] == ["pydoc_data.topics"]
    found = read(source)
    assert found["topics.with"].title == "with (language reference)"
    assert found["topics.with"].text.startswith('The "with" statement\n*****')
    assert len(found) > 60


def test_numpy_is_read_through_its_private_modules(opened: Any) -> None:
    is_imported_by = {name for name in sys.modules if name.startswith("numpy.")}
    found = read(opened(packages=("numpy",)))
    assert {name for name in sys.modules if name.startswith("numpy.")} == is_imported_by
    assert found["numpy.mean"].text.startswith("numpy.mean(a, axis=None, ")
    assert "Create an array." in found["numpy.array"].text
    assert "\nndarray.T\nView of the transposed array." in found["numpy.ndarray"].text
    assert "numpy.linalg.norm" in found


def test_same_text_is_kept_under_its_shortest_name(opened: Any, package: Path) -> None:
    (package / "__init__.py").write_text("from .deep import walk, Walker as AWalker")
    (package / "deep.py").write_text(
        f"def walk(path):\n    '''{LONG}'''\n"
        f"class Walker:\n    '''Walks. {LONG}'''\n"
        f"def zig():\n    '''Twice. {LONG}'''\ndef zag():\n    '''Twice. {LONG}'''\n"
        "def short():\n    '''Too short.'''\n"
    )
    found = read(opened(packages=("acidburn_sample",)))
    assert list(found) == [
        "acidburn_sample.AWalker",
        "acidburn_sample.walk",
        "acidburn_sample.deep.zag",
    ]
    assert found["acidburn_sample.walk"].text == f"acidburn_sample.walk(path)\n\n{LONG.strip()}"


def test_module_that_cannot_be_read_is_reported(opened: Any, package: Path) -> None:
    (package / "old.py").write_text("print 'Python 2'\n")
    (package / "odd.py").write_text(f"def odd():\n    '''\\ud800 {LONG}'''\n")
    assert list(read(opened(packages=("acidburn_sample",))).values()) == [
        Document(0, "acidburn_sample.odd.odd", "acidburn_sample.odd.odd", "", "not_utf8"),
        Document(1, "acidburn_sample.old.__doc__", "acidburn_sample.old", "", "not_text"),
    ]


def test_single_module_is_a_package_too(opened: Any, package: Path) -> None:
    package.with_name("acidburn_single.py").write_text(f"'''{LONG}'''\n")
    assert list(read(opened(packages=("acidburn_single",)))) == ["acidburn_single.__doc__"]


@pytest.mark.parametrize("name", ["acidburn_absent", "os.path", "_struct"])
def test_package_without_sources_is_named(opened: Any, name: str) -> None:
    with pytest.raises(SourceError, match=f"no package '{name}' with Python sources"):
        opened(packages=(name,)).units()


def test_changed_docstring_is_refused(opened: Any, package: Path) -> None:
    (package / "a.py").write_text(f"'''First. {LONG}'''\n")
    (package / "b.py").write_text(f"'''Second. {LONG}'''\n")
    names = ("acidburn_sample",)
    units = opened(packages=names).units()
    before = opened(packages=names).revision()
    (package / "b.py").write_text(f"'''Changed. {LONG}'''\n")
    reading = opened(packages=names).read(units)
    assert next(reading).title == "acidburn_sample.a"
    with pytest.raises(SourceChanged, match=r"'acidburn_sample.b'"):
        next(reading)
    assert opened(packages=names).revision() != before
    (package / "b.py").unlink()
    with pytest.raises(SourceChanged, match="now gone"):
        list(opened(packages=names).read(units))


def test_digest_of_a_module_does_not_move_with_what_stands_before_it(
    opened: Any, package: Path
) -> None:
    (package / "b.py").write_text(f"'''Second. {LONG}'''\n")
    planned = opened(packages=("acidburn_sample",)).units()
    (package / "a.py").write_text(f"'''First. {LONG}'''\n")
    (document,) = opened(packages=("acidburn_sample",)).read(planned)
    assert (document.row, document.title) == (0, "acidburn_sample.b")
