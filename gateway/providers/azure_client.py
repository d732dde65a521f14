"""Send requests to one Azure container: addressed, opened by the signature, their errors ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from backgate.gateway.errors import AlreadyThere, StoreError
from backgate.gateway.providers.azure_errors import error_of
from backgate.gateway.providers.azure_keys import Signature
from backgate.gateway.providers.batch import Batch
from backgate.gateway.providers.web import ANSWER_MAX, ANSWER_WITHIN, Answer, Request, Web

VERSION = "2023-11-03"  # of the service that we speak to


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request: about a blob, or without a key about the container."""

    verb: str  # what messages call it
    method: str
    key: str | None = None
    query: str = ""  # quoted
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    wait: float = ANSWER_WITHIN  # seconds without a byte
    limit: int = ANSWER_MAX  # bytes of the answer
    fine: tuple[int, ...] = ()  # statuses that are no error, beside 2xx
    precondition: type[StoreError] = AlreadyThere  # what it means when a condition is not met
    source: str | None = None  # the blob that messages are about, where it is another


class AzureClient:
    """One container; any number of threads may ask."""

    def __init__(self, name: str, container: str, web: Web, signature: Signature) -> None:
        self.name = name
        self._web, self._signature = web, signature
        self._container = f"{web.path}/{quote(container)}"

    def asked(self, call: Call) -> Answer:
        """Return the answer to `call`; raises our error for one that says no."""
        answer = self.ask(call)
        if not answer.is_fine and answer.status not in call.fine:
            raise self.error(answer, call)
        return answer

    def ask(self, call: Call) -> Answer:
        """Return the answer to `call`, whatever it says."""
        request = Request(
            method=call.method,
            target=self.target(call.key, call.query),
            headers={"x-ms-version": VERSION, **call.headers},
            body=call.body,
            wait=call.wait,
            limit=call.limit,
        )
        return self._web.ask(request, self._what(call), call.key)

    def batch(self, call: Call, batch: Batch) -> Answer:
        """Return the answer to a batch of requests; `call` says what they are for."""
        request = batch.request(self.target(None, call.query), {"x-ms-version": VERSION})
        return self._web.ask(request, self._what(call))

    def error(self, answer: Answer, call: Call) -> StoreError:
        """Return our error for an answer that says no."""
        return error_of(
            answer,
            self._what(call),
            call.source or call.key,
            precondition=call.precondition,
            is_anonymous=self._signature.is_anonymous,
        )

    def target(self, key: str | None, query: str = "") -> str:
        """Return the path and query of a request, opened by the signature."""
        path = self._container
        path += "" if key is None else f"/{quote(key, safe='/-_.~')}"
        parts = [query, self._signature.query()]
        if key is None:
            parts.insert(0, "restype=container" if "restype=" not in query else "")
        full = "&".join(part for part in parts if part)
        return f"{path}?{full}" if full else path

    def url(self, key: str) -> str:
        """Return where the store itself finds `key`, opened by the signature."""
        return self._web.origin + self.target(key)

    def renew(self, signature: Signature) -> None:
        """Open with another signature from now on."""
        self._signature = signature

    def close(self) -> None:
        self._web.close()

    def _what(self, call: Call) -> str:
        key = call.source or call.key
        return f"{self.name}: {call.verb}" if key is None else f"{self.name}: {call.verb} {key!r}"
