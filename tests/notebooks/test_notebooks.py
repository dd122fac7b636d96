"""The notebooks' contract: what their text must be, that they run, that their headline numbers are checked.

Each notebook runs twice at smoke scale, by papermill with an empty cache and by nbval on that copy with another cache,
empty at first, which the notebooks share; what it computes is counted. A fast one runs once more, changed, to see nbval
fail.
"""

import ast
import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from notebooks import costs, run, warm
from notebooks.execution import execute
from sae_lib.cache.artefact import ROOT

SOURCES = run.find_sources()
MAX_CELL_LINES = 25
PARAMETER = re.compile(r"[a-z_]+: [^=#]+ = [^#=]+  # \S.*")
FORBIDDEN = {
    "an installation": re.compile(r"\bpip3? install|\bconda install|subprocess"),
    "a magic or shell line": re.compile(r"^\s*[%!]", re.MULTILINE),
    "an absolute path": re.compile(r"""["'](/\w|~|[A-Z]:\\)"""),
    "an environment variable": re.compile(r"\benviron\b|\bgetenv\b"),
    "a blanket warning filter": re.compile(r"simplefilter|filterwarnings\(\s*[\"']ignore[\"']\s*\)"),
}

STRAY = re.compile(r"""[(\[{<'"]|-?[\d.]+$|(Text|None|array|tensor|True|False|BarContainer)\b""")
"""The beginning of an output that no cell shows on purpose: a tuple, a number, an object of matplotlib."""

WRITE_COSTS = ".venv/bin/python -m pytest tests/notebooks/test_notebooks.py -k computes --write-costs"

each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def stored(source):
    path = run.FOLDER / f"{source.stem}.ipynb"
    assert path.is_file(), f"notebooks/{path.name} is missing: run make notebooks"
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]


def test_every_stored_notebook_has_a_source():
    assert {path.stem for path in run.FOLDER.glob("*.ipynb")} <= {source.stem for source in SOURCES}


