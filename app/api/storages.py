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

_MERGE_PATCH = {"schema": {"$ref": "#/components/schemas/StoragePatch"}, "examples": PATCH_EXAMPLES}

Sort = Literal[
    "id", "-id", "display_name", "-display_name", "created_at", "-created_at", "updated_at", "-updated_at"
]


@router.get(
    "/providers",
    summary="List providers",
    response_description="Every provider, its fields and ways in.",
    responses=problems(401),
)
async def list_providers(_: Caller) -> ProvidersAnswer:
    """List the kinds of buckets that can be attached: fields, ways in and regions, all that a form needs."""
    return ProvidersAnswer.model_validate({"items": providers()})


@router.post(
    "/storages",
    status_code=201,
    summary="Attach a storage",
    response_description="The storage; `Location` is its URL.",
    responses=problems(401, 403, 413, 415, 422),
)
async def create_storage(
    body: Annotated[StorageBody, Body(openapi_examples=STORAGE_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    request: Request,
    response: Response,
) -> StorageAnswer:
    """Attach a bucket or a container, and register its manifests in the background.

    The bucket is asked first, and each manifest is looked for. What is refused is 422 with `errors` at the
    field at fault, and then nothing is stored.
    """
    view = await services.storages.create(caller, body.draft())
    response.headers["Location"] = absolute(request, f"/v1/storages/{view.row.id}")
    return _shown(view, response)


@router.get(
    "/storages",
    summary="List storages",
    response_description="One page of storages.",
    responses=problems(401, 422),
)
async def list_storages(
    caller: Caller,
    services: OpenServices,
    limit: Limit = 100,
    cursor: Cursor = None,
    search: Annotated[
        Line, Query(description="Every word must occur in name, description, bucket or owner.")
    ] = "",
    provider: Annotated[
        Literal["s3", "azure"] | None, Query(description="Only storages of this provider.")
    ] = None,
    sort: Annotated[Sort, Query(description="The order; `-` before the field turns it round.")] = "id",
) -> Page[StorageAnswer]:
    """List the storages that you may see: your own, or all for an admin."""
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


@router.post(
    "/storages/probe",
    summary="Try a storage out",
    response_description="The checklist of a bucket that could be attached as it is.",
    responses=problems(401, 403, 413, 415, 422),
)
async def probe_storage(
    body: Annotated[StorageBody, Body(openapi_examples=STORAGE_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    write: Annotated[bool, Query(description="Also write and delete a small object.")] = False,
) -> ProbeAnswer:
    """Try a bucket with the body that would attach it, and save nothing.

    The checklist says step by step what worked and what to do: name, connection, region, clock, credential,
    listing, reading, each manifest. A refusal is 422 with the same checklist beside its `errors`.
    """
    report = await services.storages.probe(caller, body.draft(), write=write)
    return ProbeAnswer.model_validate({"ok": report.ok, "checks": report.checks})


@router.get(
    "/storages/{storage_id}",
    summary="Show a storage",
    response_description="The storage; its `ETag` is what `If-Match` wants.",
    responses=problems(401, 404),
)
async def get_storage(
    storage_id: StorageId, caller: Caller, services: OpenServices, response: Response
) -> StorageAnswer:
    """Show one storage; never its secrets."""
    return _shown(await services.storages.get(caller, storage_id), response)


@router.patch(
    "/storages/{storage_id}",
    summary="Change a storage",
    response_description="The storage as it is now.",
    responses=problems(401, 404, 409, 412, 413, 415, 422, *BUCKET),
    openapi_extra={"requestBody": {"content": {"application/merge-patch+json": _MERGE_PATCH}}},
)
async def change_storage(
    storage_id: StorageId,
    patch: Annotated[StoragePatch, Body(openapi_examples=PATCH_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    response: Response,
    if_match: IfMatch = None,
) -> StorageAnswer:
    """Change what the patch names, and nothing else (RFC 7396); null resets a field to its default.

    `source.auth`, if present, replaces the whole credential. Another bucket, container, account, region or
    endpoint needs the credential again, and is asked before anything changes.
    """
    before = await services.storages.get(caller, storage_id)
    _require_match(before, if_match)
    draft = merged(before, patch)
    view = await services.storages.change(caller, storage_id, draft, before.row.version)
    return _shown(view, response)


@router.delete(
    "/storages/{storage_id}",
    status_code=204,
    summary="Detach a storage",
    response_description="It is detached.",
    responses=problems(401, 404, 412),
)
async def delete_storage(
    storage_id: StorageId, caller: Caller, services: OpenServices, if_match: IfMatch = None
) -> None:
    """Detach a storage with its manifests; the bucket is not touched."""
    versions = None if if_match is None else _versions(if_match)
    await services.storages.delete(caller, storage_id, versions)


@router.get(
    "/storages/{storage_id}/health",
    summary="Check a storage",
    response_description="The checklist and the `state` that it comes to.",
    responses=problems(401, 404),
)
async def storage_health(storage_id: StorageId, caller: Caller, services: OpenServices) -> HealthAnswer:
    """Ask the bucket how it is, now; 200 even if it is unwell: `state` says how, the checklist what to do."""
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
