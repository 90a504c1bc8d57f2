"""Sources of each kind under the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.compress.data.test_sources import write_idx
from tests.compress.data.test_tables import write_csv, write_parquet
from tests.compress.data.test_tfrecords import pictures, write
from tests.contracts.source import SourceContract


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 6, 5)).astype(np.uint8)


class TestDigits(SourceContract):
    @pytest.fixture
    def source(self) -> str:
        return "digits"


class TestIdx(SourceContract):
    has_test = True

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        for name, rows in (("train", slice(60)), ("t10k", slice(60, 80))):
            write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", pixels(80)[rows])
            write_idx(tmp_path / f"{name}-labels-idx1-ubyte", np.arange(80)[rows] % 3)
        return str(tmp_path)


class TestNpz(SourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        rng = np.random.default_rng(0)
        x, y = rng.normal(3.0, 2.0, (90, 4)).astype(np.float32), np.arange(90) % 3
        np.savez(tmp_path / "a.npz", x_train=x, y_train=y)
        return str(tmp_path / "a.npz")


class TestNpzOfNumbers(SourceContract):
    task = "regression"

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(2, 90, 4)).astype(np.float32)
        np.savez(tmp_path / "a.npz", x_train=x, y_train=y[:, :2])
        return str(tmp_path / "a.npz")


class TestFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        for place, image in enumerate(pixels(60)):
            folder = tmp_path / "photos" / "abc"[place % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{place}.png")
        return str(tmp_path / "photos")


def columns() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(3.0, 2.0, (90, 4)).astype(np.float32)
    return {**{f"c{place}": x[:, place] for place in range(4)}, "label": np.arange(90) % 3}


class TestCsv(SourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        return write_csv(tmp_path / "a.csv", columns())


class TestParquet(SourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        return write_parquet(tmp_path / "a.parquet", columns())


class TestTFRecords(SourceContract):
    has_test = True

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        records = pictures(120)
        for part, own in (("train", records[:60]), ("test", records[60:])):
            write(tmp_path / f"{part}.tfrecord", own)
        return str(tmp_path)
