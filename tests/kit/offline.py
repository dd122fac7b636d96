"""Run a command where no network can be reached: `unshare --net --map-root-user python offline.py COMMAND ...`.

Brings up loopback, which Jupyter's kernels need, and makes sure that there is nothing else before
it starts the command.
"""

import errno
import fcntl
import os
import socket
import struct
import sys

SET_FLAGS, UP = 0x8914, 0x1
OUTSIDE = ("192.0.2.1", 443)
"""An address that nobody has (RFC 5737): with any way out, trying it takes time; with none it fails at once."""


def bring_up_loopback() -> None:
    """What `ip link set lo up` does, for machines that lack `ip`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", b"lo", UP))


def refuse_network() -> None:
    """Ends the program if anything but loopback is there, or if an outside address is not unreachable."""
    names = [name for _, name in socket.if_nameindex()]
    if names != ["lo"]:
        sys.exit(f"the network is on: {', '.join(names)}")
    with socket.socket() as outside:
        outside.settimeout(2)
        found = outside.connect_ex(OUTSIDE)
    if found != errno.ENETUNREACH:
        sys.exit(f"the network is on: {OUTSIDE[0]} answers {os.strerror(found)!r} instead of being unreachable")


if __name__ == "__main__":
    if [name for _, name in socket.if_nameindex()] == ["lo"]:
        bring_up_loopback()
    refuse_network()
    os.execvp(sys.argv[1], sys.argv[1:])
