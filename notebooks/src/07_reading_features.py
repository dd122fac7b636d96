# %% [markdown]
# # 07 Reading features
#
# **Claims checked.** Features of the one-step SAEs look interpretable: the pictures that excite one most have something in
# common, and turned up or alone it draws what they share (paper: feature panels; C1). up.0.1 is the block of textures (C6),
# and what a caption says of a feature predicts where it is active (C12). Panels and galleries show; version 1 of the paper
# also measured. Its formulas could not be verified, so the definitions below are **ours**, in its spirit. At pocket scale
# captions come from a judge that knows the truth, not from a language model that guesses.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | shipped weights, SAEs and CLIP | shipped weights, SAEs and CLIP | SDXL Turbo, the published SAEs, CLIP ViT-B/32 (a GPU of 12 GB) |
# | makes | the same, marked as smoke | `panels` `gallery` `metrics` `search` | the same; captions from `caption_file`, else without what needs them |
# | cost | 20 s, one core | some 2 min, two cores | not run |
#
# | symbol | code | meaning |
# |---|---|---|
# | S^ρ | `activation_maps` | where and how strongly feature ρ is active, at the block's grid |
# | top pictures | `top` | the pictures with the highest mean of S^ρ over positions (authors' rule) |
# | μ_ρ | `strength_unit` | mean non-zero activation of ρ |
# | β | `BETAS` | modulation: β S^ρ f_ρ is added to the block's output |
# | γ | `GAMMAS` | icon: with an empty prompt the block gives out its input and γ k μ_ρ f_ρ, nothing else |
# | cosine | `clip` | of two CLIP embeddings, −1 to 1 |

# %% [markdown]
# ## 7.1 Parameters and set-up
#
# `feature` asks for the panel of any feature, "down.2.1/23"; empty shows one a block, chosen by a rule. The pocket CLIP
# was trained on rendered scenes and their captions only: it shares no weight with the diffusion models.

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"
source: str = ""  # sdxl: folder or Hub id of Turbo; "random" or "random/16" rehearses with random weights
seed: int = 0  # of the noise, the random choices and the bootstrap
prompt_file: str = ""  # sdxl: a text file with one prompt a line; empty for the authors' data set
sae_folder: str = ""  # sdxl: a folder with the authors' checkpoints; empty for the Hub
clip_source: str = ""  # sdxl: folder or Hub id of a CLIP; empty for the authors' ViT-B/32
caption_file: str = ""  # sdxl: JSONL, {"feature": "down.2.1/23", "caption": "..."} a line; pocket writes its own
feature: str = ""  # the feature whose panel is drawn, "block/number"; empty for one a block

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import load_file, save_file

# %%
from sae_lib import (
    Claim,
    FeatureStatistics,
    TopKSAE,
    cached,
    get_scale,
    load_judge,
    load_pipeline,
    load_prompts,
    load_saes,
    load_statistics,
    save_figure,
    start_run,
)
from sae_lib.blocks import PAPER_BLOCKS
from sae_lib.clip import load_clip
from sae_lib.denoising import CallSettings
from sae_lib.features import FeatureId, activation_maps, search_features, strength_unit
from sae_lib.interventions import intervene, modulate, replace_with_feature
from sae_lib.judges import attribute_values, see_values
from sae_lib.metrics import bootstrap_interval
from sae_lib.pictures import draw_pictures, show_picture

# %%
from sae_lib.recipes import panel_k
from sae_lib.style import BLOCK_COLORS, BLOCK_MARKERS, CONTROL_COLOR, TEXT_WIDTH
from sae_lib.transfer import untrained
from sae_lib.updates import capture_updates, to_vectors

run = start_run("07_reading_features", globals())
counts = get_scale(scale, run.rehearsal)
small = run.rehearsal or scale == "smoke"
n_pictures, n_icons = (24, 2) if run.rehearsal else (64, 8) if scale == "smoke" else (1_000, 64)
TOP, SHARE, BETAS, GAMMAS = 15, 0.05, (-10.0, -5.0, 5.0, 10.0), (0.5, 1.0, 1.5)
sampling = {"resamples": counts.bootstrap, "seed": seed}

# %% [markdown]
# ## 7.2 The claims, as rules
#
# Fixed before the run. Each is a difference from a control, because CLIP's cosines have no natural zero: two random
# pictures of one world are alike already. Intervals are bootstraps over features of one set of SAEs.

