"""Errors name the real cause, first what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core.errors import InputError
from compress.data import load_data


def test_names_with_another_dash_are_offered() -> None:
    with pytest.raises(InputError, match=r"'fashion-mnist'. Did you mean 'fashion_mnist'\?"):
        load_data("fashion-mnist")


def test_a_column_called_split_is_told_what_it_is_taken_for(tmp_path: Path) -> None:
    rows = "\n".join(f"{number},{number % 2},1" for number in range(40))
    (tmp_path / "t.csv").write_text(f"a,label,split\n{rows}\n")
    with pytest.raises(InputError, match="'split' .* says which part a row belongs to .*Rename"):
        load_data(str(tmp_path / "t.csv"))
