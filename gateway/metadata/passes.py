"""One pass over the keys below a prefix: what every way of listing needs to know of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from backgate.gateway.metadata import spans
from backgate.gateway.metadata.merge import Told
from backgate.gateway.metadata.pages import Answer, Question

BeforePage = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over the keys below a prefix."""

    question: Question  # its first
    begun: int  # the last change when it began
    settled: int  # the last change that its pages are sure to show
    begun_ns: int  # nanoseconds since 1970
    since: int  # number of the first pass whose pages need no repetition
    before_page: BeforePage

    @property
    def first(self) -> bytes:
        """Where its keys begin."""
        return spans.encoded(self.question.prefix)

    @property
    def end(self) -> bytes:
        """Where its keys end."""
        return spans.end_of(self.first)

    def told(self, answer: Answer, stop: bytes) -> Told:
        """Return what `answer` tells of the keys up to `stop`."""
        return Told(
            answer.objects,
            answer.prefixes,
            stop,
            answer.asked,
            answer.settled,
            answer.asked_ns,
            self.question.number,
        )


async def at_once() -> None:
    """Let the next page be asked for without delay."""
    await trio.lowlevel.checkpoint()
