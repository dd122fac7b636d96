import matplotlib.pyplot as plt
import pytest
import torch

from sae_lib.companion.plots import add_legend, draw_band, draw_dot, picture_axes, show_row
from sae_lib.intervals import Interval

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


def test_a_legend_names_each_label_once_and_then_the_signs():
    fig, axes = plt.subplots(1, 2)
    for panel in axes:
        panel.plot([0, 1], label="both")
    add_legend(fig, {"control": (":", "grey", {"linewidth": 3})})
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["both", "control"]
    assert axes[0].lines[-1].get_linewidth() == 3
    plt.close(fig)


def test_panels_without_a_picture_stay_empty():
    fig, axes = picture_axes(1, 3, (3.0, 1.0))
    show_row(axes[0], torch.zeros(2, 3, 4, 4), ["one", "two"])
    assert [panel.axison for panel in axes[0]] == [True, True, False]
    assert [panel.get_xlabel() for panel in axes[0]] == ["one", "two", ""]
    plt.close(fig)
