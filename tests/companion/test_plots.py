import matplotlib.pyplot as plt
import pytest
import torch

from sae_lib.companion.plots import (
    add_legend,
    draw_band,
    draw_beside_control,
    draw_blocks,
    draw_curve,
    draw_dot,
    draw_rows,
    draw_rows_of_blocks,
    draw_table,
    name_points,
    picture_axes,
    short,
    show_columns,
    show_row,
    sign_of,
)
from sae_lib.companion.style import BLOCK_COLORS, CONTROL_COLOR
from sae_lib.judges.intervals import Interval

NUMBERS = [Interval(1.0, 0.5, 2.0), Interval(3.0, 2.0, 3.5)]


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_dot_lies_on_its_interval(ax):
    draw_dot(ax, NUMBERS[0], 4.0, "s", "black")
    assert ax.lines[0].get_xydata().tolist() == [[1.0, 4.0]]
    assert ax.collections[0].get_segments()[0].tolist() == [[0.5, 4.0], [2.0, 4.0]]


def test_a_band_is_as_wide_as_the_intervals(ax):
    draw_band(ax, [0.0, 1.0], NUMBERS, color="red")
    assert ax.lines[0].get_ydata().tolist() == [1.0, 3.0]
    corners = ax.collections[0].get_paths()[0].vertices.tolist()
    assert {(0.0, 0.5), (0.0, 2.0), (1.0, 2.0), (1.0, 3.5)} <= set(map(tuple, corners))


def test_blocks_are_lines_from_above_and_kinds_lie_beside_one_another(ax):
    samples = torch.tensor([[2.0, 1.0, 4.0]]).repeat(3, 1)
    draw_blocks(ax, {"up.0.1": samples, "mid.0": samples[:, :2]}, ["up.0.1", "down.2.1", "mid.0"], zero=False)
    places = [line.get_xydata()[0].tolist() for line in ax.lines]
    assert places == [[2, -0.15], [1, 0.1], [4, 0.3], [2, 1.85], [1, 2.1]]
    assert [line.get_color() for line in ax.lines[:2]] == [BLOCK_COLORS["up.0.1"], CONTROL_COLOR]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["up.0.1", "down.2.1", "mid.0"]


def test_a_legend_names_each_label_once_and_then_the_signs():
    fig, axes = plt.subplots(1, 2)
    for panel in axes:
        panel.plot([0, 1], label="both")
    add_legend(fig, {"control": (":", "grey", {"linewidth": 3}), "dots": ("", "black", {"linestyle": (0, (1, 3))})})
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["both", "control", "dots"]
    assert axes[0].lines[-2].get_linewidth() == 3
    plt.close(fig)


def test_panels_without_a_picture_stay_empty():
    fig, axes = picture_axes(1, 3, (3.0, 1.0))
    show_row(axes[0], torch.zeros(2, 3, 4, 4), ["one", "two"])
    assert [panel.axison for panel in axes[0]] == [True, True, False]
    assert [panel.get_xlabel() for panel in axes[0]] == ["one", "two", ""]
    plt.close(fig)


