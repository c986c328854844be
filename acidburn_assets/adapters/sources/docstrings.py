"""Docstrings of Python packages, read from their sources without importing or running them.

Here belongs finding what a package offers: its public modules, and the classes and functions that
each exports, followed through the private modules that define them. How they become documents is
`python_docs`' business.
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, NamedTuple

SKIPPED = frozenset(
    {"antigravity", "conftest", "distutils", "idlelib", "lib2to3", "pydoc_data", "site-packages"}
    | {"test", "tests", "this", "turtledemo", "vendor", "vendored"}
)
"""Parts of a dotted name that make it nobody's reading. A leading underscore does too."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

_NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What the parser says: ValueError of a NUL, the last two of an expression nested too deeply."""


class Definition(NamedTuple):
    """A class or function."""

    kind: Literal["class", "function"]
    name: str
    signature: str  # "(a, b=1) -> int"; "" where none is known
    body: str  # its docstring, a class's public methods after it; "" where nothing is documented


class Module(NamedTuple):
    """What a module's source says."""

    name: str
    is_package: bool
    docstring: str
    definitions: Mapping[str, Definition]
    imports: Mapping[str, tuple[str, str]]  # name here -> (module, name there)
    stars: Sequence[str]  # modules whose exports are imported whole
    exports: Sequence[str] | None  # `__all__`; None where there is none that can be read
    is_readable: bool = True  # False: no Python of this version, and all else is empty


class Tree:
    """Packages that are read together: names are followed inside it, never out of it."""

    def __init__(self, packages: Mapping[str, Sequence[Path]]) -> None:
        """Reads nothing yet.

        Args:
            packages: top-level name -> its file, or the folders that hold its modules.
        """
        self._packages = packages
        self.module = cache(self._read_module)
        self._exports = cache(self._find_exports)

    def public_modules(self) -> list[str]:
        """Dotted names of all modules that are neither private nor skipped, sorted."""
        names: set[str] = set()
        for package, places in self._packages.items():
            for place in places:
                if place.is_file():
                    names.add(package)
                    continue
                for path in place.rglob("*.py"):
                    names.add(".".join((package, *_module_parts(path.relative_to(place)))))
        return sorted(filter(is_public, names))

    def file(self, name: str) -> Path | None:
        """Where a module's source is; None for a compiled one, a foreign one, or none at all."""
        package, *parts = name.split(".")
        for place in self._packages.get(package, ()):
            if place.is_file():
                candidates = [place] if not parts else []
            else:
                base = place.joinpath(*parts)
                candidates = [base / "__init__.py"]
                if parts:
                    candidates.append(base.with_name(f"{base.name}.py"))
            for path in candidates:
                if path.is_file():
                    return path
        return None

    def exports(self, name: str) -> Sequence[str]:
        """Public names of a module: its `__all__`, else what it defines, and for a package also
        what it imports from itself."""
        return [export for export in self._exports(name) if not export.startswith("_")]

    def resolve(self, module: str, name: str) -> Definition | None:
        """The definition behind a name; None where it is none, or is compiled."""
        return self._resolve(module, name, frozenset())

    def _resolve(
        self, module: str, name: str, seen: frozenset[tuple[str, str]]
    ) -> Definition | None:
        if (module, name) in seen:
            return None
        seen |= {(module, name)}
        source = self.module(module)
        if source is None:
            return None
        own = source.definitions.get(name) or self._added.get((module, name))
        if own is not None:
            return own
        if name in source.imports:
            found = self._resolve(*source.imports[name], seen)
            if found is not None:
                return found
        for star in source.stars:
            if name in self._exports(star):
                found = self._resolve(star, name, seen)
                if found is not None:
                    return found
        return None

    def _find_exports(self, name: str) -> Sequence[str]:
        return self._collect_exports(name, frozenset())

    def _collect_exports(self, name: str, seen: frozenset[str]) -> Sequence[str]:
        source = self.module(name)
        if source is None or name in seen:
            return []
        if source.exports is not None:
            return source.exports
        names = dict.fromkeys(source.definitions)
        if source.is_package:
            top = name.partition(".")[0]
            names |= dict.fromkeys(
                here for here, (there, _) in source.imports.items() if _is_in(there, top)
            )
        for star in source.stars:
            names |= dict.fromkeys(self._collect_exports(star, seen | {name}))
        return [export for export in names if not export.startswith("_")]

    def _read_module(self, name: str) -> Module | None:
        path = self.file(name)
        if path is None:
            return None
        is_package = path.name == "__init__.py"
        try:
            return parse(path.read_bytes(), name=name, is_package=is_package)
        except _NO_PYTHON:
            return Module(name, is_package, "", {}, {}, (), (), is_readable=False)

    @cached_property
    def _added(self) -> Mapping[tuple[str, str], Definition]:
        """What `add_newdoc` calls say of compiled objects, NumPy's arrays among them."""
        added: dict[tuple[str, str], Definition] = {}
        for package in sorted(set(self._packages) - SKIPPED):
            for place in self._packages[package]:
                for path in sorted(place.rglob("*.py")):
                    if not SKIPPED.intersection(path.relative_to(place).parts):
                        added |= _added_docstrings(path.read_bytes())
        return added


