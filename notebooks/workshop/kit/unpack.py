"""Check the workshop kit's archive and unpack it beside itself: `python unpack.py`, then read sae-kit/START.md.

It lies beside the archive and its .sha256. Nothing is unpacked of an archive that is damaged or that reaches
out of its folder.
"""

# The standard library only, and no syntax that a Python which is too old would not read, as in install.py.
import hashlib
import os
import shutil
import sys
import zipfile

FOLDER = "sae-kit"
"""The archive's one folder."""


class CannotUnpack(Exception):
    """One sentence: what came, what was wanted, what to do."""


def find_archive(place):
    """The path of the only kit in a folder. Raises CannotUnpack if there is none, or more than one."""
    kits = sorted(name for name in os.listdir(place) if name.startswith("sae-workshop-kit-") and name.endswith(".zip"))
    if len(kits) != 1:
        raise CannotUnpack(
            "{} has {} (sae-workshop-kit-....zip): put one kit, its .sha256 and unpack.py into a folder of their "
            "own.".format(place, "the kits " + ", ".join(kits) if kits else "no kit")
        )
    return os.path.join(place, kits[0])


def check_archive(path):
    """Raises CannotUnpack unless the archive's sha256 is the one that lies beside it."""
    try:
        with open(path + ".sha256", encoding="ascii") as file:
            wanted = file.read().split()[:1]
    except (OSError, ValueError):
        raise CannotUnpack(
            f"The file {path}.sha256 is missing or damaged: copy it from where the kit came from."
        ) from None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    if [digest.hexdigest()] != wanted:
        raise CannotUnpack(f"The archive {path} is not the one that its .sha256 names: copy both again.")


def check_members(archive):
    """Raises CannotUnpack for a member that would lie outside of FOLDER, or that is a link."""
    for member in archive.infolist():
        parts = member.filename.replace("\\", "/").split("/")
        link = (member.external_attr >> 16) & 0o170000 == 0o120000
        if parts[0] != FOLDER or len(parts) < 2 or ".." in parts or ":" in member.filename or link:
            raise CannotUnpack(
                f"The archive has {member.filename!r}, and a kit has only files in {FOLDER}: ask for another copy."
            )


def unpack(place):
    """Unpack the kit that lies in a folder there, whole or not at all; the new folder. Raises CannotUnpack."""
    path, target = find_archive(place), os.path.join(place, FOLDER)
    if os.path.lexists(target):
        raise CannotUnpack(f"{target} is there already: delete it, or go on with its START.md.")
    check_archive(path)
    unfinished = target + ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive)
            archive.extractall(unfinished)
        os.rename(os.path.join(unfinished, FOLDER), target)
    except (OSError, zipfile.BadZipFile) as error:
        raise CannotUnpack(f"The kit cannot be unpacked in {place}: {error}.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def main(place):
    """Unpack, and say where; 1 if that cannot be."""
    try:
        print(f"Unpacked and whole: {unpack(place)}. Go on with START.md there.")
    except CannotUnpack as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.path.dirname(os.path.abspath(__file__))))
