# %% [markdown]
# # 03 Train SAEs
#
# **Claim checked.** A k-sparse autoencoder (SAE) trained on the updates that a block adds while SDXL Turbo draws in one
# step explains most of their variance with a few features of an overcomplete dictionary, more of it the larger k is
# (paper: Fig. 2, of which two points are measured here), and (near) no feature dies (the released SAEs' statistics). What
# the features mean is looked at below, in pictures chosen by a rule; whether they cause what they show is for later
# notebooks.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | shipped weights | shipped weights | SDXL Turbo and the published SAEs (a GPU of 12 GB), or `saes=trained`: 1.5 million prompts, a GPU of 40 GB |
# | makes | the same, marked as smoke | eight SAEs with controls, and the figures `training_curves` `learning_rate` `explained_variance` `firing` `survival` `top_pictures` | the same, without `survival` unless `compare_with` is given, without `training_curves` for published SAEs |
# | cost | 25 s, one core | some 4.5 min, two cores | days (estimated, not run) |
#
# | symbol | code | shape and meaning |
# |---|---|---|
# | ΔD_ij | a row of `vectors[block]` | `[vectors, d_model]`: the update at one position |
# | s = ENC(ΔD_ij) | `activations` | `[vectors, n_f]`: at least 0, at most k of a row non-zero |
# | f_ρ | a column of `decoder.weight` | `[d_model]`, unit length: what feature ρ adds |
# | b_pre | `pre_bias` | `[d_model]`: what every update has in common |

# %% [markdown]
# ## 3.1 Parameters and set-up
#
# Two claims get a verdict, by rules that stand here before anything is trained. The first is the paper's Fig. 2 at the
# two values of k that this companion uses. The second is read off the released SAEs' statistics: one feature of 20,480
# has a mean activation of zero. How many features fire depends on how many vectors one looks at, and we look at few, so
# the pocket rule allows one feature in twenty. At pocket scale a claim holds only if its whole 95 % interval satisfies the
# rule. Intervals are bootstraps: of explained variance over held-out prompts, of a share of features over features.

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"
source: str = ""  # sdxl: folder or Hub id of Turbo; "random" or "random/16" rehearses with random weights
seed: int = 0  # of the noise, the vectors' order, the SAEs' first weights and the bootstrap
prompt_file: str = ""  # sdxl: a text file with one prompt a line; empty for the authors' data set
saes: str = "published"  # sdxl: the authors' SAEs, or "trained": here, on 1.5 million prompts
sae_folder: str = ""  # sdxl, published: a folder with the authors' checkpoints; empty for the Hub
batch: int = 0  # prompts a call while measuring; 0 for the scale's, fewer for a small GPU
compare_with: str = ""  # folder of other SAEs to compare with; empty: the shipped ones (pocket, smoke)
pictures: int = 320  # held-out prompts on which the SAEs are measured; smoke and rehearsal take fewer
shown: int = 4  # top pictures of a feature

# %%
import json

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file, save_file

# %%
from sae_lib import (
    Claim,
    cached,
    get_scale,
    load_pipeline,
    load_prompts,
    load_saes,
    one_step_saes,
    save_figure,
    start_run,
)
from sae_lib.blocks import PAPER_BLOCKS
from sae_lib.denoising import CallSettings, stream_updates
from sae_lib.metrics import bootstrap_interval, interval_of
from sae_lib.pictures import draw_pictures, show_picture
from sae_lib.store import ROOT
from sae_lib.style import ACCENT_COLORS, BLOCK_COLORS, BLOCK_MARKERS, CONTROL_COLOR, TEXT_WIDTH
from sae_lib.transfer import measure_transfer, untrained
from sae_lib.updates import to_vectors

# %%
run = start_run("03_train_saes", globals())
counts = get_scale(scale, run.rehearsal)
larger_k_claim = Claim(
    "A larger k explains more (explained variance, difference, mean of the blocks)", at_least=0, id="C3"
)
alive = {"published": 1 / 20_480, "tolerance": 0.002, "source": "checkpoint", "id": "C4"}
dead_claim = Claim("Near no feature is dead (share that never fires, mean of the blocks)", at_most=0.05, **alive)

