"""What the benchmarks of repair share: ways to prune and to repair, and losses in points."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._common import Mean
from benchmarks._grail import compensate
from benchmarks._peers import PEERS
from benchmarks.prune_resnet20 import Variants
from compress.plan import ChannelOptions

EXAMPLES = 1000
"""Unlabelled images: what selects and what is held back are among them."""
ROUND_TO = 4
BATCHES = -(-EXAMPLES // 256)
"""All of them re-estimate statistics."""
PEER = Path(__file__).parent / "peers" / "torch_pruning_cut.py"
Inputs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """How channels are chosen, and what is done to the net that is left.

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
    "none": Way("l2, uniform widths, no repair", "l2", "layer", "nothing"),
    "statistics": Way("the same, statistics re-estimated", "l2", "layer", "statistics"),
    "grail alone": Way("the same, GRAIL's ridge alone", "l2", "layer", "grail"),
    "grail": Way("the same, GRAIL's ridge, statistics re-estimated", "l2", "layer",
                 "grail, statistics"),
    "alone": Way("the same, repaired, each kernel alone", "l2", "layer", "repair alone"),
    "l2": Way("the same, repaired", "l2", "layer", "repair"),
    "reconstruction": Way("criterion `reconstruction`, uniform widths, repaired",
                          "reconstruction", "layer", "repair"),
    "damage": Way("criterion `reconstruction`, widths by damage, repaired", "reconstruction",
                  "damage", "repair", ChannelOptions().tries),
}  # fmt: skip
TORCH = {
    "torch-pruning layer": "torch-pruning, l2, uniform widths, statistics re-estimated",
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
    """Returns inputs drawn from the training part."""
    from compress.data import drawn_inputs

    found: Inputs = drawn_inputs(variants.data, count, seed)
    return found


def pruned(
    dense: Any, way: Way, target: float, x: Inputs, seed: int
) -> tuple[Any, dict[str, float]]:
    """Removes channels and repairs what is left.

    Args:
        dense: Stays as it is.
        way: How.
        target: Share of the MACs to keep.
        x: Examples, all that are looked at.
        seed: Of what is drawn and held back.

    Returns:
        The net, and seconds: "choice" (measuring of damages included), "cut" (building the
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
    """Returns the MACs of one inference."""
    from compress.measure import count_macs

    return int(count_macs(model).macs)


def torch_pruned(
    variants: Variants, targets: Sequence[float]
) -> dict[tuple[str, float], tuple[Any, dict[str, Any]]]:
    """Lets Torch-Pruning remove channels of the same dense net; nothing is repaired or trained.

    Returns:
        By name in `TORCH` and target: the net in Keras, and what the peer says of it.

    Raises:
        RuntimeError: A net is another one in Keras than it was in Torch.
    """
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights, data = folder / "weights.npz", folder / "data.npz"
        subprocess.run(
            [sys.executable, "-m", "benchmarks.peers.export_resnet20", "--model",
             str(variants.dense.file), "--out", str(weights), "--data", str(data)], check=True,
        )  # fmt: skip
        subprocess.run(
            [PEERS["torch-pruning"].python(), str(PEER), "--weights", str(weights), "--data",
             str(data), "--targets", ",".join(map(str, targets)), "--out", str(folder)],
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


def points(dense: float, values: Sequence[float]) -> str:
    """Returns how many points are lost: "0.21 +- 0.03", the mean and its standard error."""
    return Mean.of([100 * (dense - value) for value in values]).number(2)


def by_name(runs: Mapping[str, Mapping[str, Any]], field: str) -> dict[str, list[Any]]:
    """Returns a field of all runs "NAME, seed 3" by NAME, in the order of the runs."""
    found: dict[str, list[Any]] = {}
    for key, record in runs.items():
        found.setdefault(key.rpartition(", seed")[0], []).append(record[field])
    return found


def span(values: Sequence[float], digits: int = 0) -> str:
    """Returns "3" or "3 to 5": the smallest and the largest."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def checked(stored: Any, variants: Variants) -> None:
    """Keeps which dense net a result is of.

    Raises:
        InputError: It was begun with another one.
    """
    from compress.core.errors import InputError

    sha256 = stored.result.setdefault("dense_sha256", variants.dense.sha256)
    if sha256 != variants.dense.sha256:
        raise InputError("the dense net must be the one that the result began with (--dense).")
