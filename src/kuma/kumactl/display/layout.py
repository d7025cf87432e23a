"""How a table is laid out: whole, as programs read it, or narrow, such that it fits the terminal that people look at.

Whole tables have the original's columns. Narrow ones have the few that people look for first, shorten what is too long,
and say what is wrong in lines of its own below: nothing that needs an answer is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kuma.base.values import printable

Row = Sequence[str]
_GAP = 3
_SHORTEST = 6
"""No column is made narrower than this, however narrow the terminal is."""
_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"
_CELLS = {"Offline": _RED, "Partially degraded": _YELLOW}
_NOTHING = ("", "-")


@dataclass(frozen=True, slots=True)
class Layout:
    """The room that there is: a `width` in columns, or None for all that is needed; and whether colours are seen."""

    width: int | None = None
    colours: bool = False

    @property
    def is_narrow(self) -> bool:
        """Tells whether people look at a terminal, rather than programs at everything."""
        return self.width is not None


WHOLE = Layout()


@dataclass(frozen=True, slots=True)
class Narrow:
    """What a narrow table shows of a whole one. Without `columns` it is all of them."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """The columns to show, in their order, each with its short title."""
    below: Sequence[str] = ()
    """The columns that are told in lines below, if there is something to tell."""


def table(headers: Row, rows: Iterable[Row], layout: Layout = WHOLE, narrow: Narrow = Narrow()) -> str:
    """Left-aligned columns, three spaces apart; nothing is added after the last one. No cell leaves its line."""
    whole = [[printable.printable(cell) for cell in row] for row in rows]
    if layout.width is None:
        return "\n".join(_lines([headers, *whole]))
    columns = narrow.columns or {header: header for header in headers}
    places = [headers.index(header) for header in columns]
    chosen = [list(columns.values()), *([row[place] for place in places] for row in whole)]
    lines = _lines(_shortened(chosen, layout.width), layout.colours)
    return "\n".join([*lines, *_below(headers, whole, columns, narrow.below, layout)])


def _lines(rows: Sequence[Row], colours: bool = False) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) + _GAP for column in range(len(rows[0]))]
    for row in rows:
        padded = [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]
        yield "".join(_painted(cell, _CELLS.get(cell.strip(), ""), colours) for cell in padded)


def _painted(text: str, colour: str, colours: bool) -> str:
    return f"{colour}{text}{_PLAIN}" if colour and colours else text


def _shortened(rows: Sequence[Row], width: int) -> Sequence[Row]:
    """Cut the widest columns until a line fits."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    room = width - _GAP * (len(widths) - 1)
    while sum(widths) > room and max(widths) > _SHORTEST:
        widths[widths.index(max(widths))] -= 1
    return [[_cut(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"


def _below(
    headers: Row, rows: Iterable[Row], columns: Mapping[str, str], below: Sequence[str], layout: Layout
) -> Iterator[str]:
    """A line for everything that is told below, after an empty one; it begins with the name in the first column."""
    name = headers.index(next(iter(columns)))
    told = [
        f"{row[name]}: {header.lower()}: {row[headers.index(header)]}"
        for row in rows
        for header in below
        if row[headers.index(header)] not in _NOTHING
    ]
    if told:
        yield ""
    yield from (_painted(line, _RED, layout.colours) for line in told)
