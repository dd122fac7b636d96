"""What an artefact's key sees of the code: all that its maker reaches, and nothing else."""

import functools
import importlib
import itertools
import linecache
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from sae_lib.activations.denoising import CallSettings
from sae_lib.assets import Assets
from sae_lib.cache import artefact, reach
from sae_lib.training import trained

numbers = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes a package and follows `make` of its module `work`; each call is a package of its own."""
    monkeypatch.syspath_prepend(tmp_path)

    def follow(stub="", **modules):
        name = f"invented_{next(numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        for module, text in ({"__init__": ""} | modules).items():
            (folder / f"{module}.py").write_text(textwrap.dedent(text).replace("invented", name))
        (folder / "__init__.pyi").write_text(stub)
        importlib.invalidate_caches()
        make = importlib.import_module(f"{name}.work").make
        return reach.follow(make, reach.Clone(tmp_path, (name,)))

    return follow


def run_cells(*cells, **values):
    """What `make` reaches in a notebook of these cells."""
    values |= {"__name__": "__main__", "In": [""]}
    for cell in cells:
        values["In"].append(textwrap.dedent(cell))
        exec(compile(values["In"][-1], "<cell>", "exec"), values)  # noqa: S102 (the test's own cells)
    return reach.follow(values["make"], artefact.CLONE)


# The real library -----------------------------------------------------------------------------------------------------

CELLS = [
    """\
    from notebooks.artefacts import ARTEFACTS
    from sae_lib.activations import CallSettings
    from sae_lib.companion import BLOCK_COLORS
    from sae_lib.saes import measure_transfer
    """,
    "prompts, saes, call = [], {}, CallSettings(1, 0.0)",
    "def make(folder):\n    measure_transfer(None, prompts, call, saes)",
]


@pytest.mark.parametrize(
    "file, old, new, same",
    [
        (
            "sae_lib/saes/transfer.py",
            "Raises ValueError if there are no prompts",
            "It raises ValueError if there are no prompts",
            True,
        ),
        ("sae_lib/companion/style.py", "#332288", "#332289", True),
        (
            "notebooks/artefacts.py",
            "ARTEFACTS: tuple[Artefact, ...] = (",
            "ARTEFACTS: tuple[Artefact, ...] = (Artefact(*'abcd'),",
            True,
        ),
        ("sae_lib/saes/transfer.py", "rows.square().mean(1)", "rows.abs().mean(1)", False),
    ],
)
def test_of_the_library_only_a_line_that_a_maker_reaches_counts(monkeypatch, file, old, new, same):
    before, read, text = run_cells(*CELLS), reach.read_text, (artefact.ROOT / file).read_text()
    assert text.count(old) == 1
    monkeypatch.setattr(
        reach, "read_text", lambda path: text.replace(old, new) if path == artefact.ROOT / file else read(path)
    )
    assert (run_cells(*CELLS).code == before.code) is same


def test_training_reaches_models_and_weights_and_nothing_that_draws(pipe, monkeypatch):
    asked = []
    monkeypatch.setattr(trained, "cached", lambda name, inputs, make, resumable: asked.append(make) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        assets = Assets("smoke", blocks="mid.0")
        assets._pipes["turbo"] = pipe
        trained.train_in_setting(assets, "turbo", CallSettings(1, 0.0, batch_size=4), 4)
    before = reach.follow(asked[0], artefact.CLONE)
    modules = {name.split(":")[0].removeprefix("sae_lib.") for name in before.names}
    assert {
        "saes.topk",
        "training.loop",
        "training.losses",
        "activations.stream",
        "pocket.weights",
        "pocket.models",
    } <= modules
    assert not [module for module in modules if module.split(".")[0] in ("cache", "companion", "paint", "notebooks")]
    files = {line.split()[1] for line in before.weights}
    assert "sae_lib/pocket/weights/unet/diffusion_pytorch_model.safetensors" in files
    assert not [file for file in files if file.startswith("sae_lib/pocket/saes")]
    monkeypatch.setattr(reach, "_sha256", lambda path: path.name)
    assert reach.follow(asked[0], artefact.CLONE).weights != before.weights


# A package ------------------------------------------------------------------------------------------------------------

WORK = """\
from invented.other import helper

FACTOR = 2


