"""Which requests have a limit of their own for their body."""

from starlette.types import Scope

from app.api.delivery import OBJECT_PATH


def is_upload(scope: Scope) -> bool:
    """Tell whether a request uploads an object: its handler limits its body, to more than JSON ever needs."""
    return scope["method"] == "PUT" and OBJECT_PATH.fullmatch(scope["raw_path"]) is not None
