"""Routes of manifests: attach and register, show, sync, what is wrong with their lines."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response

from app.api.deps import Caller, Cursor, Limit, ManifestId, OpenServices, Prefer, StorageId
from app.api.links import absolute
from app.api.schemas.fields import Page
from app.api.schemas.manifests import ManifestAnswer, ManifestBody, ProblemAnswer, RegistrationAnswer
from app.api.schemas.problem import BUCKET, problems
from app.services.manifests import Registration

router = APIRouter(prefix="/v1", tags=["Manifests"])

LONGEST_WAIT_S = 60
_EXAMPLES = {"root": {"summary": "The manifest at the bucket's root", "value": {"key": "manifest.jsonl"}}}
_ATTACHED: dict[int | str, dict[str, Any]] = {
    200: {"model": RegistrationAnswer, "description": "It was attached already."},
    201: {"model": RegistrationAnswer, "description": "Registered, or failed, while you waited."},
}


@router.post(
    "/storages/{storage_id}/manifests",
    status_code=202,
    summary="Attach a manifest",
    response_description="Attached; it is being registered in the background.",
    responses={**_ATTACHED, **problems(401, 404, 413, 415, 422, *BUCKET)},
)
async def attach_manifest(
    storage_id: StorageId,
    body: Annotated[ManifestBody, Body(openapi_examples=_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    request: Request,
    response: Response,
    prefer: Prefer = None,
) -> RegistrationAnswer:
    """Attach a manifest and register it in the background; with `Prefer: wait=N` wait for that."""
    wait_s = waiting(prefer)
    done = await services.manifests.attach(caller, storage_id, body.key, wait_s=wait_s)
    response.status_code = 200 if not done.created else 201 if done.finished else 202
    return _located(done, request, response, wait_s if done.created else 0)


@router.get(
    "/storages/{storage_id}/manifests",
    summary="List manifests",
    response_description="One page of manifests.",
    responses=problems(401, 404, 422),
)
async def list_manifests(
    storage_id: StorageId, caller: Caller, services: OpenServices, cursor: Cursor = None, limit: Limit = 100
) -> Page[ManifestAnswer]:
    """List the manifests of a storage, detached ones too."""
    page = await services.manifests.list(caller, storage_id, cursor, limit)
    items = [ManifestAnswer.model_validate(manifest) for manifest in page.items]
    return Page(items=items, next_cursor=page.next_cursor)


@router.get(
    "/manifests/{manifest_id}",
    summary="Show a manifest",
    response_description="The manifest and its state.",
    responses=problems(401, 404),
)
async def get_manifest(manifest_id: ManifestId, caller: Caller, services: OpenServices) -> ManifestAnswer:
    """Show one manifest: whether it is `pending`, `ready` or `failed`, and what was counted."""
    return ManifestAnswer.model_validate(await services.manifests.get(caller, manifest_id))


@router.delete(
    "/manifests/{manifest_id}",
    status_code=204,
    summary="Remove a manifest",
    response_description="It is removed.",
    responses=problems(401, 404),
)
async def delete_manifest(manifest_id: ManifestId, caller: Caller, services: OpenServices) -> None:
    """Remove a manifest and its frames from Framegate; the bucket is not touched."""
    await services.manifests.delete(caller, manifest_id)


@router.post(
    "/manifests/{manifest_id}/sync",
    status_code=202,
    summary="Sync a manifest",
    response_description="It is being read in the background.",
    responses={
        201: {"model": RegistrationAnswer, "description": "Read, or failed, while you waited."},
        **problems(401, 404, 422),
    },
)
async def sync_manifest(
    manifest_id: ManifestId,
    caller: Caller,
    services: OpenServices,
    request: Request,
    response: Response,
    prefer: Prefer = None,
) -> RegistrationAnswer:
    """Read the bucket's copy again if it changed; what is shown goes on until that succeeded."""
    wait_s = waiting(prefer)
    done = await services.manifests.sync(caller, manifest_id, wait_s=wait_s)
    response.status_code = 201 if done.finished else 202
    return _located(done, request, response, wait_s)


@router.get(
    "/manifests/{manifest_id}/problems",
    summary="List a manifest's problems",
    response_description="One page of problems, by line.",
    responses=problems(401, 404, 410, 422),
)
async def list_problems(
    manifest_id: ManifestId, caller: Caller, services: OpenServices, cursor: Cursor = None, limit: Limit = 100
) -> Page[ProblemAnswer]:
    """List what is wrong with the manifest's lines; the first thousand are kept, all are counted."""
    page = await services.manifests.problems(caller, manifest_id, cursor, limit)
    items = [ProblemAnswer.model_validate(problem) for problem in page.items]
    return Page(items=items, next_cursor=page.next_cursor)


def waiting(prefer: str | None) -> float:
    """Give the seconds of `Prefer: wait=N`; what is no such preference is ignored (RFC 7240 section 2)."""
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,9})\"?(?=$|[,;\s])", prefer or "", re.IGNORECASE)
    return min(int(match[1]), LONGEST_WAIT_S) if match else 0


def _located(done: Registration, request: Request, response: Response, wait_s: float) -> RegistrationAnswer:
    response.headers["Location"] = absolute(request, f"/v1/manifests/{done.manifest.id}")
    if wait_s:
        response.headers["Preference-Applied"] = f"wait={wait_s:.0f}"
    return RegistrationAnswer.of(done)
