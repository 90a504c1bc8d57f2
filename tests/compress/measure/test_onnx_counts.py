"""Counts against an independent count of the exported ONNX graph, and published figures.

A few networks and graphs in the default run, 20 random graphs under `slow`; 130 under `matrix`,
and all 40 networks of keras.applications, whose figures are in docs/results/macs.md.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.measure import count_macs
from tests.compress.measure.generator import IMAGE, SEQUENCE, network, of_several
from tests.compress.prune.channels.test_random_graphs import starts
from tests.onnx_macs import exported_macs

EXPORTING = pytest.mark.filterwarnings("ignore")
# multiply-adds in millions, and where they stand
# tf2onnx's optimizers copy the graph again and again, beyond 24 GB with these: without them
HEAVY = ("VGG16", "VGG19", "ConvNeXtLarge", "ConvNeXtXLarge")
# too large even so: exported in two parts, cut before this layer
CUT = {"ConvNeXtXLarge": "convnext_xlarge_stage_2_block_14_depthwise_conv"}
PUBLISHED = {
    "VGG16": (15_470, "hand: sum over its 13 convolutions and 3 dense layers"),
    "ResNet50": (3_800, "He et al. 2016, table 1"),
    "ResNet101": (7_600, "He et al. 2016, table 1"),
    "ResNet152": (11_300, "He et al. 2016, table 1"),
    "MobileNet": (569, "Howard et al. 2017, table 8"),
    "MobileNetV2": (300, "Sandler et al. 2018, table 4"),
    "MobileNetV3Large": (219, "Howard et al. 2019, table 3"),
    "MobileNetV3Small": (56, "Howard et al. 2019, table 3"),
    "NASNetMobile": (564, "Zoph et al. 2018, table 2"),
    "NASNetLarge": (23_800, "Zoph et al. 2018, table 2"),
    "EfficientNetB0": (390, "Tan & Le 2019, table 2"),
    "EfficientNetB1": (700, "Tan & Le 2019, table 2"),
    "EfficientNetB2": (1_000, "Tan & Le 2019, table 2"),
    "EfficientNetB3": (1_800, "Tan & Le 2019, table 2"),
    "EfficientNetB4": (4_200, "Tan & Le 2019, table 2"),
    "EfficientNetB5": (9_900, "Tan & Le 2019, table 2"),
    "EfficientNetB6": (19_000, "Tan & Le 2019, table 2"),
    "EfficientNetB7": (37_000, "Tan & Le 2019, table 2"),
    "ConvNeXtTiny": (4_500, "Liu et al. 2022, table 1"),
    "ConvNeXtSmall": (8_700, "Liu et al. 2022, table 1"),
    "ConvNeXtBase": (15_400, "Liu et al. 2022, table 1"),
    "ConvNeXtLarge": (34_400, "Liu et al. 2022, table 1"),
    "ConvNeXtXLarge": (60_900, "Liu et al. 2022, table 1"),
}


def vgg16_by_hand() -> int:
    """3 x 3 convolutions at 224, 112, 56, 28, 14, then 25088, 4096, 4096, 1000."""
    total, inputs, size = 0, 3, 224
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            total += size * size * 9 * inputs * width
            inputs = width
        size //= 2
    return total + 512 * 7 * 7 * 4096 + 4096 * 4096 + 4096 * 1000


@pytest.mark.slow
def test_vgg16_by_hand() -> None:
    import keras

    assert count_macs(keras.applications.VGG16(weights=None)).macs == vgg16_by_hand()


@EXPORTING
@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2"])
def test_networks_count_like_their_graphs(name: str, tmp_path: Path) -> None:
    found = one(name)
    assert found["macs"] == found["onnx"]
    assert found["unsupported"] == 0
    # published figures are rounded
    assert found["macs"] / 1e6 == pytest.approx(PUBLISHED[name][0], rel=0.02)


def counts_alike(
    seed: int, folder: Path, make: Callable[[int], tuple[Any, list[str]]] = network
) -> list[str]:
    model, used = make(seed)
    analysis = count_macs(model)
    assert analysis.unsupported == ()
    assert analysis.macs == exported_macs(model, folder), f"seed {seed}: {used}"
    return used


@EXPORTING
@pytest.mark.parametrize("seed", range(4))
def test_a_few_graphs(seed: int, tmp_path: Path) -> None:
    counts_alike(seed, tmp_path)


@EXPORTING
@pytest.mark.parametrize("seed", range(1))
def test_a_few_graphs_of_several_outputs(seed: int, tmp_path: Path) -> None:
    counts_alike(seed, tmp_path, of_several)


@EXPORTING
@pytest.mark.slow
@pytest.mark.parametrize("start", starts(100, 10))
def test_graphs_of_several_outputs(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 10):
        counts_alike(seed, tmp_path, of_several)


@EXPORTING
@pytest.mark.slow
@pytest.mark.parametrize("number", [8, pytest.param(34, marks=pytest.mark.matrix)])
def test_random_graphs(number: int, tmp_path: Path) -> None:
    every, hits = set(IMAGE) | set(SEQUENCE), set[str]()
    for seed in range(4, 4 + number):
        hits.update(counts_alike(seed, tmp_path))
    # the first two have the operations that are drawn seldom
    for seed in (28, 41, *range(38, 468)):
        if hits < every and set(network(seed)[1]) - hits:
            hits.update(counts_alike(seed, tmp_path))
    assert hits == every


@EXPORTING
@pytest.mark.matrix
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_all_networks(name: str) -> None:
    found = one(name)
    assert found["macs"] == found["onnx"]
    assert found["unsupported"] == 0


def one(name: str) -> dict[str, Any]:
    """Counts one network of keras.applications at its default size."""
    import keras

    build = getattr(keras.applications, name)
    model = build(weights=None)
    if None in model.input_shape[1:]:  # of MobileNetV3: its paper's size
        model = build(weights=None, input_shape=(224, 224, 3))
    analysis = count_macs(model)
    whole = [model]
    if name in CUT:
        middle = model.get_layer(CUT[name]).input
        whole = [keras.Model(model.input, middle), keras.Model(middle, model.output)]
    with tempfile.TemporaryDirectory() as folder:
        counted = sum(exported_macs(part, Path(folder), name not in HEAVY) for part in whole)
    return {
        "macs": analysis.macs,
        "onnx": counted,
        "unsupported": len(analysis.unsupported),
        "params": analysis.params,
        "peak_bytes": analysis.peak_bytes,
    }


def in_own_process(name: str) -> dict[str, Any]:
    """Counts a network in a process of its own; a converter that runs out of memory fails alone.

    Raises:
        AssertionError: It failed, with the end of what it said.
    """
    command = [sys.executable, "-m", "tests.compress.measure.test_onnx_counts", name]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{name}: {run.stderr[-1000:]}"
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (22 * 2**30, 22 * 2**30))
    print(json.dumps(one(sys.argv[1])))
