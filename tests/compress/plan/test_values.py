"""Values of a plan: typed once, whatever they were given as, and written back as they were."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from compress.core.errors import InputError
from compress.core.quantities import format_amount, format_number, parse_number
from compress.plan import (
    AUTO,
    ChannelOptions,
    DistillOptions,
    ExportOptions,
    LayerPair,
    LayerShare,
    PatternSpec,
    Plan,
    Target,
    TeacherChoice,
    TrainTime,
    WeightOptions,
)
from compress.plan.bench import BenchPlan, InputShape
from compress.plan.conversion import TextValue
from compress.plan.nesting import (
    build_command_words,
    from_flat,
    from_nested,
    nest_options,
    to_nested,
)
from search.cli._options import create_plan_command
from search.plan import SearchOptions, SearchPlan

# what a user may type for every field that is no plain number, name or switch
RICH = {
    "data": "a b.npz", "val_fraction": "0.2", "finetune_epochs": "4", "learning_rate": "2e-3",
    "augment": "flip,shift", "channels": "0.5x", "channel_exclude": "stem*", "sparsity": "0.9",
    "weight_pattern": "1x4", "weight_overrides": "a=0.5,b=0", "weight_include": "ends,biases",
    "sparsity_end": "2e",
    "teacher": 'a.keras,"b,c.keras"', "temperature": "8",
    "distill_weight": "0.5", "feature_weight": "0.5", "feature_losses": "fitnets,mine:Loss",
    "feature_pairs": "conv2=conv3,head=top", "formats": "float32,int8,sparse", "opset": "17",
    "latency_threads": "2", "latency_budget": "2m", "seed": "7", "threads": "2", "out": "runs/x",
}  # fmt: skip
SEARCHED = RICH | {
    "space": "mlp", "trials": "2k", "optimizers": "adam,sgd", "objectives": "f1_macro,params",
    "max_macs": "2M", "max_size": "1.5MiB", "max_latency": "1.5",
    "warm_start": "runs/a,sqlite:///b.db", "storage": "sqlite:///s.db",
    "max_minutes": "1h", "trial_minutes": "90s", "final_epochs": "3",
}  # fmt: skip
BENCHED = {
    "runtimes": "litert,tensorflow", "formats": "float32,int8", "threads": "1,2",
    "compare": "a,b", "input_shape": "224,224,3", "budget": "90s", "precision": "0.05",
    "out": "bench",
}  # fmt: skip
TOML = """
seed = 7
threads = 2
out = "runs/x"
[data]
source = "a b.npz"
val_fraction = 0.2
[finetune]
epochs = 4
learning_rate = 2e-3
augment = ["flip", "shift"]
[channels]
target = 0.5
exclude = ["stem*"]
[weights]
sparsity = 0.9
pattern = "1x4"
overrides = {a = 0.5, b = 0}
include = ["ends", "biases"]
sparsity_end = "2e"
[distill]
teacher = ["a.keras", "b,c.keras"]
temperature = 8
weight = "0.5"
feature_weight = 0.5
feature_losses = ["fitnets", "mine:Loss"]
feature_pairs = {conv2 = "conv3", head = "top"}
[export]
formats = ["float32", "int8", "sparse"]
opset = 17
[latency]
threads = 2
budget = 120
[search]
space = "mlp"
trials = 2000
optimizers = ["adam", "sgd"]
objectives = ["f1_macro", "params"]
max_macs = 2e6
max_size = "1536KiB"
max_latency = 1.5
warm_start = ["runs/a", "sqlite:///b.db"]
storage = "sqlite:///s.db"
max_minutes = 60
trial_minutes = "1.5"
[final]
epochs = 3
"""


def made(plan: type[Any], *words: str) -> Any:
    """Returns the plan that a command line makes."""
    seen: list[Any] = []
    app = typer.Typer()

    def noted(plan: Any) -> None:
        """Notes the plan."""
        seen.append(plan)

    app.command("it")(create_plan_command(plan, noted))
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return seen[0]


def as_words(values: dict[str, str]) -> list[str]:
    return [word for name, text in values.items() for word in (f"--{name.replace('_', '-')}", text)]


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields every value inside, by its path."""
    if is_dataclass(value):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from leaves(item, f"{path}[{place}]")
    else:
        assert not isinstance(value, (list, dict, set)), path
        yield path, value