# %%
ABOVE_ZERO = 1e-6  # so that a difference of exactly zero does not hold
claims = {
    "texture": Claim(
        "up.0.1's icons are the most like textures (cosine, up.0.1 minus the highest other block)",
        at_least=ABOVE_ZERO,
        id="C6",
    ),
    "specificity": Claim(
        "top pictures of a feature are more alike than random ones (cosine, minus random)", at_least=ABOVE_ZERO, id="C1"
    ),
    "sensitivity": Claim(
        "captions predict activation (our test: share of pictures active on > 10 % of the area, minus random features)",
        at_least=ABOVE_ZERO,
        id="C12",
    ),
}

# %% [markdown]
# ## 7.3 One pass over held-out captions
#
# Every picture is drawn once, in one step, and each block's features are read while it is drawn. Kept of each feature
# and picture: the mean activation over positions, and the share of positions where it is active. A rehearsal has no
# trained SAEs and takes untrained ones, whose unit of strength is 1.

# %%
turbo = load_pipeline("turbo", scale, source or None)
prompts = load_prompts(scale, n_pictures, "held-out", "pocket" if run.rehearsal else prompt_file)
call = CallSettings(1, 0.0, seed + 1_000, max(counts.harvest_batch, 1 + len(BETAS)))  # a strip is one call
if run.rehearsal and not sae_folder:
    width = turbo.unet.config.block_out_channels[-1]
    torch.manual_seed(seed)
    saes = {block: TopKSAE(width, 4 * width, panel_k(width)).requires_grad_(False) for block in PAPER_BLOCKS}
    saes = {block: sae.to(turbo.device) for block, sae in saes.items()}
    ones = torch.ones(4 * width)
    statistics = dict.fromkeys(PAPER_BLOCKS, FeatureStatistics(ones, ones, ones, ones, torch.tensor(1)))
else:
    saes = load_saes(10, scale, sae_folder, turbo.device)
    statistics = load_statistics(10, scale, sae_folder)
clip = load_clip(scale, "pocket" if run.rehearsal else clip_source, turbo.device)


# %%
def read_pictures(folder):
    """Pictures in 8 bits, and by block the mean activation and the active share [pictures, n_f]."""
    pictures, means, shares = [], {b: [] for b in PAPER_BLOCKS}, {b: [] for b in PAPER_BLOCKS}
    for start in range(0, len(prompts), call.batch_size):
        part = prompts[start : start + call.batch_size]
        with capture_updates(turbo, PAPER_BLOCKS) as updates:
            drawn = draw_pictures(turbo, part, call, range(start, start + len(part)))
        pictures.append((drawn * 255).round().to(torch.uint8))
        for block, sae in saes.items():
            active = sae.encode(to_vectors(updates[block][0].to(sae.pre_bias))).unflatten(0, (len(part), -1))
            means[block].append(active.mean(1).cpu())
            shares[block].append((active > 0).float().mean(1).cpu())
    found = {f"{block}.mean": torch.cat(each) for block, each in means.items()}
    found |= {f"{block}.share": torch.cat(each) for block, each in shares.items()}
    save_file(found | {"pictures": torch.cat(pictures).contiguous()}, folder / "read.safetensors")


# %%
inputs = {"scale": scale, "source": source, "seed": seed, "prompts": prompts, "sae_folder": sae_folder}
read_folder = cached("read_pictures", inputs, read_pictures)
read = load_file(read_folder / "read.safetensors")
pictures = read["pictures"].float() / 255
mean_of, share_of = ({b: read[f"{b}.{name}"] for b in PAPER_BLOCKS} for name in ("mean", "share"))
embedded = clip.embed_images(pictures)
top = {b: mean_of[b].topk(min(TOP, len(pictures)), dim=0).indices.T for b in PAPER_BLOCKS}  # [n_f, top]
enough = max(3, round(SHARE * len(pictures)))
live = {b: ((mean_of[b] > 0).sum(0) >= enough).nonzero().flatten().tolist() for b in PAPER_BLOCKS}
for block in PAPER_BLOCKS:
    print(f"{block:9} {len(live[block])} of {saes[block].n_f} features are active in at least {enough} pictures")

# %% [markdown]
# ## 7.4 Specificity decides what is shown
#
# **Specificity**: the mean cosine between pairs of 10 pictures, drawn at random from the 5 % in which the feature is most
# active. The control draws the 10 from all pictures. It orders the features of each block from least to most alike, and
# that order, not the eye, chooses what the gallery shows.


