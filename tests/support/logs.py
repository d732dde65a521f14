"""Records of the log as words: of a test that makes thousands of errors, pytest keeps them all."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def words_only() -> Iterator[None]:
    """Let no record hold an error, and with it all that was at hand where that was raised."""
    make = logging.getLogRecordFactory()

    def record(*arguments: Any, **more: Any) -> logging.LogRecord:
        made = make(*arguments, **more)
        made.msg, made.args, made.exc_info = made.getMessage(), (), None
        return made

    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
