"""The picture that stands for a storage: its first frame, or the first picture that lies there."""

from app.db.frames import FrameFilter
from app.errors import MissingError
from app.images.rendition import READABLE_TYPES, Rendition
from app.services.access import Principal
from app.services.frames import FrameService
from app.services.manifests import ManifestService
from app.services.objects import ObjectService
from app.services.renditions import RenditionService
from app.storage.base import Method, ObjectRead, ReadOptions

PREVIEW = Rendition(256, 256, "jpeg")
_MANIFESTS_LOOKED_AT = 100
_OBJECTS_LOOKED_AT = 200
"""One page, and no large one: a listing is parsed on the event loop."""


class PreviewService:
    """Shows storages to those who may see them."""

    def __init__(
        self,
        manifests: ManifestService,
        frames: FrameService,
        objects: ObjectService,
        renditions: RenditionService,
    ) -> None:
        self._manifests = manifests
        self._frames = frames
        self._objects = objects
        self._renditions = renditions

    async def read(
        self,
        principal: Principal,
        storage_id: int,
        method: Method,
        options: ReadOptions,
        *,
        revalidate: bool = False,
    ) -> ObjectRead:
        """Answer a GET or HEAD of a storage's preview, as `RenditionService.read` does and raising what it raises.

        Raises `MissingError` for a storage in which no picture was found, too.
        """
        key = await self._first_frame(principal, storage_id) or await self._first_object(
            principal, storage_id
        )
        if key is None:
            raise MissingError("object", "No picture was found in the storage.")
        return await self._renditions.read(
            principal, storage_id, key, PREVIEW, method, options, revalidate=revalidate
        )

    async def _first_frame(self, principal: Principal, storage_id: int) -> str | None:
        page = await self._manifests.list(principal, storage_id, None, _MANIFESTS_LOOKED_AT)
        for manifest in page.items:
            if manifest.attached and manifest.state == "ready" and manifest.kind == "images":
                frames = await self._frames.list(principal, manifest.id, FrameFilter(), None, 1)
                if frames.items and frames.items[0].key:
                    return frames.items[0].key
        return None

    async def _first_object(self, principal: Principal, storage_id: int) -> str | None:
        page = await self._objects.list(principal, storage_id, "", "", None, _OBJECTS_LOOKED_AT)
        pictures = (item.key for item in page.items if item.media_type in READABLE_TYPES and item.size_bytes)
        return next(pictures, None)