# %% [markdown]
# ## 3.2 What is trained, and on what
#
# An SAE reads one update vector and writes it as s = ReLU(TopK(W_enc (x − b_pre) + b_act)) and x' = W_dec s + b_pre. The
# loss is the squared error in units of the vectors' variance, and a small term in which dead features try to explain what
# the others leave over. Equations, initialisation and order of steps are the authors'; what differs at pocket scale is
# printed below the paper's values. There are two SAEs a block: k = 10 for looking at features, and k = d_model / 8 for
# Figure 3. Both have n_f = 4 d_model features. The vectors come from training prompts, one step of Turbo each, mixed over
# prompts. They are fewer than the paper's and seen several times; `TrainingStream` says how.

# %%
turbo = load_pipeline("turbo", scale, source or None)
prompt_source = "pocket" if run.rehearsal else prompt_file
trained = one_step_saes(turbo, scale, source, prompt_source, seed, saes, sae_folder)
k_small, k_large = dict.fromkeys(config.k for config in trained.saes)
small, large = trained.with_k(k_small), trained.with_k(k_large)
panel = {config.block: config for config in trained.saes if config.k == k_small}
config = panel["mid.0"]
seen = f"{counts.train_prompts:,} prompts, seen {counts.passes} times" if trained.folder else "published"
print(f"{seen}; {len(trained.saes)} SAEs")
paper = type(config).paper(config.block)
for name in ("d_model", "n_f", "batch_size", "lr", "auxk", "auxk_coef", "dead_vectors_threshold", "init_batches"):
    print(f"{name:24} {getattr(config, name):>12,.6g}   paper {getattr(paper, name):>12,.6g}")
print(f"k = {k_small} and k = {k_large}, of each block one; folders named as {config.folder_name}")

# %% [markdown]
# ## 3.3 Training
#
# `train_saes` logs the loss and three numbers of each hundredth batch (also its speed and memory): the explained variance (EV: the share of the
# variance that the reconstruction keeps, averaged over dimensions), L0 (how many of the k kept activations are not zero)
# and the share of dead features (silent for more than 3 % of the run's vectors; paper: 2.6 %). They are measured on vectors
# that are about to be trained on, so from the second pass on they are not held out.

# %%
logs = {config: trained.log(config) for config in trained.saes if trained.folder}

# %%
quantities = {
    "loss": "loss",
    "explained_variance": "explained variance",
    "l0": "L0",
    "dead_share": "dead features",
}
drawn = {c.folder_name: {key: [row[key] for row in log] for key in ("step", *quantities)} for c, log in logs.items()}

# %%
fig, axes = plt.subplots(2, 2, figsize=(TEXT_WIDTH, 3.6), sharex=True)
for ax, (key, label) in zip(axes.flat, quantities.items(), strict=True):
    for config, log in logs.items():
        line = "-" if config.k == k_large else ":"
        steps, values = ([row[name] for row in log] for name in ("step", key))
        ax.plot(steps, values, line, marker=".", markersize=2, color=BLOCK_COLORS[config.block])
    ax.set(ylabel=label, ylim=(0, None) if key != "loss" else None)
for ax in axes[1]:
    ax.set_xlabel("step")
axes[0, 0].set_yscale("log")
for block, color in BLOCK_COLORS.items():
    axes[0, 0].plot([], [], color=color, label=block)
for k, line in ((k_small, ":"), (k_large, "-")):
    axes[0, 0].plot([], [], line, color="black", label=f"k = {k}")
fig.legend(loc="outside upper center", ncols=6, columnspacing=1, handlelength=1.5)
if logs:
    save_figure(run, fig, "training_curves", drawn | {"seed": seed}, trained.folder)
else:
    plt.close(fig)
    print("published SAEs come without a training log")

# %% [markdown]
# **What we see.** One line a SAE, full lines for the larger k, one batch a point, no average over batches. Curves that
# have flattened say that the run is long enough for this number of vectors; an L0 below k says that some of the kept
# pre-activations were negative and ReLU dropped them. Where dead features appear and go again, the auxiliary term is at
# work. The larger k should lie above in explained variance throughout.
#
# ### Which learning rate?
#
# The one value that was searched for. The paper's 1e-4 belongs to 94,000 steps of 4,096 vectors; a run of some 3,000 steps
# of 512 is better served by a larger one. One command made the sweep (it takes minutes, so its result is stored):
# the larger k, all four blocks, the same vectors and steps as above, measured on held-out prompts.

