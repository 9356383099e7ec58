"""Writing a worker's checkpoints: small ones at once, large ones beside everything else, one after the other."""

import asyncio
from collections.abc import Callable

from pluralis_lab.store.checkpoints import WRITTEN_AT_ONCE_BYTES, CheckpointFolder
from pluralis_lab.worker import Store


class CheckpointWriter:
    """Writes what a worker wants kept.

    on_stored : called with (what was stored, its size in bytes)
    on_failed : called with the error, when there is no room
    """

    def __init__(
        self, folder: CheckpointFolder, *, on_stored: Callable[[Store, int], None], on_failed: Callable[[OSError], None]
    ) -> None:
        self.folder, self._on_stored, self._on_failed = folder, on_stored, on_failed
        self._last: asyncio.Task[None] | None = None

    def write(self, store: Store) -> None:
        """Write `store`, or begin to. Raises OSError where it is written at once and there is no room."""
        if len(store.state) <= WRITTEN_AT_ONCE_BYTES:
            self._on_stored(store, self.folder.save(store.version, store.state, store.digest))
        else:
            self._last = asyncio.create_task(self._write_after(self._last, store))

    async def finish(self) -> None:
        """Wait until all is written."""
        if self._last is not None:
            await self._last

    async def _write_after(self, before: asyncio.Task[None] | None, store: Store) -> None:
        if before is not None:
            await before
        try:
            size = await asyncio.to_thread(self.folder.save, store.version, store.state, store.digest)
        except OSError as error:
            self._on_failed(error)
        else:
            self._on_stored(store, size)
