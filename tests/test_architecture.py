"""The house's rules that a machine can check: one-way imports, no trace on import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_contracts_between_rooms_are_kept() -> None:
    """pyproject.toml has the contracts; `make check` runs them too."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_room_has_a_place() -> None:
    """A new room is named in a contract, or it would be bound by none."""
    text = (ROOT / "pyproject.toml").read_text()
    for package in ("compress", "search"):
        for path in (ROOT / package).iterdir():
            name = path.stem
            if not name.startswith("_") and (
                path.suffix == ".py" or (path / "__init__.py").exists()
            ):
                assert re.search(rf"\b{package}\.{name}\b", text), name


def test_no_module_imports_relatively() -> None:
    for path in [*ROOT.glob("compress/**/*.py"), *ROOT.glob("search/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_only_the_bridge_imports_tfmot() -> None:
    named = [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("compress/**/*.py"), *ROOT.glob("search/**/*.py")]
        if "tensorflow_model_optimization" in path.read_text("utf-8")
    ]
    assert named == ["compress/prune/weights/schedules.py"]


PRIVATE = {
    "_exit",  # of os: public, whatever it is called
    "_fields",  # of named tuples: public, whatever it is called
    "_initialized",  # of TensorFlow's context: whether forks may use it
}  # fmt: skip
"""Names that begin with an underscore and are used on objects of other packages."""


OPTUNA = "search/optuna_internals.py"
"""The only module that uses private parts of Optuna, by attribute or by import."""


def is_itself(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Yields what code uses of other objects' private parts, and of `keras.src`."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        name = ""
        if isinstance(node, ast.Attribute):
            name = "" if is_itself(node.value) else node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "hasattr", "setattr") and not is_itself(node.args[0]):
                name = str(getattr(node.args[1], "value", ""))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [getattr(node, "module", None) or "", *(item.name for item in node.names)]
            yield from (module for module in modules if module.startswith("keras.src"))
        if re.match(r"_[^_]", name) and name not in own | PRIVATE:
            yield name


def test_one_module_touches_keras_s_private_api_and_one_optuna_s() -> None:
    """A new Keras or Optuna breaks these. What they use must still be found by this test."""
    found = {
        path.relative_to(ROOT).as_posix(): set(private_uses(ast.parse(path.read_text("utf-8"))))
        for path in [*ROOT.glob("compress/**/*.py"), *ROOT.glob("search/**/*.py")]
    }
    assert found.pop(OPTUNA) == {"_storage", "_study_id", "_trial_id", "_to_proto_trial"}
    inside = found.pop("compress/model/keras_internals.py")
    assert {path: names for path, names in found.items() if names} == {}
    assert {"_flatten_layers", "_keras_history", "_inbound_nodes"} < inside
    assert any(name.startswith("keras.src") for name in inside)


def test_one_module_imports_private_modules_of_optuna() -> None:
    private = re.compile(r"\b(?:from|import) optuna[\w.]*\._|\boptuna(?:\.\w+)*\._[a-z]")
    found = [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("compress/**/*.py"), *ROOT.glob("search/**/*.py")]
        if private.search(path.read_text("utf-8"))
    ]
    assert found == [OPTUNA]


@pytest.mark.parametrize("use_bridge", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_import_leaves_the_process_as_it_was(use_bridge: bool) -> None:
    script = f"""
import json, os, sys
before = dict(os.environ)
import compress, search
after = dict(os.environ)
early = "tensorflow" in sys.modules
import tensorflow as tf
if {use_bridge}:
    from compress.prune.weights.schedules import build_schedule
    config = dict(target_sparsity=0.8, begin_step=0, end_step=10, frequency=1)
    build_schedule(dict(class_name="ConstantSparsity", config=config))
    assert "tensorflow_model_optimization" in sys.modules
print(json.dumps([before == after, early, "TF_USE_LEGACY_KERAS" in os.environ,
                  tf.keras.__version__ if hasattr(tf.keras, "__version__") else "2",
                  tf.keras.Model.__module__]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    same, early, legacy, version, module = json.loads(done.stdout.splitlines()[-1])
    assert same
    assert not early, "importing our packages must not import TensorFlow"
    assert not legacy
    assert version.startswith("3.")
    assert module.startswith("keras.")


def test_only_three_modules_call_the_system() -> None:
    """What Linux alone offers is called in three modules of `compress.core`."""
    allowed = {"linux", "processes", "parent_watch"}
    modules = {"fcntl", "resource", "select", "pwd"}
    names = {
        "fork", "killpg", "setsid", "waitpid", "sysconf", "sched_getaffinity", "uname",
        "waitstatus_to_exitcode", "getppid", "CDLL", "SIGKILL", "getuid",
    }  # fmt: skip
    for path in [*ROOT.glob("compress/**/*.py"), *ROOT.glob("search/**/*.py")]:
        if path.parent == ROOT / "compress/core" and path.stem in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not modules & {alias.name for alias in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in modules, path
            elif isinstance(node, ast.Attribute):
                assert node.attr not in names, (path, node.attr)


def test_the_page_names_what_there_is() -> None:
    """Every package in the table of docs/architecture.md exists, and every package is in it."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = page.partition("## Where things are")[2].partition("\n## ")[0].splitlines()
    named = {
        word.rstrip("/") for row in rows if row.startswith("| `")
        for word in re.findall(r"`([\w/]+)`", row.split("|")[1])
    }  # fmt: skip
    for name in named:
        assert (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file(), name
    rooms = {
        f"{package}/{path.name}" for package in ("compress", "search")
        for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()
    }  # fmt: skip
    missing = {room for room in rooms if not any(name.startswith(room) for name in named)}
    assert missing == {"search/cli", "search/plan", "search/report"}  # the picture says enough


def test_the_command_line_imports_no_engine() -> None:
    """Help, completion and refusals wait for it: what shrinks models is imported by commands."""
    code = (
        "import sys, search.cli; heavy = ('compress.prune', 'compress.shrinking', "
        "'compress.reconstruction', 'compress.exporting', 'search.study', 'search.spaces'); "
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