# %%
def alikeness(rows):
    """Mean cosine over the pairs of each row's pictures, [rows, pictures] -> [rows]."""
    each = embedded[rows]
    product = each @ each.mT
    n = rows.shape[1]
    return (product.sum((1, 2)) - n) / (n * (n - 1))


generator = torch.Generator().manual_seed(seed)
specificity, n_drawn = {}, min(10, enough)
for block in PAPER_BLOCKS:
    best = mean_of[block].topk(enough, dim=0).indices.T  # [n_f, enough]
    choice = torch.rand(best.shape, generator=generator).argsort(1)[:, :n_drawn]
    specificity[block] = alikeness(best.gather(1, choice))[live[block]]
random_rows = torch.rand((100, len(pictures)), generator=generator).argsort(1)[:, :n_drawn]
random_alikeness = alikeness(random_rows)
ordered = {b: [live[b][i] for i in specificity[b].argsort(descending=True).tolist()] for b in PAPER_BLOCKS}

# %% [markdown]
# ## 7.5 Feature panels
#
# For one feature a block: the most specific one, or the one asked for. Above, its top pictures with the activation map
# laid over them; below, the first of them again, unedited, modulated by β, and the feature's icons. Differs from the
# authors' figures, whose maps are jet and equally opaque everywhere: these can be read by everybody, and the picture shows through.


# %%
def overlay(ax, picture, activation):
    """A picture with a map over it: blown up block by block, scaled to [0, 1], the more opaque the more active."""
    side = picture.shape[-1] // activation.shape[-1]
    blown = np.kron(activation.numpy(force=True), np.ones((side, side)))  # [height, width] of the picture
    scaled = (blown - blown.min()) / max(blown.max() - blown.min(), 1e-9)
    color = torch.from_numpy(plt.get_cmap("plasma")(scaled)[..., :3]).movedim(-1, 0)
    opacity = torch.from_numpy(0.75 * scaled)
    show_picture(ax, (1 - opacity) * picture + opacity * color)


def maps_of(each, rows):
    """A feature's activation maps in some of the pictures, [rows, height, width]."""
    parts = []
    for start in range(0, len(rows), call.batch_size):
        part = rows[start : start + call.batch_size]
        with capture_updates(turbo, [each.block]) as updates:
            draw_pictures(turbo, [prompts[row] for row in part], call, part)
        parts.append(activation_maps(saes[each.block], updates[each.block][0], torch.tensor([each.feature]))[:, 0])
    return torch.cat(parts)


# %%
def icons(block, directions, amounts, sae=None):
    """Icons of some features of a block: empty prompt, the same noise for all."""
    sae, parts = sae or saes[block], []
    for start in range(0, len(directions), call.batch_size):
        at = slice(start, start + call.batch_size)
        part = replace_with_feature(sae, torch.tensor(directions[at]), torch.tensor(amounts[at]))
        with intervene(turbo, {block: part}):
            parts.append(draw_pictures(turbo, [""] * len(directions[at]), call, [0] * len(directions[at])))
    return torch.cat(parts)


def amount(each):
    """k times the feature's mean activation, what an icon with gamma 1 is made of; refuses a dead feature."""
    return saes[each.block].k * strength_unit(statistics[each.block], each.feature)


def strip(each, row):
    """A picture unedited and modulated, and the feature's icons."""
    repeated = [0.0, *BETAS]
    change = modulate(saes[each.block], each.feature, torch.tensor(repeated))
    with intervene(turbo, {each.block: change}):
        modulated = draw_pictures(turbo, [prompts[row]] * 5, call, [row] * 5)
    drawn = icons(each.block, [each.feature] * 3, [gamma * amount(each) for gamma in GAMMAS])
    return [*modulated, *drawn]


# %%
def refuse(each):
    """Raises ValueError for a feature of which there is nothing to show."""
    if each.block not in saes:
        raise ValueError(f"{each}: there is no SAE of {each.block}; choose one of {', '.join(PAPER_BLOCKS)}")
    amount(each)  # raises for a number that the SAE has not, and for a feature that never fired
    if not mean_of[each.block][:, each.feature].any():
        raise ValueError(f"{each} is active in none of these {len(pictures)} pictures: choose another")


