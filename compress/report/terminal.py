"""Tables and lines for the terminal that show names verbatim: no markup or control characters.

The module also has the tables and JSON of `paretune inspect`: costs of each layer, contents of a
SavedModel or LiteRT file, and channels and blocks that can be pruned.
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

from compress.core.summary import escape_line
from compress.measure import Analysis, formatting
from compress.measure.graph_files import GraphFile
from compress.measure.graph_files.records import format_shape

if TYPE_CHECKING:
    from compress.prune.channels import CouplingReport

ELSEWHERE = "A wider terminal and --out have them."
"""Hint for the columns that do not fit a narrow terminal."""
MAX_NAMES = 4
GAP = 2
"""Characters between two columns of a table."""


def to_text(text: object, style: str = "") -> Text:
    """Return a line as it is: brackets are not markup, control characters are spelled out.

    Args:
        text: Object whose text is shown.
        style: Style of rich: "dim", "bold".
    """
    return Text(escape_line(text), style=style)


@dataclass
class ReportTable:
    """A table that adapts to the terminal's width.

    Cells are never truncated. If the table is too wide, columns are dropped in the order of `drop`,
    and a line lists them; then names that are wider than the terminal are folded.

    Attributes:
        title: Title above the table.
        heads: Headings of the columns.
        left: Headings of left-aligned columns; others are right-aligned.
        wrap: Headings of text columns that may take several lines.
        drop: Headings of columns that may be dropped, least important first.
    """

    title: str
    heads: Sequence[str]
    left: Sequence[str] = ()
    wrap: Sequence[str] = ()
    drop: Sequence[str] = ()
    _rows: list[tuple[str, ...]] = field(default_factory=list, init=False)

    def add_row(self, cells: Sequence[object]) -> None:
        """Add a row of plain texts."""
        self._rows.append(tuple(escape_line(cell) for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table at the available width."""
        widths = self._fit_columns(options.max_width)
        table = Table(
            title=to_text(self.title) if self.title else None, box=box.SIMPLE_HEAD,
            title_justify="left", show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0),
        )  # fmt: skip
        for column, width in widths.items():
            head = self.heads[column]
            side = "left" if head in self.left else "right"
            table.add_column(to_text(head), justify=side, width=width, overflow="fold")  # type: ignore[arg-type]
        for row in self._rows:
            table.add_row(*(Text(row[column]) for column in widths))
        yield Text()
        yield table
        missing = [head for column, head in enumerate(self.heads) if column not in widths]
        if missing:
            text = f"Not shown at {options.max_width} columns: {', '.join(missing)}. {ELSEWHERE}"
            yield to_text(text, "dim")

    def _fit_columns(self, max_width: int) -> dict[int, int | None]:
        """Return the shown columns with their width; None: even the least widths do not fit."""
        sizes = [self._measure_column(column) for column in range(len(self.heads))]
        optional = [self.heads.index(head) for head in reversed(self.drop)]
        kept = set(range(len(sizes))).difference(optional)
        spare = max_width + GAP - sum(GAP + sizes[column][0] for column in kept)
        for column in optional:
            if (needed := GAP + sizes[column][0]) <= spare:
                kept.add(column)
                spare -= needed
        widths = {column: sizes[column][0] for column in sorted(kept)}
        if spare < 0:
            return dict.fromkeys(widths)
        # headings get spare width first, then text columns
        for is_text in (False, True):
            columns = [column for column in widths if (self.heads[column] in self.wrap) == is_text]
            missing = {column: sizes[column][1] - widths[column] for column in columns}
            total = sum(missing.values())
            given = min(spare, total)
            for column, more in missing.items():
                widths[column] += given * more // max(1, total)
            spare -= given
        return {**widths}

    def _measure_column(self, column: int) -> tuple[int, int]:
        """Return the minimum width of a column, and its width without wrapping."""
        head, cells = self.heads[column], [row[column] for row in self._rows]
        full = max(map(cell_len, cells), default=0)
        words = [cell_len(word) for cell in cells for word in cell.split()]
        least = max(words, default=0) if head in self.wrap else full
        return max(least, *map(cell_len, head.split() or [""])), max(full, cell_len(head))


