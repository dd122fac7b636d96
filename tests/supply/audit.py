"""Ask PyPI's advisory service about every package of some locks: `python audit.py LOCK ...`, as `make audit` does."""

import subprocess
import sys
from collections.abc import Sequence

ASK = ["pip_audit", "--strict", "--require-hashes", "--disable-pip", "--progress-spinner=off", "--desc=off"]
"""Strict: a package of which the service says nothing is no package without a vulnerability."""


class NoAnswer(Exception):
    """One sentence: what came, what was wanted, what to do."""


def audit(lock: str) -> str:
    """The table of a lock's known vulnerabilities, empty if there are none. Raises NoAnswer if that is not known."""
    done = subprocess.run([sys.executable, "-m", *ASK, "-r", lock], capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    if "known vulnerabilit" in done.stderr and done.stdout.strip():
        return f"{done.stderr.strip()}\n{done.stdout.strip()}"
    reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise NoAnswer(f"{lock} was not audited, since the advisory service did not answer ({reason}): try again online.")


def main(locks: Sequence[str]) -> int:
    """Print what is known of each lock; 1 if one has a known vulnerability or was not audited."""
    found = False
    for lock in locks:
        try:
            table = audit(lock)
        except NoAnswer as error:
            print(error, file=sys.stderr)
            return 1
        print(f"{lock}: {table or 'no known vulnerabilities'}")
        found = found or bool(table)
    return int(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
