"""The OpenAPI document: what FastAPI derives, its problems in one schema, and no default that is not true here."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.schemas.problem import ProblemView

DESCRIPTION = """
Framegate stands between image datasets in cloud buckets and those who annotate them: attach a bucket with its
credential, register the `manifest.jsonl` that lies there, list frames and stream picture bytes.

First steps: press **Authorize** and paste a token (`framegate token create --name me` prints one); *Attach a
storage* with the example that fits; *List manifests* of it until theirs is `ready`; *List frames*; *Read a frame's
picture*.

Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problems with a `detail` that says what to do. Lists
are paged: hand `next_cursor` back as `cursor` until it is null. Keys are whole bucket keys everywhere.
"""

TAGS = [
    {"name": "Storages", "description": "Buckets and containers: try them out, attach, change, detach."},
    {"name": "Objects", "description": "What lies in a bucket: listings, and bytes by exact HTTP."},
    {"name": "Manifests", "description": "Dataset manifests: attach, register, sync, and their problems."},
    {"name": "Frames", "description": "The frames of a registered manifest, and their pictures."},
    {"name": "Jobs", "description": "What runs in the background."},
    {"name": "Access", "description": "Who you are, your tokens, and signed URLs."},
    {"name": "Operation", "description": "Alive, ready, and what was counted."},
]


def document(api: FastAPI) -> dict[str, Any]:
    """Give the document, made once."""
    if api.openapi_schema is None:
        made = get_openapi(
            title=api.title,
            version=api.version,
            description=api.description,
            routes=api.routes,
            tags=api.openapi_tags,
        )
        _shorten_ids(made)
        _put_problem_schema(made)
        _drop_default_422(made)
        _restore_nulls(made)
        api.openapi_schema = made
    return api.openapi_schema


def _shorten_ids(made: dict[str, Any]) -> None:
    """Name operations as the code does; FastAPI adds path and method, which makes poor names in clients."""
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            name = operation["operationId"].removesuffix(re.sub(r"\W", "_", f"{path}_{method}"))
            operation["operationId"] = name.replace("get_", "head_", 1) if method == "head" else name


def _put_problem_schema(made: dict[str, Any]) -> None:
    schemas = made["components"]["schemas"]
    schema = ProblemView.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas["ProblemView"] = schema


def _drop_default_422(made: dict[str, Any]) -> None:
    """FastAPI promises a 422 of its own shape; ours are problems, and a bad path id is 404."""
    for name in ("HTTPValidationError", "ValidationError"):
        made["components"]["schemas"].pop(name, None)
    for operations in made["paths"].values():
        for operation in operations.values():
            default = operation["responses"].get("422", {}).get("content", {}).get("application/json")
            if default is not None:
                del operation["responses"]["422"]


def _restore_nulls(made: dict[str, Any]) -> None:
    """FastAPI drops nulls wherever they stand, so an example lacks the fields that it shows as null."""
    for schema in made["components"]["schemas"].values():
        if "examples" in schema:
            schema["examples"] = [
                {name: example.get(name) for name in schema["properties"]} for example in schema["examples"]
            ]
