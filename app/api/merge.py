"""A merge patch of a storage (RFC 7396): what it would be after the change, checked as a whole."""

from typing import Any, assert_never

from pydantic import ValidationError

from app.api.faults import faults_of
from app.api.schemas.sources import AzurePlace, AzureSource, S3Place, S3Source, source_view
from app.api.schemas.storages import StoragePatch, StorageTarget
from app.errors import Fault, InvalidInputError
from app.services.sources import IDENTITY
from app.services.storages import StorageDraft, StorageView
from app.storage.source import Source


def merged(view: StorageView, patch: StoragePatch) -> StorageDraft:
    """Give what a storage would be; its source None where bucket and credential stay as they are.

    Raises `InvalidInputError` for what the whole may not be, and at `/source/auth` where the bucket would be
    another and the credential was not given again.
    """
    change = patch.model_dump(exclude_unset=True)
    now = _present(view)
    try:
        target = StorageTarget.model_validate(_merge(now, change))
    except ValidationError as error:
        raise InvalidInputError(*faults_of(error.errors(include_url=False, include_input=False))) from None
    moved = _is_moved(now["source"], target.source.model_dump())
    if moved and target.source.auth is None:
        raise InvalidInputError(Fault("/source/auth", "Give the credential again: the bucket changes."))
    return StorageDraft(
        target.display_name,
        target.description,
        _source(target),
        tuple(target.manifests),
        target.delivery,
        prefix=target.source.prefix,
    )


def _present(view: StorageView) -> dict[str, Any]:
    row = view.row
    return {
        "display_name": row.display_name,
        "description": row.description,
        "source": source_view(row).model_dump(exclude={"auth"}),
        "manifests": list(view.manifests),
        "delivery": row.delivery,
    }


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Apply a merge patch; a credential is replaced whole, never mixed with the stored one."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif name == "source" and value.get("provider") in {None, result["source"]["provider"]}:
            result[name] = _merge(result["source"], value)
        else:
            result[name] = value
    return result


def _is_moved(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return any(before.get(name) != after.get(name) for name in IDENTITY)


def _source(target: StorageTarget) -> Source | None:
    if target.source.auth is None:
        return None
    whole: S3Source | AzureSource
    match target.source:
        case S3Place():
            whole = S3Source.model_validate(target.source.model_dump())
        case AzurePlace():
            whole = AzureSource.model_validate(target.source.model_dump())
        case _:
            assert_never(target.source)
    return whole.value()
