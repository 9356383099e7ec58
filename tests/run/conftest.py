"""Real Jupyter kernels, driven as a front end drives them, and one home with one chain daemon for the kernels of a module."""

import os
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

import pluralis_lab as pl
from tests.homes import shared_home

ROOT = Path(__file__).parents[2]

SETUP = """
import pluralis_lab as pl
from tests.engines.swarm.conftest import small_spec
"""


@dataclass
class Outputs:
    """What a cell left behind."""

    stdout: str = ""
    stderr: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    error: tuple[str, str] | None = None
    finished: bool = False


class Kernel:
    """A kernel and its client."""

    def __init__(self, home: Path, **variables: str) -> None:
        unwanted = ("CI", "PLURALIS_LAB_HEADLESS", "PLURALIS_LAB_PASSPHRASE")
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(
            env={**environment, "PLURALIS_LAB_HOME": str(home), "JUPYTER_PREFER_ENV_PATH": "1", **variables}, cwd=str(ROOT)
        )
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.process = psutil.Process(self.manager.provisioner.pid)

    def submit(self, code: str, **metadata: Any) -> str:
        """Send a cell; `metadata` is the request's, where front ends name the cell."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = self.client.session.msg("execute_request", {**content, "stop_on_error": True}, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def collect(self, request: str, *, timeout_s: float = 90.0, until: Callable[[Outputs], bool] | None = None) -> Outputs:
        """Gather a cell's outputs until it is done, or until `until` says so."""
        outputs, end = Outputs(), time.monotonic() + timeout_s
        while until is None or not until(outputs):
            try:
                message = self.client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"the cell is not done after {timeout_s} s; so far: {outputs}") from None
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                setattr(outputs, content["name"], getattr(outputs, content["name"]) + content["text"])
            elif kind in ("display_data", "execute_result"):
                outputs.displays.append(content["data"])
            elif kind == "error":
                outputs.error = (content["ename"], content["evalue"])
            elif kind == "status" and content["execution_state"] == "idle":
                outputs.finished = True
                return outputs
        return outputs

    def run(self, code: str, *, timeout_s: float = 90.0, **metadata: Any) -> Outputs:
        """Execute a cell that must succeed and leave nothing on standard error."""
        outputs = self.collect(self.submit(code, **metadata), timeout_s=timeout_s)
        assert outputs.error is None, outputs
        assert outputs.stderr == ""
        return outputs

    def restart(self) -> None:
        """Restart it as the toolbar does: the process is killed, the connection stays."""
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=60)
        self.process = psutil.Process(self.manager.provisioner.pid)

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home whose chain daemon runs already: cells then have nothing to say about it."""
    with shared_home() as path:
        pl.Chain.embedded(home=path).account("lab-a")
        yield path


@pytest.fixture
def kernel(home: Path) -> Iterator[Callable[..., Kernel]]:
    """`kernel(PLURALIS_LAB_HEADLESS="0")` starts one."""
    started: list[Kernel] = []

    def start(**variables: str) -> Kernel:
        started.append(Kernel(home, **variables))
        return started[-1]

    yield start
    for each in started:
        each.end()
