"""Prunes a ResNet-20 that was trained in Keras with Torch-Pruning, and trains nothing.

    python benchmarks/peers/torch_pruning_cut.py --weights resnet20.npz --data fashion.npz
        --targets 0.5,0.25,0.125 --out FOLDER

See `torch_pruning_resnet20.py`, whose network, pruner and exports (`export_resnet20.py`) these
are. Global magnitude pruning in one step, and the same share of every layer, come to each target
in Torch-Pruning's own count of operations. The folder gets "cut.json" and, of each network, an
archive of its weights under Keras's names: what follows is done to all networks in Keras.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_pruning_resnet20 import (
    THREADS,
    Arrays,
    accuracy,
    channels,
    chosen,
    multiplications,
    one_shot,
    ported,
    tensors,
    verified,
    versions,
)

ROUND_TO = 4
SCOPES = {"global": True, "layer": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="archive of weights")
    parser.add_argument("--data", type=Path, required=True, help="archive of examples")
    parser.add_argument("--targets", required=True, help="shares of the operations, with commas")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    with np.load(arguments.weights) as archive:
        weights = dict(archive)
    with np.load(arguments.data) as archive:
        data = tensors(dict(archive))
    dense = ported(weights)
    record: dict[str, Any] = {
        "versions": versions(), "dense": verified(dense, weights, data), "variants": [],
    }  # fmt: skip
    for scope, together in SCOPES.items():
        way = partial(one_shot, round_to=ROUND_TO, together=together)
        for target in map(float, arguments.targets.split(",")):
            began = time.perf_counter()
            ratio, model = chosen(dense, way(dense), target)
            seconds = time.perf_counter() - began
            name = f"{scope}-{target:g}.npz"
            np.savez(arguments.out / name, **exported(model))
            record["variants"].append({
                "scope": scope, "target": target, "file": name, "pruning_ratio": ratio,
                "channels": channels(model), "macs": multiplications(model),
                "val_accuracy": accuracy(model.eval(), data, "val"), "search_s": seconds,
            })  # fmt: skip
    (arguments.out / "cut.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def exported(model: nn.Module) -> Arrays:
    """Returns a network's weights by Keras's names: what `ported` undoes."""
    found: Arrays = {}
    for layer, module in model.named_children():
        state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
        if isinstance(module, nn.Conv2d):
            found[f"{layer}/kernel"] = state["weight"].transpose(2, 3, 1, 0)
        elif isinstance(module, nn.Linear):
            found[f"{layer}/kernel"] = state["weight"].T
            found[f"{layer}/bias"] = state["bias"]
        else:
            found[f"{layer}/gamma"], found[f"{layer}/beta"] = state["weight"], state["bias"]
            found[f"{layer}/moving_mean"] = state["running_mean"]
            found[f"{layer}/moving_variance"] = state["running_var"]
    return found


if __name__ == "__main__":
    main()
