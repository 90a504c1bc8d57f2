"""Ways to prune and to reconstruct, those of peers among them, and losses in percentage points."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._common import PEERS, Mean
from benchmarks.resnet20 import Variants
from compress.core.errors import InputError
from compress.data import sample_inputs
from compress.plan import ChannelOptions

EXAMPLES = 1000
"""Unlabelled images: what selects and what is held back are among them."""
ROUND_TO = 4
BATCHES = -(-EXAMPLES // 256)
"""All of them re-estimate statistics."""
PEER = Path(__file__).parent / "peers" / "torch_pruning_cut.py"
Inputs = npt.NDArray[np.float32]
RIDGE = 1e-3
"""Of GRAIL, relative to the mean of the kept channels' diagonal."""
CHECKED = 256
"""Validation examples whose logits are stored, to check a port against."""
Numbers = npt.NDArray[np.float64]
Kept = Mapping[str, tuple[npt.NDArray[np.int64] | None, ...]]


@dataclass(frozen=True)
class Way:
    """A choice of channels, and the treatment of the smaller net.

    Attributes:
        label: In tables.
        criterion, scope, tries: See `ChannelOptions`.
        after: A name in `AFTER`.
    """

    label: str
    criterion: str
    scope: str
    after: str
    tries: int = 0


WAYS = {
    "none": Way("l2, uniform channel counts, not reconstructed", "l2", "layer", "nothing"),
    "statistics": Way("the same, statistics re-estimated", "l2", "layer", "statistics"),
    "grail alone": Way("the same, GRAIL's ridge alone", "l2", "layer", "grail"),
    "grail": Way("the same, GRAIL's ridge, statistics re-estimated", "l2", "layer",
                 "grail, statistics"),
    "alone": Way("the same, reconstructed, each kernel alone", "l2", "layer", "repair alone"),
    "l2": Way("the same, reconstructed", "l2", "layer", "repair"),
    "reconstruction": Way("criterion `reconstruction`, uniform channel counts, reconstructed",
                          "reconstruction", "layer", "repair"),
    "damage": Way("criterion `reconstruction`, channel counts by output error, reconstructed",
                  "reconstruction", "output_error", "repair", ChannelOptions().tries),
}  # fmt: skip
TORCH = {
    "torch-pruning layer": "torch-pruning, l2, uniform channel counts, statistics re-estimated",
    "torch-pruning global": "torch-pruning, l2 over all layers, statistics re-estimated",
}
"""By the name of a row: how the peer's nets are called."""


def _statistics(pruned: Any, dense: Any, x: Inputs, kept: Any, seed: int) -> None:
    from compress.prune.recalibrate import recalibrate

    recalibrate(pruned, x, BATCHES, seed=seed)


def _grail(pruned: Any, dense: Any, x: Inputs, kept: Any, seed: int) -> None:
    compensate(pruned, dense, x, kept)


def _both(pruned: Any, dense: Any, x: Inputs, kept: Any, seed: int) -> None:
    _grail(pruned, dense, x, kept, seed)
    _statistics(pruned, dense, x, kept, seed)


def _repair(pruned: Any, dense: Any, x: Inputs, kept: Any, seed: int) -> None:
    from compress.reconstruction import repair

    repair(pruned, dense, x, kept=kept, examples=len(x), seed=seed)


def _alone(pruned: Any, dense: Any, x: Inputs, kept: Any, seed: int) -> None:
    from compress.reconstruction import repair

    repair(pruned, dense, x, kept=kept, examples=len(x), joint=False, seed=seed)


AFTER: dict[str, Callable[[Any, Any, Inputs, Any, int], None]] = {
    "nothing": lambda *_: None,
    "statistics": _statistics,
    "grail": _grail,
    "grail, statistics": _both,
    "repair alone": _alone,
    "repair": _repair,
}


def examples(variants: Variants, seed: int, count: int = EXAMPLES) -> Inputs:
    """Return inputs drawn from the training part, (count, ...)."""
    found: Inputs = sample_inputs(variants.data, count, seed)
    return found


