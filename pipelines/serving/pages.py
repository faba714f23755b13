"""Pages for people: what is served, and how to request it.

They load nothing, and need no JavaScript.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiohttp import web

from pipelines.engine.core.pages import templates
from pipelines.serving.json_codec import DEFAULT_SIGNATURE, TensorSpec
from pipelines.serving.openapi import ModelSignatures
from pipelines.serving.repository import Version

_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Server": "unfold",
}


def respond(page: str) -> web.Response:
    """Return the response with a page."""
    return web.Response(text=page, headers=_HEADERS)


def index(versions: Mapping[str, Sequence[Version]], signatures: ModelSignatures) -> str:
    """Return the page with all models.

    Args:
        versions: The known versions of each model.
        signatures: The signatures of each available model.
    """
    models = [
        {
            "name": name,
            "versions": known,
            "signatures": [
                {
                    "name": key,
                    "inputs": _tensors(signature.inputs),
                    "outputs": _tensors(signature.outputs),
                    "example": json.dumps(_example(key, signature.inputs), ensure_ascii=False),
                }
                for key, signature in sorted(signatures.get(name, {}).items())
            ],
        }
        for name, known in versions.items()
    ]
    return templates(__package__).get_template("index.html.jinja").render(models=models)


def docs(document: Mapping[str, Any]) -> str:
    """Return the OpenAPI document as a page."""
    return templates(__package__).get_template("docs.html.jinja").render(document=document)


def _tensors(specs: Mapping[str, TensorSpec]) -> str:
    """Describe tensors in one line."""
    return ", ".join(f"{name}: {_describe(spec)}" for name, spec in specs.items()) or "none"


def _describe(spec: TensorSpec) -> str:
    sizes = ["any" if size is None else str(size) for size in spec.shape or ()]
    return spec.type_name if spec.shape is None else f"{spec.type_name} [{', '.join(sizes)}]"


def _example(key: str, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Return a request with one row."""
    inputs = {
        name: np.full(
            [1 if size is None else size for size in spec.shape or ()],
            "a" if spec.is_text else 1,
            object if spec.is_text else spec.dtype,
        ).tolist()
        for name, spec in specs.items()
    }
    title = {} if key == DEFAULT_SIGNATURE else {"signature_name": key}
    return title | {"inputs": inputs}
