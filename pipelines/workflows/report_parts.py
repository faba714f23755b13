"""Tables and figures of a report, in a form and of a size that fit a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from PIL import Image

from pipelines.engine.core.pages import data_url
from pipelines.engine.core.wording import heading, number, readable

#: Bytes of all pictures of a page, and of one; a larger one is shrunk to this width in pixels.
_ALL, _ONE, _WIDTH = 2_000_000, 300_000, 1000
#: Rows of a table that are shown: of one with long texts, and of any other.
_FEW_ROWS, _ROWS = 10, 40
#: Characters of a text that makes a table one with long texts, and of a cell.
_LONG, _CELL = 40, 400


@dataclass
class Table:
    """A table of a report.

    Attributes:
        title: The caption.
        columns: The heads of the columns.
        rows: The cells that are shown.
        description: What the table shows.
        total: Number of rows of the whole table.
        path: The file with the whole table, relative to the run's folder.
        numeric: The columns with numbers.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    description: str = ""
    total: int = 0
    path: str = ""
    numeric: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.total = self.total or len(self.rows)
        columns = range(len(self.columns))
        self.numeric = {i for i in columns if _are_numbers([row[i] for row in self.rows])}

    @classmethod
    def of_columns(cls, title: str, columns: Mapping[str, Sequence[str]]) -> Self:
        """Make a table of its columns, which are in ``run.json``; empty ones are left out."""
        filled = {name: cells for name, cells in columns.items() if any(cells)}
        rows = [list(row) for row in zip(*filled.values(), strict=True)]
        return cls(title, list(filled), rows[:_ROWS], total=len(rows), path="run.json")

    @classmethod
    def of_csv(cls, name: str, rows: Sequence[Sequence[str]], description: str = "") -> Self:
        """Make a table of the file ``tables/NAME.csv``, whose first row has the names."""
        columns, *cells = rows
        of_text = any(len(cell) > _LONG for row in cells for cell in row)
        shown = [list(row) for row in cells[: _FEW_ROWS if of_text else _ROWS]]
        for i in range(len(columns)):
            if _are_numbers([row[i] for row in shown]):
                for row in shown:
                    row[i] = _number(row[i])
        return cls(
            title=heading(name),
            columns=[readable(column) for column in columns],
            rows=[[_shorten(cell) for cell in row] for row in shown],
            description=description,
            total=len(cells),
            path=f"tables/{name}.csv",
        )


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell.replace(",", "")) for cell in cells if cell])
    except ValueError:
        return False


def _number(cell: str) -> str:
    """Return a number of a table as it is, if it is a whole one, or with four digits."""
    return cell if cell.lstrip("-").isdecimal() or not cell else number(float(cell))


def _shorten(cell: str) -> str:
    return cell if len(cell) <= _CELL else cell[: _CELL - 1] + "…"


@dataclass
class Figure:
    """A picture of a report.

    Attributes:
        name: The name of its file, without extension.
        title: The heading.
        description: What it shows.
        url: The picture itself, as a ``data:`` URL.
        link: A page that shows more, relative to the run's folder.
    """

    name: str
    title: str
    description: str
    url: str
    link: str = ""

    @property
    def alt(self) -> str:
        """The text for those who do not see the picture."""
        return f"{self.title}. {self.description}".strip()


class Embedder:
    """Makes pictures part of a page that stays small enough to open and to send.

    Attributes:
        left_out: Paths of pictures that are too large, relative to the run's folder.
    """

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self._bytes = 0

    def figure(self, path: Path, description: str) -> Figure | None:
        """Return a figure, shrunk if it is large; None if it is too large all the same.

        Raises:
            OSError: it cannot be read.
        """
        content, media_type = path.read_bytes(), "image/svg+xml"
        if path.suffix == ".png":
            content, media_type = _picture(content)
        if len(content) > _ONE or self._bytes + len(content) > _ALL:
            self.left_out.append(f"{path.parent.name}/{path.name}")
            return None
        self._bytes += len(content)
        title = heading(path.stem)
        return Figure(path.stem, title, description, data_url(content, media_type))


def _picture(content: bytes) -> tuple[bytes, str]:
    """Return a PNG as it is, or as a smaller JPEG if it is large, with its media type."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if len(content) <= _ONE:
            return content, "image/png"
        opaque = Image.new("RGB", image.size, "white")
        drawn = image.convert("RGBA")
        opaque.paste(drawn, mask=drawn)
    opaque.thumbnail((_WIDTH, 20 * _WIDTH))
    file = io.BytesIO()
    opaque.save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue(), "image/jpeg"
