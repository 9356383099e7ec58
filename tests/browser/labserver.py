"""A real Jupyter server as a process of its own, with folders of its own: what a user's browser talks to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]
BASE_URL = "/a%40b/"
"""Not the usual one, so that a hard-coded path is found out."""
START_S, END_S = 90.0, 30.0
MODULES = {"lab": "jupyterlab", "notebook": "notebook"}
EXPOSE = {"lab": "--LabApp.expose_app_in_browser=True", "notebook": "--JupyterNotebookApp.expose_app_in_browser=True"}

# What a fresh JupyterLab would ask or fetch.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"renameUntitledFileOnSave": False},
}


class LabServer:
    """JupyterLab or Notebook 7 on the runs of `home`; its notebooks are in `notebooks`.

    Started again, it has the port, the token and the cookies' secret of before: open pages find it again.
    """

    def __init__(
        self, folder: Path, home: Path, *, app: Literal["lab", "notebook"] = "lab", options: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.home, self.options, self.app = folder, home, options, app
        self.notebooks = folder / "notebooks"
        self.token = "tok"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{BASE_URL}"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def start(self) -> "LabServer":
        """Start the server and return once it answers."""
        for name in ("notebooks", "config", "data", "runtime", "workspaces", "settings", "ipython"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for plugin, values in SETTINGS.items():
            file = self.folder / "settings" / f"{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULES[self.app], *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.folder,
            )
        try:
            self._wait_for_an_answer(self.process)
        except BaseException:
            self.stop()
            raise
        return self

    def _wait_for_an_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while not self._answers():  # another process's port: there is nothing to wait on but asking
            assert process.poll() is None, self.log[-3000:]
            assert time.monotonic() < deadline, f"no answer after {START_S:.0f} s; its log:\n{self.log[-3000:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server and its kernels, in order if it will."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON of our API's answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}pluralis-lab/api/{path}", data=data, method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}api", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _arguments(self) -> list[str]:
        return [
            "--no-browser",
            "--allow-root",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.base_url={BASE_URL}",
            f"--ServerApp.root_dir={self.notebooks}",
            f"--IdentityProvider.token={self.token}",
            EXPOSE[self.app],
            *self.options,
        ]

    def _environment(self) -> dict[str, str]:
        # These would make the notebooks' kernels behave as in a script.
        unwanted = ("CI", "PLURALIS_LAB_HEADLESS", "PLURALIS_LAB_PASSPHRASE")
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "IPYTHONDIR": "ipython",
        }
        return {
            **{name: value for name, value in os.environ.items() if name not in unwanted},
            **{name: str(self.folder / folder) for name, folder in folders.items()},
            "PLURALIS_LAB_HOME": str(self.home),
            "JUPYTER_PREFER_ENV_PATH": "1",
        }
