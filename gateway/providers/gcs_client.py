"""Send requests to one bucket of Google's JSON API: addressed, with a token, their errors ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from backgate.gateway.errors import AlreadyThere, StoreError, Unreachable
from backgate.gateway.providers.batch import Batch
from backgate.gateway.providers.gcs_errors import error_of
from backgate.gateway.providers.gcs_tokens import Tokens
from backgate.gateway.providers.web import ANSWER_MAX, ANSWER_WITHIN, Answer, Request, Web

_API = "/storage/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request: about an object, or without a key about the bucket."""

    verb: str  # what messages call it
    method: str
    key: str | None = None
    action: str = ""  # quoted; what follows the object in the path
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    wait: float = ANSWER_WITHIN  # seconds without a byte
    limit: int = ANSWER_MAX  # bytes of the answer
    fine: tuple[int, ...] = ()  # statuses that are no error, beside 2xx
    precondition: type[StoreError] = AlreadyThere  # what it means when a condition is not met
    is_upload: bool = False

    def what(self, store: str) -> str:
        return f"{store}: {self.verb}" + ("" if self.key is None else f" {self.key!r}")


class GcsClient:
    """One bucket; any number of threads may ask."""

    def __init__(self, name: str, bucket: str, web: Web, tokens: Tokens) -> None:
        self.name = name
        self._web, self._tokens = web, tokens
        self._objects = f"/b/{quote(bucket)}/o"

    def json(self, call: Call) -> Any:
        """Return what the answer to `call` says; `Unreachable` when it is not JSON."""
        answer = self.asked(call)
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise Unreachable(f"{call.what(self.name)}: {error}", key=call.key) from error
        if not isinstance(found, dict):
            raise Unreachable(f"{call.what(self.name)}: not an answer", key=call.key)
        return found

    def asked(self, call: Call) -> Answer:
        """Return the answer to `call`; raises our error for one that says no."""
        answer = self.ask(call)
        if not answer.is_fine and answer.status not in call.fine:
            raise self.error(answer, call)
        return answer

    def ask(self, call: Call) -> Answer:
        """Return the answer to `call`, whatever it says."""
        what = call.what(self.name)
        request = Request(
            method=call.method,
            target=self._target(call),
            headers={**self._tokens.headers(what), **call.headers},
            body=call.body,
            wait=call.wait,
            limit=call.limit,
        )
        return self._web.ask(request, what, call.key)

    def batch(self, call: Call, batch: Batch) -> Answer:
        """Return the answer to a batch of requests; `call` says what they are for."""
        what = call.what(self.name)
        target = f"{self._web.path}/batch{_API}"
        return self._web.ask(batch.request(target, self._tokens.headers(what)), what)

    def error(self, answer: Answer, call: Call) -> StoreError:
        """Return our error for an answer that says no; a token that was not taken is forgotten."""
        if answer.status == 401:
            self._tokens.forget()
        return error_of(
            answer,
            call.what(self.name),
            call.key,
            precondition=call.precondition,
            is_anonymous=self._tokens.is_anonymous,
        )

    def object_target(self, key: str) -> str:
        """Return the path of an object; its slashes are no slashes of the path."""
        return f"{_API}{self._objects}/{quote(key, safe='')}"

    def rewriting(self, target: str) -> str:
        """Return what follows an object in the path when it is copied to `target`."""
        return f"/rewriteTo{self._objects}/{quote(target, safe='')}"

    def _target(self, call: Call) -> str:
        path = f"{_API}{self._objects}"
        if call.is_upload:
            path = f"/upload{path}"
        elif call.key is not None:
            path = self.object_target(call.key) + call.action
        query = "&".join(f"{name}={quote(text, safe='')}" for name, text in call.query.items())
        return f"{self._web.path}{path}" + (f"?{query}" if query else "")

    def renew(self, tokens: Tokens) -> None:
        """Open with another account's tokens from now on."""
        self._tokens = tokens

    def close(self) -> None:
        self._web.close()
