"""What the service asks of the operating system: descriptors for many connections, and an end for stalled ones."""

import resource
import socket

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


def answer_at_once(listening: socket.socket) -> None:
    """Let accepted connections send small pieces as they come (tcp(7), TCP_NODELAY, which they take over).

    uvloop sets it by itself. asyncio does not for a socket that it was handed; a head and its body, sent one
    after the other, then wait 40 ms for each other.
    """
    if listening.family in {socket.AF_INET, socket.AF_INET6}:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def hang_up_on_stalled_readers(listening: socket.socket, timeout_s: float) -> None:
    """Let the kernel reset each connection accepted here whose peer takes nothing for so long.

    A reset ends the answer as any vanished client does: its stream is closed and its place at the storage freed.
    The kernel's clock runs only while bytes wait for the peer (tcp(7), TCP_USER_TIMEOUT, which accepted sockets
    take over), so it costs a request nothing. Linux alone has it; elsewhere a stalled reader stays.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and listening.family in {socket.AF_INET, socket.AF_INET6}:
        listening.setsockopt(socket.IPPROTO_TCP, option, round(timeout_s * 1000))
