"""HTML pages that load nothing and need no JavaScript, made from Jinja templates."""

from __future__ import annotations

import base64
from functools import cache

import jinja2


@cache
def templates(package: str) -> jinja2.Environment:
    """Return the templates in the folder of a package; they can extend ``base.html.jinja``."""
    folders = [jinja2.PackageLoader(name, "") for name in (package, __package__)]
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined
    )


def data_url(content: bytes, media_type: str) -> str:
    """Return a URL that contains a file, such as a picture."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
