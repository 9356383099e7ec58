"""Closes epochs while the run goes on."""

import asyncio
import time
from collections.abc import Callable

from pluralis_lab.engines.recorder import Recorder
from pluralis_lab.errors import PluralisError


class EpochCloser:
    """Closes the epochs that are due, one after the other; the arithmetic runs in a thread.

    on_done : called when no epoch is due any more
    on_failed : called with the reason when an epoch could not be closed
    on_deviant : called with a worker that did not hold what the others of its stage held
    """

    def __init__(
        self,
        recorder: Recorder,
        on_done: Callable[[], None],
        on_failed: Callable[[str], None],
        on_deviant: Callable[[str], None],
    ) -> None:
        self.recorder, self._on_done, self._on_failed, self._on_deviant = recorder, on_done, on_failed, on_deviant
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an epoch is being closed now."""
        return self._task is not None

    def close_due(self) -> None:
        """Begin to close what is due, unless that goes on already."""
        if self._task is None and self.recorder.epochs_to_close():
            self._task = asyncio.create_task(self._close())

    async def finish(self) -> None:
        """Wait until what was begun is closed."""
        if self._task is not None:
            await self._task

    async def _close(self) -> None:
        try:
            while epochs := self.recorder.epochs_to_close():
                closed = await asyncio.to_thread(self.recorder.close_epoch, epochs[0])
                self.recorder.write_close(closed, at=time.time())
                for name in closed["deviants"]:
                    self._on_deviant(name)
            self._task = None
            self._on_done()
        except (PluralisError, OSError) as error:
            self._on_failed(f"an epoch could not be closed: {error}")
        finally:
            self._task = None
