"""Memory that spills to files, an interruption, and what is told on the way."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.reconstruction import reconstructor, repair
from compress.reconstruction.tensor_store import Store
from tests.compress.reconstruction.dependent import make_dependent, off, pruned, smooth

pytestmark = pytest.mark.usefixtures("unrounded")

L = keras.layers


@pytest.fixture(scope="module")
def model() -> Any:
    """An autoencoder whose tensors, the output among them, are larger than what is held anyway."""
    inputs = keras.Input((24, 24, 3))
    x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="down")(inputs)
    y = L.Conv2D(8, 3, padding="same", name="inside")(x)
    x = L.Add()([x, y])
    x = L.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu", name="up")(x)
    model = keras.Model(inputs, L.Conv2D(8, 3, padding="same", name="picture")(x))
    make_dependent(model, "scaled", keep=("picture",))
    return model


@pytest.fixture(scope="module")
def x() -> Any:
    return smooth((24, 24, 3), 320)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_does_not_fit_in_memory_lies_in_files(
    model: Any, x: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = pruned(model)
    one = repair(in_memory.model, model, x, kept=in_memory.kept)
    stores = []

    def store() -> Store:
        stores.append(Store(limit=0))
        return stores[-1]

    monkeypatch.setattr(reconstructor, "Store", store)
    in_files = pruned(model)
    two = repair(in_files.model, model, x, kept=in_files.kept)
    # how many depends on which layers keep their weights, and so on the processor
    assert stores[0]._files >= 6
    for mine, theirs in zip(
        in_memory.model.get_weights(), in_files.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert one.output_error == two.output_error
    assert two.output_error[0][1] < two.output_error[0][0]
    gc.collect()
    assert not list(folder.iterdir())


def test_a_store_holds_what_it_is_given(folder: Path) -> None:
    store = Store(limit=3 * 2**20)
    arrays = [np.full((2**18,), float(index), np.float32) for index in range(5)]  # 1 MiB each
    values = [store.keep(keras.ops.convert_to_tensor(array)) for array in arrays]
    small = store.keep(keras.ops.convert_to_tensor(np.arange(3)))
    assert store.used == 3 * 2**20 + 3 * small.array.itemsize
    for value, array in zip(values, arrays, strict=True):
        np.testing.assert_array_equal(value.array, array)
        np.testing.assert_array_equal(np.asarray(value.tensor), array)
        assert value.blank.shape == array.shape
    assert [path.stat().st_size for path in folder.glob("*/*.bin")] == [2**20] * 2
    del values, value
    gc.collect()
    assert store.used == 3 * small.array.itemsize
    assert not list(folder.glob("*/*.bin"))
    store.close()
    assert not list(folder.iterdir())


def test_a_mask_survives_a_file(folder: Path) -> None:
    x = keras.ops.convert_to_tensor(np.ones((2, 2**17), np.float32))
    masked = L.Masking()(keras.ops.reshape(x, (2, 2**10, 2**7)))
    store = Store(limit=0)
    value = store.keep(masked)
    assert list(folder.glob("*/*.bin"))
    again = store.keep(value.tensor)
    np.testing.assert_array_equal(np.asarray(again.mask), np.asarray(masked._keras_mask))
    store.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_the_model_as_it_was(
    model: Any,
    x: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    monkeypatch.setattr(reconstructor, "Store", lambda: Store(limit=0))
    small = pruned(model)
    before = small.model.get_weights()
    told = []

    def stop(text: str, share: float) -> None:
        told.append(text)
        if text == "repairing picture":
            changed = [
                not np.array_equal(old, new)
                for old, new in zip(before, small.model.get_weights(), strict=True)
            ]
            assert any(changed)  # it is in the middle of it
            assert list(folder.iterdir())
            raise error

    with pytest.raises(error):
        repair(small.model, model, x, kept=small.kept, on_progress=stop)
    for old, new in zip(before, small.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    gc.collect()
    assert not list(folder.iterdir())
    assert told == [f"repairing {name}" for name in ("down", "inside", "up", "picture")]


def test_progress_is_told_in_order(model: Any, x: Any) -> None:
    small = pruned(model)
    told: list[tuple[str, float]] = []
    repair(
        small.model, model, x, kept=small.kept, examples=40,
        on_progress=lambda text, share: told.append((text, share)),
    )  # fmt: skip
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert [text for text, _ in told] == [
        "repairing down", "repairing inside", "repairing up", "repairing picture",
    ]  # fmt: skip


def test_the_dense_model_stays_as_it_is(model: Any, x: Any) -> None:
    before = model.get_weights()
    small = pruned(model)
    repair(small.model, model, x, kept=small.kept, examples=40)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_held_back_errors_are_those_of_the_models(model: Any, x: Any) -> None:
    """The report's errors of outputs, from the models' own outputs on the same examples."""
    small = pruned(model)
    held = x[np.random.default_rng(0).permutation(len(x))][-64:]
    wanted = model(held).numpy().astype(np.float64)
    before = small.model(held).numpy()
    report = repair(small.model, model, x, kept=small.kept)
    after = small.model(held).numpy()
    spread = ((wanted - wanted.mean(0)) ** 2).sum()
    expected = [((made - wanted) ** 2).sum() / spread for made in (before, after)]
    assert report.held_back == 64
    np.testing.assert_allclose(report.output_error[0], expected, rtol=1e-3, atol=1e-9)
    assert off(small.model, model, held) < 1e-3
