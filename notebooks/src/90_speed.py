# %% [markdown]
# # 90 Speed
#
# **Question.** How long does the paper's training take, and why not less? The authors' way to four SAEs stores 15.7 TB,
# runs the whole pipeline for every picture and trains with sparse products in coordinate form. Here the U-Net runs only as
# far as the last block that is asked for, vectors go straight into training, and one training step has one dense product.
# This notebook states the floor of each part from its sizes, and how far above it we are, from measurements that are made
# by three commands and stored. It runs nothing heavy itself.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | `figures/results/` | `figures/results/` | `figures/results/` |
# | makes | the same, marked as smoke | `sae_step` `harvest` | the same |
# | cost | 5 s, one core | 5 s, one core | 5 s, one core |
#
# | symbol | meaning |
# |---|---|
# | floor | the time of the one product that cannot be avoided, measured beside the rest |
# | times ours | another method's seconds over ours, the median over rounds of one process |

# %% [markdown]
# ## 90.1 Parameters and set-up
#
# Ratios only are compared, each from one process in which the methods took turns, because machines differ and are noisy.
# Absolute seconds belong to the machine that the record names. What has not been run says so.

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"; the stored measurements are the same
source: str = ""  # not used here
seed: int = 0  # not used here

# %%
import json

import matplotlib.pyplot as plt

from sae_lib import save_figure, start_run
from sae_lib.store import ROOT
from sae_lib.style import CONTROL_COLOR, TEXT_WIDTH

run = start_run("90_speed", globals())
results = ROOT / "figures" / "results"
step, harvest = (json.loads((results / f"{name}.json").read_text()) for name in ("sae_step", "harvest"))
for record in (step, harvest):
    print(*(f"{name}: {value}" for name, value in record["run"].items()), sep="   ")

# %% [markdown]
# ## 90.2 The floor of a training step
#
# Every vector must meet every feature once: 2 · batch · d_model · n_f operations. All else touches only the k kept
# activations of a vector, or is a pass over the parameters: with k = 10 of 5,120 the decoder and both gradients are five
# hundred times smaller than the product. A dense step has six such products (forward and backward of both layers), so a
# method that leaves them out can be some six times faster at best where products dominate. Adam reads and writes
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
axes[0].set(xlabel=f"seconds a step, {len(seconds['ours'])} rounds", xlim=(0, None), yticks=range(len(order)))
axes[0].set_yticklabels(order)
axes[1].set(xlabel="peak memory (GB)")
save_figure(run, fig, "sae_step", {"seconds": seconds, "memory": step["result"]["peak_memory_gb"], "config": config})

# %% [markdown]
# **What we see.** One dot a round; the dashed line is the product alone. What lies between it and our dots is TopK, the
# passes over the parameters (Adam, unit columns) and the sparse products. Memory is that of a whole process with its
# libraries, so small differences say little. sae-lens and eai-sparsify minimise their own losses, without our auxiliary
# term's mean and, in sae-lens, with another normalisation: the comparison is of a step of each as it is.
#
# ## 90.3 Many SAEs on one stream
#
# On a CPU one SAE's products are spread over all cores, and its smaller operations are not. Several SAEs are therefore
# trained a core each, on the same vectors, and the reading and harvesting is shared.

# %%
many = step["result"]["many"]
(together,) = (name for name in many if name != "one alone")
saes = int(together.split()[0])
print(f"one SAE alone {many['one alone']:.3f} s a step; {together} {many[together]:.3f} s")
print(f"{saes} SAEs cost {many[together] / many['one alone']:.1f} times one")

# %% [markdown]
# ## 90.4 Harvest
#
# Of a pipeline call the harvest needs the text encoders and the U-Net up to `up.0.1`: at SDXL's real shapes and 512 px
# 1.07 of the U-Net's 1.59 TFLOP a picture, and none of the VAE decoder's 2.51. At equal speed per operation the ceiling
# is (1.59 + 2.51) / 1.07 = 3.8 times the pictures a second. Measured with every part reduced by one factor, random weights.

# %%
rates, gains = (harvest["result"][name] for name in ("pictures_per_second", "times_the_pipeline_call"))
fig, ax = plt.subplots(figsize=(TEXT_WIDTH, 1.8))
for row, name in enumerate(rates):
    ax.plot(rates[name], [row] * len(rates[name]), "o", color="black", alpha=0.6, markersize=3)
    ax.annotate(f"× {gains[name]:.2f}", (max(rates[name]), row), xytext=(8, -3), textcoords="offset points", size=8)
ax.set(yticks=range(len(rates)), xlabel="pictures a second", xlim=(0, 1.15 * max(map(max, rates.values()))))
ax.set_yticklabels(rates)
ax.set_ylim(len(rates) - 0.5, -0.5)
save_figure(run, fig, "harvest", {"rates": rates, "gains": gains, "settings": harvest["result"]["settings"]})

# %% [markdown]
# **What we see.** The steps from top to bottom are the gain split: first the pictures are no longer decoded, then the
# U-Net stops behind the last block. The number beside the dots is the median ratio to the whole call.
#
# ## 90.5 The paper's training in hours
#
# hours = prompts / (pictures a second) / 3600 for a harvest that hides the training. The rehearsal that measures it (full
# width, random weights, one GPU) is one command; where its record is missing, it has not been run, and nothing is claimed.

# %%
gpu = results / "gpu.json"
if gpu.is_file():
    print(json.dumps(json.loads(gpu.read_text()), indent=1))
else:
    print("not run: python tests/benchmarks/gpu.py wants a GPU")

# %% [markdown]
# ## 90.6 Headline numbers

# %% tags=["nbval-check-output"]
for name, ratio in step["result"]["times_ours"].items():
    print(f"{name:24} {ratio:5.2f} times our step")
print(f"our step is {step['result']['ours_over_floor']:.2f} times the encoder's product alone")
print(f"harvest: {gains['ours: the U-Net cut too']:.2f} times the pictures a second of the pipeline call")

# %% [markdown]
# ## 90.7 Limits
#
# - One machine of two cores, some rounds: ratios carry over better than seconds, and other sizes have other ratios.
# - The authors' method is written anew from its description; their own code wants a GPU and other versions.
# - On narrow models the parts weigh differently than in SDXL; the full-width rehearsal on a GPU is what counts there.
#
# ## 90.8 Exercises
#
# 1. Run `python tests/benchmarks/sae_step.py --small`: which method gains most when everything fits the cache, and why?
# 2. From which k on is a dense decoder cheaper than a sparse one? Change `k` in the benchmark's configuration.
