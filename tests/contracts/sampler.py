"""What every sampler must do."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.plugins import SAMPLERS
from search.study.study import create_sampler

KINDS = ("a", "b", None)
SIZES = (8, 16, 32)


def choose(trial: optuna.Trial) -> tuple[float, float]:
    """A conditional space with every kind of parameter; returns (quality, cost)."""
    depth = trial.suggest_int("depth", 1, 3)
    size = trial.suggest_categorical("size", SIZES)
    extra = 0.0
    if trial.suggest_categorical("kind", KINDS) == "b":
        extra = trial.suggest_int("extra", 1, 1000, log=True)
    for level in range(depth):
        extra += trial.suggest_float(f"level{level}.drop", 0.0, 0.5, step=0.1)
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    trial.suggest_int("one", 7, 7)
    return 1 - 1 / (depth * size) - abs(rate - 1e-2), 10.0 ** (depth + extra / 500) * size


def new_study(storage: Any = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name="contract",
        storage=storage,
        directions=["maximize", "minimize"],
        load_if_exists=True,
    )


def end(study: optuna.Study, trial: optuna.Trial, values: tuple[float, float]) -> None:
    """Ends a trial: of five, one is rejected without values and one is stopped early."""
    if trial.number % 5 == 2:
        study.tell(trial, state=TrialState.FAIL)
    elif trial.number % 5 == 4:
        trial.set_user_attr("values", list(values))
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, list(values))


class SamplerContract:
    """Inherit and set `name`; `available` is for what must be put in place first."""

    name: str

    @pytest.fixture(autouse=True)
    def available(self) -> None:
        """Does nothing: most samplers need nothing."""

    def ask(self, study: optuna.Study, seed: int) -> optuna.Trial:
        """Asks as `search.study.study.ask_trial` does: with a new sampler for each trial."""
        trials = study.get_trials(deepcopy=False)
        queue = (trial.number for trial in trials if trial.state == TrialState.WAITING)
        study.sampler = create_sampler(self.name, seed, next(queue, len(trials)))
        return study.ask()

    def run(self, study: optuna.Study, seed: int, trials: int) -> list[dict[str, Any]]:
        for _ in range(trials):
            trial = self.ask(study, seed)
            end(study, trial, choose(trial))
        return [trial.params for trial in study.trials]

    def test_values_lie_everywhere_in_their_distributions(self) -> None:
        study = new_study()
        self.run(study, 1, 40)
        assert len(study.trials) == 40
        for trial in study.trials:
            assert ("extra" in trial.params) == (trial.params["kind"] == "b")
            assert f"level{trial.params['depth'] - 1}.drop" in trial.params
            for name, value in trial.params.items():
                distribution = trial.distributions[name]
                assert distribution._contains(distribution.to_internal_repr(value))
        params = [trial.params for trial in study.trials]
        for name, choices in (("depth", 3), ("size", 3), ("kind", 3)):
            assert len({item[name] for item in params}) == choices
        assert len({tuple(item.items()) for item in params}) > 20

    def test_a_seed_gives_its_own_choices_again(self) -> None:
        first = self.run(new_study(), 1, 20)
        assert self.run(new_study(), 1, 20) == first
        assert self.run(new_study(), 2, 20) != first

    def test_queued_choices_are_tried_first(self) -> None:
        study = new_study()
        self.run(study, 3, 12)
        fixed = {"depth": 2, "size": 16, "kind": "b", "extra": 77, "rate": 0.0123}
        study.enqueue_trial(fixed)
        trial = self.ask(study, 3)
        choose(trial)
        assert trial.params.items() >= fixed.items()
        assert set(trial.params) == {*fixed, "level0.drop", "level1.drop", "one"}

    def test_a_first_trial_that_is_queued(self) -> None:
        study = new_study()
        study.enqueue_trial({"depth": 1, "size": 8, "kind": None, "rate": 1e-2})
        params = self.run(study, 4, 25)
        assert params[0].items() >= {"depth": 1, "size": 8, "kind": None}.items()
        assert len({item["depth"] for item in params[1:]}) == 3

    def test_a_resumed_study_goes_on(self, tmp_path: Any) -> None:
        journal = optuna.storages.journal
        whole = self.run(new_study(), 5, 20)
        parts: list[dict[str, Any]] = []
        for trials in (4, 10, 6):
            backend = journal.JournalFileBackend(str(tmp_path / "study.journal"))
            parts = self.run(new_study(journal.JournalStorage(backend)), 5, trials)
        assert parts == whole

    def test_trials_side_by_side(self) -> None:
        study = new_study()
        self.run(study, 6, 20)
        running = [self.ask(study, 6) for _ in range(4)]
        for trial in running:
            study.sampler = SAMPLERS[self.name](trial.number)
            choose(trial)
        assert len({tuple(trial.params.items()) for trial in running}) > 1
        for trial in reversed(running):
            end(study, trial, choose(trial))
        self.run(study, 6, 5)

    def test_only_failures_so_far(self) -> None:
        study = new_study()
        for number in range(25):
            trial = self.ask(study, 7)
            if number % 2:
                choose(trial)
            study.tell(trial, state=TrialState.FAIL)
        later = self.run(study, 7, 5)[25:]
        assert len({tuple(item.items()) for item in later}) == 5

    def test_costs_without_spread(self) -> None:
        study = new_study()
        for _ in range(25):
            trial = self.ask(study, 8)
            choose(trial)
            study.tell(trial, [0.5, 100.0])
        assert len({tuple(trial.params.items()) for trial in study.trials}) > 12

    def test_a_third_objective(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
        for _ in range(20):
            trial = self.ask(study, 9)
            quality, cost = choose(trial)
            study.tell(trial, [quality, cost, cost**0.5])
        assert len({tuple(trial.params.items()) for trial in study.trials}) > 10
