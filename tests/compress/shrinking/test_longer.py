"""The best net is trained for longer where none is good enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compress.core.errors import TrainingDiverged
from compress.shrinking import planner as planning
from compress.shrinking.candidate import TRAINED, Candidate
from compress.shrinking.planner import Planner
from tests.compress.shrinking.pretended import Builder, planner


class TestLonger:
    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planning, "LONGER_SECONDS", 1e6)

    def made(self, loss: float, **flat: Any) -> tuple[Planner, Builder, list[Candidate]]:
        # ten steps an epoch: a hundred epochs are the recipe's thousand steps
        given = {"latency": "0.5x", "max_drop": 0.5, "finetune_epochs": None, "batch_size": 100}
        made, builder = planner({**given, **flat}, {"latency": 1.0}, 0.895, lambda _: loss)
        return made, builder, made.run()

    def test_the_best_net_is_trained_anew_where_none_is_good_enough(self) -> None:
        # repair loses 4 points, training leaves 1, four times as long 0.5
        made, builder, nets = self.made(4.0)
        name = "m-latency0_5x-float32-400epochs"
        assert [net.name for net in nets][2:] == [name]
        assert builder.epochs == {
            "m-latency0_5x-float32": 100, "m-latency0_5x-int8": 100, name: 400
        }  # fmt: skip
        assert nets[-1].get_best("accuracy") == pytest.approx(0.895)
        assert made.notes == [
            "m-latency0_5x-float32 after 100 epochs: validation accuracy -1.00 pp "
            "(at least 89.50 %); "
            "after 400 epochs: validation accuracy -0.50 pp (at least 89.50 %)"
        ]

    def test_and_again_while_it_helps(self) -> None:
        # 6 points, 1.5, 0.75, 0.375
        made, builder, nets = self.made(6.0)
        assert list(builder.epochs.values()) == [100, 100, 400, 1600]
        assert [net.name for net in nets][2:] == ["m-latency0_5x-float32-1600epochs"]
        assert nets[-1].get_best("accuracy") == pytest.approx(0.9 - 0.00375)
        assert len(made.notes) == 2

    def test_what_would_take_long_is_left_to_the_user(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # ten seconds an epoch, and twenty before
        monkeypatch.setattr(planning, "LONGER_SECONDS", 4 * 1020.0 - 1)
        made, _, nets = self.made(4.0)
        assert len(nets) == 2
        assert made.notes == [
            "m-latency0_5x-float32 after 100 epochs: validation accuracy -1.00 pp "
            "(at least 89.50 %); "
            "400 epochs may meet it and take about 68 min (estimated): --finetune-epochs 400"
        ]

    @pytest.mark.parametrize(
        ("loss", "flat"),
        [
            (2.0, {}),  # good enough
            (12.1, {}),  # 3.03 points: more than 4 x 0.5 + 1
            (4.0, {"finetune_epochs": 100}),  # the user says how long
            (4.0, {"no_train": True}),
        ],
    )
    def test_not_where_it_need_not_or_could_not(self, loss: float, flat: dict[str, Any]) -> None:
        _, builder, nets = self.made(loss, **flat)
        assert len(nets) == 2
        assert not any(name.endswith("epochs") for name in builder.epochs)

    def test_a_net_that_longer_training_makes_no_better_is_left_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def worse(self: Builder, net: Candidate, epochs: int | None = None) -> Candidate:
            quality = 0.88 if net.name.endswith("epochs") else 0.89
            val = {kind: {"accuracy": quality} for kind in net.formats}
            return replace(net, stage=TRAINED, epochs=epochs or 0, val=val)

        monkeypatch.setattr(Builder, "train", worse)
        made, _, nets = self.made(4.0)
        assert len(nets) == 2
        assert "after 400 epochs: validation accuracy -2.00 pp" in made.notes[0]

    def test_a_training_that_fails_leaves_the_recipes_nets(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = Builder.train

        def fails(self: Builder, net: Candidate, epochs: int | None = None) -> Candidate:
            if net.name.endswith("epochs"):
                raise TrainingDiverged("it diverged")
            return own(self, net, epochs)

        monkeypatch.setattr(Builder, "train", fails)
        made, _, nets = self.made(4.0)
        assert len(nets) == 2
        assert "could not be trained for 400 epochs: it diverged" in made.notes[0]
