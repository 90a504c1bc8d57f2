"""Measure how names and docstrings read, and fail below the project's limits.

    python -m tests.readability [--worst 20]

`make check` runs it. It counts what can be counted: functions named by a verb, names that say
nothing (parameters and attributes too), docstrings that begin with a riddle, words of our own where
the field has a term. A good figure does not make a good name.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("compress", "search", "paretune")

VERBS = frozenset(
    """
    add advance align allocate allow analyze append apply ask assemble assign augment average begin
    benchmark bind bisect broadcast build cache calibrate call cancel cast check choose claim clear
    clip clone close collapse collect combine compare compile complete compress compute concatenate
    configure confirm connect constrain continue convert convolve copy correct count cover create
    cut declare decode defer delete deliver derive describe detect disable discard discretize
    dispatch display distill distribute divide double drain draw drop dump embed emit enable encode
    end enqueue ensure enter equalize escape estimate evaluate execute exit expand explain export
    expose extend extract feed fetch fill filter find finish fit fix flatten fold follow forget fork
    format forward free freeze fuse gather generate get give group guard guess handle has hash hide
    hold identify ignore import include infer initialize insert inspect install interpolate
    interpret interrupt invert is iter iterate join keep kill label launch let limit link list load
    locate lock log lookup lower make map mark match measure merge mirror mix mock move multiply
    name normalize note notify number observe open order pack pad pair parse pass patch perturb pick
    place plan plot poll pool pop predict prefer prepare print process profile project promote
    propagate prune publish pull push put quantize query queue raise rank read rebuild receive
    recompute reconstruct record recover redirect reduce refine refuse register reject release
    reload remap remember remove rename render renumber repair repeat replace report require reset
    reshape resize resolve restore restrict resume retain retrain retry return reuse reverse rewrite
    rotate round run sample save scale scan schedule score search seed select send separate
    serialize serve set settle setup shape share shift should show shrink shuffle shut sign silence
    simplify simulate skip slice snapshot solve sort split stack start state step stop store stream
    strip subtract suggest sum summarize suppress swap switch take tell terminate test tie time to
    trace track train transform translate transpose traverse trim truncate try unfold unload unlock
    unpack unregister update upload use validate verify visit wait walk warm warn watch widen wrap
    write yield zero can from with on as
    """.split()  # noqa: SIM905
)
EMPTY = frozenset({"get", "make", "do", "handle", "process"})
"""Verbs that say little."""
PARTICIPLES = re.compile(
    r"^_*(?:\w+ed|given|found|told|held|made|taken|drawn|chosen|kept|known|written|seen|worn|left)$"
)
VAGUE = frozenset({
    "found", "made", "given", "known", "own", "each", "told", "held", "asked", "here", "what",
})  # fmt: skip
RIDDLE = re.compile(
    r"\b(?:what|who|whoever|whatever|how (?:often|many|far|it|much|long)|where it|which it)\b", re.I
)
HOUSE_TERMS = (
    "whole numbers", "as its file computes", "solved for", "is taught", "taught by",
    "teacher is asked", "has learnt", "had learnt", "unlearnt", "leaves the net", "channels leave",
    "blocks leave", "damage", "that judges", "judged by", "goes on", "ranges begin", "widths",
    "no other beats", "points lost", "stands in", "is told", "nobody", "what is left", "comes to",
)  # fmt: skip


@dataclass
class Readability:
    """Counts of one code base.

    Attributes:
        functions: Functions and methods; properties and dunder methods do not count.
        other: Of these, not named by a verb.
        empty: Of these, named by a verb that says little.
        participles: Of these, named after a result.
        names: Variables that are assigned, parameters and attributes.
        vague: Of these, those in `VAGUE`.
        docstrings: Docstrings.
        riddles: Of these, with a riddle in the first line.
        terms: House terms in docstrings and other strings.
    """

    functions: int = 0
    other: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    participles: list[str] = field(default_factory=list)
    names: int = 0
    vague: list[str] = field(default_factory=list)
    docstrings: int = 0
    riddles: list[str] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)

    def list_ratios(self) -> Iterator[tuple[str, float, float, bool, list[str]]]:
        """Yield name, value, limit, whether the limit is a minimum, and the examples."""
        functions = max(1, self.functions)
        yield "verb first", 1 - len(self.other) / functions, 0.65, True, self.other
        yield "get, make, do", len(self.empty) / functions, 0.10, False, self.empty
        yield "participle names", len(self.participles) / functions, 0.03, False, self.participles
        yield "vague names", len(self.vague) / max(1, self.names), 0.005, False, self.vague
        yield "riddles", len(self.riddles) / max(1, self.docstrings), 0.01, False, self.riddles
        yield "house terms", len(self.terms), 30, False, self.terms


def measure_readability(files: list[Path]) -> Readability:
    """Count names and docstrings in Python files."""
    result = Readability()
    for path in files:
        tree = ast.parse(path.read_text("utf-8"))
        where = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        for node in ast.walk(tree):
            at = f"{where}:{getattr(node, 'lineno', 1)}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                _count_function(node, at, result)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                _count_docstring(node, at, result)
            for name in _list_names(node):
                result.names += 1
                if name.strip("_") in VAGUE:
                    result.vague.append(f"{at} {name}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value.lower()
                for term in HOUSE_TERMS:
                    result.terms += [f"{at} {term!r}"] * text.count(term)
    return result


def _count_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, at: str, result: Readability
) -> None:
    is_property = any("property" in ast.unparse(item) for item in node.decorator_list)
    if is_property or (node.name.startswith("__") and node.name.endswith("__")):
        return
    result.functions += 1
    first = node.name.strip("_").partition("_")[0]
    if first not in VERBS:
        result.other.append(f"{at} {node.name}")
    if first in EMPTY:
        result.empty.append(f"{at} {node.name}")
    if PARTICIPLES.match(node.name) and first not in VERBS:
        result.participles.append(f"{at} {node.name}")


def _count_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef, at: str, result: Readability
) -> None:
    text = ast.get_docstring(node)
    if text:
        result.docstrings += 1
        first = text.partition("\n")[0]
        if RIDDLE.search(first):
            result.riddles.append(f"{at} {first}")


def _list_names(node: ast.AST) -> list[str]:
    """Return the names that a node binds: variables, parameters, attributes."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            return [name]
        case ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
    return []


def list_sources() -> list[Path]:
    """Return the files of the packages; built ones are left out."""
    return [
        path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "settings.py"
    ]  # fmt: skip


def main() -> None:
    """Print the figures; exit with 1 where one is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worst", type=int, default=0, help="examples to print of each")
    given = parser.parse_args()
    is_good = True
    for name, value, limit, is_minimum, examples in measure_readability(
        list_sources()
    ).list_ratios():
        within = value >= limit if is_minimum else value <= limit
        is_good &= within
        relation = "at least" if is_minimum else "at most"
        print(f"{name:18} {value:.4g} ({relation} {limit:g}){'' if within else '  <- FAILS'}")
        for text in examples[: given.worst]:
            print(f"    {text}")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
