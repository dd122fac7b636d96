"""The artefact cache: found again by its inputs, never half-made."""

import pytest

from sae_lib import store


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))


def write_number(folder):
    (folder / "number.txt").write_text("7")


def must_not_be_called(folder):
    pytest.fail("made again although it was there")


def test_the_second_call_finds_what_the_first_made():
    folder = store.cached("number", {"seed": 0}, write_number)
    assert store.cached("number", {"seed": 0}, must_not_be_called) == folder
    assert (folder / "number.txt").read_text() == "7" and (folder / "inputs.json").is_file()


def test_the_order_of_the_inputs_does_not_matter():
    folder = store.cached("number", {"a": 1, "b": 2}, write_number)
    assert store.cached("number", {"b": 2, "a": 1}, must_not_be_called) == folder


def test_another_input_name_or_library_gives_another_artefact(monkeypatch):
    folders = {store.cached("number", {"seed": seed}, write_number) for seed in (0, 1)}
    folders.add(store.cached("other", {"seed": 0}, write_number))
    monkeypatch.setattr(store, "library_fingerprint", lambda: "another library")
    folders.add(store.cached("number", {"seed": 0}, write_number))
    assert len(folders) == 4


def test_a_make_that_raises_leaves_nothing(tmp_path):
    def fail(folder):
        write_number(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.cached("number", {}, fail)
    assert list((tmp_path / "artefacts").iterdir()) == []


def test_a_resumable_make_that_dies_is_handed_what_it_left(tmp_path):
    def die(folder):
        write_number(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.cached("number", {}, die, resumable=True)
    assert not [path for path in (tmp_path / "artefacts").iterdir() if not path.name.startswith(".")]

    def go_on(folder):
        assert (folder / "number.txt").read_text() == "7"

    assert (store.cached("number", {}, go_on, resumable=True) / "number.txt").is_file()


def test_a_process_that_finishes_second_takes_the_artefact_of_the_first():
    def make_while_another_finishes(folder):
        store.cached("number", {}, write_number)

    assert (store.cached("number", {}, make_while_another_finishes) / "number.txt").read_text() == "7"


def test_the_fingerprint_sees_code_and_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PACKAGE", tmp_path)
    fingerprints = set()
    for name, content in [
        ("a.py", "x = 1"),
        ("a.py", "x = 2"),
        ("weights.safetensors", "1"),
        ("weights.safetensors", "2"),
    ]:
        (tmp_path / name).write_text(content)
        fingerprints.add(store.library_fingerprint.__wrapped__())
    assert len(fingerprints) == 4


@pytest.mark.parametrize("name", ["", "With Capitals", "../elsewhere", "a/b"])
def test_a_name_that_is_no_plain_name_is_refused(name):
    with pytest.raises(ValueError, match="artefact name"):
        store.cached(name, {}, write_number)


def test_inputs_without_an_exact_json_form_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.cached("number", {"lr": float("nan")}, write_number)
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.cached("number", {"path": object()}, write_number)


def test_a_cache_that_cannot_be_written_gets_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(store.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="no artefact can be kept in .*it may not be written.*SAE_LIB_CACHE"):
        store.cached("number", {}, write_number)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(PermissionError, match="Not a directory"):
        store.cached("number", {}, must_not_be_called)


def test_a_file_is_written_only_if_its_content_differs(tmp_path):
    path = tmp_path / "folder" / "file"
    assert [store.write_if_changed(path, content) for content in (b"1", b"1", b"2")] == [True, False, True]
    assert path.read_bytes() == b"2" and list(path.parent.iterdir()) == [path]


def test_the_cache_is_in_the_clone_unless_the_variable_names_another(tmp_path, monkeypatch):
    assert store.cache_root() == tmp_path
    monkeypatch.delenv("SAE_LIB_CACHE")
    assert store.cache_root() == store.ROOT / ".cache"