def test_a_row_holds_a_mark_with_its_interval_per_kind_and_the_first_row_is_on_top(ax):
    looks = [{"shift": -0.1}, {"shift": 0.1, "color": CONTROL_COLOR, "marker": "o"}]
    draw_rows(ax, {"mid.0": NUMBERS, "up.0.0": [None, NUMBERS[1]]}, looks)
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[1.0, -0.1]], [[3.0, 0.1]], [[3.0, 1.1]]]
    assert [line.get_color() for line in ax.lines] == [BLOCK_COLORS["mid.0"], CONTROL_COLOR, CONTROL_COLOR]
    assert ax.collections[0].get_segments()[0].tolist() == [[0.5, -0.1], [2.0, -0.1]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["mid.0", "up.0.0"] and ax.yaxis.get_inverted()


def test_in_a_row_of_blocks_the_dots_lie_below_each_other_in_their_blocks_colours(ax):
    draw_rows_of_blocks(ax, {"SAE": {"mid.0": NUMBERS[0], "up.0.0": NUMBERS[1]}, "skipped": {"mid.0": None}})
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx([-0.175, 0.175])
    assert [line.get_color() for line in ax.lines] == [BLOCK_COLORS["mid.0"], BLOCK_COLORS["up.0.0"]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["SAE", "skipped"]


def test_a_curve_stands_beside_its_control_in_grey(ax):
    draw_beside_control(ax, "mid.0", ["early", "late"], torch.tensor([[3.0, 1.0], [2.0, 1.0]]).expand(3, 2, 2))
    assert [line.get_ydata().tolist() for line in ax.lines] == [[3.0, 2.0], [1.0, 1.0]]
    assert [line.get_color() for line in ax.lines] == [BLOCK_COLORS["mid.0"], CONTROL_COLOR]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["early", "late"]


def test_rows_of_panels_that_share_an_axis_all_start_on_top_and_upright_rows_are_columns():
    fig, axes = plt.subplots(1, 2, sharey=True)
    for ax in axes:
        draw_rows(ax, {"mid.0": NUMBERS[:1]}, [{}])
    assert axes[0].yaxis.get_inverted() and axes[1].yaxis.get_inverted()
    draw_rows(axes[0], {"up.0.0": NUMBERS[:1]}, [{}], upright=True)
    assert axes[0].lines[-1].get_xydata().tolist() == [[0.0, 1.0]]
    plt.close(fig)


def test_a_curve_has_an_interval_at_each_place(ax):
    draw_curve(ax, (1, 2), NUMBERS, "--s", "black")
    assert ax.lines[0].get_ydata().tolist() == [1.0, 3.0]
    assert [each.tolist() for each in ax.collections[0].get_segments()] == [[[1, 0.5], [1, 2.0]], [[2, 2.0], [2, 3.5]]]


@pytest.mark.parametrize("cmap, colors", [("Blues", ["black", "white"]), ("cividis", ["white", "black"])])
def test_a_table_writes_white_on_dark_colours(ax, cmap, colors):
    values, bold = torch.tensor([[0.0, 1.0]]), torch.tensor([[True, False]])
    draw_table(ax, values, ["row"], ["a", "b"], [["0", "1"]], bold, cmap=cmap, vmax=1)
    assert [text.get_color() for text in ax.texts] == colors
    assert [text.get_weight() for text in ax.texts] == ["bold", "normal"]


def test_a_table_leaves_gaps_for_what_is_no_number(ax):
    draw_table(ax, torch.tensor([[torch.nan, 0.5]]), ["row"], ["a", "b"], [["", ".50"]])
    assert ax.images[0].get_array().mask.tolist() == [[True, False]]


def test_short_numbers_have_no_zero_before_the_point():
    assert [short(x) for x in (0.52, -0.03, -0.001, 1.0, 10.5)] == [".52", "−.03", ".00", "1.00", "10.50"]


def test_columns_of_pictures_are_titled_in_the_colour_of_their_block():
    fig, axes = picture_axes(2, 2, (2.0, 2.0))
    show_columns(axes, {"whole": torch.zeros(2, 3, 4, 4), "up.0\n.1": torch.ones(2, 3, 4, 4)}, ["up.0.1"])
    whole, block = (panel.title for panel in axes[0])
    assert (whole.get_color(), whole.get_weight()) == ("black", "normal")
    assert (block.get_color(), block.get_weight()) == (BLOCK_COLORS["up.0.1"], "bold")
    assert [panel.get_ylabel() for panel in axes[:, 0]] == ["1", "2"]
    assert axes[1, 1].images[0].get_array().min() == 1
    plt.close(fig)


def test_two_names_of_neighbouring_points_do_not_overlap(ax):
    ax.set(xlim=(0, 1), ylim=(0, 1))
    name_points(ax, {"up.0.1": (0.5, 0.5), "mid.0": (0.51, 0.5), "conv": (0.2, 0.2)}, ["up.0.1", "mid.0"])
    assert [text.get_text() for text in ax.texts] == ["up.0.1", "mid.0"]
    first, second = (text.get_window_extent() for text in ax.texts)
    assert not first.overlaps(second)


def test_a_block_that_is_not_meant_has_an_empty_marker():
    assert "mfc" not in sign_of("mid.0")[2]
    assert sign_of("mid.0", filled=False)[2]["mfc"] == "white"
    assert sign_of("up.0.r1")[0] == "x"
