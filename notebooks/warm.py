"""Kernels that need not import torch and diffusers: each is forked from one process that has imported them already.

That process, the server, is `python -m notebooks.warm`, with the options and the environment of the kernel for which it
is started. This is the second kernel, since a run of one notebook would gain nothing. The first kernel starts as
kernels usually do. So do kernels with another environment, and all kernels where there are no pidfds (only Linux has
them), where there is a GPU, or where the server has died.
"""

import gc
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.provisioning import LocalProvisioner

from notebooks.kernel import LAUNCHER, die_with
from sae_lib.cache.artefact import ROOT  # importing sae_lib silences transformers, which misses torchvision

MAY_DIFFER = {"SAE_LIB_CACHE", "SAE_LIB_KEEPS_FIGURES", "JUPYTER_PATH", "JPY_PARENT_PID"}
MAY_DIFFER |= {"PYTEST_CURRENT_TEST", "WARM_SERVER"}
# Voila tells a kernel of its page in these.
MAY_DIFFER |= {"SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_SOFTWARE", "SERVER_PROTOCOL", "SERVER_PORT"}
MAY_DIFFER |= {"SERVER_NAME", "VOILA_BASE_URL", "VOILA_SERVER_URL", "VOILA_REQUEST_URL", "VOILA_APP_PORT"}
MAY_DIFFER |= {"VOILA_PREHEAT"}
"""Variables that no library reads when it is imported; a kernel's environment may differ from the server's in these."""
SECONDS_TO_IMPORT = 300
GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Where one of these is, CUDA may be unusable after a fork, so kernels import everything themselves."""


class Provisioner(LocalProvisioner):
    """Starts a kernel by a fork of the server, or as its parent class does."""

    server: "Server | None" = None
    """This process's server for all its kernels, which are started one after another."""
    several = False
    """Whether this process has started a kernel before."""

    @classmethod
    def begin(cls) -> None:
        """Starts the server now, for kernels of this interpreter and environment: all of them will be forked."""
        if _can_fork():
            command = get_kernel_dict()["argv"]
            options, env = command[: command.index(LAUNCHER)], os.environ | {"PYTHONPATH": str(ROOT)}
            Provisioner.server, Provisioner.several = Server.start(options, env), True

    async def launch_kernel(self, cmd, **settings):
        process = self._fork(cmd, str(settings.get("cwd") or Path.cwd()), settings["env"]) if self.several else None
        Provisioner.several = True
        if process is None:
            dies = ["notebooks.kernel" if word == LAUNCHER else word for word in cmd]
            return await super().launch_kernel(dies if sys.platform == "linux" else cmd, **settings)
        self.process, self.pid, self.pgid = process, process.pid, process.pid
        self.cwd = settings.get("cwd", Path.cwd())
        return self.connection_info

    def _fork(self, command: list[str], cwd: str, env: dict[str, str]) -> "Process | None":
        if LAUNCHER not in command or not _can_fork():
            return None
        try:
            if Provisioner.server is None:
                Provisioner.server = Server.start(command[: command.index(LAUNCHER)], env)
            return Provisioner.server.fork(command, cwd, env)
        except (OSError, ValueError):  # the server has died
            return None


def _can_fork() -> bool:
    if not hasattr(os, "pidfd_open") or any(Path(gpu).exists() for gpu in GPUS):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))  # a kernel of Linux may lack or forbid it
    except OSError:
        return False
    return True