@each_notebook
def test_the_cells_of_source_and_stored_notebook_are_equal(source):
    def cells(notebook):
        return [(cell.id, cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]

    assert cells(stored(source)) == cells(run.read_source(source)), "run make notebooks"


@each_notebook
def test_a_stored_notebook_is_small_executed_and_clean(source):
    notebook = stored(source)
    text = (run.FOLDER / f"{source.stem}.ipynb").read_text()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert len(text.encode()) <= run.MAX_BYTES
    assert outputs and all(cell.execution_count for cell in code_cells(notebook))
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert all(Image.open(io.BytesIO(base64.b64decode(each))).mode == "P" for each in pictures)  # in 256 colours: small
    assert "widgets" not in notebook.metadata and "widget-view" not in text
    assert not re.search(r"\d%\|", text)  # no progress bar
    assert not [path for path in (str(ROOT), str(Path.home()) + "/", "site-packages") if path in text]


@each_notebook
def test_a_stored_notebook_shows_no_value_that_its_last_line_left_by_chance(source):
    """Such as "(0.0, 1.02)" or "<Axes: >"; end the line with ";" or assign the value."""
    results = [output for cell in code_cells(stored(source)) for output in cell.outputs if "execution_count" in output]
    assert [text for output in results if STRAY.match(text := output.data.get("text/plain", ""))] == []


@pytest.mark.parametrize(
    "text",
    ["(0.0, 1.02)", "<Axes: >", "<Figure size 2x2>", "Text(0, 0.5, 'y')", "[<matplotlib.lines.Line2D at 0x7f>]"]
    + ["<matplotlib.legend.Legend at 0x7f>", "array([1, 2])", "tensor(3.)", "0.25", "None", "{'a': 1}", "'done'"],
)
def test_values_left_by_chance_are_known(text):
    assert STRAY.match(text)


@pytest.mark.parametrize("text", ["04_transfer/figure3.png|pdf|json", "05_blocks/table1.csv|tex", "PainterWidget: run"])
def test_what_a_cell_shows_on_purpose_is_no_value_left_by_chance(text):
    assert not STRAY.match(text)


@each_notebook
def test_a_figure_is_shown_where_it_is_saved_and_so_complete(source):
    for cell in code_cells(stored(source)):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert "save_" in cell.source, "close it where it is begun: save_figure shows it\n" + cell.source


@each_notebook
def test_there_is_one_parameters_cell_of_documented_lines(source):
    (cell,) = tagged(run.read_source(source), "parameters")
    assert [line for line in cell.source.splitlines() if not PARAMETER.fullmatch(line)] == []
    assert list(run.parameters_of(run.read_source(source)))[:3] == ["scale", "source", "seed"]


@each_notebook
def test_cells_are_short_and_self_contained(source):
    for cell in code_cells(run.read_source(source)):
        assert len(cell.source.splitlines()) <= MAX_CELL_LINES, cell.source
        assert [what for what, pattern in FORBIDDEN.items() if pattern.search(cell.source)] == [], cell.source


@each_notebook
def test_the_notebook_starts_with_its_title_and_ends_with_limits_and_exercises(source):
    cells = run.read_source(source).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    headings = re.findall(r"^#+ .*$", "\n".join(prose), re.MULTILINE)
    assert cells[0].source.startswith("# ")
    for word in ("limits", "exercises"):
        assert any(word in heading.lower() for heading in headings[-4:]), f"no heading names {word} among the last four"


@each_notebook
def test_start_run_is_given_the_notebooks_own_name(source):
    calls = [
        node.args[0].value
        for cell in code_cells(run.read_source(source))
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "start_run"
    ]
    assert calls == [source.stem]


@each_notebook
def test_a_cell_that_prints_headline_numbers_is_marked_for_nbval(source):
    cells = tagged(stored(source), "nbval-check-output")
    assert any(re.search(r"\d", text_of(cell)) for cell in cells)


def text_of(cell):
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


class SmokeRuns:
    """Copies of the notebooks executed at smoke scale, each when first asked for, each from an
    empty cache of its own."""

    def __init__(self, folder):
        self.folder, self.outcomes = folder, {}

    def copy(self, source):
        return self.folder / f"{source.stem}.ipynb"

    def outcome(self, source):
        if source not in self.outcomes:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SAE_LIB_CACHE", str(self.folder / f"cache_{source.stem}"))
                self.outcomes[source] = execute(source, self.copy(source), {"scale": "smoke"})
        if self.outcomes[source].failure:
            pytest.fail(self.outcomes[source].failure)
        return self.outcomes[source]


@pytest.fixture(scope="module")
def smoke_runs(empty_cache, tmp_path_factory):
    return SmokeRuns(tmp_path_factory.mktemp("copies"))


def nbval(copy, cache):
    """Validate a copy in a process of its own, against a cache that is empty; its kernel is forked
    if there is a server."""
    plugins = ["--disable-plugin-autoload", "-p", "nbval.plugin", "-p", "no:cacheprovider"]  # the others take seconds
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--nbval-lax", str(copy)]
    environment, lent = os.environ | {"SAE_LIB_CACHE": str(cache)}, ()
    if warm.Provisioner.server:
        lent = (warm.Provisioner.server.descriptor,)
        command += ["-p", "tests.forked_nbval"]
        environment["WARM_SERVER"] = str(*lent)
    return subprocess.run(
        command, env=environment, cwd=ROOT, pass_fds=lent, capture_output=True, text=True, check=False
    )


def tracked_files():
    files = [path for name in ("figures", "notebooks") for path in (ROOT / name).rglob("*.*")]
    return {path: path.stat().st_mtime_ns for path in files if "__pycache__" not in path.parts}


@each_notebook
def test_the_notebook_runs_at_smoke_scale_and_touches_nothing_that_git_tracks(source, smoke_runs):
    before = tracked_files()
    smoke_runs.outcome(source)
    assert tracked_files() == before


@each_notebook
def test_the_notebook_computes_as_much_as_it_is_known_to_compute(source, smoke_runs, pytestconfig):
    outcome = smoke_runs.outcome(source)
    if pytestconfig.getoption("write_costs"):
        costs.commit_counts(outcome)
    known = costs.counts().get(source.stem)
    assert known, f"notebooks/costs.json does not know what {source.stem} computes: run `{WRITE_COSTS}`"
    differences = costs.counts_of(outcome).differences(known)
    assert not differences, f"{'; '.join(differences)}. If that is meant, run `{WRITE_COSTS}` and commit costs.json"


@pytest.fixture(scope="module")
def second_cache(tmp_path_factory):
    """A cache without anything that the first runs made."""
    return tmp_path_factory.mktemp("second_cache")


@each_notebook
def test_nbval_finds_the_same_headline_numbers_in_a_second_cache(source, smoke_runs, second_cache):
    smoke_runs.outcome(source)
    done = nbval(smoke_runs.copy(source), second_cache)
    assert done.returncode == 0, done.stdout


def fast(sources):
    """The notebook that takes the shortest time, if any."""
    known = costs.known("smoke")
    return sorted((source for source in sources if source.stem in known), key=lambda source: known[source.stem])[:1]


@pytest.mark.parametrize("source", fast(SOURCES), ids=lambda source: source.stem)
def test_nbval_fails_when_a_headline_number_is_changed(source, smoke_runs, tmp_path):
    smoke_runs.outcome(source)
    notebook = nbformat.read(smoke_runs.copy(source), as_version=4)
    cell = next(cell for cell in tagged(notebook, "nbval-check-output") if re.search(r"\d", text_of(cell)))
    output = next(output for output in cell.outputs if re.search(r"\d", output.get("text", "")))
    output.text = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), output.text, count=1)
    changed = tmp_path / f"{source.stem}_changed.ipynb"
    nbformat.write(notebook, changed)
    done = nbval(changed, tmp_path / "cache")
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout
