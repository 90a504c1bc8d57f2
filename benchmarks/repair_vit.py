"""A vision transformer with narrower hidden layers and heads, reconstructed without training.

    python -m benchmarks.repair_vit [--kept 0.7,0.5,0.3] [--seeds 0,1,2] [--resume FILE]

The ViT of repair_nets.py. Of every block, a share of the hidden columns and of the columns of
queries and keys is kept: those with the largest contribution to what follows. Both sides keep the
same columns and look at the same 1,000 unlabelled training images, drawn by the seed. Beside our
reconstruction: the compensation of CORP, with the best of its ridges by validation data. Test data
evaluate once. The kept columns and the ridges are ours; of the paper we had the abstract.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table, verdict
from benchmarks._repair import EXAMPLES, Inputs, Numbers, macs_of
from benchmarks._stored import Stored
from benchmarks.repair_nets import trained
from benchmarks.resnet20 import load_fashion
from compress.core.device import silence_tensorflow
from compress.data import Dataset, sample_inputs

RIDGES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6)
"""Of CORP, relative to the mean of the diagonal."""
WAYS = {"none": "not reconstructed", "corp": "CORP", "ours": "reconstructed (ours)"}


def list_blocks(model: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the attention and the two Dense layers of every block."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.MultiHeadAttention):
            block = layer.name.partition("_")[0]
            yield layer, model.get_layer(f"{block}_expand"), model.get_layer(f"{block}_project")


def record_inputs(model: Any, x: Inputs) -> dict[str, Numbers]:
    """Return the inputs of each attention and Dense layer by name, (images, positions, width)."""
    from compress.model.program import Node
    from compress.model.recording import record_program

    found: dict[str, list[Any]] = {}

    def watch(node: Node, given: list[Any]) -> None:
        if isinstance(node.operation, keras.layers.MultiHeadAttention | keras.layers.Dense):
            found.setdefault(node.name, []).append(np.asarray(given[0], np.float64))

    program = record_program(model)
    for start in range(0, len(x), 250):
        program.run([x[start : start + 250]], watch)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def project(layer: Any, x: Numbers) -> Numbers:
    """Return the outputs of a query or key layer, (images, heads, positions, width of a head)."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in layer.weights)
    return np.asarray(np.einsum("npi,ihd->nhpd", x, kernel) + bias[:, None])


def choose_columns(model: Any, given: dict[str, Numbers], kept: float) -> dict[str, Numbers]:
    """Choose the columns of every block that contribute most.

    Args:
        model: The original model.
        given: Inputs of its layers.
        kept: Share of the columns to keep.

    Returns:
        Indices by the name of the attention (of queries and keys, the same in every head) and of
        the first Dense layer.
    """
    found = {}
    for attention, expand, second in list_blocks(model):
        x = given[attention.name]
        scores = np.zeros(attention.key_dim)
        for side in (attention.query_dense, attention.key_dense):
            scores += np.log(np.square(project(side, x)).mean((0, 1, 2)))
        weights = np.square(second.kernel.numpy().astype(np.float64)).sum(1)
        hidden = np.square(given[second.name]).mean((0, 1)) * weights
        for name, values in ((attention.name, scores), (expand.name, hidden)):
            count = max(1, round(kept * len(values)))
            found[name] = np.sort(np.argsort(-values, kind="stable")[:count])
    return found


def cut(model: Any, columns: dict[str, Numbers]) -> tuple[Any, Any]:
    """Return the model with these columns alone, and the kept indices of its weights."""
    from compress.prune.channels.analysis import analyze_coupling
    from compress.prune.channels.surgery import build_pruned_model, compute_kept_indices

    coupling = analyze_coupling(model)
    mask = np.ones(coupling.unit_count, bool)
    for attention, expand, _ in list_blocks(model):
        for layer, kernel in ((attention, attention.query_dense.kernel), (expand, expand.kernel)):
            axis = len(kernel.shape) - 1
            units = coupling.unit_of_slot[coupling.weight_axes[id(kernel)][axis]]
            mask[units] = False
            mask[units[columns[layer.name]]] = True
    return build_pruned_model(coupling, mask), compute_kept_indices(coupling, mask)


