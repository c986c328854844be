"""Draws the package as the README shows it: every file with its docstring's first sentence."""

import ast
from pathlib import Path

from acidburn_assets.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "acidburn_assets"
WIDTH = 100

SHIPPED = (".sql", ".json", ".html", ".css", ".js")
"""What is no Python and part of the package all the same."""


def draw() -> str:
    """One line per file, folders first named by what their `__init__` says."""
    return "\n".join(["acidburn_assets/", *_lines(PACKAGE, 1)])


def _lines(folder: Path, depth: int) -> list[str]:
    lines = []
    entries = sorted(folder.iterdir(), key=lambda entry: (entry.is_dir(), entry.name))
    for entry in entries:
        if entry.is_dir():
            if any(one.suffix in (".py", *SHIPPED) for one in entry.iterdir()):
                lines.append(_line(f"{entry.name}/", _charter(entry / "__init__.py"), depth))
                lines += _lines(entry, depth + 1)
        elif entry.suffix == ".py" and entry.name != "__init__.py":
            lines.append(_line(entry.name, _charter(entry), depth))
        elif entry.suffix in SHIPPED:
            lines.append(_line(entry.name, "", depth))
    return lines


def _charter(path: Path) -> str:
    if not path.exists():
        return ""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = paragraph.split(". ")[0].rstrip(".")
    return sentence.replace("`", "")


def _line(name: str, charter: str, depth: int) -> str:
    line = f"{'  ' * depth}{name:<{26 - 2 * depth}} {charter}".rstrip()
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rsplit(" ", 1)[0] + " …"


if __name__ == "__main__":
    print(draw())