asked = [FeatureId.parse(feature)] if feature else [FeatureId(block, ordered[block][0]) for block in PAPER_BLOCKS]
panels = []
for each in asked:
    refuse(each)
    rows = top[each.block][each.feature][:8].tolist()
    panels.append((each, rows, maps_of(each, rows), strip(each, rows[0])))

# %%
print(
    "pixel change by beta -10 and +10 (of 255), and between the icons of gamma 1 of this feature and the first shown:"
)
for each, _, _, below in panels:
    change = [(below[i] - below[0]).abs().mean().item() * 255 for i in (1, 4)]
    between = (below[6] - panels[0][3][6]).abs().mean().item() * 255
    print(f"{each!s:14} {change[0]:6.2f} {change[1]:6.2f}   {between:6.2f}")

# %%
fig, axes = plt.subplots(2 * len(panels), 8, figsize=(TEXT_WIDTH, 1.75 * len(panels)), squeeze=False, dpi=72)
fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
under = ["unedited", *(f"β {b:+g}" for b in BETAS), *(f"γ {g:g}" for g in GAMMAS)]
for i, (each, rows, maps, below) in enumerate(panels):
    for ax, row, activation in zip(axes[2 * i], rows, maps, strict=False):
        overlay(ax, pictures[row], activation)
    for ax, title, picture in zip(axes[2 * i + 1], under, below, strict=True):
        show_picture(ax, picture)
        ax.set_title(title, fontsize=7, pad=1.5)
    axes[2 * i, 0].set_title(f"{each}", fontsize=9, loc="left", pad=2, color=BLOCK_COLORS[each.block])
    axes[2 * i, 0].set_ylabel("top", fontsize=7)
    axes[2 * i + 1, 0].set_ylabel("edited", fontsize=7)
result = {"features": [[str(each), rows] for each, rows, *_ in panels], "pictures": len(pictures), "seed": seed}
save_figure(run, fig, "panels", result | {"units of an icon": [amount(each) for each in asked]}, read_folder)

# %% [markdown]
# **What we see.** Pairs of rows, one feature each. Upper row, from the left: the pictures in which the feature is most active,
# bright where it is. If they share a thing and the bright cells lie on it, the feature reads that thing. Lower row: β < 0
# should take it away, β > 0 should put more of it, and the icons show what the feature says when nothing else does. Where the
# numbers printed above are small, they show next to nothing: the strip repeats one picture, and so do the icons of features
# that have nothing to do with each other. Section 7.8 asks that of many features (causality), against a control.
#
# ## 7.6 Gallery: the most and the least alike, and any
#
# No cherry-picking. Of each block the rule takes the most specific feature, the least specific, and one drawn by lot, all
# among those active in enough pictures; four top pictures each.

# %%
lot = {b: live[b][torch.randint(len(live[b]), (1,), generator=generator).item()] for b in PAPER_BLOCKS}
groups = {"most alike": lambda b: ordered[b][0], "by lot": lambda b: lot[b], "least alike": lambda b: ordered[b][-1]}
gallery = {(b, name): FeatureId(b, choose(b)) for b in PAPER_BLOCKS for name, choose in groups.items()}
shown = {key: top[each.block][each.feature][:4].tolist() for key, each in gallery.items()}
gallery_maps = {key: maps_of(gallery[key], rows) for key, rows in shown.items()}

# %%
widths = [1, 1, 1, 1, 0.2, 1, 1, 1, 1, 0.2, 1, 1, 1, 1]
fig, axes = plt.subplots(4, 14, figsize=(TEXT_WIDTH, 2.6), width_ratios=widths, dpi=80)
fig.get_layout_engine().set(w_pad=0.005, h_pad=0.03, wspace=0, hspace=0)
for ax in axes.flat:
    ax.axis("off")
for line, block in enumerate(PAPER_BLOCKS):
    for j, name in enumerate(groups):
        places = axes[line, 5 * j : 5 * j + 4]
        for ax, row, activation in zip(places, shown[block, name], gallery_maps[block, name], strict=True):
            ax.axis("on")
            overlay(ax, pictures[row], activation)
        value = specificity[block][live[block].index(gallery[block, name].feature)]
        title = f"{gallery[block, name]}  ({value:.2f})"
        places[0].text(
            0, 1.08, title, transform=places[0].transAxes, fontsize=8, color=BLOCK_COLORS[block], in_layout=False
        )
        places[0].set_title(" ", fontsize=9)  # keeps the room above the row
        if line == 0:
            places[1].set_title(f"{name}\n", fontsize=9, x=1.0)
