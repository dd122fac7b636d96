"""save_figure: unchanged results leave unchanged files; no conclusions leave the cache."""

import json
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from sae_lib.companion import style
from sae_lib.companion.figures import save_figure, save_table, with_interval
from sae_lib.companion.run import Run
from sae_lib.companion.verdicts import Claim
from sae_lib.judges.intervals import Interval
from sae_lib.models.blocks import ATTENTION_BLOCKS, FLUX_BLOCKS


@pytest.fixture(autouse=True)
def empty_clone(tmp_path, monkeypatch):
    monkeypatch.setattr("sae_lib.companion.figures.ROOT", tmp_path)
    monkeypatch.setattr("sae_lib.cache.results.ROOT", tmp_path)
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path / "cache"))


def run_at(scale, source=""):
    return Run("04_transfer", {"scale": scale, "source": source, "seed": 0})


def draw(values=(1, 2, 3)):
    with matplotlib.rc_context(style.STYLE):
        fig = Figure()
        fig.subplots().plot(values)
        return fig


@pytest.mark.parametrize(
    ("run", "folder"),
    [
        (run_at("pocket"), "figures/04_transfer"),
        (run_at("sdxl"), "figures/04_transfer/sdxl"),
        (run_at("smoke"), "cache/smoke/figures/04_transfer"),
        (run_at("sdxl", "random"), "cache/rehearsal/figures/04_transfer"),
        (replace(run_at("pocket"), keeps_figures=False), "cache/figures/04_transfer"),
        (replace(run_at("sdxl"), keeps_figures=False), "cache/figures/04_transfer/sdxl"),
        (replace(run_at("smoke"), keeps_figures=False), "cache/smoke/figures/04_transfer"),
    ],
)
def test_each_kind_of_run_has_its_folder(tmp_path, run, folder):
    saved = save_figure(run, draw(), "fig3", {"n": 1})
    assert {path.parent for path in saved} == {tmp_path / folder} and all(path.is_file() for path in saved)


def test_the_record_holds_result_verdicts_and_what_made_it(tmp_path):
    verdict = Claim("a claim", at_least=0.0).judge(run_at("pocket"), 1.0, (0.5, 1.5))
    artefact = tmp_path / "overlap-0123456789ab"
    result = {"curve": torch.tensor([1.0, 2.0]), "n": np.int64(3), "gap": None, "third": 1 / 3}
    record = json.loads(save_figure(run_at("pocket"), draw(), "fig3", result, artefact, [verdict]).json.read_text())
    assert record["result"]["verdicts"][0]["word"] == "holds on the pocket model"
    assert record["result"]["curve"] == [1, 2] and record["result"]["n"] == 3 and record["result"]["gap"] is None
    assert record["result"]["third"] == 0.333333
    assert record["run"]["artefact"] == "overlap-0123456789ab" and record["run"]["parameters"]["seed"] == 0
    assert {"commit", "device", "versions", "scale"} <= set(record["run"])


def test_the_record_is_rewritten_only_when_the_result_changes(monkeypatch):
    monkeypatch.setattr("sae_lib.companion.figures.commit_hash", lambda: "first")
    path = save_figure(run_at("pocket"), draw(), "fig3", {"n": 1}).json
    monkeypatch.setattr("sae_lib.companion.figures.commit_hash", lambda: "second")
    save_figure(run_at("pocket"), draw(), "fig3", {"n": 1})
    assert json.loads(path.read_text())["run"]["commit"] == "first"
    save_figure(run_at("pocket"), draw(), "fig3", {"n": 2})
    assert json.loads(path.read_text())["run"]["commit"] == "second"


def test_an_unchanged_figure_is_an_unchanged_file():
    saved = save_figure(run_at("pocket"), draw(), "fig3", {})
    before = [path.read_bytes() for path in saved[:2]]
    for path in saved[:2]:
        path.unlink()
    save_figure(run_at("pocket"), draw(), "fig3", {})
    assert [path.read_bytes() for path in saved[:2]] == before


@pytest.mark.parametrize(("run", "marked"), [(run_at("pocket"), False), (run_at("smoke"), True)])
def test_a_figure_without_a_conclusion_is_marked_once(run, marked):
    fig = draw()
    save_figure(run, fig, "fig3", {})
    save_figure(run, fig, "fig3", {})
    assert [text.get_text().replace("\n", " ") for text in fig.texts] == [run.mark] * marked


@pytest.mark.parametrize(("run", "times"), [(run_at("pocket"), 0), (run_at("smoke"), 1)])
def test_a_notebook_shows_a_figure_without_a_conclusion_as_it_was_saved(run, times, monkeypatch):
    shown = []
    monkeypatch.setattr("sae_lib.companion.figures.get_ipython", object)
    monkeypatch.setattr("sae_lib.companion.figures.display", shown.append)
    fig = plt.figure()
    saved = save_figure(run, fig, "fig3", {})
    assert [picture.data for picture in shown] == [saved.png.read_bytes()] * times
    assert plt.fignum_exists(fig.number) != bool(times)  # an open one is drawn when its cell ends
    plt.close(fig)


def test_a_notebook_shows_a_figure_that_its_first_cell_closed_where_it_is_saved(monkeypatch):
    shown = []
    monkeypatch.setattr("sae_lib.companion.figures.get_ipython", object)
    monkeypatch.setattr("sae_lib.companion.figures.display", shown.append)
    fig = plt.figure()
    plt.close(fig)
    save_figure(run_at("pocket"), fig, "fig3", {})
    assert shown == [fig]


