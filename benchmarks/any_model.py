"""Models of many kinds at half their MACs: one call for all of them, evaluated with their files.

    python -m benchmarks.any_model [--nets unet,detector] [--aeon WHEEL] [--seeds 0,1,2]
        [--resume FILE]

Each net of _any_nets.py is compiled and fitted as its user would, then
`compress_model(net, data, channels=0.5, sparsity=0, batch_size=32)` removes channels, repairs,
fine-tunes (1,000 steps) with the net itself as teacher, exports and measures. Beside it the dense
net is trained on for as long in the same way. No part of the data shares a source image, file or
series with another. A seed draws what repairs and the batches; of the sets of series, which are
small, it splits and trains too. The test part is read once a file. Series need the package aeon's
wheel (`pip download aeon --no-deps`), KerasHub's nets the package keras-hub.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import _any_nets, _small_nets
from benchmarks._any_nets import Parts
from benchmarks._common import Benchmark, Mean, not_run, seed_list, table, told_latency, verdict
from benchmarks._stored import ROOT, Stored, was_run
from benchmarks.repair_nets import code
from compress.core.errors import build_unknown_name_error

if TYPE_CHECKING:
    import keras

LABELS = "sparse_categorical_crossentropy"
COMMAND: dict[str, Any] = {"channels": 0.5, "sparsity": 0.0, "batch_size": 32, "as_long": True}
"""What is asked of all of them; see `trained` for what they were before."""


@dataclass(frozen=True)
class Recipe:
    """A net, its data, and its settings of `compile` and `fit`.

    Attributes:
        text: What it is, for the table.
        build: Makes it, untrained.
        data: Makes its parts; with `series` of a seed and aeon's wheel.
        loss, metrics: As `compile` takes them.
        epochs, rate: Of Adam with a cosine schedule, 64 examples at a time.
        series: Whether splits and trainings are drawn by the seed.
        peer: The package that it needs, in `PEERS`.
        task: Where labels do not tell it.
    """

    text: str
    build: Callable[[], keras.Model]
    data: Callable[..., Parts]
    loss: Any = LABELS
    metrics: Any = None
    epochs: int = 8
    rate: float = 2e-3
    series: bool = False
    peer: str = ""
    task: dict[str, str] = field(default_factory=dict)


RECIPES = {
    "unet": Recipe("U-Net: scene -> mask", _any_nets.unet, _any_nets.scenes),
    "two_inputs": Recipe("image and table -> class", _any_nets.two_inputs, _any_nets.halves),
    "detector": Recipe(
        "detector: scene -> class and box, GIoU loss", _any_nets.detector, _any_nets.objects,
        {"class": LABELS, "box": _any_nets.giou_loss}, {"box": [_any_nets.box_iou]}, epochs=10,
    ),
    "heads": Recipe(
        "two heads: class and four numbers", _any_nets.heads, _any_nets.traits,
        {"class": LABELS, "ink": "mse"},
    ),
    "lstm": Recipe(
        "LSTM: JapaneseVowels -> speaker", _any_nets.lstm,
        partial(_any_nets.series, "JapaneseVowels"), epochs=60, series=True,
    ),
    "conv1d": Recipe(
        "Conv1D: BasicMotions -> motion", _any_nets.conv1d,
        partial(_any_nets.series, "BasicMotions"), epochs=60, series=True,
    ),
    "tokens": Recipe("characters -> kinds of tokens", _any_nets.tokens, _any_nets.characters),
    "autoencoder": Recipe(
        "autoencoder", _small_nets.autoencoder, _any_nets.returned, "mse",
        task={"task": "reconstruction"},
    ),
    "hub_vit": Recipe(
        "KerasHub ViT", _any_nets.hub_vit, _any_nets.images, peer="keras-hub", rate=1e-3
    ),
    "hub_hgnet": Recipe(
        "KerasHub HGNetV2", _any_nets.hub_hgnet, _any_nets.images, peer="keras-hub"
    ),
}  # fmt: skip


def trained(name: str, recipe: Recipe, parts: Parts, seed: int) -> keras.Model:
    """Return a fitted net: its weights from runs/benchmarks, or fitted now where they are not."""
    import keras

    keras.utils.set_random_seed(seed)
    model = recipe.build()
    x, y = parts.train
    first = next(iter(x.values())) if isinstance(x, dict) else x
    steps = recipe.epochs * -(-len(first) // 64)
    schedule = keras.optimizers.schedules.CosineDecay(recipe.rate, steps)
    model.compile(keras.optimizers.Adam(schedule), recipe.loss, metrics=recipe.metrics)
    data = recipe.data.func if isinstance(recipe.data, partial) else recipe.data
    how = f"{code(recipe.build)}, {code(data)}, {recipe.epochs} epochs, {recipe.rate:g}, {seed}"
    known = hashlib.sha256(how.encode()).hexdigest()[:10]
    file = ROOT / "runs" / "benchmarks" / f"any-{name}-{known}.weights.h5"
    if file.exists():
        model.load_weights(file)
        return model
    model.fit(x, y, batch_size=64, epochs=recipe.epochs, verbose=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save_weights(file)
    return model


def compressed(name: str, recipe: Recipe, seed: int, aeon: str) -> dict[str, Any]:
    """Fit a net, compress it, and return quality, size and time of its files."""
    from compress import compress_model

    parts = recipe.data(seed, aeon) if recipe.series else recipe.data()
    model = trained(name, recipe, parts, seed if recipe.series else 0)
    given = [part[0] if recipe.task else part for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        result = compress_model(
            model, given[0], val=given[1], test=given[2], seed=seed, formats=["float32"],
            out=Path(folder) / "out", **COMMAND, **recipe.task,
        )  # fmt: skip
        (record,) = result.report.compressed
        files = {row.artifact.variant: row for row in result.report.rows}
        quality = next(iter(files["dense"].artifact.test))
        report = record.channels or {}
        return {
            "quality": quality,
            "as_long": (record.as_long or {})["test"][quality],
            "held": _held(report),
            "seconds": record.seconds,
            **{
                variant: {
                    "test": row.artifact.test[quality],
                    "all": row.artifact.test,
                    "macs": row.artifact.macs,
                    "params": row.artifact.params,
                    "bytes": row.artifact.size_bytes,
                    "latency": row.latency.to_json() if row.latency else None,
                }
                for variant, row in files.items()
            },
        }


def _held(report: dict[str, Any]) -> dict[str, int]:
    """Return the numbers of channels that cannot be removed, by the reason."""
    found: dict[str, int] = {}
    for row in report.get("frozen", ()):
        found[row["reason"]] = found.get(row["reason"], 0) + row["units"]
    for name, kind, reason in report.get("unknown", ()):
        found[f"{name} ({kind}): {reason}"] = 0
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    def names(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        for name in given:
            if name not in RECIPES:
                raise argparse.ArgumentTypeError(
                    str(build_unknown_name_error("net", name, tuple(RECIPES)))
                )
        return given

    parser.add_argument("--nets", type=names, default=tuple(RECIPES))
    parser.add_argument("--aeon", default="", help="the wheel of aeon, for the sets of series")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measure what is missing."""
    runs = stored.result.setdefault("runs", {})
    skipped = stored.result.setdefault("skipped", {})
    for seed in given.seeds:
        for name in given.nets:
            recipe, key = RECIPES[name], f"{name}, seed {seed}"
            if key in runs:
                continue
            state = stored.provenance["peers"].get(recipe.peer, "")
            if recipe.peer and not was_run(state):
                skipped[name] = not_run(state)["not run"]
                continue
            runs[key] = compressed(name, recipe, seed, given.aeon)
            skipped.pop(name, None)
            told = {place: runs[key][place]["test"] for place in ("dense", "pruned")}
            print(key, json.dumps(told), f"{runs[key]['seconds']:.0f} s", flush=True)
            stored.save()


