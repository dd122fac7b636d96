"""notebooks/run.py, on a notebook small enough to run many times."""

import json
import os
import re
import subprocess
import sys

import nbformat
import papermill
import pytest

from notebooks import readmes, run
from sae_lib.cache.artefact import ROOT
from sae_lib.companion.run import KEEPS_FIGURES

SOURCE = """\
# %% [markdown]
# # A sample

# %% tags=["parameters"]
scale: str = "pocket"  # smoke, pocket or sdxl
source: str = ""  # where the weights come from
seed: int = 0  # of every random number
k: int = 2  # a parameter of its own

# %%
from matplotlib.figure import Figure

from sae_lib import Claim, cached, save_figure, start_run

run = start_run("00_sample", globals())

# %% tags=["nbval-check-output"]
artefact = cached("sample", {"k": k}, lambda folder: (folder / "k.txt").write_text(str(k)))
square = 100 // (k - 1)
print("headline:", square)

# %%
fig = Figure()
fig.subplots().plot([k, square])
verdict = Claim("it is large", at_least=50).judge(run, square, (square, square))
save_figure(run, fig, "square", {"square": square}, artefact, [verdict])
"""
SMOKE = {"scale": "smoke"}
pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("src") / "00_sample.py"
    path.write_text(SOURCE)
    return path


def nbval(copy):
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider", str(copy)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_reproduce_ends_with_a_table_of_what_was_made(source, tmp_path, capsys):
    assert run.reproduce([source], tmp_path, SMOKE) == []
    printed = capsys.readouterr().out
    assert re.search(
        r"^notebook +time +figures +artefacts made/found +verdicts +against the committed", printed, re.MULTILINE
    )
    assert re.search(r"^00_sample +0:[0-9]+ +1 +[01]/0 +1 no verdict +-$", printed, re.MULTILINE)
    assert "smoke/figures/, as PNG and PDF" in printed and re.search(
        r"^1 notebook in 0:[0-9]+, 1 at once\.$", printed, re.MULTILINE
    )
    assert run.cache_root().joinpath("smoke/figures/00_sample/square.pdf").is_file()


def test_a_notebook_that_fails_is_named_with_its_cell_and_error(source, tmp_path, capsys):
    (failure,) = run.reproduce([source], tmp_path, SMOKE | {"k": 1})
    assert failure.startswith("00_sample failed in cell 4: ZeroDivisionError: ")
    assert "FAILED" in capsys.readouterr().out and failure.endswith(f"(see {tmp_path / '00_sample.ipynb'})")


def test_an_unknown_parameter_is_refused_before_anything_runs(source, tmp_path):
    with pytest.raises(ValueError, match="00_sample: unknown parameter kk; it has scale, source, seed, k"):
        run.reproduce([source], tmp_path / "out", {"kk": 1})
    assert not (tmp_path / "out").exists()


