"""Logging to standard error: for people with the time, for journald with a level it understands."""

import logging
import os
import sys
from collections.abc import Callable
from typing import TextIO

HANDLER = "backgate"
LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v
# syslog's numbers (sd-daemon(3)): error 3, warning 4, informational 6, debug 7
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}
_DEBUG_PRIORITY = 7


class JournalFormatter(logging.Formatter):
    """Begins each line with `<N>`, which journald takes for its level."""

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, _DEBUG_PRIORITY)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def log_to_stderr(verbosity: int, after_each: Callable[[], None] | None = None) -> None:
    """Send what is logged to standard error: warnings, or with `verbosity` 1 and 2 more of ours.

    `after_each` is called when a record is written, and no other is being written.
    Other libraries are held to warnings at any verbosity: the SDKs' debug lines hold signatures.
    """
    root = logging.getLogger()
    for known in [one for one in root.handlers if one.get_name() == HANDLER]:
        root.removeHandler(known)  # of an earlier call
    handler = _Handler(after_each)
    handler.set_name(HANDLER)
    root.addHandler(handler)
    if _is_journal():
        handler.setFormatter(JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("backgate").setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error, and has the file behind it looked after."""

    def __init__(self, after_each: Callable[[], None] | None) -> None:
        super().__init__(sys.stderr)
        self._after_each = after_each

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self._after_each is not None:
            self._after_each()


def _is_journal() -> bool:
    """True when standard error is the journal, as `$JOURNAL_STREAM` says (systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file at all
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