def compensate(
    small: Any, model: Any, given: dict[str, Numbers], columns: dict[str, Numbers], ridge: float
) -> None:
    """Fold the removed columns into the weights of the smaller model, in place, by CORP.

    With P the removed and S the kept columns of the original model, on the calibration images:

        h_P ~ B h_S + c                  hidden columns; the next Dense gets W_S + W_P B, b + W_P c
        q_P'k_P ~ [q_S 1] M [k_S 1]'     scores of a head, of all pairs of positions of an image

    Both are ridge regressions. What depends on the query alone drops out of the softmax; the rest
    of M goes into the queries.

    Args:
        small: The smaller model.
        model: The original model.
        given: Inputs of its layers.
        columns: The kept ones.
        ridge: Relative to the mean of the diagonal.

    Reference:
        Zhang & Yang 2026, "CORP: Closed-Form One-shot Representation-Preserving Structured Pruning
        for Vision Transformers" (arXiv 2602.05243), its abstract.
    """
    for attention, expand, second in list_blocks(model):
        rows = given[second.name].reshape(-1, given[second.name].shape[-1])
        own, rest = _split(rows, columns[expand.name])
        kernel, bias = second.kernel.numpy().astype(np.float64), second.bias.numpy()
        mean, rest_mean = own.mean(0), rest.mean(0)
        left = _add_ridge((own - mean).T @ (own - mean), ridge)
        factors = np.linalg.solve(left, (own - mean).T @ (rest - rest_mean))
        small_kernel, rest_kernel = (part.T for part in _split(kernel.T, columns[expand.name]))
        target = small.get_layer(second.name)
        target.kernel.assign((small_kernel + factors @ rest_kernel).astype(np.float32))
        target.bias.assign(bias + (rest_mean - mean @ factors) @ rest_kernel)

        x, kept = given[attention.name], columns[attention.name]
        queries, rest_queries = _split(project(attention.query_dense, x), kept)
        keys, rest_keys = _split(project(attention.key_dense, x), kept)
        query = small.get_layer(attention.name).query_dense
        new_kernel = query.kernel.numpy().astype(np.float64)
        new_bias = query.bias.numpy().astype(np.float64)
        for head in range(queries.shape[1]):
            own_scores = _fit_scores(queries[:, head], keys[:, head], rest_queries[:, head],
                                     rest_keys[:, head], ridge)  # fmt: skip
            change = np.eye(len(kept)) + own_scores[:-1, :-1]
            # the smaller layer divides by the root of its own width, which its query makes up for
            factor = np.sqrt(len(kept) / attention.key_dim)
            new_kernel[:, head] = new_kernel[:, head] @ change
            new_bias[head] = new_bias[head] @ change + factor * own_scores[-1, :-1]
        query.kernel.assign(new_kernel.astype(np.float32))
        query.bias.assign(new_bias.astype(np.float32))


def _split(values: Numbers, kept: Numbers) -> tuple[Numbers, Numbers]:
    """Return the kept and the other columns."""
    rest = np.setdiff1d(np.arange(values.shape[-1]), kept)
    return values[..., kept], values[..., rest]


def _add_ridge(gram: Numbers, ridge: float) -> Numbers:
    return gram + ridge * float(np.diag(gram).mean()) * np.eye(len(gram))