# texts that say a number: "2M", "50%", "0.5x", "8:2", "1x4", "a=0.3", "90s"
NUMBERS = re.compile(r".*=\s*[\d.]+\S*|[\d.,:%@xe+-]+[kKMGTBi]*|[\d.]+ ?(s|m|h|min)")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    toml = tmp_path_factory.mktemp("plans") / "p.toml"
    toml.write_text(TOML)
    return {
        "Plan()": Plan(),
        "SearchPlan()": SearchPlan(),
        "BenchPlan()": BenchPlan(),
        "compress": made(Plan, *as_words(RICH)),
        "run": made(SearchPlan, *as_words(SEARCHED)),
        "bench": made(BenchPlan, *as_words(BENCHED)),
        "toml": made(SearchPlan, "--plan", str(toml)),
    }


def test_no_field_of_a_plan_holds_a_number_typed_as_text(plans: dict[str, Any]) -> None:
    kinds: set[type] = set()
    for name, plan in plans.items():
        for path, value in leaves(plan, name):
            kinds.add(type(value))
            if isinstance(value, str):
                assert not NUMBERS.fullmatch(value), f"{path} is {value!r}"
    assert {kind for kind in kinds if not issubclass(kind, Path)} == {
        str, int, float, bool, type(None),
    }  # fmt: skip


@pytest.mark.parametrize("text", ["2M", "50%", "0.5x", "8:2", "1x4", "a=0.3", "90s",
                                  "2e", "0:0.7@20%", "224,224,3", "1.5MiB", "0.8"])  # fmt: skip
def test_the_test_would_see_one(text: str) -> None:
    assert NUMBERS.fullmatch(text)


def test_command_line_and_toml_make_the_same_plan(plans: dict[str, Any]) -> None:
    assert plans["run"] == plans["toml"]
    assert plans["run"] == from_flat(SearchPlan, SEARCHED)


def test_plans_survive_json_and_the_command_line(plans: dict[str, Any]) -> None:
    for name, plan in plans.items():
        assert from_nested(type(plan), json.loads(json.dumps(to_nested(plan)))) == plan, name
        out = {} if plan.out is None else {"out": str(plan.out)}
        again = made(type(plan), *build_command_words(plan), *as_words(out))
        assert again == plan, name
        assert build_command_words(again) == build_command_words(plan)


def test_a_shown_command_says_what_was_typed(plans: dict[str, Any]) -> None:
    words = build_command_words(plans["compress"])
    shown = dict(zip(words[::2], words[1::2], strict=True))
    typed = {f"--{name.replace('_', '-')}": text for name, text in RICH.items() if name != "out"}
    assert shown == typed | {"--learning-rate": "0.002", "--latency-budget": "120"}
    assert (
        build_command_words(Plan())
        == build_command_words(SearchPlan())
        == build_command_words(BenchPlan())
        == []
    )


def test_values_hold_what_was_said(plans: dict[str, Any]) -> None:
    plan = plans["run"]
    assert plan.channels.target == Target(0.5, relative=True)
    assert plan.weights.overrides == (LayerShare("a", 0.5), LayerShare("b", 0.0))
    assert plan.weights.pattern == PatternSpec("block", 1, 4)
    assert plan.weights.sparsity_end == TrainTime(2.0, "epochs")
    assert plan.distill.teacher.files == (Path("a.keras"), Path("b,c.keras"))
    assert (plan.distill.temperature, plan.distill.weight) == (8.0, 0.5)
    assert plan.distill.feature_pairs == (LayerPair("conv2", "conv3"), LayerPair("head", "top"))
    assert plan.search.max_size == 1.5 * 2**20
    assert (plan.search.max_minutes, plan.search.trial_minutes) == (60, 1.5)
    assert plan.out == Path("runs/x")
    assert plans["bench"].input_shape == InputShape((("", (224, 224, 3)),))
    assert (plans["bench"].threads, plans["bench"].budget) == ((1, 2), 90.0)


