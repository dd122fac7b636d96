"""The house: rooms by stage of the paper, imports that point down only, and faces through which readers come in."""

import ast
import importlib
import importlib.util
import re

import pytest

import sae_lib
from sae_lib.cache.artefact import PACKAGE, ROOT

ORDER = re.search(r"^    (cache .*)$", sae_lib.__doc__, re.MULTILINE)[1].split()
"""From the ground up, as the package's docstring says."""
ROOMS = [name for name in ORDER if (PACKAGE / name).is_dir()]
NOT_ROOMS = {"benchmarks", "browser", "interop", "kit", "notebooks", "supply"}
"""Folders of tests that are no room's."""
READ = [*(ROOT / "notebooks/src").glob("*.py"), *(ROOT / "notebooks/workshop/src").glob("*.py")]


def imports_of(text, package="sae_lib"):
    """(line, module, names) of every import of the package, wherever it stands."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            yield node.lineno, node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, []) for alias in node.names if alias.name.split(".")[0] == package)


def modules_imported(path):
    """(line, room, module in it or None) that a file of the library imports."""
    for line, module, names in imports_of(path.read_text()):
        inside = module.split(".")[1:]
        if not inside:
            yield from ((line, name, None) for name in names)
        elif len(inside) == 1:
            yield from ((line, inside[0], name) for name in names)
        else:
            yield line, inside[0], inside[1]


def place_of(path):
    """The room of a file of the library, or its own name where it stands in none."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_imports_point_down_only():
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {room}, which stands above {place_of(path)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if place_of(path) in ORDER
        for line, room, _ in modules_imported(path)
        if room not in ORDER or ORDER.index(room) > ORDER.index(place_of(path))
    ]
    assert not upward


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_holds_a_circle_of_imports(room):
    imported = {
        path.stem: {module for _, other, module in modules_imported(path) if other == room}
        for path in (PACKAGE / room).glob("*.py")
    }
    while free := [name for name, needs in imported.items() if not needs & set(imported)]:
        for name in free:
            del imported[name]
    assert not imported, f"these modules of {room} import each other, or what does: {', '.join(sorted(imported))}"


def test_the_library_knows_no_notebook():
    knows = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in PACKAGE.rglob("*.py")
        for line, _, _ in imports_of(path.read_text(), "notebooks")
    ]
    assert not knows


def test_the_house_has_at_most_sixteen_entries_and_a_room_at_most_eight_modules():
    entries = [path.name for path in PACKAGE.iterdir() if path.is_file() or any(path.glob("*.py"))]
    assert len(entries) <= 16, sorted(entries)
    for room in ROOMS:
        modules = sorted(path.name for path in (PACKAGE / room).glob("*.py") if path.name != "__init__.py")
        assert len(modules) <= 8, f"{room} has {', '.join(modules)}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_which_stage_it_is_and_all_that_it_offers_is_there(room):
    face = importlib.import_module(f"sae_lib.{room}")
    assert len(face.__doc__) > 80
    assert all(getattr(face, name) is not None for name in face.__all__)


def test_every_parameter_of_a_public_function_has_a_type():
    untyped = []
    for path in PACKAGE.rglob("*.py"):
        classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        public = [node for node in classes if not node.name.startswith("_")]
        for owner in (ast.parse(path.read_text()), *public):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    names = [each.arg for each in given if each.annotation is None and each.arg not in ("self", "cls")]
                    untyped += [f"{path.relative_to(ROOT)}:{node.lineno} {node.name}({name})" for name in names]
    assert not untyped


@pytest.mark.parametrize("path", READ, ids=lambda path: path.stem)
def test_notebooks_and_lessons_come_in_through_a_face(path):
    statements = list(imports_of(path.read_text()))
    deep = [f"line {line}: {module}" for line, module, _ in statements if module.count(".") > 1]
    assert not deep
    assert len({module for _, module, _ in statements}) <= 6


def test_the_readme_comes_in_through_a_face():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "notebooks/README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks and all(module.count(".") <= 1 for block in blocks for _, module, _ in imports_of(block))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("harvest", "sae_lib.activations"),
        ("transfer", "sae_lib.activations or sae_lib.saes"),
        ("store", "sae_lib.cache"),
        ("artefacts", "notebooks"),
        ("pocket.train", "notebooks.experiments.pocket"),
    ],
)
def test_an_old_path_names_the_new_one(old, new):
    with pytest.raises(ImportError, match=f"sae_lib.{old} of version 0.1 is gone: import its names from {new}$"):
        importlib.import_module(f"sae_lib.{old}")


def test_a_module_that_never_was_is_missing_as_anywhere():
    with pytest.raises(ModuleNotFoundError, match="No module named 'sae_lib.harvesting'"):
        importlib.import_module("sae_lib.harvesting")


def test_other_packages_are_looked_for_as_before(tmp_path, monkeypatch):
    (tmp_path / "without_init").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("without_init.harvest") is None  # its path is no sequence


def test_tests_mirror_the_rooms():
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py"))}
    assert folders == set(ROOMS) | NOT_ROOMS
    for room in ROOMS:
        tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / room).glob("test_*.py")}
        assert tested <= {path.stem for path in (PACKAGE / room).glob("*.py")}, f"tests/{room} tests what is not there"
