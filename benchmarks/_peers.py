"""What paretune is measured beside: whether it is installed, and where.

A peer that cannot be installed beside TensorFlow has an environment of its own, whose Python a
variable names. One that is not there makes rows that say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_LOOK = """
import importlib.metadata, importlib.util, json, sys
names = sys.argv[1:]
missing = [name for name in names[1:] if importlib.util.find_spec(name) is None]
version = None if missing else importlib.metadata.version(names[0])
print(json.dumps({"missing": missing, "version": version}))
"""


@dataclass(frozen=True)
class Peer:
    """Another tool.

    Attributes:
        name: As rows call it.
        package: The distribution whose version is recorded.
        modules: What must be importable.
        variable: Names the Python of its environment; None: it lives in ours.
        install: How to get it.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    variable: str | None
    install: str

    def python(self) -> str:
        """Returns the interpreter that has it, if any has."""
        return (self.variable and os.environ.get(self.variable)) or sys.executable

    def state(self) -> str:
        """Returns its version, or "not run: <reason>"."""
        command = [self.python(), "-c", _LOOK, self.package, *self.modules]
        try:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            where = f"{self.variable}={self.python()}" if self.variable else self.python()
            return f"not run: {where} does not start ({type(error).__name__})"
        found: dict[str, Any] = json.loads(done.stdout)
        if found["missing"]:
            return f"not run: {', '.join(found['missing'])} not installed ({self.install})"
        return f"{self.package} {found['version']}"


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "torch-pruning",
            "torch-pruning",
            ("torch", "torchvision", "torch_pruning"),
            "TORCH_PRUNING_PYTHON",
            "TORCH_PRUNING_PYTHON names a Python with torch, torchvision and torch-pruning",
        ),
        Peer(
            "tfmot",
            "tensorflow-model-optimization",
            ("tensorflow_model_optimization", "tf_keras"),
            None,
            "pip install tensorflow-model-optimization tf_keras",
        ),
        Peer("keras-hub", "keras-hub", ("keras_hub",), None, "pip install keras-hub"),
        *(
            Peer(
                name,
                package,
                modules,
                "SAMPLERS_PYTHON",
                f"SAMPLERS_PYTHON names a Python with {' and '.join(modules)}",
            )
            for name, package, modules in (
                ("optuna-gp", "optuna", ("optuna", "torch")),
                ("smac", "smac", ("smac", "ConfigSpace")),
                ("ax", "ax-platform", ("ax",)),
                ("syne-tune", "syne-tune", ("syne_tune",)),
            )
        ),
        Peer("keras Distiller", "keras", ("keras",), None, "pip install 'keras>=3.13'"),
    )
}


def not_run(state: str) -> dict[str, str]:
    """Returns the row of a peer that `Peer.state` says is not there."""
    return {"not run": state.removeprefix("not run: ")}