def render_costs(
    name: str, analysis: Analysis, shares: dict[str, float], measured_with: str, rows: str = "Layer"
) -> RenderableType:
    """Return the table of layers and the totals.

    Args:
        name: Name of the model.
        analysis: From `compress.count_macs`.
        shares: Measured share of the time by layer name; empty: not measured.
        measured_with: Runtime and threads of the measurement.
        rows: Noun for a row: "Layer", "Operator".
    """
    sparse = (
        f" ({formatting.format_count(analysis.sparse_macs)} by non-zero weights)"
        if analysis.sparse_macs < analysis.macs
        else ""
    )
    peak = (
        formatting.format_size(analysis.peak_bytes)
        if analysis.peak_bytes is not None
        else "unknown"
    )
    lines = [
        f"{name}: {formatting.format_count(analysis.macs)} MACs{sparse} "
        f"({formatting.format_count(2 * analysis.macs)} FLOPs), "
        f"{formatting.format_count(analysis.other_ops)} "
        f"elementwise operations, {formatting.format_count(analysis.params)} parameters",
        f"{peak} of activations at the peak, {formatting.format_size(analysis.bytes_moved)} moved; "
        "all counted from shapes at batch 1",
    ]
    parts: list[RenderableType] = [*map(to_text, lines), _build_layer_table(analysis, shares, rows)]
    if shares:
        parts.append(to_text(f"Time measured with {measured_with}.", "dim"))
    if analysis.unsupported:
        parts.append(to_text("Not counted in MACs:"))
        parts += [to_text(f"  {line}") for line in analysis.unsupported]
    return Group(*parts)


def build_costs_json(
    analysis: Analysis, shares: dict[str, float], measured_with: str
) -> dict[str, Any]:
    """Return the costs of layers and the totals as JSON.

    Args:
        analysis, shares, measured_with: See `render_costs`.
    """
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
        "time_measured_with": measured_with,
    }


def _build_layer_table(analysis: Analysis, shares: dict[str, float], rows: str) -> ReportTable:
    """Return the table of layers that cost something; `shares` of time by layer, {}: not timed."""
    heads = [rows, "Class", "Output", "MACs", "share", "Parameters"]
    heads += ["time"] if shares else []
    table = ReportTable(
        f"{rows}s", heads, (rows, "Class"),
        drop=("Output", "Class", "share", "Parameters"),
    )  # fmt: skip
    shown: set[str] = set()
    for layer in analysis.layers:
        short_name = layer.name.rpartition("/")[2]
        if (
            not layer.macs
            and not layer.params
            and layer.macs is not None
            and short_name not in shares
        ):
            continue
        cells = [
            layer.name,
            layer.kind,
            " x ".join("?" if size is None else str(size) for size in layer.output_shape),
            "not counted" if layer.macs is None else formatting.format_count(layer.macs),
            f"{(layer.macs or 0) / analysis.macs * 100:.1f} %" if analysis.macs else "-",
            formatting.format_count(layer.params),
        ]
        if shares:
            # the time of a layer that is called twice is known only in total
            cells.append(
                "" if short_name in shown else f"{shares.get(short_name, 0.0) * 100:.1f} %"
            )
            shown.add(short_name)
        table.add_row(cells)
    rest = sum(share for name, share in shares.items() if name not in shown)
    if rest > 0:
        table.add_row(["between layers", "", "", "", "", "", f"{rest * 100:.1f} %"])
    return table


def render_graph_file(graph_file: GraphFile) -> RenderableType:
    """Return tables of inputs, outputs and operators, and the limitation of the file format.

    Args:
        graph_file: From `compress.measure.graph_files.read_graph_file`.
    """
    size = formatting.format_size(graph_file.size_bytes)
    title = f"{graph_file.path.name}: {graph_file.file_kind.description}, {size}"
    parts: list[RenderableType] = [to_text(title, "bold")]
    if len(graph_file.signatures) > 1:
        parts.append(
            to_text(f"Signature '{graph_file.signature}' of {', '.join(graph_file.signatures)}")
        )
    if graph_file.fixed_batch_size:
        parts.append(
            to_text(f"Counted at batch {graph_file.fixed_batch_size}, which the file fixes.")
        )
    parts.append(_build_port_table(graph_file))
    parts.append(to_text(""))
    parts.append(render_costs(graph_file.name, graph_file.costs, {}, "", "Operator"))
    parts.append(to_text(graph_file.file_kind.limitation, "bold"))
    return Group(*parts)