# %%
sweep = json.loads((ROOT / "figures" / "results" / "sae_learning_rate.json").read_text())
print(sweep["run"]["command"])
fig, (left, right) = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.4))
for block, by_rate in sweep["result"]["blocks"].items():
    look = {"color": BLOCK_COLORS[block], "marker": BLOCK_MARKERS[block]}
    rates = sweep["result"]["learning_rates"]
    left.plot(rates, by_rate["explained_variance"], label=block, **look)
    right.plot(rates, by_rate["dead_share"], **look)
for ax, label in ((left, "explained variance, held out"), (right, "share of dead features")):
    ax.axvline(sweep["result"]["chosen"], color=CONTROL_COLOR, linestyle="--", zorder=0)
    ax.set(xscale="log", xlabel="learning rate", ylabel=label)
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
fig.legend(loc="outside upper center", ncols=4)
save_figure(run, fig, "learning_rate", sweep["result"])

# %% [markdown]
# **What we see.** Each marker is one training run of the pocket models' SAEs; the dashed line marks the rate that
# `SAEConfig.pocket` uses. Read the left panel for where the curves are highest, the right one for the rate at which
# features begin to die: of rates that explain about equally much, the one that keeps more features alive is preferable.
#
# ## 3.4 How much do they explain?
#
# Measured on held-out prompts: scenes that neither a model nor an SAE was trained on, with noise of their own. Beside each
# SAE stand its controls. *PCA* keeps as many numbers per vector as the larger k, but the same directions for every vector.
# The *untrained* SAE has random features and the trained one's b_pre. The *permuted* SAE was trained as the others on
# vectors whose dimensions had been permuted over the rows, each by itself: it knows each dimension's values and no
# direction. The shipped SAEs were made by the same recipe from another seed.

# %%
held_out = load_prompts(scale, min(pictures, 5 * counts.transfer_prompts), "held-out", prompt_source)
settings = CallSettings(1, 0.0, seed + 1_000, batch or counts.harvest_batch)  # noise that no SAE was trained on
shipped = {}
if scale != "sdxl" or compare_with:
    shipped = {k: load_saes(k, scale, compare_with, turbo.device) for k in (k_small, k_large)}

# %%
reconstructors = {
    block: {
        **{f"SAE, k = {k}": trained.with_k(k)[block] for k in (k_small, k_large)},
        **{f"shipped, k = {k}": saes[block] for k, saes in shipped.items()},
        f"PCA, {k_large} components": trained.pca[block],
        **({f"permuted, k = {k_large}": trained.permuted[block]} if trained.permuted else {}),
        f"untrained, k = {k_large}": untrained(large[block], seed),
    }
    for block in PAPER_BLOCKS
}


# %%
def measure(folder):
    """Explained variance of all held-out vectors and of bootstrap samples of their prompts: [1 + resamples]."""
    measured = measure_transfer(turbo, held_out, settings, reconstructors)
    samples = {
        f"{block}/{name}": statistics.explained_variance(counts.bootstrap, seed)[0]
        for block, named in measured.items()
        for name, statistics in named.items()
    }
    save_file(samples, folder / "samples.safetensors")


# %%
inputs = {"trained": trained.name, "compare_with": compare_with, "prompts": held_out, "seed": seed}
inputs |= {"resamples": counts.bootstrap, "batch": settings.batch_size}
measured_folder = cached("held_out_variance", inputs, measure)
samples = load_file(measured_folder / "samples.safetensors")
table = {
    name: {block: interval_of(samples[f"{block}/{name}"]) for block in PAPER_BLOCKS} for name in reconstructors["mid.0"]
}

# %%
print(f"explained variance of {len(held_out)} held-out prompts (95 % interval over prompts)")
print(f"{'':24}", *(f"{block:>22}" for block in PAPER_BLOCKS))
for name, row in table.items():
    print(f"{name:24}", *(f"{each.value:8.3f} ({each.low:.3f}-{each.high:.3f})" for each in row.values()))
mean_of_blocks = [sum(samples[f"{block}/SAE, k = {k}"] for block in PAPER_BLOCKS) / 4 for k in (k_small, k_large)]
gain = interval_of(mean_of_blocks[1] - mean_of_blocks[0])
larger_k_verdict = larger_k_claim.judge(run, gain.value, gain[1:])

