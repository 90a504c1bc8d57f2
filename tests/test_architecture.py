"""The house's rules that a machine can check: one-way imports, no trace on import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# docs/architecture.md's order; names in one line stand side by side and may not be
# imported from the left. Side by side, `prune` and `distill` never import each other.
TIERS = [
    [
        "compress._version",
        "compress.errors",
        "compress.counts",
        "compress.registry",
        "compress.options",
        "compress.lifeline",
        "compress.interpreter",
        "compress.credentials",
        "compress.typed",
    ],
    [
        "compress.files",
        "compress.requirements",
        "compress.processes",
        "compress.plan",
        "compress.records",
        "compress.pareto",
        "compress.quiet",
        "compress.memory",
        "compress.arrays",
        "compress.task",
    ],
    [
        "compress.data",
        "compress.runfolder",
        "compress.legacy",
        "compress.io",
        "compress.copies",
        "compress.graph",
        "compress.device",
    ],
    ["compress.preflight", "compress.origin"],
    ["compress.unlearnt"],
    ["compress.trace", "compress.trained", "compress.inference", "compress.added_losses"],
    ["compress.program"],
    [
        "compress.augment",
        "compress.heads",
        "compress.optimizers",
        "compress.fused",
        "compress.tfmot_bridge",
    ],
    ["compress.predict"],
    ["compress.scaling"],
    ["compress.train", "compress.measure"],
    ["compress.prune", "compress.distill", "compress.export"],
    ["compress.shrink"],
    ["compress.stages", "compress.checks"],
    ["compress.report"],
    ["compress.bench"],
    ["compress.pipeline"],
    ["search.values", "search.storage", "search.faults"],
    ["search.journal"],
    ["search.spaces", "search.samplers", "search.stopping"],
    ["search.plan"],
    ["search.optimizers", "search.costs", "search.budget", "search.warmstart"],
    ["search.feasible", "search.inherit", "search.following"],
    ["search.objective"],
    ["search.study", "search.final"],
    ["search.trials"],
    ["search.recovery", "search.unbegun"],
    ["search.engines"],
    ["search.display"],
    ["search.past"],
    ["search.jobs", "search.followup"],
    ["search.pipeline"],
    ["search.cli"],
]
PLACE = {name: level for level, names in enumerate(TIERS) for name in names}


def unit_of(module: str) -> str | None:
    """Returns the unit of TIERS that a module belongs to."""
    parts = module.split(".")
    name = ".".join(parts[:2])
    return name if name in PLACE else None


def imports() -> list[tuple[str, str]]:
    """Lists (importing module, imported module) over both packages, deferred ones too."""
    found = []
    for path in sorted([*ROOT.glob("compress/**/*.py"), *ROOT.glob("search/**/*.py")]):
        relative = path.relative_to(ROOT).with_suffix("")
        module = ".".join(part for part in relative.parts if part != "__init__")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found += [(module, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{module} imports relatively"
                found.append((module, node.module))
                found += [(module, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_every_module_has_a_place() -> None:
    modules = {source for source, _ in imports()} - {"compress", "search"}
    assert {module for module in modules if unit_of(module) is None} == set()


def test_imports_go_one_way() -> None:
    wrong = []
    for source, target in imports():
        from_unit, to_unit = unit_of(source), unit_of(target)
        if from_unit is None or to_unit is None or from_unit == to_unit:
            continue
        if PLACE[to_unit] > PLACE[from_unit]:
            wrong.append(f"{source} -> {target}")
    assert wrong == []


def test_prune_and_distill_do_not_know_each_other() -> None:
    pairs = {(unit_of(source), unit_of(target)) for source, target in imports()}
    assert ("compress.prune", "compress.distill") not in pairs
    assert ("compress.distill", "compress.prune") not in pairs


def test_only_the_bridge_imports_tfmot() -> None:
    named = [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("compress/**/*.py"), *ROOT.glob("search/**/*.py")]
        if "tensorflow_model_optimization" in path.read_text("utf-8")
    ]
    assert named == ["compress/tfmot_bridge.py"]


@pytest.mark.parametrize("use_bridge", [False, True])
def test_import_leaves_the_process_as_it_was(use_bridge: bool) -> None:
    script = f"""
import json, os, sys
before = dict(os.environ)
import compress, search
after = dict(os.environ)
early = "tensorflow" in sys.modules
import tensorflow as tf
if {use_bridge}:
    from compress import tfmot_bridge
    tfmot_bridge.polynomial_schedule(0.0, 0.8, 0, 10, 1, 3.0)
    assert "tensorflow_model_optimization" in sys.modules
print(json.dumps([before == after, early, "TF_USE_LEGACY_KERAS" in os.environ,
                  tf.keras.__version__ if hasattr(tf.keras, "__version__") else "2",
                  tf.keras.Model.__module__]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    same, early, legacy, version, module = json.loads(done.stdout.splitlines()[-1])
    assert same
    assert not early, "importing our packages must not import TensorFlow"
    assert not legacy
    assert version.startswith("3.")
    assert module.startswith("keras.")
