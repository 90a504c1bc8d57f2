"""Channels of a run's front leave where that saves time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

from compress import exporting
from compress.core.errors import InputError, RunFailed
from compress.data import load_data
from compress.measure.latency_record import Latency
from compress.plan.nesting import build_command_words, from_flat
from compress.shrinking.compression_job import CoupledModel
from search.plan import SearchPlan
from search.study import retrain
from search.study.retrain import HALF_MACS, _halve_macs, halve_slow_model

DATA = load_data("digits")


def subject(*hidden: int) -> CoupledModel:
    inputs = keras.Input(DATA.input_shape)
    x = keras.layers.Flatten()(inputs)
    for units in hidden:
        x = keras.layers.Dense(units, "relu")(x)
    return CoupledModel(keras.Model(inputs, keras.layers.Dense(10)(x)), DATA.input_shape)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A clock: a file above 20 kB takes 3.1 us, a smaller one 2.9 us, the empty one 1 us.

    Without half of its MACs a file takes 2.79 us where it has more than 14 kB, else 2.80 us: a
    tenth less, and a little more than that.
    """
    asked: list[list[str]] = []

    def times(entries: Any, **_: Any) -> dict[str, Latency]:
        asked.append(list(entries))
        assert all(entry.path.stat().st_size > 0 for entry in entries.values())
        slow = entries["own"].path.stat().st_size > 20_000
        quiet = {"own": 3.1e-3 if slow else 2.9e-3, "empty": 1e-3}
        if "half" in entries:
            size = entries["half"].path.stat().st_size
            assert size < entries["own"].path.stat().st_size
            quiet["half"] = 2.79e-3 if size > 14_000 else 2.8e-3
        # a neighbour made all medians longer
        return {
            name: Latency(
                9.0, 9.0, 9.0, 9.0, quiet[name], 1.0, 1.0, 1.0, "own", 40, 20, 400, 1, "cpu",
                "LiteRT", "precision", (), quiet_ms=quiet[name],
            )
            for name in entries
        }  # fmt: skip

    monkeypatch.setattr(retrain, "time_entries", times)
    return asked


def test_half_of_the_macs_leave_where_a_file_takes_three_times_an_empty_one(
    timed: list[list[str]], tmp_path: Path
) -> None:
    known = tmp_path / "unfinished" / "0000" / "times.json"
    plan, (note,) = halve_slow_model(SearchPlan(), subject(256, 64), DATA, known)
    assert plan.channels.target == HALF_MACS
    assert plan.channels.should_compare
    assert plan.weights.sparsity == 0.6  # a fifth of all is two fifths of a half
    assert str(HALF_MACS) == "0.5x"
    assert note == (
        "channels are removed until half of the MACs remain, zeros are 60 %: its int8 file takes "
        "3.10 us, 2.79 us with half the MACs, an empty one 1.00 us (LiteRT, 1 thread, measured)"
    )
    assert timed == [["own", "empty"], ["own", "half"]]
    # killed and started again it is the same plan, whatever the machine does by then
    known.write_text(known.read_text().replace("0.0031", "0.0032"))
    again, (note,) = halve_slow_model(SearchPlan(), subject(256, 64), DATA, known)
    assert again == plan
    assert "takes 3.20 us" in note
    assert len(timed) == 2
    # what the report says of it is a command of paretune compress
    words = build_command_words(plan.build_compression_plan(()))
    assert words[words.index("--channels") + 1] == "0.5x"
    assert words[words.index("--sparsity") + 1] == "0.6"


@pytest.mark.parametrize(
    ("given", "zeros", "way"),
    [
        ({"sparsity": 0.9}, 0.8, ("reconstruction", True)),
        ({"sparsity": 0.4}, 0.0, ("reconstruction", True)),
        ({"weight_pattern": "2:4"}, 0.8, ("reconstruction", True)),
        ({"weight_overrides": "a=0.5"}, 0.8, ("reconstruction", True)),
        ({"channel_scope": "layer"}, 0.6, ("l2", False)),
    ],
    ids=["more zeros", "few zeros", "n:m", "by layer", "own scope"],
)
def test_what_a_plan_says_of_the_way_stays(
    given: dict[str, Any], zeros: float, way: tuple[str, bool]
) -> None:
    plan = _halve_macs(from_flat(SearchPlan, given))
    assert (plan.channels.target, plan.weights.sparsity) == (HALF_MACS, zeros)
    assert (plan.channels.ranking_criterion, plan.channels.should_compare) == way


def test_a_model_that_costs_little_beside_a_run_keeps_its_channels(
    timed: list[list[str]], tmp_path: Path
) -> None:
    own = SearchPlan()
    plan, (note,) = halve_slow_model(own, subject(64), DATA, tmp_path / "t.json")
    assert plan is own
    assert note.startswith(
        "no channels are removed, because that would save hardly any time: its int8"
    )
    assert "takes 2.90 us, an empty one 1.00 us" in note


def test_a_model_that_half_of_its_macs_make_no_faster_keeps_its_channels(
    timed: list[list[str]], tmp_path: Path
) -> None:
    own = SearchPlan()
    plan, (note,) = halve_slow_model(own, subject(128, 64), DATA, tmp_path / "t.json")
    assert plan is own
    assert "takes 3.10 us, 2.80 us with half the MACs, an empty one 1.00 us" in note
    assert timed == [["own", "empty"], ["own", "half"]]


@pytest.mark.parametrize(
    "given",
    [{"channels": "0.8x"}, {"channels": "1x"}, {"macs": "0.5x"}],
    ids=["channels", "all", "goal"],
)
def test_a_plan_that_says_otherwise_stays(
    given: dict[str, Any], timed: list[list[str]], tmp_path: Path
) -> None:
    own = from_flat(SearchPlan, given)
    assert halve_slow_model(own, subject(256, 64), DATA, tmp_path / "t.json") == (own, [])
    assert not timed


def test_all_channels_stay_without_a_step_of_pruning() -> None:
    plan = from_flat(SearchPlan, {"channels": "1x"})
    assert not plan.build_compression_plan(()).channels.is_active
    with pytest.raises(InputError, match="channels must be left out beside a goal"):
        from_flat(SearchPlan, {"channels": "1x", "macs": "0.5x"})


def test_what_cannot_be_halved_or_timed_stays_and_says_why(
    timed: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own, known = SearchPlan(), tmp_path / "t.json"
    plan, (note,) = halve_slow_model(own, subject(), DATA, known)
    assert plan is own
    assert note.startswith(
        "no channels are removed: The model must have channels that can be removed."
    )
    assert not timed

    def refused(*_: Any, **__: Any) -> None:
        raise RunFailed("int8 cannot be had: the converter crashed")

    monkeypatch.setattr(exporting, "export", refused)
    plan, (note,) = halve_slow_model(own, subject(256, 64), DATA, known)
    assert plan is own
    assert note == "no channels are removed: int8 cannot be had: the converter crashed"
    assert not timed
    assert not known.exists()
