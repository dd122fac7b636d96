# %% [markdown]
# # 10 RIEBench: how an edit is made
#
# **What this shows.** RIEBench edits a generated picture by *transport*: the prompt of the edit is drawn as well, its features in
# the edited region are put into the other pass, and that pass's own are taken out (paper: Fig. 4, eqs 8 and 9). This notebook takes
# one edit apart, step by step, then shows one of each of the nine kinds by every method. Notebook 11 counts.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | shipped weights, SAEs and CLIP | shipped weights, SAEs and CLIP | SDXL Turbo, the published SAEs (k = 160), RIEBench's JSON, GroundingDINO, SAM 2.1, CLIP ViT-L/14 |
# | makes | the same, marked as smoke | `figure4` `selection` `grid` | the same |
# | cost | 20 s, one core | some 1 min, two cores | not run |
#
# | symbol | code | meaning |
# |---|---|---|
# | source, target | `source_pass` `target_pass` | the pass of the edit prompt, whose features are taken; of the original prompt, which is edited |
# | mask 1, mask 2 | `masks` | the cells of the blocks' grid where the edit's phrase is found, in the edited and in the original picture |
# | μ_ρ | | mean of feature ρ over the mask, at the first of four steps |
# | score_ρ | `scores` | μ_ρ of the source as a share of all features, minus the same of the target (eq. 8) |
# | k | `units` | units added (highest scores), and as many taken off (lowest) |
# | m | `strength` | factor on all that is added or taken off |

# %% [markdown]
# ## 10.1 Parameters and set-up

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"
source: str = ""  # sdxl: folder or Hub id of Turbo; "random" or "random/16" rehearses with random weights
seed: int = 42  # of the noise: the authors'
case: str = ""  # id of the edit that is taken apart; empty for the first change of an object
riebench: str = ""  # sdxl: path or address of RIEBench's JSON
sae_folder: str = ""  # sdxl: a folder with the authors' checkpoints; empty for the Hub
prompt_file: str = ""  # sdxl: prompts that the principal components are fitted on; empty for the authors' data set
clip_source: str = ""  # sdxl: folder or Hub id of a CLIP; empty for ViT-L/14

# %%
import matplotlib.pyplot as plt
import torch

from sae_lib import save_figure, start_run
from sae_lib.edit_sweep import METHODS, Setting
from sae_lib.editing import draw_edited, run_pass, scores, select_units, transport
from sae_lib.editors import load_editor, settings_of
from sae_lib.masks import find_mask, masks_of_cases
from sae_lib.pictures import show_picture
from sae_lib.riebench import CATEGORIES, pocket_cases, read_cases
from sae_lib.style import BLOCK_COLORS, TEXT_WIDTH
from sae_lib.units import ORDER

run = start_run("10_riebench", globals())
small = run.rehearsal or scale == "smoke"
if scale == "sdxl" and not run.rehearsal and not riebench:
    raise ValueError("riebench is empty: give the path or the address of RIEBench's JSON")
cases = read_cases(riebench)[0] if riebench else pocket_cases(1 if small else 10)
editor = load_editor(scale, source, sae_folder, prompt_file, clip_source, seed)

# %% [markdown]
# ## 10.2 Nine kinds of edit
#
# Two prompts, alike but for the edit, and a phrase for what the mask should show in each picture. The pocket cases are
# written from held-out scenes: 50 of each kind, seeded. Of each kind the first whose masks can be found is shown below.

# %%
for number, name in CATEGORIES.items():
    first = next((each for each in cases if each.category == number), None)
    if first is not None:
        print(f"{name}: “{first.original_prompt}” → “{first.editing_prompt}”")
        print(f"{'':18} masks: “{first.original_phrase}”, “{first.editing_phrase}”")

# %% [markdown]
# ## 10.3 Two passes and two masks
#
# Both prompts are drawn from the same noise. In each picture the phrase is found (pocket: by the dense judge; sdxl: boxes by
# GroundingDINO, outlines by SAM 2.1), and its outline is put on the blocks' grid, half a cell wider than it is, as the authors do.


# %%
def prepare(each):
    """A case's two passes and masks, or None where there are none."""
    index = [cases.index(each)]
    passes = [run_pass(editor.pipe, [p], editor.call, index, True) for p in (each.editing_prompt, each.original_prompt)]
    side = passes[0].maps["mid.0"].shape[-1]
    (found,) = masks_of_cases([each], editor.finder, passes[0].pictures, passes[1].pictures, side)
    return None if isinstance(found, str) else (*passes, tuple(mask[None] for mask in found))


