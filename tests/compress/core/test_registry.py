"""Registries: places, packages, the user's own, and the errors of unknown names."""

from __future__ import annotations

import importlib
import operator
import sys
from pathlib import Path

import pytest

from compress import plugins
from compress.core.errors import InputError, MissingDependency
from compress.core.registry import Entry, Registry, is_reference
from search import plugins as of_search


def test_lookup_and_refusal() -> None:
    colours: Registry[int] = Registry("colour")
    colours.add("red", 1)
    colours.add("blue", 2)
    assert colours["red"] == 1
    assert colours.names() == ("red", "blue")
    with pytest.raises(
        InputError, match="Unknown colour 'bleu'. Did you mean 'blue'. Choices: blue, red"
    ):
        colours["bleu"]
    with pytest.raises(ValueError, match="already registered"):
        colours.add("red", 3)
    with pytest.raises(ValueError, match="without a colon"):
        colours.add("a:b", 3)
    colours.remove("red")
    colours.add("red", 3)
    assert colours["red"] == 3


def test_places_are_imported_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_test.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    table: Registry[object] = Registry(
        "function", {"add": "operator:add", "gone": "mine_of_test:no"}
    )
    assert "mine_of_test" not in sys.modules
    assert table["add"] is operator.add
    # a name that is a place of the user's own
    assert table["mine_of_test:double"](21) == 42  # type: ignore[operator]
    assert "mine_of_test:double" not in table
    with pytest.raises(InputError, match="Function 'mine_of_test:nothing' must name a function"):
        table["mine_of_test:nothing"]


def test_a_name_is_checked_without_importing_what_it_stands_for() -> None:
    table: Registry[object] = Registry(
        "thing", {"a": Entry("no_such_module:x", ("no_such_package",))}
    )
    table.require("a")
    table.require("none", ("none",))
    table.require("some.module:thing")
    with pytest.raises(InputError, match="Unknown thing 'b'. Choices: a, none."):
        table.require("b", ("none",))
    with pytest.raises(KeyError):  # what must be installed has an install line
        table.require_installed("a")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"Runtime 'mnn' must have .* 'paretune\[mnn\]'"):
        plugins.RUNTIMES.require_installed("mnn")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a:b", True), ("a.b:c", True), ("a", False), (":b", False), ("a:", False), ("a b:c", False),
     ("a:b:c", False), ("2:4", False)],
)  # fmt: skip
def test_what_a_place_looks_like(name: str, expected: bool) -> None:
    assert is_reference(name) is expected


def test_every_line_of_every_table_leads_somewhere() -> None:
    tables = [item for module in (plugins, of_search) for item in vars(module).values()
              if isinstance(item, Registry)]  # fmt: skip
    assert len(tables) == 15
    for table in tables:
        assert table.names()
        for name in table:
            assert table[name] is not None


def test_the_old_place_of_the_tables_names_the_new_one() -> None:
    with pytest.raises(
        ImportError, match=r"^compress.core.plugins was renamed: import compress.plu"
    ):
        importlib.import_module("compress.core.plugins")
