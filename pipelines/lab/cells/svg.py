"""Boxes, circles and arrows as SVG, for drawings of cells."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

#: (x, y) in pixels; y goes down.
Point = tuple[float, float]

INK, SOFT, STATE, GATE = "#22272e", "#68707b", "#1f5fa8", "#d9711c"
_FONT = "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'"
#: Half the width and height of a box, and the radius of a circle.
BOX, CIRCLE = (27.0, 18.0), 13.0


class Drawing:
    """A drawing of shapes positioned by their centres; lines lie below boxes, circles and text.

    Args:
        width: in pixels.
        height: in pixels.
        title: accessible title.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width, self._height, self._title = width, height, title
        self._lines: list[str] = []
        self._shapes: list[str] = []

    def box(self, center: Point, text: str, colour: str = GATE) -> None:
        """Add a box: a matrix of weights or a function."""
        (x, y), (w, h) = center, BOX
        self._shapes.append(
            f"<rect x='{x - w:g}' y='{y - h:g}' width='{2 * w:g}' height='{2 * h:g}' rx='6' "
            f"fill='#fff' stroke='{colour}' stroke-width='2'/>"
        )
        self.text(center, text, colour)

    def circle(self, center: Point, text: str) -> None:
        """Add a circle: an element-wise operation."""
        self._shapes.append(
            f"<circle cx='{center[0]:g}' cy='{center[1]:g}' r='{CIRCLE:g}' fill='#fff' "
            f"stroke='{INK}' stroke-width='1.6'/>"
        )
        self.text(center, text, INK, size=16 if len(text) == 1 else 12)

    def text(
        self, center: Point, text: str, colour: str = INK, *, size: int = 16, anchor: str = "middle"
    ) -> None:
        """Add text; ``_`` starts a subscript, which ends at the next space."""
        spans = []
        for word in text.split(" "):
            name, underscore, subscript = word.partition("_")
            spans.append(escape(name))
            if underscore:
                spans.append(
                    f"<tspan dy='4' font-size='{size - 5}'>{escape(subscript)}</tspan>"
                    "<tspan dy='-4'>\u200b</tspan>"
                )
            spans.append(" ")
        self._shapes.append(
            f"<text x='{center[0]:g}' y='{center[1] + size * 0.35:g}' font-size='{size}' "
            f"fill='{colour}' text-anchor='{anchor}' {_FONT}>{''.join(spans[:-1])}</text>"
        )

    def line(self, points: Sequence[Point], colour: str = INK, *, arrow: bool = True) -> None:
        """Add a line through all points, by default with an arrow head at the last."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        head = f" marker-end='url(#to{colour[1:]})'" if arrow else ""
        self._lines.append(
            f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'{head}/>"
        )

    def dot(self, center: Point, colour: str = INK) -> None:
        """Add a dot, where a line branches."""
        self._lines.append(
            f"<circle cx='{center[0]:g}' cy='{center[1]:g}' r='3.4' fill='{colour}'/>"
        )

    def svg(self) -> str:
        """Render the drawing as an SVG document."""
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
                *self._lines,
                *self._shapes,
                "</svg>\n",
            ]
        )


def above(center: Point) -> Point:
    """The middle of the upper edge of a box."""
    return center[0], center[1] - BOX[1]


def below(center: Point) -> Point:
    """The middle of the lower edge of a box."""
    return center[0], center[1] + BOX[1]


def left(center: Point) -> Point:
    """The middle of the left edge of a box."""
    return center[0] - BOX[0], center[1]


def right(center: Point) -> Point:
    """The middle of the right edge of a box."""
    return center[0] + BOX[0], center[1]


def rim(center: Point, side: str) -> Point:
    """The ``left``, ``right``, ``above`` or ``below`` point of a circle."""
    x, y = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}[side]
    return center[0] + x * CIRCLE, center[1] + y * CIRCLE