def test_an_unknown_parameter_is_refused_when_papermill_is_used_without_the_runner(source, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter kk"):
        papermill.execute_notebook(
            run.read_source(source), tmp_path / "out.ipynb", {"kk": 1}, kernel_name="python3", progress_bar=False
        )


def test_a_notebook_that_a_person_runs_writes_no_file_that_git_tracks_and_says_where_its_figures_are(source, tmp_path):
    def status():
        command = ["git", "status", "--porcelain", "--untracked-files=all", "figures", "notebooks"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    before, copy = status(), tmp_path / "out.ipynb"
    papermill.execute_notebook(run.read_source(source), copy, kernel_name="python3", progress_bar=False)
    folder = run.cache_root() / "figures" / "00_sample"
    assert {path.name for path in folder.iterdir()} == {f"square.{kind}" for kind in ("png", "pdf", "json")}
    assert status() == before and not (ROOT / "figures" / "00_sample").exists()
    assert (
        f"Figures go into {folder.parent}; `make reproduce`"
        in nbformat.read(copy, as_version=4).cells[2].outputs[0].text
    )


def test_the_runner_tells_its_kernels_that_figures_are_theirs_to_write(tmp_path):
    text = "# %%\nimport os\n\nfrom sae_lib.companion.run import KEEPS_FIGURES\n\nKEEPS_FIGURES in os.environ\n"
    (tmp_path / "00_plain.py").write_text(text)
    assert run.execute(tmp_path / "00_plain.py", tmp_path / "00_plain.ipynb", {}).failure == ""
    executed = nbformat.read(tmp_path / "00_plain.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].data["text/plain"] == "True" and KEEPS_FIGURES not in os.environ


def test_nbval_passes_on_a_copy_and_fails_when_a_headline_number_is_changed(tmp_path):
    source, copy = tmp_path / "00_plain.py", tmp_path / "00_plain.ipynb"
    source.write_text('# %% tags=["nbval-check-output"]\nprint("headline:", 10 * 10)\n')
    assert run.execute(source, copy, {}).failure == ""
    passed = nbval(copy)
    assert passed.returncode == 0, passed.stdout
    copy.write_text(copy.read_text().replace("headline: 100", "headline: 101"))
    failed = nbval(copy)
    assert failed.returncode == 1 and "headline: 101" in failed.stdout


def test_a_notebook_that_is_built_twice_is_the_same_file(tmp_path):
    source = tmp_path / "00_plain.py"
    source.write_text('# %% tags=["parameters"]\nk: int = 2  # a number\n\n# %%\nk\n\n# %%\nk\n')
    stored = []
    for _ in range(2):
        assert run.build([source], tmp_path) == []
        stored.append((tmp_path / "00_plain.ipynb").read_bytes())
    notebook = nbformat.reads(stored[0].decode(), as_version=4)
    assert stored[0] == stored[1] and len({cell.id for cell in notebook.cells}) == 3
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert [set(cell.metadata) for cell in notebook.cells] == [{"tags"}, set(), set()]
    assert notebook.cells[1].outputs[0].data["text/plain"] == "2"


def test_of_a_widget_its_text_is_stored_and_neither_its_view_nor_its_state(tmp_path):
    source = tmp_path / "00_widget.py"
    source.write_text('# %% tags=["parameters"]\nk: int = 2\n\n# %%\nimport ipywidgets\n\nipywidgets.IntSlider(k)\n')
    assert run.build([source], tmp_path) == []
    (output,) = nbformat.read(tmp_path / "00_widget.ipynb", as_version=4).cells[1].outputs
    assert set(output.data) == {"text/plain"}


def test_a_notebook_that_is_too_large_leaves_the_stored_one(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "MAX_BYTES", 100)
    (tmp_path / "00_plain.py").write_text("# %%\n1\n")
    (tmp_path / "00_plain.ipynb").write_text("as it was")
    (failure,) = run.build([tmp_path / "00_plain.py"], tmp_path)
    assert "the limit is 100" in failure and (tmp_path / "00_plain.ipynb").read_text() == "as it was"


def test_the_kernel_is_this_interpreter_whatever_else_the_machine_has(tmp_path, monkeypatch):
    elsewhere = tmp_path / "home/.local/share/jupyter/kernels/python3/kernel.json"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(json.dumps({"argv": ["/no/such/python"], "display_name": "wrong", "language": "python"}))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "00_plain.py").write_text("# %%\nimport sys\n\nsys.executable\n")
    assert run.execute(tmp_path / "00_plain.py", tmp_path / "00_plain.ipynb", {}).failure == ""
    executed = nbformat.read(tmp_path / "00_plain.ipynb", as_version=4)
    assert executed.cells[0].outputs[0].data["text/plain"] == repr(sys.executable)


def test_a_notebook_that_does_not_exist_is_refused(source):
    assert run.find_sources(["00_sample"], source.parent) == [source]
    with pytest.raises(ValueError, match="no notebook 05_other; there are 00_sample"):
        run.find_sources(["05_other"], source.parent)


def test_the_command_line_says_what_is_wrong_and_returns_2(capsys):
    assert run.main(["reproduce", "42_nothing"]) == 2
    assert "no notebook 42_nothing" in capsys.readouterr().err


@pytest.mark.parametrize("file", readmes.PARTS)
def test_a_readme_holds_its_computed_parts_as_the_records_are_now(file):
    text = (ROOT / file).read_text()
    assert [name for name, part in readmes.PARTS[file].items() if part() not in text] == [], "run make notebooks"


@pytest.mark.parametrize("file", readmes.PARTS)
def test_every_link_of_a_readme_leads_to_a_file(file):
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / file).read_text())
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / file).parent.joinpath(link).exists()] == []


def test_the_first_readme_is_short_and_answers_before_its_first_section():
    text = (ROOT / "README.md").read_text()
    opening, *_ = text.split("\n## ")
    assert len(text.splitlines()) <= 80
    assert readmes.results_list() in opening and opening.count("<img ") == 1
