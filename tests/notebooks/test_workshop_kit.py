"""The workshop kit's builder, and what install.py says of a laptop on which it cannot work; tests/kit
installs it for real."""

import ast
import builtins
import importlib.metadata
import json
import re
import sys
import types
import zipfile

import pytest

from notebooks.workshop.kit import build, install, unpack

LOCK = build.read_lock()
KIND = {"system": "Linux", "machine": "x86_64", "system_version": [2, 28], "python": [3, 11, 5], "longest_path": 191}
TAKES = {"disk_gb": 1.6, "lesson_gb": 1.5, "browser_gb": 1.0, "least_gb": 2.0}
MANIFEST = KIND | TAKES | {"sha256": {}, "pins": []}


def refusal(step, *arguments, **named):
    with pytest.raises(install.CannotInstall) as error:
        step(*arguments, **named)
    return str(error.value)


@pytest.fixture
def kit(tmp_path):
    """A kit's folder with one model in it; and its manifest."""
    (tmp_path / "model").write_bytes(b"weights")
    manifest = MANIFEST | {"sha256": {"model": build.sha256(tmp_path / "model")}}
    (tmp_path / "kit.json").write_text(json.dumps(manifest))
    return str(tmp_path), manifest


@pytest.mark.parametrize(
    ("version", "implementation", "bits"),
    [((3, 10, 9), "CPython", 64), ((3, 12, 1), "CPython", 64), ((3, 11, 4), "CPython", 64)]
    + [((3, 11, 9), "PyPy", 64), ((3, 11, 9), "CPython", 32)],
)
def test_another_python_is_refused(version, implementation, bits):
    said = refusal(install.check_python, MANIFEST, version, implementation, bits)
    assert said.startswith(f"This is {implementation} {install.dotted(version)} of {bits} bits")
    assert "the kit is for 64-bit CPython 3.11, from 3.11.5 on: install that" in said


@pytest.mark.parametrize("name", ["install.py", "unpack.py"])
def test_install_and_unpack_read_on_an_old_python_so_that_it_can_be_said_that_it_is_old(name):
    ast.parse((build.HERE / name).read_text(), feature_version=(3, 7))


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Darwin", "x86_64"), ("Linux", "aarch64")])
def test_another_laptop_is_refused(system, machine):
    said = refusal(install.check_laptop, MANIFEST, system, machine)
    kit = "the kit is for Linux (x86_64): ask for the kit of your laptop."
    assert said == f"This Python runs on {system} ({machine}), and {kit}"


def test_an_old_system_is_refused_and_an_unknown_one_is_tried():
    said = refusal(install.check_laptop, MANIFEST, "Linux", "x86_64", (2, 17))
    assert "This laptop has glibc 2.17, and the kit needs 2.28 or newer" in said
    assert install.system_version("Plan 9") is None