# %%
fig, ax = plt.subplots(figsize=(TEXT_WIDTH, 2.7))
colors = {"SAE": ACCENT_COLORS[0], "shipped": ACCENT_COLORS[1]}
for shift, (name, marker) in enumerate(zip(table, "osov^xD"[0 if shipped else 2 :], strict=False)):
    places = [x + 0.11 * (shift - (len(table) - 1) / 2) for x in range(len(PAPER_BLOCKS))]
    color = colors.get(name.split(",")[0], CONTROL_COLOR)
    fill = color if str(k_large) in name else "white"
    ax.plot(places, [each.value for each in table[name].values()], marker, color=color, mfc=fill, label=name)
    ax.vlines(places, *zip(*(each[1:] for each in table[name].values()), strict=True), color=color)
ax.set(ylabel="explained variance, held out", ylim=(min(0, ax.get_ylim()[0]), 1))
ax.set_xticks(range(len(PAPER_BLOCKS)), PAPER_BLOCKS)
ax.grid(False, axis="x")
fig.legend(loc="outside upper center", ncols=3)
result = {"explained_variance": table, "gain_of_larger_k": gain, "prompts": len(held_out), "seed": seed}
save_figure(run, fig, "explained_variance", result, measured_folder, [larger_k_verdict])

# %% [markdown]
# **What we see.** Vertical bars are the intervals over the held-out prompts named above the table; most are shorter than
# the marker. The distance from an SAE to the grey markers is what its learnt features are worth: to the *permuted* SAE,
# what is gained by knowing directions and not only sizes; to *PCA*, what is gained, or lost, by choosing other directions
# for every vector, at the same count of numbers. The shipped SAEs should lie where ours do: what a seed changes
# is in section 3.6.
#
# ## 3.5 How often do features fire?
#
# The same held-out prompts, encoded. A feature fires where its activation is above zero. For each SAE we count at which
# share of all positions each feature fires, how many activations of a vector are not zero (L0, at most k), and how many
# features never fire at all. This is not training's *dead*: it asks the held-out vectors alone, so a rare feature may
# be counted as silent. Per picture we also keep each feature's mean activation, by which section 3.7 finds the pictures that
# excite it most, as the authors do.


# %%
def encode(folder):
    """Per held-out picture: where features fire, their mean activation, and the activations of the smaller k."""
    parts = {}
    for indices, updates in stream_updates(turbo, held_out, PAPER_BLOCKS, settings):
        for config, sae in trained.saes.items():
            values, features = sae.encode_sparse(to_vectors(updates[config.block][0].float()))
            dense = sae.to_dense(values, features).unflatten(0, (len(indices), -1))
            new = {"fires": (dense > 0).sum(1), "scores": dense.mean(1)}
            if config.k == k_small:
                new |= {"values": values, "features": features}
            for name, tensor in new.items():
                parts.setdefault(f"{config.folder_name}/{name}", []).append(tensor.cpu())
    save_file({name: torch.cat(tensors) for name, tensors in parts.items()}, folder / "codes.safetensors")


codes = load_file(cached("held_out_codes", inputs, encode) / "codes.safetensors")

# %%
positions = len(codes[f"{panel['mid.0'].folder_name}/values"]) // len(held_out)
fires = {config: codes[f"{config.folder_name}/fires"] for config in trained.saes}  # [prompts, n_f]
l0 = {config: (count.sum() / len(count) / positions).item() for config, count in fires.items()}
silent = {config: (count.sum(0) == 0).double().mean().item() for config, count in fires.items()}
for config in fires:
    print(f"{config.folder_name:32} L0 {l0[config]:6.2f}   never fires {silent[config]:7.2%} of {config.n_f}")

# %%
never_fires = torch.cat([(fires[config].sum(0) == 0).double() for config in panel.values()])  # [features]
never = bootstrap_interval(never_fires, resamples=counts.bootstrap, seed=seed)
dead_verdict = dead_claim.judge(run, never.value, never[1:])

