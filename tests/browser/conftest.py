"""What the browser's tests share."""

from tests.api.conftest import service, start_service

__all__ = ["service", "start_service"]
