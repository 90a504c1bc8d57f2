"""The recipes of CONTRIBUTING.md: one file and one line add a plug-in, and nothing else changes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compress.core.module_loading import build_module_environment

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
COPIES = [
    # the file to copy, its table, the object in the copy, the name in the table
    ("compress/distillation/losses/hinton.py", "LOGIT_LOSSES", "HintonKD"),
    ("compress/distillation/losses/fitnets.py", "HINTS", "FitNets"),
    ("compress/measure/runtimes/openvino.py", "RUNTIMES", "RUNTIME"),
    ("compress/data/tasks/regression.py", "TASKS", "Regression"),
    ("compress/data/keras_datasets.py", "SOURCES", "read_digits"),
    ("search/spaces/mlp.py", "SPACES", "SPACE"),
    ("search/samplers/greedy.py", "SAMPLERS", "GreedySampler"),
]
SCRIPT = """
import json, sys
import keras
import numpy as np
import paretune as pt
from compress import plugins
from search import plugins as search_plugins
from search.plan import SearchPlan
from compress.plan.nesting import from_flat

found = {}
for table in json.loads(sys.argv[1]):
    home = plugins if hasattr(plugins, table) else search_plugins
    found[table] = getattr(home, table)["mine"].__module__ if table not in (
        "RUNTIMES", "SPACES") else type(getattr(home, table)["mine"]).__name__
x = keras.Input((8,))
h = keras.layers.Dense(16, activation="relu")(x)
model = keras.Model(x, keras.layers.Dense(4)(h))
small = pt.prune_channels(model, macs=0.5, criterion="spread").model
plan = from_flat(SearchPlan, {"channel_criterion": "spread", "distill_loss": "mine",
                              "sampler": "mine", "space": "mine", "task": "mine",
                              "runtimes": "litert,mine", "data": "mine"})
data = pt.load_data("mine")
print(json.dumps([found, small.layers[1].units, plan.search.sampler, len(data.train) > 100]))
"""


def add_line(path: Path, table: str, line: str) -> None:
    """Add an entry to a table of plug-ins, behind its opening brace."""
    text = path.read_text("utf-8")
    start = text.index("{", re.search(rf"^{table}: ", text, re.M).start())  # type: ignore[union-attr]
    path.write_text(f"{text[: start + 1]}{line} {text[start + 1 :]}", "utf-8")


def module_of(file: str) -> str:
    """Return the name of the copy's module."""
    return ".".join(Path(file).with_name(f"my_{Path(file).stem}").parts)


@pytest.mark.slow
def test_one_file_and_one_line(tmp_path: Path) -> None:
    for package in ("compress", "search", "paretune"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    # the criterion, as the guide shows it
    section = GUIDE.partition("### A criterion")[2]
    code = re.search(r"```python\n(.*?)```", section, re.S)
    line = re.search(r"`(\"spread\": .*?,)`", section)
    assert code is not None
    assert line is not None
    criteria = tmp_path / "compress/prune/channels/criteria"
    (criteria / "spread.py").write_text(re.sub(r"^   ", "", code[1], flags=re.M))
    add_line(tmp_path / "compress/plugins.py", "CRITERIA", line[1])
    for file, table, name in COPIES:
        assert f"`{file}`" in GUIDE, "the guide names the file to copy"
        source = tmp_path / file
        shutil.copy(source, source.with_name(f"my_{source.name}"))
        module = module_of(file)
        home = tmp_path / ("search" if table in ("SPACES", "SAMPLERS") else "compress")
        add_line(home / "plugins.py", table, f'"mine": "{module}:{name}",')
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, json.dumps([table for _, table, _ in COPIES])],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**build_module_environment(), "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found, units, sampler, has_examples = json.loads(done.stdout.splitlines()[-1])
    for file, table, _ in COPIES:
        if table not in ("RUNTIMES", "SPACES"):
            assert found[table] == module_of(file)
    assert units == 8
    assert sampler == "mine"
    assert has_examples