# %%
ranks = torch.linspace(0, 1, 101, dtype=torch.float64)
often = {c: (count.double().mean(0) / positions).quantile(1 - ranks) for c, count in fires.items()}
fig, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.2), sharey=True)
for config, shares in often.items():
    ax = axes[int(config.k == k_large)]
    ax.plot(ranks, shares.where(shares > 0, torch.nan), color=BLOCK_COLORS[config.block], label=config.block)
    ax.axhline(config.k / config.n_f, color=CONTROL_COLOR, linestyle="--", zorder=0)
    ax.set(title=f"k = {config.k}", xlabel="features, most frequent first", yscale="log")
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
axes[0].set_ylabel("share of positions\nwhere it fires")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
by_name = [{c.folder_name: value for c, value in each.items()} for each in (often, l0, silent)]
result = dict(zip(("share_of_positions", "l0", "never_fires"), by_name, strict=True))
save_figure(run, fig, "firing", result | {"never": never, "prompts": len(held_out)}, trained.folder, [dead_verdict])

# %% [markdown]
# **What we see.** Features from left to right, the most frequent first; the dashed line is where all would lie if all
# fired equally often (k / n_f). A curve that starts far above it has features that are on almost everywhere: they code
# what most positions have in common rather than something particular. A curve that ends before 100 % shows the features
# that never fired here.
#
# ## 3.6 Which features survive another seed?
#
# An index means nothing outside its checkpoint: feature 7 of another training is another feature. What one may hope is
# that the same *directions* come back. The shipped SAEs saw the same prompts, with other noise, in another order, from
# other first weights. For each of our features we look for the shipped feature of the same block and k whose decoder
# column has the highest cosine with its own, and call it found again above 0.9. Several may find the same one. The
# control asks the same of an untrained SAE's features: how close a random direction comes.

# %%
found = {}
for k, others in shipped.items():
    for block in PAPER_BLOCKS:
        sae, other = trained.with_k(k)[block], others[block].decoder.weight
        found[f"{block}, k = {k}"] = (sae.decoder.weight.T @ other).max(1).values.cpu()
        found[f"{block}, k = {k}, control"] = (untrained(sae, seed).decoder.weight.T @ other).max(1).values.cpu()
survival = {name: (cosines > 0.9).double().mean().item() for name, cosines in found.items()}
print(f"{'SAE':24} found again   control")
for name, share in survival.items():
    if not name.endswith("control"):
        print(f"{name:24} {share:11.1%} {survival[name + ', control']:9.1%}")

# %%
if shipped:
    fig, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.2), sharey=True)
    levels = torch.linspace(0, 1, 101)
    above = {name: (cosines[:, None] >= levels).double().mean(0) for name, cosines in found.items()}
    for name, shares in above.items():
        block, k, *control = name.split(", ")
        look = {"color": CONTROL_COLOR, "linestyle": ":"} if control else {"color": BLOCK_COLORS[block], "label": block}
        axes[int(k == f"k = {k_large}")].plot(levels, shares, **look)
    for ax, k in zip(axes, shipped, strict=True):
        ax.axvline(0.9, color=CONTROL_COLOR, linestyle="--", zorder=0)
        ax.set(title=f"k = {k}", xlabel="cosine with the\nnearest shipped feature")
    axes[0].set_ylabel("share of features\nat least that near")
    axes[1].plot([], [], ":", color=CONTROL_COLOR, label="untrained (control)")
    handles = [*axes[0].get_legend_handles_labels()[0], axes[1].get_lines()[-1]]
    fig.legend(handles=handles, loc="outside upper center", ncols=5, columnspacing=1)
    save_figure(run, fig, "survival", {"found_again": survival, "at_least": above, "seed": seed}, trained.folder)

# %% [markdown]
# **What we see.** A curve that stays high until the dashed line has features that come back from another seed; a curve that
# falls early belongs to a dictionary that is one of many equally good ones. The dotted control falls where random
# directions lie. Explained variance hardly differs between the two seeds (section 3.4): two SAEs can explain the same
# with different features. So a feature is a property of a checkpoint, and what later notebooks say about single features
# they say about the shipped ones.
#
# ## 3.7 What excites a feature?
#
# Features are chosen by a rule and not by eye. In each block, those of the smaller k that fire in enough held-out pictures
# to fill a row are ordered by the number of pictures in which they fire; the ones at a quarter and at three quarters of
# that order are shown: a rarer and a more common one. Their pictures are those with the highest mean activation over the
# positions, as in the authors' code. Beside each picture it is shown again, lit where the feature is active: brightness
# follows the activation, from dark (zero) to full (that picture's maximum).


