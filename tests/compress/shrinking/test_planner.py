"""Which nets are made: the planner with a workshop that only pretends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core.errors import FeasibleError, InputError, RunFailed, TrainingDiverged
from compress.shrinking.candidate import REPAIRED, TRAINED, Candidate
from compress.shrinking.candidate_builder import CandidateBuilder
from compress.shrinking.goals import OutOfReach
from compress.shrinking.planner import FRONT, Planner
from compress.shrinking.time_budget import TimeBudget
from compress.shrinking.variations import BEHIND, FINISHING, Variation, VariationSampler
from tests.compress.shrinking.pretended import Builder, planner


def test_each_format_gets_a_net_of_its_own_for_a_time() -> None:
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, None, lambda _: 2.0)
    nets = made.run()
    assert builder.asked == [
        ("m-latency0_5x-float32", "float32"), ("m-latency0_5x-int8", "int8")
    ]  # fmt: skip
    assert [net.formats for net in nets] == [("float32",), ("int8",)]
    assert builder.epochs == {"m-latency0_5x-float32": 3, "m-latency0_5x-int8": 3}


def test_a_format_that_is_slower_as_it_is_need_not_be_tried() -> None:
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, None, lambda _: 2.0)
    builder.original_files.times["int8"] = 2.2
    made.run()
    assert builder.asked == [("m-latency0_5x", "float32")]
    assert made.notes == [
        "int8 was left out: the model's own int8 file takes 1.10 times as long as its float32 file "
        "(measured), so more channels would have to be removed for the same time"
    ]


def test_a_goal_of_no_format_is_an_error_before_training() -> None:
    made, builder = planner({"latency": "0.1x"}, {"latency": 0.2}, None, lambda _: 2.0, least=0.2)
    with pytest.raises(FeasibleError, match="too little"):
        made.run()
    assert not builder.epochs


def test_of_formats_that_do_not_come_to_a_goal_the_nearest_tells_what_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(_: Builder, name: str, format: str, *__: Any) -> Candidate:
        raise OutOfReach(f"a {format} file", {"float32": 1.7, "int8": 1.2}[format])

    monkeypatch.setattr(Builder, "build", none)
    made, _ = planner({"latency": "0.1x"}, {"latency": 0.2}, None, lambda _: 2.0)
    with pytest.raises(FeasibleError, match="a int8 file"):
        made.run()


def test_a_format_without_a_file_that_runs_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Builder.build

    def refused(builder: Builder, name: str, format: str, *more: Any) -> Candidate:
        if format in without:
            raise RunFailed(f"a {format} file cannot be run")
        return build(builder, name, format, *more)

    monkeypatch.setattr(Builder, "build", refused)
    without = {"int8"}
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, None, lambda _: 2.0)
    assert [net.formats for net in made.run()] == [("float32",)]
    assert builder.epochs == {"m-latency0_5x-float32": 3}
    assert made.notes == ["a int8 file cannot be run"]
    without = {"float32", "int8"}
    made, _ = planner({"latency": "0.5x"}, {"latency": 1.0}, None, lambda _: 2.0)
    with pytest.raises(RunFailed, match="a float32 file cannot be run"):
        made.run()
    front, _ = planner({}, {}, None, lambda _: 2.0)
    assert [net.whole for net in front.run()] == [True]
    assert front.notes[0] == "no model takes 0.7x of the time: a float32 file cannot be run"


def test_what_repair_leaves_far_outside_the_bar_is_not_trained() -> None:
    # 10 x 1 point + 5 may be left by repair
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, 0.89, lambda _: 15.1)
    made.run()
    # but one: it is the nearest that there is
    assert list(builder.epochs) == ["m-latency0_5x-float32"]
    assert (
        "m-latency0_5x-int8 was not trained: after reconstruction validation accuracy -15.10 pp"
        in (made.notes[0])
    )
    # where a quality is all that is asked for there are others
    made, builder = planner({"max_drop": 1.0}, {}, 0.89, lambda _: 15.1)
    made.run()
    assert not builder.epochs
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, 0.89, lambda _: 14.9)
    made.run()
    assert len(builder.epochs) == 2


def test_no_training_where_none_is_asked_for() -> None:
    made, builder = planner({"no_train": True}, {"latency": 1.0}, None, lambda _: 2.0)
    made.limits = {}
    assert len(made.run()) == len(FRONT)
    assert not builder.epochs


def test_a_quality_is_held_by_the_fastest_net_between_one_and_a_tenth() -> None:
    # repair loses 0.4 / share points, training gives three quarters back: 0.1 / share are lost
    made, builder = planner({"max_drop": 0.4}, {}, 0.896, lambda share: 0.4 / share)
    nets = made.run()
    held = [net.share for net in nets if net.get_metric("float32", "accuracy") >= 0.896 - 1e-9]
    # the least share is 0.25; what is nearer than 12 % is not told apart
    assert 0.25 <= min(held) <= 0.25 * 1.12
    assert max(held) == 1.0
    assert len(builder.epochs) <= 5


def test_a_front_reaches_from_one_to_a_tenth() -> None:
    made, builder = planner({}, {}, None, lambda _: 2.0, least=0.12)
    nets = made.run()
    assert [net.share for net in nets] == pytest.approx([s for s in FRONT if s >= 0.12])
    assert any("too little" in note for note in made.notes)
    assert nets[0].whole
    assert len(builder.epochs) == len(nets) - 1


def test_a_budget_bounds_epochs() -> None:
    pace = TimeBudget(1000.0)
    pace._forward_seconds = 10.0
    # 3 x 10 s an epoch of the whole net, 15 s at half; two nets share what is left
    assert pace.limit_epochs(0.5, 100, 2) == pytest.approx(33, abs=1)
    pace = TimeBudget(155.0)  # less than a variation and the end would take
    pace._forward_seconds = 10.0
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, None, lambda _: 2.0, pace=pace)
    made.run()
    assert list(builder.epochs.values()) == [3, 3]
    short = TimeBudget(40.0)
    short._forward_seconds = 10.0
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, None, lambda _: 2.0, pace=short)
    made.run()
    # 40 s / 2 / 15 s: one; it took 10 s an epoch, so the next are thought to take 12.5 s
    assert list(builder.epochs.values()) == [1, 3]
    assert "1 epochs of 3: the budget" in made.notes[0]
    none = TimeBudget(5.0)
    none._forward_seconds = 10.0
    made, builder = planner({"latency": "0.5x"}, {"latency": 1.0}, None, lambda _: 2.0, pace=none)
    made.run()
    assert not builder.epochs
    assert "of the budget are left" in made.notes[0]


def varied_within(
    budget: float | None, monkeypatch: pytest.MonkeyPatch,
    known: Mapping[str, Candidate] | None = None, **flat: Any,
) -> tuple[Planner, Builder, list[Candidate]]:  # fmt: skip
    """Plans with a clock that only pretended work moves."""
    examples, places = flat.pop("examples", 10**6), flat.pop("places", 1)
    made, builder = planner(
        {"latency": "0.5x", **flat}, {"latency": 1.0}, None, lambda _: 2.0, examples=examples
    )
    builder.max_parallel = places
    builder.made.update(known or {})
    monkeypatch.setattr(time, "monotonic", lambda: builder.clock[0])
    made.time_budget = TimeBudget(budget, 0.0, 0.0)
    made.time_budget._forward_seconds, made.time_budget._training_factor = 6.0, 3.0
    return made, builder, made.run()


@pytest.mark.parametrize("content", ['{"seconds": "long"}', "{}", "[]", "{"])
def test_a_damaged_note_of_the_time_spent_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "spent.json"
    assert TimeBudget.resume(10.0, path).spent_before == 0.0
    path.write_text('{"seconds": 4}')
    assert TimeBudget.resume(10.0, path).spent_before == 4.0
    path.write_text(content)
    with pytest.raises(InputError, match="spent.json"):
        TimeBudget.resume(10.0, path)


def test_without_a_budget_the_recipe_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    _, builder, nets = varied_within(None, monkeypatch)
    assert len(nets) == 2
    assert not builder.variations


def test_a_budget_is_used_for_variations(monkeypatch: pytest.MonkeyPatch) -> None:
    made, builder, nets = varied_within(2000.0, monkeypatch)
    assert len(builder.variations) > 10
    # the end has the time that it takes: a try is 50 s, and is begun where 1.3 of them are left
    assert 2000.0 - FINISHING - 60.0 - 1.3 * 50.0 - 50.0 <= builder.clock[0] <= 2000.0 - FINISHING
    assert len(nets) == 3
    best = nets[-1]
    tried = [builder.made[name] for name in builder.variations]
    assert best == max(tried, key=lambda net: net.get_best("accuracy"))
    assert abs(np.log(builder.variations[best.name].temperature / 1.5)) < 0.2
    # the recipe loses 2 points repaired, a fourth of them trained; the best there is 0.8 less
    assert 0.8975 > best.get_best("accuracy") > 0.9 - 0.005
    assert f"time for {len(builder.variations)} variation(s)" in made.notes[-1]
    assert "output errors to the power of" in made.notes[-1]
    # what was learnt is used: later ones are nearer
    powers = [abs(np.log(v.temperature / 1.5)) for v in builder.variations.values()]
    assert np.mean(powers[-8:]) < np.mean(powers[:8])
    formats = {variation.format for variation in builder.variations.values()}
    assert formats == {"float32", "int8"}
    assert all(0.3 <= v.learning_rate <= 3.0 for v in builder.variations.values())


def test_what_chance_may_do_is_no_reason_to_leave_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 0.2 points are gained; of 1,000 examples the standard error is a whole point
    made, builder, nets = varied_within(2000.0, monkeypatch, examples=1000)
    assert len(builder.variations) > 10
    assert [net.variation for net in nets] == [{}, {}]
    assert "which chance may do" in made.notes[-1]


def test_variations_that_repair_leaves_far_behind_are_not_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("compress.shrinking.variations.BEHIND", 0.5)
    assert BEHIND > 0.5
    _, builder, _ = varied_within(1500.0, monkeypatch)
    best, stages = 0.0, set()
    for net in builder.made.values():
        repaired = net.get_best_repaired("accuracy")
        best = max(best, repaired)
        if net.variation:
            assert (net.stage == TRAINED) == (repaired >= best - 0.005 - 1e-12), net.name
            stages.add(net.stage)
    assert stages == {REPAIRED, TRAINED}
    tried = {name for name in builder.made if "try" in name}
    assert {name for name in builder.epochs if "try" in name} < tried


def test_untrained_variations_are_told_as_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    _, builder, nets = varied_within(600.0, monkeypatch, no_train=True)
    assert not builder.epochs
    assert {variation.learning_rate for variation in builder.variations.values()} == {1.0}
    assert max(net.get_best("accuracy") for net in nets) > 0.88


def test_a_killed_search_for_variations_goes_on_as_it_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, whole, nets = varied_within(2000.0, monkeypatch)
    some = dict(list(whole.made.items())[:7])
    _, again, others = varied_within(2000.0, monkeypatch, known=some)
    for name, variation in again.variations.items():
        if name in whole.variations:
            assert variation == whole.variations[name]
    names = list(whole.made)
    assert {name: again.made[name] for name in names} == whole.made
    assert others == nets or others[-1].name not in names


def test_a_sampler_without_a_choice_of_formats() -> None:
    sampler = VariationSampler(["float32"], "l1", False, 0)
    sampler.tell_recipe("float32", 0.9)
    found = []
    for _ in range(6):
        found.append(sampler.ask())
        sampler.tell(found[-1][1], None, 0.4)
    drawn = [variation for variation, _ in found]
    assert {variation.format for variation in drawn} == {"float32"}
    assert {variation.learning_rate for variation in drawn} == {1.0}
    # the recipe's own is among them, and nothing that takes labels
    assert {variation.criterion for variation in drawn} <= {"l1", "reconstruction", "l2"}


def test_a_variation_that_fails_costs_its_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(self: Builder, net: Candidate, epochs: int | None = None) -> Candidate:
        if net.variation and Variation.from_json(net.variation).learning_rate > 1.0:
            self.clock[0] += 10.0
            raise TrainingDiverged("the loss became NaN")
        return trained(self, net, epochs)

    trained = Builder.train
    monkeypatch.setattr(Builder, "train", diverging)
    _, builder, nets = varied_within(2000.0, monkeypatch)
    assert [net.variation for net in nets[:2]] == [{}, {}]
    rates = [builder.variations[name].learning_rate for name in builder.epochs if "try" in name]
    assert rates
    assert max(rates) <= 1.0
    assert max(variation.learning_rate for variation in builder.variations.values()) > 1.0


def test_a_front_without_a_budget_is_trained_at_once() -> None:
    made, builder = planner({}, {}, None, lambda _: 2.0, least=0.12)
    builder.max_parallel = 3
    nets = made.run()
    (batch,) = builder.batches
    assert batch == tuple(net.name for net in nets if not net.whole)


def test_a_budget_is_shared_by_those_that_run_beside_each_other() -> None:
    for places, epochs in ((1, 2), (2, 5), (4, 5)):
        pace = TimeBudget(700.0)
        pace._forward_seconds = 20.0
        made, builder = planner({"finetune_epochs": 5}, {}, None, lambda _: 2.0, pace=pace)
        builder.max_parallel = places
        nets = [
            made.builder.build(f"n{count}", "float32", {"latency": 1.0}, ("float32",))
            for count in range(4)
        ]
        made.train(nets)
        # 30 s an epoch at half; 700 s for four, two or one after another
        assert builder.epochs["n0"] == min(5, int(700 / (4 // places) / 30))
        assert builder.epochs["n0"] >= epochs
        assert [len(batch) for batch in builder.batches] == [places] * (4 // places)


def test_variations_are_drawn_as_many_at_a_time_as_are_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, builder, nets = varied_within(2000.0, monkeypatch, places=3)
    _, single, _ = varied_within(2000.0, monkeypatch)
    several = [batch for batch in builder.batches if "try" in batch[0]]
    assert {len(batch) for batch in several[:-1]} <= {2, 3}
    # those that are trained beside each other take the time of one
    assert len(builder.variations) > len(single.variations)
    assert nets[-1].variation
    assert f"time for {len(builder.variations)} variation(s)" in made.notes[-1]


def test_a_run_goes_on_with_another_number_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole, _ = varied_within(2000.0, monkeypatch, places=3)
    some = dict(list(whole.made.items())[:9])
    _, again, nets = varied_within(2000.0, monkeypatch, known=some)
    assert {name: again.made[name] for name in some} == some
    assert len(again.made) > len(some)
    # a net that was drawn in another order is what its record says, not what was drawn now
    assert nets[-1].variation == again.made[nets[-1].name].variation


def test_one_that_fails_beside_others_costs_its_time_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverging(self: Builder, net: Candidate, epochs: int | None = None) -> Candidate:
        if net.name == "n1":
            raise TrainingDiverged("the loss became NaN")
        return trained(self, net, epochs)

    trained = Builder.train
    monkeypatch.setattr(Builder, "train", diverging)
    made, builder = planner({}, {}, None, lambda _: 2.0)
    builder.max_parallel = 3
    nets = [
        made.builder.build(f"n{count}", "float32", {"latency": 1.0}, ("float32",))
        for count in range(3)
    ]
    with pytest.raises(TrainingDiverged, match="became NaN"):
        made.train(nets)
    assert sorted(builder.epochs) == ["n0", "n2"]


def test_a_net_that_cannot_be_trained_keeps_no_other_from_it() -> None:
    """The workshop itself, in one process."""

    def trained(net: str, epochs: int) -> str:
        if net == "first":
            raise TrainingDiverged("the loss became NaN")
        return f"{net}, {epochs}"

    builder: Any = CandidateBuilder.__new__(CandidateBuilder)
    builder.trainers, builder.train = None, trained
    error, other = builder.train_all([("first", 3), ("second", 2)])
    assert isinstance(error, TrainingDiverged)
    assert other == "second, 2"


def test_what_was_spent_stays_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    file, told = tmp_path / "spent.json", list[tuple[str, float]]()
    first = TimeBudget.resume(60.0, file)
    progress = first.record_progress(file, lambda text, share: told.append((text, share)))
    progress("soon", 0.1)
    assert not file.exists()
    now[0] += 12.0
    progress("later", 0.2)
    assert told == [("soon", 0.1), ("later", 0.2)]
    now[0] += 3.0  # killed here: what came after the last note is lost
    second = TimeBudget.resume(60.0, file)
    assert second.left == pytest.approx(48.0)
    now[0] += 8.0
    again = second.record_progress(file, lambda *_: None)
    now[0] += 6.0
    again("on", 0.5)
    assert TimeBudget.resume(60.0, file).left == pytest.approx(60.0 - 12.0 - 14.0)
    assert np.isinf(TimeBudget.resume(None, file).left)


def test_a_pace_learns_from_trainings() -> None:
    pace = TimeBudget(100.0)
    pace._forward_seconds = 2.0
    assert pace.estimate_epoch(0.5) == pytest.approx(3.0)
    # 5 s an epoch at half: 5 times a forward pass; the mean with the guess of 3 is 4
    pace.update_estimate(0.5, 2, 10.0)
    assert pace.estimate_epoch(1.0) == pytest.approx(8.0)
    assert np.isinf(TimeBudget(None).left)
