"""A plug-in of each kind, registered by a module of the user's and used by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from compress import plugins
from compress.core.errors import InputError
from compress.core.module_loading import build_module_environment
from compress.plan import ChannelOptions, DistillOptions, Plan
from compress.plan.bench import BenchPlan
from compress.plan.nesting import from_flat, to_nested
from compress.prune.channels.rules import _base as rules
from search import plugins as search_plugins
from search.cli import app
from search.plan import SearchPlan

TABLES = [
    plugins.CRITERIA, plugins.LOGIT_LOSSES, plugins.HINTS, plugins.RUNTIMES, plugins.TASKS,
    plugins.SOURCES, plugins.FILES, plugins.FOLDERS, plugins.HUBS, search_plugins.SPACES,
    search_plugins.SAMPLERS,
]  # fmt: skip

MODULE = '''
"""One plug-in of each kind that needs no Keras to be registered."""

from dataclasses import replace

import numpy as np

from compress.plugins import CRITERIA, HINTS, LOGIT_LOSSES, RUNTIMES, SOURCES, TASKS
from compress.data import RawData, Split
from compress.distillation.losses import FeatureLoss, LogitLoss
from compress.measure.runtimes.litert import RUNTIME
from compress.data.tasks import MEANING, MultiClass
from search.plugins import SAMPLERS, SPACES
from search.samplers._base import StatelessSampler
from search.spaces.mlp import MLP


def last_kept(group, context):
    """The later a unit, the better."""
    return np.arange(len(group.units), dtype=float)


class Squared(LogitLoss):
    """Mean squared difference of the logits."""

    name = "squared"

    def __call__(self, student, teacher, *, temperature, labels, weights):
        import tensorflow as tf

        gap = tf.cast(student, tf.float32) - tf.cast(teacher, tf.float32)
        return tf.reduce_mean(gap**2, axis=-1)

    def chance_loss(self, outputs, temperature):
        return 1e3


class Means(FeatureLoss):
    """Squared difference of the mean features."""

    name = "means"
    weight = 0.5

    def __call__(self, student, teacher, *, weights):
        import tensorflow as tf

        def mean(x):
            x = tf.cast(x, tf.float32)
            return tf.reduce_mean(tf.reshape(x, (tf.shape(x)[0], -1)), axis=-1)

        return (mean(student) - mean(teacher)) ** 2


class Graded(MultiClass):
    """Classes, evaluated with the mean recall under a name of its own."""

    name = "graded"
    qualities = ("grade", "accuracy")

    def quality(self, labels, scores, *, threshold=0.0):
        found = super().quality(labels, scores)
        return {"grade": found["recall_macro"], "accuracy": found["accuracy"]}


class Tiny(MLP):
    """Perceptrons under another name."""

    name = "tiny"


class First(StatelessSampler):
    """Always the lowest value, or the first choice."""

    def sample_independent(self, study, trial, name, distribution):
        choices = getattr(distribution, "choices", None)
        return choices[0] if choices else distribution.low


def corners(source):
    """Four corners of a square, with a little noise."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    x = np.stack([y // 2, y % 2], axis=-1) + 0.1 * rng.normal(size=(200, 2))
    names = ("a", "b", "c", "d")
    return RawData(Split(x.astype(np.float32), y.astype(np.int64)), class_names=names)


CRITERIA.add("last_kept", last_kept)
LOGIT_LOSSES.add("squared", Squared)
HINTS.add("means", Means)
RUNTIMES.add("mine", replace(RUNTIME, name="mine", text="Mine 1.0", exported=("float32",)))
TASKS.add("graded", Graded)
MEANING["grade"] = ("Grade", "Mean recall of the classes")
SOURCES.add("corners", corners)
SPACES.add("tiny", Tiny())
SAMPLERS.add("first", First)
'''

LAYER = '''
"""A layer with its rule for channel pruning."""

import keras

from compress.prune.channels import register_rule


