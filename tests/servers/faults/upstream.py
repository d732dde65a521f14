"""Requests to the real server behind a proxy, signed here: what the client signed was something
else.
"""

import socket
from collections.abc import Mapping
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree

import h11
import trio
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from servers.faults.listings import Item
from servers.seaweedfs import ACCESS_KEY, SECRET_KEY

RECEIVE = 256 * 1024  # bytes at a time
_UNSIGNED = "UNSIGNED-PAYLOAD"
_SIGNATURE = {"authorization", "x-amz-date", "x-amz-content-sha256"}


class _Signer(S3SigV4Auth):
    """Signs for a body that it has not seen."""

    def __init__(self, payload: str) -> None:
        super().__init__(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1")
        self._payload = payload

    def payload(self, request: AWSRequest) -> str:
        return self._payload


def signed(method: str, target: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers` with a signature that holds, whatever they were signed with before."""
    kept = {name: text for name, text in headers.items() if name.lower() not in _SIGNATURE}
    host = kept["host"]
    request = AWSRequest(method, f"http://{host}{target}", headers=kept)
    _Signer(headers.get("x-amz-content-sha256", _UNSIGNED)).add_auth(request)
    return dict(request.headers.items())


async def connected(address: tuple[str, int]) -> trio.SocketStream:
    """Return a connection to `address`, a number: nobody needs to be asked for it."""
    connection = trio.socket.socket()
    try:
        await connection.connect(address)
    except BaseException:
        connection.close()
        raise
    stream = trio.SocketStream(connection)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


async def items_below(address: tuple[str, int], path: str, prefix: str) -> list[Item]:
    """Return all objects below `prefix` of the bucket at `path`."""
    items: list[Item] = []
    query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
    while True:
        target = f"{path}?{urlencode(query, quote_via=quote)}"
        root = ElementTree.fromstring(await _got(address, target))
        space = root.tag.removesuffix("ListBucketResult")
        for one in root.iterfind(f"{space}Contents"):
            field = {child.tag.removeprefix(space): child.text or "" for child in one}
            key = unquote_plus(field["Key"])
            items.append(Item(key, field["Size"], field["ETag"], field["LastModified"]))
        token = root.findtext(f"{space}NextContinuationToken")
        if not token:
            return items
        query["continuation-token"] = token


async def _got(address: tuple[str, int], target: str) -> bytes:
    headers = signed("GET", target, {"host": f"{address[0]}:{address[1]}"})
    connection = h11.Connection(h11.CLIENT)
    body = b""
    async with await connected(address) as stream:
        request = h11.Request(method="GET", target=target, headers=list(headers.items()))
        for sent in (request, h11.EndOfMessage()):
            await stream.send_all(connection.send(sent) or b"")
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(RECEIVE))
            elif isinstance(event, h11.Data):
                body += event.data
    return body
