"""The other side of the server under test: a client of its routes, and a viewer of its socket."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tornado.httpclient import HTTPResponse

API = "pluralis-lab/api"
RUN = "9f3c21ab" + "5e" * 28
"""The id of the made-up runs."""


async def until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something that other threads and sockets bring about, and that nobody announces."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Api:
    """Asks the server under test; never raises for a status."""

    def __init__(self, fetch: Callable[..., Any], client: Any, token: str, base_url: str) -> None:
        self._fetch, self._client, self.token, self.base_url = fetch, client, token, base_url

    async def ask(self, method: str, path: str, body: Any = None, raw: bytes | None = None, **params: Any) -> tuple[int, Any]:
        """Return (status, JSON or text) of a request."""
        sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if method == "POST" and sent is None:
            sent = b""
        response = await self._fetch(
            *f"{API}/{path}".split("/"), method=method, body=sent, params=params, raise_error=False, request_timeout=300
        )
        return response.code, parsed(response)

    async def get(self, path: str, **params: Any) -> tuple[int, Any]:
        return await self.ask("GET", path, **params)

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.ask("POST", path, body)

    async def plain(self, path: str, method: str = "GET", headers: dict[str, str] | None = None, **more: Any) -> HTTPResponse:
        """Send a request as it is: nothing is escaped, no token is added."""
        more.setdefault("body", b"" if method == "POST" else None)
        return await self._client.fetch(
            f"{self.base_url}{API}/{path}",
            method=method,
            headers=headers or {},
            raise_error=False,
            follow_redirects=False,
            **more,
        )


def parsed(response: HTTPResponse) -> Any:
    text = response.body.decode() if response.body else ""
    return json.loads(text) if response.headers.get("Content-Type", "").startswith("application/json") and text else text


class Socket:
    """A viewer of a run."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def read(self, kind: str | None = None, timeout_s: float = 20.0) -> dict[str, Any]:
        """Return the next message (of `kind`); {} when the socket is closed."""
        while True:
            text = await asyncio.wait_for(self.connection.read_message(), timeout_s)
            if text is None:
                return {}
            message = json.loads(text)
            if kind is None or message["type"] == kind:
                return dict(message)

    async def picture(self, timeout_s: float = 20.0) -> dict[str, Any]:
        """Return the next picture message and acknowledge it."""
        message = await self.read("picture", timeout_s)
        if message:
            self.say(type="ack", seq=message["picture"]["seq"])
        return message

    def say(self, **message: Any) -> None:
        self.connection.write_message(json.dumps(message))

    def close(self) -> None:
        self.connection.close()
