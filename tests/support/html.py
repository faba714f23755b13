"""A parser of HTML that raises where a page is not well-formed."""

from __future__ import annotations

from html.parser import HTMLParser

#: Elements that have no end tag.
_VOID = frozenset(["meta", "link", "img", "br", "hr", "input"])
#: Elements that may only be inside of these.
_PARENTS = {
    "li": {"ul", "ol"}, "dt": {"dl"}, "dd": {"dl"}, "tr": {"thead", "tbody", "table"},
    "th": {"tr"}, "td": {"tr"}, "caption": {"table"}, "thead": {"table"}, "tbody": {"table"},
    "figcaption": {"figure"}, "summary": {"details"}, "title": {"head"}, "head": {"html"},
    "body": {"html"},
}  # fmt: skip
#: Elements that end a paragraph, so that they cannot be inside one.
_BLOCKS = frozenset(
    ["p", "div", "ul", "dl", "table", "pre", "section", "figure", "h1", "h2", "h3", "details",
     "header", "main"]
)  # fmt: skip


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        elements: The name and the attributes of each element, in order.
        texts: The texts between tags, in order.
        headings: The texts of ``h2`` elements.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        assert text.startswith("<!doctype html>")
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check where an element is, and that each of its attributes is there once."""
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"{tag}: an attribute twice"
        parent = self._open[-1] if self._open else ""
        assert parent in _PARENTS.get(tag, {parent}), f"{tag} in {parent}"
        assert not (tag in _BLOCKS and "p" in self._open), f"{tag} in a paragraph"
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that the innermost open element ends."""
        assert self._open, f"</{tag}> ends nothing"
        assert self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if data.strip() and self._open[-1] != "style":
            self.texts.append(data)
            if self._open[-1] == "h2":
                self.headings.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def addresses(self) -> list[str]:
        """Return all that the page loads or links to."""
        names = ("src", "href", "srcset", "action", "poster", "data")
        return [a[n] or "" for _, a in self.elements for n in names if n in a]
