# %% [markdown]
# # 20 Paint and explore
#
# **To make an edit**, run all cells (*Run → Run All Cells*; a minute the first time), go to section 20.2 (Jupyter's table of
# contents, on the left, finds it), and
# 1. click `star (shape)` in the list of features: it takes the place of the one that is there (**+** adds a second);
# 2. drag the mouse, a finger or a pen over the whole triangle under **Before**: the cells you cross are painted with the feature;
# 3. look at **After**, a moment later: the same picture, with the feature turned on in those cells;
# 4. try others, or search for a word (`triangle`, `large`): scores above 0.3 keep what they promise, near 0 they promise nothing;
# 5. move **Strength**: 5 to 20 edits, more breaks the picture, below zero takes the feature away; and choose *Turbo, 4 steps*,
#    which often draws the same edit better;
# 6. **Undo** goes back, **Reset** to the start; nothing can break. A new prompt is drawn on Enter.
#
# This is SAEPaint, the paper's demonstration that features act where they are put, as two widgets: the *painter* turns features
# on in a mask, the *explorer* (section 20.4) shows all features as cards. Without a kernel, on GitHub say, the widgets are missing and
# the figures beside them show what they do. No claim is judged here; notebooks 08 and 09 do that.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | shipped weights and SAEs | shipped weights and SAEs | SDXL Turbo (base for its edits), the published SAEs, CLIP (a GPU of 12 GB) |
# | makes | the same, marked as smoke | both widgets, `strokes` `cards` `positions` | the same without meanings: nothing knows the truth of a photograph |
# | cost | 20 s, one core | some 1 min, two cores; a stroke 0.1 s | not run |
#
# | symbol | code | meaning |
# |---|---|---|
# | strength | `Layer.strength` | multiples of the feature's mean non-zero activation μ_ρ: 10 adds 10 μ_ρ f_ρ to the block's output |
# | mask | `Layer.mask` | the cells of the block's grid where it is added: 8 × 8 at pocket scale, 16 × 16 in SDXL Turbo |
# | meaning | `Row.meaning` | the attribute value that a feature's map predicts best (notebook 09) |
# | score | `Row.score` | how well, on other pictures: 0 is chance, 1 perfect |
# | β | `BETAS` | modulation: β S^ρ f_ρ is added, so β = −1 turns the feature off |

# %% [markdown]
# ## 20.1 Parameters and set-up
#
# The catalogue is read from held-out captions, drawn in one step of Turbo, once: where each feature is active, how often, and
# what it means. It is kept in the cache. The pictures of a card are drawn when the card comes into view.

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"
source: str = ""  # sdxl: folder or Hub id of Turbo; "random" or "random/16" rehearses with random weights
seed: int = 0  # of the noise and of the features that are drawn by lot
base_source: str = ""  # sdxl: folder or Hub id of the base model
prompt_file: str = ""  # sdxl: a text file with one prompt a line; empty for the authors' data set
clip_source: str = ""  # sdxl: folder or Hub id of a CLIP; empty for the authors' ViT-B/32
sae_folder: str = ""  # sdxl: a folder with the authors' checkpoints; empty for the Hub
strength: float = 10.0  # of the strokes in the figures, in units of mean activation (authors' default)

# %%
import json

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from sae_lib import Catalogue, Edit, Layer, Painter, save_figure, start_run
from sae_lib.blocks import PAPER_BLOCKS
from sae_lib.catalogue import BETAS, TOP
from sae_lib.pictures import difference, lay_over, show_picture
from sae_lib.store import ROOT
from sae_lib.style import BLOCK_COLORS, TEXT_WIDTH
from sae_lib.widgets import ExplorerWidget, PainterWidget

run = start_run("20_paint_and_explore", globals())
painter = Painter(scale, source, base_source, sae_folder)
catalogue = Catalogue(painter, prompt_file, clip_source)
for block in PAPER_BLOCKS:
    rows = [row for row in catalogue.rows if row.id.block == block]
    firing = sum(row.firing_rate > 0 for row in rows)
    print(f"{block:9} {firing} of {len(rows)} features fire in {len(catalogue.prompts)} pictures")

