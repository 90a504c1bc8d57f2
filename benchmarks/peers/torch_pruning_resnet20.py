"""Prunes a ResNet-20 that was trained in Keras with Torch-Pruning, and fine-tunes it.

The dense weights, the data and the recipe are those of paretune's own benchmark, so that only the
pruning differs. Export both first (`export_resnet20.py` says how), then run it with the Python
of an environment of its own, which needs neither TensorFlow nor paretune:

    python3 -m venv /tmp/tp
    /tmp/tp/bin/pip install torch torchvision torch-pruning==1.6.1
    /tmp/tp/bin/python benchmarks/peers/torch_pruning_resnet20.py \\
        --weights resnet20.npz --data fashion.npz --out torch_pruning_resnet20.json

The ported network must give Keras's logits and accuracies before anything is pruned. Global
magnitude pruning removes channels, in one step or in many, down to a quarter of the dense
network's operations in Torch-Pruning's own count. Fine-tuning differs from Keras's in what
PyTorch does otherwise: running variances are unbiased, and the learning rate scales velocities,
not gradients. The test part is read once per network, after everything is chosen.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional

THREADS = 2
WIDTHS, BLOCKS, CLASSES, SIZE = (16, 32, 64), 3, 10, 28
TARGET = 0.25
STEPS = 400
EPOCHS, BATCH, LEARNING_RATE, MOMENTUM = 2, 128, 0.02, 0.9
EVALUATION_BATCH = 1000


class ResNet20(nn.Module):
    """The network of `benchmarks/resnet20.py`, whose layers have the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.add("conv0", "bn0", 1, WIDTHS[0], 3, 1)
        self.blocks: list[str] = []
        before = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, 1):
            for block in range(1, BLOCKS + 1):
                name, stride = f"s{stage}b{block}", 2 if stage > 1 and block == 1 else 1
                self.blocks.append(name)
                if stride != 1:
                    self.add(f"{name}_proj", f"{name}_proj_bn", before, width, 1, stride)
                self.add(f"{name}_conv1", f"{name}_bn1", before, width, 3, stride)
                self.add(f"{name}_conv2", f"{name}_bn2", width, width, 3, 1)
                before = width
        self.logits = nn.Linear(before, CLASSES)

    def add(self, conv: str, norm: str, inputs: int, width: int, size: int, stride: int) -> None:
        """Adds a convolution and its batch normalization, with Keras's constants."""
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


