"""A plugin of pytest, `-p tests.forked_nbval`: nbval forks its kernels from the server of the process that started it.

That process passes the server's socket on, and its number in the variable WARM_SERVER. It must not ask for a kernel
meanwhile.
"""

import os
import socket

import nbval.kernel
from jupyter_client.manager import KernelManager

from notebooks import warm


class Manager(KernelManager):
    """Starts its kernel by a fork."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.provisioner = warm.Provisioner(kernel_spec=self.kernel_spec, parent=self)


def pytest_configure(config):
    with socket.socket(fileno=int(os.environ["WARM_SERVER"])) as connection:
        warm.Provisioner.server, warm.Provisioner.several = warm.Server(connection), True
    nbval.kernel.KernelManager = Manager
