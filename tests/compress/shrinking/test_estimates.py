"""What choices cost before files of them are made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from compress.exporting.batch_conversion import write_latency_files
from compress.plan import ChannelOptions
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.selection.allowed_counts import Selection, compute_allowed_counts
from compress.prune.channels.selection.latency_measurement import (
    build_pruned_models,
    sample_kept_counts,
)
from compress.shrinking.candidate import OriginalFiles
from compress.shrinking.estimates import (
    Configuration,
    CostEstimates,
    build_memory_cost,
    encode_present_blocks,
    fit_file_sizes,
)


def first(kept: Any, present: Any) -> Any:
    return 2.0 * np.asarray(kept, float).sum(-1)


def second(kept: Any, present: Any) -> Any:
    return np.asarray(kept, float)[..., 0] ** 2


def dense_of(format: str, size: int, beside: int) -> OriginalFiles:
    """Returns the record of a model's own file: of its size, and how much of it are names."""
    return OriginalFiles(format, "m", {format: 1.0}, {format: size}, {}, {format: beside}, {}, {})


BOTH = CostEstimates({"latency": first, "macs": second})


def test_several_goals_are_one_cost() -> None:
    share = BOTH.combine_goals({"latency": 20.0, "macs": 36.0})
    kept = np.array([[4, 6], [6, 1], [3, 1]])
    # 20/20 and 16/36; 14/20 and 36/36; 8/20 and 9/36
    np.testing.assert_allclose(share(kept, None), [1.0, 1.0, 0.4])


def test_estimates_are_put_right_by_what_was_measured() -> None:
    choice = Configuration(np.array([4, 6]), None)
    right = BOTH.calibrate(choice, {"latency": 25.0, "macs": 16.0})
    assert right.estimate_costs(choice) == {"latency": 25.0, "macs": 16.0}
    # 2 * (2 + 3) = 10 by the estimate, a quarter more by what was measured
    assert right.estimate_costs(Configuration(np.array([2, 3]), None)) == {
        "latency": 12.5,
        "macs": 4.0,
    }
    again = right.calibrate(choice, {"latency": 20.0})
    assert again.factors == {"latency": 1.0}
    share = right.combine_goals({"latency": 25.0})
    assert float(share(choice.kept, None)) == pytest.approx(1.0)


def test_blocks_that_leave_take_inner_ones_along() -> None:
    import keras

    inputs = keras.Input((8, 8, 4))
    x = inputs
    for place in range(2):
        y = keras.layers.Conv2D(4, 3, padding="same", name=f"conv{place}")(x)
        x = keras.layers.Add(name=f"add{place}")([x, y])
    x = keras.layers.Conv2D(8, 3, name="last")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    from compress.prune.channels.coupling.blocks import list_blocks

    coupling = analyze_coupling(model)
    blocks = list_blocks(coupling)
    whole = SimpleNamespace(mask=np.ones(coupling.unit_count, bool), removed_blocks=())
    part = SimpleNamespace(mask=whole.mask, removed_blocks=(blocks[0],))
    choice = Configuration.from_selection(coupling, cast(Selection, part))
    assert choice.present is not None
    assert choice.present.tolist() == [0 if b.index in (0, *blocks[0].inner) else 1 for b in blocks]
    assert Configuration.from_selection(coupling, cast(Selection, whole)).present is None


@pytest.mark.parametrize("format", ["float32", "int8"])
def test_sizes_of_files_are_foretold(
    small_cnn: Callable[..., Any], tmp_path: Path, format: str
) -> None:
    model = small_cnn()
    coupling = analyze_coupling(model)
    allowed = compute_allowed_counts(coupling, ChannelOptions(round_to=2), 2)
    (whole,) = write_latency_files([model], tmp_path, format)
    assert isinstance(whole, Path)
    shipped = whole.stat().st_size + 64
    size = fit_file_sizes(
        coupling, allowed, (), write_latency_files, format, dense_of(format, shipped, 64), seed=0
    )
    assert float(size(coupling.removable_counts)) == pytest.approx(shipped)
    kept = np.array([[4, 8, 20], [6, 12, 10]])[:, : len(coupling.groups)]
    nets = build_pruned_models(coupling, kept)
    files = write_latency_files(nets, tmp_path, format)
    real = [Path(item).stat().st_size + 64 for item in files]
    # what is not proportional (alignment, tables) is much of files of 4 kB
    np.testing.assert_allclose(size(kept), real, rtol=0.05)


@pytest.mark.parametrize("format", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_sizes_know_what_leaves_with_a_block(tmp_path: Path, format: str) -> None:
    """Tensors of a block are in the file however narrow they are, and gone when it leaves."""
    import keras

    from compress.prune.channels.coupling.blocks import list_blocks

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(6):
        inner = keras.layers.Conv2D(16, 1, use_bias=False)(x)
        inner = keras.layers.ReLU()(keras.layers.BatchNormalization()(inner))
        x = keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same")(inner)])
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    coupling = analyze_coupling(model)
    blocks = list_blocks(coupling)
    allowed = compute_allowed_counts(coupling, ChannelOptions(round_to=2), 2)
    (whole,) = write_latency_files([model], tmp_path, format)
    assert isinstance(whole, Path)
    dense = dense_of(format, whole.stat().st_size, 0)
    kept = sample_kept_counts(allowed, 3, 5)
    dropped = [blocks[:2], blocks[1:5], blocks]
    files = write_latency_files(build_pruned_models(coupling, kept, dropped), tmp_path, format)
    real = np.array([Path(item).stat().st_size for item in files])
    present = np.stack([encode_present_blocks(coupling, left) for left in dropped])

    def errors(known: Any) -> Any:
        size = fit_file_sizes(coupling, allowed, known, write_latency_files, format, dense, seed=0)
        return np.abs(size(kept, present) / real - 1)

    # what is not proportional is much of files of 4 kB
    assert errors(blocks).max() < 0.1
    assert errors(()).max() > 0.2


def test_the_largest_working_set_of_a_call() -> None:
    import keras

    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(8, 3, padding="same", name="one")(inputs)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", name="two")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalMaxPooling2D()(x)))
    coupling = analyze_coupling(model)
    allowed = compute_allowed_counts(coupling, ChannelOptions(round_to=2), 2)
    sets = build_memory_cost(coupling, allowed, ())
    # one: 4*4*2 + 4*4*8 = 160; two: 4*4*8 + 2*2*16 = 192
    assert float(sets(np.array([8, 16]))) == pytest.approx(192)
    # one: 32 + 64 = 96; two: 64 + 64 = 128
    # one: 32 + 128 = 160; two: 128 + 2*2*4 = 144
    np.testing.assert_allclose(sets(np.array([[4, 16], [8, 4]])), [128, 160])
