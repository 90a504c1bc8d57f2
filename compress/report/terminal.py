"""Tables and lines for the terminal in which names are names: no markup, no control characters.

Below the table of any report stand those of `paretune inspect`, with what it writes as JSON: the
costs of each layer, what a SavedModel or a LiteRT file holds, and what can be pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from compress.core.summary import line
from compress.measure import Analysis, formats
from compress.measure.graph_files import GraphFile
from compress.measure.graph_files.records import shape_text

if TYPE_CHECKING:
    from compress.prune.channels import Coupled

ELSEWHERE = "A wider terminal and --json have them."
"""Where the columns are that a narrow terminal has no room for."""
SHOWN = 4
GAP = 2
"""Columns between two columns of a table."""
NARROWEST = 12
"""Columns that a column keeps where not even the names fit: they go on in the next line then."""


def said(text: object, style: str = "") -> Text:
    """Return one line as it is: brackets are no markup, control characters are spelled out.

    Args:
        text: Whatever is to be read.
        style: Of rich: "dim", "bold".
    """
    return Text(line(text), style=style)


@dataclass
class Grid:
    """A table of the report that suits the terminal's width.

    Nothing in it is ever cut. Where it is too wide, columns are left out, in the order of `drop`,
    and a line says which; then intervals go under their figures; a name that is wider than all
    there is goes on in the next line.

    Attributes:
        title: Above it.
        heads: Of the columns.
        left: Those that are aligned to the left; the others stand right.
        title_left: Whether the title stands left.
        wrap: Columns of several words: they may take several lines.
        drop: Columns that may be left out, the least important first.
        same: Columns that may be left out after these, where all rows say the same.
        elsewhere: A sentence that says where the rest stands.
    """

    title: str
    heads: Sequence[str]
    left: Sequence[str] = ()
    title_left: bool = False
    wrap: Sequence[str] = ()
    drop: Sequence[str] = ()
    same: Sequence[str] = ()
    elsewhere: str = ""
    _rows: list[tuple[str, ...]] = field(default_factory=list, init=False)
    _sections: set[int] = field(default_factory=set, init=False)

    def put(self, cells: Sequence[object]) -> None:
        """Add a row of plain texts."""
        self._rows.append(tuple(line(cell) for cell in cells))

    def add_section(self) -> None:
        """Put space behind the last row."""
        self._sections.add(len(self._rows) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table in the width that there is."""
        widths, stacked = self._fitted(options.max_width)
        table = Table(
            title=said(self.title) if self.title else None,
            box=box.SIMPLE_HEAD,
            title_justify="left" if self.title_left else "center",
            show_edge=False,
            pad_edge=False,
            padding=(0, GAP - 1, 0, 0),
        )
        for place, width in widths.items():
            head = self.heads[place]
            side = "left" if head in self.left else "right"
            table.add_column(said(head), justify=side, width=width, overflow="fold")  # type: ignore[arg-type]
        for number, row in enumerate(self._rows):
            table.add_row(*(Text(self._cell(row, place, stacked)) for place in widths))
            if number in self._sections:
                table.add_section()
        yield Text()
        yield table
        missing = [place for place in range(len(self.heads)) if place not in widths]
        if missing:
            named = ", ".join(self._missing(place) for place in missing)
            text = f"Not shown at {options.max_width} columns: {named}. {self.elsewhere}"
            yield said(text.rstrip(), "dim")

    def _fitted(self, room: int) -> tuple[dict[int, int], bool]:
        """Choose the columns that are shown, their widths, and whether figures are stacked."""
        every = [*range(len(self.heads))]
        order = [self.heads.index(name) for name in self.drop]
        order += [
            place for place in map(self.heads.index, self.same)
            if len({row[place] for row in self._rows}) == 1
        ]  # fmt: skip
        for stacked in (False, True):
            least = {place: self._widths(place, stacked)[0] for place in every}
            kept, dropped = set(every), list[int]()
            for place in order:
                if _total(least, kept) <= room:
                    break
                kept.remove(place)
                dropped.append(place)
            for place in reversed(dropped):
                if _total(least, kept | {place}) <= room:
                    kept.add(place)
            if _total(least, kept) <= room:
                break
        widths = {place: least[place] for place in every if place in kept}
        self._widen(widths, room, stacked)
        # the widest columns are narrowed until all fit, as far as that goes
        while (excess := _total(widths, widths) - room) > 0:
            widest = max(widths, key=lambda place: widths[place])
            if widths[widest] <= NARROWEST:
                break
            widths[widest] = max(NARROWEST, widths[widest] - excess)
        return widths, stacked

    def _widen(self, widths: dict[int, int], room: int, stacked: bool) -> None:
        """Give spare room to the heads, then to columns of several words."""
        texts = [place for place in widths if self.heads[place] in self.wrap]
        for places in ([place for place in widths if place not in texts], texts):
            wanted = {place: self._widths(place, stacked)[1] - widths[place] for place in places}
            spare = room - _total(widths, widths)
            every = sum(wanted.values())
            for place, more in wanted.items():
                if every and spare > 0:
                    widths[place] += min(more, spare * more // every)

    def _widths(self, place: int, stacked: bool) -> tuple[int, int]:
        """Return the least width of a column, and the one in which nothing is wrapped."""
        head = self.heads[place]
        cells = [self._cell(row, place, stacked) for row in self._rows]
        full = max([cell_len(part) for cell in cells for part in cell.split("\n")], default=0)
        words = [cell_len(word) for cell in cells for word in cell.split()]
        least = max(words, default=0) if head in self.wrap else full
        return max(least, *map(cell_len, head.split() or [""])), max(full, cell_len(head))

    def _cell(self, row: tuple[str, ...], place: int, stacked: bool) -> str:
        """Return a cell; "123 us [121, 125]" in two lines where figures are stacked."""
        cell = row[place]
        if stacked and self.heads[place] not in self.left:
            for sign in (" [", " ("):
                cell = cell.replace(sign, f"\n{sign[1:]}", 1)
        return cell

    def _missing(self, place: int) -> str:
        values = {row[place] for row in self._rows}
        told = self.heads[place] in self.same and len(values) == 1
        return self.heads[place] + (f" ({values.pop()} in every row)" if told else "")


def _total(widths: dict[int, int], places: set[int] | dict[int, int]) -> int:
    """Return the width of a table of these columns."""
    return sum(widths[place] for place in places) + GAP * (len(places) - 1)


def render_costs(
    name: str, analysis: Analysis, shares: dict[str, float], how: str, rows: str = "Layer"
) -> RenderableType:
    """Return the table of layers and the totals.

    Args:
        name: Of the model.
        analysis: From `compress.count_macs`.
        shares: Measured share of the time by layer name; empty: not measured.
        how: On what the shares were measured.
        rows: What a row is.
    """
    sparse = (
        f" ({formats.count(analysis.sparse_macs)} by non-zero weights)"
        if analysis.sparse_macs < analysis.macs
        else ""
    )
    peak = formats.size(analysis.peak_bytes) if analysis.peak_bytes is not None else "unknown"
    lines = [
        f"{name}: {formats.count(analysis.macs)} MACs{sparse} "
        f"({formats.count(2 * analysis.macs)} FLOPs), {formats.count(analysis.other_ops)} "
        f"elementwise operations, {formats.count(analysis.params)} parameters",
        f"{peak} of activations at the peak, {formats.size(analysis.bytes_moved)} moved; all "
        "counted from shapes at batch 1",
    ]
    parts: list[RenderableType] = [*map(said, lines), _table(analysis, shares, rows)]
    if shares:
        parts.append(said(f"Time measured with {how}.", "dim"))
    if analysis.unsupported:
        parts.append(said("Not counted in MACs:"))
        parts += [said(f"  {line}") for line in analysis.unsupported]
    return Group(*parts)


def costs_json(analysis: Analysis, shares: dict[str, float], how: str) -> dict[str, Any]:
    """Return the same as JSON."""
    return {
        "macs": analysis.macs,
        "flops": 2 * analysis.macs,
        "sparse_macs": analysis.sparse_macs,
        "other_ops": analysis.other_ops,
        "params": analysis.params,
        "nonzero": analysis.nonzero,
        "peak_bytes": analysis.peak_bytes,
        "bytes_moved": analysis.bytes_moved,
        "macs_by_class": analysis.by_class(),
        "unsupported": list(analysis.unsupported),
        "layers": [asdict(layer) for layer in analysis.layers],
        "time_share": shares,
        "time_measured_with": how,
    }


def _table(analysis: Analysis, shares: dict[str, float], rows: str) -> Grid:
    heads = [rows, "Class", "Output", "MACs", "share", "Parameters"]
    heads += ["time"] if shares else []
    table = Grid(
        f"{rows}s", heads, (rows, "Class"), title_left=True,
        drop=("Output", "Class", "share", "Parameters"), elsewhere=ELSEWHERE,
    )  # fmt: skip
    shown: set[str] = set()
    for layer in analysis.layers:
        own = layer.name.rpartition("/")[2]
        if not layer.macs and not layer.params and layer.macs is not None and own not in shares:
            continue
        cells = [
            layer.name,
            layer.kind,
            " x ".join("?" if size is None else str(size) for size in layer.output_shape),
            "not counted" if layer.macs is None else formats.count(layer.macs),
            f"{(layer.macs or 0) / analysis.macs * 100:.1f} %" if analysis.macs else "-",
            formats.count(layer.params),
        ]
        if shares:
            # a layer that is called twice has one time
            cells.append("" if own in shown else f"{shares.get(own, 0.0) * 100:.1f} %")
            shown.add(own)
        table.put(cells)
    rest = sum(share for name, share in shares.items() if name not in shown)
    if rest > 0:
        table.put(["between layers", "", "", "", "", "", f"{rest * 100:.1f} %"])
    return table


def render_graph_file(found: GraphFile) -> RenderableType:
    """Return tables of inputs, outputs and operators, and the steps that the file rules out.

    Args:
        found: From `compress.measure.graph_files.read_graph_file`.
    """
    title = f"{found.path.name}: {found.what.text}, {formats.size(found.size_bytes)}"
    parts: list[RenderableType] = [said(title, "bold")]
    if len(found.signatures) > 1:
        parts.append(said(f"Signature '{found.signature}' of {', '.join(found.signatures)}"))
    if found.batch:
        parts.append(said(f"Counted at batch {found.batch}, which the file fixes."))
    parts.append(_ports(found))
    parts.append(said(""))
    parts.append(render_costs(found.name, found.costs, {}, "", "Operator"))
    parts.append(said(found.what.verdict, "bold"))
    return Group(*parts)


def _ports(found: GraphFile) -> Grid:
    quantized = any(port.scale for port in (*found.inputs, *found.outputs))
    heads = ["", "Name", "Shape", "Type", *(("Scale", "Zero point") if quantized else ())]
    table = Grid(
        "Inputs and outputs", heads, ("", "Name", "Shape", "Type"), title_left=True,
        drop=("Zero point", "Scale") if quantized else (), elsewhere=ELSEWHERE,
    )  # fmt: skip
    for what, ports in (("input", found.inputs), ("output", found.outputs)):
        for port in ports:
            scale = (f"{port.scale:.6g}", port.zero_point) if port.scale else ("", "")
            cells = (what, port.name, shape_text(port), port.dtype)
            table.put([*cells, *(scale if quantized else ())])
    return table


def render_coupling(coupled: Coupled) -> RenderableType:
    """Return the tables of channels and residual blocks of `paretune inspect`.

    Args:
        coupled: From `compress.coupled_groups`.
    """
    parts: list[RenderableType] = [_groups(coupled)]
    if coupled.groups and coupled.least_share is not None:
        parts.append(
            said(
                f"Channels can be thinned to {coupled.least_share:g}x of the MACs "
                f"({coupled.least:,}) with the default minimum.",
                "dim",
            )
        )
    if coupled.macs is None:
        parts.append(said("MACs are not known: an input size is open. Give --input-shape."))
    if coupled.frozen:
        rows = [(row.reason, f"{row.units:,}", _names(row.made_by)) for row in coupled.frozen]
        heads = ("Reason", "Number", "Made by")
        parts.append(_coupling_table("Channels that stay", heads, heads[1:], rows))
    for layer, kind, reason in coupled.unknown:
        parts.append(said(f"{layer} ({kind}): channels around it stay: {reason}"))
    if coupled.blocks:
        parts.append(_blocks(coupled))
    if coupled.held_blocks:
        parts.append(_held_blocks(coupled))
    if coupled.opened:
        parts.append(said(f"Opened into the layers inside: {', '.join(coupled.opened)}"))
    return Group(*parts)


def _groups(coupled: Coupled) -> Grid:
    shares = coupled.shares or (None,) * len(coupled.groups)
    return _coupling_table(
        "Channels that are kept or removed together",
        ("Made by", "Kind", "Number", "MACs they take part in", "Slices weights of"),
        ("Kind", "MACs they take part in", "Slices weights of"),
        [
            (
                _names(row.makers) + (f" (some held: {row.reason})" if row.reason else ""),
                row.kind,
                f"{row.total:,}",
                "" if share is None else f"{share * 100:.1f} %",
                _names(row.layers),
            )
            for row, share in zip(coupled.groups, shares, strict=True)
        ],
    )


def _blocks(coupled: Coupled) -> Grid:
    nested = ("Blocks inside",) if any(row.inner for row in coupled.blocks) else ()
    return _coupling_table(
        "Residual branches that could leave as a whole",
        ("Added by", "MACs", "Parameters", "Layers", *nested),
        (*nested, "Parameters", "Layers"),
        [
            (
                row.name,
                "" if row.macs_share is None else f"{row.macs_share * 100:.1f} %",
                f"{row.params_share * 100:.1f} %",
                _names(row.layers),
                *([_names(row.inner)] if nested else []),
            )
            for row in coupled.blocks
        ],
    )


def _held_blocks(coupled: Coupled) -> Grid:
    """Show sums and branches that stay, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for row in coupled.held_blocks:
        by_reason.setdefault(row.reason, []).append(row.name)
    return _coupling_table(
        "Branches that stay",
        ("Reason", "Number", "Added by"),
        ("Number", "Added by"),
        [
            (reason, f"{len(names):,}", _names(tuple(dict.fromkeys(names))))
            for reason, names in by_reason.items()
        ],
    )


def _coupling_table(
    title: str, columns: tuple[str, ...], drop: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> Grid:
    numbers = ("Number", "MACs", "Parameters", "MACs they take part in")
    left = [name for name in columns if name not in numbers]
    texts = [name for name in left if name != "Kind"]
    table = Grid(title, columns, left, title_left=True, wrap=texts, drop=drop, elsewhere=ELSEWHERE)
    for row in rows:
        table.put(row)
    return table


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