@keras.saving.register_keras_serializable("mine")
class Scaled(keras.layers.Layer):
    """One factor a channel."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), name="factor", initializer="ones")

    def call(self, x):
        return x * self.factor


@register_rule(Scaled)
def scaled(call):
    x = call.inputs[0]
    call.bind(call.layer.factor, 0, x.axes[-1])
    return call.passed(x, zero=True)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with both modules; afterwards all tables are as they were."""
    from compress.data.tasks import MEANING

    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "mine_layer.py").write_text(LAYER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for table in TABLES:
        monkeypatch.setattr(table, "_entries", dict(table._entries))
    monkeypatch.setattr(rules.TABLE, "_custom", dict(rules.TABLE._custom))
    monkeypatch.delitem(MEANING, "grade", raising=False)
    yield tmp_path
    MEANING.pop("grade", None)
    for name in ("mine", "mine_layer"):
        sys.modules.pop(name, None)


def paretune(*words: str) -> Any:
    """Runs a command in this process."""
    return CliRunner().invoke(app, list(words))


def network(width: int = 8) -> Any:
    """Two hidden layers for the corners."""
    import keras

    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((2,))
    x = keras.layers.Dense(width, activation="relu", name="first")(x)
    x = keras.layers.Dense(width, activation="relu", name="second")(x)
    outputs = keras.layers.Dense(4, activation="softmax", name="last")(x)
    return keras.Model(inputs, outputs, name="small")


NAMES = {
    "channel_criterion": "last_kept", "distill_loss": "squared", "feature_losses": "means",
    "runtimes": "mine", "task": "graded", "space": "tiny", "sampler": "first",
    "objectives": "grade,macs",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_known_once_the_module_is_named(name: str, folder: Path) -> None:
    with pytest.raises(InputError, match="Unknown "):
        from_flat(SearchPlan, {name: NAMES[name]})
    plan = from_flat(SearchPlan, {name: NAMES[name], "plugins": "mine"})
    assert plan.plugins == ("mine",)
    assert to_nested(plan)["plugins"] == ["mine"]


def test_a_module_that_cannot_be_imported(folder: Path) -> None:
    (folder / "broken.py").write_text("1 / 0")
    for names, message in (
        ("nosuch", "Plug-in 'nosuch' must name an importable module (No module named 'nosuch')"),
        ("mine.py/", "plugins must be names of modules, like mine or package.mine. Received:"),
        ("mine,broken", "Plug-in 'broken' must name an importable module (ZeroDivisionError"),
    ):
        done = paretune("search", "--plugins", names, "--data", "nowhere")
        assert done.exit_code == 2
        assert message in done.stderr
        with pytest.raises(InputError):
            Plan(plugins=names)


def test_a_plan_that_another_process_reads_brings_its_modules(folder: Path) -> None:
    """As workers do: they read plan.json, and find modules where the run found them."""
    plan = from_flat(SearchPlan, {**NAMES, "plugins": "mine"})
    (folder / "plan.json").write_text(json.dumps(to_nested(plan)))
    script = (
        "import json\n"
        "from compress.plan.nesting import from_nested\n"
        "from search.plan import SearchPlan\n"
        "from search.plugins import SAMPLERS\n"
        "plan = from_nested(SearchPlan, json.load(open('plan.json')))\n"
        "print(SAMPLERS[plan.search.sampler].__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, cwd=folder,
        env=build_module_environment(), check=True,
    )  # fmt: skip
    assert done.stdout == "First\n"


@pytest.mark.slow
def test_compress_with_names_of_the_users_own(folder: Path) -> None:
    """Criterion, loss, hint, runtime, task and data set by the command line, for real."""
    network().save("small.keras")
    words = [
        "compress", "small.keras", "--plugins", "mine", "--data", "corners", "--task", "graded",
        "--normalize", "standardize", "--channels", "0.5x", "--channel-criterion", "last_kept",
        "--round-to", "1", "--distill-loss", "squared", "--feature-losses", "means",
        "--finetune-epochs", "2", "--sparsity", "0", "--formats", "float32",
        "--runtimes", "litert,mine",
        "--latency-budget", "0.2", "--out", "out",
    ]  # fmt: skip
    done = paretune(*words)
    assert done.exit_code == 0, done.output
    stored = json.loads((folder / "out" / "plan.json").read_text())
    assert stored["plan"]["plugins"] == ["mine"]
    assert "--plugins mine" in stored["shown"]["command"]
    record = json.loads((folder / "out" / "compressed" / "small.json").read_text())
    assert record["channels"]["criterion"] == "last_kept"
    assert any("means, weight 0.5" in note for note in record["notes"])
    assert "Mine 1.0" in (folder / "out" / "latency-mine.json").read_text()
    assert json.loads((folder / "out" / "data.json").read_text())["task"] == "graded"
    assert "grade" in done.stdout
    # the same command continues, and the report renders again
    assert paretune(*words).exit_code == 0
    assert paretune("report", "out", "--plugins", "mine").exit_code == 0


@pytest.mark.slow
def test_criteria_losses_and_data_in_python(folder: Path) -> None:
    Plan(plugins=["mine"])  # the current folder is no place for modules else
    import mine  # type: ignore[import-not-found]

    from compress import distill, load_data, prune_channels

    result = prune_channels(
        network(), ChannelOptions(criterion="last_kept", scope="layer"),
        cost=lambda kept, _: kept.sum(-1), share=0.5,
    )  # fmt: skip
    assert result.kept["first/kernel"][1].tolist() == [4, 5, 6, 7]
    data = load_data("corners", task="graded")
    assert (data.num_classes, len(data.train)) == (4, 136)  # 200 less 20 %, less 15 %
    assert type(data.task) is mine.Graded
    labels = np.array([0, 0, 0, 1, 2, 3])
    logits = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 0]]
    # recalls 2/3, 1, 1 and 0; four of six are right
    assert data.task.quality(labels, logits) == pytest.approx({"grade": 2 / 3, "accuracy": 4 / 6})
    options = DistillOptions(loss="squared", feature_losses=["means"])
    taught = distill(network(4), network(), data, options)
    assert "grade" in taught.training.val
    assert [str(hint).partition(":")[0] for hint in taught.hints] == ["means, weight 0.5"]


