"""The real server, as a process of its own: what it imports, and what it leaves behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pluralis_lab.server.routes import ROUTES
from pluralis_lab.store import RunDirectory
from tests.server.asking import RUN

HEAVY = ("torch", "hivemind", "web3", "pandas", "numpy", "matplotlib", "plotly", "eth_account", "datasets")
SERVER = """
import atexit, json, sys
from jupyter_server.serverapp import main
# What is loaded when the server ends was loaded while it answered.
atexit.register(lambda: print("LOADED", json.dumps(sorted(name for name in sys.modules if "." not in name)), flush=True))
main()
"""


@contextmanager
def server(root: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a Jupyter server and yield it with the address of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    environment = {
        **os.environ,
        "PLURALIS_LAB_HOME": str(root),
        "JUPYTER_CONFIG_DIR": str(folder),
        "JUPYTER_RUNTIME_DIR": str(folder),
    }
    options = [
        "--ServerApp.jpserver_extensions={'pluralis_lab': True}",
        f"--ServerApp.port={port}",
        "--ServerApp.open_browser=False",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *options, "--allow-root", "--IdentityProvider.token=t", f"--ServerApp.root_dir={folder}"],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        env=environment,
        cwd=folder,
    )
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):  # another process's port: there is nothing to wait on but asking
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, method: str, path: str, body: bytes | None) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/pluralis-lab/api/{path}", data=body, method=method)
    request.add_header("Authorization", "token t")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.timeout(120)
def test_the_server_loads_no_heavy_library_and_leaves_no_child(finished: RunDirectory, root: Path, tmp_path: Path) -> None:
    with server(root, tmp_path) as (process, port):
        for route in sorted(ROUTES, key=lambda route: route.method == "DELETE"):
            path = route.path.replace("{id}", RUN).replace("{process}", "supervisor")
            body = {"spec": {"stages": 3}} if path == "spec/check" else {}
            if path.endswith(("kill", "detach")):
                body = {"worker": "worker-0"}
            if path.endswith("pay"):
                body = {"amount_eth": "1"}
            query = "?worker=worker-0" if "receipts" in path else ""
            status = ask(port, route.method, path + query, json.dumps(body).encode() if route.method == "POST" else None)
            # The made-up run lacks what an audit starts from, so its child fails.
            assert status in (200, 204, 400, 409) or (status == 503 and path.endswith("audit")), (route.method, path, status)
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("pluralis_lab.server.checker" in " ".join(child.cmdline()) for child in children)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert not psutil.wait_procs(children, timeout=10)[1]
    loaded = set(json.loads(out.partition("LOADED ")[2]))
    assert "pluralis_lab" in loaded
    assert not loaded & set(HEAVY)


def test_a_killed_server_leaves_no_child(finished: RunDirectory, root: Path, tmp_path: Path) -> None:
    with server(root, tmp_path) as (process, port):
        assert ask(port, "POST", "spec/check", b'{"spec": {}}') == 200
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.kill()
        assert not psutil.wait_procs(children, timeout=10)[1]


def test_the_root_package_stays_light() -> None:
    code = (
        "import sys, time; t = time.process_time(); import pluralis_lab; print(time.process_time() - t, 'tornado' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert float(out[0]) < 0.3
    assert out[1] == "False"
