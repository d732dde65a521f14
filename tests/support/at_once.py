"""Run to its end what never has to wait, from code that cannot await."""

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Return what `call` returns; it must not give way to other tasks."""
    try:
        call.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    call.close()
    raise AssertionError("it has to wait")
