"""Which learning rates sub-networks of a trained model need: small cuts, and large ones.

    python -m benchmarks.around_rates [--seeds 0,1,2]

The baseline of the space `cnn` is trained on digits for 12 epochs; sub-networks of three sizes are
cut from it as `--space around:` does and trained for 6 epochs with Adam at batch 64, at five rates.
A seed is of the trained model and of the order of examples. Shown: validation accuracy of the best
epoch. It is what the ranges of learning rates of `around:` were chosen by.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._stored import Stored
from compress import load_data
from compress.core.device import quiet_tensorflow, setup
from compress.plan import TrainSettings

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
CUTS = (
    (1.0, 1.0, 1.0, 0.75, 0.75),
    (0.625, 0.5, 0.5, 0.5, 0.5),
    (0.375, 0.5, 0.5, 0.25, 0.25),
)
"""Shares of the channels that the groups keep, in the order of the model."""
WHOLE = TrainSettings(epochs=12, batch_size=64)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Trains the whole model and all cuts, seed by seed."""
    import keras

    from compress.model.io import save_model
    from compress.train import train
    from search.spaces import SPACES
    from search.spaces.around import Around

    quiet_tensorflow()
    device, data = setup("cpu"), load_data("digits")
    runs: dict[str, Any] = stored.result.setdefault("runs", {})
    cnn: Any = SPACES["cnn"]
    for seed in given.seeds:
        keras.utils.set_random_seed(seed)
        model = cnn.assemble(cnn.baseline(data), data)
        train(model, data, WHOLE, device=device, seed=seed)
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "whole.keras"
            save_model(model, file)
            space = Around(f"around:{file}")
            names = [choice.name for choice in space.choices(data)]
            for cut in CUTS:
                chosen = dict(zip(names, cut, strict=True))
                for rate in RATES:
                    thinner = space.assemble(chosen, data)
                    space.prepare(thinner, chosen, data)
                    settings = TrainSettings(epochs=6, batch_size=64, learning_rate=rate)
                    found = train(thinner, data, settings, device=device, seed=seed)
                    key = f"{', '.join(f'{share:g}' for share in cut)}; {rate:g}; seed {seed}"
                    runs[key] = found.val["accuracy"]
        print(f"seed {seed}", flush=True)
        stored.save(runs=runs)


def rates(result: dict[str, Any]) -> str:
    """Validation accuracy by cut and rate."""
    found: dict[str, dict[str, list[float]]] = {}
    for key, value in result["runs"].items():
        cut, rate, _ = key.split("; ")
        found.setdefault(cut, {}).setdefault(rate, []).append(value)
    columns = list(next(iter(found.values())))
    return table(
        ["kept of each group, `adam` at", *columns],
        [[cut, *(Mean.of(row[rate]).number() for rate in columns)] for cut, row in found.items()],
    )


BENCHMARK = Benchmark("around_rates", __doc__, run, {"rates": rates}, seed_list)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
