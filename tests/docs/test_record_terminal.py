"""The picture of a terminal: what a real command printed, in its order."""

from __future__ import annotations

import importlib.util
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[2] / "docs" / "record_terminal.py"


def recorder() -> Any:
    spec = importlib.util.spec_from_file_location("record_terminal", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_command_is_run_and_long_lines_are_wrapped() -> None:
    program = "print('a' * 70 + ' ' + 'b' * 20); print('<end>')"
    lines = recorder().run_command([sys.executable, "-c", program])
    assert [text for _, text in lines] == ["a" * 70, "b" * 20, "<end>", ""]
    assert all(first <= second for (first, _), (second, _) in pairwise(lines))


def test_pauses_are_shortened_and_texts_escaped() -> None:
    picture = recorder().build_svg(["x", "--y"], [(3.0, "a <b>"), (3.2, "note: c"), (214.4, "")])
    found = re.findall(r'class="(\w*)".*?animation-delay:([\d.]+)s">(.*?)</text>', picture)
    assert found == [
        ("command", "0.00", "$ x --y"), ("", "0.50", "a &lt;b&gt;"), ("note", "0.70", "note: c"),
        ("note", "1.20", "# 214 seconds"),
    ]  # fmt: skip