def test_a_python_without_ensurepip_is_refused(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name == "ensurepip":
            raise ImportError("No module named 'ensurepip'", name=name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "cannot make virtual environments (ensurepip is missing): on Debian or Ubuntu" in refusal(
        install.check_modules
    )


def test_a_folder_that_cannot_be_written_is_refused(kit, tmp_path):
    (tmp_path / ".can-be-written").mkdir()  # as root no permission binds
    assert f"The folder {kit[0]} cannot be written (Is a directory): copy" in refusal(
        install.check_folder, MANIFEST, kit[0]
    )


def test_a_folder_too_deep_for_windows_is_refused():
    deep = MANIFEST | {"longest_path": 259}
    install.check_folder(deep, "/tmp", "Linux")
    assert "a path has 264 characters, and Windows takes 259" in refusal(install.check_folder, deep, "/tmp", "Windows")


def test_a_full_disk_is_refused(kit):
    install.check_disk(MANIFEST, kit[0], free=1.6)
    assert "has 1.5 GB free, and the kit needs 1.6 GB: delete something" in refusal(
        install.check_disk, MANIFEST, kit[0], 1.5
    )


def test_a_laptop_with_little_memory_is_advised_and_one_with_too_little_refused():
    said = install.memory_advice(MANIFEST, (4.1, 1.9))
    assert said.startswith(
        "Memory: 4.1 GB, of which 1.9 GB are free; a lesson with its browser needs 2.5 GB. Close other programs"
    )
    assert "Close" not in install.memory_advice(MANIFEST, (8.0, 5.0))
    assert install.memory_advice(MANIFEST, None) == ""
    assert "Memory: 1.9 GB" in refusal(install.memory_advice, MANIFEST, (1.9, 1.0))


def test_memory_is_asked_of_each_system_and_unknown_where_that_fails(monkeypatch):
    total, free = install.memory_gb()
    assert 0 < free <= total < 10_000
    said = {"sysctl": b"8589934592\n", "vm_stat": b"Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"}
    said["vm_stat"] += b"Pages free: 100.\nPages inactive: 200.\nPages speculative: 300.\n"
    monkeypatch.setattr(install.subprocess, "check_output", lambda command: said[command[0]])
    assert install._memory_macos() == (8_589_934_592, 600 * 16_384)
    monkeypatch.setattr(install.platform, "system", lambda: "Windows")
    assert install.memory_gb() is None


@pytest.mark.parametrize(("content", "word"), [(b"weightz", "damaged"), (None, "missing")])
def test_a_damaged_or_missing_file_is_named(kit, tmp_path, content, word):
    install.check_files(kit[1], kit[0])
    (tmp_path / "model").unlink()
    if content:
        (tmp_path / "model").write_bytes(content)
    assert refusal(install.check_files, kit[1], kit[0]) == f"The file model is {word}: copy the kit again."


def test_a_kit_that_is_not_unpacked_or_not_whole_says_so(kit, tmp_path):
    (tmp_path / "kit.json").write_text("{")
    assert refusal(install.read_manifest, kit[0]) == "The file kit.json is damaged: copy the kit again."
    (tmp_path / "kit.json").unlink()
    assert "kit.json is not beside install.py" in refusal(install.read_manifest, kit[0])


def test_only_a_finished_installation_of_this_kit_in_this_place_counts(kit, tmp_path):
    folder, manifest = kit
    stamp, python = tmp_path / ".venv" / install.STAMP, tmp_path / ".venv" / "bin" / "python"
    assert install.why_not_installed(manifest, folder) == "The kit is not installed yet."
    python.parent.mkdir(parents=True)
    assert install.why_not_installed(manifest, folder) == "The last installation did not come to its end."
    stamp.write_text(json.dumps({"kit": folder, "sha256": manifest["sha256"]}))
    assert install.why_not_installed(manifest, folder) == "The Python that the kit was installed with is gone."
    python.symlink_to(sys.executable)
    assert install.why_not_installed(manifest, folder) == ""
    assert install.why_not_installed(manifest | {"sha256": {}}, folder) == "What is installed is of another kit."
    stamp.write_text(json.dumps({"kit": "/elsewhere", "sha256": manifest["sha256"]}))
    assert install.why_not_installed(manifest, folder) == f"The kit was installed in /elsewhere and is now in {folder}."


def test_start_asks_for_an_installation_first(kit):
    assert refusal(install.start, kit[0], []) == "The kit is not installed yet. Run install.py, then start.py again."


def test_a_venv_that_is_held_is_named_and_any_other_removed(kit, tmp_path, monkeypatch):
    (tmp_path / ".venv").write_text("a file where the folder should be")
    install.remove_old(kit[0])
    assert not (tmp_path / ".venv").exists()
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(install.shutil, "rmtree", lambda folder: (_ for _ in ()).throw(PermissionError(13, "in use")))
    assert ".venv cannot be deleted (in use): close JupyterLab" in refusal(install.remove_old, kit[0])


def test_a_step_that_fails_says_what_and_shows_the_end_of_what_was_said(kit):
    said = refusal(install.run, [sys.executable, "-c", "print(1); raise SystemExit('no wheel')"], kit[0], "Installing")
    assert said == "Installing failed; the end of what was said:\n1\nno wheel"


def test_refusals_are_one_sentence_on_stderr_and_an_exit_status(kit, capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert (
        install.status_of(install.start, kit[0], []) == 1
        and install.status_of(interrupted) == 130
        and install.status_of(bool) == 0
    )
    assert capsys.readouterr().err.startswith(
        "The kit is not installed yet. Run install.py, then start.py again.\nStopped."
    )


def test_settings_of_the_laptop_do_not_reach_the_kit(monkeypatch):
    for name in ("PIP_INDEX_URL", "PYTHONPATH", "JUPYTER_PATH"):
        monkeypatch.setenv(name, "x")
    told = install.environment()
    assert "x" not in told.values() and told["PIP_CONFIG_FILE"] and told["PYTHONUTF8"] == "1" and "PATH" in told


@pytest.mark.parametrize("name", build.ROOTS)
def test_every_root_is_in_the_lock(name):
    assert name in LOCK


def test_all_that_the_library_and_the_notebooks_import_is_a_root():
    paths = [path for path in build.tracked_files() if path.suffix == ".py" and not {"kit", "book"} & {*path.parts}]
    imported = {word for path in paths for word in imports_of(path)}
    packages = importlib.metadata.packages_distributions()
    names = {build.canonicalize_name(packages[word][0]) for word in imported & packages.keys()}
    assert (
        names - build.ROOTS.keys()
        <= {
            "datasets",
            "jinja2",
            "jupyter-client",
            "jupyter-core",
            "jupyter-server",
            "jupytext",
            "nbformat",
            "papermill",
            "pyarrow",
            "pyyaml",
            "rich",
            "sae-lib",
            "traitlets",
            "voila",
        }
        | SDXL_ONLY
    )


SDXL_ONLY = {"torchmetrics", "torchvision"}


def imports_of(path):
    """First words of what a module imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    words = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    words += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {word.split(".")[0] for word in words}


@pytest.mark.parametrize("python", build.PATCHES)
@pytest.mark.parametrize("name", build.LAPTOPS)
def test_a_kit_has_the_locks_versions_and_no_tools_of_development(name, python):
    pins = build.pins_for(build.LAPTOPS[name].markers(python), LOCK)
    torch = "2.13.0+cpu" if name == "linux_x86_64" else "2.13.0"
    assert pins.pop("torch").version == torch == torch.replace("2.13.0", LOCK["torch"].version)
    assert pins.items() <= LOCK.items()
    only_there = {"linux_x86_64": set(), "win_amd64": {"colorama", "pywinpty"}, "macosx_14_0_arm64": {"appnope"}}
    assert {key for key, pin in pins.items() if pin.marker} == only_there[name]
    assert not {"pytest", "hypothesis", "ruff", "voila", "nbval", "papermill", "datasets"} & pins.keys()
    assert "tinycss2" in pins  # nbconvert asks for bleach[css]


def test_a_package_that_the_lock_lacks_is_named():
    lock = {name: pin for name, pin in LOCK.items() if name != "torch"}
    with pytest.raises(build.CannotBuild, match="The kit needs torch, which requirements.lock does not have"):
        build.pins_for(build.LAPTOPS["linux_x86_64"].markers("3.11"), lock)


def wheel(folder, name, *lines):
    """A wheel that says of itself these lines."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join([f"Name: {name}", "Version: 1.0", *lines]) + "\n")
        archive.writestr(f"{name}-1.0.data/data/share/file", "four")
    return path


def test_wheels_that_ask_for_more_than_the_kit_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOTS", {"torch": "everything"})
    wheels = [wheel(tmp_path, "torch", 'Requires-Dist: colorama; os_name == "nt"')]
    with pytest.raises(build.CannotBuild, match="need colorama"):
        build.refuse_gaps(wheels, build.LAPTOPS["win_amd64"].markers("3.11"))


def test_the_oldest_python_that_all_wheels_take_is_found(tmp_path):
    wheels = [wheel(tmp_path, "one", "Requires-Python: >=3.9"), wheel(tmp_path, "two", "Requires-Python: >=3.11.5")]
    assert build.first_python(wheels, "3.11") == [3, 11, 5]
    assert build.first_python(wheels, "3.12") == [3, 12, 0]


def test_paths_are_as_long_as_they_will_be_on_windows(tmp_path):
    paths = dict(build.installed_paths(wheel(tmp_path, "one")))
    assert paths[".venv/share/file"] == 4 and ".venv/Lib/site-packages/one-1.0.dist-info/METADATA" in paths


@pytest.mark.parametrize(("version", "more"), [("2.13.0", "$"), (r"2.13.0+cpu", ".*PyTorch's index of CPU builds")])
def test_what_pip_cannot_get_is_named(tmp_path, monkeypatch, version, more):
    told = types.SimpleNamespace(returncode=1, stderr=f"ERROR: No matching distribution found for torch=={version}\n")
    monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: told)
    said = f"the wheels for win_amd64 and Python 3.12: torch=={re.escape(version)}{more}"
    with pytest.raises(build.CannotBuild, match=said):
        build.download({"torch": LOCK["torch"]}, build.LAPTOPS["win_amd64"], "3.12", tmp_path)


def test_wheels_that_are_there_are_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(build.subprocess, "run", None)
    there = wheel(tmp_path, "torch")
    wheel(tmp_path, "left_over")
    pins = {"torch": build.Pin("1.0", None, (build.sha256(there),))}
    assert build.download(pins, build.LAPTOPS["win_amd64"], "3.12", tmp_path) == [there]


def test_a_wheel_whose_hash_the_lock_does_not_list_is_refused_also_if_another_packages_is_the_same(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(build.subprocess, "run", None)
    there, other = wheel(tmp_path, "torch"), wheel(tmp_path, "numpy")
    hashes = build.sha256(other), build.sha256(there)
    pins = {"torch": build.Pin("1.0", None, ("0" * 64,)), "numpy": build.Pin("1.0", None, hashes)}
    with pytest.raises(build.CannotBuild, match=f"{there.name} has a hash that requirements.lock does not list"):
        build.download(pins, build.LAPTOPS["win_amd64"], "3.12", tmp_path)


def test_pip_is_asked_for_the_locks_files_only_and_for_all_of_the_laptops_kind(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        build.subprocess, "run", lambda command, **_: asked.append(command) or types.SimpleNamespace(returncode=0)
    )
    with pytest.raises(KeyError):  # nothing was fetched
        build.download({"colorama": LOCK["colorama"]}, build.LAPTOPS["win_amd64"], "3.12", tmp_path)
    assert "--require-hashes" in asked[0] and asked[0][-1] == tmp_path / "requirements.txt"
    line = (tmp_path / "requirements.txt").read_text()
    assert line.startswith("colorama==0.4.6 --hash=sha256:") and ";" not in line


def test_pip_installs_a_wheel_of_the_kit_by_its_hash_only(tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    (tmp_path / ".venv").mkdir()
    torch, ran = wheel(tmp_path / "wheels", "torch"), []
    (pin,) = build.manifest([torch], [], "linux_x86_64", "3.11")["pins"]
    assert pin == f"torch==1.0 --hash=sha256:{build.sha256(torch)}"
    monkeypatch.setattr(install, "run", lambda words, *_: ran.append(words) or str(tmp_path))
    install.install_packages({"pins": [pin]}, str(tmp_path))
    assert (tmp_path / ".venv" / "requirements.txt").read_text() == pin + "\n"
    assert {"--require-hashes", "--no-index", "--no-deps"} <= set(ran[1])


@pytest.fixture
def packed(tmp_path):
    """A folder with an archive of one file, its sum and nothing else; a function that packs another member."""

    def pack(name="sae-kit/START.md", content="Begin here.", attributes=0o100644):
        with zipfile.ZipFile(tmp_path / "sae-workshop-kit-x.zip", "w") as archive:
            member = zipfile.ZipInfo(name)
            member.external_attr = attributes << 16
            archive.writestr(member, content)
        digest = build.sha256(tmp_path / "sae-workshop-kit-x.zip")
        (tmp_path / "sae-workshop-kit-x.zip.sha256").write_text(f"{digest}  sae-workshop-kit-x.zip\n")
        return tmp_path

    return pack


def test_a_whole_archive_is_unpacked_once(packed, capsys):
    place = packed()
    assert unpack.main(str(place)) == 0 and (place / "sae-kit" / "START.md").read_text() == "Begin here."
    assert unpack.main(str(place)) == 1
    assert "sae-kit is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "attributes"),
    [(name, 0o100644) for name in ("../evil", "sae-kit/../../evil", "/evil", "C:/evil", "other/file", "sae-kit\\..\\x")]
    + [("sae-kit/link", 0o120777)],
)
def test_an_archive_with_a_member_outside_of_its_folder_or_a_link_is_not_unpacked(packed, capsys, name, attributes):
    place = packed(name, "/etc/passwd", attributes)
    assert unpack.main(str(place)) == 1
    assert "and a kit has only files in sae-kit" in capsys.readouterr().err
    assert sorted(path.name for path in place.iterdir()) == ["sae-workshop-kit-x.zip", "sae-workshop-kit-x.zip.sha256"]


def test_an_archive_that_is_damaged_or_has_no_sum_is_not_opened(packed, capsys, monkeypatch):
    place = packed()
    monkeypatch.setattr(unpack.zipfile, "ZipFile", None)
    with (place / "sae-workshop-kit-x.zip").open("r+b") as file:
        file.write(b"x")
    assert unpack.main(str(place)) == 1 and "is not the one that its .sha256 names" in capsys.readouterr().err
    (place / "sae-workshop-kit-x.zip.sha256").unlink()
    assert unpack.main(str(place)) == 1 and ".sha256 is missing or damaged" in capsys.readouterr().err


def test_a_folder_with_no_kit_or_two_is_refused(packed, capsys):
    place = packed()
    (place / "sae-workshop-kit-y.zip").touch()
    assert unpack.main(str(place)) == 1
    assert "has the kits sae-workshop-kit-x.zip, sae-workshop-kit-y.zip" in capsys.readouterr().err
    assert unpack.main(str(place / "..")) == 1 and "has no kit" in capsys.readouterr().err


def test_a_full_disk_while_unpacking_leaves_nothing(packed, monkeypatch, capsys):
    place = packed()

    def full(archive, folder):
        (place / "sae-kit.unfinished").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpack.zipfile.ZipFile, "extractall", full)
    assert unpack.main(str(place)) == 1 and "No space left on device" in capsys.readouterr().err
    assert not list(place.glob("sae-kit*"))


def test_an_archive_is_the_same_bytes_again_and_nothing_half_written_stays(tmp_path, monkeypatch):
    wheels, target = [wheel(tmp_path, "torch")], tmp_path / "kit.zip"
    build.write_archive(target, wheels, [build.ROOT / "LICENSE"], MANIFEST)
    first, digest = target.read_bytes(), (tmp_path / "kit.zip.sha256").read_text()
    build.write_archive(target, wheels, [build.ROOT / "LICENSE"], MANIFEST)
    assert target.read_bytes() == first and digest == f"{build.sha256(target)}  kit.zip\n"
    assert (tmp_path / "unpack.py").read_bytes() == (build.HERE / "unpack.py").read_bytes()
    monkeypatch.setattr(build.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="the disk is full, kit.zip.* could not be made"):
        build.write_archive(target, wheels, [build.ROOT / "LICENSE"], MANIFEST)
    assert target.read_bytes() == first and not list(tmp_path.glob(".kit*"))


def test_what_travels_is_what_git_tracks_but_for_the_pdfs(tmp_path):
    names = {path.relative_to(build.ROOT).as_posix() for path in build.tracked_files()}
    assert {
        "sae_lib/cache/artefact.py",
        "notebooks/01_model_and_blocks.ipynb",
        "notebooks/workshop/pages/slides.html",
        "notebooks/workshop/pages/handout.html",
        "figures/index.json",
        "LICENSE",
    } <= names
    assert not any(name.endswith((".pdf", ".pyc")) or name.startswith((".", "tests")) for name in names)
    with pytest.raises(build.CannotBuild, match="is no git clone"):
        build.tracked_files(tmp_path)


def test_a_machine_of_no_known_kind_is_refused(monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    with pytest.raises(build.CannotBuild, match="on riscv64; there are linux_x86_64, macosx_14_0_arm64, win_amd64"):
        build.laptop_like_this()


def test_the_builder_ends_with_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(build, "tracked_files", lambda: (_ for _ in ()).throw(build.CannotBuild("One sentence.")))
    assert build.main(["--platform", "win_amd64"]) == 1
    assert capsys.readouterr().err == "One sentence.\n"