# %% [markdown]
# ## 20.2 Paint
#
# The picture is drawn twice from the same noise, without the features and with them. *Difference* is dark where nothing changed. A
# layer is a feature with its cells, its strength and its steps; **+** in the list adds another layer. *Active in this picture* lists
# what the model itself says there; a negative strength painted over such a feature takes it away. *Model* draws the same edit
# in four steps or with the base model, which takes seconds; *Cancel* stops it. By keyboard: Tab to the picture, arrows move, space
# paints, E is the eraser, U undoes.

# %%
PainterWidget(catalogue)

# %% [markdown]
# The same without a kernel: one stroke, drawn with a feature of each block. The rule was fixed before anything was drawn: the first
# held-out caption, the two middle rows of cells, of each block the feature with the highest score; and as a control, in the same
# cells and at the same strength, another feature of the block, drawn by lot among those that fire. *Copy code* in the painter gives lines such
# as those printed here. They draw the picture again, bit for bit.

# %%
side = painter.grid("Turbo, 1 step")
stroke = tuple((float(abs(row - (side - 1) / 2) < side / 8),) * side for row in range(side))
generator = torch.Generator().manual_seed(seed)
best, lot = {}, {}
for block in PAPER_BLOCKS:
    rows = [row for row in catalogue.rows if row.id.block == block and row.firing_rate > 0]
    rows = [row for row in rows if painter.statistics[block].mean[row.id.feature] > 0]  # those that have a unit
    best[block] = max(rows, key=lambda row: (row.score, row.firing_rate))
    rows.remove(best[block])
    lot[block] = rows[torch.randint(len(rows), (1,), generator=generator).item()]


def paint(row):
    """The edit that puts a feature into the stroke."""
    return Edit(catalogue.prompts[0], seed, layers=(Layer(row.id, strength, stroke),))


painted = {block: painter.draw(paint(best[block])) for block in PAPER_BLOCKS}
print(painter.code(paint(best["up.0.1"])))

# %%
fig, axes = plt.subplots(2, 5, figsize=(TEXT_WIDTH, 2.9), dpi=100)
fig.get_layout_engine().set(w_pad=0.01, h_pad=0.02, wspace=0, hspace=0)
before = painted["mid.0"].before
show_picture(axes[0, 0], before, interpolation="none")
show_picture(axes[1, 0], lay_over(before, torch.tensor(stroke)), interpolation="none")
axes[0, 0].set_title("before", fontsize=8)
axes[1, 0].set_xlabel("the stroke", fontsize=8)
for (above, below), (block, drawn) in zip(axes.T[1:], painted.items(), strict=True):
    show_picture(above, drawn.after, interpolation="none")
    show_picture(below, difference(*drawn[:2]), interpolation="none")
    above.set_title(f"{best[block].id}\n{best[block].meaning}", fontsize=8, color=BLOCK_COLORS[block])
    below.set_xlabel("difference", fontsize=8)
result = {
    "prompt": catalogue.prompts[0],
    "seed": seed,
    "strength": strength,
    "rows of the stroke": sum(map(any, stroke)),
}
save_figure(run, fig, "strokes", result | {"features": [str(row.id) for row in best.values()]}, catalogue.prepare())

# %% [markdown]
# **What we see.** Upper row, from the left: the picture before, and after the stroke with one feature of each block. Below: the cells of
# the stroke, bright, and what changed: dark is nothing, yellow half of the range or more. If a feature acts where it is put, the
# bright pixels lie in the two middle rows. Features of blocks that hardly reach the picture (notebook 05) leave the difference dark.
#
# ## 20.3 How much changed inside the stroke, and outside
#
# A number to the eye's impression: the mean absolute change of a colour, of 255, over the pixels of the painted cells and over all others.


# %%
def changes(drawn):
    """Mean absolute change of a colour inside and outside of the stroke, of 255."""
    inside = F.interpolate(torch.tensor(stroke)[None, None], drawn.before.shape[-2:])[0, 0] > 0
    change = (drawn.after - drawn.before).abs().mean(0) * 255
    return [change[inside].mean().item(), change[~inside].mean().item()]


