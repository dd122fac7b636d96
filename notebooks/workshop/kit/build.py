"""Build the workshop kit: `python notebooks/workshop/kit/build.py [--platform win_amd64] [--python 3.12]`.

One archive with wheels, models and notebooks that install.py installs on a laptop without the internet. The wheels are
those of requirements.lock that lessons and notebooks need, made for the laptop, whatever machine builds the kit.
"""

import argparse
import email
import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sae_lib.cache.artefact import ROOT, cache_root, write_together

HERE = Path(__file__).resolve().parent
FOLDER = "sae-kit"
"""The archive's one folder; short, because a path may have 259 characters on Windows."""

TRAVELS = (
    "notebooks",
    "sae_lib",
    "figures",
    "README.md",
    "LICENSE",
    "CITATION.cff",
    "pyproject.toml",
    "requirements.lock",
    "requirements-cpu.lock",
)
"""What git tracks here goes into the kit, without the figures' PDFs, which have PNGs beside them."""

ROOTS = {
    "accelerate": "diffusers says so on stderr where it is missing",
    "anywidget": "the widgets of notebook 20",
    "diffusers": "the pocket models' pipelines",
    "filelock": "sae_lib.cache",
    "huggingface-hub": "sae_lib.models silences its progress bars",
    "ipykernel": "what runs a notebook's cells",
    "ipython": "the lessons show their pictures with it",
    "ipywidgets": "the widgets of notebook 20",
    "jaxtyping": "the shapes in sae_lib's signatures",
    "jupyterlab": "what opens the notebooks",
    "lazy-loader": "sae_lib loads a public name when it is first used",
    "matplotlib": "the figures",
    "nbclient": "runs a lesson without a browser, as tests/kit does",
    "nbconvert": "the command of that",
    "numpy": "sae_lib",
    "packaging": "sae_lib compares versions",
    "pandas": "the tables of notebooks 06, 11 and 99",
    "pillow": "the pictures",
    "psutil": "the lessons say how much memory is free",
    "safetensors": "the weights",
    "scipy": "sae_lib.features, the judge, notebook 05",
    "tokenizers": "the pocket FLUX's T5 tokenizer",
    "torch": "everything",
    "tqdm": "progress bars",
    "transformers": "the pocket models' text encoders",
}
"""The packages that lessons and notebooks import or start, and why. With all that they need, they are the kit's
part of requirements.lock."""

PATCHES = {"3.11": "3.11.9", "3.12": "3.12.10"}
"""The last release of each Python for which python.org has installers: wheels are chosen for it."""

LESSON_GB, BROWSER_GB, LEAST_GB = 1.5, 1.0, 2.0
"""Free memory for a lesson and for JupyterLab with a browser; a laptop with less than LEAST_GB
in all holds not both."""


class CannotBuild(Exception):
    """One sentence: what came, what was wanted, what to do."""


class Pin(NamedTuple):
    """A package in the lock."""

    version: str
    marker: Marker | None
    """On which systems it is installed; None for all."""
    hashes: tuple[str, ...]
    """The sha256 of every file of this version."""


@dataclass(frozen=True)
class Laptop:
    """A kind of laptop: how pip names its wheels, and how Python knows it."""

    tags: tuple[str, ...]
    """Platform tags of wheels that run there."""
    system: str
    """platform.system()"""
    sys_platform: str
    """sys.platform"""
    machine: str
    """platform.machine()"""
    version: tuple[int, int]
    """The oldest macOS or glibc that the newest of the tags asks for; (0, 0) on Windows."""

    def markers(self, python: str) -> dict[str, str]:
        """The environment in which a requirement's marker is read, for Python "3.11" or "3.12"."""
        there = {"sys_platform": self.sys_platform, "platform_system": self.system, "platform_machine": self.machine}
        there |= {"os_name": "nt" if self.system == "Windows" else "posix"}
        return default_environment() | there | {"python_version": python, "python_full_version": PATCHES[python]}