def _build_port_table(graph_file: GraphFile) -> ReportTable:
    """Return the table of a graph file's inputs and outputs, with scales if one is quantized."""
    quantized = any(port.scale for port in (*graph_file.inputs, *graph_file.outputs))
    heads = ["", "Name", "Shape", "Type", *(("Scale", "Zero point") if quantized else ())]
    table = ReportTable(
        "Inputs and outputs", heads, ("", "Name", "Shape", "Type"),
        drop=("Zero point", "Scale") if quantized else (),
    )  # fmt: skip
    for direction, ports in (("input", graph_file.inputs), ("output", graph_file.outputs)):
        for port in ports:
            scale = (f"{port.scale:.6g}", port.zero_point) if port.scale else ("", "")
            cells = (direction, port.name, format_shape(port), port.dtype)
            table.add_row([*cells, *(scale if quantized else ())])
    return table


def render_coupling(coupled: CouplingReport) -> RenderableType:
    """Return the tables of channels and residual blocks of `paretune inspect`.

    Args:
        coupled: From `compress.coupled_groups`.
    """
    parts: list[RenderableType] = [_build_group_table(coupled)]
    if coupled.groups and coupled.least_share is not None:
        parts.append(
            to_text(
                f"Channels can be thinned to {coupled.least_share:g}x of the MACs "
                f"({coupled.least:,}) with the default minimum.",
                "dim",
            )
        )
    if coupled.macs is None:
        parts.append(to_text("MACs are not known: an input size is open. Give --input-shape."))
    if coupled.frozen:
        rows = [
            (row.reason, f"{row.units:,}", _format_names(row.made_by)) for row in coupled.frozen
        ]
        heads = ("Reason", "Number", "Made by")
        parts.append(
            _build_coupling_table("Channels that are not prunable", heads, heads[1:], rows)
        )
    for layer, kind, reason in coupled.unknown:
        parts.append(to_text(f"{layer} ({kind}): channels around it are kept: {reason}"))
    if coupled.blocks:
        parts.append(_build_block_table(coupled))
    if coupled.held_blocks:
        parts.append(_build_kept_block_table(coupled))
    if coupled.opened:
        parts.append(to_text(f"Opened into the layers inside: {', '.join(coupled.opened)}"))
    return Group(*parts)


def _build_group_table(coupled: CouplingReport) -> ReportTable:
    """Return the table of coupled channel groups; the share of MACs is blank if unknown."""
    shares = coupled.shares or (None,) * len(coupled.groups)
    return _build_coupling_table(
        "Channels that are kept or removed together",
        ("Made by", "Kind", "Number", "MACs they take part in", "Slices weights of"),
        ("Kind", "MACs they take part in", "Slices weights of"),
        [
            (
                _format_names(row.makers)
                + (f" (some protected: {row.reason})" if row.reason else ""),
                row.kind,
                f"{row.total:,}",
                "" if share is None else f"{share * 100:.1f} %",
                _format_names(row.layers),
            )
            for row, share in zip(coupled.groups, shares, strict=True)
        ],
    )


def _build_block_table(coupled: CouplingReport) -> ReportTable:
    """Return the table of removable residual blocks, with their inner blocks if there are any."""
    nested = ("Blocks inside",) if any(row.inner for row in coupled.blocks) else ()
    return _build_coupling_table(
        "Residual blocks that can be removed",
        ("Added by", "MACs", "Parameters", "Layers", *nested),
        (*nested, "Parameters", "Layers"),
        [
            (
                row.name,
                "" if row.macs_share is None else f"{row.macs_share * 100:.1f} %",
                f"{row.params_share * 100:.1f} %",
                _format_names(row.layers),
                *([_format_names(row.inner)] if nested else []),
            )
            for row in coupled.blocks
        ],
    )


def _build_kept_block_table(coupled: CouplingReport) -> ReportTable:
    """Return the table of residual blocks that cannot be removed, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for row in coupled.held_blocks:
        by_reason.setdefault(row.reason, []).append(row.name)
    return _build_coupling_table(
        "Residual blocks that cannot be removed",
        ("Reason", "Number", "Added by"),
        ("Number", "Added by"),
        [
            (reason, f"{len(names):,}", _format_names(tuple(dict.fromkeys(names))))
            for reason, names in by_reason.items()
        ],
    )


def _build_coupling_table(
    title: str, columns: tuple[str, ...], drop: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> ReportTable:
    """Return a table of `rows`, with counts and shares right-aligned and long names wrapped."""
    numbers = ("Number", "MACs", "Parameters", "MACs they take part in")
    left_columns = [name for name in columns if name not in numbers]
    texts = [name for name in left_columns if name != "Kind"]
    table = ReportTable(title, columns, left_columns, wrap=texts, drop=drop)
    for row in rows:
        table.add_row(row)
    return table


def _format_names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