result = {" / ".join(key): [str(each), shown[key]] for key, each in gallery.items()}
save_figure(run, fig, "gallery", result | {"rule": "specificity", "pictures": len(pictures), "seed": seed}, read_folder)

# %% [markdown]
# **What we see.** In brackets the specificity. Reading from left to right the pictures of a feature should have less and less in
# common. Where the least alike still share something, the number misses what the eye finds: CLIP embeds the whole
# picture, and a feature may be about one corner of it.
#
# ## 7.7 What a feature is about, in words
#
# At pocket scale the caption of a feature is the attribute value whose presence its mean activation over a picture
# correlates with most, in words ("a star", "at night"). It is chosen on the first half of the pictures; everything measured
# with it uses the second half. At sdxl scale captions come from `caption_file`; the paper had them written by a language
# model.

# %%
half, words, matched, seen = len(pictures) // 2, {}, {}, None
if scale != "sdxl":
    from sae_lib.pocket.captions import attribute_words

    values = attribute_values()
    seen = see_values(load_judge(scale), pictures)
    sayable = torch.tensor([value != "no eye" for _, value in values])
    for block in PAPER_BLOCKS:
        z = [(x - x.mean(0)) / x.std(0).clamp(min=1e-6) for x in (mean_of[block][:half], seen[:half])]
        correlation = (z[0].T @ z[1] / half).where(sayable, -1)
        best = correlation.max(1)
        for i in live[block]:
            matched[FeatureId(block, i)] = best.indices[i].item()
    words = {each: attribute_words(*values[value]) for each, value in matched.items()}