LINUX_TAGS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)), "manylinux2014_x86_64")
LAPTOPS = {
    "linux_x86_64": Laptop(LINUX_TAGS, "Linux", "linux", "x86_64", (2, 28)),
    "macosx_14_0_arm64": Laptop(("macosx_14_0_arm64",), "Darwin", "darwin", "arm64", (14, 0)),
    "win_amd64": Laptop(("win_amd64",), "Windows", "win32", "AMD64", (0, 0)),
}


def laptop_like_this() -> str:
    """The key in LAPTOPS of the machine that builds. Raises CannotBuild if no kit can be made for its kind."""
    system, machine = platform.system(), platform.machine()
    for name, laptop in LAPTOPS.items():
        if (laptop.system, laptop.machine) == (system, machine):
            return name
    raise CannotBuild(f"No kit for {system} on {machine}; there are {', '.join(LAPTOPS)}: say KIT_PLATFORM=...")


LOCK, CPU_LOCK = ROOT / "requirements.lock", ROOT / "requirements-cpu.lock"


def read_lock(path: Path = LOCK) -> dict[str, Pin]:
    """The pins of a lock, by canonical name."""
    pins = {}
    for line in path.read_text().replace("\\\n", "").splitlines():
        if line and not line.startswith("#"):
            text, *hashes = line.split("--hash=sha256:")
            asked = Requirement(text)
            (version,) = asked.specifier
            pins[canonicalize_name(asked.name)] = Pin(version.version, asked.marker, tuple(map(str.strip, hashes)))
    return pins


def needed(requirements: Iterable[str], markers: Mapping[str, str], extra: str) -> set[tuple[str, str]]:
    """The requirements that hold for a package asked for with this extra ("" without), as (canonical name, extra)."""
    there = {**markers, "extra": extra}
    holds = [one for one in map(Requirement, requirements) if one.marker is None or one.marker.evaluate(there)]
    return {(canonicalize_name(one.name), part) for one in holds for part in ("", *one.extras)}


def closure(requires: Callable[[str], Iterable[str]], markers: Mapping[str, str]) -> set[str]:
    """Names of the roots and of all that they need; `requires(name)` says what a package asks for."""
    seen, todo = set(), [(name, "") for name in ROOTS]
    while todo:
        name, extra = todo.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            todo += needed(requires(name), markers, extra)
    return {name for name, _ in seen}


def asked_here(name: str) -> list[str]:
    """What an installed package asks for; nothing if it is not installed (`refuse_gaps` asks the wheels later)."""
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def pins_for(markers: Mapping[str, str], lock: Mapping[str, Pin]) -> dict[str, Pin]:
    """The pins of all that the kit needs, torch's as a build without CUDA, which a laptop needs not.

    Raises CannotBuild for a package that requirements.lock does not have.
    """
    names = closure(asked_here, markers)
    if missing := sorted(names - lock.keys()):
        raise CannotBuild(f"The kit needs {', '.join(missing)}, which requirements.lock does not have: add it there.")
    cpu = read_lock(CPU_LOCK).items()
    return {name: lock[name] for name in names} | {name: pin for name, pin in cpu if pin.marker.evaluate(markers)}


def wheels_in(folder: Path) -> dict[tuple[str, str], Path]:
    """The wheels of a folder by canonical name and version."""
    parts = {wheel: wheel.name.split("-") for wheel in sorted(folder.glob("*.whl"))}
    return {(canonicalize_name(name), version): wheel for wheel, (name, version, *_) in parts.items()}


