"""Start the kit's JupyterLab as a learner does and visit it: `python visit.py KIT`, inside of offline.py."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

KIT = Path(sys.argv[1])
PORT = 18888
LISTENS, LOOPBACK = "0A", ("0100007F", "00000000000000000000000001000000")


def listening() -> set[str]:
    """Addresses at which this network namespace's programs listen at PORT, as the kernel writes them."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    places = [line[1].split(":") for line in lines if line[3] == LISTENS]
    return {address for address, port in places if int(port, 16) == PORT}


def visit() -> str:
    """JupyterLab's first page, as soon as it answers."""
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/lab?token=one") as page:
                return page.read().decode()
        except OSError:
            time.sleep(0.5)
    sys.exit("JupyterLab does not answer")


if __name__ == "__main__":
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = ["--no-browser", "--allow-root", f"--port={PORT}", "--IdentityProvider.token=one"]
    lab = subprocess.Popen([sys.executable, KIT / "start.py", *options], start_new_session=True)
    try:
        title = re.search(r"<title>(.*?)</title>", visit())[1]
        assert listening() and listening() <= set(LOOPBACK), listening()
        print(f"{title} listens on this machine only")
    finally:
        os.killpg(lab.pid, signal.SIGINT)  # Ctrl-C reaches every program of the terminal
        print("ended with", lab.wait(30))
