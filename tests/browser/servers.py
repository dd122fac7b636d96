"""JupyterLab, Notebook 7 and the Voila app as processes of their own, on free loopback ports, and Chromium."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from jupyterlab.commands import get_app_dir
from playwright.sync_api import Browser, sync_playwright

from notebooks import run
from sae_lib.cache.artefact import ROOT

ADDED = ROOT / ".venv" / "browser"
"""Where the Makefile installs requirements.lock of this folder."""
TOKEN = "the-token-of-this-test"
START_SECONDS = 120
CLOSED_NETWORK = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


def chromium() -> str:
    """Path of the machine's own Chromium or Chrome; Playwright's download is never used.

    Raises FileNotFoundError if there is none.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise FileNotFoundError("make test-browser needs Chromium: apt install chromium")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium whose colours are the picture's bytes, so that pictures can be read back exactly."""
    with sync_playwright() as playwright:
        flags = [*CLOSED_NETWORK, "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags)
        yield browser
        browser.close()


@contextmanager
def serve(name: str, folder: Path) -> Iterator[str]:
    """The address of the `name` "lab", "notebook" or "app" while it runs; the first two show the notebooks in `folder`.

    Settings of whoever runs the tests are neither read nor written. What the server says is in its log there.
    """
    port = _free_port()
    command = _command(name, folder, port)
    environment, log = _environment(name, folder), folder / ".jupyter" / f"{name}.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(server, address, log)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _command(name: str, folder: Path, port: int) -> list[str]:
    if name == "app":
        return ["make", "app", f"PYTHON={sys.executable}", f"VOILA=--no-browser --port={port} --Voila.token={TOKEN}"]
    options = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "root_dir": folder, "allow_root": True}
    options = [f"--ServerApp.{key}={value}" for key, value in options.items()]
    if name == "notebook":
        options.append(f"--LabServerApp.schemas_dir={_schemas(folder)}")
    module = {"lab": "jupyterlab", "notebook": "notebook"}[name]
    return [sys.executable, "-m", module, "--no-browser", f"--IdentityProvider.token={TOKEN}", *options]


def _schemas(folder: Path) -> Path:
    """Notebook 7 looks for its schemas and JupyterLab's in one folder: both copied there."""
    for lab in (Path(get_app_dir()), ADDED / "share" / "jupyter" / "lab"):
        shutil.copytree(lab / "schemas", folder / ".jupyter" / "schemas", dirs_exist_ok=True)
    return folder / ".jupyter" / "schemas"


def _environment(name: str, folder: Path) -> Mapping[str, str]:
    run.use_this_interpreter()
    home = folder / ".jupyter"
    # Otherwise both ask in a dialog, at their first start, whether to fetch news from the network.
    news = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "labconfig").mkdir(parents=True, exist_ok=True)
    (home / "labconfig" / "page_config.json").write_text(json.dumps(news))
    places = {
        "JUPYTER_CONFIG_DIR": home,
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
    }
    if name == "notebook":
        places["JUPYTER_PATH"] = f"{os.environ['JUPYTER_PATH']}{os.pathsep}{ADDED / 'share' / 'jupyter'}"
        places["JUPYTER_CONFIG_PATH"] = ADDED / "etc" / "jupyter"
    return os.environ | {key: str(value) for key, value in places.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            # An answer of any kind: the app's own page would start a kernel.
            urllib.request.urlopen(f"{address}/static/favicons/favicon.ico", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"no answer from {' '.join(map(str, server.args))}:\n{log.read_text()[-2_000:]}")