def test_the_mark_fits_into_the_smallest_figure():
    fig = draw()
    save_figure(run_at("smoke"), fig, "fig3", {})
    box = fig.texts[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= fig.bbox.width


def test_what_is_shown_names_no_folder_of_this_machine(tmp_path):
    saved = save_figure(run_at("pocket"), draw(), "fig3", {})
    assert repr(saved) == "04_transfer/fig3.png|pdf|json"


def test_a_table_is_saved_as_csv_and_as_latex_that_compiles():
    saved = save_table(
        run_at("pocket"), "table5", [{"block": "mid.0", "EV, %": "1.5 (1–2)"}, {"block": "a_b", "EV, %": ""}]
    )
    assert saved.csv.read_text() == 'block,"EV, %"\nmid.0,1.5 (1–2)\na_b,\n'
    lines = saved.tex.read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{ll}" and lines[-1] == r"\end{tabular}"
    assert lines[2] == r"block & EV, \% \\" and lines[4:6] == [r"mid.0 & 1.5 (1--2) \\", r"a\_b &  \\"]
    assert repr(saved) == "04_transfer/table5.csv|tex"


def test_a_cell_of_a_table_shows_a_number_with_its_interval_and_no_negative_zero():
    assert with_interval(Interval(0.123, -0.004, 0.2), 2) == "0.12 (0.00 to 0.20)"
    assert with_interval(Interval(-1.0, -2.25, 0.5), 1) == "-1.0 (-2.2 to 0.5)"


def test_an_interval_without_width_is_not_shown_as_certainty():
    assert with_interval(Interval(100.0, 100.0, 100.0), 1) == "100.0"


def test_no_character_of_a_table_is_a_command_to_latex():
    cells = {"plain": "up.0.1 k-sparse", "number": "-0.5 (-1 to 2)", "signs": r"50 % & a_b #1 $2 {x} \ ~ ^ < > β ×"}
    line = save_table(run_at("pocket"), "signs", [cells]).tex.read_text().splitlines()[4]
    assert line.startswith(r"up.0.1 k-sparse & $-$0.5 ($-$1 to 2) & 50 \% \& a\_b \#1 \$2 \{x\} \textbackslash{}")
    assert line.endswith(r"\textasciitilde{} \textasciicircum{} $<$ $>$ $\beta$ $\times$ \\")


def test_a_character_that_latex_has_no_sign_for_is_refused():
    with pytest.raises(ValueError, match="'a ✓' cannot be written in LaTeX: use ASCII, or"):
        save_table(run_at("pocket"), "table5", [{"a": "a ✓"}])


def test_a_table_with_uneven_rows_is_refused():
    with pytest.raises(ValueError, match="table 'table5': wanted rows with the same columns, at least one"):
        save_table(run_at("pocket"), "table5", [{"a": "1"}, {"b": "1"}])


@pytest.mark.parametrize("value", [float("nan"), np.inf, torch.tensor([float("nan")])])
def test_a_result_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="figure fig3: its result holds (nan|inf); use None for a gap"):
        save_figure(run_at("pocket"), draw(), "fig3", {"value": value})


def test_a_result_without_a_json_form_is_refused():
    with pytest.raises(TypeError, match="has no JSON form"):
        save_figure(run_at("pocket"), draw(), "fig3", {"value": object()})


def test_a_name_that_is_no_plain_name_is_refused():
    with pytest.raises(ValueError, match="figure name 'Fig 3'"):
        save_figure(run_at("pocket"), draw(), "Fig 3", {})


def test_no_text_of_the_house_style_is_smaller_than_eight_points():
    sizes = [value for key, value in style.STYLE.items() if key.endswith(("size",)) and "marker" not in key]
    assert min(size for size in sizes if isinstance(size, int | float)) >= 8


def test_each_block_has_a_colour_and_a_marker_of_its_own():
    for table in (style.BLOCK_COLORS, style.BLOCK_MARKERS):
        assert len({table[block] for block in ATTENTION_BLOCKS}) == len(ATTENTION_BLOCKS) == 11
        by_kind = {(block.split(".")[0], table[block]) for block in FLUX_BLOCKS}
        assert len(by_kind) == len({look for _, look in by_kind}) == 2  # one look for each kind of FLUX's blocks
    assert style.BLOCK_COLORS.keys() == style.BLOCK_MARKERS.keys() == {*ATTENTION_BLOCKS, *FLUX_BLOCKS}


def test_a_drawing_has_256_colours_and_keeps_paper_and_blocks_exactly(tmp_path):
    fig = Figure(figsize=(2, 2))
    axes = fig.subplots(2, 1)
    axes[0].imshow(np.random.default_rng(0).random((32, 32, 3)))
    for at, color in enumerate(sorted(set(style.BLOCK_COLORS.values()))):
        axes[1].axhline(at, color=color, linewidth=9)
    saved = save_figure(run_at("pocket"), fig, "many_colours", {"n": 1})
    with Image.open(saved.png) as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(100_000)}
    assert len(colors) <= 256
    assert {ImageColor.getrgb(color) for color in ("#FFFFFF", *style.BLOCK_COLORS.values())} <= colors
    with Image.open(save_figure(run_at("sdxl"), fig, "many_colours", {"n": 1}).png) as picture:
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 256