Arrays = dict[str, npt.NDArray[np.generic]]
Candidate = tuple[float, ResNet20]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="archive of weights")
    parser.add_argument("--data", type=Path, required=True, help="archive of examples")
    parser.add_argument("--out", type=Path, help="JSON file to write; each variant is printed")
    parser.add_argument("--seeds", default="0,1,2", help="of the order of examples and flips")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    with np.load(arguments.weights) as archive:
        weights = dict(archive)
    with np.load(arguments.data) as archive:
        data = tensors(dict(archive))
    dense = ported(weights)
    result: dict[str, Any] = {
        "versions": versions(),
        "threads": THREADS,
        "dense": verified(dense, weights, data),
        "target": TARGET,
        "variants": [],
    }
    seeds = [int(text) for text in arguments.seeds.split(",")]
    for seed, method, round_to in product(seeds, (one_shot, progressive), (8, None)):
        record = {"method": method.__name__, "seed": seed}
        record |= measure(dense, data, method, round_to, seed)
        print(json.dumps(record), flush=True)
        result["variants"].append(record)
        if arguments.out:
            arguments.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def versions() -> dict[str, str]:
    packages = ("torch", "torch-pruning", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def tensors(archive: Arrays) -> dict[str, Tensor]:
    """Returns the examples as tensors, images with channels first."""
    return {
        name: torch.from_numpy(np.moveaxis(array, -1, 1).copy() if array.ndim == 4 else array)
        for name, array in archive.items()
    }


def ported(weights: Arrays) -> ResNet20:
    """Builds the network with Keras's weights, in inference mode."""
    model = ResNet20().eval()
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
    """Returns the dense network's record.

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


def measure(
    dense: ResNet20,
    data: dict[str, Tensor],
    method: Callable[[ResNet20, int | None], Iterator[Candidate]],
    round_to: int | None,
    seed: int,
) -> dict[str, Any]:
    """Prunes a copy of the dense network and fine-tunes it.

    Args:
        dense: Stays as it is.
        data: From `tensors`.
        method: `one_shot` or `progressive`.
        round_to: What numbers of channels must be a multiple of.
        seed: Of the fine-tuning.

    Returns:
        A record; lists of two are [before, after]:
            ops: Torch-Pruning's count, which adds batch normalization to `macs`.
            macs: Multiply-accumulates of convolutions and the last layer alone.
            channels: Of each convolution's output.
            params: Trainable ones.
            pruned_val_accuracy: Before fine-tuning.
            search_s, finetune_s: Building and counting all candidates; training.
    """
    began = time.perf_counter()
    ratio, model = chosen(dense, method(dense, round_to))
    found = time.perf_counter()
    before = accuracy(model, data, "val")
    start = time.perf_counter()
    losses = finetune(model, data, seed)
    trained = time.perf_counter()
    counts = [operations(network) for network in (dense, model)]
    macs = [multiplications(network) for network in (dense, model)]
    return {
        "round_to": round_to,
        "pruning_ratio": ratio,
        "within_target": counts[1][0] <= TARGET * counts[0][0],
        "ops": [ops for ops, _ in counts],
        "ops_ratio": counts[0][0] / counts[1][0],
        "macs": macs,
        "macs_ratio": macs[0] / macs[1],
        "params": [params for _, params in counts],
        "channels": channels(model),
        "pruned_val_accuracy": before,
        "epoch_losses": losses,
        "val_accuracy": accuracy(model, data, "val"),
        "test_accuracy": accuracy(model, data, "test"),
        "search_s": found - began,
        "finetune_s": trained - start,
    }


def chosen(dense: ResNet20, candidates: Iterator[Candidate], target: float = TARGET) -> Candidate:
    """Returns the candidate of the most operations within the target, else that of the fewest.

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
    """Yields (pruning ratio, network) for each number of channels, removed in one step.

    Args:
        dense: Stays as it is.
        round_to: What numbers of channels must be a multiple of.
        together: One ranking of all layers; else the same share of every layer.
    """
    total = (BLOCKS + 1) * sum(WIDTHS)  # a stage's blocks share one set and have one each
    for removed in range(1, total):
        ratio = (removed - 0.5) / total  # the pruner rounds what it keeps down
        model = copy.deepcopy(dense)
        pruner(model, round_to, together, pruning_ratio=ratio).step()
        yield ratio, model


def progressive(dense: ResNet20, round_to: int | None) -> Iterator[Candidate]:
    """Yields (pruning ratio, network) after each of many small steps on one network.

    This is how Torch-Pruning's own benchmarks reach a number of operations.
    """
    model = copy.deepcopy(dense)
    progress = pruner(model, round_to, pruning_ratio=1.0, iterative_steps=STEPS)
    for step in range(1, STEPS + 1):
        progress.step()
        yield step / STEPS, copy.deepcopy(model)


def pruner(model: ResNet20, round_to: int | None, together: bool = True, **options: Any) -> Any:
    """Returns the pruner of a network; by default it ranks the channels of all layers together."""
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
    """Returns operations and parameters as Torch-Pruning counts them."""
    ops, params = tp.utils.count_ops_and_params(model, example())
    return int(ops), int(params)


def multiplications(model: nn.Module) -> int:
    """Returns the multiply-accumulates of convolutions and linear layers for one example."""
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
    """Returns the output channels of each convolution."""
    return {
        name: module.out_channels
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def finetune(model: nn.Module, data: dict[str, Tensor], seed: int) -> list[float]:
    """Trains in place; leaves the model in inference mode and returns each epoch's mean loss."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = data["train/x"], data["train/y"]
    steps = len(images) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(cosine, EPOCHS * steps))
    model.train()
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for index in batches(len(images), generator):
            x = images[index]
            flip = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(flip[:, None, None, None], x.flip(3), x)
            loss = functional.cross_entropy(model(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        losses.append(total / steps)
    model.eval()
    return losses


def cosine(steps: int, step: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields an epoch's batches; what does not fill the last one is left out."""
    order = torch.randperm(count, generator=generator)
    yield from order[: count // BATCH * BATCH].split(BATCH)


def accuracy(model: nn.Module, data: dict[str, Tensor], part: str) -> float:
    with torch.inference_mode():
        logits = torch.cat([model(x) for x in data[f"{part}/x"].split(EVALUATION_BATCH)])
    return float((logits.argmax(1) == data[f"{part}/y"]).double().mean())


if __name__ == "__main__":
    main()