def is_public(name: str) -> bool:
    """False for private, test and vendored modules."""
    parts = name.split(".")
    return not any(part.startswith("_") or part in SKIPPED for part in parts)


def parse(source: bytes, *, name: str, is_package: bool) -> Module:
    """Reads one module; the syntax tree, many times as large as what is kept, is dropped.

    Args:
        source: the file's bytes.
        name: dotted.
        is_package: it is an `__init__.py`.

    Raises:
        SyntaxError: it is no Python of this version, or not in the encoding that it declares.
    """
    tree = _syntax_tree(source)
    definitions: dict[str, Definition] = {}
    imports: dict[str, tuple[str, str]] = {}
    stars: list[str] = []
    exports = _Exports()
    for node in _statements(tree.body):
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            if not _is_overload(node):
                definition = _define(node)
                if definition.body or node.name not in definitions:
                    definitions[node.name] = definition
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, name=name, is_package=is_package)
            for alias in node.names:
                if alias.name == "*":
                    stars.append(origin)
                else:
                    imports[alias.asname or alias.name] = (origin, alias.name)
        else:
            exports.see(node)
    return Module(
        name=name,
        is_package=is_package,
        docstring=_docstring(tree),
        definitions=definitions,
        imports=imports,
        stars=stars,
        exports=exports.names,
    )


def _syntax_tree(source: bytes) -> ast.Module:
    with warnings.catch_warnings():
        # for the ears of a package's own authors: invalid escapes, `is` with a literal
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return ast.parse(source)


def _module_parts(path: Path) -> tuple[str, ...]:
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported, those inside if and try included."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _statements([*node.body, *handlers, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from _statements(node.body)
        else:
            yield node


def _origin(node: ast.ImportFrom, *, name: str, is_package: bool) -> str:
    """The module that a `from … import` names, made absolute."""
    if node.level == 0:
        return node.module or ""
    parts = name.split(".")
    base = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*base, *([node.module] if node.module else [])])


class _Exports:
    """`__all__` as its literal parts say; given up where it is computed."""

    def __init__(self) -> None:
        self.names: list[str] | None = None
        self._is_computed = False

    def see(self, node: ast.stmt) -> None:
        """Follows an assignment, `+=`, `.extend([…])` or `.append(…)`."""
        value: ast.expr | None = None
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")])
                | ast.AugAssign(target=ast.Name(id="__all__"))
                | ast.AnnAssign(target=ast.Name(id="__all__"))
            ):
                value = node.value
            case ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name(id="__all__"), attr=attr), args=[argument]
                )
            ):
                value = ast.List([argument]) if attr == "append" else argument
            case _:
                return
        names = _strings(value)
        if names is None:
            self._is_computed = True
        if self._is_computed:
            self.names = None
        else:
            self.names = [*(self.names or []), *(names or [])]


def _strings(node: ast.expr | None) -> list[str] | None:
    match node:
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            names = [e.value for e in elements if isinstance(e, ast.Constant)]
            texts = [name for name in names if isinstance(name, str)]
            return texts if len(texts) == len(elements) else None
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = _strings(left), _strings(right)
            return [*first, *second] if first is not None and second is not None else None
    return None


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(mark).endswith("overload") for mark in node.decorator_list)


