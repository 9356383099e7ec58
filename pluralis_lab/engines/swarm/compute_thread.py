"""The arithmetic of a worker process, in a thread of its own: messages never wait for a backward pass."""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable

from pluralis_lab.engines.task_queue import TaskQueue
from pluralis_lab.errors import WireError
from pluralis_lab.learning import tasks
from pluralis_lab.learning.compute import StageCompute
from pluralis_lab.worker import Computed, Refused
from pluralis_lab.worker.events import Event


def load_backward() -> None:
    """Load what torch loads with the first ``backward(gradient)``: half a second, sympy most of it."""
    import torch.fx.experimental.symbolic_shapes  # noqa: F401


class ComputeThread:
    """Runs a stage's tasks one after the other.

    build : makes the stage; called in the thread, at once
    forwards_last : the order, see `TaskQueue`
    """

    def __init__(self, build: Callable[[], StageCompute], *, forwards_last: bool) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._building = asyncio.get_running_loop().run_in_executor(self._pool, build)
        self._pool.submit(load_backward)  # where that fails, the first backward says so
        self._tasks = TaskQueue(forwards_last=forwards_last)
        self._has_tasks = asyncio.Event()
        self._busy_s = 0.0

    async def built(self) -> StageCompute:
        """Return the stage as soon as it is built. Raises what building it raised."""
        self._stage = await self._building
        return self._stage

    def put(self, task: tasks.Task) -> None:
        """Have `task` run after those before it."""
        self._tasks.put(task)
        self._has_tasks.set()

    def take_busy_s(self) -> float:
        """Return the seconds that tasks took since this was asked last."""
        busy_s, self._busy_s = self._busy_s, 0.0
        return busy_s

    async def run_forever(self, on_event: Callable[[Event], None]) -> None:
        """Run tasks until cancelled, and tell `on_event` what came out of each."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._tasks:
                self._has_tasks.clear()
                await self._has_tasks.wait()
            task = self._tasks.take()
            begin = time.perf_counter()
            event: Event
            try:
                result = await loop.run_in_executor(self._pool, self._stage.run, task, self._tasks.upcoming)
                event = Computed(task, result, time.perf_counter() - begin)
            except WireError as error:  # what a peer sent cannot be computed with
                event = Refused(task, str(error))
            self._busy_s += time.perf_counter() - begin
            on_event(event)

    def close(self) -> None:
        """Drop what waits; the task that runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
