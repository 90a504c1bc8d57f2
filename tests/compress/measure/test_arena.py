"""The arena of LiteRT files: against sums by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import InputError
from compress.exporting.batch_conversion import write_latency_files
from compress.measure.footprint import measure_arena_bytes, try_measure_arena


def dense(*widths: int) -> Any:
    import keras

    x = inputs = keras.Input((widths[0],))
    for width in widths[1:]:
        x = keras.layers.Dense(width)(x)
    return keras.Model(inputs, x)


def convs(size: int, width: int) -> Any:
    import keras

    x = inputs = keras.Input((size, size, width))
    for _ in range(2):
        x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
        x = keras.layers.Activation("tanh")(x)
    return keras.Model(inputs, x)


def file_of(model: Any, place: Path, format: str = "float32") -> Path:
    (file,) = write_latency_files([model], place, format)
    assert isinstance(file, Path)
    return file


@pytest.mark.parametrize(
    ("widths", "numbers"),
    [
        # inputs are kept; 128 and 32 live together with them
        ((64, 128, 32), 64 + 128 + 32),
        ((256, 16), 256 + 16),
        # of five layers two are in memory at a time, the input beside them; memory is used again
        ((64, 256, 256, 256, 64), 64 + 256 + 256),
    ],
)
def test_what_lives_together_does_not_share_memory(
    widths: tuple[int, ...], numbers: int, tmp_path: Path
) -> None:
    # every tensor begins at a multiple of 64 bytes
    assert measure_arena_bytes(file_of(dense(*widths), tmp_path)) == pytest.approx(
        4 * numbers, abs=64
    )


def test_weights_are_not_in_it(tmp_path: Path) -> None:
    # a kernel of 4 MB between 1,024 numbers and 1,024 others
    found = measure_arena_bytes(file_of(dense(1024, 1024), tmp_path))
    assert found == pytest.approx(4 * 2048, abs=64)


def test_integers_need_a_fourth(tmp_path: Path) -> None:
    model = dense(512, 1024, 512)
    full = measure_arena_bytes(file_of(model, tmp_path))
    small = measure_arena_bytes(file_of(model, tmp_path, "int8"))
    assert small == pytest.approx(full / 4, rel=0.1)


def test_more_channels_need_more(tmp_path: Path) -> None:
    found = [measure_arena_bytes(file_of(convs(16, width), tmp_path)) for width in (8, 16)]
    assert found[1] == pytest.approx(2 * found[0], rel=0.05)


def test_tensors_elsewhere_do_not_stretch_it(tmp_path: Path) -> None:
    # attention keeps some tensors in a second arena, megabytes away from the first
    import keras

    inputs = keras.Input((16, 32))
    x = keras.layers.MultiHeadAttention(2, 16)(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Dense(8)(x))
    # input, query, key, value and answers are 5 x 16 x 32 numbers, scores 2 x 16 x 16; some twice
    found = measure_arena_bytes(file_of(model, tmp_path))
    assert 4 * 16 * 32 < found < 4 * (12 * 16 * 32 + 6 * 2 * 16 * 16)


def test_loops_are_refused(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 4))
    model = keras.Model(inputs, keras.layers.GRU(16)(inputs))
    file = file_of(model, tmp_path)
    with pytest.raises(InputError, match="graphs"):
        measure_arena_bytes(file)
    assert try_measure_arena(file) is None


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"m\.tflite"):
        measure_arena_bytes(tmp_path / "m.tflite")