def pruned(
    dense: Any, way: Way, target: float, x: Inputs, seed: int
) -> tuple[Any, dict[str, float]]:
    """Remove channels and repair the smaller net.

    Args:
        dense: Stays as it is.
        way: How.
        target: Share of the MACs to keep.
        x: Examples, all that are looked at.
        seed: Of what is drawn and held back.

    Returns:
        The net, and seconds: "choice" (measuring of output errors included), "cut" (building the
        smaller net), "after" (statistics, ridge or repair).
    """
    from compress.prune.channels import prune_channels

    times = [time.perf_counter()]
    options = ChannelOptions(
        criterion=way.criterion, scope=way.scope, round_to=ROUND_TO, tries=way.tries
    )
    result = prune_channels(
        dense, options, macs=target, data=x, repair=False, seed=seed,
        on_choice=lambda _: times.append(time.perf_counter()),
    )  # fmt: skip
    times.append(time.perf_counter())
    AFTER[way.after](result.model, dense, x, result.kept, seed)
    times.append(time.perf_counter())
    return result.model, dict(zip(("choice", "cut", "after"), np.diff(times).tolist(),
                                  strict=True))  # fmt: skip


def macs_of(model: Any) -> int:
    """Return the MACs of one inference."""
    from compress.measure import count_macs

    return int(count_macs(model).macs)


def torch_pruned(
    variants: Variants,
    targets: Sequence[float],
    scopes: Sequence[str] = ("global", "layer"),
    start: Any = None,
) -> dict[tuple[str, float], tuple[Any, dict[str, Any]]]:
    """Remove channels with Torch-Pruning; nothing is reconstructed or trained.

    Args:
        variants: The data and the dense net.
        targets: Shares of the operations to keep, of those that `start` has.
        scopes: "global" ranks the channels of all layers together; "layer" keeps the same share of
            every layer.
        start: A net to prune that may have been pruned before; default: the dense net.

    Returns:
        By name in `TORCH` and target: the net in Keras, and what the peer says of it.

    Raises:
        RuntimeError: A net is another one in Keras than it was in Torch.
    """
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights, data = folder / "weights.npz", folder / "data.npz"
        export_arrays(start or variants.dense, variants.data, weights, data)
        subprocess.run(
            [PEERS["torch-pruning"].python(), str(PEER), "--weights", str(weights), "--data",
             str(data), "--targets", ",".join(map(str, targets)), "--scopes", ",".join(scopes),
             "--out", str(folder)],
            check=True,
        )  # fmt: skip
        for record in json.loads((folder / "cut.json").read_text("utf-8"))["variants"]:
            model = variants.as_wide(record)
            with np.load(folder / record.pop("file")) as stored:
                for variable in model.variables:
                    if variable.path in stored:
                        variable.assign(stored[variable.path])
            there, here = record["val_accuracy"], variants.accuracy(model, "val")
            if abs(there - here) > 1e-3:
                raise RuntimeError(f"a net of torch-pruning has {there} there and {here} here")
            found[f"torch-pruning {record['scope']}", record["target"]] = model, record
    return found


def export_arrays(model: Any, data: Any, weights: Path, examples: Path) -> None:
    """Write a model and its data as NumPy archives, for a peer without Keras.

    Args:
        model: The trained model.
        data: Data set with the parts train, val and test.
        weights: Archive to write: every variable by its path, logits of the first validation
            examples and the accuracies that a port must have.
        examples: Archive to write: inputs "{part}/x" and labels "{part}/y".
    """
    from compress.train.predict import predict_logits

    arrays = {variable.path: variable.numpy() for variable in model.variables}
    for part in ("val", "test"):
        logits = predict_logits(model, data, part)
        arrays[f"reference/{part}"] = (logits.argmax(-1) == data.split(part).y).mean()
        if part == "val":
            arrays["reference/logits"] = logits[:CHECKED]
    np.savez(weights, **arrays)
    parts = ("train", "val", "test")
    inputs = {f"{part}/x": data.inputs(part) for part in parts}
    labels = {f"{part}/y": data.split(part).y for part in parts}
    np.savez_compressed(examples, **inputs, **labels)


def points(dense: float, values: Sequence[float]) -> str:
    """Return the points lost, "0.21 +- 0.03": the mean and its standard error."""
    return Mean.of([100 * (dense - value) for value in values]).number(2)