def test_python_gives_values_as_they_are() -> None:
    assert ChannelOptions(target=0.5).target == Target(0.5, relative=True)
    assert ChannelOptions(target=12e6).target == Target(12e6, relative=False)
    assert ChannelOptions(target=np.float32(0.5)) == ChannelOptions(target="0.5x")
    assert ChannelOptions(exclude="stem*").exclude == ("stem*",)
    assert WeightOptions(overrides={"a": 0.3}).overrides == (LayerShare("a", 0.3),)
    assert WeightOptions(sparsity_end=0.5).sparsity_end == TrainTime(0.5, "share")
    assert WeightOptions(sparsity_end=400).sparsity_end == TrainTime(400.0, "steps")
    assert WeightOptions(pattern=PatternSpec("n:m", 2, 4)) == WeightOptions(pattern="2:4")
    assert DistillOptions(temperature=8) == DistillOptions(temperature="8.0")
    assert DistillOptions(teacher=Path("a,b.keras")).teacher.files == (Path("a,b.keras"),)
    assert DistillOptions(teacher=None).teacher == DistillOptions(teacher="none").teacher
    assert DistillOptions(feature_pairs={"a": "b"}, feature_losses=["fitnets"]).feature_pairs == (
        LayerPair("a", "b"),
    )
    assert ExportOptions(formats=["int8"]).formats == ("int8",)
    assert (
        BenchPlan(threads=[1, 2]).threads == BenchPlan(threads=np.array([1, 2])).threads == (1, 2)
    )
    assert BenchPlan(threads=2).threads == (2,)
    assert SearchOptions(max_minutes="2h").max_minutes == 120.0
    assert SearchOptions(max_minutes=120).max_minutes == 120.0


RECORDS: list[tuple[Any, str, Any]] = [
    (Target, "0.5x", Target(0.5, relative=True)),
    (Target, "12M", Target(12e6, relative=False)),
    (Target, "60k", Target(6e4, relative=False)),
    (Target, "1234567", Target(1234567.0, relative=False)),
    (LayerShare, "a=b=0.25", LayerShare("a=b", 0.25)),
    (LayerPair, "conv2=conv3", LayerPair("conv2", "conv3")),
    (PatternSpec, "unstructured", PatternSpec()),
    (PatternSpec, "2:4", PatternSpec("n:m", 2, 4)),
    (PatternSpec, "32x1", PatternSpec("block", 32, 1)),
    (TrainTime, "7%", TrainTime(0.07, "share")),
    (TrainTime, "0.1e", TrainTime(0.1, "epochs")),
    (TrainTime, "400", TrainTime(400.0, "steps")),
    (TeacherChoice, "auto", AUTO),
    (TeacherChoice, "none", TeacherChoice()),
    (TeacherChoice, 'a.keras,"b,c.keras"', TeacherChoice((Path("a.keras"), Path("b,c.keras")))),
]


@pytest.mark.parametrize(("kind", "text", "value"), RECORDS)
def test_records_write_the_text_that_they_read(
    kind: type[TextValue], text: str, value: Any
) -> None:
    assert kind.parse(text) == kind.from_value(text) == kind.from_value(value) == value
    assert str(value) == text
    assert kind.from_value(value.to_plain()) == value


