"""What benchmarks share: the environment's record, paired ratios, where results go."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from compress.device import available_cores, cpu_name
from compress.files import write_json
from compress.measure.stats import median_interval

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Returns what the figures depend on: machine and versions."""
    packages = ("tensorflow", "keras", "optuna", "numpy", "ai-edge-litert")
    return {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def ratio(old: Sequence[float], new: Sequence[float]) -> dict[str, float]:
    """Returns the median of old/new paired by round, with its 95 % interval."""
    paired = np.asarray(old) / np.asarray(new)
    middle, low, high = median_interval(paired, np.random.default_rng(0))
    return {"ratio": middle, "low": low, "high": high, "rounds": len(paired)}


def save(name: str, content: Mapping[str, Any]) -> None:
    """Writes a result with its environment to benchmarks/results/."""
    write_json(RESULTS / f"{name}.json", {"environment": environment(), **content})
