"""Learning from a refusal that our clock, not our credential, was wrong."""

from time import time

from app.storage.answers import http_date, text_header
from app.storage.base import Answer

NEW_SKEW_S = 240
"""A Date further than this from what we reckon with teaches a new skew (S3 and Azure allow 900)."""


def learned_skew(answer: Answer, known_s: float) -> float | None:
    """Give how far the bucket's clock is ahead if a 403 shows another skew than `known_s`, else None.

    Its error code is not looked at, so that a HEAD, which has none, teaches as well.
    """
    if answer.status != 403:
        return None
    moment = http_date(text_header(answer, b"date"))
    if moment is None:
        return None
    skew_s = moment.timestamp() - time()
    return skew_s if abs(skew_s - known_s) > NEW_SKEW_S else None
