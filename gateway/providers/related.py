"""A body between a head and a tail, as a file: what multipart/related puts around an object."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from backgate.gateway.provider import Body
from backgate.gateway.providers.s3_body import PieceByPiece


class Related:
    """JSON that describes an object, and then its bytes, without a copy of these."""

    def __init__(self, description: Mapping[str, Any], body: Body) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/related; boundary={boundary}"
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(description)}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        self._pieces = [PieceByPiece(one) for one in (head.encode(), body, tail.encode())]

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._pieces)

    def read(self, length: int | None = None) -> memoryview:
        """Return what follows, up to a piece of it; nothing at the end."""
        while len(self._pieces) > 1:
            found = self._pieces[0].read(length)
            if found:
                return found
            del self._pieces[0]
        return self._pieces[0].read(length)
