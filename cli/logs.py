"""Logging to standard error: for people with the time, for journald with a level it understands."""

import logging
import os
import sys

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


def log_to_stderr(verbosity: int) -> None:
    """Send what is logged to standard error: warnings, or with `verbosity` 1 and 2 more of ours.

    Other libraries are held to warnings at any verbosity: the SDKs' debug lines hold signatures.
    """
    root = logging.getLogger()
    for known in [one for one in root.handlers if one.get_name() == HANDLER]:
        root.removeHandler(known)  # of an earlier call
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(HANDLER)
    root.addHandler(handler)
    if _is_journal():
        handler.setFormatter(JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("backgate").setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])


def _is_journal() -> bool:
    """True when standard error is the journal, as `$JOURNAL_STREAM` says (systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file at all
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