def first_with_masks(of):
    """The first of some cases that has masks, with its passes and masks."""
    return next(((each, *ready) for each in of if (ready := prepare(each)) is not None), None)


wanted = [each for each in cases if each.id == case] if case else [each for each in cases if each.category == 1]
if not wanted:
    raise ValueError(f"no case {case!r}; there are {cases[0].id!r} to {cases[-1].id!r}")
ready = first_with_masks(wanted)
if ready is None:
    raise ValueError(f"none of {', '.join(each.id for each in wanted)} has masks: ask for another case")
shown_case, source_pass, target_pass, masks = ready
print(f"{shown_case.id}: “{shown_case.original_prompt}” → “{shown_case.editing_prompt}”")
print(f"cells in mask 1: {int(masks[0].sum())}, in mask 2: {int(masks[1].sum())} of {masks[0].numel()}")

# %% [markdown]
# ## 10.4 Which features?
#
# The score of equation 8, for all features of the four blocks at once. Sorted, it has two ends: features that the edit has and the
# original lacks, and the other way round. The k highest are added, the k lowest taken off.

# %%
features = editor.bases["SAE"]
source_units, target_units = ({b: features.encode(b, p.maps[b]) for b in ORDER} for p in (source_pass, target_pass))
score = scores(source_units, target_units, masks)
k = min(16, score.shape[1] // 4)
added, taken = select_units(score, k)
widths = [each.shape[2] for each in source_units.values()]
blocks = [block for block, width in zip(source_units, widths, strict=True) for _ in range(width)]
numbers = [number for width in widths for number in range(width)]
order = score[0].argsort(descending=True, stable=True).tolist()

# %%
fig, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 3.0))
for ax, ends, title in zip(axes, (order[:k], order[-k:][::-1]), ("added", "taken off"), strict=True):
    for y, unit in enumerate(ends):
        ax.barh(y, score[0, unit].item(), color=BLOCK_COLORS[blocks[unit]])
    ax.set_yticks(range(len(ends)), [f"{blocks[unit]}/{numbers[unit]}" for unit in ends], fontsize=7)
    ax.set(title=f"{title}: the {k} of {len(order):,}", xlabel="score (difference of shares)")
    ax.invert_yaxis()
    ax.grid(False, axis="y")
result = {"case": shown_case.id, "k": k, "added": [f"{blocks[u]}/{numbers[u]}" for u in order[:k]], "seed": seed}
save_figure(run, fig, "selection", result | {"scores": [score[0, u].item() for u in order[:k]]})

# %% [markdown]
# **What we see.** Colours are blocks. A few features carry most of the difference; where the bars stay long to the bottom, k features
# are not all of it.
#
# ## 10.5 Figure 4: transport
#
# The change is made once, from the two stored passes, and added at every step of the target's pass: source features in mask 1, minus
# target features in mask 2. First the test that a strength of zero changes nothing, bit for bit.


# %%
def edit(each, ready, setting):
    """A case's picture by a method at a setting."""
    first, second, masks = ready
    method, units = METHODS[setting.method], []
    basis = editor.bases[method.basis]
    for one in (first, second):
        units.append({site: basis.encode(site, one.maps[site]) for site in basis.sites(one.maps)})
    chosen = None
    if setting.units:
        rows = scores(*units, masks, method.aggregate, method.normalised)
        chosen = select_units(rows, min(setting.units, rows.shape[1]))
    change = transport(basis, *units, chosen, masks, method.subtract).maps
    maps = {site: setting.strength * part for site, part in change.items()}
    return draw_edited(editor.pipe, [each.original_prompt], editor.call, [cases.index(each)], maps)[0]


parts = (source_pass, target_pass, masks)
still = edit(shown_case, parts, Setting("SAE", k, 0.0))
assert torch.equal(still, target_pass.pictures[0])
print("strength 0 leaves the picture as it was, bit for bit")

# %%
strengths = (1.0, 2.0, 4.0)
by_strength = [edit(shown_case, parts, Setting("SAE", k, m)) for m in strengths]
fig, axes = plt.subplots(1, 5, figsize=(TEXT_WIDTH, 1.45), dpi=90)
fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
for ax, picture, mask, title in zip(
    axes, (source_pass, target_pass), masks, ("source\nwith mask 1", "target\nwith mask 2"), strict=False
):
    side = picture.pictures.shape[-1] // mask.shape[-1]
    cells = mask[0].float().repeat_interleave(side, 0).repeat_interleave(side, 1)
    show_picture(ax, picture.pictures[0] * (0.35 + 0.65 * cells))
    ax.set_title(title, fontsize=9)