def _of(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for key, row in result["runs"].items() if key.startswith(f"{name}, ")]


def qualities(result: dict[str, Any]) -> str | None:
    """Return the table of qualities before and after, beside the dense net trained as long."""
    rows = []
    for name, recipe in RECIPES.items():
        found = _of(result, name)
        if not found:
            if name in result["skipped"]:
                rows.append([recipe.text, f"not run: {result['skipped'][name]}", *[""] * 5])
            continue
        dense, small = (Mean.of([row[place]["test"] for row in found])
                        for place in ("dense", "pruned"))  # fmt: skip
        long = Mean.of([row["as_long"] for row in found])
        macs = [row["dense"]["macs"] / row["pruned"]["macs"] for row in found]
        rows.append([
            recipe.text, found[0]["quality"], dense.percent(), long.percent(), small.percent(),
            verdict(small, long), f"{min(macs):.2f}x to {max(macs):.2f}x",
        ])  # fmt: skip
    head = ["model", "evaluated with", "original file", "original, trained as long", "small file",
            "small file against that, pp", "MACs, old/new"]  # fmt: skip
    return table(head, rows)


def costs(result: dict[str, Any]) -> str | None:
    """Return the table of the files' costs and of the channels that stay."""
    rows = []
    for name, recipe in RECIPES.items():
        found = _of(result, name)
        if not found:
            continue
        row = found[0]
        before, small = row["dense"], row["pruned"]
        why = "; ".join(
            f"{count} of {reason}" if count else reason for reason, count in row["held"].items()
        )
        rows.append([
            recipe.text, f"{before['macs'] / 1e6:.2f} M", f"{small['macs'] / 1e6:.2f} M",
            f"{before['bytes'] / 1000:.0f} -> {small['bytes'] / 1000:.0f} kB",
            told_latency(before["latency"])[0], *told_latency(small["latency"]), why or "none",
        ])  # fmt: skip
    head = ["model", "MACs", "after", "file", "time of one example", "after", "old/new",
            "channels that stay, and why"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "any_model", __doc__, run, {"qualities": qualities, "costs": costs}, arguments,
    peers=("keras-hub",), resumable=True, grows=("seeds", "nets", "aeon"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
