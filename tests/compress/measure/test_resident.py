"""Memory of a process that runs a file."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from compress.core.errors import InputError
from compress.exporting.batch_conversion import write_latency_files
from compress.measure.footprint import measure_resident_bytes, try_measure_resident


def dense(units: int) -> keras.Model:
    return keras.Sequential([keras.Input((units,)), keras.layers.Dense(units)])


def test_weights_are_resident(tmp_path: Path) -> None:
    small, large = write_latency_files([dense(4), dense(2000)], tmp_path)
    assert isinstance(small, Path)
    assert isinstance(large, Path)
    weights = 4 * 2000 * 2000
    more = measure_resident_bytes(large) - measure_resident_bytes(small)
    # the file's own pages, and one packed copy; half a megabyte of chance
    assert weights - 500_000 <= more <= 3 * weights
    assert measure_resident_bytes(small) < weights


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model")
    with pytest.raises(InputError, match="LiteRT must be able to run"):
        measure_resident_bytes(broken)
    assert try_measure_resident(broken) is None
