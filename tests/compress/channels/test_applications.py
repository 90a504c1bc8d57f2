"""The networks of `keras.applications`: every channel but the outputs' can leave, exactly.

Six of them are checked in the default run, the smallest of each family under the marker
`slow`, and all 40 under `matrix`, whose results stand in docs/channels.md:

    python -m tests.compress.channels.test_applications --write docs/channels.md
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.measure import count_macs
from compress.prune.channels import prune_channels
from compress.prune.channels.coupling import coupling_of
from compress.prune.channels.pruning import _mask_of
from tests.compress.channels.law import compare, outputs_of, randomize, reference

# smallest inputs that the constructors accept with their classifier on top
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
REPRESENTATIVE = (
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "EfficientNetB0",
    "ResNet50V2",
    "VGG16",
)
FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
)
SHARES = (0.5, 0.25)


@dataclass(frozen=True)
class Result:
    """What was found for one network and share."""

    name: str
    share: float
    macs: tuple[int, int]
    params: tuple[int, int]
    groups: int
    frozen: str
    round_to: str
    law: float
    litert: float | None


def constructors() -> list[str]:
    """Names of all constructors of `keras.applications`."""
    import inspect

    import keras

    members = inspect.getmembers(keras.applications, inspect.isfunction)
    return sorted(name for name, _ in members)


def build(name: str) -> Any:
    """Builds a network without pretrained weights, with random weights everywhere.

    It ends in logits: behind a softmax that random weights saturate all errors vanish.
    """
    import keras

    size = SMALLEST.get(name, 32)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    randomize(model, np.random.default_rng(0))
    return model


def examine(model: Any, name: str, share: float, folder: Path | None) -> Result:
    """Prunes to a share of the MACs and checks target, frozen units, law, file, LiteRT.

    Args:
        model: From `build`.
        name: Its constructor.
        share: Of the MACs.
        folder: Where to save and convert; None: neither is checked.
    """
    import keras

    result = prune_channels(model, macs=share)
    report = result.report
    assert count_macs(model).macs == report.macs[0]
    assert count_macs(result.model).macs == report.macs[1]
    assert abs(report.macs[1] / report.macs[0] / share - 1) <= 0.02
    assert not report.unknown
    reasons = [frozen.reason for frozen in report.frozen]
    assert reasons == [f"model output '{model.output_names[0]}'"]
    x = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:])) * 64 + 128
    x = x.astype(np.float32)
    coupling = coupling_of(model)
    received = outputs_of(result.model, x)
    law = compare(reference(coupling, _mask_of(coupling, result.kept), x), received)
    litert = None
    if folder is not None:
        path = folder / f"{name}.keras"
        result.model.save(path)
        again = keras.saving.load_model(path, compile=False)
        compare(received, outputs_of(again, x), 1e-6)
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
        path.unlink()
        litert = _litert(result.model, x[:1], folder, received[0][:1])
    return Result(
        name, share, report.macs, report.params, len(report.groups), "; ".join(reasons),
        report.round_to, law, litert,
    )  # fmt: skip


def _litert(model: Any, x: Any, folder: Path, expected: Any) -> float:
    """Converts, runs the file and returns its largest difference, as a share of the scale."""
    from compress.export.litert import export_litert
    from compress.measure.runtimes import LiteRTSession

    path = folder / "model.tflite"
    export_litert(model, path, quantize=False)
    session = LiteRTSession(path, threads=1)
    session.set_input(x)
    session.invoke()
    return compare([expected], [session.output()], 1e-4)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_law(name: str, tmp_path: Path) -> None:
    model = build(name)
    for share in SHARES:
        examine(model, name, share, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, tmp_path: Path) -> None:
    model = build(name)
    for share in SHARES:
        examine(model, name, share, tmp_path)


@pytest.mark.matrix
def test_all(tmp_path: Path) -> None:
    results = run_all(tmp_path)
    assert len(results) == 40 * len(SHARES)


def run_all(folder: Path, only: str = "") -> list[Result]:
    """Examines every network (whose name contains `only`) at every share."""
    import keras

    results, failed = [], []
    for name in constructors():
        if only not in name:
            continue
        started = time.perf_counter()
        try:
            model = build(name)
            found = [examine(model, name, share, folder) for share in SHARES]
        except Exception as error:  # the other networks are worth their hour all the same
            failed.append(f"{name}: {error}")
            print(f"{name} FAILED: {error}", flush=True)
            continue
        results += found
        laws = ", ".join(f"{result.share}x law {result.law:.1e}" for result in found)
        print(f"{name}: {laws}, {time.perf_counter() - started:.0f} s", flush=True)
        del model
        keras.backend.clear_session()
    assert not failed, failed
    return results


def table(results: list[Result]) -> str:
    """Returns the results as a Markdown table."""
    lines = [
        "| network | target | MACs before | after | parameters before | after | groups | held "
        "| kept numbers are multiples of | law error | LiteRT error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for item in results:
        litert = "-" if item.litert is None else f"{item.litert:.1e}"
        lines.append(
            f"| {item.name} | {item.share:g}x | {item.macs[0]:,} | {item.macs[1]:,} "
            f"({item.macs[1] / item.macs[0]:.4f}x) | {item.params[0]:,} | {item.params[1]:,} "
            f"| {item.groups} | {item.frozen} | {item.round_to} | {item.law:.1e} | {litert} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a constructor's name")
    parser.add_argument("--write", type=Path, help="Markdown file to write the table to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        text = table(run_all(Path(place), arguments.only))
    print(text)
    if arguments.write:
        page = arguments.write.read_text("utf-8")
        head, tail = page.split("<!-- table -->")[0], page.split("<!-- /table -->")[1]
        arguments.write.write_text(f"{head}<!-- table -->\n{text}<!-- /table -->{tail}", "utf-8")
