# %% [markdown]
# # 13 FLUX: the same method in another architecture
#
# **Question.** Does the method carry over to FLUX-schnell, a transformer in which text and picture are two streams?

# %% tags=["answer"]
from sae_lib.companion import show_answer

show_answer("13_flux")

# %% [markdown]
# ![What single blocks of the pocket FLUX carry of a caption, and what its SAEs explain over four steps](../figures/13_flux/blocks.png)
#
# **Where the caption enters.** Each block alone reads another caption, and the judge says how much of that caption the
# picture then shows. The paper decomposes the last double-stream block.
#
# ## 13.0 About this notebook
#
# The second half of the paper (its appendix C) carries the method to FLUX-schnell: an SAE on the image stream's update
# in the last of 19 double-stream blocks, in one step. These claims are checked on a pocket FLUX, which is built from
# FLUX's own classes and trained on the pocket world:
#
# - A feature of that block's SAE that is turned on draws what it reads (C11).
# - The SAE of one step explains the updates of four steps.
# - Some features are active everywhere. The authors leave 20 of them out of their maps: what do they explain?
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | shipped weights and SAEs | shipped weights and SAEs | FLUX.1-schnell and the author's SAE, a GPU |
# | makes | the same, marked as smoke | `pictures` `blocks` `always_on` `figure1_flux` | the same without what a judge says |
# | cost | 20 s, one core | some 2 min, one core | not run |
#
# | symbol | code | meaning |
# |---|---|---|
# | double.0, ... | `FLUX_BLOCKS` | double-stream blocks: text and picture have weights of their own |
# | single.0, ... | | single-stream blocks, which come after them: one set of weights for both |
# | x, v | | latents and the velocity that the model predicts; in one step the picture is noise - v(noise) |

# %% [markdown]
# ## 13.1 Parameters and set-up

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"
source: str = ""  # sdxl: folder or Hub id of FLUX.1-schnell; "random" or "random/16" rehearses with random weights
seed: int = 0  # of noise, random features and the bootstrap
prompt_file: str = ""  # sdxl: a text file with one prompt per line; empty for the authors' data set
sae_folder: str = ""  # sdxl: a folder with the author's checkpoint; empty for the Hub
blocks: str = ""  # "chosen" (default at pocket scale), "paper" (the last double block), or codes with commas

# %%
import matplotlib.pyplot as plt
import torch

from sae_lib import (
    Assets,
    CallSettings,
    Claim,
    Reading,
    bootstrap,
    cached_tensors,
    draw_pictures,
    features,
    interval_of,
    start_run,
)
from sae_lib.companion import ABOVE_ZERO, CONTROL_COLOR, PRIMARY, TEXT_WIDTH, save_answer, save_figure
from sae_lib.features import by_reader, draw_injected, share_carried, skip_block
from sae_lib.models import blocks_of
from sae_lib.pocket import count_statements
from sae_lib.saes import measure_transfer, untrained

run = start_run("13_flux", globals())

# %%
from sae_lib.companion import (
    add_legend,
    draw_band,
    look_of,
    picture_axes,
    rise_over_random,
    show_row,
    show_written,
    we_see,
)

assets = run.assets(architecture="flux")
cut = scale == "smoke" or run.rehearsal
last = assets.with_blocks("paper").blocks[0]
working = assets.with_blocks(list(dict.fromkeys([last, *assets.blocks])))
sampling = {"resamples": assets.counts.bootstrap, "seed": seed}
flux, settings = assets.pipe(), CallSettings(1, 0.0, seed, 16)
codes = list(blocks_of(flux))
print(f"{len(codes)} blocks; the paper's: {last}; looked at: {', '.join(working.blocks)}")

# %% [markdown]
# ## 13.2 The claims, as rules
#
# The primary test is that of notebook 08 for Turbo: features of the last double-stream block are turned on in pictures
# that do not show what they read, and random features of the same norm in the same place are subtracted.

# %%
on_claim = PRIMARY["C11"]
explains = Claim(
    "FLUX: the one-step SAE explains four steps (above an untrained SAE, mean of the steps)",
    at_least=0.2,
    id="C11",
    control="an untrained SAE of the same size",
)
carries = Claim(
    "FLUX: the paper's block carries more of a caption than the mean of the others (share, difference)",
    at_least=ABOVE_ZERO,
    id="C11",
    control="the other blocks",
)

