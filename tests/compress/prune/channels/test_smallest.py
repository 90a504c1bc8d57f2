"""The smallest that can be asked for: one number in `inspect`, the refusal and what is met."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers
from typer.testing import CliRunner

from compress.core.errors import FeasibleError
from compress.measure import count_macs
from compress.plan import ChannelOptions
from compress.prune.channels import coupled_groups, prune_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.selection.target import find_smallest
from search.cli import app
from tests.compress.prune.channels.generator import graph

REFUSED = re.compile(r"must be at least ([\d,]+) \(([\d.]+)x of")


def chain(*widths: int) -> Any:
    x = inputs = keras.Input((8, 8, 1))
    for place, width in enumerate(widths):
        x = layers.Conv2D(width, 3, padding="same", name=f"c{place}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def count(model: Any, of: str) -> int:
    return int(getattr(count_macs(model), of))


def check(model: Any, of: str, **settings: Any) -> None:
    """What is said to be the smallest can be had; less is refused with the same number."""
    with pytest.raises(FeasibleError, match=REFUSED) as refused:
        prune_channels(model, **{of: 1.0001}, **settings)
    said = REFUSED.search(str(refused.value))
    assert said is not None
    least, share = int(said[1].replace(",", "")), float(said[2])
    full = count(model, of)
    for target in (least, share):
        result = prune_channels(model, **{of: target}, **settings)
        wanted = target if target > 1 else target * full
        # within the 2 % that count as met, and not by refusing to say so
        assert count(result.model, of) == pytest.approx(wanted, rel=0.02)
        assert abs(result.report.error) <= 0.02
    unit = 10.0 ** -len(said[2].partition(".")[2])
    assert least / full <= share < least / full + unit
    for smaller in (least - 1, share - unit):
        with pytest.raises(FeasibleError, match=f"at least {said[1]} "):
            prune_channels(model, **{of: smaller}, **settings)
    if of == "macs" and not settings:
        coupled = coupled_groups(model)
        assert (coupled.least, coupled.least_share) == (least, share)


@pytest.mark.parametrize("of", ["macs", "params"])
@pytest.mark.parametrize(
    ("widths", "settings"),
    [
        ((24, 40, 64), {}),
        ((24, 40, 64), {"round_to": 8}),
        ((24, 40, 64), {"min_kept": 0.5, "round_to": 1}),
        ((24, 40, 64), {"scope": "layer", "exclude": ("c1",)}),
        ((8, 6, 5), {}),
        # steps of 16 would leave a seventh; multiples of 4 a fiftieth
        ((32, 32, 32), {}),
    ],
)
def test_the_smallest_is_met_and_less_is_refused(
    widths: tuple[int, ...], settings: dict[str, Any], of: str
) -> None:
    check(chain(*widths), of, **settings)


@pytest.mark.parametrize("seed", range(2))
def test_of_random_graphs(seed: int) -> None:
    model = graph(seed)
    if analyze_coupling(model).groups:
        check(model, "params")


def test_by_hand() -> None:
    """Three layers of 32 thinned to 4: kept numbers are multiples of 4, a tenth is 3.2."""
    model = chain(32, 32, 32)
    found = find_smallest(analyze_coupling(model), ChannelOptions(target="0.5x"))
    assert found.original_cost == 64 * 9 * (32 + 2 * 32 * 32) + 320
    assert found.cost == 64 * 9 * (4 + 2 * 4 * 4) + 40
    assert found.share == 0.0174  # 20,776 of 1,198,400 are 0.017336 of them
    coupled = coupled_groups(model)
    assert (coupled.least, coupled.least_share) == (20_776, 0.0174)


def test_inspect_and_the_refusal_say_the_same(tmp_path: Path) -> None:
    chain(32, 32, 32).save(tmp_path / "m.keras")
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path / "m.keras")])
    assert shown.exit_code == 0, shown.output
    assert "thinned to 0.0174x of the MACs (20,776)" in " ".join(shown.stdout.split())
    refused = CliRunner().invoke(
        app,
        ["compress", str(tmp_path / "m.keras"), "--data", "digits", "--normalize", "standardize",
         "--channels", "0.017x", "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert refused.exit_code == 2
    assert "macs must be at least 20,776 (0.0174x of 1,198,400)" in refused.output
    assert not (tmp_path / "out").exists()
