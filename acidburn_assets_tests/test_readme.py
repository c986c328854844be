"""The README says what is so: its tree, commands, settings, registry example and words."""

import re

import pytest
import yaml
from click.testing import CliRunner

from acidburn_assets.commands import SUBCOMMANDS, cli
from acidburn_assets.core.datasets import parse_registry
from acidburn_assets.settings import PROJECT_ROOT, Settings
from acidburn_assets_tests import tree

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {title!r}"
    return found[1]


def test_the_tree_is_the_code():
    (drawn,) = re.findall(r"```\n(.*?)```", section("Tree"), re.DOTALL)
    assert drawn.strip() == tree.draw(), "python -m acidburn_assets_tests.tree prints it"


def test_the_table_of_commands_is_the_command_line():
    assert re.findall(r"^\| `acidburn (\w+)", section("Commands"), re.MULTILINE) == list(
        SUBCOMMANDS
    )


def test_every_command_line_in_the_readme_names_a_subcommand():
    lines = re.findall(r"(?:^|`)acidburn ([a-z]\w*)", README, re.MULTILINE)
    assert len(lines) > len(SUBCOMMANDS)
    assert set(lines) == set(SUBCOMMANDS)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_subcommand_has_help(subcommand):
    result = CliRunner().invoke(cli, [subcommand, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage:")


def test_every_make_target_in_the_readme_exists():
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    assert set(re.findall(r"make (\w+)$", README, re.MULTILINE)) <= targets


def test_every_setting_in_the_readme_exists():
    known = {name.upper() for name in Settings.model_fields}
    named = set(re.findall(r"`((?:B2|SUPABASE|ACIDBURN|XAI|HF)_[A-Z_]+)", README))
    assert named
    assert named <= known


def test_the_registry_example_is_a_registry():
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    registry = parse_registry(yaml.safe_load(example), origin="README.md")
    assert registry.dataset("papers").pool == "science"


def test_every_word_of_the_glossary_is_used_in_the_code():
    words = re.findall(r"^\| ([\w@]+) \|", section("Glossary"), re.MULTILINE)[1:]
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in tree.PACKAGE.rglob("*.py")
    ).lower()
    unused = [word for word in words if word.removesuffix("@k") not in code]
    assert unused == []


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (PROJECT_ROOT / link).exists()] == []
