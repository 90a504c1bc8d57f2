"""A trained model to search around."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.data import Dataset
from compress.model.io import save_model
from search.spaces import SubnetworkSpace
from tests.compress.prune.channels import law


@pytest.fixture
def model(small_cnn: Callable[..., Any]) -> Any:
    """Returns the CNN with random statistics; of its kernels every second filter is large."""
    made = small_cnn()
    law.randomize(made, np.random.default_rng(0))
    for name in ("first", "mid", "hidden"):
        kernel = made.get_layer(name).kernel
        kernel.assign(kernel.numpy() * np.where(np.arange(kernel.shape[-1]) % 2, 3.0, 0.3))
    return made


@pytest.fixture
def file(model: Any, tmp_path: Path) -> Path:
    path = tmp_path / "net.keras"
    save_model(model, path)
    return path


@pytest.fixture
def around(file: Path, digits: Dataset) -> SubnetworkSpace:
    space = SubnetworkSpace(f"around:{file}")
    space.check(digits)
    return space