# %% [markdown]
# ## 13.3 What it draws
#
# The pocket FLUX in one step and in four, beside the pocket Turbo in one step, for the first captions that no model was
# trained on. The judge says how many of the statements of more captions are fulfilled.

# %%
texts, few = assets.prompts(8 if cut else 40), 4 if cut else 8
models = {"FLUX, 1 step": (assets, 1), "FLUX, 4 steps": (assets, 4)}
if scale != "sdxl":
    models["Turbo, 1 step"] = Assets(scale), 1


def draw_all():
    """The same captions by each model."""
    return {
        name: draw_pictures(of.pipe(), texts, CallSettings(steps, 0.0, seed, 16))
        for name, (of, steps) in models.items()
    }


drawn = cached_tensors("flux_pictures", assets.identity | {"texts": texts, "seed": seed, "by": list(models)}, draw_all)[
    1
]
obeyed = {}
if assets.known:
    captions = assets.captions(len(texts))
    found = {name: count_statements(assets.judge, pictures, captions).sum(1) for name, pictures in drawn.items()}
    obeyed = {name: bootstrap(of, lambda mean: mean[..., 0] / mean[..., 1], **sampling) for name, of in found.items()}
    obeyed = {name: interval_of(samples) for name, samples in obeyed.items()}

# %%
fig, axes = picture_axes(len(models), few, (TEXT_WIDTH, 0.75 * len(models)))
for line, name in zip(axes, models, strict=True):
    show_row(line, drawn[name][:few])
    share = f"\n{100 * obeyed[name].value:.0f} %" if obeyed else ""
    line[0].set_ylabel(name.replace(", ", "\n") + share, fontsize=7)
save_figure(run, fig, "pictures", {"obeyed": obeyed, "captions": len(texts), "seed": seed})

# %%
if obeyed:
    percent = {name: [f"{100 * x:.0f}" for x in one] for name, one in obeyed.items()}
    percent = {name: f"{value} % ({low} to {high})" for name, (value, low, high) in percent.items()}
    said = ", ".join(f"{name} {share}" for name, share in percent.items())
    we_see(run, f"Of what {len(texts)} captions state the judge finds, with 95 % intervals: {said}.")

# %% [markdown]
# ## 13.4 Which block?
#
# The rule of notebook 05: one block alone reads another caption B. In FLUX the text is a stream that every block
# changes, so the block reads the text stream that B has at this block, on the same latents. What the picture then shows
# of B was written by this block. The share is 0 where B is found no better than in caption A's own picture, 1 where it
# is found as well as when all blocks read B. Beside it stands how far the picture moves when the block is left out,
# which is how the paper chose its blocks.

# %%
pairs = assets.prompts(6 if cut else 48)
others, groups = [*pairs[1:], pairs[0]], {"all": codes} | {block: [block] for block in codes}
ablated = pairs[: 2 if cut else 16]


def exchange():
    """By block what is found of caption B, `[pairs, families, 2]`, and how far the picture moves without the block."""
    stated = assets.captions(len(pairs))
    stated = [*stated[1:], stated[0]]
    kept = {}
    for name, pictures in by_reader(draw_injected, flux, pairs, others, groups, settings):
        kept[name] = count_statements(assets.judge, pictures, stated)
    changes = {"whole": {}} | {block: {block: skip_block} for block in codes}
    without = dict(features.draw_changed(flux, ablated, settings, changes))
    return kept | {f"moved/{block}": assets.distance(without["whole"], without[block]) for block in codes}


# %%
if assets.known:
    inputs = assets.identity | {"pairs": pairs, "ablated": len(ablated), "seed": seed}
    folder, exchanged = cached_tensors("flux_blocks", inputs, exchange)

    def shares_of(name):
        rows = torch.stack([exchanged[of] for of in (name, "nothing", "all")], 1)
        found = lambda means: means[..., 0] / means[..., 1].clamp(min=1e-9)
        return bootstrap(rows, lambda means: share_carried(*found(means).unbind(1)).mean(-1), **sampling)

    shares = {block: shares_of(block) for block in codes}
    of_rest = torch.stack([shares[block] for block in codes if block != last]).mean(0)

# %% [markdown]
# ## 13.5 Four steps with the SAE of one step
#
# The SAEs saw the updates of one step at the highest noise. Here they reconstruct the updates of all four steps, on
# held-out captions and other noise. *Overlap* is the share of active features that two adjacent steps have in common at
# the same place (paper: Fig. 3 has both for Turbo and base).

