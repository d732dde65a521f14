"""Several requests in one, as Azure and Google take them: multipart/mixed of HTTP messages."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser, HeaderParser

from backgate.gateway.errors import Unreachable
from backgate.gateway.providers.web import Answer, Request

BATCH_WITHIN = 120  # seconds; a store works through all of them before it answers


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests without bodies, numbered by their place."""

    boundary: str
    body: bytes

    def request(self, target: str, headers: Mapping[str, str]) -> Request:
        """Return the request that carries them all."""
        headers = {**headers, "Content-Type": f"multipart/mixed; boundary={self.boundary}"}
        return Request(
            method="POST", target=target, headers=headers, body=self.body, wait=BATCH_WITHIN
        )


def batch_of(method: str, targets: Sequence[str]) -> Batch:
    """Return one batch that asks `method` of each target."""
    boundary = f"batch_{uuid.uuid4().hex}"
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
        f"Content-ID: {number}\r\n\r\n{method} {target} HTTP/1.1\r\nContent-Length: 0\r\n\r\n\r\n"
        for number, target in enumerate(targets)
    ]
    return Batch(boundary, f"{''.join(parts)}--{boundary}--\r\n".encode())


def answers_in(answer: Answer, count: int, what: str) -> list[Answer]:
    """Return the `count` answers that a batch was answered with, in the order of the requests.

    Raises `Unreachable` when they are not all there: what was not answered may not be done.
    """
    head = f"Content-Type: {answer.headers.get('content-type', '')}\r\n\r\n".encode()
    whole = BytesParser().parsebytes(head + answer.body)
    payload = whole.get_payload()
    parts = [part for part in payload if isinstance(part, Message)]
    if len(parts) != count:
        raise Unreachable(f"{what}: the batch was not answered whole")
    found = [_answer(part, what) for part in parts]
    numbers = [_number(part) for part in parts]
    if sorted(numbers) != list(range(count)):
        return found  # not numbered: then they come in the order of the requests
    return [found[numbers.index(number)] for number in range(count)]


def _answer(part: Message, what: str) -> Answer:
    payload = part.get_payload(decode=True)
    text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
    status_line, _, rest = text.partition("\n")
    words = status_line.split()
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise Unreachable(f"{what}: the batch was answered with something else")
    message = HeaderParser().parsestr(rest)
    headers = {name.lower(): text for name, text in message.items()}
    return Answer(int(words[1]), headers, str(message.get_payload()).encode())


def _number(part: Message) -> int:
    text = str(part.get("Content-ID", "")).strip("<>").rpartition("-")[2]
    return int(text) if text.isascii() and text.isdigit() else -1