def test_bench_times_a_runtime_of_the_users_own(folder: Path) -> None:
    from compress.benchmarking import bench

    network().save("small.keras")
    found = bench(["small.keras"], BenchPlan(plugins=["mine"], runtimes=["mine"], budget=0.1))
    assert [row.runtime for row in found.timed] == ["mine"]
    done = paretune("bench", "small.keras", "--plugins", "mine", "--runtimes", "mine",
                    "--budget", "0.1")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "mine" in done.stdout


def test_a_space_and_a_sampler_in_python(folder: Path) -> None:
    import optuna

    from compress import load_data
    from search.spaces import resolve_space
    from search.study.study import create_sampler

    SearchPlan(plugins=["mine"])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.sampler = create_sampler("first", 0, 0)
    trial = study.ask()
    model = resolve_space("tiny").build(trial, load_data("corners"))
    # the fewest layers of the narrowest width
    assert (trial.params["layers"], trial.params["layer1.width"]) == (1, 16)
    assert model.output_shape == (None, 4)
    done = paretune("space", "describe", "tiny", "--plugins", "mine", "--data", "corners")
    assert done.exit_code == 0, done.output
    assert "Space tiny, for corners" in done.stdout


def test_a_layer_rule(folder: Path) -> None:
    """Without the module the layer cannot even be loaded; with it its channels can leave."""
    import keras

    Plan(plugins=["mine_layer"])
    import mine_layer  # type: ignore[import-not-found]

    from compress import prune_channels

    x = inputs = keras.Input((2,))
    x = mine_layer.Scaled(name="own")(keras.layers.Dense(8, name="before")(x))
    model = keras.Model(inputs, keras.layers.Dense(4, name="last")(x), name="scaled")
    result = prune_channels(model, macs=0.5, scope="layer", round_to=1)
    assert not result.report.unknown
    assert result.model.get_layer("own").factor.shape == (4,)
    model.save("scaled.keras")
    done = paretune("inspect", "scaled.keras", "--plugins", "mine_layer", "--out", "m.json")
    assert done.exit_code == 0, done.output
    groups = json.loads((folder / "m.json").read_text())["groups"]
    assert [(group["name"], group["total"]) for group in groups] == [("before", 8)]


@pytest.mark.slow
def test_a_search_in_worker_processes(folder: Path) -> None:
    done = paretune(
        "run", "--plugins", "mine", "--data", "corners", "--task", "graded", "--space", "tiny",
        "--sampler", "first", "--objectives", "grade,macs", "--trials", "1", "--epochs", "2",
        "--workers", "1", "--finetune-epochs", "1", "--batch-size", "32", "--formats", "float32",
        "--latency-budget", "0.2", "--out", "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "grade" in done.stdout
