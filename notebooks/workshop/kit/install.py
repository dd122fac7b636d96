"""Install the workshop kit on this laptop, without the internet: `python install.py`, then `python start.py`.

Everything goes into the folder .venv beside this file; to uninstall, delete the kit's folder. It can be
run again at any time.
"""

# The standard library only, and no syntax that a Python which is too old would not read: it must say that it is.
import ctypes
import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import time

KIT = os.path.dirname(os.path.abspath(__file__))
STAMP = "installed.json"
"""Written into .venv when all is done; without it .venv is left over from an installation that died."""


class CannotInstall(Exception):
    """One sentence: what came, what was wanted, what to do."""


def read_manifest(kit):
    """kit.json, which says for whom this kit was made. Raises CannotInstall if it is not there or not whole."""
    path = os.path.join(kit, "kit.json")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise CannotInstall(
            f"kit.json is not beside install.py in {kit}: unpack the whole archive, then run install.py there."
        ) from None
    except ValueError:
        raise CannotInstall("The file kit.json is damaged: copy the kit again.") from None


def dotted(numbers):
    """(3, 11) as "3.11"."""
    return ".".join(map(str, numbers))


def check_python(manifest, version=None, implementation=None, bits=None):
    """Raises CannotInstall unless this is the kind of Python that the kit's wheels are for."""
    version = tuple(version or sys.version_info[:3])
    implementation, bits = implementation or platform.python_implementation(), bits or 8 * struct.calcsize("P")
    first = tuple(manifest["python"])
    if implementation != "CPython" or bits != 64 or version[:2] != first[:2] or version < first:
        raise CannotInstall(
            f"This is {implementation} {dotted(version)} of {bits} bits ({sys.executable}), and the kit is for "
            f"64-bit CPython {dotted(first[:2])}, from {dotted(first)} on: "
            "install that, or ask for a kit that was made for yours."
        )


def system_version(system):
    """(major, minor) of macOS or of Linux's glibc; None where it is unknown."""
    text = {"Darwin": platform.mac_ver()[0], "Linux": platform.libc_ver()[1]}.get(system, "")
    numbers = text.split(".")[:2]
    return tuple(map(int, numbers)) if len(numbers) == 2 and all(part.isdigit() for part in numbers) else None


def check_laptop(manifest, system=None, machine=None, version=None):
    """Raises CannotInstall if the kit was made for another system, processor, or a newer system."""
    system, machine = system or platform.system(), machine or platform.machine()
    version = version or system_version(system)
    if (system, machine.lower()) != (manifest["system"], manifest["machine"].lower()):
        raise CannotInstall(
            f"This Python runs on {system} ({machine}), "
            f"and the kit is for {manifest['system']} ({manifest['machine']}): ask for the kit of your laptop."
        )
    oldest = tuple(manifest["system_version"])
    if version and version < oldest:
        name = {"Darwin": "macOS", "Linux": "glibc"}[system]
        raise CannotInstall(
            f"This laptop has {name} {dotted(version)}, and the kit needs {dotted(oldest)} or newer: "
            "update the system, or work in a pair."
        )


def check_modules():
    """Raises CannotInstall if this Python cannot make virtual environments, as Debian's cannot at first."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise CannotInstall(
            f"{sys.executable} cannot make virtual environments ({error.name} is missing): on Debian or Ubuntu install "
            f"the package python{dotted(sys.version_info[:2])}-venv, elsewhere take Python from python.org."
        ) from None


def check_folder(manifest, kit, system=None):
    """Raises CannotInstall if the kit's folder cannot be written or lies too deep for Windows."""
    probe = os.path.join(kit, ".can-be-written")
    try:
        with open(probe, "w"):
            pass
        os.remove(probe)
    except OSError as error:
        raise CannotInstall(
            f"The folder {kit} cannot be written ({error.strerror}): "
            "copy the kit to a place of your own, such as the desktop."
        ) from None
    length = len(kit) + 1 + manifest["longest_path"]
    if (system or platform.system()) == "Windows" and length > 259:
        raise CannotInstall(
            f"The folder {kit} is too deep: with the kit's files a path has {length} characters, "
            "and Windows takes 259; move the kit to C:\\sae-kit."
        )


