# %% [markdown]
# # 90 Speed
#
# **Question.** How long does the paper's training take, and why not less?

# %% tags=["answer"]
from sae_lib.companion import show_answer

show_answer("90_speed")

# %% [markdown]
# ![Seconds and memory of one training step: ours, the authors' method, two libraries, and the encoder's product alone](../figures/90_speed/sae_step.png)
#
# **One training step.** A dot is one round; further left is faster. The dashed line is the time of the one product that
# no method can leave out. Right: the memory of the whole process.
#
# ## 90.0 About this notebook
#
# The authors' way to four SAEs stores 15.7 TB, runs the whole pipeline for every picture and trains with sparse products
# in coordinate form. Here the U-Net runs only as far as the last block that is asked for, vectors go straight into
# training, and one training step has one dense product. This notebook states the least time that each part can take,
# from its sizes, and how far above it we are. The measurements are made by three commands and stored; nothing heavy runs
# here.
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
# Machines differ and are noisy. So only ratios are compared, each from one process in which the methods took turns.
# Seconds belong to the machine that the record names.

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
from sae_lib.companion import BLOCK_COLORS, BLOCK_MARKERS, CONTROL_COLOR, TEXT_WIDTH, save_answer, we_see
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
# Every vector must be multiplied with every feature once: 2 · batch · d_model · n_f operations. All else touches only
# the k kept activations of a vector, or is a pass over the parameters. With k = 10 of 5,120 the decoder and both
# gradients are five hundred times smaller than the product. A dense step has six such products (forward and backward of
# both layers), so a method with one of them is at best some six times faster. Adam reads and writes parameters,
# gradients and two moments: seven passes over 4 · 2 · d_model · n_f bytes.

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

times = step["result"]["times_ours"]
others = [f"{name} {times[name]:.1f} times" for name in reversed(order) if times[name] > 1]
over = step["result"]["ours_over_floor"]
we_see(run, f"Our step takes {over:.2f} times as long as the product alone. Compared with ours: {', '.join(others)}.")

# %% [markdown]
# **How to read it.** Between the dashed line and our dots lie TopK, the passes over the parameters (Adam, unit columns)
# and the sparse products. Memory is that of a whole process with its libraries, so small differences say little.
# sae-lens and eai-sparsify minimise their own losses, without our auxiliary term's mean and, in sae-lens, with another
# normalisation: one step of each method is compared as it is.
#
# ## 90.3 Many SAEs on one stream
#
# On a CPU one SAE's products are spread over all cores, but its smaller operations are not. So several SAEs are trained
# at once, one per core. At the paper's size the product fills every core anyway, so twelve steps cost about twelve times
# one. A shared stream then saves everything that comes before the step. The second panel of the figure shows harvest and
# training together.

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

by_prompts, by_processes = (
    {int(n): s for n, s in scaling["result"][what].items()} for what in ("prompts", "processes")
)
fewest, most = min(by_prompts), max(by_prompts)
we_see(
    run,
    f"{most / fewest:.0f} times the prompts take {by_prompts[most] / by_prompts[fewest]:.1f} times as long, {max(by_saes)} "
    f"SAEs {by_saes[max(by_saes)] / by_saes[1]:.1f} times as long as one, and {max(by_processes)} processes "
    f"{by_processes[max(by_processes)] / by_processes[1]:.2f} times as long as one.",
)

# %% [markdown]
# **How to read it.** Pocket models, one pass, from an empty folder; one run per point. Left, a straight line through the
# origin says that time is proportional to the prompts. In the middle, a line that rises more slowly than the number of
# SAEs says that they share the harvest. On the right each process has one thread. The time is that of the whole command,
# and the start cannot be shared.
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

_, *steps = gains.items()
parts = ", ".join(f"× {gain:.1f} ({name})" for name, gain in steps)
we_see(run, f"Pictures per second, compared with the whole call: {parts}.")

# %% [markdown]
# **How to read it.** From top to bottom: first the pictures are no longer decoded, then the U-Net stops behind the last
# block as well. The number beside the dots is the median ratio to the whole call.
#
# ## 90.5 What 16 bit cost
#
# A 16-bit U-Net is twice as fast on a GPU and a 16-bit store half as large. What does that cost? We ask twice: how well
# does an SAE explain 16-bit vectors, and how well does an SAE *trained* on them explain float32 ones? For comparison
# there is another seed, which changes the vectors' order and the first weights. The figure shows explained variance on
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


# %%
def largest(rows, names):
    """The largest change of explained variance from float32, in thousandths."""
    return 1e3 * max(abs(rows[name][block] - rows["float32"][block]) for name in names for block in rows["float32"])


halves = [name for name in names if "16" in name]
by_seed = largest(learnt, [name for name in names if name not in halves])
changes = f"by at most {largest(explained, halves):.2f} thousandths in vectors that one SAE explains"
we_see(
    run,
    f"16 bit changes explained variance {changes}, and by {largest(learnt, halves):.1f} in SAEs that are trained "
    f"on them. Another seed changes it by up to {by_seed:.1f}.",
)

# %% [markdown]
# **How to read it.** A marker is a block. Right of the line 16 bit is better, left of it worse. The two panels have
# different scales, and there is another seed in the right one only. float16 overflows beyond 65,504, which `harvest` and
# training refuse. The pocket models stay far below that; whether SDXL does, we cannot say.
#
# ## 90.6 The paper's training in hours, and on which card
#
# hours = prompts / (pictures per second) / 3600. One command measures it in a rehearsal: full width, random weights, one
# GPU. Without its record nothing is claimed. Memory is computed from shapes: 16-bit weights of one pipeline, per trained
# SAE four float32 copies (weights, gradients, two moments), and the vectors being mixed, twice.
#
# Activations are not in it, and they can take more than all the rest: rehearsals of the notebooks with random weights
# took, at the scale's own batch, between 12 GB (03, 06) and 43 GB (01) of a GPU. A smaller `batch` takes less.

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


# %%
needs = {way: sum(parts.values()) for way, parts in memory.items()}
we_see(
    run,
    f"Without activations, published SAEs need {needs['published']:.1f} GB and training {needs['trained']:.1f} GB, "
    f"of which the buffer takes {memory['trained']['buffer']:.1f}.",
)

# %% [markdown]
# **How to read it.** The bars are weights and vectors; activations come on top. A smaller `batch` takes fewer pictures
# at a time and changes no noise. Training wants a buffer to mix vectors in; a smaller one mixes fewer pictures at a
# time.

# %% [markdown]
# ## 90.7 Headline numbers

# %% tags=["nbval-check-output"]
for name, ratio in step["result"]["times_ours"].items():
    print(f"{name:24} {ratio:5.2f} times our step")
print(f"our step is {step['result']['ours_over_floor']:.2f} times the encoder's product alone")
print(f"harvest: {gains['ours: the U-Net cut too']:.2f} times the pictures per second of the pipeline call")

# %%
took = "has not been timed: it needs a GPU"
if gpu:
    hours = gpu["result"]["hours for 1.5 million prompts"]["harvest and training"]
    took = f"takes about {hours:.1f} hours on one {gpu['run']['device']} (a rehearsal with random weights)"
theirs = over * times["authors' method (COO)"]
save_answer(
    run,
    f"Training on the paper's 1.5 million prompts {took}. One training step takes {over:.1f} times as long as the one "
    f"product that no method can leave out; with the authors' method it takes {theirs:.1f} times as long.",
)

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
