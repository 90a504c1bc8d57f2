"""Recipes: what worked on one model is one word on the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core.errors import InputError
from compress.plan.nesting import from_flat, from_nested
from compress.plan.shrink import ShrinkPlan
from compress.shrinking.recipes import list_recipes, read_recipe, save_recipe
from compress.shrinking.shrink import shrink


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_a_plan(name: str) -> None:
    plan = from_nested(ShrinkPlan, read_recipe(name))
    assert plan != ShrinkPlan()
    assert plan.goal.is_given


def test_a_saved_recipe_makes_the_same_plan_elsewhere(tmp_path: Path) -> None:
    plan = from_flat(
        ShrinkPlan,
        {
            "data": "digits", "out": "x", "seed": 3, "latency": "0.4x", "max_drop": 1.5,
            "round_to": 4, "channel_exclude": "a*,'b'", "formats": "float32,int8", "no_train": True,
        },
    )  # fmt: skip
    save_recipe(plan, tmp_path / "mine.toml", ("int8",))
    again = from_nested(ShrinkPlan, read_recipe(tmp_path / "mine.toml"))
    assert again.goal == plan.goal
    assert again.channels == plan.channels
    assert again.export.formats == ("int8",)
    # of one model, its data, its place
    assert (again.data.source, again.out, again.seed) == ("", None, 0)


def test_bad_recipes_name_themselves(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mobile-int8"):
        read_recipe("mobile-int4")
    with pytest.raises(InputError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("[goal")
    with pytest.raises(InputError, match="TOML"):
        read_recipe(tmp_path / "broken.toml")
    (tmp_path / "mine.toml").write_text('[data]\nsource = "digits"\n')
    with pytest.raises(InputError, match=r"data\.source"):
        read_recipe(tmp_path / "mine.toml")
    with pytest.raises(InputError, match=r"\.toml"):
        save_recipe(ShrinkPlan(), tmp_path / "mine.json")
    with pytest.raises(InputError, match="without a plan"):
        shrink("m.keras", "digits", ShrinkPlan(), recipe="untrained")