def download(pins: Mapping[str, Pin], laptop: Laptop, python: str, folder: Path) -> list[Path]:
    """The wheels of these pins, which pip puts into `folder` unless an earlier call did.

    Raises CannotBuild if pip cannot get one, or if one is not a file that the lock knows, naming it.
    """
    if not {(name, pin.version) for name, pin in pins.items()} <= wheels_in(folder).keys():
        folder.mkdir(parents=True, exist_ok=True)
        quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        kind = [f"--platform={tag}" for tag in laptop.tags] + [f"--python-version={PATCHES[python]}"]
        # Without the markers, which pip would read for the machine that builds.
        lines = [" ".join([f"{n}=={p.version}", *map("--hash=sha256:{}".format, p.hashes)]) for n, p in pins.items()]
        wanted = folder / "requirements.txt"
        wanted.write_text("\n".join(sorted(lines)) + "\n")
        command = [sys.executable, "-m", "pip", "download", *quiet, *kind, "--dest", folder, "--requirement", wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            missing = re.findall(r"No matching distribution found for (\S+)", done.stderr)
            what = missing[0] if missing else (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            if "+cpu" in what:
                what += ", a build without CUDA: give pip PyTorch's index of CPU builds as well (PIP_EXTRA_INDEX_URL)"
            raise CannotBuild(f"pip cannot get the wheels for {laptop.tags[0]} and Python {python}: {what}")
    there = wheels_in(folder)
    wheels = {name: there[name, pins[name].version] for name in sorted(pins)}
    for name, wheel in wheels.items():
        if sha256(wheel) not in pins[name].hashes:
            raise CannotBuild(f"{wheel} has a hash that requirements.lock does not list: delete it, and build again.")
    return list(wheels.values())


def metadata_of(wheel: Path) -> email.message.Message:
    """What a wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        return email.message_from_bytes(archive.read(names[0]))


def refuse_gaps(wheels: Sequence[Path], markers: Mapping[str, str]) -> None:
    """Raises CannotBuild if the wheels ask for a package that the kit lacks: it would fail on the laptop."""
    asked = {}
    for wheel in wheels:
        about = metadata_of(wheel)
        asked[canonicalize_name(about["Name"])] = about.get_all("Requires-Dist") or []
    missing = sorted(closure(lambda name: asked.get(name, ()), markers) - asked.keys())
    if missing:
        raise CannotBuild(f"The kit's wheels need {', '.join(missing)}: add what is missing to requirements.lock.")


def first_python(wheels: Sequence[Path], python: str) -> list[int]:
    """The oldest release of Python "3.11" that every wheel accepts, as [3, 11, 5]."""
    wishes = SpecifierSet(",".join(filter(None, (metadata_of(wheel)["Requires-Python"] for wheel in wheels))))
    last = int(PATCHES[python].split(".")[2])
    patch = next((patch for patch in range(last) if f"{python}.{patch}" in wishes), last)
    return [*map(int, python.split(".")), patch]


def installed_paths(wheel: Path) -> Iterator[tuple[str, int]]:
    """Where the files of a wheel come to lie on Windows below the kit's folder, and their bytes."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            inside = re.sub(r"^[^/]+\.data/(data|scripts|headers)/", "", member.filename)
            scheme = ".venv/" if inside != member.filename else ".venv/Lib/site-packages/"
            yield scheme + inside, member.file_size


def sha256(path: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tracked_files(root: Path = ROOT) -> list[Path]:
    """The repository's files that travel. Raises CannotBuild outside of a git clone."""
    listed = subprocess.run(["git", "ls-files", "-z", *TRAVELS], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout:
        raise CannotBuild(f"{root} is no git clone, and git says which files belong to the kit: clone the repository.")
    paths = [root / name for name in listed.stdout.split("\0") if name and not name.endswith(".pdf")]
    return [path for path in paths if path.is_file()]


def manifest(wheels: Sequence[Path], files: Sequence[Path], name: str, python: str) -> dict[str, Any]:
    """What install.py must know: for whom the kit is, what must be whole, and what it takes."""
    laptop, paths = LAPTOPS[name], [path for wheel in wheels for path in installed_paths(wheel)]
    hashes = {f"wheels/{wheel.name}": sha256(wheel) for wheel in wheels}
    hashes |= {path.relative_to(ROOT).as_posix(): sha256(path) for path in files if path.suffix == ".safetensors"}
    kind = {"platform": name, "system": laptop.system, "machine": laptop.machine, "system_version": laptop.version}
    # A fifth more: what Python compiles at the first import, and what the lessons compute and keep.
    takes = {
        "disk_gb": round(sum(size for _, size in paths) * 1.2 / 1e9, 1),
        "longest_path": max(len(p) for p, _ in paths),
    }
    memory = {"lesson_gb": LESSON_GB, "browser_gb": BROWSER_GB, "least_gb": LEAST_GB}
    named = [(metadata_of(wheel), hashes[f"wheels/{wheel.name}"]) for wheel in wheels]
    pins = sorted(f"{of['Name']}=={of['Version']} --hash=sha256:{digest}" for of, digest in named)
    return {**kind, "python": first_python(wheels, python), **takes, **memory, "pins": pins, "sha256": hashes}


def write_archive(target: Path, wheels: Sequence[Path], files: Sequence[Path], about: Mapping[str, Any]) -> None:
    """The kit as one zip, whole or not at all, the same bytes for the same content, and beside it what checks it."""
    digest = f"{target.name}.sha256"
    members = {path.relative_to(ROOT).as_posix(): path for path in files}
    members |= {name: HERE / name for name in ("install.py", "start.py", "START.md")}
    members |= {f"wheels/{wheel.name}": wheel for wheel in wheels}

    def write(unfinished: Path) -> None:
        with zipfile.ZipFile(unfinished / target.name, "w") as archive:
            for name, path in sorted(members.items()):
                member = zipfile.ZipInfo(f"{FOLDER}/{name}")
                member.external_attr = 0o644 << 16
                member.compress_type = zipfile.ZIP_STORED if path.suffix == ".whl" else zipfile.ZIP_DEFLATED
                member.file_size = path.stat().st_size
                with path.open("rb") as source, archive.open(member, "w") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
            archive.writestr(zipfile.ZipInfo(f"{FOLDER}/kit.json"), json.dumps(about, indent=1) + "\n")
        (unfinished / digest).write_text(f"{sha256(unfinished / target.name)}  {target.name}\n", newline="\n")
        shutil.copyfile(HERE / "unpack.py", unfinished / "unpack.py")

    write_together(target.parent, digest, write, replace=True)  # never an old sum beside a new archive


def archive_path(name: str, python: str) -> Path:
    """The path of the kit for a kind of laptop."""
    return cache_root() / "kit" / f"sae-workshop-kit-{name}-py{python.replace('.', '')}.zip"


def build(name: str, python: str) -> Path:
    """Make the kit for a kind of laptop; returns its path. Raises CannotBuild."""
    laptop, target = LAPTOPS[name], archive_path(name, python)
    markers, files = laptop.markers(python), tracked_files()
    wheels = download(pins_for(markers, read_lock()), laptop, python, target.with_suffix(".wheels"))
    refuse_gaps(wheels, markers)
    about = manifest(wheels, files, name, python)
    write_archive(target, wheels, files, about)
    oldest = ".".join(map(str, about["python"]))
    print(
        f"{target}: {target.stat().st_size / 1e6:.0f} MB, {len(wheels)} wheels, for {name} and Python {oldest} or newer"
    )
    print(f"of {python}; installed it takes {about['disk_gb']} GB.", end=" ")
    print("Copy it with the .sha256 and unpack.py beside it: `python unpack.py` checks and unpacks it.")
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if the kit cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", choices=LAPTOPS, help="the laptops' kind; this machine's if not given")
    parser.add_argument(
        "--python", choices=PATCHES, default="{}.{}".format(*sys.version_info), help="the laptops' Python"
    )
    options = parser.parse_args(arguments)
    try:
        build(options.platform or laptop_like_this(), options.python)
    except CannotBuild as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