@pytest.mark.parametrize(
    ("text", "share"),
    [("2x smaller", 0.5), ("2x", 0.5), ("4x  smaller", 0.25), ("1x smaller", 1.0), ("1x", 1.0),
     (" 0.25x ", 0.25)],
)  # fmt: skip
def test_ratios_of_both_kinds(text: str, share: float) -> None:
    assert Target.parse(text) == Target(share, relative=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Target.parse("half"),
            "0.5x, 50 % or '2x smaller', or a count like 12M",
        ),
        (lambda: Target.parse("12M smaller"), "Received: '12M smaller'"),
        (lambda: Target.parse("0.5x smaller"), "at least '1x smaller'.*'0.5x' keeps that share"),
        (lambda: ChannelOptions(target=float("nan")), "channels must be a share.*Received: nan"),
        (lambda: ChannelOptions(target=-0.5), r"must keep a share in \(0, 1\].*Received: -0.5x"),
        (lambda: ChannelOptions(target="0.5ms"), "Received: '0.5ms', which is a latency"),
        (lambda: ChannelOptions(target=True), "channels must be a share.*Received: True"),
        (lambda: WeightOptions(overrides=5), "weight_overrides must be pattern=share.*Received: 5"),
        (lambda: ChannelOptions(exclude=5), "channel_exclude must be a list of names. Received: 5"),
        (lambda: ChannelOptions(blocks="yes"), "blocks must be true or false.*'yes'"),
        (lambda: ChannelOptions(exclude=["a\0"]), r"exclude must hold no NUL.*'a\\x00'"),
        (lambda: WeightOptions(sparsity=None), "sparsity must have a value. Received: None"),
        (lambda: WeightOptions(sparsity_end="120%"), "sparsity_end must be a share of training"),
        (lambda: WeightOptions(pattern=24), "weight_pattern must be unstructured.*Received: 24"),
        (lambda: DistillOptions(teacher=5), "teacher must be auto, none, or files.*Received: 5"),
        (lambda: DistillOptions(teacher=["auto", "b"]), "files alone. Received: 'auto,b'"),
        (lambda: DistillOptions(temperature=float("nan")), "temperature must be finite"),
        (lambda: DistillOptions(weight="0:0.7@20%"), "distill_weight must be a number. Received:"),
        (lambda: SearchOptions(max_minutes="soon"), "max_minutes must be a number of minutes, or"),
        (lambda: BenchPlan(budget="30x"), "budget must be a number of seconds, or a dur"),
        (lambda: BenchPlan(input_shape="224x224"), "sizes with commas, like 224,224,3"),
        (lambda: BenchPlan(threads=None), "threads must be a list. Received: None"),
    ],
)
def test_what_no_field_takes(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@given(st.floats(0, 1, allow_subnormal=False), st.floats(-1e9, 1e9))
def test_any_number_survives_its_text(share: float, number: float) -> None:
    assert Target.parse(str(Target(share, relative=True))) == Target(share, relative=True)
    assert LayerShare.parse(str(LayerShare("a", share))) == LayerShare("a", share)
    time = TrainTime.from_value(share)
    assert TrainTime.parse(str(time)) == time
    assert time.value == pytest.approx(share, rel=1e-15)
    assert float(format_number(number)) == number


@given(st.one_of(st.integers(-(2**53), 2**53), st.floats(-1e30, 1e30)))
def test_amounts_survive_their_text(number: float) -> None:
    assert parse_number(format_amount(float(number)), "count") == float(number)


@pytest.mark.parametrize(
    ("number", "text"),
    [(12e6, "12M"), (1500, "1500"), (15_000, "15k"), (1_500_000, "1.5M"),
     (1000, "1k"), (1234, "1234"), (999, "999"), (0.92, "0.92"),
     (2.5e9, "2.5G"), (1e12, "1T"), (0, "0"), (-2e6, "-2M"), (1572864, "1572864")],
)  # fmt: skip
def test_amounts_are_short(number: float, text: str) -> None:
    assert format_amount(float(number)) == text


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [("30m", "minutes", 30), ("1h", "minutes", 60), ("90s", "minutes", Fraction(3, 2)),
     ("1h30m", "minutes", 90), ("2 d", "minutes", 2880), ("1.5h", "seconds", 5400),
     ("2min", "seconds", 120), ("7", "minutes", 7), ("2M", "minutes", 2), ("30m", "", None),
     ("m", "minutes", None), ("", "minutes", None), ("1m30", "minutes", None)],
)  # fmt: skip
def test_times_are_read(text: str, unit: str, expected: float | None) -> None:
    assert parse_number(text, unit) == expected


def test_an_old_name_beside_the_new_one_is_refused() -> None:
    with pytest.raises(InputError, match="once. Received: 'weights.include' and its old"):
        from_nested(Plan, {"weights": {"also": ["ends"], "include": ["ends"]}})
    assert nest_options(Plan, {"weight_include": "ends"}) == {"weights": {"include": "ends"}}
