"""SIGTERM, by which clusters and `kill` end a process: training saves a checkpoint first, all else stops at once.

Training asks `requested` where it could save, saves, and calls `leave`. It has the grace for that, and no longer.
"""

import signal
import threading
from types import FrameType

GRACE_S = 20.0
"""Between SIGTERM and leaving without another checkpoint: Slurm and Kubernetes kill after 30 seconds."""

_asked = threading.Event()


class Preempted(BaseException):
    """SIGTERM ends this process. No `Exception`: nothing that mends errors may catch it."""


def watch(grace_s: float) -> None:
    """Answer SIGTERM in this process from now on; grace_s: 0 raises Preempted at once, wherever the process stands."""

    def ask(number: int, frame: FrameType | None) -> None:
        _asked.set()
        if not grace_s:
            raise Preempted
        signal.setitimer(signal.ITIMER_REAL, grace_s)

    def end(number: int, frame: FrameType | None) -> None:
        raise Preempted

    _asked.clear()
    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, ask)


def requested() -> bool:
    """Return whether SIGTERM has come: save, and `leave`."""
    return _asked.is_set()


def leave() -> None:
    """Raise Preempted where SIGTERM has come."""
    if requested():
        raise Preempted
