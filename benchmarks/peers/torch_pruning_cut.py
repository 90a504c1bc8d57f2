"""Channel pruning by Torch-Pruning of a ResNet-20 that was trained in Keras, without training.

`benchmarks._repair` exports weights and data and runs it with the Python of an environment of its
own, which needs neither TensorFlow nor paretune:

    python3 -m venv /tmp/tp
    /tmp/tp/bin/pip install torch torchvision torch-pruning==1.6.1
    /tmp/tp/bin/python benchmarks/peers/torch_pruning_cut.py --weights resnet20.npz \\
        --data fashion.npz --targets 0.5,0.25,0.125 \\
        --scopes global,layer --out FOLDER

The ported network must give Keras's logits and accuracies before anything is pruned. Global
magnitude pruning in one step, and the same share of every layer, reach each target in
Torch-Pruning's own count of operations. The folder gets "cut.json" and, for each network, an
archive of its weights under Keras's names: all networks are trained in Keras. A network that was
pruned before can be pruned again, which makes the pruning iterative.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import time
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

THREADS = 2
STAGES, BLOCKS, CLASSES, SIZE = 3, 3, 10, 28
EVALUATION_BATCH = 1000
ROUND_TO = 4
SCOPES = {"global": True, "layer": False}


Arrays = dict[str, npt.NDArray[np.generic]]


class ResNet20(nn.Module):
    """The network of `benchmarks/resnet20.py`, whose layers have the same names.

    Args:
        weights: Keras's, by path; their shapes give the channel counts.
    """

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        self.add("conv0", "bn0", weights, 1)
        self.blocks: list[str] = []
        for stage in range(1, STAGES + 1):
            for block in range(1, BLOCKS + 1):
                name, stride = f"s{stage}b{block}", 2 if stage > 1 and block == 1 else 1
                self.blocks.append(name)
                if stride != 1:
                    self.add(f"{name}_proj", f"{name}_proj_bn", weights, stride)
                self.add(f"{name}_conv1", f"{name}_bn1", weights, stride)
                self.add(f"{name}_conv2", f"{name}_bn2", weights, 1)
        self.logits = nn.Linear(len(weights["logits/kernel"]), CLASSES)

    def add(self, conv: str, norm: str, weights: Arrays, stride: int) -> None:
        """Add a convolution and its batch normalization, with Keras's constants."""
        size, _, inputs, width = weights[f"{conv}/kernel"].shape
        # what "same" pads for stride 2 is added in `normalized`
        padding = size // 2 if stride == 1 else 0
        self.add_module(conv, nn.Conv2d(inputs, width, size, stride, padding, bias=False))
        self.add_module(norm, nn.BatchNorm2d(width, eps=1e-3, momentum=0.01))

    def normalized(self, x: Tensor, conv: str, norm: str) -> Tensor:
        layer: Any = self.get_submodule(conv)
        if layer.kernel_size == (3, 3) and layer.stride == (2, 2):
            x = functional.pad(x, (0, 1, 0, 1))  # "same" on even sizes pads right and below only
        result: Tensor = self.get_submodule(norm)(layer(x))
        return result

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.normalized(x, "conv0", "bn0"))
        for name in self.blocks:
            shortcut = x
            if hasattr(self, f"{name}_proj"):
                shortcut = self.normalized(x, f"{name}_proj", f"{name}_proj_bn")
            x = functional.relu(self.normalized(x, f"{name}_conv1", f"{name}_bn1"))
            x = self.normalized(x, f"{name}_conv2", f"{name}_bn2")
            x = functional.relu(x + shortcut)
        result: Tensor = self.logits(x.mean((2, 3)))
        return result


Candidate = tuple[float, ResNet20]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="archive of weights")
    parser.add_argument("--data", type=Path, required=True, help="archive of examples")
    parser.add_argument("--targets", required=True, help="shares of the operations, with commas")
    parser.add_argument("--scopes", required=True, help="global, layer, or both with a comma")
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
    for scope in arguments.scopes.split(","):
        way = partial(one_shot, round_to=ROUND_TO, together=SCOPES[scope])
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
    """Return a network's weights by Keras's names: the inverse of `ported`."""
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