for ax, picture, m in zip(axes[2:], by_strength, strengths, strict=True):
    show_picture(ax, picture)
    ax.set_title(f"k = {k}\nm = {m:g}", fontsize=9)
result = {"case": shown_case.id, "prompts": [shown_case.original_prompt, shown_case.editing_prompt], "k": k}
save_figure(run, fig, "figure4", result | {"strengths": strengths, "seed": seed})

# %% [markdown]
# **What we see.** Outside the masks the two left pictures are darkened. From left to right in the others the edit is made more strongly:
# the question is whether what the prompt asks for appears before the rest falls apart.
#
# ## 10.6 One of each kind, by every method
#
# The paper's supplementary grids: from the original to the edit prompt's own picture, and between them the same edit by
# more and more SAE features, by steering (the whole update, nothing selected) and by neurons. The first case of each kind
# that has masks; no picture was looked at before.

# %%
of_scale = settings_of(scale, run.rehearsal)
strength = max(setting.strength for setting in of_scale if setting.method == "SAE")
sae_units = sorted({setting.units for setting in of_scale if setting.method == "SAE"})
neuron_units = sorted({setting.units for setting in of_scale if setting.method == "neurons"})
columns = [Setting("SAE", units, strength) for units in sae_units] + [Setting("steering", 0, strength)]
columns += [Setting("neurons", units, strength) for units in neuron_units[-2:]]
rows = {}
for number in CATEGORIES:
    found = first_with_masks([each for each in cases if each.category == number])
    if found is not None:
        each, *parts = found
        edited = [edit(each, parts, setting) for setting in columns]
        rows[number] = (each, [parts[1].pictures[0], *edited, parts[0].pictures[0]])

# %%
titles = ["original", *(f"SAE\n{s.units}" for s in columns if s.method == "SAE"), "steering"]
titles += [*(f"neurons\n{s.units}" for s in columns if s.method == "neurons"), "edit\nprompt"]
fig, axes = plt.subplots(len(rows), len(titles), figsize=(TEXT_WIDTH, 0.62 * len(rows) + 0.3), squeeze=False, dpi=85)
fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
for line, (number, (_, pictures)) in zip(axes, rows.items(), strict=True):
    for ax, picture in zip(line, pictures, strict=True):
        show_picture(ax, picture)
    line[0].set_ylabel(CATEGORIES[number].replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=8)
for ax, title in zip(axes[0], titles, strict=True):
    ax.set_title(title, fontsize=8, pad=2)
result = {"cases": {CATEGORIES[number]: each.id for number, (each, _) in rows.items()}, "strength": strength}
save_figure(run, fig, "grid", result | {"columns": [str(setting) for setting in columns], "seed": seed})

# %% [markdown]
# **What we see.** A row is an edit. The last column is what the edit prompt draws by itself: usually another picture, not an edited one. Good
# is a column that has the asked-for change and everything else of the first.
#
# ## 10.7 When nothing is found
#
# A phrase that names nothing in its picture makes a case fail, for all methods, with its reason; notebook 11 counts these.

# %%
try:
    find_mask(editor.finder, target_pass.pictures[0], "purple triangle circle", masks[0].shape[-1])
except ValueError as error:
    print(error)

# %% [markdown]
# ## 10.8 Headline numbers
#
# The tests execute the next cell again, from an empty cache, and compare digit by digit.

# %% tags=["nbval-check-output"]
print(shown_case.id, "mask cells", [int(mask.sum()) for mask in masks])
print("features added:", *(f"{blocks[unit]}/{numbers[unit]}" for unit in order[:3]))
print("pixel change:", *(f"{255 * (p - target_pass.pictures[0]).abs().mean():.2f}" for p in by_strength), "of 255")

# %% [markdown]
# ## 10.9 Limits
#
# - The pictures are generated: nothing here edits a photograph.
# - The masks come from the pictures as drawn; where the model disobeyed the prompt, a mask may show the wrong thing.
# - The change is static: it was computed before the edited pass ran, and does not follow where the picture goes.
#
# ## 10.10 Exercises
#
# 1. `case = "pocket-8-000"`: a background. Why do few features not suffice?
# 2. In `edit`, pass `keep_positions=False` to `transport`: which edits do not need to know where?
# 3. Take features from mask 1 shifted by one cell (`masks[0].roll(1, -1)`). What is transported now?
#
# **Next:** [11](11_riebench_results.ipynb) counts, with intervals.