def make(folder):
    return helper(FACTOR)
"""
OTHER = """\
def helper(x):
    return x + 1


def unused():
    return 0
"""


def test_comments_docstrings_formatting_and_what_is_not_reached_do_not_count(package):
    commented = '''\
    """A module's docstring."""
    import math


    def helper(x):
        """What it does."""
        # A comment.
        return (
            x
            + 1
        )


    UNUSED = math.pi
    """A constant's docstring."""
    '''
    assert package(work=WORK, other=OTHER).code == package(work=WORK, other=commented).code


@pytest.mark.parametrize(
    "old, new",
    [
        ("return x + 1", "return x + 2"),
        ("def helper(x)", "@staticmethod\ndef helper(x)"),
        ("helper(x)", "helper(x: int)"),
    ],
)
def test_a_changed_line_of_a_reached_function_counts(package, old, new):
    assert package(work=WORK, other=OTHER).code != package(work=WORK, other=OTHER.replace(old, new, 1)).code


def test_a_changed_constant_counts(package):
    assert package(work=WORK, other=OTHER).code != package(work=WORK.replace("= 2", "= 3"), other=OTHER).code


@pytest.mark.parametrize(
    "line, call",
    [
        ("from invented.third import helper", "helper(2)"),
        ("from .third import helper as other", "other(2)"),
        ("import invented.third as third", "third.helper(2)"),
        ("import invented.third", "invented.third.helper(2)"),
        ("from invented import third", "third.helper(2)"),
        ("from . import third", "third.helper(2)"),
        ("from invented import helper", "helper(2)"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_every_way_of_importing_is_followed(package, line, call, inside):
    body = f"    {line}\n    return {call}\n" if inside else f"    return {call}\n"
    work = ("" if inside else f"{line}\n\n\n") + f"def make(folder):\n{body}"
    exports = "import lazy_loader\n\n__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n"
    stub = "from .third import helper as helper\n"
    reached = [
        package(stub, __init__=exports, work=work, third=OTHER.replace("x + 1", each)) for each in ("x + 1", "x + 2")
    ]
    assert reached[0].code != reached[1].code
    assert [name.split(":")[1] for name in reached[0].names] == ["make", "helper"]


def test_a_function_that_moves_to_another_module_stays_the_same(package):
    moved = WORK.replace("invented.other", "invented.third")
    assert package(work=WORK, other=OTHER).code == package(work=moved, third=OTHER, other="").code


def test_two_functions_that_change_places_count(package):
    work = "from invented.other import {} as a, {} as b\n\n\ndef make(folder):\n    return a(b(2))\n"
    other = "def f(x):\n    return x + 1\n\n\ndef g(x):\n    return 2 * x\n"
    one, two = (package(work=work.format(*each), other=other) for each in ("fg", "gf"))
    assert sorted(each.split(":")[1] for each in one.names) == sorted(each.split(":")[1] for each in two.names)
    assert one.code != two.code


def test_a_name_from_outside_counts_by_what_it_is(package):
    work = "from math import {} as f\n\n\ndef make(folder):\n    return f(2)\n"
    assert package(work=work.format("sin")).code != package(work=work.format("cos")).code


def test_a_local_name_does_not_reach_a_global_of_that_name(package):
    work = """\
    def make(folder, a=1, *b, c=2, **d):
        e = [f for f in range(3)]
        with open(folder) as g:
            h: int = 1
        for i in e:
            from math import pi as j
        try:
            k = (l := 1)
        except ValueError as m:
            pass
        match k:
            case [n, *o]:
                pass
        return (lambda p: p + q)(1), [s := 1 for r in e], s, (a, b, c, d, g, h, i, j, l, m, n, o)
    """
    work = textwrap.dedent(work)
    shadowed = "".join(f"{name} = '{name}'\n" for name in "abcdefghijklmnoprs")
    reached = package(work=f"{shadowed}q = 1\n{work}")
    assert [name.split(":")[1] for name in reached.names] == ["make", "q"]
    assert package(work=f"q = 1\n{work}").code == reached.code != package(work=f"q = 2\n{work}").code


def test_a_global_that_a_function_sets_and_one_that_a_class_body_reads_are_reached(package):
    work = """\
    count, start, seen = 0, 1, 2


    class Counter:
        first = start

        def step(self):
            global count
            count = 1


    def make(folder):
        return Counter()
    """
    changed = work.replace("0, 1, 2", "9, 1, 2")
    assert package(work=work).code != package(work=changed).code


def test_a_class_is_reached_as_a_whole_and_by_an_annotation(package):
    work = """\
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        from invented.other import Model


    def make(folder, model: "Model | None" = None):
        model.run()
    """
    other = """\
    class Base:
        def deep(self):
            return 1


    class Model(Base):
        def run(self):
            return 2
    """
    reached = package(work=work, other=other)
    assert [name.split(":")[1] for name in reached.names] == ["make", "Model", "Base"]
    assert reached.code != package(work=work, other=other.replace("return 1", "return 3")).code


def test_what_a_module_does_when_it_is_imported_counts_and_its_main_block_does_not(package):
    acting = f"{OTHER}\n\nTABLE = {{}}\nTABLE['x'] = 1\n"
    codes = [package(work=WORK, other=each).code for each in (OTHER, acting, acting.replace("= 1", "= 2"))]
    assert len(set(codes)) == 3
    main = f"{WORK}\n\nif __name__ == '__main__':\n    print(make(''))\n"
    assert package(work=main, other=OTHER).code == codes[0]


MAKERS = {
    "lambda": "make = lambda folder: helper(2)",
    "partial": "make = functools.partial(lambda number, folder: helper(number), 2)",
    "nested": "def outer():\n    number = helper(2)\n    return lambda folder: number\n\n\nmake = outer()",
    "method": "class Maker:\n    def run(self, folder):\n        return helper(2)\n\n\nmake = Maker().run",
    "decorated": "def kept(f):\n    return functools.wraps(f)(lambda *_: f(*_))\n\n\n"
    "@kept\ndef make(folder):\n    helper(2)",
}


@pytest.mark.parametrize("text", MAKERS.values(), ids=MAKERS)
def test_makers_of_every_kind_are_found(package, text):
    work = f"import functools\n\nfrom invented.other import helper\n\n{text}\n"
    one, two = (package(work=work, other=OTHER.replace("+ 1", each)) for each in ("+ 1", "+ 2"))
    assert one.code != two.code


@pytest.mark.parametrize(
    "make", [print, functools.partial(print), eval("lambda folder: None", {"__name__": "nowhere"})]
)
def test_a_maker_without_source_is_refused(make):
    with pytest.raises((TypeError, ValueError), match="has no source|cannot be read"):
        reach.follow(make, artefact.CLONE)


def test_the_weights_below_a_reached_constant_count_and_the_package_itself_does_not(package, tmp_path):
    work = """\
    from pathlib import Path

    PACKAGE = Path(__file__).resolve().parent
    FOLDER = PACKAGE / "weights"


    def make(folder):
        return FOLDER
    """
    assert package(work=work).weights == ()
    name = f"invented_{next(numbers)}"
    (tmp_path / name / "weights" / "part").mkdir(parents=True)
    (tmp_path / name / "work.py").write_text(textwrap.dedent(work))
    (tmp_path / name / "elsewhere.json").write_text("{}")
    (tmp_path / name / "weights" / "card.md").write_text("words")
    file = tmp_path / name / "weights" / "part" / "model.safetensors"
    hashes = set()
    for content in ("1", "22"):
        file.write_text(content)
        importlib.invalidate_caches()
        make = importlib.import_module(f"{name}.work").make
        (weights,) = reach.follow(make, reach.Clone(tmp_path, (name,))).weights
        assert weights.endswith(f" {name}/weights/part/model.safetensors")
        hashes.add(weights)
    assert len(hashes) == 2


# Notebooks ------------------------------------------------------------------------------------------------------------


def names_of(reached):
    return [name.split(":")[1] for name in reached.names]


def test_a_notebook_s_maker_reaches_cells_and_library():
    cells = [
        "from sae_lib.models import get_scale",
        "def half(x):\n    return get_scale(x)",
        "def make(folder):\n    half(1)",
    ]
    reached = run_cells(*cells, "def other():\n    return 1")
    assert reached.names[:3] == ("notebook:make", "notebook:half", "sae_lib.models.scales:get_scale")
    assert reached.code == run_cells(*cells, "def other():\n    return 2").code
    assert reached.code != run_cells(cells[0], cells[1].replace("half(x)", "half(x, y=0)"), cells[2]).code


def test_how_a_notebook_is_cut_into_cells_does_not_count():
    one, two = "limit = [1]\n", "def make(folder):\n    # a comment\n    return limit\n"
    assert run_cells(one, two).code == run_cells(one + two).code


def test_a_small_value_counts_by_its_value_and_not_by_how_it_came_about():
    make = "def make(folder):\n    return limit, pair"
    reached = run_cells("limit = 1 + 1\npair = ('a', 1.5)", make)
    assert names_of(reached) == ["make"]
    assert reached.code == run_cells("limit = 2\npair = ('a', 3 / 2)", make).code
    assert reached.code != run_cells("limit = 3\npair = ('a', 3 / 2)", make).code


def test_of_a_record_the_attribute_counts_that_is_read():
    class Run(NamedTuple):
        rehearsal: bool
        parameters: dict

    make = "def make(folder):\n    return run.rehearsal"
    cells = ["run = start()", make]
    keys = [run_cells(*cells, start=lambda run=run: run) for run in (Run(True, {}), Run(True, {1: 2}), Run(False, {}))]
    assert names_of(keys[0]) == ["make"] and keys[0].code == keys[1].code != keys[2].code
    whole = run_cells("run = start()", "def make(folder):\n    return run", start=lambda: Run(True, {}))
    assert names_of(whole) == ["make", "run"]


def test_the_class_of_a_value_is_reached():
    cells = [
        "from sae_lib.activations import CallSettings",
        "call = CallSettings(2, 0.0)",
        "def make(folder):\n    call.guided",
    ]
    assert (
        "sae_lib.activations.denoising:CallSettings"
        in run_cells(cells[0], cells[1], "def make(folder):\n    return call").names
    )
    assert reach.spell(CallSettings(2, 0.0)) != reach.spell(CallSettings(3, 0.0))


def test_a_dict_that_remembers_what_was_computed_does_not_count_by_what_is_in_it():
    cells = [
        "drawn, again = {}, 0",
        "def draw(x):\n    if x not in drawn:\n        drawn.update({x: [x]})\n    return drawn[x]",
        "def make(folder):\n    return draw(1)",
    ]
    before, after = run_cells(*cells), run_cells(*cells, "made = make('')")
    assert before.code == after.code and names_of(before) == ["make", "draw", "again, drawn"]


@pytest.mark.parametrize(
    "change",
    [
        "a.append({})",
        "a[0] = {}",
        "a += [{}]",
        "for i in range(3):\n    a.append({})",
        "if True:\n    a = [{}]",
        "a[0].append({})",
    ],
)
def test_what_a_later_line_does_to_a_list_counts(change):
    make = "def make(folder):\n    return a"
    reached = [run_cells("a = [[0]]", change.format(number) if number else "", make) for number in (None, "1", "2")]
    assert len({each.code for each in reached}) == 3


def test_a_name_is_what_the_last_full_binding_before_it_says():
    make = "def make(folder):\n    return b"
    reached = run_cells("a = [1]", "b = [*a]", "a = [2]", make)
    assert reached.code == run_cells("a = [1]", "b = [*a]", make).code
    assert reached.code == run_cells("a = [3]", "a = [1]", "b = [*a]", make).code
    assert reached.code != run_cells("a = [2]", "b = [*a]", make).code


def test_a_small_value_that_has_changed_since_is_not_taken_for_what_was_read():
    make = "def make(folder):\n    return b"
    codes = {run_cells(f"k = {first}", "b = [k]", f"k = {then}", make).code for first in (1, 2) for then in (3, 4)}
    assert len(codes) == 2


def test_a_loop_does_not_reach_what_its_own_names_were_before():
    cells = ["row, total = [9], []", "for row in range(3):\n    each = row\n    total.append(each)", "each = [8]"]
    reached = run_cells(*cells, "def make(folder):\n    return total")
    assert names_of(reached) == ["make", "row, total", "each, row, total"]
    read = run_cells(
        "row = [9]", "total = [each for each in [1] for row in [each]]", "def make(folder):\n    return total"
    )
    assert names_of(read) == ["make", "total"]


def test_an_import_under_a_condition_is_followed():
    cells = [
        "if True:\n    from sae_lib.models import get_scale\n    a = [1]",
        "def make(folder):\n    return get_scale('smoke')",
    ]
    assert "sae_lib.models.scales:get_scale" in run_cells(*cells).names


def test_a_cell_that_ran_twice_counts_once():
    cells = ["a = [1]", "a += [2]", "def make(folder):\n    return a"]
    assert run_cells(*cells).code == run_cells(cells[0], cells[1], cells[1], cells[2]).code


def test_cells_of_a_runner_that_keeps_no_history_are_found_where_tracebacks_find_them(monkeypatch):
    cells = ["a = [1]", "def make(folder):\n    return a", "a += [2]"]
    values = {"__name__": "__main__", "In": [""]}
    for number, cell in enumerate(cells):
        name = f"/nowhere/kernel/{number}.py"
        monkeypatch.setitem(linecache.cache, name, (len(cell), None, cell.splitlines(keepends=True), name))
        exec(compile(cell, name, "exec"), values)  # noqa: S102 (the test's own cells)
    assert reach.follow(values["make"], artefact.CLONE) == run_cells(*cells)


def test_a_cell_that_is_no_python_is_passed_over():
    values = {"__name__": "__main__", "In": ["", "%matplotlib inline", "def make(folder):\n    return 1"]}
    exec(values["In"][-1], values)  # noqa: S102 (the test's own cell)
    assert names_of(reach.follow(values["make"], artefact.CLONE)) == ["make"]


def test_what_comes_after_the_call_in_its_cell_has_not_happened():
    codes = []
    for after in ("", "a.append(2)", "a = [3]"):
        cell = f"a = [1]\ndef make(folder):\n    return a\nask(make)\n{after}\n"
        run_cells(cell, ask=lambda make: codes.append(reach.follow(make, artefact.CLONE).code))
    assert len(set(codes)) == 1


def test_a_maker_under_a_condition_and_the_call_in_the_same_block_are_found():
    codes = []
    for number in (1, 2, 1):
        cell = f"if True:\n    def make(folder):\n        return [{number}]\n    ask(make)\n"
        run_cells(cell, ask=lambda make: codes.append(reach.follow(make, artefact.CLONE).code))
    assert codes[0] == codes[2] != codes[1]


def test_a_lambda_in_the_very_statement_that_asks_is_found():
    codes = []
    for number in (1, 2):
        cell = f"a = [1]\nb = ask(\n    lambda folder: (a, [{number}]),\n)\na = [2]\n"
        run_cells("make = lambda folder: 1", cell, ask=lambda make: codes.append(reach.follow(make, artefact.CLONE)))
    assert codes[0].code != codes[1].code and names_of(codes[0])[1:] == ["a"]


def test_lambdas_and_makers_that_were_defined_again_are_told_apart():
    first = run_cells("make = lambda folder: [1]")
    assert first.code != run_cells("make = lambda folder: [1]", "make = lambda folder: [2]").code
    again = run_cells("def make(folder):\n    return [1]", "def make(folder):\n    return [2]")
    assert again.code == run_cells("def make(folder):\n    return [2]").code


def test_values_are_spelt_the_same_in_every_process():
    class Color(Enum):
        RED = 1

    @dataclass(frozen=True)
    class Point:
        x: float
        color: Color

    assert reach.spell(Point(0.1, Color.RED)).endswith(
        "Point(float 0.1, test_values_are_spelt_the_same_in_every_process.<locals>.Color.RED)"
    )
    assert reach.spell(1) != reach.spell(True) != reach.spell(1.0)
    for value in ([], {}, {1}, torch.zeros(1), (1, []), torch.Size([1]), Path("a"), len):
        assert reach.spell(value) is None


def test_the_order_of_hashes_does_not_matter():
    code = (
        "from sae_lib.cache import artefact, reach; from sae_lib.models import get_scale; "
        "print(reach.follow(get_scale, artefact.CLONE).code)"
    )
    options = {"capture_output": True, "text": True}
    command = [sys.executable, "-c", code]
    seeds = [os.environ | {"PYTHONHASHSEED": seed} for seed in "12"]
    one, two = (subprocess.run(command, env=env, check=True, **options).stdout for env in seeds)
    assert len(one) == 65 and one == two
