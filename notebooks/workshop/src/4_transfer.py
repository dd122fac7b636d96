# %% [markdown]
# # Lesson 4: The same feature in four steps, and in the base model
#
# **You will be able to** test whether features found in *one* step of Turbo serve in its four steps and in the base
# model that it was made from: the paper's main claim.
#
# **You need** lesson 2; sets and their union. **Time:** 25 minutes: 5 to read, 15 for three exercises, 5 for
# the figure.
#
# The SAE is the one of lesson 2, trained on one-step updates, and it stays as it is. The models and the number of
# steps change.

# %%
import checks
import matplotlib.pyplot as plt
import torch
from classroom import show, start

from sae_lib import (
    CallSettings,
    attribute_values,
    draw_pictures,
    explained_variance,
    intervene,
    judge_truth,
    load_judge,
    load_pipeline,
    load_prompts,
    load_saes,
    load_statistics,
    see_values,
    stream_updates,
    strength_unit,
    to_vectors,
)
from sae_lib.features import reading_scores

start()

# %%
block = "up.1.2"
pipes, sae = {name: load_pipeline(name) for name in ("turbo", "base")}, load_saes()[block]
prompts = load_prompts("pocket", 24, "held-out")
settings = {
    "Turbo, 1 step": ("turbo", CallSettings(1, 0.0, batch_size=24)),
    "Turbo, 4 steps": ("turbo", CallSettings(4, 0.0, batch_size=24)),
    "base, 20 steps": ("base", CallSettings(20, 4.0, batch_size=24)),
}

# %%
updates, drawn = {}, {}
for title, (name, call) in settings.items():
    ((_, recorded),) = stream_updates(pipes[name], prompts, [block], call)
    updates[title] = recorded[block]
    drawn[title] = draw_pictures(pipes[name], prompts[:2], call)
    print(f"{title:15} updates {list(updates[title].shape)}: steps, pictures, channels, height, width")
show([pictures[i] for i in range(2) for pictures in drawn.values()], [*drawn] * 2)

# %% [markdown]
# ## Exercise 4.1: explained variance, step by step
#
# For each step, how much of that step's updates does the SAE explain? `to_vectors(maps)` makes rows of maps (your
# lesson 1), `sae(x)` reconstructs, `explained_variance(x, x_hat)` measures (your lesson 2).


# %% tags=["exercise"]
def explained_by_step(updates, sae):
    """[steps, pictures, channels, height, width] -> [steps], a tensor."""
    # BEGIN SOLUTION
    rows = [to_vectors(of_step) for of_step in updates]
    return torch.tensor([explained_variance(x, sae(x)) for x in rows])
    # END SOLUTION


# %% tags=["check"]
checks.explained_by_step(explained_by_step)

# %% [markdown] tags=["hint"]
# `for of_step in updates` goes over the first axis: the steps. Collect the numbers in a list; `torch.tensor([...])`
# makes a tensor of it.


# %% tags=["mistake"]
# says: all steps thrown together
def explained_by_step(updates, sae):
    x = to_vectors(updates)
    return torch.tensor([explained_variance(x, sae(x))] * len(updates))


# %% tags=["mistake"]
# says: the same number for every step
def explained_by_step(updates, sae):
    x = to_vectors(updates[0])
    return torch.tensor([explained_variance(x, sae(x))] * len(updates))


# %% tags=["mistake"]
# says: gives a list
def explained_by_step(updates, sae):
    return [explained_variance(to_vectors(of_step), sae(to_vectors(of_step))) for of_step in updates]


# %% [markdown]
# ## Exercise 4.2: do the same features stay on?
#
# Which features are active at a position, at one step and at the next? The *intersection over union* (IoU) of two sets
# is the number of features active in both, divided by the number active in at least one. Take it per row, then the mean
# over rows. Where both sets are empty the IoU is 0.


# %% tags=["exercise"]
def mean_iou(a, b):
    """Activations [rows, n_f] at two steps -> one number."""
    # BEGIN SOLUTION
    both = ((a > 0) & (b > 0)).sum(1)
    either = ((a > 0) | (b > 0)).sum(1)
    return (both / either.clamp(min=1)).mean()
    # END SOLUTION


# %% tags=["check"]
checks.mean_iou(mean_iou)

# %% [markdown] tags=["hint"]
# `(a > 0) & (b > 0)` is True where a feature is active in both; `|` where it is in at least one. `.sum(1)` counts along
# a row.

# %% [markdown] tags=["hint"]
# `.clamp(min=1)` keeps 0 / 0 from happening.


# %% tags=["mistake"]
# says: over all rows together
def mean_iou(a, b):
    return ((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum()


# %% tags=["mistake"]
# says: empty row
def mean_iou(a, b):
    return (((a > 0) & (b > 0)).sum(1) / ((a > 0) | (b > 0)).sum(1)).mean()


# %% tags=["mistake"]
# says: counted twice
def mean_iou(a, b):
    both = ((a > 0) & (b > 0)).sum(1)
    return (both / ((a > 0).sum(1) + (b > 0).sum(1)).clamp(min=1)).mean()


# %%
explained = {title: explained_by_step(steps, sae) for title, steps in updates.items()}
overlap, control = {}, {}
for title, steps in updates.items():
    active = [sae.encode(to_vectors(of_step)) for of_step in steps]
    others = [sae.encode(to_vectors(of_step.roll(1, 0))) for of_step in steps]  # the pictures exchanged
    overlap[title] = [float(mean_iou(active[i], active[i + 1])) for i in range(len(steps) - 1)]
    control[title] = [float(mean_iou(active[i], others[i + 1])) for i in range(len(steps) - 1)]

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.4))
for (title, values), marker in zip(explained.items(), "sod", strict=True):
    x = torch.linspace(0, 1, len(values)) if len(values) > 1 else torch.zeros(1)
    left.plot(x, values, f"{marker}-", label=title)
    if overlap[title]:
        between = (x[1:] + x[:-1]) / 2
        (line,) = right.plot(between, overlap[title], f"{marker}-", color=left.lines[-1].get_color(), label=title)
        right.plot(between, control[title], ":", color=line.get_color(), label="another picture")
