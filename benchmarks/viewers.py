"""Viewers of a run's live socket without a browser, and the usual way to feed as many: a sampler for each."""

import asyncio
import copy
import json
import time
from contextlib import closing

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from pluralis_lab.server.encoding import to_json
from pluralis_lab.store import RunDirectory
from pluralis_lab.views.fold import RunPicture
from pluralis_lab.views.payload import live_payload
from tests.browser.labserver import LabServer

SERIES_LIMIT = 1_024
CHUNK = 500


class Viewers:
    """`count` sockets that acknowledge each picture, as a page does."""

    def __init__(self, server: LabServer, run: str, count: int) -> None:
        self._url = f"{server.url.replace('http', 'ws')}pluralis-lab/api/runs/{run}/live"
        self._token, self._count = server.token, count
        self.pictures = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._complete = 0
        self._all_complete = asyncio.Event()

    async def start(self) -> None:
        """Open the sockets and wait until each has a picture of the whole run."""
        self._tasks = [asyncio.create_task(self._view()) for _ in range(self._count)]
        async with asyncio.timeout(180):
            await self._all_complete.wait()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _view(self) -> None:
        request = HTTPRequest(self._url, headers={"Authorization": f"token {self._token}"})
        socket = await websocket_connect(request, max_message_size=10**8)
        is_complete = False
        while (message := await socket.read_message()) is not None:
            if not isinstance(message, str) or not message.startswith('{"type":"picture"'):
                continue
            self.pictures += 1
            if not is_complete and '"partial":false' in message[:60]:
                is_complete = True
                self._complete += 1
                if self._complete == self._count:
                    self._all_complete.set()
            # The first `seq` of the text is the picture's; reading all of it twenty times would measure this process.
            start = message.index('"seq":') + 6
            seq = int(message[start : start + 20].split(",", 1)[0])
            await socket.write_message(json.dumps({"type": "ack", "seq": seq}))


class Samplers:
    """One reader, one fold and one encoding for each viewer, as dashboards do that give every socket a sampler."""

    def __init__(self, directory: RunDirectory, count: int) -> None:
        begun = time.perf_counter()
        with closing(directory.reader()) as reader:
            picture = RunPicture.of(directory, read=False, limit=SERIES_LIMIT)
            while events := reader.read(since=picture.seq, limit=20 * CHUNK):
                picture.update(events)
                picture.forget_old()
        to_json(live_payload(picture))
        self.first_s = time.perf_counter() - begun
        """Seconds until a viewer that comes first can be sent anything."""
        self._readers = [directory.reader() for _ in range(count)]
        self._pictures = [picture] + [copy.deepcopy(picture) for _ in range(count - 1)]

    def sample(self) -> int:
        """Read, fold and encode what is new, once for each viewer; returns the bytes to send."""
        size = 0
        for reader, picture in zip(self._readers, self._pictures, strict=True):
            while events := reader.read(since=picture.seq, limit=CHUNK):
                picture.update(events)
                picture.forget_old()
            size += len(to_json(live_payload(picture)))
        return size

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
