"""Goals as numbers, and which file meets them: against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.core.errors import FeasibleError, InputError
from compress.data import Dataset, Preprocessing, Split
from compress.measure.latency_record import Latency
from compress.measure.verdict import MET, MISSED, WITHIN_NOISE
from compress.plan.shrink import GoalOptions, ShrinkPlan
from compress.run.compressed_model import Artifact
from compress.shrinking.candidate import OriginalFiles
from compress.shrinking.file_choice import FileChoice, Measurements, RemoteTimes, choose_file
from compress.shrinking.goals import (
    MetricConstraint,
    compute_cost_limits,
    format_cost,
    format_goals,
)

DENSE = OriginalFiles(
    "float32", "exports/m.float32.tflite", {"float32": 2.0}, {"float32": 1000, "int8": 300},
    {"float32": 800}, {},
    {"float32": {"accuracy": 0.9}}, {},
)  # fmt: skip
COUNTED: Any = SimpleNamespace(macs=4_000, params=200)


def test_shares_are_of_the_model_itself_and_amounts_are_taken_as_they_are() -> None:
    goal = GoalOptions(latency=0.25, size="200B", macs="0.5x", params=120, peak_memory=0.5)
    found = compute_cost_limits(goal, DENSE, COUNTED)
    assert found == {
        "latency": 0.5, "size": 200.0, "peak_memory": 400.0, "macs": 2000.0, "params": 120.0
    }  # fmt: skip
    # milliseconds are aimed below: the upper end of an interval must come to them
    aimed = compute_cost_limits(GoalOptions(latency="250us"), DENSE, COUNTED)
    assert aimed == {"latency": pytest.approx(0.25 / 1.03)}
    assert compute_cost_limits(GoalOptions(latency="250us"), DENSE, COUNTED, 0.25) == {
        "latency": 0.2
    }


def test_names_in_a_file_are_as_many_as_its_tensors() -> None:
    dense = replace(DENSE, beside={"int8": 100}, weights=40)
    assert dense.estimate_overhead("int8", 10) == 25.0
    assert dense.estimate_overhead("int8", 40) == 100.0
    assert dense.estimate_overhead("float32", 10) == 0.0
    # records of before do not tell how many there are
    assert replace(dense, weights=0).estimate_overhead("int8", 10) == 100.0


def test_folders_are_called_by_the_goal() -> None:
    assert GoalOptions(latency=0.5, max_drop=1).label == "latency0_5x-drop1"
    assert GoalOptions(peak_memory="64KB", no_train=True).label == "memory64kB-untrained"
    assert GoalOptions(min_metric=0.92).label == "quality0_92"
    assert GoalOptions().label == "front"


def test_a_bar_is_so_many_points_below_the_model(blobs: Dataset) -> None:
    bar = MetricConstraint.from_goal(GoalOptions(max_drop=1.5), DENSE, blobs)
    assert bar.floor == pytest.approx(0.885)
    assert bar.compute_drop(0.87) == pytest.approx(3.0)
    assert bar.allowed_drop == pytest.approx(1.5)
    assert bar.is_met(0.885)
    assert not bar.is_met(0.88)
    assert MetricConstraint.from_goal(GoalOptions(), DENSE, blobs).floor is None
    assert MetricConstraint.from_goal(GoalOptions(min_metric=0.8), DENSE, blobs).floor == 0.8


def test_points_of_an_error_are_its_own_unit() -> None:
    assert MetricConstraint("rmse", -3.0, None).compute_drop(-4.5) == pytest.approx(1.5)


def test_a_quality_above_the_models_own_is_refused(blobs: Dataset) -> None:
    with pytest.raises(FeasibleError, match=r"at most the model's own .* 0\.9000"):
        MetricConstraint.from_goal(GoalOptions(min_metric=0.95), DENSE, blobs)


def test_a_model_at_chance_is_refused(blobs: Dataset) -> None:
    # three classes, 60 examples, 1/3 right by chance. Of 0.52 the gain is 0.187, and as many as
    # 0.187 + 2/3 of the examples may be decided otherwise: 1.645 sqrt((0.853 - 0.187^2) / 60)
    # = 0.192. Of 0.53: 0.197 > 1.645 sqrt((0.863 - 0.197^2) / 60) = 0.193
    guessing = replace(DENSE, val={"float32": {"accuracy": 0.52}})
    with pytest.raises(FeasibleError, match="better than the best constant answer"):
        MetricConstraint.from_goal(GoalOptions(), guessing, blobs)
    better = replace(DENSE, val={"float32": {"accuracy": 0.53}})
    assert MetricConstraint.from_goal(GoalOptions(), better, blobs).original == 0.53


@pytest.mark.parametrize(
    ("metric", "constant", "learnt"),
    [("accuracy", 0.9, 0.95), ("f1_macro", 0.9 / 1.9, 0.7), ("recall_macro", 0.5, 0.7)],
)
def test_a_constant_answer_has_learned_nothing(metric: str, constant: float, learnt: float) -> None:
    """90 % are of one class: always to say that class is 90 % right, and no goal is met by it."""

    def part(count: int) -> Split:
        y = (np.arange(count) % 10 == 0).astype(np.int64)
        return Split(np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32), y)

    parts = part(700), part(300), part(200)
    data = Dataset("d", *parts, ("a", "b"), Preprocessing(), metric=metric)
    goal = GoalOptions(max_drop=1.0)
    for value in (constant, constant + 0.005):
        dense = replace(DENSE, val={"float32": {metric: value}})
        with pytest.raises(
            FeasibleError,
            match=rf"{metric} {value:.4f} on 300 .* constant answer has {metric} {constant:.4f}"
            ".* train the model first",
        ):
            MetricConstraint.from_goal(goal, dense, data)
    good = replace(DENSE, val={"float32": {metric: learnt}})
    assert MetricConstraint.from_goal(goal, good, data).original == learnt


def test_without_labels_only_constant_answers_are_refused() -> None:
    """A model agrees with its own answers: with ten of twelve alike there is something to keep."""
    answers = np.eye(3, dtype=np.float32)[[0] * 10 + [1, 2]]
    x = np.random.default_rng(0).normal(size=(36, 4)).astype(np.float32)
    parts = [Split(piece, answers) for piece in np.split(x, 3)]
    data = Dataset("d", *parts, ("a", "b", "c"), Preprocessing(), kind="unlabelled")
    dense = replace(DENSE, val={"float32": {"agreement": 1.0}})
    assert MetricConstraint.from_goal(GoalOptions(), dense, data).original == 1.0
    same = replace(data, val=replace(parts[1], y=np.eye(3, dtype=np.float32)[[0] * 12]))
    with pytest.raises(FeasibleError, match="best constant answer has agreement 1.0000"):
        MetricConstraint.from_goal(GoalOptions(), dense, same)


def test_goals_in_words() -> None:
    goal = GoalOptions(latency=0.5, max_drop=1)
    text = format_goals(goal, {"latency": 1.0}, MetricConstraint("accuracy", 0.9, 0.89))
    assert text == "latency 0.5x, accuracy at least 0.8900"
    text = format_goals(goal, {"latency": 1.0}, MetricConstraint("accuracy", 0.9, 0.89, 1.0))
    assert text == "latency 0.5x, accuracy drop at most 1 pp"
    both = format_goals(GoalOptions(size=0.5, latency="3ms"), {"size": 500.0, "latency": 3.0}, BAR)
    assert both == "size 0.5x (0.5 kB), latency 3ms"
    assert format_cost("macs", 2_000_000) == "2.00 M MACs"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"latency": "2x slower"}, "latency"),
        ({"latency": 0.0}, "latency"),
        ({"size": "0x"}, "size"),
        ({"max_drop": -1.0}, "max_drop"),
        ({"max_drop": 1.0, "min_metric": 0.9}, "max_drop"),
        ({"budget": 0.0}, "budget"),
        ({"budget": "soon"}, "budget"),
    ],
)
def test_bad_goals_name_themselves(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        GoalOptions(**values)


def test_what_contradicts_a_goal_is_refused() -> None:
    from compress.plan.nesting import from_flat

    for flat, named in (
        ({"channels": "0.5x"}, "channels"),
        ({"sparsity": 0.5}, "sparsity"),
        ({"channel_scope": "layer", "blocks": False}, "scope"),
        ({"latency": "0.5x", "runtimes": "mnn"}, "runtimes"),
        ({"formats": "float32,onnx"}, "formats"),
    ):
        with pytest.raises(InputError, match=named):
            from_flat(ShrinkPlan, flat)


def artifact(name: str, val: float, size: int, macs: int = 100) -> Artifact:
    return Artifact(
        f"{name}.float32", "m", "dense" if name == "m" else "pruned", "float32", f"exports/{name}",
        "m.float32", macs, 10, 10, 0.0, (), size, size, {"accuracy": 0.0}, 0.0, 1.0, 1,
        val={"accuracy": val},
    )  # fmt: skip


def times(**ratios: float) -> dict[str, Latency]:
    return {
        f"{name}.float32": Latency(
            1.0 / ratio, 0.9 / ratio, 1.1 / ratio, 1.2, 0.8, ratio, ratio, ratio, "m.float32", 40,
            20, 400, 1, "cpu", "LiteRT", "precision", (),
        )
        for name, ratio in ratios.items()
    }  # fmt: skip


FILES = [
    artifact("m", 0.90, 1000),
    artifact("half", 0.89, 500, 50),
    artifact("third", 0.80, 300, 30),
]
TIMES = times(m=1.0, half=2.0, third=4.0)


SHARES = Measurements(TIMES, {"half.float32": 400}, relative=True)
BAR = MetricConstraint("accuracy", 0.90, None)


def test_what_is_measured_is_told_as_it_was_asked_for() -> None:
    found = SHARES.collect_costs(FILES[1])
    assert found == {
        "size": 500.0, "macs": 50.0, "params": 10.0, "peak_memory": 400.0, "latency": 0.5
    }  # fmt: skip
    # its own milliseconds, where milliseconds were asked for; no memory where none is known
    plain = replace(SHARES, relative=False)
    assert plain.collect_costs(FILES[2]) == {
        "size": 300.0, "macs": 30.0, "params": 10.0, "latency": 0.25
    }  # fmt: skip
    assert SHARES.describe_cost("latency", FILES[1], 0.6) == (
        "latency: 500 us [450, 550], 0.5x of the original's, limit 0.6x: met"
    )
    assert plain.describe_cost("latency", FILES[1], 0.6) == (
        "latency: 500 us [450, 550], limit 600 us: met"
    )


def chosen_file(
    files: list[Artifact], measured: Measurements, limits: dict[str, float], bar: MetricConstraint
) -> FileChoice:
    return choose_file(files, FILES[0], measured, limits, bar)


def test_the_best_file_that_meets_the_costs_is_chosen() -> None:
    found = chosen_file(FILES, SHARES, {"latency": 0.5}, BAR)
    assert (found.chosen.id, found.state) == ("half.float32", MET)
    # within the spread of times, not beyond
    assert chosen_file(FILES, SHARES, {"latency": 0.49}, BAR).chosen.id == "half.float32"
    assert chosen_file(FILES, SHARES, {"latency": 0.48}, BAR).chosen.id == "third.float32"
    # sizes do not spread
    assert chosen_file(FILES, SHARES, {"size": 499.0}, BAR).chosen.id == "third.float32"
    both = chosen_file(FILES, SHARES, {"latency": 0.5, "macs": 40.0}, BAR)
    assert (both.chosen.id, both.state) == ("third.float32", MET)
    assert both.used_share == pytest.approx(0.75)


def test_a_missed_goal_is_said() -> None:
    found = chosen_file(FILES, SHARES, {"size": 100.0}, BAR)
    assert (found.chosen.id, found.state) == ("third.float32", MISSED)
    assert found.lines == ("size: 0.3 kB, limit 0.1 kB: missed",)


def test_half_a_point_of_validation_is_less_than_speed() -> None:
    """Of 4.5 times the speed and 0.01 points more, it is the speed that ships."""
    files = [artifact("m", 0.9001, 1000), artifact("half", 0.9000, 500, 50)]
    fast = replace(SHARES, times=times(m=1.0, half=4.5))
    assert chosen_file(files, fast, {"latency": 1.0}, BAR).chosen.id == "half.float32"
    worse = [files[0], artifact("half", 0.8950, 500, 50)]
    assert chosen_file(worse, fast, {"latency": 1.0}, BAR).chosen.id == "m.float32"


def test_of_files_inside_the_limit_the_cheapest_ships() -> None:
    original = np.where(np.arange(1000) < 900, 1.0, 0.0)
    values = {
        "m.float32": original,
        "half.float32": np.where(np.arange(1000) < 2, 0.0, original),
        "third.float32": np.where(np.arange(1000) < 8, 0.0, original),
    }
    files = [artifact("m", 0.9, 1000), artifact("half", 0.898, 500), artifact("third", 0.892, 300)]
    known = replace(SHARES, values=values)
    # 8 lost of 1,000: -0.8 +- 0.62 pp
    bar = MetricConstraint("accuracy", 0.9, 0.885, 1.5)
    assert chosen_file(files, known, {}, bar).chosen.id == "third.float32"
    # at most a point: 2 lost, -0.2 +- 0.39 pp, is inside, 8 lost may not be
    bar = MetricConstraint("accuracy", 0.9, 0.89, 1.0)
    assert chosen_file(files, known, {}, bar).chosen.id == "half.float32"
    # nothing can be shown of a fifth of a point: the best one
    bar = MetricConstraint("accuracy", 0.9, 0.898, 0.2)
    assert chosen_file(files, known, {}, bar).chosen.id == "m.float32"
    # with costs, the best one of those that meet them
    assert chosen_file(files, known, {"size": 600.0}, bar).chosen.id == "half.float32"
    # nothing is known of single examples: likewise
    bar = MetricConstraint("accuracy", 0.9, 0.885, 1.5)
    assert chosen_file(files, SHARES, {}, bar).chosen.id == "m.float32"


def test_milliseconds_have_no_slack() -> None:
    plain = replace(SHARES, relative=False)  # half takes 500 us [450, 550]
    assert plain.check_cost("latency", FILES[1], 0.55) == MET
    assert plain.check_cost("latency", FILES[1], 0.549) == WITHIN_NOISE
    assert plain.check_cost("latency", FILES[1], 0.499) == MISSED
    found = chosen_file(FILES[:2], plain, {"latency": 0.51}, BAR)
    assert (found.chosen.id, found.state) == ("half.float32", WITHIN_NOISE)
    # whoever meets it beyond noise goes first
    found = chosen_file(FILES, plain, {"latency": 0.51}, BAR)
    assert (found.chosen.id, found.state) == ("third.float32", MET)


def test_times_elsewhere_say_how_far_they_may_be_off() -> None:
    there = RemoteTimes("a phone", 4.0, {"m.float32": 4.0, "half.float32": 2.0},
                      frozenset({"m.float32"}), 0.05)  # fmt: skip
    known = replace(SHARES, relative=False, remote_times=there)
    assert known.describe_cost("latency", FILES[1], 2.1) == (
        "latency: 2.00 ms on a phone (estimated, 5.0 % off on held-out models), limit 2.10 ms: met"
    )
    assert known.check_cost("latency", FILES[1], 2.05) == WITHIN_NOISE
    assert known.check_cost("latency", FILES[0], 4.0) == MET  # measured
    alone = replace(known, remote_times=replace(there, error=None))
    assert alone.check_cost("latency", FILES[1], 3.9) == WITHIN_NOISE
    assert "not compared with whole models" in alone.describe_cost("latency", FILES[1], 3.9)
    # a share has the slack of shares
    share = replace(known, relative=True)
    assert share.check_cost("latency", FILES[1], 0.49) == MET


def test_only_times_may_be_passed_by_their_spread() -> None:
    # "half" takes 0.5x and 500 bytes: 2 % above 0.49x is spread, above 490 bytes it is not
    assert chosen_file(FILES, SHARES, {"latency": 0.49}, BAR).chosen.id == "half.float32"
    both = chosen_file(FILES, SHARES, {"latency": 0.49, "size": 490.0}, BAR)
    assert both.chosen.id == "third.float32"