# %%
four = CallSettings(4, 0.0, seed + 1_000, 16)
held_out = assets.prompts(6 if cut else 60)
by_block = {block: {"one-step SAE": sae, "untrained": untrained(sae, seed)} for block, sae in working.saes().items()}


def over_steps():
    """Samples `[steps or pairs of steps, 1 + resamples]` by quantity, block and SAE."""
    measured, samples = measure_transfer(flux, held_out, four, by_block), {}
    for block, named in measured.items():
        for name, statistics in named.items():
            for quantity in ("explained_variance", "total_variance_explained", "active_set_iou"):
                samples[f"{quantity}/{block}/{name}"] = getattr(statistics, quantity)(assets.counts.bootstrap, seed)
    return samples


inputs = working.identity | {"held_out": held_out, "four": str(four), "seed": seed}
transfer_folder, transferred = cached_tensors("flux_transfer", inputs, over_steps)


# %%
def curve(ax, samples, **look):
    """Numbers over steps with their intervals."""
    numbers = [interval_of(step) for step in samples]
    draw_band(ax, list(range(1, 1 + len(numbers))), numbers, **look)


# %%
fig, axes = plt.subplots(1, 3 if assets.known else 2, figsize=(TEXT_WIDTH, 2.3), dpi=110)
panels = dict(zip(("blocks", "explained_variance", "active_set_iou")[-len(axes) :], axes, strict=True))
colors = dict(zip(working.blocks, ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), strict=False))
looks = {block: look_of(block) | {"color": colors.get(block, CONTROL_COLOR)} for block in codes}
if assets.known:
    ax = panels["blocks"]
    for x, block in enumerate(codes):
        of = interval_of(shares[block])
        ax.plot([x], [of.value], linestyle="", **looks[block])
        ax.vlines([x], of.low, of.high, color=looks[block]["color"])
    ax.set(title="caption carried", ylabel="share")
    ax.set_xticks(range(len(codes)), codes, rotation=90, fontsize=6)
plt.close(fig)  # shown when it is complete

# %%
titles = {"explained_variance": ("explained variance", -0.2), "active_set_iou": ("overlap of steps", 0)}
for quantity, (title, bottom) in titles.items():
    for block in working.blocks:
        curve(panels[quantity], transferred[f"{quantity}/{block}/one-step SAE"], label=block, **looks[block])
    grey = {"color": CONTROL_COLOR, "linestyle": ":"}
    curve(panels[quantity], transferred[f"{quantity}/{last}/untrained"], label=f"{last}, untrained", **grey)
    panels[quantity].set(title=title, ylim=(bottom, 1))
panels["explained_variance"].set(xlabel="step", xticks=range(1, 5))
panels["active_set_iou"].set(xlabel="steps")
panels["active_set_iou"].set_xticks(range(1, 4), ["1, 2", "2, 3", "3, 4"])
add_legend(fig)

# %%
level = lambda name: transferred[f"explained_variance/{last}/{name}"].mean(0)
floor = level("untrained").clamp(min=0)  # an SAE that explains less than nothing is no control
above = (level("one-step SAE") - floor) / (1 - floor)
of_four = interval_of(above)
verdicts = [explains.judge(run, of_four.value, of_four[1:])]
explained = {block: transferred[f"explained_variance/{block}/one-step SAE"] for block in working.blocks}
total = {block: transferred[f"total_variance_explained/{block}/one-step SAE"] for block in working.blocks}
result = {"explained": {block: [interval_of(step) for step in steps] for block, steps in explained.items()}}
result["of_total_variance"] = {block: [interval_of(step) for step in steps] for block, steps in total.items()}
if assets.known:
    gap = interval_of(shares[last] - of_rest)
    verdicts.append(carries.judge(run, gap.value, gap[1:]))
    result["share"] = {block: interval_of(shares[block]) for block in codes}
save_figure(run, fig, "blocks", result | {"prompts": len(held_out), "seed": seed}, transfer_folder, verdicts)

# %%
text = f"Over four steps the one-step SAE of {last} explains between "
at = [interval_of(step).value for step in explained[last]]
text += f"{min(at):.2f} and {max(at):.2f} of the variance; the untrained one at most "
text += f"{transferred[f'explained_variance/{last}/untrained'][:, 0].max():.2f}."
lowest = min(explained[block][:, 0].min() for block in working.blocks)
if lowest < 0:
    text += f" In other blocks it falls to {lowest:.1f}: the measure counts each dimension alike, and some hardly vary."
