"""Results on one screen, and as a table whose text is no markup."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser

from compress.core.summary import MAX_ROWS, WIDTH, DisplayableResult, Summary

LONG = "block_12/" + "convolution_" * 8 + "end"


@dataclass(frozen=True, repr=False)
class Result(DisplayableResult):
    rows: int

    def build_summary(self) -> Summary:
        cells = tuple((f"layer{n}" if n else LONG, f"{n:,}") for n in range(self.rows))
        return Summary("12 of <b>\x1b[2J", ("a line",), ("Layer", "MACs"), cells, ("n\nn",) * 9)


def test_a_screen_holds_it_and_no_name_is_cut() -> None:
    lines = str(Result(40)).splitlines()
    assert len(lines) <= 25
    # a name that is too long has a line of its own, whole
    assert max(len(line) for line in lines if line != LONG) <= WIDTH
    assert LONG in lines
    assert f"... and {40 - MAX_ROWS} more rows" in lines
    assert "\x1b" not in str(Result(1))
    assert repr(Result(3)) == "<Result: 12 of <b>\\x1b[2J>"


def test_what_has_no_room_is_counted() -> None:
    """Lines that are folded are lines too: notes are left out first, then rows."""
    above = tuple("word " * 40 for _ in range(3))  # 3 lines of 80 columns each
    notes = tuple(f"note {n} " + "word " * 40 for n in range(4))
    rows = tuple((f"layer{n}", "1") for n in range(12))
    text = Summary("title", above, ("Layer", "MACs"), rows, notes).to_text().splitlines()
    # 1 + 9 lines above, 4 of a table but for its rows, 1 of rows that are left out,
    # 3 of a note and 1 of those that are left out: 6 rows have room
    assert len(text) == 25
    assert [row.split()[0] for row in text if "layer" in row] == [f"layer{n}" for n in range(6)]
    assert "... and 6 more rows" in text
    assert sum(row.startswith("- note") for row in text) == 1
    assert text[-1] == "... and 3 more notes"
    # a screen is not torn by what cannot be shortened: one row and one note stay
    endless = Summary("title", above * 9, ("Layer", "MACs"), rows, notes).to_text().splitlines()
    assert sum("layer" in row for row in endless) == 1
    assert sum(row.startswith("- note") for row in endless) == 1


def test_a_warning_comes_first_and_is_never_left_out() -> None:
    many = tuple((f"layer{n}", "1") for n in range(40))
    screen = Summary("title", (), ("Layer", "MACs"), many, ("note",) * 9, "rows", ("<i>\x1b",))
    lines = screen.to_text().splitlines()
    assert lines[:2] == ["<i>\\x1b", "title"]
    assert len(lines) <= 25
    assert screen.to_html().index("&lt;i&gt;\\x1b") < screen.to_html().index("title")

    class Warned(Result):
        def build_summary(self) -> Summary:
            return screen

    assert repr(Warned(1)) == "<Warned: <i>\\x1b>"


def test_a_notebook_gets_a_table_of_everything() -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.text = ""

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.append(tag)

        def handle_data(self, data: str) -> None:
            self.text += data

    page = Result(40)._repr_html_()
    reader = Reader()
    reader.feed(page)
    assert reader.tags.count("tr") == 41
    assert reader.tags.count("b") == 1  # the title's own, not the one in the text
    assert "12 of <b>\\x1b[2J" in reader.text
    assert LONG in reader.text
    assert "n\\nn" in reader.text


def test_columns_without_room_are_named_and_fields_are_never_broken() -> None:
    heads = ("File", "accuracy", *(f"column {n}" for n in range(9)))
    path = "runs/" + "folder with spaces/" * 9 + "model.tflite"
    screen = Summary(
        "title", (), heads, (("a.int8", "98 %", *"123456789"),),
        fields=(("Ship", path), ("", "12 kB"), ("Report", "r.html")),
    )  # fmt: skip
    lines = screen.to_text().splitlines()
    assert lines[1:4] == [f"Ship    {path}", "        12 kB", "Report  r.html"]
    # 6 + 2 + 8 characters of a name and an accuracy leave 64 for columns of 2 + 8: six
    assert lines[5] == "File    accuracy  " + "  ".join(f"column {n}" for n in range(6))
    assert lines[8] == "(a wider terminal shows column 6, column 7, column 8)"
    assert "column 8" in screen.to_text(120)
    assert "wider terminal" not in screen.to_text(120)
    assert path in screen.to_html()
