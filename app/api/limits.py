"""Which requests have a limit of their own for their body."""

from app.api.delivery import OBJECT_PATH


def is_upload(method: str, path: str) -> bool:
    """Tell whether a request uploads an object: its handler limits its body, to more than JSON ever needs."""
    return method == "PUT" and OBJECT_PATH.fullmatch(path.encode("utf-8", "surrogatepass")) is not None
