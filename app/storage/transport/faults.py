"""Words for what goes wrong on a connection that was made."""

from app.errors import BrokenStreamError, StorageTimeoutError, UpstreamError

_AT = "endpoint_url"


class StaleConnectionError(Exception):
    """A pooled connection was dead already: not a byte of an answer came, so the request may go again."""


def malformed() -> UpstreamError:
    """Say that the answer is no HTTP."""
    return UpstreamError(
        "The bucket's server gave an answer that is no valid HTTP/1.1.",
        at=_AT,
        remedy="Check the endpoint's scheme and port.",
    )


def unanswered() -> UpstreamError:
    """Say that the connection ended before an answer began."""
    return UpstreamError(
        "The bucket's server closed the connection without an answer.",
        at=_AT,
        remedy="Check the endpoint's scheme and port.",
        passing="no_answer",
    )


def cut_off() -> UpstreamError:
    """Say that an answer ended too early, before anything of it was handed on."""
    return UpstreamError("The bucket's server broke off in the middle of its answer.", passing="cut_off")


def silent(seconds: float) -> StorageTimeoutError:
    """Say that no answer came."""
    return StorageTimeoutError(f"The bucket did not answer within {seconds:g} seconds.")


def stalled(seconds: float) -> StorageTimeoutError:
    """Say that an answer stopped coming, before anything of it was handed on."""
    return StorageTimeoutError(f"The bucket stopped sending for {seconds:g} seconds.", passing="stalled")


def broken(reason: str) -> BrokenStreamError:
    """Say that a body ended too early, after its answer was handed on."""
    return BrokenStreamError(f"The bucket's answer {reason}.")
