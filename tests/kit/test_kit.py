"""The workshop kit with the network off: unpacked into an awkward folder, installed, its first lessons
run, JupyterLab opened."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from notebooks.workshop.kit import build

HERE = Path(__file__).parent
ARCHIVE = build.archive_path(build.laptop_like_this(), "{}.{}".format(*sys.version_info))
UNSHARE = ["unshare", "--net", "--map-root-user"]


class Told(NamedTuple):
    """What became of a command."""

    status: int
    text: str
    seconds: float
    peak_gb: float
    """Of the largest of its processes."""


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A home folder with nothing in it, in a place where network namespaces can be made."""
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        reason = f"the network cannot be turned off on this machine: {tried.stderr.strip()}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """The archive, copied as a teacher does, and unpacked."""
    folder = tmp_path_factory.mktemp("kit") / "my kit ü"
    folder.mkdir()
    for path in (ARCHIVE, ARCHIVE.with_name(f"{ARCHIVE.name}.sha256"), ARCHIVE.with_name("unpack.py")):
        shutil.copy(path, folder)
    subprocess.run([sys.executable, folder / "unpack.py"], check=True)
    return folder / build.FOLDER


def offline(home: Path, command: Sequence[object], prefix: Sequence[str] = UNSHARE, limit: float | None = None) -> Told:
    """Run a command without a network, an environment, or anything of this clone; killed after `limit` seconds."""
    environment, start = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)}, time.monotonic()
    words = [*prefix, sys.executable, HERE / "offline.py", *command]
    with (home / "output").open("w+") as output:
        process = subprocess.Popen(
            list(map(str, words)),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=home,
            start_new_session=True,
        )
        if limit:
            time.sleep(limit)
            os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Told(process.returncode, output.read(), time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9)


def test_a_run_is_refused_while_the_network_is_on(home):
    told = offline(home, ["true"], prefix=[])
    assert told.status == 1 and told.text.startswith("the network is on")


def test_the_sum_beside_the_archive_is_the_archives():
    told = ARCHIVE.with_name(f"{ARCHIVE.name}.sha256").read_text()
    assert told == f"{build.sha256(ARCHIVE)}  {ARCHIVE.name}\n"


def test_a_folder_that_cannot_be_written_is_refused(home, kit):
    mount = f"mount --bind '{kit}' '{kit}' && mount -o remount,bind,ro '{kit}' && exec \"$@\""
    told = offline(home, [sys.executable, kit / "install.py"], prefix=[*UNSHARE, "--mount", "sh", "-c", mount, "sh"])
    assert told.status == 1
    assert f"The folder {kit} cannot be written (Read-only file system): copy the kit" in told.text


def test_an_installation_that_was_killed_does_not_look_finished(home, kit):
    offline(home, [sys.executable, kit / "install.py"], limit=12)
    assert (kit / ".venv").is_dir()
    told = offline(home, [sys.executable, kit / "start.py"])
    assert told.status == 1 and "The last installation did not come to its end. Run install.py" in told.text


@pytest.fixture(scope="session")
def installed(home, kit):
    """The kit's interpreter, installed over the rest that the killed installation left."""
    told = offline(home, [sys.executable, kit / "install.py"])
    assert told.status == 0, told.text
    assert "It works: 7 SAEs, and a picture in" in told.text
    return kit / ".venv" / "bin" / "python", told


def test_it_installs_and_draws_a_picture(installed, capsys):
    with capsys.disabled():
        print(f"\ninstalled in {installed[1].seconds:.0f} s")
        print(installed[1].text)


def first_lessons() -> list[str]:
    """The first two lessons, solved."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    return sorted(name for name in names if name.endswith("_solution.ipynb"))[:2]


def test_the_kit_has_two_lessons_to_run():
    assert len(first_lessons()) == 2


@pytest.mark.parametrize("lesson", first_lessons())
def test_the_first_lessons_run(home, kit, installed, lesson, tmp_path, capsys):
    command = [installed[0], "-m", "nbconvert", "--log-level=ERROR", "--execute", "--to", "notebook"]
    told = offline(home, [*command, "--output-dir", tmp_path, kit / lesson])
    assert told.status == 0, told.text
    assert (tmp_path / Path(lesson).name).is_file()
    assert told.peak_gb < build.LESSON_GB
    with capsys.disabled():
        print(f"\n{lesson}: {told.seconds:.0f} s, {told.peak_gb:.2f} GB")


def test_jupyterlab_opens_for_this_machine_only(home, kit, installed):
    told = offline(home, [sys.executable, HERE / "visit.py", kit])
    assert told.status == 0, told.text
    assert "JupyterLab listens on this machine only\nended with 0" in told.text


def test_a_kit_that_was_moved_says_so(home, kit, installed):
    moved = kit.rename(kit.with_name("elsewhere"))
    try:
        told = offline(home, [sys.executable, moved / "start.py"])
    finally:
        moved.rename(kit)
    assert told.status == 1
    assert f"The kit was installed in {kit} and is now in {moved}. Run install.py" in told.text
