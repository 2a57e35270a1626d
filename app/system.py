"""What the service asks of the operating system: descriptors for many connections."""

import resource

import structlog

ENOUGH_DESCRIPTORS = 4096
"""With fewer a thousand readers, each with a connection of ours to its bucket, are too many."""
_MOST_DESCRIPTORS = 1_048_576
"""Asked for where the hard limit is none at all; Linux refuses more (`fs.nr_open`)."""

_log = structlog.get_logger(__name__)


def raise_descriptor_limit() -> int:
    """Let this process, and those it starts, open as many descriptors as the hard limit allows; gives how many.

    A limit too low for many readers is logged, since only the operator can raise it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS takes less than it says
            pass
    if soft != resource.RLIM_INFINITY and soft < ENOUGH_DESCRIPTORS:
        _log.warning("few_descriptors", limit=soft, wanted=ENOUGH_DESCRIPTORS)
    return soft
