"""Descriptors, asked for in a process of its own: a limit once lowered stays so."""

import json
import resource
import subprocess
import sys

import pytest

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

_RAISE = """
import json, resource, sys
from app import log
from app.system import raise_descriptor_limit
log.configure("info", "json")
resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[1])))
print(json.dumps([raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


def raised(hard: int) -> tuple[list[int], str]:
    """Raise 256 descriptors with this hard limit: what was given, the limits after it, and the log."""
    command = [sys.executable, "-c", _RAISE, str(hard)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(said.stdout), said.stderr


@pytest.mark.skipif(HARD != resource.RLIM_INFINITY and HARD < 4096, reason="nobody may have so many here")
def test_descriptors_are_raised_to_the_hard_limit() -> None:
    assert raised(4096) == ([4096, 4096, 4096], "")


def test_too_few_descriptors_are_logged() -> None:
    limits, log = raised(1000)
    assert limits == [1000, 1000, 1000]
    event = json.loads(log)
    assert (event["event"], event["level"], event["limit"]) == ("few_descriptors", "warning", 1000)
