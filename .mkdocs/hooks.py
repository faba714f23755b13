"""Pages of the site that are kept elsewhere, and links that leave the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Pages of the site whose source is outside ``docs/``.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are kept at the root of the project."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        text = text.replace("](CONTRIBUTING.md)", "](contributing.md)")
        text = text.replace("](CHANGELOG.md)", "](changelog.md)")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Show a link to a file of the repository as its text: the site has no such page."""
    folder = (Path(config.docs_dir) / page.file.src_uri).parent

    def shown(link: re.Match[str]) -> str:
        text, target = link.groups()
        if target.startswith(("http:", "https:", "#")):
            return link.group()
        path = (folder / target.partition("#")[0]).resolve()
        inside = path.is_relative_to(Path(config.docs_dir).resolve())
        return link.group() if inside and path.suffix else text

    return _LINK.sub(shown, markdown)
