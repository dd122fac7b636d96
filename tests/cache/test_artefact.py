"""The artefact cache: found again by what went in, made by one process at a time, never half-made."""

import errno
import json
import multiprocessing
import threading
import time

import pytest
import torch

from sae_lib.cache import artefact


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    for name in ("made", "waited", "reused"):
        monkeypatch.setattr(artefact, name, [])


def write_number(folder):
    (folder / "number.txt").write_text("7")


def first_row():
    return {"row": torch.eye(2).T[:1]}


def second_row():
    return {"row": torch.eye(2).T[1:]}


def kept(tmp_path):
    """Names in the folder of artefacts, those of unfinished ones with a dot before them."""
    return sorted(path.name for path in (tmp_path / "artefacts").iterdir())


def test_the_second_call_finds_what_the_first_made():
    folder = artefact.cached("number", {"seed": 0}, write_number)
    assert artefact.cached("number", {"seed": 0}, write_number) == folder
    assert (folder / "number.txt").read_text() == "7" and (folder / "inputs.json").is_file()
    assert (artefact.made, artefact.waited, artefact.reused) == ([folder.name], [], [folder.name])


def test_tensors_are_kept_by_name_and_another_maker_of_theirs_gives_another_artefact():
    folders = []
    for make, wanted in ((first_row, [[1, 0]]), (second_row, [[0, 1]])):
        folder, tensors = artefact.cached_tensors("row", {}, make)
        assert tensors["row"].tolist() == wanted
        folders.append(folder.name)
    assert artefact.made == folders and len(set(folders)) == 2


def test_the_order_of_the_inputs_does_not_matter():
    folder = artefact.cached("number", {"a": 1, "b": 2}, write_number)
    assert artefact.cached("number", {"b": 2, "a": 1}, write_number) == folder and len(artefact.made) == 1


def test_another_input_name_or_maker_gives_another_artefact():
    folders = {artefact.cached("number", {"seed": seed}, write_number) for seed in (0, 1)}
    folders.add(artefact.cached("other", {"seed": 0}, write_number))
    folders.add(artefact.cached("number", {"seed": 0}, lambda folder: write_number(folder)))
    assert len(folders) == 4


@pytest.mark.parametrize("changed", [{"code": "other"}, {"weights": ("other",)}])
def test_other_code_weights_or_versions_give_another_artefact(monkeypatch, changed):
    folder, follow = artefact.cached("number", {}, write_number), artefact.reach.follow
    monkeypatch.setattr(artefact.reach, "follow", lambda make, clone: follow(make, clone)._replace(**changed))
    assert artefact.cached("number", {}, write_number) != folder


def test_another_version_of_torch_gives_another_artefact(monkeypatch):
    folder = artefact.cached("number", {}, write_number)
    monkeypatch.setattr(artefact, "_versions", lambda: {"torch": "0.1"})
    assert artefact.cached("number", {}, write_number) != folder
    assert set(json.loads((folder / "inputs.json").read_text())["versions"]) == set(artefact.COMPUTES)


