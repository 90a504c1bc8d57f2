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
        "compress.core.errors",
        "compress.core.counts",
        "compress.core.registry",
        "compress.plan.fields",
        "compress.core.lifeline",
        "compress.core.interpreter",
        "compress.core.credentials",
        "compress.core.typed",
    ],
    [
        "compress.core.atomic_files",
        "compress.core.requirements",
        "compress.core.processes",
        "compress.plan",
        "compress.run.records",
        "compress.core.pareto",
        "compress.core.native_output",
        "compress.core.memory",
        "compress.core.arrays",
        "compress.task",
    ],
    [
        "compress.data",
        "compress.run.directory",
        "compress.model.keras2_files",
        "compress.model.io",
        "compress.model.copies",
        "compress.model.walk",
        "compress.core.device",
    ],
    ["compress.pipeline.preflight", "compress.run.origin"],
    ["compress.run.unlearnt"],
    [
        "compress.model.trace",
        "compress.run.trained",
        "compress.model.inference",
        "compress.model.added_losses",
    ],
    ["compress.model.program"],
    [
        "compress.train.augment",
        "compress.model.logits",
        "compress.train.optimizers",
        "compress.model.fused_batchnorm",
        "compress.prune.weights.tfmot_bridge",
    ],
    ["compress.train.predict"],
    ["compress.train.scaling"],
    ["compress.train", "compress.measure"],
    ["compress.prune", "compress.distill", "compress.export"],
    ["compress.pipeline.prune_and_train"],
    ["compress.pipeline.stages", "compress.pipeline.checks"],
    ["compress.report"],
    ["compress.bench"],
    ["compress.pipeline.compression"],
    ["search.samplers._distributions", "search.study.storage", "search.engines.faults"],
    ["search.study.journal"],
    ["search.spaces", "search.samplers", "search.trial.pruners"],
    ["search.plan"],
    [
        "search.trial.optimizers",
        "search.trial.costs",
        "search.study.budget",
        "search.study.warm_start",
    ],
    ["search.study.feasibility", "search.trial.weight_inheritance", "search.trial.early_stopping"],
    ["search.trial.objective"],
    ["search.study.study", "search.trial.retrain"],
    ["search.study.trials"],
    ["search.study.recovery", "search.study.unbegun"],
    ["search.engines"],
    ["search.engines.progress"],
    ["search.study.past"],
    ["search.engines.jobs", "search.engines.final_jobs"],
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
    assert named == ["compress/prune/weights/tfmot_bridge.py"]


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
