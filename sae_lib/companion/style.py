"""How the figures look: sizes that stay readable in a two-column paper, and one colour and marker per block.

The colours are Okabe and Ito's, which people with the common colour-vision deficiencies tell apart; the markers and
line styles say the same again without colour.
"""

import matplotlib

TEXT_WIDTH = 5.5
"""Inches: the width of a NeurIPS page's text, for figures with several panels."""
COLUMN_WIDTH = 3.3
"""Inches: one column of a two-column page, for a single panel."""

BLOCK_COLORS = {
    "down.1.0": "#56B4E9",
    "down.1.1": "#44AA99",
    "down.2.0": "#332288",
    "down.2.1": "#0072B2",
    "mid.0": "#E69F00",
    "up.0.0": "#009E73",
    "up.0.1": "#CC79A7",
    "up.0.2": "#882255",
    "up.1.0": "#AA4499",
    "up.1.1": "#999933",
    "up.1.2": "#D55E00",
}
"""The attention blocks' colours, in the order of the forward pass: Okabe and Ito's, and some of Tol's "muted" ones
where those are used up."""
BLOCK_MARKERS = dict(zip(BLOCK_COLORS, "v<Pos^DX>*h", strict=True))
BLOCK_COLORS |= {f"double.{number}": "#0072B2" for number in range(19)}
BLOCK_COLORS |= {f"single.{number}": "#D55E00" for number in range(38)}
BLOCK_MARKERS |= {block: "os"[block.startswith("single")] for block in BLOCK_COLORS if block not in BLOCK_MARKERS}
"""FLUX's blocks by kind alone: where they stand says which they are."""
MODEL_LINES = {"turbo": "-", "base": "--"}
CONTROL_COLOR = "#767676"
"""Grey of every control and baseline, told apart by line style and label."""
ACCENT_COLORS = ("#D55E00", "#56B4E9", "#000000", "#F0E442")
"""The rest of the palette, for what is not a block."""
VERDICT_COLORS = {"holds": "#0072B2", "in part": "#F0B429", "fails": "#C04F00", "undecided": "#6B6B6B"}
"""Colours of the verdicts' words; the word itself is always written too. On "in part" (some of a claim's tests hold)
letters are black."""

STYLE = {
    "figure.figsize": (COLUMN_WIDTH, 2.4),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=["#0072B2", "#E69F00", "#009E73", "#CC79A7", *ACCENT_COLORS]),
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
}


def use_house_style() -> None:
    """Make STYLE the default of every figure that is made from now on."""
    matplotlib.rcParams.update(STYLE)