def test_a_make_that_raises_leaves_nothing(tmp_path):
    def fail(folder):
        write_number(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artefact.cached("number", {}, fail)
    assert not [name for name in kept(tmp_path) if not name.endswith(".lock")] and artefact.made == []


@pytest.mark.parametrize("resumable", [True, False])
def test_what_a_killed_make_left_is_handed_to_a_resumable_one_and_thrown_away_otherwise(tmp_path, resumable):
    died = []

    def make(folder):
        died.append((folder / "number.txt").is_file())
        write_number(folder)
        if len(died) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artefact.cached("number", {}, make, resumable=True)
    assert all(name.startswith(".unfinished-number-") for name in kept(tmp_path))
    folder = artefact.cached("number", {}, make, resumable=resumable)
    assert died == [False, resumable] and kept(tmp_path) == [folder.name]


def slow(folder):
    with (folder.parent.parent / "makes").open("a") as file:
        file.write("made\n")
    for _ in range(200):
        if (folder.parent.parent / "second").exists():
            break
        time.sleep(0.05)
    time.sleep(0.5)
    write_number(folder)


def ask(answers, second):
    root = artefact.cache_root()
    while second and not (root / "makes").exists():
        time.sleep(0.02)
    (root / ("second" if second else "first")).touch()
    folder = artefact.cached("number", {}, slow)
    answers.put(((folder / "number.txt").read_text(), len(artefact.made), len(artefact.waited), len(artefact.reused)))


def test_of_two_processes_one_makes_the_artefact_and_the_other_waits(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [spawn.Process(target=ask, args=(answers, second)) for second in (False, True)]
    for process in processes:
        process.start()
    numbers = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert numbers == [("7", 0, 1, 0), ("7", 1, 0, 0)]
    assert (tmp_path / "makes").read_text() == "made\n" and len(kept(tmp_path)) == 1


def test_a_thread_waits_for_another_that_makes_the_artefact(tmp_path):
    (tmp_path / "second").touch()
    threads = [threading.Thread(target=artefact.cached, args=("number", {}, slow)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "makes").read_text() == "made\n" and (len(artefact.made), len(artefact.waited)) == (1, 1)


def test_a_make_may_ask_for_another_artefact_and_not_for_its_own():
    def outer(folder):
        artefact.cached("inner", {}, write_number)

    assert artefact.cached("outer", {}, outer).is_dir() and len(artefact.made) == 2

    def itself(folder):
        artefact.cached("itself", {}, itself)

    with pytest.raises(RuntimeError, match="itself-[0-9a-f]{12} is asked for by its own maker"):
        artefact.cached("itself", {}, itself)


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_a_damaged_artefact_is_refused(content):
    file = artefact.cached("number", {}, write_number) / "inputs.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    state = "is missing" if content is None else "is another"
    with pytest.raises(ValueError, match=rf"number-.* is half-made or of another version .*{state}.*`make fresh`"):
        artefact.cached("number", {}, write_number)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
@pytest.mark.parametrize("resumable", [True, False])
def test_a_full_disk_gets_one_clear_sentence_and_leaves_nothing_half_made(tmp_path, error, resumable):
    def make(folder):
        write_number(folder)
        raise error

    with pytest.raises(OSError, match="the disk is full, number-.* MiB are free in .*SAE_LIB_CACHE") as caught:
        artefact.cached("number", {}, make, resumable)
    assert caught.value.errno == errno.ENOSPC
    left = [name for name in kept(tmp_path) if not name.endswith(".lock")]
    assert len(left) == resumable and all(name.startswith(".unfinished-") for name in left)


def test_a_disk_that_is_full_for_the_last_file_leaves_no_artefact(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    def make(folder):
        monkeypatch.setattr(artefact.Path, "write_text", full)

    with pytest.raises(OSError, match="the disk is full"):
        artefact.cached("number", {}, make)
    assert [name for name in kept(tmp_path) if not name.endswith(".lock")] == []


@pytest.mark.parametrize("name", ["", "With Capitals", "../elsewhere", "a/b"])
def test_a_name_that_is_no_plain_name_is_refused(name):
    with pytest.raises(ValueError, match="artefact name"):
        artefact.cached(name, {}, write_number)


def test_inputs_without_an_exact_json_form_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        artefact.cached("number", {"lr": float("nan")}, write_number)
    with pytest.raises(TypeError, match="not JSON serializable"):
        artefact.cached("number", {"path": object()}, write_number)


def test_a_cache_that_cannot_be_written_gets_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(artefact.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no artefact can be kept in .*it may not be written.*SAE_LIB_CACHE"):
        artefact.cached("number", {}, write_number)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(PermissionError, match="Not a directory"):
        artefact.cached("number", {}, write_number)


def test_a_file_is_written_only_if_its_content_differs(tmp_path):
    path = tmp_path / "folder" / "file"
    assert [artefact.write_if_changed(path, content) for content in (b"1", b"1", b"2")] == [True, False, True]
    assert path.read_bytes() == b"2" and list(path.parent.iterdir()) == [path]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("of value")
    with pytest.raises(IsADirectoryError, match="folder is a folder, wanted the name of a file"):
        artefact.write_if_changed(tmp_path / "folder", b"{}")
    assert (tmp_path / "folder" / "kept").read_text() == "of value"


def test_the_cache_is_in_the_clone_unless_the_variable_names_another(tmp_path, monkeypatch):
    assert artefact.cache_root() == tmp_path
    monkeypatch.delenv("SAE_LIB_CACHE")
    assert artefact.cache_root() == artefact.ROOT / ".cache"
