"""A Jupyter server with the extension, in the test's own loop, under a base URL that catches hard-coded paths."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403 - its fixtures and hooks are for the tests of this folder alone
from traitlets.config import Config

from pluralis_lab.server.lab import Lab
from pluralis_lab.store import RunDirectory
from tests.server.asking import API, Api, Socket
from tests.views.made_up_run import event_rows, make_run, write_rows

del pytest_pyfunc_call, pytest_pycollect_makeitem  # noqa: F821 - pytest-asyncio runs our coroutines


@pytest.fixture(autouse=True)
def jp_asyncio_loop(_function_scoped_runner: asyncio.Runner) -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of the server is that of its test, which pytest-asyncio has made and will close."""
    loop = _function_scoped_runner.get_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)


@pytest.fixture
def root() -> Iterator[Path]:
    """A home without runs; its path is short, as a socket's must be."""
    path = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def lab_options() -> dict[str, Any]:
    """Traits of the extension; a test overrides them by parametrizing this."""
    return {}


@pytest.fixture
def jp_server_config(root: Path, lab_options: dict[str, Any]) -> Config:
    return Config(
        {
            "ServerApp": {"jpserver_extensions": {"pluralis_lab": True}, "allow_unauthenticated_access": False},
            "PluralisLabExtension": {"roots": [str(root)], "grace_s": 0.2, **lab_options},
        }
    )


@pytest.fixture
def lab(jp_serverapp: Any, jp_asyncio_loop: Any) -> Iterator[Lab]:
    """The extension's state; ended as the server ends it."""
    (extension,) = jp_serverapp.extension_manager.extension_apps["pluralis_lab"]
    yield extension.lab
    jp_asyncio_loop.run_until_complete(jp_serverapp.cleanup_extensions())


@pytest.fixture
def api(lab: Lab, jp_fetch: Any, http_server_client: Any, jp_serverapp: Any, jp_base_url: str) -> Api:
    return Api(jp_fetch, http_server_client, jp_serverapp.identity_provider.token, jp_base_url)


@pytest.fixture
def finished(root: Path) -> RunDirectory:
    """A made-up run of 60 rounds that has ended."""
    run = make_run(root, rounds=60)
    write_rows(run, event_rows(run))
    run.update_info(state="stopped", account="lab-a", lifetime="detached", chain={"kind": "none", "chain_id": 0})
    return run


@pytest.fixture
def going(root: Path) -> RunDirectory:
    """A made-up run of which 20 of 200 rounds are done; nothing runs it."""
    run = make_run(root, rounds=200)
    write_rows(run, event_rows(run, until=20))
    return run


@pytest.fixture
def watch(jp_ws_fetch: Any, lab: Lab) -> Callable[..., Any]:
    """`await watch(run_id, since=3)` opens the live socket."""

    async def open_socket(run: str, **params: Any) -> Socket:
        return Socket(await jp_ws_fetch(*f"{API}/runs/{run}/live".split("/"), params=params))

    return open_socket
