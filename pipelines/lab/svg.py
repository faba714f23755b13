"""Boxes, circles and arrows as SVG, for drawings of cells."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

Point = tuple[float, float]

INK, SOFT, STATE, GATE = "#22272e", "#68707b", "#1f5fa8", "#d9711c"
_FONT = "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'"
#: Half of a box, of a circle.
BOX, CIRCLE = (27.0, 18.0), 13.0


class Drawing:
    """Parts of a drawing, later ones above. y goes down; a part is placed by its middle."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width, self._height, self._title = width, height, title
        self._below: list[str] = []
        self._above: list[str] = []

    def box(self, at: Point, text: str, colour: str = GATE) -> None:
        """A layer of weights and its function."""
        (x, y), (w, h) = at, BOX
        self._above.append(
            f"<rect x='{x - w:g}' y='{y - h:g}' width='{2 * w:g}' height='{2 * h:g}' rx='6' "
            f"fill='#fff' stroke='{colour}' stroke-width='2'/>"
        )
        self.text(at, text, colour)

    def circle(self, at: Point, text: str) -> None:
        """What is done element by element."""
        self._above.append(
            f"<circle cx='{at[0]:g}' cy='{at[1]:g}' r='{CIRCLE:g}' fill='#fff' stroke='{INK}' "
            "stroke-width='1.6'/>"
        )
        self.text(at, text, INK, size=16 if len(text) == 1 else 12)

    def text(
        self, at: Point, text: str, colour: str = INK, *, size: int = 16, anchor: str = "middle"
    ) -> None:
        """A name; what is behind ``_`` stands lower, to the next space or the end."""
        parts = []
        for word in text.split(" "):
            name, low, index = word.partition("_")
            parts.append(escape(name))
            if low:
                parts.append(
                    f"<tspan dy='4' font-size='{size - 5}'>{escape(index)}</tspan>"
                    "<tspan dy='-4'>\u200b</tspan>"
                )
            parts.append(" ")
        self._above.append(
            f"<text x='{at[0]:g}' y='{at[1] + size * 0.35:g}' font-size='{size}' fill='{colour}' "
            f"text-anchor='{anchor}' {_FONT}>{''.join(parts[:-1])}</text>"
        )

    def line(self, points: Sequence[Point], colour: str = INK, *, arrow: bool = True) -> None:
        """Through all points; with an arrow at the last."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        head = f" marker-end='url(#to{colour[1:]})'" if arrow else ""
        self._below.append(
            f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'{head}/>"
        )

    def dot(self, at: Point, colour: str = INK) -> None:
        """Where a line divides."""
        self._below.append(f"<circle cx='{at[0]:g}' cy='{at[1]:g}' r='3.4' fill='{colour}'/>")

    def svg(self) -> str:
        heads = "".join(
            f"<marker id='to{c[1:]}' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='6.5' "
            f"markerHeight='6.5' orient='auto'><path d='M0,0 L10,5 L0,10 z' fill='{c}'/></marker>"
            for c in (INK, SOFT, STATE, GATE)
        )
        return "\n".join(
            [
                f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self._width} "
                f"{self._height}' width='{self._width}' height='{self._height}' role='img'>",
                f"<title>{escape(self._title)}</title>",
                f"<defs>{heads}</defs>",
                f"<rect width='{self._width}' height='{self._height}' fill='#fff'/>",
                *self._below,
                *self._above,
                "</svg>\n",
            ]
        )


def above(at: Point) -> Point:
    """Where an arrow leaves a box, or a line reaches it, at the top."""
    return at[0], at[1] - BOX[1]


def below(at: Point) -> Point:
    return at[0], at[1] + BOX[1]


def left(at: Point) -> Point:
    return at[0] - BOX[0], at[1]


def right(at: Point) -> Point:
    return at[0] + BOX[0], at[1]


def rim(at: Point, side: str) -> Point:
    """A point of a circle: its ``left``, ``right``, ``above`` or ``below``."""
    x, y = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}[side]
    return at[0] + x * CIRCLE, at[1] + y * CIRCLE