# %%
def choose(block):
    """A rarer and a more common feature of a block's panel SAE, and their top pictures, by the rule above."""
    in_pictures = (fires[panel[block]] > 0).sum(0)
    order = [rho for rho in in_pictures.argsort(stable=True).tolist() if in_pictures[rho] >= shown]
    scores = codes[f"{panel[block].folder_name}/scores"]
    return {
        rho: scores[:, rho].topk(shown).indices.tolist() for rho in (order[len(order) // 4], order[-len(order) // 4])
    }


def activation_maps(block, rho, top):
    """Activation maps [pictures, 1, height, width] of one feature in some pictures."""
    names = (f"{panel[block].folder_name}/{name}" for name in ("values", "features"))
    values, features = (codes[name].unflatten(0, (len(held_out), -1)) for name in names)
    return (values * (features == rho)).sum(-1)[top].unflatten(1, (1, round(positions**0.5), -1))


# %%
chosen = {(block, rho): top for block in PAPER_BLOCKS for rho, top in choose(block).items()}
drawn = draw_pictures(turbo, held_out, settings)

# %%
look = {"figsize": (TEXT_WIDTH, 0.68 * len(chosen)), "squeeze": False, "dpi": 75}  # keeps the notebook small
fig, axes = plt.subplots(len(chosen), 2 * shown, **look)
fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
for row, ((block, rho), top) in zip(axes, chosen.items(), strict=True):
    maps = activation_maps(block, rho, top)
    light = torch.nn.functional.interpolate(maps / maps.amax((-2, -1), keepdim=True), drawn.shape[-2:])
    for place, picture in enumerate(top):
        show_picture(row[2 * place], drawn[picture])
        show_picture(row[2 * place + 1], drawn[picture] * (0.15 + 0.85 * light[place]))
    row[0].set_ylabel(f"{block}\n/{rho}", rotation=0, ha="right", va="center", fontsize=8)
texts = {f"{block}/{rho}": [held_out[i] for i in top] for (block, rho), top in chosen.items()}
save_figure(run, fig, "top_pictures", {"prompts": texts, "of": len(held_out), "seed": seed}, trained.folder)

# %%
for feature, captions in texts.items():
    print(f"{feature:14}", " | ".join(captions[:2]))

# %% [markdown]
# **What we see.** A row is a feature, its pictures with the strongest response from left to right; below the figure stand
# the captions of the first two. A feature one would call interpretable lights the same kind of thing in every picture of
# its row, and little else. Some rows will look like that and some will not: the rule shows both. Looking is not measuring.
# Notebook 07 does it with a judge that knows the truth.
#
# ## 3.8 Headline numbers
#
# The tests execute the next cell again, from an empty cache, and compare digit by digit.

# %% tags=["nbval-check-output"]
for name, row in table.items():
    print(f"{name:24} explained variance", *(f"{block} {each.value:.2f}" for block, each in row.items()))
for config in trained.saes:
    print(f"{config.folder_name:32} L0 {l0[config]:.1f}, never fires {silent[config]:.1%}")

# %% [markdown]
# ## 3.9 Scorecard
#
# One line a claim: the word that its rule gave, the claim, this run's number with its interval, and the published number
# with its source where there is one. *checkpoint* means: from the statistics shipped with the released SAEs. Smoke and
# rehearsal give no verdict.

# %%
print(larger_k_verdict, dead_verdict, sep="\n")

# %% [markdown]
# ## 3.10 Limits
#
# - One training run a block and k. The intervals are over prompts; the seed is varied once, by the shipped SAEs.
# - The pocket SAEs see some hundred thousand different vectors several times; the paper's see 384 million once.
# - Explained variance is the paper's: every dimension counts alike, those of small variance too. It says nothing about
#   what the reconstruction does to the picture (notebook 06).
# - "Never fires" is counted on a few hundred pictures. It is an upper bound of what is dead.
# - Our SAEs have unit decoder columns also after the last step, the authors' only to about the learning rate.
#
# ## 3.11 Exercises
#
# Each changes one value.
# 1. `seed = 1`: the shipped SAEs' own seed. How many features are found again now, and why not all, should some be missing?
# 2. In section 3.7, put `scores[:, rho].sort().indices[:shown]` for the top pictures: what does a feature not like?
# 3. `pictures = 40`: which intervals grow, and what happens to the share that never fires?
# 4. In section 3.6, raise 0.9 to 0.99, then lower it to 0.5: which blocks' order changes?
#
# **Next:** [04](04_transfer.ipynb) takes these SAEs to four steps of Turbo and to the base model.
