"""Options and names of earlier versions: one line says what to use instead, old plans are read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import paretune as pt
from compress.plan import DistillOptions, Plan, WeightOptions
from compress.plan.fields import list_plan_fields, list_removed_options
from compress.plan.nesting import from_flat, from_nested
from compress.plan.shrink import ShrinkPlan
from search.plan import SearchPlan
from search.study.directory import SearchFolder
from tests.search.test_run import paretune

REMOVED = {
    path: item
    for plan in (SearchPlan, ShrinkPlan)
    for path, item in list_removed_options(plan).items()
}


@pytest.mark.parametrize("path", REMOVED)
def test_a_removed_option_says_what_to_use_instead(path: str) -> None:
    item = REMOVED[path]
    plan = SearchPlan if path in list_removed_options(SearchPlan) else ShrinkPlan
    assert path not in {leaf.path for leaf in list_plan_fields(plan)}
    with pytest.raises(pt.InputError) as caught:
        from_flat(plan, {item.keyword: item.unused_values[0]})
    assert str(caught.value) == f"Option '{item.keyword}' was removed. {item.instead}"
    assert item.instead.endswith(".")
    section, _, name = path.rpartition(".")
    for off in item.unused_values:
        assert from_nested(plan, {section: {name: off}} if section else {name: off}) == plan()


def test_a_plan_that_used_a_removed_option_is_refused() -> None:
    with pytest.raises(pt.InputError, match="^Option 'correct_biases' was removed. No figure"):
        from_nested(Plan, {"quantize": {"correct_biases": True}})
    with pytest.raises(pt.InputError, match="^Option 'eta' was removed. Only the stopping rule"):
        from_nested(SearchPlan, {"stopping": {"rule": "dominance", "eta": 2.0}})
    with pytest.raises(pt.InputError, match="^Stopping rule 'halving' was removed. It lost 0.3"):
        from_nested(SearchPlan, {"stopping": {"rule": "halving", "eta": 3.0}})
    with pytest.raises(pt.InputError, match="^Option 'inherit' was removed. Candidates that began"):
        from_nested(SearchPlan, {"search": {"inherit": True}})
    with pytest.raises(
        pt.InputError, match="^Option 'sensitivity' was removed. Scopes output_error and"
    ):
        from_nested(Plan, {"channels": {"target": 0.5, "sensitivity": "maps"}})


@pytest.mark.parametrize(("values", "message"), [
    ({"sampler": "cmaes"}, "Sampler 'cmaes' was removed. No measurement supports it, and Optuna's "
     "CMA-ES has one objective only. Use 'pareto', the default, or 'tpe'."),
    ({"stopping": "halving"}, "Stopping rule 'halving' was removed. It lost 0.3 to 34 % of the "
     "hypervolume at 2 to 4.5 times fewer epochs. Use 'dominance', the default, which lost 0.3 % "
     "at 2.5 times fewer; to save more, use fewer epochs, and final_epochs to train the front "
     "longer."),
    ({"space": "around:m.keras"}, "Space 'around:m.keras' was removed. The front around a model "
     "was no better than that of paretune shrink, which goes on to smaller models. Use paretune "
     "shrink MODEL, without a goal."),
    ({"feature_losses": "attention", "feature_weight": -1},
     "Feature loss 'attention' was removed. No figure showed "
     "that it gains anything. Use fitnets, or a loss of your own."),
])  # fmt: skip
def test_a_removed_choice_says_what_to_use_instead(values: dict[str, str], message: str) -> None:
    with pytest.raises(pt.InputError) as caught:
        from_flat(SearchPlan, values)
    assert str(caught.value) == message


def test_the_command_line_names_what_to_use_instead(tmp_path: Path) -> None:
    def read(*words: str) -> subprocess.CompletedProcess[str]:
        return paretune("compress", "m.keras", "--data", "digits", *words, cwd=tmp_path)

    for flag in ("--qat-correct-biases", "--no-qat-correct-biases"):
        done = read(flag)
        assert done.returncode == 2
        assert done.stderr == (
            f"paretune: error: Option '{flag}' was removed. No figure showed that correcting "
            "biases before training gains anything. Leave it out.\n"
        )
    (tmp_path / "plan.toml").write_text("[quantize]\ncorrect_biases = true\n")
    done = read("--plan", "plan.toml")
    assert done.returncode == 2
    assert "Option 'correct_biases' was removed. No figure" in done.stderr


def test_training_is_left_out_in_shrink_alone(tmp_path: Path) -> None:
    done = paretune("run", "--data", "digits", "--no-train", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "paretune: error: Option '--no-train' was removed. Only the space around:MODEL used it, "
        "which was removed too. Use paretune shrink MODEL, without a goal.\n"
    )
    with pytest.raises(pt.InputError, match="^Option 'no_train' was removed. Only the space"):
        pt.run("digits", no_train=True)  # type: ignore[call-arg]
    assert from_flat(ShrinkPlan, {"no_train": True}).goal.no_train


def test_a_search_around_a_model_is_not_resumed(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", SearchPlan())
    stored = json.loads(folder.plan_path.read_text("utf-8"))
    stored["plan"]["search"] |= {"space": "around:m.keras", "no_train": False}
    folder.plan_path.write_text(json.dumps(stored), "utf-8")
    with pytest.raises(pt.InputError, match="^Space 'around:m.keras' was removed. .* shrink"):
        pt.run_search("digits", out=folder.path)
    assert folder.plan_path.is_file()


def test_python_names_what_to_use_instead() -> None:
    with pytest.raises(pt.InputError, match="^Option 'correct_biases' was removed. No figure"):
        pt.quantize("m.keras", [[0.0]], epochs=0, correct_biases=True)  # type: ignore[call-arg]
    with pytest.raises(pt.InputError, match="^Option 'qat_correct_biases' was removed. No figure"):
        pt.shrink("m.keras", "digits", qat_correct_biases=True)  # type: ignore[call-arg]


def test_a_pruning_of_an_earlier_version_is_read_where_it_ranked_by_magnitude() -> None:
    stored = {"weights": {"sparsity": 0.9, "saliency": "magnitude"}}
    assert from_nested(Plan, stored).weights == WeightOptions(sparsity=0.9)
    with pytest.raises(pt.InputError, match="^Option 'saliency' was removed. .* by magnitude.$"):
        from_nested(Plan, {"weights": {"saliency": "obs"}})
    with pytest.raises(pt.InputError, match="^Option 'saliency' was removed. Ranking weights"):
        pt.prune_weights("m.keras", saliency="wanda")  # type: ignore[call-arg]


def test_a_renamed_scope_is_read_from_files_alone(tmp_path: Path) -> None:
    message = "^Channel scope 'damage' was removed. It is called output_error now.$"
    stored = from_nested(Plan, {"channels": {"scope": "damage"}})
    assert stored == from_flat(Plan, {"channel_scope": "output_error"})
    with pytest.raises(pt.InputError, match=message):
        from_flat(Plan, {"channel_scope": "damage"})
    with pytest.raises(pt.InputError, match=message):
        pt.prune_channels("m.keras", macs=0.5, scope="damage")
    with pytest.raises(pt.InputError, match=message):
        pt.compress_model("m.keras", "digits", channel_scope="damage")
    done = paretune("compress", "m.keras", "--data", "digits", "--channel-scope", "damage",
                    cwd=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"paretune: error: {message[1:-1]}\n"


def test_quantization_aware_training_is_a_format() -> None:
    with pytest.raises(pt.InputError) as caught:
        from_nested(Plan, {"quantize": {"qat": True}})
    assert str(caught.value) == (
        "Option 'qat' was removed. Its format says the same. Name int8-qat among formats: "
        "--formats float32,int8,int8-qat."
    )
    formats = ["float32", "int8", "int8-qat"]
    plan = from_nested(ShrinkPlan, {"export": {"formats": formats}, "goal": {"macs": "0.5x"}})
    assert plan.qat_formats == ("int8-qat",)
    assert plan.export.candidate_formats == ("float32", "int8")


def test_a_ramp_of_an_earlier_version_is_refused() -> None:
    for name in ("temperature", "weight", "feature_weight"):
        with pytest.raises(pt.InputError, match=f"{name} must be a number. Received: '8:2'."):
            from_nested(Plan, {"distill": {name: "8:2"}})


def test_a_removed_distillation_loss() -> None:
    with pytest.raises(pt.InputError, match="^Distillation loss 'dist' was removed. .* Use kd.$"):
        DistillOptions(loss="dist")


@pytest.mark.parametrize("name", ["attention", "similarity", "relational"])
def test_removed_hints(name: str) -> None:
    with pytest.raises(pt.InputError) as caught:
        DistillOptions(feature_losses=("fitnets", name))
    assert str(caught.value) == (
        f"Feature loss '{name}' was removed. No figure showed that it gains anything. Use fitnets, "
        "or a loss of your own."
    )
