"""Routes of storages: attach, list, show, change, detach, and try them out."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query, Request, Response

from app.api.deps import Caller, Cursor, IfMatch, Limit, OpenServices, StorageId
from app.api.links import absolute
from app.api.merge import merged
from app.api.schemas.fields import Line, Page
from app.api.schemas.problem import BUCKET, problems
from app.api.schemas.storages import (
    PATCH_EXAMPLES,
    STORAGE_EXAMPLES,
    HealthAnswer,
    ProbeAnswer,
    ProvidersAnswer,
    StorageAnswer,
    StorageBody,
    StoragePatch,
)
from app.db.storages import StorageQuery
from app.errors import PreconditionFailedError
from app.services.storages import StorageView
from app.storage.providers.catalog import providers

router = APIRouter(prefix="/v1", tags=["Storages"])

Sort = Literal[
    "id", "-id", "display_name", "-display_name", "created_at", "-created_at", "updated_at", "-updated_at"
]


@router.get("/providers", responses=problems(401))
async def list_providers(_: Caller) -> ProvidersAnswer:
    """List the kinds of buckets that can be attached, with what a form needs."""
    return ProvidersAnswer.model_validate({"items": providers()})


@router.post("/storages", status_code=201, responses=problems(401, 403, 413, 415, 422))
async def create_storage(
    body: Annotated[StorageBody, Body(openapi_examples=STORAGE_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    request: Request,
    response: Response,
) -> StorageAnswer:
    """Attach a bucket: it is asked first, and each manifest; nothing is stored unless all agree."""
    view = await services.storages.create(caller, body.draft())
    response.headers["Location"] = absolute(request, f"/v1/storages/{view.row.id}")
    return _shown(view, response)


@router.get("/storages", responses=problems(401, 422))
async def list_storages(
    caller: Caller,
    services: OpenServices,
    limit: Limit = 100,
    cursor: Cursor = None,
    search: Annotated[
        Line, Query(description="Every word must occur in name, description, bucket or owner.")
    ] = "",
    provider: Literal["s3", "azure"] | None = None,
    sort: Sort = "id",
) -> Page[StorageAnswer]:
    """List the storages that you may see."""
    query = StorageQuery(
        owner_id=None,
        search=search,
        provider=provider,
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        limit=limit,
    )
    found = await services.storages.list(caller, query, cursor)
    return Page(items=[StorageAnswer.of(view) for view in found.items], next_cursor=found.next_cursor)


@router.post("/storages/probe", responses=problems(401, 403, 413, 415, 422))
async def probe_storage(
    body: Annotated[StorageBody, Body(openapi_examples=STORAGE_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    write: Annotated[bool, Query(description="Also write and delete a small object.")] = False,
) -> ProbeAnswer:
    """Try a bucket and save nothing; a refusal is 422 with the same checklist beside its `errors`."""
    report = await services.storages.probe(caller, body.draft(), write=write)
    return ProbeAnswer.model_validate({"ok": report.ok, "checks": report.checks})


@router.get("/storages/{storage_id}", responses=problems(401, 404))
async def get_storage(
    storage_id: StorageId, caller: Caller, services: OpenServices, response: Response
) -> StorageAnswer:
    """Show one storage."""
    return _shown(await services.storages.get(caller, storage_id), response)


@router.patch(
    "/storages/{storage_id}",
    responses=problems(401, 404, 409, 412, 413, 415, 422, *BUCKET),
    openapi_extra={"requestBody": {"content": {"application/merge-patch+json": {}}}},
)
async def change_storage(
    storage_id: StorageId,
    patch: Annotated[StoragePatch, Body(openapi_examples=PATCH_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    response: Response,
    if_match: IfMatch = None,
) -> StorageAnswer:
    """Change what the patch names, and nothing else (RFC 7396)."""
    before = await services.storages.get(caller, storage_id)
    _require_match(before, if_match)
    draft = merged(before, patch)
    view = await services.storages.change(caller, storage_id, draft, before.row.version)
    return _shown(view, response)


@router.delete("/storages/{storage_id}", status_code=204, responses=problems(401, 404, 412))
async def delete_storage(
    storage_id: StorageId, caller: Caller, services: OpenServices, if_match: IfMatch = None
) -> None:
    """Detach a storage with its manifests; the bucket is not touched."""
    versions = None if if_match is None else _versions(if_match)
    await services.storages.delete(caller, storage_id, versions)


@router.get("/storages/{storage_id}/health", responses=problems(401, 404))
async def storage_health(storage_id: StorageId, caller: Caller, services: OpenServices) -> HealthAnswer:
    """Ask the bucket how it is, now."""
    report = await services.storages.health(caller, storage_id)
    return HealthAnswer.model_validate({"ok": report.ok, "checks": report.checks, "state": report.state})


def _shown(view: StorageView, response: Response) -> StorageAnswer:
    response.headers["ETag"] = f'"{view.row.version}"'
    response.headers["Cache-Control"] = "private, no-cache"
    return StorageAnswer.of(view)


def _require_match(view: StorageView, if_match: str | None) -> None:
    versions = None if if_match is None else _versions(if_match)
    if versions is not None and view.row.version not in versions:
        raise PreconditionFailedError("The storage is not the version that the condition names.")


def _versions(if_match: str) -> list[int] | None:
    """Give the versions that an If-Match names; None for the star, which any existing storage meets."""
    tags = [tag.strip() for tag in if_match.split(",")]
    if tags == ["*"]:
        return None
    return [int(tag[1:-1]) for tag in tags if tag[1:-1].isascii() and tag[1:-1].isdigit() and tag[:1] == '"']