def _define(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Definition:
    if not isinstance(node, ast.ClassDef):
        signature, text = split_signature(_docstring(node), node.name)
        return Definition("function", node.name, signature or _signature(node), text)
    parts = [_docstring(node)]
    signature = ""
    for method in _statements(node.body):
        if not isinstance(method, _FUNCTIONS) or _is_overload(method):
            continue
        text = _docstring(method)
        marks = {ast.unparse(mark) for mark in method.decorator_list}
        if method.name == "__init__":
            signature = _signature(method, is_bound=True)
            parts.append(text)
        elif text and not method.name.startswith("_") and not _is_accessor(marks):
            is_property = any(mark.endswith("property") for mark in marks)
            shape = "" if is_property else _signature(method, is_bound="staticmethod" not in marks)
            parts.append(f"{node.name}.{method.name}{shape}\n{text}")
    return Definition("class", node.name, signature, "\n\n".join(filter(None, parts)))


def _docstring(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    # a docstring of one line keeps the indentation of its closing quotes
    return (ast.get_docstring(node) or "").strip()


def _is_accessor(marks: Iterable[str]) -> bool:
    """True for the setter or deleter of a property, which repeats its docstring."""
    return any(mark.endswith((".setter", ".deleter")) for mark in marks)


def split_signature(docstring: str, name: str) -> tuple[str, str]:
    """A compiled object's docstring as (signature, text).

    CPython's convention is `name($self, x, /)`, a line `--`, the text. A text that begins with
    signatures of its own, as those of objects with several do, keeps them and gets no other.
    """
    text = inspect.cleandoc(docstring)
    signature = ""
    if text.startswith(f"{name}(") and "\n--\n" in text:
        head, text = text.split("\n--\n", 1)
        signature = clean_signature(head.removeprefix(name))
    text = text.strip()
    return ("" if re.match(rf"([A-Za-z]+\.)?{re.escape(name)}\(", text) else signature), text


def clean_signature(signature: str) -> str:
    """CPython's `__text_signature__` as a person would write it."""
    one_line = " ".join(signature.split()).replace("( ", "(").replace(", )", ")")
    return re.sub(r"\$\w+(, /)?(, )?", "", one_line).replace("<unrepresentable>", "...")


def _added_docstrings(source: bytes) -> Mapping[tuple[str, str], Definition]:
    docs: dict[tuple[str, str], dict[str, str]] = {}
    if b"add_newdoc(" not in source:
        return {}
    try:
        statements = _syntax_tree(source).body
    except _NO_PYTHON:  # reported where the module itself is read
        return {}
    for node in statements:
        match node:
            case ast.Expr(
                ast.Call(
                    func=ast.Name("add_newdoc"),
                    args=[ast.Constant(str(module)), ast.Constant(str(name)), said],
                )
            ):
                attributes = docs.setdefault((module, name), {})
                for attribute, text in _said(said):
                    if not attribute.startswith("_"):
                        attributes[attribute] = text
    return {
        place: compiled(place[1], texts, is_class=len(texts) > 1) for place, texts in docs.items()
    }


def _said(node: ast.expr) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Constant(str(text)):
            yield "", text
        case ast.Tuple([ast.Constant(str(attribute)), ast.Constant(str(text))]):
            yield attribute, text
        case ast.List(entries):
            for entry in entries:
                yield from _said(entry)


def compiled(name: str, docs: Mapping[str, str], *, is_class: bool) -> Definition:
    """A compiled object, from docstrings as C code has them.

    Args:
        name: of the object.
        docs: its own docstring under "", those of its public attributes under their names.
        is_class: it is no function.
    """
    signature, own = split_signature(docs.get("", ""), name)
    parts = [own] if own else []
    for attribute, docstring in docs.items():
        shape, text = split_signature(docstring, attribute)
        if attribute and text:
            parts.append(f"{name}.{attribute}{shape}\n{text}")
    return Definition("class" if is_class else "function", name, signature, "\n\n".join(parts))


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, is_bound: bool = False) -> str:
    """`(a, b=1) -> int`, without self or cls."""
    arguments = node.args
    if is_bound:
        first = arguments.posonlyargs or arguments.args
        del first[:1]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"({ast.unparse(arguments)}){returns}"