left.set(xlabel="share of the steps done", ylabel="explained variance", ylim=(0, 1))
right.set(xlabel="share of the steps done", ylabel="IoU with the next step", ylim=(0, 1))
left.legend(fontsize=7)
right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# **What we see.** Left: how well the one-step SAE explains each step's updates; the single square is the setting it was
# trained in. Right: how many features stay on from one step to the next, and the control, the next step of *another*
# picture. The distance between a line and its control is what belongs to the picture.
#
# ## Exercise 4.3: a feature under guidance
#
# The base model runs with *classifier-free guidance*: each batch holds every picture twice, in the first half without
# the prompt and in the second half with it. The simplest way to turn a feature on adds it to the half **with** the
# prompt only. (Notebook 08 also subtracts it from the other half, as the paper does, and compares the two.)


# %% tags=["exercise"]
def turn_on(block_output, change):
    """[2 * pictures, channels, height, width] and a change of one picture's shape; added to the second half only."""
    # BEGIN SOLUTION
    without, with_prompt = block_output.chunk(2)
    return torch.cat([without, with_prompt + change])
    # END SOLUTION


# %% tags=["check"]
checks.turn_on(turn_on)

# %% [markdown] tags=["hint"]
# `without, with_prompt = block_output.chunk(2)` cuts the batch into its halves; `torch.cat([...])` puts them
# together again.


# %% tags=["mistake"]
# says: both halves
def turn_on(block_output, change):
    return block_output + change


# %% tags=["mistake"]
# says: the half without the prompt
def turn_on(block_output, change):
    without, with_prompt = block_output.chunk(2)
    return torch.cat([without + change, with_prompt])


# %% tags=["mistake"]
# says: every other picture
def turn_on(block_output, change):
    changed = block_output.clone()
    changed[1::2] += change
    return changed


# %% [markdown]
# Which feature? A rule chooses: the one that reads "red" best in the one-step pictures. `reading_scores` says how well
# a feature's map predicts where a value is: 0 is chance, 1 perfect. It is turned on in four captions without "red".
# Beside it stands a random feature, turned on by the same amount.

# %%
judge, red = load_judge(), [word for _, word in attribute_values()].index("red")
one_step = draw_pictures(pipes["turbo"], prompts, settings["Turbo, 1 step"][1])
maps = sae.encode(to_vectors(updates["Turbo, 1 step"])).unflatten(0, (24, -1))
reads = reading_scores(maps, judge_truth(judge, one_step, grid=16))[:, red]
feature, random = int(reads.argmax()), int(torch.randint(sae.n_f, (), generator=torch.Generator().manual_seed(0)))
amount = 3 * strength_unit(load_statistics()[block], feature)  # three times its mean where it is active
print(
    f"{block}/{feature} reads red with {reads[feature]:.2f}; the random one, {block}/{random}, with {reads[random]:.2f}"
)

# %%
chosen = [prompt for prompt in prompts if " red " not in prompt][:4]
for title, (name, call) in settings.items():
    shown = {}
    for what, number, size in (
        ("without", feature, 0),
        (f"red: {feature}", feature, amount),
        (f"random: {random}", random, amount),
    ):
        change = size * sae.decoder.weight[:, number][:, None, None]

        def fn(block_input, block_output, at, change=change):
            return turn_on(block_output, change) if at.guided else block_output + change

        with intervene(pipes[name], {block: fn}):
            shown[what] = draw_pictures(pipes[name], chosen, call)
    print(
        f"{title}: red is seen in",
        ", ".join(f"{see_values(judge, these)[:, red].sum():.0f} of 4 ({what})" for what, these in shown.items()),
    )
    show([these[i] for i in range(2) for these in shown.values()], [*shown] * 2)

# %% [markdown]
# **What we see.** Two captions in three settings: without a feature, with the feature that was found in one step, and
# with a random one by the same amount, everywhere in the picture. Above them stands how often the judge sees red in
# four captions. Does the feature do the same in every setting? In many steps it is added many times, and guidance
# exaggerates it as it exaggerates the prompt: look at base.
#
# **Take away.** "Transfers" is not one thing: the variance explained, the features that stay on, and the effect of
# turning one on are three measurements, each with its own control.
#
# ## For the fast
#
# 1. Let `fn` act at step 0 only (`at.index == 0`), then at the last step only. When does a feature act?
# 2. Give base a guidance of 1 (no guidance). Which line moves?
# 3. Use an SAE with other random weights (`sae_lib.TopKSAE(sae.d_model, sae.n_f, sae.k)`) in Exercise 4.1. What
#    is left?

# %% [markdown] tags=["instructor"]
# **Before the lesson** show Figure 3 of notebook 04: the same, over more blocks and prompts, with intervals.
#
# **Skip first**: 4.3 (show the pictures from the solution).
#
# **They will ask**
# - *Why does the curve of base begin low?* Its first steps see almost pure noise; their updates are unlike Turbo's
#   single one.
# - *What is guidance?* The U-Net runs with and without the prompt, and the difference is exaggerated.
# - *Is 0.5 a good IoU?* Ask back: compared with what? The dotted control answers.
