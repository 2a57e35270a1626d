"""The data plane's HTTP/1.1 client: signed reads over pooled, guarded connections."""

from app.storage.transport.body import BodyStream, read_up_to
from app.storage.transport.client import Transport

__all__ = ["BodyStream", "Transport", "read_up_to"]