together = ", ".join(f"{block} {total[block][-1, 0]:.2f}" for block in working.blocks)
text += f" Of the variance of all dimensions together the SAEs explain in the last step: {together}."
shared, by_chance = (transferred[f"active_set_iou/{last}/{name}"][:, 0] for name in ("one-step SAE", "untrained"))
text += f" Of the active features of {last} two adjacent steps share {shared.min():.2f} to {shared.max():.2f}, of an "
text += f"untrained SAE's {by_chance.min():.2f} to {by_chance.max():.2f}."
we_see(run, text)

# %%
if assets.known:
    ordered = sorted(codes, key=lambda block: -result["share"][block].value)
    most, own_share = ordered[0], result["share"][last].value
    text = f"By itself {last} carries {own_share:.2f} of a caption and is number {1 + ordered.index(last)} of {len(codes)}"
    text += "." if most == last else f"; {most} carries most, {result['share'][most].value:.2f}."
    we_see(run, text)

# %% [markdown]
# **How to read it.** Left, a point is a block, with its 95 % interval over pairs of captions: circles are double-stream,
# squares single-stream blocks, grey those that are not looked at. In the middle and on the right a line is a block's
# SAE, trained on step 1 alone, with a band for its interval over captions; an untrained SAE is dotted. Explained
# variance is the authors' mean over dimensions. Those that hardly vary can pull it far below 0: such a line leaves the
# panel. The share of all dimensions' variance together stands in the text.
#
# ## 13.6 Features that are always on
#
# In FLUX the authors found 20 features of 12,288 that are active nearly everywhere, and leave them out of their maps
# [code]. Nothing is known of what these explain. Here a feature is *always on* if it is active in more than nine of ten
# places of unseen pictures. Whether there are such features or not, the SAE reconstructs with all its features, without
# the most active ones, and with these alone.

# %%
ALWAYS, LEFT_OUT = 0.9, 20  # as many features as the authors leave out
paper = assets.with_blocks("paper")
paper.counts = assets.counts
reading, later = Reading(paper), Reading(paper, later=True)
sae = paper.saes()[last]
rate = (later.activations(last, list(range(len(later)))) > 0).float().mean((0, 1))
always, often = (rate > ALWAYS).nonzero().flatten().tolist(), rate.topk(LEFT_OUT).indices.tolist()
print(f"{len(always)} of {sae.n_f} features of {last} are active in more than {ALWAYS:.0%} of the places")
print(f"the {LEFT_OUT} most active ones are so in {rate[often[-1]]:.0%} to {rate.max():.0%} of the places")


# %%
class Part(torch.nn.Module):
    """The SAE with some of its features left out of every code."""

    def __init__(self, left_out):
        super().__init__()
        self.kept = torch.ones(sae.n_f)
        self.kept[left_out] = 0

    def encode(self, x):
        return sae.encode(x) * self.kept

    def decode(self, code):
        return sae.decode(code)


# %%
others_on = [feature for feature in range(sae.n_f) if feature not in often]
parts = {"all features": Part([]), f"without the {LEFT_OUT}": Part(often), f"the {LEFT_OUT} alone": Part(others_on)}


def explain_in_parts():
    """Samples of the explained variance at one step, by part."""
    once = CallSettings(1, 0.0, seed + 1_000, 16)
    measured = measure_transfer(flux, held_out, once, {last: parts})[last]
    return {name: of.explained_variance(assets.counts.bootstrap, seed)[0] for name, of in measured.items()}


inputs = paper.identity | {"held_out": held_out, "left_out": often, "seed": seed}
parts_folder, in_parts = cached_tensors("flux_always_on", inputs, explain_in_parts)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.0), dpi=110)
left.plot(range(1, 1 + sae.n_f), rate.sort(descending=True).values, color="#0072B2")
left.axhline(ALWAYS, color=CONTROL_COLOR, linestyle=":")
left.axvline(LEFT_OUT, color=CONTROL_COLOR, linestyle="--", linewidth=1)
left.set(xscale="log", xlabel="features, most active first", ylabel="share of places", ylim=(0, 1))
for y, of in enumerate(interval_of(in_parts[name]) for name in parts):
    right.plot([of.value], [y], "o", color="#0072B2")
    right.hlines(y, of.low, of.high, color="#0072B2")
right.set_yticks(range(len(parts)), list(parts))
right.set(xlabel="explained variance", ylim=(2.5, -0.5))
result = {"always_on": always, "left_out": often, "explained": {name: interval_of(in_parts[name]) for name in parts}}
result |= {"most_active": rate.max().item(), "seed": seed}
save_figure(run, fig, "always_on", result | {"prompts": len(held_out)}, parts_folder)