changed = {block: (changes(painted[block]), changes(painter.draw(paint(lot[block])))) for block in PAPER_BLOCKS}
print(f"{'':9} {'highest score':>27}{'':12}{'by lot':>26}")
for block, pair in changed.items():
    each = [
        f"{row.id!s:14} inside {a:5.1f} outside {b:5.1f}"
        for row, (a, b) in zip((best[block], lot[block]), pair, strict=True)
    ]
    print(f"{block:9} {each[0]}    {each[1]}")

# %% [markdown]
# **What we see.** One caption and two features a block are an illustration, no test. Where *inside* is well above *outside*, the
# stroke stayed; where both are near zero, the block has little to say at this strength; where the feature by lot changes as
# much as the other, it is the push that counts, not what the feature stands for. Notebook 08 measures this over many captions.
#
# ## 20.4 Explore
#
# Every feature is a card: its icon (what it draws when an empty prompt leaves it alone with the noise), the pictures in which it is most
# active with its map laid over them, the first of these modulated, its meaning with the score, and how often it fires. Search by word,
# number or block; sort by what is asked. Above the cards, a prompt's picture: the list beside it says which features are active, and
# a click on a position which of them fire there.

# %%
ExplorerWidget(catalogue)

# %%
chosen = [row for block in PAPER_BLOCKS for row in (best[block], lot[block])]
panels = [catalogue.panel(row.id) for row in chosen]

# %%
widths = [1, 0.15, *[1] * TOP, 0.15, 1, 1]
fig, axes = plt.subplots(len(chosen), len(widths), figsize=(0.8 * TEXT_WIDTH, 6), width_ratios=widths, dpi=90)
fig.get_layout_engine().set(w_pad=0.005, h_pad=0.01, wspace=0, hspace=0)
for line, row, panel in zip(axes, chosen, panels, strict=True):
    places = [line[0], *line[2 : 2 + len(panel.top)], *line[3 + TOP :]]
    for ax, picture in zip(places, [panel.icon, *panel.top, panel.strip[0], panel.strip[-1]], strict=True):
        show_picture(ax, picture, interpolation="none")
    for ax in set(line) - set(places):
        ax.axis("off")
    says = f"{row.id}   {row.meaning}" + (f", score {round(row.score, 2) + 0.0:.2f}" if row.meaning else "")
    look = {"fontsize": 7, "color": BLOCK_COLORS[row.id.block], "in_layout": False}
    line[0].text(0, 1.08, f"{says}, fires at {row.firing_rate:.1%}", transform=line[0].transAxes, **look)
    line[0].set_title(" ", fontsize=7)  # keeps the room above the row
under = {0: "icon", 2: "most active in", 3 + TOP: f"β {BETAS[0]:+g}", 4 + TOP: f"β {BETAS[-1]:+g}"}
for column, text in under.items():
    axes[-1, column].set_xlabel(text, fontsize=7)
told = [[str(row.id), row.meaning, row.score, row.firing_rate] for row in chosen]
save_figure(run, fig, "cards", {"features": told, "pictures": len(catalogue.prompts)}, catalogue.prepare())

# %% [markdown]
# **What we see.** Two cards a block, without choosing: the feature with the highest score, and the one by lot of section 20.2. If the
# bright cells of a card lie on the same thing in each picture, the feature reads that thing; if the two pictures at the right differ,
# it writes too. Most features have a low score: their maps follow no single attribute that the judge knows.
#
# ## 20.5 Which features fire where
#
# What a click in the explorer shows, for two positions of the first caption's picture, again by a rule: the cell where the feature with the
# highest score of all is most active there (if it is not, the middle), and the corner at the top left.

