"""The networks of `keras.applications`: every channel but the outputs' can leave, exactly.

Two of them are checked in the default run, small ones of most families under the marker
`slow`, and all 40 under `matrix`, whose figures are in docs/results/channels.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.measure import count_macs
from compress.model.recording import record_program
from compress.prune.channels import prune_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.report import _build_mask
from tests.compress.prune.channels.law import compare, outputs_of, randomize, reference

# smallest inputs that the constructors accept with their classifier on top
SMALLEST = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
FAMILIES = ("ConvNeXtTiny", "EfficientNetB0", "MobileNetV3Small", "ResNet50", "VGG16")
"""One of each kind: `test_all` has all 40."""
OFTEN = ("ConvNeXtTiny", "EfficientNetB0", "VGG16")
"""The others are `matrix`: `test_blocks.py` has blocks of a ResNet and a MobileNet."""
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


class Chaotic(Exception):
    """The sliced network itself amplifies rounding beyond the tolerance."""


def build(name: str, seed: int = 0) -> Any:
    """Builds a network without pretrained weights, with random weights everywhere.

    It ends in logits: behind a softmax that random weights saturate all errors vanish. And its
    normalization statistics are near those of its activations: else the signal dies out on the
    way and the output hangs on biases alone.
    """
    import keras

    size = SMALLEST.get(name, 32)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    rng = np.random.default_rng(seed)
    randomize(model, rng)
    near_its_own_statistics(model, rng)
    return model


def images(rng: np.random.Generator, model: Any, count: int) -> Any:
    """Draws images of bytes, smooth enough to differ in their means."""
    size = model.input_shape[1:]
    means = rng.uniform(48, 208, size=(count, 1, 1, size[-1]))
    return (rng.normal(size=(count, *size)) * 48 + means).astype(np.float32)


def near_its_own_statistics(model: Any, rng: np.random.Generator) -> None:
    """Sets moving means and variances to those of random images, then shakes them."""
    import keras

    program = record_program(model)
    layers = {
        id(node.operation): node.operation
        for node in program.walk()
        if isinstance(node.operation, keras.layers.BatchNormalization)
    }
    momenta = {key: layer.momentum for key, layer in layers.items()}
    for layer in layers.values():
        layer.momentum = 0.0
    program.run([images(rng, model, 16)], training=lambda operation: id(operation) in layers)
    for key, layer in layers.items():
        layer.momentum = momenta[key]
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        layer.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * rng.normal(size=mean.shape))
        layer.moving_variance.assign((variance + 1e-3) * rng.uniform(0.5, 1.5, mean.shape))


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
    x = images(np.random.default_rng(1), model, 2)
    coupling = analyze_coupling(model)
    received = outputs_of(result.model, x)
    one, two = received[0]
    hangs = float(np.abs(one - two).max() / np.abs(one).max())
    assert hangs > 1e-3, f"the output hangs on the input by {hangs:.1e} of its scale alone"
    try:
        law = compare(reference(coupling, _build_mask(coupling, result.kept), x), received)
    except AssertionError as error:
        # random statistics may make a network that no two orders of summation agree on
        shaken = x * (1 + 1e-7 * np.random.default_rng(2).normal(size=x.shape))
        (moved,) = outputs_of(result.model, shaken.astype(np.float32))
        difference = float(np.abs(moved - received[0]).max() / np.abs(received[0]).max())
        if difference > float(str(error).split()[2]):
            raise Chaotic(f"{error}; an input shaken by 1e-7: {difference:.1e}") from None
        raise
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


def examined(name: str, folder: Path, shares: Sequence[float] = SHARES) -> list[Result]:
    """Examines a network at the shares; draws its weights anew where they make it chaotic.

    Args:
        name: Its constructor.
        folder: See `examine`.
        shares: Of the MACs.
    """
    for seed in range(4):
        model = build(name, seed)
        try:
            return [examine(model, name, share, folder) for share in shares]
        except Chaotic as reason:
            print(f"{name}, seed {seed}: {reason}", file=sys.stderr)
    raise AssertionError(f"{name}: chaotic with every seed")


def _litert(model: Any, x: Any, folder: Path, expected: Any) -> float:
    """Converts, runs the file and returns its largest difference, as a share of the scale."""
    from compress.exporting.litert import export_litert
    from compress.measure.runtimes.litert import LiteRTSession

    path = folder / "model.tflite"
    export_litert(model, path)
    session = LiteRTSession(path, threads=1)
    session.set_inputs([x])
    session.invoke()
    return compare([expected], session.results(), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in OFTEN else pytest.mark.matrix) for name in FAMILIES],
)
def test_families(name: str, tmp_path: Path) -> None:
    examined(name, tmp_path, SHARES[-1:])


@pytest.mark.matrix
def test_all() -> None:
    results = [result for name in constructors() for result in in_own_process(name)]
    assert len(results) == 40 * len(SHARES)


def in_own_process(name: str) -> list[dict[str, Any]]:
    """Examines a network in a process of its own: one would keep the memory of all 40.

    Returns:
        `Result`s as dictionaries, one a share.

    Raises:
        AssertionError: It broke a law, with the end of what it said.
    """
    command = [sys.executable, "-m", "tests.compress.prune.channels.test_applications", name]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{name}: {run.stderr[-1000:]}"
    found: list[dict[str, Any]] = json.loads(run.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps([asdict(result) for result in examined(sys.argv[1], Path(place))]))
