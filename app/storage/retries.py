"""When a failed request to a bucket is made again: what can help, how long to wait, and how often in all.

Exponential back-off with full jitter, and a budget for each bucket, so that one which is down is not asked
three times as much as one which is well (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Literal, TypeVar

from app.errors import Passing, StorageError, StorageTimeoutError
from app.storage.answers import retry_after_s, text_header
from app.storage.base import Answer

RetryReason = Passing | Literal["server_error", "throttled", "clock"]
ResumeOutcome = Literal["resumed", "failed"]

MOST_RETRIES = 2
FIRST_PAUSE_S = 0.2
"""The longest first pause; each further one may be twice as long."""
PATIENCE_S = 2
"""A bucket that wants a longer pause than this is not waited for: its wish is passed on instead."""

_BY_STATUS: dict[int, RetryReason] = {
    429: "throttled",
    500: "server_error",
    502: "server_error",
    503: "throttled",
    504: "server_error",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one request may take with all its retries, and who counts them."""

    total_s: float = 20.0
    """No retry begins, or goes on, later than this after the first try began."""
    retried: Callable[[RetryReason], None] = lambda _: None
    resumed: Callable[[ResumeOutcome], None] = lambda _: None


class RetryBudget:
    """One bucket's retries: as many as its balance, to which every request adds a part of one.

    So a short failure is hidden from everybody, and a long one adds a fifth to the load and no more.
    """

    __slots__ = ("_balance",)

    MOST = 20.0
    EARNED = 0.2

    def __init__(self) -> None:
        self._balance = self.MOST

    def earn(self) -> None:
        """Note one request."""
        self._balance = min(self.MOST, self._balance + self.EARNED)

    def spend(self) -> bool:
        """Take one retry out; False when there is none left."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True


class Retrying:
    """The retries of one request that began at `began` (of `time.monotonic`)."""

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, began: float) -> None:
        self._policy = policy
        self._budget = budget
        self._end = began + policy.total_s
        self._retries = 0
        self._reasons: set[RetryReason] = set()

    @property
    def clock_learned(self) -> bool:
        """Whether the request was made again already because our clock was wrong."""
        return "clock" in self._reasons

    def by_another_clock(self) -> float:
        """Count a request that is signed anew, at once; gives the pause before it."""
        self._count("clock")
        return 0.0

    def pause_s(self, outcome: Answer | StorageError) -> float | None:
        """Give how long to wait before the request is made again; None: it is not."""
        reason = _reason(outcome)
        if reason is None or self._retries == MOST_RETRIES:
            return None
        if reason == "connect_timeout" and reason in self._reasons:  # each takes seconds
            return None
        pause_s = _pause_s(outcome, self._retries)
        if pause_s is None or monotonic() + pause_s >= self._end or not self._budget.spend():
            return None
        self._retries += 1
        self._count(reason)
        return pause_s

    async def within(self, attempt: Coroutine[None, None, T]) -> T:
        """Wait for one more try, as long as there is time; raises `StorageTimeoutError`."""
        try:
            async with asyncio.timeout(self._end - monotonic()):
                return await attempt
        except TimeoutError:
            raise StorageTimeoutError(
                f"The bucket did not answer within {self._policy.total_s:g} seconds, asked more than once."
            ) from None

    def _count(self, reason: RetryReason) -> None:
        self._reasons.add(reason)
        self._policy.retried(reason)


def backoff_s(tries: int) -> float:
    """Give a random pause (full jitter) after so many earlier ones."""
    return random.uniform(0, FIRST_PAUSE_S * 2**tries)  # noqa: S311 - jitter, no secret


def _reason(outcome: Answer | StorageError) -> RetryReason | None:
    return outcome.passing if isinstance(outcome, StorageError) else _BY_STATUS.get(outcome.status)


def _pause_s(outcome: Answer | StorageError, tries: int) -> float | None:
    """Give the pause that the bucket asks for, or ours; None where it asks for too long a one."""
    asked_s = retry_after_s(text_header(outcome, b"retry-after")) if isinstance(outcome, Answer) else None
    if asked_s is None:
        return backoff_s(tries)
    return asked_s + backoff_s(0) if asked_s <= PATIENCE_S else None
