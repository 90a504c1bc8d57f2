"""Pages and code say the same: options, public names, links, code that is shown."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import paretune
from compress.plan import Plan
from compress.plan.bench import BenchPlan
from compress.plan.fields import list_plan_fields, list_removed_options
from compress.plan.shrink import ShrinkPlan
from search.cli import app
from search.cli._help import REMOVED_COMMANDS
from search.plan import SearchPlan

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", *(page for page in DOCS.rglob("*.md") if page.name != "architecture.md")]
)
CODE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FORMER = re.compile(r"^\| (`[^|]*) \|", re.MULTILINE)
"""First column of a table: what earlier versions had."""
COMMAND: Any = typer.main.get_command(app)


def text_of(page: Path) -> str:
    """The page without the stored results of benchmarks, whose commands are of the past."""
    return re.sub(r"<!-- benchmarks\..*?<!-- / -->", "", page.read_text("utf-8"), flags=re.DOTALL)


def ours(module: str | None) -> bool:
    """Whether code that is shown imports it from our packages."""
    return (module or "").partition(".")[0] in ("compress", "search")


def flags(command: Any) -> set[str]:
    """What a command takes."""
    return {flag for item in command.params for flag in item.opts} | {"--help", "--help-all"}


def every_flag(command: Any) -> set[str]:
    """What a command, or one of those below it, takes."""
    below = getattr(command, "commands", {}).values()
    return flags(command).union(*map(every_flag, below))


def reference() -> Any:
    """The hook that makes the pages of the reference."""
    spec = importlib.util.spec_from_file_location("pages", DOCS / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("command", "plan"), [("run", SearchPlan), ("compress", Plan), ("bench", BenchPlan)]
)
def test_the_reference_has_every_field_of_a_plan(command: str, plan: type[Any]) -> None:
    page = reference().on_page_markdown(f"before\n\n<!-- options of {command} -->\n\nbehind\n")
    assert page.startswith(f"before\n\n```\nparetune {command} ")
    for leaf in list_plan_fields(plan):
        assert len(re.findall(rf"^\| `{leaf.flag}[ `,]", page, re.MULTILINE)) == 1, leaf


def test_the_reference_has_every_command() -> None:
    page = (DOCS / "reference" / "cli.md").read_text("utf-8")
    made = reference().on_page_markdown(page)
    assert "<!--" not in made
    for name, command in COMMAND.commands.items():
        names = [f"{name} {word}" for word in getattr(command, "commands", {})] or [name]
        for each in names:
            assert f"\n## paretune {each}\n" in page


def test_the_reference_has_every_public_name_once() -> None:
    page = (DOCS / "reference" / "python.md").read_text("utf-8")
    shown = re.findall(r"^::: paretune\.(\w+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted({*paretune.__all__} - {"__version__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            made = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in made, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_that_is_shown_is_python_of_today(page: Path) -> None:
    for block in CODE.finditer(text_of(page)):
        if not block["info"].startswith("python"):
            continue
        for node in ast.walk(ast.parse(block["body"])):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pt":
                assert node.attr in paretune.__all__, node.attr
            elif isinstance(node, ast.ImportFrom) and re.match(
                "compress|search", node.module or ""
            ):
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{node.module}.{name.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_shown_take_their_options(page: Path) -> None:
    text = text_of(page)
    for block in CODE.finditer(text):
        for line in block["body"].replace("\\\n", " ").splitlines():
            if not line.startswith("paretune "):
                continue
            words = shlex.split(line, comments=True)[1:]
            command = COMMAND
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            given = {word for word in words if word.startswith("--")}
            assert given <= flags(command), line
    inline = {
        word
        for code in re.findall(r"`([^`\n]+)`", CODE.sub("", text))
        if not code.startswith(("python ", "pip ", "make "))
        for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
    }
    if page.name == "migrating.md":
        former = set(FORMER.findall(page.read_text("utf-8")))
        # a former name may have another meaning now
        inline -= {word for line in former for word in re.findall(r"--[a-z][\w-]*", line)}
    assert inline <= every_flag(COMMAND)


def test_every_removed_option_stands_on_the_migration_page() -> None:
    page = (DOCS / "migrating.md").read_text("utf-8")
    plans: list[type[Any]] = [SearchPlan, ShrinkPlan, Plan, BenchPlan]
    removed = {item.flag for plan in plans for item in list_removed_options(plan).values()}
    assert len(removed) > 30
    assert {flag for flag in removed if f"`{flag}" not in page} == set()
    # of run and search alone: shrink has it
    assert removed & every_flag(COMMAND) == {"--no-train"}
    assert {name for name in REMOVED_COMMANDS if f"`paretune {name}`" not in page} == set()


def test_messages_of_the_troubleshooting_page_are_ours() -> None:
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    messages = re.findall(r"^### (?:[^`\n]+: )?`(.*)`$", page, re.MULTILINE)
    assert len(messages) > 8
    sources = "".join(
        re.sub(r'"\s+f?"', "", path.read_text("utf-8"))
        for package in ("compress", "search")
        for path in (ROOT / package).rglob("*.py")
    )
    assert [message for message in messages if message not in sources] == []


THEIRS = {"feed.py", "measure.py", "mine.py", "myspace.py", "search.py", "ship/feed.py"}
"""Files of users, which pages name."""


MORE = [ROOT / "CONTRIBUTING.md", DOCS / "architecture.md"]


@pytest.mark.parametrize("page", [*PAGES, *MORE], ids=lambda page: page.name)
def test_modules_that_a_page_names_exist(page: Path) -> None:
    folders = [ROOT / name for name in ("compress", "search", "tests", "benchmarks", "docs")]
    for name in set(re.findall(r"`([\w/]+\.py)(?:::\w+)?`", text_of(page))):
        known = (ROOT / name).is_file() or any(list(folder.rglob(name)) for folder in folders)
        assert known or name in THEIRS, name


def test_modules_of_the_architecture_exist() -> None:
    """Each row of "Where things are" names packages, then modules of them."""
    section = (DOCS / "architecture.md").read_text("utf-8").partition("## Where things are")[2]
    rows = re.findall(r"^\| (`(?:compress|search)/.*?) \| (.*) \|$", section, re.MULTILINE)
    assert len(rows) > 15
    for packages, text in rows:
        folders = [ROOT / name for name in re.findall(r"`([^`]+)`", packages)]
        inside = {path.stem for folder in folders for path in folder.rglob("*")}
        for name in re.findall(r"`([^`]+)`", text):
            assert name.rstrip("/").rpartition("/")[2] in inside, f"{packages}: {name}"
