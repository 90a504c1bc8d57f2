"""What the shell completes: the words that a plan takes, and no TensorFlow to find them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from compress.core.errors import InputError
from compress.core.module_loading import build_module_environment
from compress.plan.bench import BenchPlan
from compress.plan.fields import list_plan_fields
from compress.plan.nesting import from_flat
from compress.plugins import CRITERIA
from search.cli._options import create_completer, find_word_lister
from search.plan import SearchPlan

PLANS: list[Any] = [SearchPlan, BenchPlan]
NO_LIST = {"data", "space", "teacher", "weight_pattern"}
"""Options that take files or forms too: their errors do not list plain choices."""


def refused(plan: Any, name: str, value: str) -> str:
    try:
        from_flat(plan, {name: value})
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("plan", PLANS)
def test_the_shell_offers_what_an_error_would_list(plan: Any) -> None:
    """Each option that refuses a name is completed, with all the choices of its error."""
    checked = set()
    for leaf in list_plan_fields(plan):
        wrong = "accuracy,zzz" if leaf.flat_name == "objectives" else "zzz"
        said = refused(plan, leaf.flat_name, wrong)
        if not said.startswith("Unknown ") or leaf.flat_name in NO_LIST:
            continue
        checked.add(leaf.flat_name)
        listed = said.partition("Choices: ")[2].partition(". ")[0].rstrip(".").split(", ")
        words = find_word_lister(leaf)
        assert words is not None, leaf.flat_name
        offered = set(words())
        assert set(listed) == (offered & set(listed)), leaf.flat_name
        if leaf.flat_name != "objectives":
            assert offered == set(listed), leaf.flat_name
    assert checked >= {"runtimes"}
    assert len(checked) >= (2 if plan is BenchPlan else 18)


@pytest.mark.parametrize("plan", PLANS)
def test_every_word_that_is_offered_is_taken(plan: Any) -> None:
    for leaf in list_plan_fields(plan):
        name, words = leaf.flat_name, find_word_lister(leaf) or tuple
        for word in words():
            value = {"objectives": f"accuracy,{word}" if word in ("macs", "params", "size_bytes",
                     "latency_ms") else f"{word},macs"}.get(name, word)  # fmt: skip
            assert refused(plan, name, value) == "", (name, word)


def test_the_last_of_several_words_is_completed() -> None:
    complete = create_completer(lambda: ("float32", "float16", "int8"), several=True)
    assert complete("") == ["float32", "float16", "int8"]
    assert complete("int8,fl") == ["int8,float32", "int8,float16"]
    assert complete("float32,float") == ["float32,float16"]
    assert create_completer(lambda: ("a,b",), several=False)("a") == ["a,b"]


def test_plug_ins_of_the_user_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CRITERIA, "_entries", dict(CRITERIA._entries))
    CRITERIA.add("mine", "my.module:score")
    words = next(
        find_word_lister(leaf) for leaf in list_plan_fields(SearchPlan) if leaf.name == "criterion"
    )
    assert create_completer(words, several=False)("mi") == ["mine"]


SCRIPT = """
import contextlib, io, json, os, sys
from search.cli import app
answers = []
for line in json.load(sys.stdin):
    os.environ.update(_PARETUNE_COMPLETE="complete_bash", COMP_WORDS=line,
                      COMP_CWORD=str(len(line.split(" ")) - 1))
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app(prog_name="paretune")
    answers.append(out.getvalue().split())
print(json.dumps([answers, [name for name in ("tensorflow", "keras", "torch", "matplotlib")
                            if name in sys.modules]]))
"""
CASES = {
    "paretune sea": ["search"],
    "paretune run --trial-": ["--trial-minutes"],
    "paretune run --space m": ["mlp", "mobilenet"],
    "paretune search --sampler gr": ["grid", "greedy"],
    "paretune compress m.keras --feature-losses fi": ["fitnets"],
    "paretune compress m.keras --distill-loss d": ["dkd"],
    "paretune compress m.keras --formats onnx,int8-": ["onnx,int8-qat", "onnx,int8-mixed"],
    "paretune compress m.keras --channel-criterion ra": ["random"],
    "paretune compress m.keras --epochs": [],
    "paretune bench m.keras --runtimes o": ["onnx", "openvino"],
    "paretune bench m.keras --formats onn": [],
    "paretune run --task mul": ["multiclass", "multilabel"],
    "paretune run --data fash": ["fashion_mnist"],
    "paretune space describe res": ["resnet"],
    "paretune run --out ru": [],
}


def test_the_shell_asks_without_tensorflow() -> None:
    """As bash does; an option that takes anything leaves the word to bash, which knows files."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(list(CASES)), capture_output=True,
        text=True, env=build_module_environment(), check=True,
    )  # fmt: skip
    answers, heavy = json.loads(done.stdout)
    assert dict(zip(CASES, answers, strict=True)) == CASES
    assert heavy == []
