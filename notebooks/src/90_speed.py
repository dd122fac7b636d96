# %% [markdown]
# # 90 Speed
#
# **Question.** How long does the paper's training take, and why not less? The authors' way to four SAEs stores 15.7 TB,
# runs the whole pipeline for every picture and trains with sparse products in coordinate form. Here the U-Net runs only
# as far as the last block that is asked for, vectors go straight into training, and one training step has one dense
# product. This notebook states the floor of each part from its sizes, and how far above it we are, from measurements
# that are made by three commands and stored. It runs nothing heavy itself.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | `figures/results/` | `figures/results/` | `figures/results/` |
# | makes | the same, marked as smoke | `sae_step` `harvest` `scaling` `precision` `cards` | the same |
# | cost | 5 s, one core | 5 s, one core | 5 s, one core |
#
# | symbol | meaning |
# |---|---|
# | floor | the time of the one product that cannot be avoided, measured beside the rest |
# | times ours | another method's seconds over ours, the median over rounds of one process |

# %% [markdown]
# ## 90.1 Parameters and set-up
#
# Machines differ and are noisy, so only ratios are compared, each from one process in which the methods took turns.
# Absolute seconds belong to the machine that the record names. What has not been run says so.

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"; the stored measurements are the same
source: str = ""  # not used here
seed: int = 0  # not used here

# %%
import json
from statistics import median

import matplotlib.pyplot as plt

from sae_lib import ROOT, SAEConfig, save_figure, start_run
from sae_lib.activations import BUFFER
from sae_lib.companion import BLOCK_COLORS, BLOCK_MARKERS, CONTROL_COLOR, TEXT_WIDTH
from sae_lib.models import PARAMETERS

# %%
run = start_run("90_speed", globals())
results = ROOT / "figures" / "results"
stored = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
step, harvest, scaling, precision = (stored[name] for name in ("sae_step", "harvest", "scaling", "precision"))
for record in (step, harvest, scaling, precision):
    print(*(f"{name}: {value}" for name, value in record["run"].items()), sep="   ")

# %% [markdown]
# ## 90.2 The floor of a training step
#
# Every vector must meet every feature once: 2 · batch · d_model · n_f operations. All else touches only the k kept
# activations of a vector, or is a pass over the parameters: with k = 10 of 5,120 the decoder and both gradients are
# five hundred times smaller than the product. A dense step has six such products (forward and backward of both layers),
# so a method that leaves them out can be some six times faster at best where products dominate. Adam reads and writes
# parameters, gradients and two moments: seven passes over 4 · 2 · d_model · n_f bytes.

# %%
config = step["result"]["config"]
d_model, n_f, k, batch = (config[name] for name in ("d_model", "n_f", "k", "batch_size"))
product, kept = 2 * batch * d_model * n_f, 2 * batch * d_model * k
print(f"the encoder's product   {product / 1e9:8.1f} GFLOP")
print(f"decoder, both gradients {3 * kept / 1e9:8.2f} GFLOP on the kept activations, {3 * product / 1e9:.1f} if dense")
print(f"Adam                    {7 * 4 * 2 * d_model * n_f / 1e9:8.2f} GB read and written")

# %%
seconds = step["result"]["seconds"]
order = sorted(seconds, key=lambda name: sorted(seconds[name])[len(seconds[name]) // 2])
fig, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.4), sharey=True, width_ratios=(2, 1))
for row, name in enumerate(order):
    color = "black" if name == "ours" else CONTROL_COLOR
    axes[0].plot(seconds[name], [row] * len(seconds[name]), "o", color=color, alpha=0.6, markersize=3)
    if memory := step["result"]["peak_memory_gb"].get(name):
        axes[1].barh(row, memory, color=color, height=0.6)