# %%
whole, without, alone = (of.value for of in result["explained"].values())
text = f"{len(always)} features of {sae.n_f} are always on (the authors name 20 of 12,288); the most active one is on in "
text += f"{rate.max():.0%} of the places. Without the {LEFT_OUT} most active the SAE explains {without:.2f} in place of "
we_see(run, text + f"{whole:.2f}; these alone explain {alone:.2f}.")

# %% [markdown]
# **How to read it.** Left, each feature of the last double-stream block by the share of places in which it is active;
# the dotted line is the bound of *always on*, the dashed one the number that is left out. Right, the explained variance
# with parts of the SAE, with 95 % intervals over captions.
#
# ## 13.7 Turned on, does a feature draw what it reads?
#
# As in notebook 08: of the last double-stream block the features that read best are turned on in later pictures that do
# not show their value, at the strength that a rule chooses on other pictures. Each is compared with a random live
# feature of the same block, of the same norm in the same place.

# %%
on_verdicts = []
if assets.known:
    effects = features.effects_in_one_step(reading, later, *((3, 2) if cut else (20, 4)), seed=seed)
    rises = effects.measured["on"][..., 1] - effects.measured["on"][..., 0]
    samples = features.samples_by_block(effects.trials["on"], rises, **sampling)
    own, random = (interval_of(samples[last][:, kind]) for kind in range(2))
    gain = rise_over_random(samples)
    on_verdicts.append(on_claim.judge(run, gain.value, gain[1:]))
    print(f"rise with the feature {own.value:.2f}, with a random one {random.value:.2f}: {on_verdicts[0]}")

# %%
best, strength_of = features.named_features(reading, 4), {last: 10.0}
if assets.known:
    best, strength_of = (
        features.one_per_value(features.well_read(reading, 20), 2 if cut else 4),
        effects.strengths.chosen,
    )
rows = features.captions_for(best, later, features.ease_of_captions(later))
trials, pictures = features.draw_lines(later, best, rows, strength_of, seed)
fig, lines, signs = show_written(later, trials, pictures, assets.models)
result = {"lines": lines, "signs": signs, "strength": strength_of, "seed": seed}
if assets.known:
    result |= {"rise": {"feature": own, "random": random}, "trials": len(rises)}
save_figure(run, fig, "figure1_flux", result, effects.folder if assets.known else None, on_verdicts)

# %%
if assets.known:
    text = f"In {len(rises)} trials the value that a feature reads appears {100 * own.value:.0f} % more often when it "
    we_see(run, text + f"is turned on, and {100 * random.value:.0f} % more often when a random one is.")

# %% [markdown]
# **Figure 1's fourth row.** A line is a feature and a caption. Each group of three is the unedited picture, the feature
# turned on, and a random feature of the same size in the same place: in one step, then in four. A tick says that the
# judge sees the value. The lines are the best-read features of different values, whatever they draw; they are examples.
# The test counts all trials.
#
# ## 13.8 Verdicts

# %% tags=["nbval-check-output"]
print(*on_verdicts, *verdicts, sep="\n")

# %%
answer = "Not judged: there is no judge of photographs."
if assets.known:
    gained, low, high = (100 * x for x in (gain.value, *gain[1:]))
    answer = f"{on_verdicts[0].yes_or_no}: turned on, a feature of the last double-stream block draws what it reads in "
    answer += f"{gained:.0f} ({low:.0f} to {high:.0f}) more of 100 pictures than a random one; we asked for at least "
    answer += f"{100 * on_claim.at_least:.0f}."
save_answer(run, f"{answer} The one-step SAE explains {min(at):.2f} to {max(at):.2f} of the variance of four steps.")

# %% [markdown]
# ## 13.9 Limits
#
# - A pocket FLUX of 10 blocks is no FLUX of 57: what its last double-stream block does need not be what FLUX's does.
# - The injection reads the other caption's text stream. It says what a block's image stream takes from the text there,
#   and nothing of what the block does to the text for the blocks behind it.
# - At sdxl scale nothing is judged.
#
# ## 13.10 Exercises
#
# Each changes one value.
# 1. `blocks = "single.0"`: does the first single-stream block explain more over steps?
# 2. `LEFT_OUT = 100`: how much do the hundred most active features explain?
#
# **Next:** [20](20_paint_and_explore.ipynb) paints.
