"""Help, listings, and what bad input is told: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import paretune as pt
from tests.behaviour.conftest import MACS, PARAMS, Command, tree

COMMANDS = ("run", "search", "shrink", "compress", "bench", "inspect", "report", "space",
            "latency-table")  # fmt: skip


def test_help_names_every_command_and_each_explains_itself(paretune: Command) -> None:
    top = paretune("--help")
    assert top.code == 0
    assert paretune("--version").out.strip().endswith(pt.__version__)
    for name in COMMANDS:
        assert name in top.out
        shown = paretune(name, "--help")
        assert shown.code == 0
        assert "Usage: " in shown.out
    assert len(paretune("shrink", "--help-all").out) > len(paretune("shrink", "--help").out)


def test_inspect_counts_what_a_model_costs(
    paretune: Command, model_file: Path, tmp_path: Path
) -> None:
    done = paretune("inspect", model_file, "--out", "about.json")
    assert done.code == 0, done.said
    about = json.loads((tmp_path / "about.json").read_text())["costs"]
    layers = {row["name"]: row for row in about["layers"]}
    assert layers["second"]["macs"] == 16 * 9 * 16 * 24
    assert sum(row["macs"] for row in about["layers"]) == MACS
    assert sum(row["params"] for row in about["layers"]) == PARAMS


def test_a_space_is_described(paretune: Command) -> None:
    done = paretune("space", "describe", "mlp", "--data", "digits")
    assert done.code == 0, done.said
    # three activations, three normalizations, six dropouts; of two layers or more, residual or not
    assert f"Architectures: {54 * 6 + 2 * 54 * (6**2 + 6**3 + 6**4):,} " in done.out
    least, most = 64 * 16 + 16 * 10, 64 * 512 + 3 * 512**2 + 512 * 10
    assert f"MACs: {least / 1000:.3g} k to {most / 1000:.3g} k" in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("shrnk", "m.keras"), "Did you mean 'shrink'?"),
        (
            ("shrink", "m.keras", "--data", "digits", "--latncy", "0.5x"),
            "Did you mean '--latency'?",
        ),
        (("shrink", "none.keras", "--data", "digits", "--macs", "0.5x"), "none.keras"),
        (("shrink", "bad.keras", "--data", "digits", "--macs", "0.5x"), "bad.keras"),
        (("shrink", "MODEL", "--data", "digitz", "--macs", "0.5x"), "Did you mean 'digits'?"),
        (("shrink", "MODEL", "--data", "DATA", "--latency", "200KB"), "latency"),
        (("shrink", "MODEL", "--data", "DATA", "--macs", "3ms"), "macs"),
        (("shrink", "MODEL", "--macs", "0.5x"), "--data"),
        (("shrink", "MODEL", "--data", "wide.npz", "--macs", "0.5x"), "shape (9, 9, 1)"),
        (("compress", "MODEL", "--data", "DATA", "--sparsity", "1.5"), "sparsity"),
        (("compress", "MODEL", "--data", "DATA", "--formats", "int9"), "Did you mean 'int8'?"),
        (("compress", "MODEL", "--data", "DATA", "--plan", "none.toml"), "none.toml"),
        (("search", "--data", "digits", "--trials", "0"), "trials"),
        (("search", "--data", "digits", "--sampler", "bayes"), "sampler"),
        (("search", "--data", "digits", "--space", "mpl"), "Did you mean 'mlp'?"),
        (("bench", "none.tflite"), "none.tflite"),
        (("report", "nowhere"), "nowhere"),
        (("inspect", "none.keras"), "none.keras"),
    ],
)
def test_bad_input_is_told_in_one_line(
    paretune: Command, model_file: Path, data_file: Path, tmp_path: Path, words: tuple[str, ...],
    told: str,
) -> None:  # fmt: skip
    (tmp_path / "bad.keras").write_bytes(b"no model")
    np.savez(tmp_path / "wide.npz", x_train=np.zeros((400, 9, 9, 1)), y_train=np.arange(400) % 10)
    before = tree(tmp_path)
    places = {"MODEL": str(model_file), "DATA": str(data_file)}
    done = paretune(*(places.get(word, word) for word in words))
    assert done.code == 2
    *_, last = done.said.strip().splitlines()
    assert last.startswith("paretune: error: ")
    assert told in last
    assert "Traceback" not in done.said + done.out
    assert tree(tmp_path) == before
