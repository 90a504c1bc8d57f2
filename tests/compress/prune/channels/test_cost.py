"""Channels leave for a cost of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.core.errors import FeasibleError, InputError
from compress.prune.channels import prune_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.selection.costs import CostModel


def chain(*widths: int) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,))
    for place, width in enumerate(widths):
        x = keras.layers.Dense(width, activation="relu", name=f"h{place}")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def widths_of(model: Any) -> list[int]:
    return [layer.units for layer in model.layers[1:]]


@pytest.mark.parametrize("scope", ["global", "layer", "output_error"])
def test_a_cost_that_counts_macs_chooses_as_macs_do(scope: str) -> None:
    model, x = chain(24, 16), np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    macs = CostModel.from_coupling(analyze_coupling(model)).macs
    how: dict[str, Any] = {"scope": scope, "round_to": 1, "data": x, "repair": False}
    first = prune_channels(model, macs=0.5, **how)
    second = prune_channels(model, cost=macs, share=0.5, **how)
    assert widths_of(first.model) == widths_of(second.model) != widths_of(model)
    assert first.report.error == second.report.error
    assert "cost 0.5x" in str(second.report)


def test_what_saves_nothing_stays() -> None:
    model, x = chain(24, 16), np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    # only the second group costs anything: 3 a unit
    found = prune_channels(
        model, cost=lambda kept, _: 3.0 * kept[..., 1], share=0.5, scope="output_error", round_to=1,
        data=x, repair=False,
    )  # fmt: skip
    assert widths_of(found.model) == [24, 8, 3]
    assert found.report.error == 0


def test_a_coarse_step_just_above_the_target_is_kept() -> None:
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)

    def kept_units(share: float) -> tuple[int, bool]:
        small = prune_channels(
            chain(64), cost=lambda kept, _: kept.sum(-1), share=share, scope="output_error",
            data=x, repair=False,
        )  # fmt: skip
        return widths_of(small.model)[0], any("multiples" in note for note in small.report.notes)

    # of 64 units: 48 are 1.4 % above 0.74x, within tolerance, and 44 would be 7 % below
    assert kept_units(0.74) == (48, False)
    # 48 are 4.2 % above 0.72x, 44 are 4.5 % below: the target is a limit there
    assert kept_units(0.72) == (44, True)


def test_a_cost_needs_no_input_size() -> None:
    import keras

    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(24, 3, name="h0")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, name="h1")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    found = prune_channels(model, cost=lambda kept, _: kept.sum(-1), share=0.5, round_to=1)
    assert sum(row.kept for row in found.report.groups) == 20
    assert (found.report.macs, found.report.error) == (None, 0)


def test_a_share_that_cannot_be_met_is_refused_in_its_own_unit() -> None:
    with pytest.raises(FeasibleError, match=r"cost must be at least 0.1781 \(0.509x of 0.35\)"):
        prune_channels(
            chain(24, 16), cost=lambda kept, _: 0.1 + 0.25 * kept[..., 1] / 16, share=0.4,
            round_to=1, min_kept=0.3,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"share": 0.5}, "must go together.*share alone"),
        ({"cost": lambda kept, _: kept.sum(-1), "macs": 0.5}, "must go together.*cost alone"),
        ({"cost": lambda kept, _: kept.sum(-1), "share": 1.5}, "share must be in"),
        ({"macs": 0.5, "share": 0.5}, "must be one of macs=, params= or share="),
    ],
)
def test_what_does_not_go_together(how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_channels(chain(8), **how)