axes[0].axvline(
    sorted(seconds["encoder product alone"])[len(seconds["ours"]) // 2], color=CONTROL_COLOR, linestyle="--"
)
axes[0].set(xlabel=f"seconds per step, {len(seconds['ours'])} rounds", xlim=(0, None), yticks=range(len(order)))
axes[0].set_yticklabels(order)
axes[1].set(xlabel="peak memory (GB)")
save_figure(run, fig, "sae_step", {"seconds": seconds, "memory": step["result"]["peak_memory_gb"], "config": config})

# %% [markdown]
# **What we see.** One dot per round; the dashed line is the product alone. What lies between it and our dots is TopK,
# the passes over the parameters (Adam, unit columns) and the sparse products. Memory is that of a whole process with
# its libraries, so small differences say little. sae-lens and eai-sparsify minimise their own losses, without our
# auxiliary term's mean and, in sae-lens, with another normalisation: what is compared is one step of each method as
# it is.
#
# ## 90.3 Many SAEs on one stream
#
# On a CPU one SAE's products are spread over all cores, and its smaller operations are not. Several SAEs are therefore
# trained at once, one per core. At the paper's size the product fills every core anyway, so twelve steps cost about
# twelve times one; what a shared stream saves there is everything before the step. The second panel of the figure shows
# it: harvest and training together.

# %%
many = step["result"]["many"]
(together,) = (name for name in many if name != "one alone")
saes = int(together.split()[0])
ratios = [all_ / one for all_, one in zip(many[together], many["one alone"], strict=True)]
print(f"a step of one SAE alone {median(many['one alone']):.3f} s, of {together} {median(many[together]):.3f} s")
spread = f"{min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds"
print(f"{saes} SAEs' steps cost {median(ratios):.2f} times one ({spread})")
by_saes = {int(count): seconds for count, seconds in scaling["result"]["saes"].items()}
print(f"with the harvest, {max(by_saes)} SAEs on one stream cost {by_saes[max(by_saes)] / by_saes[1]:.2f} times one")

# %%
settings = scaling["result"]["settings"]
panels = {
    "prompts": f"prompts\n({settings['saes_by_prompts']} SAEs)",
    "saes": f"SAEs\n({settings['prompts_by_saes']:,} prompts)",
    "processes": f"processes\n({settings['prompts_by_processes']:,} prompts)",
}
fig, axes = plt.subplots(1, 3, figsize=(TEXT_WIDTH, 2.1))
for ax, (what, label) in zip(axes, panels.items(), strict=True):
    counts, seconds = zip(*((int(count), value) for count, value in scaling["result"][what].items()), strict=True)
    ax.plot(counts, seconds, "o-", color="black", markersize=3)
    ax.set(xlabel=label, xlim=(0, None), ylim=(0, None))
    ax.set_xticks((0, *counts) if what == "processes" else (0, *counts[-2:]))
axes[0].set_ylabel("seconds")
save_figure(run, fig, "scaling", scaling["result"])

# %% [markdown]
# **What we see.** Pocket models, one pass, from an empty folder; one run per point. A straight line through the origin
# on the left says that time is proportional to the prompts; in the middle, a line that rises slower than the number of
# SAEs says that they share the harvest. On the right each process has one thread, and the time is that of the whole
# command, so two processes can at best halve the part that does not belong to starting up.
#
# ## 90.4 Harvest
#
# Of a pipeline call the harvest needs the text encoders and the U-Net up to `up.0.1`: at SDXL's real shapes and 512 px
# 1.07 of the U-Net's 1.59 TFLOP per picture, and none of the VAE decoder's 2.51. At equal speed per operation the
# ceiling is (1.59 + 2.51) / 1.07 = 3.8 times the pictures per second. The measurement used random weights, with every
# part made smaller by the same factor.

# %%
rates, gains = (harvest["result"][name] for name in ("pictures_per_second", "times_the_pipeline_call"))
fig, ax = plt.subplots(figsize=(TEXT_WIDTH, 1.8))
for row, name in enumerate(rates):
    ax.plot(rates[name], [row] * len(rates[name]), "o", color="black", alpha=0.6, markersize=3)
    ax.annotate(f"× {gains[name]:.2f}", (max(rates[name]), row), xytext=(8, -3), textcoords="offset points", size=8)
ax.set(yticks=range(len(rates)), xlabel="pictures per second", xlim=(0, 1.15 * max(map(max, rates.values()))))
ax.set_yticklabels(rates)
ax.set_ylim(len(rates) - 0.5, -0.5)
save_figure(run, fig, "harvest", {"rates": rates, "gains": gains, "settings": harvest["result"]["settings"]})

# %% [markdown]
# **What we see.** From top to bottom the gain is split into its steps: first the pictures are no longer decoded, then
# the U-Net stops behind the last block as well. The number beside the dots is the median ratio to the whole call.
#
# ## 90.5 What 16 bit cost
#
# A 16-bit U-Net is twice as fast on a GPU and a 16-bit store half as large. What does that cost? We ask twice: how well
# does an SAE explain 16-bit vectors, and how well does an SAE *trained* on them explain float32 ones? The yardstick is
# another seed: what the vectors' order and the first weights change anyway. The figure shows explained variance on
# held-out prompts, minus that in float32.

# %%
explained, learnt = list(precision["result"].values())[:2]
names = [name for name in learnt if name != "float32"]
fig, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.4), sharey=True)
for ax, rows, title in zip(axes, (explained, learnt), ("one SAE explains these", "SAEs trained on these"), strict=True):
    for block in rows["float32"]:
        changes = [1e3 * (rows[name][block] - rows["float32"][block]) if name in rows else None for name in names]
        ax.plot(changes, range(len(names)), BLOCK_MARKERS[block], color=BLOCK_COLORS[block], label=block)
    widest = 1.1 * max(map(abs, ax.get_xlim()))
    ax.axvline(0, color=CONTROL_COLOR, linewidth=0.8, zorder=0)
    ax.set(title=title, xlim=(-widest, widest), yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    ax.locator_params(axis="x", nbins=5)
axes[0].set_yticklabels(names)
fig.supxlabel("change of explained variance (thousandths)", size=9)
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
save_figure(run, fig, "precision", precision["result"])

# %% [markdown]
# **What we see.** Each marker is a block; to the right of the line 16 bit is better, to the left worse; mind that the
# two panels have different scales, and that another seed exists in the right one only. Where the 16-bit markers lie
# nearer to the line than those of another seed, 16 bit costs nothing that could be noticed. float16 overflows beyond
# 65,504, which `harvest` and training refuse; the pocket models stay far below it; whether SDXL does, we cannot say.
#
# ## 90.6 The paper's training in hours, and on which card
#
# hours = prompts / (pictures per second) / 3600 for a harvest that hides the training. The rehearsal that measures it
# (full width, random weights, one GPU) is one command; where its record is missing, it has not been run, and nothing is
# claimed. Memory is computed from shapes: 16-bit weights of one pipeline, per trained SAE four float32 copies (weights,
# gradients, two moments), and the vectors being mixed, twice. What activations take is not in it: leave some gigabytes.

# %%
gpu = stored.get("gpu")
if gpu:
    measured, peak = gpu["result"], "harvest's share of the card's peak"
    print(f"rehearsal: random weights, no science; {gpu['run']['device']}, torch {gpu['run']['torch']}")
    for way, rate in measured["harvest"].items():
        print(f"{rate:9.0f} pictures per second harvested, {way}")
    print(f"{measured.get(peak, 0):9.0%} of the card's bfloat16 peak, by the fastest of them")
    for name in ("float32", "TF32"):
        print(f"{measured['training'][f'vectors a second, {name}']:9,.0f} vectors per second through four SAEs, {name}")
    joint = measured["together"]
    print(f"{joint['pictures a second']:9.0f} pictures per second, both at once; {joint['peak memory, GB']:.0f} GB")
    for way, hours in measured["hours for 1.5 million prompts"].items():
        print(f"{hours:9.1f} hours for 1.5 million prompts, {way}")
else:
    print("not run: python tests/benchmarks/gpu.py wants a GPU")

# %%
paper = SAEConfig.paper("mid.0")
pipeline = 2 * sum(PARAMETERS.values()) / 1e9
one_sae = 4 * (2 * paper.n_f * paper.d_model + paper.n_f + paper.d_model) / 1e9
gb_per_vector = 2 * 4 * 2 * paper.d_model / 1e9  # 16 bit, four blocks, before and after mixing
memory = {"published": {"pipeline": pipeline, "SAEs": 8 * one_sae}}
memory["trained"] = {"pipeline": pipeline, "SAEs, gradients, Adam": 4 * 8 * one_sae, "buffer": gb_per_vector * BUFFER}
print(*(f"{way}: {sum(parts.values()):.1f} GB and activations" for way, parts in memory.items()), sep="\n")

# %%
cards, activations = {}, 3
for size in (12, 24, 80):
    left = size - activations - sum(value for part, value in memory["trained"].items() if part != "buffer")
    buffer = max(0, min(BUFFER, int(left / gb_per_vector) // 1000 * 1000))
    cards[size] = {"published fits": size - activations > sum(memory["published"].values()), "buffer": buffer}
    print(f"{size} GB: published SAEs {cards[size]['published fits']}, training with a buffer of {buffer:,} vectors")
fig, ax = plt.subplots(figsize=(TEXT_WIDTH, 1.7))
for row, (way, parts) in enumerate(memory.items()):
    start = 0
    for (part, value), shade in zip(parts.items(), ("black", "#767676", "#BBBBBB"), strict=False):
        ax.barh(row, value, left=start, color=shade, height=0.5, label=part if way == "trained" else None)
        start += value
ax.set(yticks=(0, 1), xlabel="GB on the GPU, activations not counted (computed from shapes)")
ax.set_yticklabels(memory)
fig.legend(loc="outside upper center", ncols=3)
result = {"memory_gb": memory, "cards": cards, "hours": gpu and gpu["result"]["hours for 1.5 million prompts"]}
save_figure(run, fig, "cards", result)

# %% [markdown]
# **What we see.** Notebooks 03 and 04 hold one pipeline at a time. With the published SAEs they fit wherever the
# pipeline and some activations do; a smaller `batch` takes fewer pictures at a time and changes no noise. Training
# wants a buffer to mix vectors in; a smaller one mixes fewer pictures at a time.

# %% [markdown]
# ## 90.7 Headline numbers

# %% tags=["nbval-check-output"]
for name, ratio in step["result"]["times_ours"].items():
    print(f"{name:24} {ratio:5.2f} times our step")
print(f"our step is {step['result']['ours_over_floor']:.2f} times the encoder's product alone")
print(f"harvest: {gains['ours: the U-Net cut too']:.2f} times the pictures per second of the pipeline call")

# %% [markdown]
# ## 90.8 Limits
#
# - One machine of two cores, some rounds: ratios carry over better than seconds, and other sizes have other ratios.
# - The authors' method is written anew from its description; their own code wants a GPU and other versions.
# - On narrow models the parts weigh differently than in SDXL; the full-width rehearsal on a GPU is what counts there.
#
# ## 90.9 Exercises
#
# 1. Run `python tests/benchmarks/sae_step.py --small`: which method gains most when everything fits the cache, and why?
# 2. From which k on is a dense decoder cheaper than a sparse one? Change `k` in the benchmark's configuration.