# %%
read = painter.read(Edit(catalogue.prompts[0], seed))
top = max(best.values(), key=lambda row: (row.score, row.firing_rate))
own_map = read[top.id.block][top.id.feature]
peak = divmod(own_map.flatten().argmax().item(), side) if own_map.any() else (side // 2, side // 2)
fires = {cell: catalogue.firing(read, cell, limit=8) for cell in (peak, (0, 0))}

# %%
fig, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.3), width_ratios=(1.1, 1, 1))
show_picture(axes[0], before, interpolation="none")
pixels = min(before.shape[-1], 256) / side
for ax, ((row, column), found) in zip(axes[1:], fires.items(), strict=True):
    corner = (column * pixels - 0.5, row * pixels - 0.5)
    axes[0].add_patch(plt.Rectangle(corner, pixels, pixels, fill=False, edgecolor="white", linewidth=3))
    axes[0].add_patch(plt.Rectangle(corner, pixels, pixels, fill=False, edgecolor="black", linewidth=1))
    names = [f"{each.id} {catalogue.row(each.id).meaning.split(' (')[0]}" for each in found]
    ax.barh(range(len(found)), [each.strength for each in found], color=[BLOCK_COLORS[each.id.block] for each in found])
    ax.set_yticks(range(len(found)), names, fontsize=7)
    ax.set(title=f"row {row}, column {column}")
    ax.invert_yaxis()
    ax.grid(False, axis="y")
fig.supxlabel("activation, in multiples of the feature's mean", size=9, x=0.68)
result = {
    f"row {cell[0]}, column {cell[1]}": [[str(each.id), each.strength] for each in found]
    for cell, found in fires.items()
}
save_figure(run, fig, "positions", result | {"seed": seed}, catalogue.prepare())

# %% [markdown]
# **What we see.** The eight strongest of the features that fire at each of the two marked cells, in multiples of their mean non-zero
# activation; the word behind a number is the meaning, the colour the block. Each block keeps at most ten features a position. If the
# words fit what is there, reading works; words that fit neither cell belong to features of a low score.
#
# ## 20.6 From the end of a stroke to its picture
#
# Measured in the browser by `make latency`, at pocket scale and in one step of Turbo: from the event that ends the stroke until the new
# picture is on the screen, with the way to the kernel and back. The time that is asked for is 300 ms.

# %%
measured = ROOT / "figures" / "results" / "painter_latency.json"
if measured.is_file():
    found, about = json.loads(measured.read_text()).values()
    times = found["milliseconds"]
    print(
        f"{len(times)} strokes, {about['cores']} cores: median {found['median']:.0f} ms, worst {found['worst']:.0f} ms"
    )
else:
    print("not measured yet: make latency")

# %% [markdown]
# ## 20.7 Headline numbers
#
# The tests execute the next cell again, from an empty cache, and compare digit by digit.

# %% tags=["nbval-check-output"]
for block, (chosen_one, by_lot) in changed.items():
    print(
        f"{block:9} {best[block].id!s:14} {best[block].meaning:20} inside {chosen_one[0]:5.1f}, outside {chosen_one[1]:5.1f};",
        end=" ",
    )
    print(f"by lot {lot[block].id!s:14} inside {by_lot[0]:5.1f}, outside {by_lot[1]:5.1f}")
print("strongest at the two positions:", *(str(found[0].id) for found in fires.values()))

# %% [markdown]
# ## 20.8 Limits
#
# - Tested in JupyterLab and Notebook 7 with Chromium (`make test-browser`) and, the painter alone, as an app (`make app`). VS Code and
#   Colab are what anywidget promises; nobody tried them here.
# - While another cell runs, the kernel answers neither widget; they say so after four seconds and go on when it is done. After a
#   restart of the kernel run the widget's cell again: nothing of it is stored in the notebook.
# - Meanings come from one judge and from maps: a feature may mean something that no attribute names, or several things at once.
#   The choice among all values is made on half of the pictures and scored on the other half; a low score says "nothing found".
# - What is painted is not what appears: features of the pocket model were not trained to be brushes, and later blocks mix positions.
# - The copied code gives the same bits on the same machine and versions; another processor may round differently.
# - At sdxl scale nothing knows what is true of a photograph: cards have no meanings, and search goes by number and by CLIP.
#
# ## 20.9 Exercises
#
# Each changes one value.
# 1. In the painter, set the strength to −10, then to 40: which block's features still leave the rest of the picture alone?
# 2. In the explorer, click the triangle; paint the first feature that fires there with −20: what does the picture lose?
# 3. Choose *Turbo, 4 steps* and let a layer act in step 0 only, then in step 3 only. Notebook 08 measures the same.
# 4. `strength = 20` in the parameters: does *outside* grow faster than *inside*?
# 5. In the explorer, sort by firing rate: what do the features that fire everywhere have in common?