class Server:
    """The process that forks, as the process that asks it to sees it."""

    def __init__(self, connection: socket.socket, process: subprocess.Popen | None = None):
        """`process` is the server itself if it is a child of this process."""
        connection.settimeout(SECONDS_TO_IMPORT)
        self.process, self.descriptor = process, connection.fileno()
        self.lines = connection.makefile("rw")  # keeps it open

    @classmethod
    def start(cls, options: list[str], env: Mapping[str, str]) -> Self:
        """Starts a server, which ends when this process does."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [*options, "notebooks.warm"]
            process = subprocess.Popen(command, stdin=theirs, cwd=ROOT, env=env, start_new_session=True)
            return cls(ours, process)

    def fork(self, command: list[str], cwd: str, env: dict[str, str]) -> "Process | None":
        """Forks a kernel; None if the server is not for its environment. Raises OSError or
        ValueError if it has died."""
        env = env | {"JPY_PARENT_PID": str(os.getpid())}
        self.lines.write(json.dumps({"command": command, "cwd": cwd, "env": env}) + "\n")
        self.lines.flush()
        pid = int(self.lines.readline())
        return Process(pid) if pid else None


class Process:
    """A kernel that is not a child of this process, with the methods of `subprocess.Popen` that jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid, self._pidfd = pid, os.pidfd_open(pid)
        self._end = select.poll()
        self._end.register(self._pidfd, select.POLLIN)

    def __del__(self):
        with suppress(AttributeError):  # it had ended before it got one
            os.close(self._pidfd)

    def poll(self) -> int | None:
        """None while it runs, 0 when it has ended: only a parent learns the status."""
        return 0 if self._end.poll(0) else None

    def wait(self) -> int:
        """Return when it has ended."""
        self._end.poll()
        return 0

    def send_signal(self, number: int) -> None:
        """Send a signal; does nothing if it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class PresentStderr:
    """Whatever `sys.stderr` is at the time of writing, for the log handlers of the imported modules."""

    def __getattr__(self, name: str):
        return getattr(sys.__stderr__ if sys.stderr is self else sys.stderr, name)


def import_all() -> dict[str, str]:
    """Import what notebooks import; returns the environment variables that this sets.

    Nothing is computed: a pool of threads would not survive a fork.
    """
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # which a kernel watches; read here
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as the kernel will do
    before, parent = dict(os.environ), os.getppid()
    importlib.import_module("ipykernel.kernelapp")
    sys.stderr = PresentStderr()
    for name in ("torch", "matplotlib.pyplot", "scipy.optimize", "scipy.ndimage", "jaxtyping", "safetensors.torch"):
        if os.getppid() != parent:
            os._exit(0)  # who wanted kernels was killed: the other imports would only take a core
        importlib.import_module(name)
    from diffusers import StableDiffusionXLPipeline  # noqa: F401
    from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer  # noqa: F401

    sys.stderr = sys.__stderr__
    return {name: value for name, value in os.environ.items() if before.get(name) != value}


def serve() -> None:
    """Fork a kernel for each line on standard input, a socket, until that closes; answer with its process id.

    The answer to a kernel of other options or another environment than the server's is 0.
    """
    own = sys.orig_argv[:-1], _without_free(os.environ)
    if not sys.flags.safe_path:
        del sys.path[0]  # the working directory, which the kernel puts there itself
    requests = socket.socket(fileno=os.dup(0)).makefile("rw")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.disable()  # imports make a million objects that stay: looking through them for garbage takes a tenth of the time
    added, server = import_all(), os.getpid()
    gc.enable()
    gc.collect()
    gc.freeze()  # kernels share these pages as long as nobody writes to them
    for line in requests:
        kernel = json.loads(line)
        options = kernel["command"][: kernel["command"].index(LAUNCHER)]
        alike = (options, _without_free(kernel["env"])) == own
        pid = os.fork() if alike else 0
        if alike and not pid:
            requests.close()
            return become_kernel(server, added, **kernel)
        with suppress(BrokenPipeError):  # who asked was killed meanwhile
            requests.write(f"{pid}\n")
            requests.flush()
    os._exit(0)


def _without_free(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in MAY_DIFFER}


def become_kernel(server: int, added: dict[str, str], command: list[str], cwd: str, env: dict[str, str]) -> None:
    """Be what `command` would be: after a fork of the server, until the kernel ends."""
    die_with(server)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env | added)
    sys.orig_argv = command
    sys.argv = [importlib.util.find_spec(LAUNCHER).origin, *command[command.index(LAUNCHER) + 1 :]]
    import ipywidgets
    import numpy
    import torch
    from ipykernel.kernelapp import IPKernelApp

    numpy.random.seed()  # with a number of its own; `random` sees to that itself
    torch.default_generator.seed()
    app = IPKernelApp.instance()
    app.initialize()
    ipywidgets.load_ipython_extension(app.shell)  # which its import does in a kernel
    app.start()


if __name__ == "__main__":
    serve()
