"""Errors name the real cause, first what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core.errors import InputError
from compress.data import load_data
from compress.plan.shrink import ShrinkGoal


def test_names_with_another_dash_are_offered() -> None:
    with pytest.raises(InputError, match=r"'fashion-mnist'. Did you mean 'fashion_mnist'\?"):
        load_data("fashion-mnist")


def test_a_switch_of_a_goal_takes_its_values() -> None:
    alone = ShrinkGoal.parse("macs=0.5x,no_train")
    assert ShrinkGoal.parse("macs=0.5x,no_train=true") == alone
    assert not ShrinkGoal.parse("macs=0.5x,no-train=False").goal.no_train
    with pytest.raises(InputError, match="no_train alone, without a value. Received: no_train=ye"):
        ShrinkGoal.parse("macs=0.5x,no_train=yes")


def test_a_column_called_split_is_told_what_it_is_taken_for(tmp_path: Path) -> None:
    rows = "\n".join(f"{number},{number % 2},1" for number in range(40))
    (tmp_path / "t.csv").write_text(f"a,label,split\n{rows}\n")
    with pytest.raises(InputError, match="'split' .* says which part a row belongs to .*Rename"):
        load_data(str(tmp_path / "t.csv"))