def _fit_scores(
    queries: Numbers, keys: Numbers, rest_queries: Numbers, rest_keys: Numbers, ridge: float
) -> Numbers:
    """Return M of one head, (kept + 1, kept + 1), from (images, positions, columns)."""
    ones = np.ones((*queries.shape[:2], 1))
    queries, keys = np.concatenate([queries, ones], -1), np.concatenate([keys, ones], -1)
    query_grams = np.einsum("npi,npj->nij", queries, queries)
    key_grams = np.einsum("npi,npj->nij", keys, keys)
    size = queries.shape[-1]
    left = np.einsum("nik,njl->ijkl", query_grams, key_grams).reshape(size**2, size**2)
    right = np.einsum(
        "nic,njc->ij",
        np.einsum("npi,npc->nic", queries, rest_queries),
        np.einsum("npj,npc->njc", keys, rest_keys),
    )
    return np.asarray(np.linalg.solve(_add_ridge(left, ridge), right.ravel()).reshape(size, size))


def measure_accuracy(model: Any, data: Dataset, part: str) -> float:
    """Return the accuracy on a part."""
    from compress.train.predict import evaluate_model

    return float(evaluate_model(model, data, part)["accuracy"])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--kept", type=lambda text: tuple(map(float, text.split(","))), default=(0.7, 0.5, 0.3),
        help="shares of the columns, with commas",
    )  # fmt: skip
    seed_list(parser)


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Measure the missing shares and seeds."""
    from compress.reconstruction import repair

    silence_tensorflow()
    data, net = load_fashion(), trained("vit")
    model = net.model
    runs = stored.result.setdefault("runs", {})
    dense = {"test": measure_accuracy(model, data, "test"), "macs": macs_of(model),
             "sha256": net.sha256}  # fmt: skip
    for seed in given.seeds:
        x = sample_inputs(data, EXAMPLES, seed)
        inputs = record_inputs(model, x)
        for kept in given.kept:
            key = f"{kept:g}, seed {seed}"
            if key in runs:
                continue
            columns = choose_columns(model, inputs, kept)
            small, _ = cut(model, columns)
            record: dict[str, Any] = {"macs": macs_of(small)}
            record["none"] = measure_accuracy(small, data, "test")
            began = time.perf_counter()
            by_ridge = {}
            for ridge in RIDGES:
                small, _ = cut(model, columns)
                compensate(small, model, inputs, columns, ridge)
                by_ridge[ridge] = measure_accuracy(small, data, "val"), small
            ridge = max(by_ridge, key=lambda item: by_ridge[item][0])
            record["corp"] = measure_accuracy(by_ridge[ridge][1], data, "test")
            record["ridge"] = ridge
            middle = time.perf_counter()
            small, indices = cut(model, columns)
            repair(small, model, x, kept=indices, examples=len(x), seed=seed)
            record["seconds"] = {"corp": middle - began, "ours": time.perf_counter() - middle}
            record["ours"] = measure_accuracy(small, data, "test")
            runs[key] = record
            print(key, record, flush=True)
            stored.save(runs=runs, dense=dense)


def losses(result: dict[str, Any]) -> str:
    """Return the table of points lost by share and way."""
    shares = dict.fromkeys(key.partition(",")[0] for key in result["runs"])
    rows = []
    for share in shares:
        found = [item for key, item in result["runs"].items() if key.startswith(f"{share},")]
        means = {way: Mean.of([item[way] for item in found]) for way in WAYS}
        lost = {
            way: Mean.of([100 * (result["dense"]["test"] - item[way]) for item in found])
            for way in WAYS
        }
        rows.append([
            f"{share}x", f"{found[0]['macs'] / result['dense']['macs']:.2f}x",
            *(lost[way].number(2) for way in WAYS), verdict(means["ours"], means["corp"]),
        ])  # fmt: skip
    head = ["columns kept", "MACs left", *(f"pp lost, {label}" for label in WAYS.values()),
            "ours less CORP's accuracy, pp"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "repair_vit", __doc__, measure, {"losses": losses}, arguments, resumable=True, anywhere=True
)


def main() -> None:
    """Run the benchmark."""
    BENCHMARK.run()


if __name__ == "__main__":
    main()
