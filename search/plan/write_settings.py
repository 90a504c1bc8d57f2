"""Generator of `settings.py` for both plans: `python -m search.plan.write_settings`."""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.plan import keywords
from compress.plan.conversion import ConvertedField
from compress.plan.fields import PlanField
from compress.plan.keywords import Keywords
from search.plan import RUN, RUN_SEARCH

WIDTH = 100
TYPE_NAMES = {int: "Count", types.NoneType: "None", Any: "Any"}
_HEADER = '''"""Keywords of public functions, built by `python -m search.plan.write_settings`."""

from __future__ import annotations

{imports}

Count = int | float | str
"""An integer as people write it: 200_000, 2e6 or "2M"."""
'''


def write_settings(functions: Sequence[Keywords], path: Path) -> None:
    """Write a module with a class of keywords for each function.

    Args:
        functions: Functions that take options as keywords.
        path: Path of the module; it is not rewritten if its content is unchanged.
    """
    used: set[tuple[str, str]] = {("typing", "TypedDict")}
    classes = [_format_class(function, used) for function in functions]
    text = _HEADER.format(imports=_format_imports(used)) + "".join(classes)
    if not path.is_file() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def _format_class(function: Keywords, used: set[tuple[str, str]]) -> str:
    """Return the source of a function's TypedDict of keywords; add its imports to `used`."""
    name, is_class = function.function_name, not function.function_name.islower()
    title = name if is_class else "".join(word.capitalize() for word in name.split("_"))
    lines = ["", "", f"class {title}Settings(TypedDict, total=False):"]
    lines.append(f'    """Keywords of `{function.function_name}`."""')
    for name, leaf in function.list_options().items():
        hint = format_type(_read_accepted_type(function.plan, leaf), used)
        lines += ["", f"    {name}: {hint}", *_format_help(leaf)]
    return "\n".join([*lines, ""])


def _read_accepted_type(plan: type[Any], leaf: PlanField) -> Any:
    owner = typing.get_type_hints(plan)[leaf.section] if leaf.section else plan
    hint = typing.get_type_hints(owner)[leaf.name]
    return typing.get_args(hint)[1] if typing.get_origin(hint) is ConvertedField else hint


def format_type(hint: Any, used: set[tuple[str, str]]) -> str:
    """Return a type as source code, and add its imports to `used`.

    Args:
        hint: The type.
        used: Pairs of module and name to import; extended in place.
    """
    if hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    if hint is Ellipsis:
        return "..."
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        members = [format_type(member, used) for member in arguments]
        return " | ".join(sorted(dict.fromkeys(members), key=lambda text: text == "None"))
    kind = origin or hint
    if kind.__module__ != "builtins":
        used.add((kind.__module__ if kind is not Path else "pathlib", kind.__name__))
    if not arguments:
        return str(kind.__name__)
    return f"{kind.__name__}[{', '.join(format_type(item, used) for item in arguments)}]"


def _format_help(leaf: PlanField) -> list[str]:
    text = leaf.describe()
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    wrapped = textwrap.wrap(f'"""{text}"""', WIDTH - 4, break_long_words=False)
    return [f"    {line}" for line in wrapped]


def _format_imports(used: set[tuple[str, str]]) -> str:
    """Return sorted import lines: the standard library first, then our packages."""
    modules: dict[str, list[str]] = {}
    for module, name in sorted(used):
        modules.setdefault(module, []).append(name)
    lines = {
        module: f"from {module} import {', '.join(names)}" for module, names in modules.items()
    }
    ours = [
        line for module, line in lines.items() if module.split(".")[0] in ("compress", "search")
    ]
    others = [line for line in lines.values() if line not in ours]
    return "\n".join([*others, *([""] if ours else []), *ours])


if __name__ == "__main__":
    compressing = [item for item in keywords.FUNCTIONS if item not in (RUN, RUN_SEARCH)]
    write_settings(compressing, Path(keywords.__file__).with_name("settings.py"))
    write_settings([RUN], Path(__file__).with_name("settings.py"))