def by_name(runs: Mapping[str, Mapping[str, Any]], field: str) -> dict[str, list[Any]]:
    """Return a field of all runs "NAME, seed 3" by NAME, in the order of the runs."""
    found: dict[str, list[Any]] = {}
    for key, record in runs.items():
        found.setdefault(key.rpartition(", seed")[0], []).append(record[field])
    return found


def span(values: Sequence[float], digits: int = 0) -> str:
    """Return "3" or "3 to 5": the smallest and the largest."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def checked(stored: Any, variants: Variants) -> None:
    """Record the SHA-256 of the dense net; refuse to go on with another one.

    Raises:
        InputError: It was begun with another one.
    """
    sha256 = stored.result.setdefault("dense_sha256", variants.net.sha256)
    if sha256 != variants.net.sha256:
        raise InputError("the dense net must be the one that the result began with (--dense).")


def reconstruction(gram: Numbers, kept: npt.NDArray[np.int64], ridge: float = RIDGE) -> Numbers:
    """Return B, the linear reconstruction of all channels from the kept ones, (channels, kept).

    Args:
        gram: Sums of products of channels, (channels, channels).
        kept: Indices of the kept ones.
        ridge: Relative to the mean of the kept ones' diagonal.
    """
    own = gram[np.ix_(kept, kept)]
    scale = ridge * (float(np.diag(own).mean()) + 1e-12)
    found: Numbers = np.linalg.solve(own + scale * np.eye(len(kept)), gram[kept]).T
    return found


def grams(dense: Any, x: npt.NDArray[Any]) -> dict[str, Numbers]:
    """Return the Gram matrix of the input channels of each Conv2D and Dense, by name."""
    import keras

    from compress.model.program import Node
    from compress.model.recording import record_program

    found: dict[str, Numbers] = {}

    def watch(node: Node, given: list[Any]) -> None:
        if isinstance(node.operation, keras.layers.Conv2D | keras.layers.Dense):
            rows = np.asarray(given[0])
            rows = rows.reshape(-1, rows.shape[-1])
            # float32 products of a batch, summed in float64
            found[node.name] = found.get(node.name, 0.0) + (rows.T @ rows).astype(np.float64)

    program = record_program(dense)
    for start in range(0, len(x), 256):
        program.run([x[start : start + 256]], watch)
    return found


def compensate(pruned: Any, dense: Any, x: npt.NDArray[Any], kept: Kept) -> None:
    """Refit the kernels of a pruned model in place, by GRAIL: a ridge on the dense model's inputs.

    Of each layer that reads fewer channels than before, the Gram matrix G of its input channels in
    the dense model tells how the channels H that were there follow from those that are kept, P:

        B = G[H, P] (G[P, P] + lambda I)^-1,   lambda = 1e-3 * mean(diag(G[P, P])),   W' = W B

    with positions and examples as rows, no means taken off, and the same B at every position of a
    kernel. After it, the authors re-estimate the statistics of batch normalizations.

    Args:
        pruned: The smaller model.
        dense: What it was pruned from: convolutions without groups, Dense, normalizations.
        x: Examples as the models take them, (n, ...).
        kept: Kept indices of the dense model's weights.

    Reference:
        Tang, Wang, Thiele & Saukh 2026, "GRAIL: Post-hoc Compensation by Linear Reconstruction for
        Compressed Networks" (arXiv 2602.23795); lambda as in their code
        (TWWinde/GRAIL_Compensation).
    """
    from compress.model.keras_internals import list_named_weights

    paths = {id(variable): path for path, variable in list_named_weights(dense)}
    for name, gram in grams(dense, x).items():
        kernel = dense.get_layer(name).kernel
        *_, inputs, outputs = kept[paths[id(kernel)]]
        if inputs is None:
            continue
        whole = kernel.numpy().astype(np.float64)
        if outputs is not None:
            whole = whole[..., outputs]
        refitted = np.einsum("...ho,hk->...ko", whole, reconstruction(gram, inputs))
        pruned.get_layer(name).kernel.assign(refitted.astype(np.float32))
