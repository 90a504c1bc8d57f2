"""Labels that the benchmarks make: exact, and of no image that another part has."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _any_nets
from benchmarks._any_nets import KINDS, NOISE, SIZE, VISIBLE, box_iou, giou_loss
from compress.core.errors import InputError
from compress.data.keras_datasets import DEBIAN_FASHION_MNIST


def test_kinds_of_characters_are_those_of_the_tokens() -> None:
    text = "def f(x):\n    return x + 12  # why\n" + " " * 40
    found = _any_nets._windows(text)
    assert found is not None
    codes, kinds = found[0]
    assert "".join(map(chr, codes)) == text[:64]
    named = {"def": "keyword", "return": "keyword", "12": "number", "# why": "comment",
             "(": "operator", "f(": "name"}  # fmt: skip
    for words, kind in named.items():
        assert KINDS[kinds[text.index(words)]] == kind
    assert KINDS[kinds[text.index(" ")]] == "other"
    assert _any_nets._windows("'''never closed") is None


def test_boxes_that_overlap_by_a_quarter() -> None:
    """Unit squares shifted by a half each way: overlap 1/4, union 7/4, hull 9/4."""
    one, other = np.array([[0, 0, 1, 1]], np.float32), np.array([[0.5, 0.5, 1.5, 1.5]], np.float32)
    assert float(box_iou(one, other)[0]) == pytest.approx(1 / 7)
    assert float(giou_loss(one, other)[0]) == pytest.approx(1 - 1 / 7 + (9 / 4 - 7 / 4) / (9 / 4))
    assert float(giou_loss(one, one)[0]) == pytest.approx(0, abs=1e-6)


def test_series_are_split_by_class_and_scaled_by_what_trains(tmp_path: Path) -> None:
    """Twenty series of two channels, of two classes; the shorter ones are filled up with zeros."""
    rng = np.random.default_rng(0)
    lines = [
        ":".join(",".join(f"{v:.4f}" for v in rng.normal(place, 2, 4 - place % 2)) for _ in "ab")
        + f":{'yes' if place % 4 else 'no'}"
        for place in range(20)
    ]
    text = "@problemName Toy\n@data\n"
    wheel = tmp_path / "aeon.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        for name, own in (("TRAIN", lines[:12]), ("TEST", lines[12:])):
            made.writestr(f"aeon/datasets/data/Toy/Toy_{name}.ts", text + "\n".join(own))
    parts = _any_nets.series("Toy", 0, str(wheel))
    assert [len(y) for _, y in parts] == [12, 3, 5]
    assert [np.bincount(y).tolist() for _, y in parts] == [[3, 9], [1, 2], [1, 4]]
    keys = [row.tobytes() for x, _ in parts for row in x]
    assert len(set(keys)) == 20  # no series is in two parts
    np.testing.assert_allclose(parts.train[0].mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(parts.train[0].std((0, 1)), 1, atol=1e-5)
    with pytest.raises(InputError, match="pip download aeon --no-deps"):
        _any_nets.series("Toy", 0, "none.whl")


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="needs dataset-fashion-mnist")
class TestScenes:
    """Those made of Fashion-MNIST."""

    def test_boxes_hold_all_that_is_seen_and_no_more(self) -> None:
        x, y = _any_nets.objects(8, 4, 4).train
        for image, box in zip(x[..., 0], y["box"], strict=True):
            seen = image >= VISIBLE / 255
            top, left, bottom, right = np.round(box * SIZE).astype(int)
            outside = seen.copy()
            outside[top:bottom, left:right] = False
            assert image[outside].max(initial=0) < NOISE  # noise alone
            inside = image[top:bottom, left:right] > NOISE
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()

    def test_masks_are_of_the_pixels_that_are_seen(self) -> None:
        x, y = _any_nets.scenes(6, 2, 2).train
        assert y.max() <= 10
        assert ((x[..., 0] > NOISE) <= (y > 0)).all()  # what is brighter than noise is of a thing

    def test_parts_share_no_image(self) -> None:
        parts = [{image.tobytes() for image in x} for x, _ in _any_nets.fashion(3000, 1000)]
        assert not parts[0] & parts[1]
        # Fashion-MNIST itself repeats an image now and then
        assert len(parts[0] & parts[2]) <= 2