elif caption_file:
    with open(caption_file, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    words = {FeatureId.parse(row["feature"]): row["caption"] for row in rows}
else:
    print("captions: not run (give caption_file)")

# %% [markdown]
# ## 7.8 Version 1's metrics, as we define them
#
# - **Texture**: cosine between a feature's icon (γ = 1) and the word "texture"; in the pocket world, which has no such word,
#   the mean over "striped" and "dotted". Control: icons of random directions with the same norm.
# - **Colour**: S^ρ-weighted mean distance (sum over three channels, 0 to 765) of pixels to their S^ρ-weighted mean colour, over ten
#   top pictures. Small: one colour. Control: the maps laid on ten other pictures.
# - **Sensitivity**: of the pictures whose *caption* holds the feature's words, the share in which it is active on more than 0, 10 and 30 %
#   of the positions (sdxl: of the 5 % of captions nearest to the feature's). Control: another random feature of the block on the same pictures.
# - **Causality**: cosine between the icon and the feature's words. Control: the same words with the next feature's icon. Beside it, a
#   picture drawn from the words alone: as close as a picture can be expected to come.
#
# Locality is measured in notebook 08.

# %%
texture_words = ["texture"] if scale == "sdxl" else ["striped", "dotted"]
texture_direction = clip.embed_texts(texture_words).mean(0)
measured = {b: {"specificity": specificity[b].tolist()} for b in PAPER_BLOCKS}
sampled, icon_embeddings = {}, {}
for place, block in enumerate(PAPER_BLOCKS):
    order = torch.rand(len(live[block]), generator=generator).argsort()[:n_icons].tolist()
    sampled[block] = [FeatureId(block, live[block][i]) for i in order]
    amounts = [amount(each) for each in sampled[block]]
    numbers = [each.feature for each in sampled[block]]
    icon_embeddings[block] = clip.embed_images(icons(block, numbers, amounts))
    control = clip.embed_images(icons(block, numbers, amounts, untrained(saes[block], seed + place)))
    measured[block]["texture"] = (icon_embeddings[block] @ texture_direction).tolist()
    measured[block]["texture, control"] = (control @ texture_direction).tolist()


# %%
def colour_distance(block, rows, maps):
    """S-weighted mean Manhattan distance to the S-weighted mean colour, over a feature's pictures."""
    side = pictures.shape[-1] // maps.shape[-1]
    weight = maps.cpu().repeat_interleave(side, -2).repeat_interleave(side, -1)[:, None]
    pixels = pictures[rows] * 255
    mean = (weight * pixels).sum((0, 2, 3)) / weight.sum().clamp(min=1e-9)
    far = (pixels - mean[:, None, None]).abs().sum(1, keepdim=True)
    return ((weight * far).sum() / weight.sum().clamp(min=1e-9)).item()


for block in PAPER_BLOCKS:
    for name in ("colour", "colour, control"):
        measured[block][name] = []
    for each in sampled[block][: max(2, n_icons // 4)]:
        rows = top[block][each.feature][:n_drawn].tolist()
        maps = maps_of(each, rows)
        others = torch.randint(len(pictures), (len(rows),), generator=generator).tolist()
        measured[block]["colour"].append(colour_distance(block, rows, maps))
        measured[block]["colour, control"].append(colour_distance(block, others, maps))

# %%
AREAS = (0.0, 0.1, 0.3)
later = range(half, len(prompts))


told_prompts = clip.embed_texts(prompts[half:]) if words and seen is None else None


def named_in(text):
    """Pictures of the second half whose caption holds these words; of free text the 5 % with the nearest captions (CLIP)."""
    if seen is not None:
        return [row for row in later if text.removeprefix("a ") in prompts[row]]
    cosines = told_prompts @ clip.embed_texts([text])[0]
    return (half + cosines.topk(max(5, round(SHARE * len(cosines)))).indices).tolist()


# %%
def sensitivity(block, number, rows):
    """Shares of the pictures `rows` in which the feature is active on more than each of AREAS."""
    return [(share_of[block][rows, number] > area).float().mean().item() for area in AREAS]


for block in PAPER_BLOCKS if words else ():
    measured[block] |= {"sensitivity": [], "sensitivity, control": []}
    for each in [each for each in words if each.block == block]:
        rows = named_in(words[each])
        if len(rows) >= 5 or (small and rows):
            other = live[block][torch.randint(len(live[block]), (1,), generator=generator).item()]
            measured[block]["sensitivity"].append(sensitivity(block, each.feature, rows))
            measured[block]["sensitivity, control"].append(sensitivity(block, other, rows))

# %%
for block in PAPER_BLOCKS if words else ():
    told = sampled[block] if seen is not None else [each for each in words if each.block == block][:n_icons]
    if len(told) > 1:
        texts = clip.embed_texts([words[each] for each in told])
        own = icon_embeddings[block]
        if seen is None:  # the features with a caption are others than those drawn by lot
            own = clip.embed_images(icons(block, [each.feature for each in told], [amount(each) for each in told]))
        drawn = clip.embed_images(draw_pictures(turbo, [words[each] for each in told], call))
        measured[block]["causality"] = (own * texts).sum(1).tolist()
        measured[block]["causality, control"] = (own.roll(1, 0) * texts).sum(1).tolist()
        measured[block]["causality, drawn"] = (drawn * texts).sum(1).tolist()


# %%
def interval(numbers):
    """Mean over features with its 95 % bootstrap interval; None of fewer than two."""
    return bootstrap_interval(torch.tensor(numbers), **sampling) if len(numbers) > 1 else None


summary = {}
for block in PAPER_BLOCKS:
    each = measured[block]
    for name, numbers in each.items():
        if name.startswith("sensitivity"):
            for at, area in enumerate(AREAS):
                summary[block, f"{name} {area:.0%}"] = interval([row[at] for row in numbers])
        else:
            summary[block, name] = interval(numbers)
summary["random pictures", "specificity"] = interval(random_alikeness.tolist())
for (block, name), value in summary.items():
    if value is not None:
        print(f"{block:16} {name:26} {value.value:7.3f} (95 % {value.low:.3f} to {value.high:.3f})")

# %% [markdown]
# The verdicts. For texture the value is up.0.1's mean minus the highest mean of the other blocks, the highest taken anew in
# every bootstrap sample. For sensitivity it is the mean over all features of all blocks, at 10 % of the area. Two numbers were
# added after the first run and have no rule: texture above the control (a random direction of the same norm changes the picture
# too), and causality above another feature's icon.

# %%
verdicts = []
above = [value - random_alikeness.mean().item() for b in PAPER_BLOCKS for value in measured[b]["specificity"]]
found = interval(above)
verdicts.append(claims["specificity"].judge(run, found.value, found[1:]))
n_texture = min(len(measured[b]["texture"]) for b in PAPER_BLOCKS)
own, other = (
    torch.tensor([measured[b][name][:n_texture] for b in PAPER_BLOCKS]).T for name in ("texture", "texture, control")
)
lead = lambda mean: mean[:, 3] - mean[:, :3].amax(1)
found = bootstrap_interval(own, lead, **sampling)
verdicts.append(claims["texture"].judge(run, found.value, found[1:]))
found = bootstrap_interval(own - other, lead, **sampling)
print(f"texture above random directions, up.0.1 minus the highest other: {found.value:+.4f}", end=" ")
print(f"(95 % {found.low:+.4f} to {found.high:+.4f})")

# %%
pairs = [(measured[b].get("sensitivity", []), measured[b].get("sensitivity, control", [])) for b in PAPER_BLOCKS]
gaps = [own[1] - other[1] for owns, others in pairs for own, other in zip(owns, others, strict=True)]
if len(gaps) > 1:
    found = interval(gaps)
    verdicts.append(claims["sensitivity"].judge(run, found.value, found[1:]))
pairs = [(measured[b].get("causality", []), measured[b].get("causality, control", [])) for b in PAPER_BLOCKS]
gaps = [own - other for owns, others in pairs for own, other in zip(owns, others, strict=True)]
if len(gaps) > 1:
    found = interval(gaps)
    print(f"causality above another feature's icon: {found.value:+.4f} (95 % {found.low:+.4f} to {found.high:+.4f})")
print(*verdicts, sep="\n")

# %%
drawn_metrics = ["specificity", "texture", "colour", *(["sensitivity 10%", "causality"] if words else [])]
titles = {"specificity": "specificity\n(cosine)", "texture": "texture\n(cosine)", "colour": "colour\n(0–765)"}
titles |= {"sensitivity 10%": "sensitivity\n(share, > 10 %)", "causality": "causality\n(cosine)"}
fig, axes = plt.subplots(1, len(drawn_metrics), figsize=(TEXT_WIDTH, 2.5))
for ax, name in zip(axes, drawn_metrics, strict=True):
    controls = {"sensitivity 10%": "sensitivity, control 10%"}.get(name, f"{name}, control")
    for x, block in enumerate(PAPER_BLOCKS):
        pair = (summary.get((block, name)), summary.get((block, controls)))
        if name == "specificity":
            pair = (pair[0], summary["random pictures", "specificity"])
        for value, color, shift in zip(pair, (BLOCK_COLORS[block], CONTROL_COLOR), (-0.15, 0.15), strict=True):
            if value is not None:
                ax.plot(x + shift, value.value, BLOCK_MARKERS[block], color=color)
                ax.vlines(x + shift, *value[1:], color=color)
        if name == "causality" and (block, "causality, drawn") in summary:
            ax.plot(x, summary[block, "causality, drawn"].value, "_", color="black", markersize=9)
    ax.set_xticks(range(4), PAPER_BLOCKS, rotation=90)
    ax.set_xlim(-0.6, 3.6)
    ax.set_title(titles[name])
    ax.grid(False, axis="x")

# %%
axes[0].plot([], [], "o", color="black", label="features")
axes[0].plot([], [], "o", color=CONTROL_COLOR, label="control")
axes[0].plot([], [], "_", color="black", markersize=9, label="drawn from the words")
fig.legend(loc="outside upper center", ncols=3)
result = {"summary": {" / ".join(key): value for key, value in summary.items()}, "pictures": len(pictures)}
result |= {"features": {b: {name: len(numbers) for name, numbers in measured[b].items()} for b in PAPER_BLOCKS}}
result |= {
    "published": {"source": "reported", "specificity of down.2.1": 0.71, "random": 0.5, "texture of up.0.1": 0.2}
}
save_figure(run, fig, "metrics", result | {"seed": seed}, read_folder, verdicts)

# %% [markdown]
# **What we see.** Coloured: a block's features; grey: the control of each metric; bars: 95 % intervals over features. A metric says
# something about features only as far as colour and grey are apart. Reported for SDXL by version 1: specificity of down.2.1
# 0.71 against 0.50 of random pictures, and up.0.1's texture of 0.20 as the highest [reported]; another CLIP, another model,
# so only the order can be compared.
#
# ## 7.9 Searching features by text
#
# The authors' search: CLIP embeds a text, the nearest of all features' top pictures are found, and a feature's score is the mean
# cosine of its hits times the share of its top pictures among them. Here each query is an attribute in words; a found
# feature is right as often as the judge sees that attribute in its top pictures. The control is features drawn by lot,
# whose hits come from how common the attribute is.


# %%
def precision(found, value):
    """Share of the found features' top pictures in which the judge sees the value."""
    return torch.stack([seen[top[each.block][each.feature], value].mean() for each in found]).mean().item()


ids = [FeatureId(block, i) for block in PAPER_BLOCKS for i in live[block]]
top_rows = torch.stack([top[each.block][each.feature] for each in ids])
queries = (
    [(attribute_words(*pair), i) for i, pair in enumerate(values) if pair[1] != "no eye"]
    if words and seen is not None
    else []
)
found_features, precisions = {}, []
texts = [text for text, _ in queries] or ["a dog", "a painting"]
for text, direction in zip(texts, clip.embed_texts(texts), strict=True):
    scores = search_features(direction, embedded, top_rows)
    found_features[text] = [ids[i] for i in scores.argsort(descending=True)[:5].tolist()]
for text, value in queries:
    by_lot = [ids[i] for i in torch.randint(len(ids), (5,), generator=generator).tolist()]
    precisions.append([precision(found_features[text], value), precision(by_lot, value)])

# %%
shown_texts = [texts[i] for i in torch.linspace(0, len(texts) - 1, 4).round().long().tolist()]
fig, axes = plt.subplots(4, 10, figsize=(TEXT_WIDTH, 2.7), dpi=80)
fig.get_layout_engine().set(w_pad=0.005, h_pad=0.01, wspace=0, hspace=0)
for row, text in zip(axes, shown_texts, strict=True):
    for j, each in enumerate(found_features[text]):
        for ax, picture in zip(row[2 * j : 2 * j + 2], top[each.block][each.feature][:2].tolist(), strict=True):
            show_picture(ax, pictures[picture])
        row[2 * j].set_title(str(each), fontsize=7, loc="left", pad=2, color=BLOCK_COLORS[each.block])
    row[0].set_ylabel(f"“{text}”", rotation=0, ha="right", va="center", fontsize=8)
result = {"found": {text: [str(each) for each in found] for text, found in found_features.items()}, "seed": seed}
if precisions:
    right, chance = (interval([row[i] for row in precisions]) for i in (0, 1))
    result |= {"precision": right, "by lot": chance, "queries": len(precisions)}
save_figure(run, fig, "search", result, read_folder)

# %% [markdown]
# **What we see.** Each row is a query, each pair of pictures a feature that was found for it, best first, with its two top
# pictures. The numbers below say how often the judge agrees, over all queries.

# %%
if precisions:
    for name, each in (("found by text", right), ("drawn by lot", chance)):
        print(f"{name:14} {each.value:.2f} of top pictures show it (95 % {each.low:.2f} to {each.high:.2f}),", end=" ")
        print(f"{len(precisions)} queries, 5 features each")

# %% [markdown]
# ## 7.10 Headline numbers
#
# The tests execute the next cell again, from an empty cache, and compare digit by digit.

# %% tags=["nbval-check-output"]
for block in PAPER_BLOCKS:
    print(
        f"{block:9}", *(f"{name} {np.mean(measured[block][name]):.3f}" for name in ("specificity", "texture", "colour"))
    )

# %% [markdown]
# ## 7.11 Scorecard
#
# The word that each rule of section 7.2 gave, and the number with its 95 % interval. Smoke and rehearsal give no verdict.

# %%
print(*verdicts, sep="\n")

# %% [markdown]
# ## 7.12 Limits
#
# - One set of SAEs, one pocket model: the intervals are over features, and cover neither training.
# - The definitions are ours. Version 1's own formulas were never seen, so no number here is one of its.
# - The pocket CLIP is small and knows one world. A cosine of it cannot be compared with one of OpenAI's.
# - A caption by correlation names what goes along with the feature in these pictures. Notebook 09 asks more strictly what a
#   feature means, position by position, and against stronger controls.
# - Features active in few pictures are left out everywhere here; notebook 03 counts them.
# - Icons of the pocket model say little: without a caption its pictures hang on the noise more than on one block, and those of random
#   directions differ as much. What texture and causality measure of SDXL can hardly be measured here.
#
# ## 7.13 Exercises
#
# Each changes one value.
# 1. `feature = "up.0.1/431"`: what does its panel show? Try a number from the gallery.
# 2. `SHARE = 0.2`: does specificity fall? Why must it?
# 3. In `search_features`, ask for two words at once, "a red star": are the found features about both?
#
# **Next:** [08](08_writing_with_features.ipynb) writes with features.