def check_disk(manifest, kit, free=None):
    """Raises CannotInstall if the disk has too little room."""
    free = shutil.disk_usage(kit).free / 1e9 if free is None else free
    if free < manifest["disk_gb"]:
        raise CannotInstall(
            f"The disk of {kit} has {free:.1f} GB free, and the kit needs {manifest['disk_gb']:.1f} GB: "
            "delete something, or move the kit to another disk."
        )


def memory_gb():
    """This laptop's memory and the free part of it, in GB; None where that cannot be asked."""
    ask = {"Linux": _memory_linux, "Darwin": _memory_macos, "Windows": _memory_windows}.get(platform.system())
    try:
        total, free = ask()
        return total / 1e9, free / 1e9
    except Exception:  # noqa: BLE001  whatever is unknown of a laptop must not keep it from the workshop
        return None


def _memory_linux():
    with open("/proc/meminfo") as file:
        sizes = dict(line.split(":") for line in file)
    return [int(sizes[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable")]


def _memory_macos():
    total = int(subprocess.check_output(["sysctl", "-n", "hw.memsize"]))
    lines = subprocess.check_output(["vm_stat"]).decode().splitlines()
    pages = dict(line.rstrip(".").split(":") for line in lines[1:] if ":" in line)
    size = int("".join(filter(str.isdigit, lines[0])))
    return total, size * sum(int(pages["Pages " + name]) for name in ("free", "inactive", "speculative"))


def _memory_windows():
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)]
        _fields_ += [(name, ctypes.c_ulonglong) for name in ("total", "free", "c", "d", "e", "f", "g")]

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("GlobalMemoryStatusEx failed")
    return status.total, status.free


def memory_advice(manifest, memory):
    """What to say about this laptop's memory, (total, free) in GB or None. Raises CannotInstall
    if a lesson cannot fit."""
    if memory is None:
        return ""
    wanted = manifest["lesson_gb"] + manifest["browser_gb"]
    total, free = memory
    said = f"Memory: {total:.1f} GB, of which {free:.1f} GB are free; a lesson with its browser needs {wanted:.1f} GB."
    if total < manifest["least_gb"]:
        raise CannotInstall(said + " This laptop cannot hold that: work in a pair.")
    if free < wanted:
        said += " Close other programs and browser tabs before you start, and keep one lesson open at a time."
    return said


def check_files(manifest, kit):
    """Raises CannotInstall for a wheel or a model that is missing or not the one that was packed."""
    for name, wanted in sorted(manifest["sha256"].items()):
        digest = hashlib.sha256()
        try:
            with open(os.path.join(kit, name), "rb") as file:
                for part in iter(lambda file=file: file.read(1 << 20), b""):
                    digest.update(part)
        except OSError:
            raise CannotInstall(f"The file {name} is missing: copy the kit again.") from None
        if digest.hexdigest() != wanted:
            raise CannotInstall(f"The file {name} is damaged: copy the kit again.")


def environment():
    """The variables for a program of .venv: no settings of this laptop's Python, pip or Jupyter, and no network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "JUPYTER_"))}
    kept.update(PIP_CONFIG_FILE=os.devnull, PYTHONUTF8="1", HF_HUB_OFFLINE="1", JUPYTER_PREFER_ENV_PATH="1")
    return kept


def python_of(kit):
    """The interpreter in .venv."""
    return os.path.join(kit, ".venv", *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))


def run(arguments, kit, doing):
    """Run a command in the kit's folder. Raises CannotInstall with the end of what it said if it fails."""
    done = subprocess.run(arguments, cwd=kit, env=environment(), capture_output=True, check=False)
    if done.returncode:
        end = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()[-5:]
        raise CannotInstall("\n".join([f"{doing} failed; the end of what was said:", *end]))
    return done.stdout.decode("utf-8", "replace")


def why_not_installed(manifest, kit):
    """Why start.py would not work: one sentence, empty if all is installed."""
    if not os.path.lexists(os.path.join(kit, ".venv")):
        return "The kit is not installed yet."
    try:
        with open(os.path.join(kit, ".venv", STAMP), encoding="utf-8") as file:
            stamp = json.load(file)
    except (OSError, ValueError):
        return "The last installation did not come to its end."
    if stamp["kit"] != kit:
        return f"The kit was installed in {stamp['kit']} and is now in {kit}."
    if stamp["sha256"] != manifest["sha256"]:
        return "What is installed is of another kit."
    works = (
        subprocess.call([python_of(kit), "-c", ""], stderr=subprocess.DEVNULL) if os.path.exists(python_of(kit)) else 1
    )
    return "The Python that the kit was installed with is gone." if works else ""


def remove_old(kit):
    """Delete .venv. Raises CannotInstall if something holds it."""
    folder = os.path.join(kit, ".venv")
    try:
        shutil.rmtree(folder) if os.path.isdir(folder) else os.remove(folder)
    except OSError as error:
        raise CannotInstall(
            f"{folder} cannot be deleted ({error.strerror}): "
            "close JupyterLab and whatever else uses it, or delete it yourself."
        ) from None


def install_packages(manifest, kit):
    """Make .venv from the wheels, with sae_lib importable; pip takes a wheel by its hash only."""
    run([sys.executable, "-m", "venv", os.path.join(kit, ".venv")], kit, "Making .venv")
    wanted = os.path.join(kit, ".venv", "requirements.txt")
    with open(wanted, "w", encoding="ascii") as file:
        file.write("\n".join(manifest["pins"]) + "\n")
    pip = [python_of(kit), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    # Python compiles files when they are used; compiling all takes half of an installation, for
    # files that nobody opens.
    pip += ["--no-compile", "--require-hashes", "--find-links", os.path.join(kit, "wheels"), "--requirement", wanted]
    run(pip, kit, "Installing the wheels")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = run([python_of(kit), "-c", where], kit, "Asking for the packages' folder").strip()
    # Relative, so that no letter of the kit's own path can be misread.
    with open(os.path.join(packages, "sae-kit.pth"), "w", encoding="ascii") as file:
        file.write(os.path.relpath(kit, packages) + "\n")


def install(kit):
    """Check this laptop, install, and draw a picture as a proof; prints what happens. Raises CannotInstall."""
    manifest, start = read_manifest(kit), time.time()
    check_python(manifest)
    check_laptop(manifest)
    check_modules()
    check_folder(manifest, kit)
    print(memory_advice(manifest, memory_gb()))
    reason = why_not_installed(manifest, kit)
    if reason:
        print(reason, "Installing takes some minutes.", flush=True)
        if os.path.lexists(os.path.join(kit, ".venv")):
            remove_old(kit)
        check_disk(manifest, kit)
        check_files(manifest, kit)
        install_packages(manifest, kit)
    check = os.path.join(kit, "notebooks", "workshop", "kit", "check.py")
    print(run([python_of(kit), check], kit, "The check of what was installed").strip())
    with open(os.path.join(kit, ".venv", STAMP), "w", encoding="utf-8") as file:
        json.dump({"kit": kit, "sha256": manifest["sha256"]}, file)
    print(
        f"Installed in {time.time() - start:.0f} s. Open the lessons with:  {os.path.basename(sys.executable)} start.py"
    )


def start(kit, arguments):
    """Open JupyterLab at the lessons, for this laptop alone; returns its exit status.

    Raises CannotInstall if nothing is installed.
    """
    reason = why_not_installed(read_manifest(kit), kit)
    if reason:
        raise CannotInstall(reason + " Run install.py, then start.py again.")
    options = ["--ServerApp.root_dir=" + os.path.join(kit, "notebooks"), "--ServerApp.ip=127.0.0.1", "-y"]
    options += [
        "--LabApp.default_url=/lab/tree/workshop",
        "--LabApp.news_url=None",
        "--LabApp.extension_manager=readonly",
    ]
    options += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--ServerApp.log_level=WARN"]
    print("JupyterLab opens in the browser. Leave this window open; Ctrl-C here ends it.", flush=True)
    try:
        return subprocess.call([python_of(kit), "-m", "jupyterlab"] + options + list(arguments), env=environment())
    except KeyboardInterrupt:
        return 0


def status_of(step, *arguments):
    """Run a step; its exit status, which is 1 if the step said why it cannot."""
    try:
        return step(*arguments) or 0
    except CannotInstall as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run install.py again: it begins anew.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(status_of(install, KIT))