def versions() -> dict[str, str]:
    packages = ("torch", "torch-pruning", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def tensors(archive: Arrays) -> dict[str, Tensor]:
    """Return the examples as tensors, images with channels first."""
    return {
        name: torch.from_numpy(np.moveaxis(array, -1, 1).copy() if array.ndim == 4 else array)
        for name, array in archive.items()
    }


def ported(weights: Arrays) -> ResNet20:
    """Build the network with Keras's weights, in inference mode."""
    model = ResNet20(weights).eval()
    state = model.state_dict()
    for layer, module in model.named_children():
        if isinstance(module, nn.Conv2d):
            state[f"{layer}.weight"] = torch.from_numpy(
                weights[f"{layer}/kernel"].transpose(3, 2, 0, 1).copy()
            )
        elif isinstance(module, nn.Linear):
            state[f"{layer}.weight"] = torch.from_numpy(weights[f"{layer}/kernel"].T.copy())
            state[f"{layer}.bias"] = torch.from_numpy(weights[f"{layer}/bias"])
        else:
            for name, path in (
                ("weight", "gamma"),
                ("bias", "beta"),
                ("running_mean", "moving_mean"),
                ("running_var", "moving_variance"),
            ):
                state[f"{layer}.{name}"] = torch.from_numpy(weights[f"{layer}/{path}"])
    model.load_state_dict(state)
    return model


def verified(model: ResNet20, weights: Arrays, data: dict[str, Tensor]) -> dict[str, Any]:
    """Return the dense network's record.

    Raises:
        RuntimeError: The port computes something else than the Keras model.
    """
    expected = torch.from_numpy(weights["reference/logits"])
    with torch.inference_mode():
        difference = (model(data["val/x"][: len(expected)]) - expected).abs().max().item()
    accuracies = {part: accuracy(model, data, part) for part in ("val", "test")}
    if difference > 1e-4 or any(
        abs(accuracies[part] - float(weights[f"reference/{part}"])) > 1e-9 for part in accuracies
    ):
        raise RuntimeError(
            f"the port must equal the Keras model; logits differ by {difference}, "
            f"accuracies are {accuracies}"
        )
    ops, params = operations(model)
    return {
        "ops": ops,
        "macs": multiplications(model),
        "params": params,
        "logits_difference": difference,
        "val_accuracy": accuracies["val"],
        "test_accuracy": accuracies["test"],
    }


def chosen(dense: ResNet20, candidates: Iterator[Candidate], target: float) -> Candidate:
    """Return the candidate of the most operations within the target, else that of the fewest.

    All are counted rather than bisected: a layer that would keep fewer than `round_to` channels is
    not pruned at all, so operations can rise with the ratio.
    """
    limit = target * operations(dense)[0]
    best: tuple[tuple[bool, float], Candidate] | None = None
    for candidate in candidates:
        ops = operations(candidate[1])[0]
        rank = (True, ops) if ops <= limit else (False, -ops)
        if best is None or rank > best[0]:
            best = rank, candidate
    if best is None:
        raise ValueError("there must be a candidate")
    return best[1]


def one_shot(dense: ResNet20, round_to: int | None, together: bool = True) -> Iterator[Candidate]:
    """Yield (pruning ratio, network) for each number of channels, removed in one step.

    Args:
        dense: Stays as it is.
        round_to: What numbers of channels must be a multiple of.
        together: One ranking of all layers; else the same share of every layer.
    """
    # a stage's blocks share the channels that they add to, and have those between their
    # convolutions each
    total = sum(count for name, count in channels(dense).items() if not name.endswith("_conv2"))
    for removed in range(1, total):
        ratio = (removed - 0.5) / total  # the pruner rounds what it keeps down
        model = copy.deepcopy(dense)
        pruner(model, round_to, together, pruning_ratio=ratio).step()
        yield ratio, model


def pruner(model: ResNet20, round_to: int | None, together: bool = True, **options: Any) -> Any:
    """Return the pruner of a network; by default it ranks the channels of all layers together."""
    return tp.pruner.BasePruner(
        model,
        example(),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=together,
        ignored_layers=[model.logits],
        round_to=round_to,
        **options,
    )


def example() -> Tensor:
    return torch.zeros(1, 1, SIZE, SIZE)


def operations(model: nn.Module) -> tuple[int, int]:
    """Return operations and parameters as Torch-Pruning counts them."""
    ops, params = tp.utils.count_ops_and_params(model, example())
    return int(ops), int(params)


def multiplications(model: nn.Module) -> int:
    """Return the multiply-accumulates of convolutions and linear layers for one example."""
    counts: list[int] = []

    def count(module: Any, _: Any, output: Tensor) -> None:
        counts.append(module.weight.numel() * math.prod(output.shape[2:]))

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        model(example())
    for handle in handles:
        handle.remove()
    return sum(counts)


def channels(model: nn.Module) -> dict[str, int]:
    """Return the output channels of each convolution."""
    return {
        name: module.out_channels
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def accuracy(model: nn.Module, data: dict[str, Tensor], part: str) -> float:
    with torch.inference_mode():
        logits = torch.cat([model(x) for x in data[f"{part}/x"].split(EVALUATION_BATCH)])
    return float((logits.argmax(1) == data[f"{part}/y"]).double().mean())


if __name__ == "__main__":
    main()
