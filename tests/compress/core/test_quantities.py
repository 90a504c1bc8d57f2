"""Quantities as people write them, bounds with reasons, and hints at what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from compress.core.errors import InputError, build_unknown_name_error
from compress.core.quantities import parse_integer, parse_number, parse_quantity
from compress.data import Dataset, Preprocessing, Split
from compress.data.tasks import MultiClass
from compress.plan import ChannelOptions, LatencyOptions, Plan, Target, TrainSettings
from compress.plan.bench import BenchPlan
from compress.plan.fields import list_plan_fields
from compress.plan.keywords import SHRINK
from compress.plan.nesting import from_flat, from_nested, read_field, to_nested
from compress.plan.shrink import GoalOptions, ShrinkPlan
from compress.plan.target import SizeTarget, TimeTarget
from search.cli._options import create_plan_command
from search.plan import SearchPlan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200", 200), ("200_000", 200_000), ("200k", 200_000), ("2M", 2_000_000),
        ("1.5M", 1_500_000), ("1.5m", 1_500_000), ("0.5K", 500), ("3G", 3 * 10**9),
        ("2e6", 2 * 10**6),
        (" 7 ", 7), ("2 M", 2 * 10**6), (2e6, 2 * 10**6), (np.int64(9), 9), ("0.1M", 100_000),
        ("1.000001M", 1_000_001), ("-3", -3),
    ],
)  # fmt: skip
def test_counts_are_read(text: object, expected: int) -> None:
    assert parse_integer(text, "n") == expected


@pytest.mark.parametrize(
    "text",
    ["", "k", "1.5", "0.0005k", "2MB", "2 MiB", "1__0", "_1", "1_", "two", "1e", "1e999999999",
     "0x10", "2M3", "nan", "inf", "٣", "1,000", True, 1.5, None, [1], float("inf")],
)  # fmt: skip
def test_what_is_no_count_is_refused(text: object) -> None:
    with pytest.raises(InputError, match=r"n must be an integer, like 200000, 200k or 2M"):
        parse_integer(text, "n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2MB", 2 * 10**6), ("2MiB", 2 * 2**20), ("1.5kb", 1500), ("1KiB", 1024), ("200k", 200_000),
     ("7", 7), ("7B", 7), ("1GiB", 2**30)],
)  # fmt: skip
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_integer(text, "n", unit="bytes") == expected


def test_sizes_need_not_be_integers() -> None:
    assert parse_number("1.5MiB", "bytes") == 1.5 * 2**20
    assert parse_number("much", "bytes") is None


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("3ms", "latency", 3), ("250us", "latency", 0.25), ("250 µs", "latency", 0.25),
        ("0.1s", "latency", 100), ("1e-3s", "latency", 1), (".5ms", "latency", 0.5),
        ("3m", "latency", None), ("12M", "latency", None), ("200KB", "latency", None),
        ("3", "latency", None), ("0.5x", "latency", None),
        ("90s", "duration", 90), ("30m", "duration", 1800), ("1h30m", "duration", 5400),
        ("1.5h", "duration", 5400), ("2 d", "duration", 172_800), ("3ms", "duration", None),
        ("200KB", "size", 200_000), ("1.5MiB", "size", 1.5 * 2**20), ("7B", "size", 7),
        ("4G", "size", 4e9), ("3ms", "size", None), ("2x", "size", None), ("200", "size", None),
        ("200k", "count", 200_000), ("2M", "count", 2e6), ("200KB", "count", None),
        ("0.5x", "share", 0.5), ("50 %", "share", 0.5), ("50%", "share", 0.5),
        ("0.5", "share", None), ("5k", "share", None), ("", "size", None), ("x", "share", None),
    ],
)  # fmt: skip
def test_each_dimension_has_its_own_units(
    text: str, dimension: Any, expected: float | None
) -> None:
    assert parse_quantity(text, dimension) == expected


GOOD_GOALS = [
    ("latency", "0.5x", TimeTarget(0.5, True)), ("latency", "0.5", TimeTarget(0.5, True)),
    ("latency", "50 %", TimeTarget(0.5, True)), ("latency", "2x faster", TimeTarget(0.5, True)),
    ("latency", "250us", TimeTarget(0.25, False)), ("latency", "0.1s", TimeTarget(100, False)),
    ("size", "0.25", SizeTarget(0.25, True)), ("size", "200KB", SizeTarget(200_000, False)),
    ("size", "1.5MiB", SizeTarget(1.5 * 2**20, False)), ("size", "25%", SizeTarget(0.25, True)),
    ("peak_memory", "64kB", SizeTarget(64_000, False)),
    ("macs", "0.5", Target(0.5, True)), ("macs", "2x smaller", Target(0.5, True)),
    ("macs", "12M", Target(12e6, False)), ("params", "200000", Target(200_000, False)),
    ("budget", "90", 90.0), ("budget", "30m", 1800.0),
]  # fmt: skip
BAD_GOALS = [
    ("latency", "200KB", "latency must be a share .*a time like 3ms.*'200KB', which is a size"),
    ("latency", "12M", "'12M', which is a count"),
    ("latency", "3m", "'3m', which is a duration"),
    ("latency", "3", r"latency above 1 must have a unit. Received: 3. Write 3ms, or '3x faster'"),
    ("latency", "2x smaller", "latency must be '2x faster', not smaller"),
    (
        "size",
        "200000",
        "size above 1 must have a unit. Received: 200000. Write 200000B, or '200000x small",
    ),
    ("size", "3ms", "a size like 200KB.*'3ms', which is a latency"),
    ("size", "2x faster", "size must be '2x smaller', not faster"),
    ("peak_memory", "64", "peak_memory above 1 must have a unit. Received: 64"),
    ("macs", "200KB", "a count like 12M. Received: '200KB', which is a size"),
    ("macs", "3ms", "'3ms', which is a latency"),
    ("params", "120%", "params must be above 0; a share at most 1"),
    ("macs", "0", "macs must be above 0"),
    ("budget", "3ms", "a duration like 90s or 2m. Received: '3ms', which is a latency"),
    ("budget", "200KB", "'200KB', which is a size"),
]


def goal_of(way: str, name: str, text: str, folder: Path) -> Any:
    """Read a goal from Python, a TOML file or the command line."""
    if way == "python":
        return getattr(SHRINK.apply_to(ShrinkPlan(), {name: text}).goal, name)
    seen: list[Any] = []

    def noted(plan: Any) -> None:
        """Note the plan."""
        seen.append(plan)

    app = typer.Typer()
    app.command("shrink")(create_plan_command(ShrinkPlan, noted))
    words = [f"--{name.replace('_', '-')}", text]
    if way == "toml":
        (folder / "plan.toml").write_text(f'[goal]\n{name} = "{text}"\n')
        words = ["--plan", str(folder / "plan.toml")]
    done = CliRunner().invoke(app, words)
    if done.exit_code:
        assert done.exit_code == 2
        raise InputError(done.output.replace("paretune: error: ", "").strip())
    return getattr(seen[0].goal, name)


@pytest.mark.parametrize("way", ["python", "toml", "command line"])
@pytest.mark.parametrize(("name", "text", "expected"), GOOD_GOALS)
def test_goals_are_read_alike_everywhere(
    way: str, name: str, text: str, expected: Any, tmp_path: Path
) -> None:
    assert goal_of(way, name, text, tmp_path) == expected


@pytest.mark.parametrize("way", ["python", "toml", "command line"])
@pytest.mark.parametrize(("name", "text", "message"), BAD_GOALS)
def test_goals_of_another_dimension_are_refused_everywhere(
    way: str, name: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        goal_of(way, name, text, tmp_path)


def test_numbers_of_python_above_one_need_a_unit_too() -> None:
    assert GoalOptions(latency=0.5, size=1).latency == TimeTarget(0.5, True)
    for wrong in ({"latency": 3}, {"size": 200_000}, {"peak_memory": 2.5}):
        with pytest.raises(InputError, match="must have a unit"):
            GoalOptions(**wrong)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sparsity", "80%", 0.8),
        ("sparsity", "80 %", 0.8),
        ("min_kept", "0.2x", 0.2),
        ("val_fraction", "20%", 0.2),
        ("label_smoothing", "10%", 0.1),
        ("max_latency", "250us", 0.25),
        ("max_latency", "3", 3.0),
    ],
)
def test_options_take_their_units(name: str, text: str, expected: float) -> None:
    plan = from_flat(SearchPlan, {name: text})
    (leaf,) = (leaf for leaf in list_plan_fields(SearchPlan) if leaf.flat_name == name)
    assert read_field(plan, leaf) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("max_latency", "200KB", "a latency like 3ms.*which is a size"),
        ("max_minutes", "3ms", "a duration like 30m.*which is a latency"),
        ("sparsity", "3ms", "a share like 50 %.*which is a latency"),
        ("max_macs", "200KB", "max_macs must be an integer.*which is a size"),
        ("max_size", "3ms", "max_size must be an integer.*which is a latency"),
    ],
)
def test_options_refuse_other_units(name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_flat(SearchPlan, {name: text})


def test_a_latency_that_changed_its_meaning_is_told() -> None:
    app = typer.Typer()
    app.command("shrink")(create_plan_command(ShrinkPlan, lambda plan: None))
    done = CliRunner().invoke(app, ["--latency", "0.5"])
    assert done.exit_code == 0
    assert "--latency 0.5 is read as 0.5x, a share" in done.stderr
    assert "write 0.5ms" in done.stderr
    app = typer.Typer()
    app.command("run")(create_plan_command(SearchPlan, lambda plan: None))
    done = CliRunner().invoke(app, ["--latency", "0.5"])
    assert "--latency 0.5 is read as 0.5x" in done.stderr
    done = CliRunner().invoke(app, ["--latency", "0.5x"])
    assert done.stderr == ""


COUNTS = {"trials": "2k", "max_macs": "2M", "max_params": "200_000", "max_size": "1.5MiB",
          "batch_size": "1k", "calibration": "0.1k"}  # fmt: skip


def test_counts_are_the_same_from_command_line_toml_and_python(tmp_path: Path) -> None:
    expected = from_flat(SearchPlan, {
        "data": "digits", "trials": 2000, "max_macs": 2_000_000, "max_params": 200_000,
        "max_size": 3 * 2**19, "batch_size": 1000, "calibration": 100,
    })  # fmt: skip
    assert from_flat(SearchPlan, {"data": "digits", **COUNTS}) == expected
    assert from_nested(SearchPlan, to_nested(expected)) == expected
    seen: list[Any] = []

    def noted(plan: Any) -> None:
        """Notes the plan."""
        seen.append(plan)

    app = typer.Typer()
    app.command("search")(create_plan_command(SearchPlan, noted))
    words = [word for name, text in COUNTS.items()
             for word in (f"--{name.replace('_', '-')}", text)]  # fmt: skip
    CliRunner().invoke(app, ["--data", "digits", *words])
    toml = tmp_path / "plan.toml"
    toml.write_text(
        '[data]\nsource = "digits"\n[search]\ntrials = 2_000\nmax_macs = "2M"\nmax_params = 2e5\n'
        'max_size = "1.5 MiB"\n[finetune]\nbatch_size = 1000.0\n[export]\ncalibration = "100"\n'
    )
    CliRunner().invoke(app, ["--plan", str(toml)])
    assert seen == [expected, expected]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("workers", "99999999999", "at most 1,024 .each is a process of its own"),
        ("workers", 1025, "at most 1,024"),
        ("channel_tries", 9_999_999_999, "at most 10,000 .each is a repair"),
        ("round_to", 2**40, "at most 65,536 .no layer has as many channels"),
        ("threads", 100_000, "at most 1,024 .no machine runs more threads"),
        ("latency_threads", 100_000, "at most 1,024"),
        ("trials", 10**12, "at most 10,000,000 .each writes a record"),
        ("epochs", 10**9, "at most 1,000,000 .each is recorded"),
        ("finetune_epochs", 10**9, "at most 1,000,000 .each is recorded"),
        ("final_epochs", 10**9, "at most 1,000,000"),
        ("batch_size", 10**12, "at most 1,000,000 .a step holds all of them"),
        ("calibration", 10**12, "at most 1,000,000"),
        ("seed", 2**31, "at most 2,147,483,647 .seeds have 31 bits"),
        ("seed", -1, "at least 0"),
        ("opset", -1, "at least 1"),
        ("max_macs", "9" * 30, "at most 63 bits"),
        ("max_macs", "0", "at least 1. Received: 0"),
    ],
)
def test_bounds_have_reasons(name: str, value: object, reason: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be {reason}|{name} must be .*{reason}"):
        from_flat(SearchPlan, {name: value})


@pytest.mark.parametrize("plan", [SearchPlan, Plan, BenchPlan])
def test_every_whole_number_of_a_plan_has_a_lower_bound_and_most_an_upper(plan: type[Any]) -> None:
    """What has none is a limit on the user's own models, up to 63 bits."""
    unbounded = {"max_macs", "max_params", "max_size"}
    checked = 0
    for leaf in list_plan_fields(plan):
        if leaf.hint is int or leaf.hint == int | None:
            checked += 1
            with pytest.raises(InputError, match="must be at least"):
                from_flat(plan, {leaf.flat_name: -1})
            if leaf.flat_name not in unbounded:
                with pytest.raises(InputError, match=r"must be at most [\d,]+ \(.+\)"):
                    from_flat(plan, {leaf.flat_name: 2**62})
    assert checked >= (1 if plan is BenchPlan else 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threads": ("1", "9" * 12)}, "threads must be at most 1,024"),
        ({"threads": ("²",)}, "threads must be an integer"),
        ({"input_shape": "224," + "9" * 5000}, "input_shape must be sizes"),
        ({"input_shape": "²,3"}, "input_shape must be sizes"),
    ],
)
def test_lists_of_numbers_have_bounds(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchPlan(**given)
    with pytest.raises(InputError, match="weight_pattern must be .*65,536"):
        from_flat(Plan, {"weight_pattern": "1x99999999"})
    with pytest.raises(InputError, match="sparsity_end must be a share of training"):
        from_flat(Plan, {"sparsity_end": "1e300"})


def test_functions_that_take_numbers_directly_have_the_same_bounds(tmp_path: Path) -> None:
    from compress.core.device import setup_device
    from compress.measure import Entry, time_entries
    from search.spaces import resolve_space
    from search.spaces.describe import describe_space

    with pytest.raises(InputError, match="channel_tries must be at most 10,000"):
        ChannelOptions(target="0.5x", tries=10**12)
    with pytest.raises(InputError, match="latency_threads must be at most 1,024"):
        LatencyOptions(threads=10**6)
    with pytest.raises(InputError, match="threads of 'a' must be at most 1,024"):
        time_entries({"a": Entry(tmp_path, "litert", 10**6)}, precision=0.1, budget=1.0)
    with pytest.raises(InputError, match="threads must be at most 1,024"):
        setup_device("cpu", threads=10**9)
    with pytest.raises(InputError, match="batch_size must be an integer.*'many'"):
        TrainSettings(batch_size="many")  # type: ignore[arg-type]
    assert TrainSettings(batch_size="1k").batch_size == 1000  # type: ignore[arg-type]
    data: Any = None
    with pytest.raises(InputError, match="samples must be at most 1,000,000"):
        describe_space(resolve_space("cnn"), data, samples=10**12)
    with pytest.raises(InputError, match="seed must be at least 0"):
        describe_space(resolve_space("cnn"), data, seed=-1)


def test_pruning_takes_counts_and_refuses_endless_tries() -> None:
    import keras

    from compress import prune_channels

    inputs = keras.Input((8,))
    x = keras.layers.Dense(1000, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    by_text = prune_channels(model, macs="5k", round_to=1)
    assert (
        by_text.report.macs == prune_channels(model, macs=np.float64(5e3), round_to=1).report.macs
    )
    assert by_text.report.macs[1] == 5000
    for wrong, message in (
        ({"tries": 10**10}, "channel_tries must be at most"),
        ({"round_to": 2**70}, "round_to must be at most"),
    ):
        with pytest.raises(InputError, match=message):
            prune_channels(model, macs=0.5, **wrong)


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ({"formats": "fp16"}, "float16"),
        ({"formats": "FP16"}, "float16"),
        ({"objectives": "accuracy,flops"}, "macs"),
        ({"objectives": "acc,macs"}, "accuracy"),
        ({"runtimes": "tflite"}, "litert"),
        ({"task": "multi-label"}, "multilabel"),
        ({"device": "cuda"}, "gpu"),
        ({"sampler": "bayesian"}, "tpe"),
    ],
)
def test_other_names_lead_to_ours(values: dict[str, object], meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        from_flat(SearchPlan, values)


def test_other_names_are_offered_where_they_exist_alone() -> None:
    assert "Did you mean" not in str(build_unknown_name_error("fruit", "flops", ["apple", "pear"]))


def test_targets_take_counts() -> None:
    assert ChannelOptions(target="1.5M").target == Target(1.5e6, relative=False)
    assert ChannelOptions(target="200_000").target == Target(200_000, relative=False)


def labelled(labels: Any) -> Dataset:
    part = Split(np.zeros((len(labels), 2), np.float32), labels)
    count = len(np.unique(labels))
    return Dataset("d", part, part, part, tuple(map(str, range(count))), Preprocessing())


def test_labels_that_start_at_one_are_told_so() -> None:
    with pytest.raises(InputError, match=r"Received: 10 in the train part. Do they start at 1"):
        labelled(np.arange(1, 11))
    with pytest.raises(InputError) as caught:
        labelled(np.array([0, 1, 5]))
    assert "start at 1" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (np.array([0.5, 1.5]), "Numbers to predict. Give --task regression"),
        (np.eye(3), "Are they one-hot. Give their argmax"),
        (np.array([[1, 1, 0], [0, 0, 0]]), "Several labels an example. Give --task multilabel"),
    ],
)
def test_labels_of_another_task_point_at_it(labels: Any, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        MultiClass.read(labels, "y")


@pytest.mark.parametrize(
    ("width", "activation", "hint"),
    [
        (1, "sigmoid", "Its head is a sigmoid: give --task binary"),
        (4, "sigmoid", "Its head is a sigmoid: give --task multilabel"),
        (1, None, "give --task binary, or --task regression"),
        (4, "softmax", r"Received: \(None, 4\).$"),
    ],
)
def test_heads_of_another_task_point_at_it(width: int, activation: str, hint: str) -> None:
    import keras

    from compress.model.heads import check_head

    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(width, activation=activation)(inputs))
    with pytest.raises(InputError, match=hint):
        check_head(model, labelled(np.array([0, 1, 2])))
