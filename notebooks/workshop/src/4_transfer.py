# %% [markdown]
# # Lesson 4: The same feature in four steps, and in the base model
#
# **Question.** Do features that were found in *one* step of Turbo work in its four steps, and in another model?
#
# **You will be able to** test the paper's main claim with three measurements, each beside its control.
#
# **You need** lesson 2, and the union of two sets. **Time:** 25 minutes.
#
# *Minutes 0 to 4.* The SAE is that of lesson 2. It was trained on one-step updates, and it stays as it is. The number
# of steps changes, and so does the model: Turbo was made from the base model, which needs 20 steps for a picture.

# %%
import checks
import torch
from classroom import show, start

from sae_lib import CallSettings, draw_pictures, load_pipeline, load_prompts, load_saes, stream_updates

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
# *Minutes 4 to 9.* How much of each step's updates does the SAE explain? You know the three functions that you need:
# `to_vectors(maps)` makes rows of maps (lesson 1), `sae(x)` reconstructs the rows, and `explained_variance(x, x_hat)`
# compares the two (lesson 2).

# %% tags=["exercise"]
from sae_lib import explained_variance, to_vectors


def explained_by_step(updates, sae):
    """[steps, pictures, channels, height, width] -> [steps], a tensor."""
    # BEGIN SOLUTION
    rows = [to_vectors(of_step) for of_step in updates]
    return torch.tensor([explained_variance(x, sae(x)) for x in rows])
    # END SOLUTION


# %% tags=["check"]
checks.explained_by_step(explained_by_step)

# %% [markdown] tags=["hint"]
# `for of_step in updates` goes over the first axis, which holds the steps. Collect one number per step in a list, then
# make a tensor of the list with `torch.tensor([...])`.


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
# *Minutes 9 to 15.* At one position, some features are active at a step, and some at the next step. Are they the same?
# The *intersection over union* (IoU) is the number of features active at both steps, divided by the number active at one
# of them or both. Compute it for each row, then take the mean over the rows. If a row has no active feature at either
# step, its IoU is 0.


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
# `(a > 0) & (b > 0)` is True where a feature is active at both steps; with `|` it is True where the feature is active at
# one of them or both. `.sum(1)` counts along a row.

# %% [markdown] tags=["hint"]
# Use `.clamp(min=1)` on what you divide by: then 0 / 0 cannot happen.


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
import matplotlib.pyplot as plt

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
# **What we see.** On the left, each point is one step: the share of that step's updates that the one-step SAE explains.
# The single square is the setting in which the SAE was trained. On the right, a full line says how many features stay
# on from one step to the next. The dotted line of the same colour is its control: the next step of *another* picture.
# What lies between a line and its control belongs to this picture.
#
# ## Exercise 4.3: turn a feature on under guidance
#
# *Minutes 15 to 19.* The base model uses *classifier-free guidance*. Each batch holds every picture twice: the first half
# is computed without the prompt, the second half with it, and the model exaggerates the difference. The simplest way to
# turn a feature on adds it to the half **with** the prompt only. (Notebook 08 compares this with the paper's way, which
# also subtracts it from the other half.)


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
# `without, with_prompt = block_output.chunk(2)` cuts the batch into its halves. `torch.cat([...])` puts them together
# again.


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
# ## Red in three settings
#
# *Minutes 19 to 25.* Which feature shall we turn on? A rule chooses it: the one that reads "red" best in the one-step
# pictures. `reading_scores` says how well a feature's map predicts where a value is: 0 is chance, 1 is perfect. We turn
# it on in four captions without the word "red". Its control is a random feature, turned on by the same amount.

# %%
from sae_lib import attribute_values, intervene, judge_truth, load_judge, load_statistics, see_values, strength_unit
from sae_lib.features import reading_scores

judge, red = load_judge(), [word for _, word in attribute_values()].index("red")
one_step = draw_pictures(pipes["turbo"], prompts, settings["Turbo, 1 step"][1])
maps = sae.encode(to_vectors(updates["Turbo, 1 step"])).unflatten(0, (24, -1))
reads = reading_scores(maps, judge_truth(judge, one_step, grid=16))[:, red]
feature, random = int(reads.argmax()), int(torch.randint(sae.n_f, (), generator=torch.Generator().manual_seed(0)))
amount = 3 * strength_unit(load_statistics()[block], feature)  # three times its mean where it is active
print(f"{block}/{feature} reads red with {reads[feature]:.2f}; the random {block}/{random} with {reads[random]:.2f}")

# %%
chosen = [prompt for prompt in prompts if " red " not in prompt][:4]


def turned_on(title, number, size, steps=None):
    """Four pictures in a setting with feature `number` turned on by `size`, at these steps (None: at all)."""
    name, call = settings[title]
    change = size * sae.decoder.weight[:, number][:, None, None]

    def fn(block_input, block_output, at):
        if steps is not None and at.index not in steps:
            return block_output
        return turn_on(block_output, change) if at.guided else block_output + change

    with intervene(pipes[name], {block: fn}):
        return draw_pictures(pipes[name], chosen, call)


def reds(pictures):
    """In how many of the pictures the judge sees red."""
    return f"{see_values(judge, pictures)[:, red].sum():.0f} of {len(pictures)}"


# %% tags=["picture", "numbers"]
without, with_red = {}, {}
for title in settings:
    without[title], with_red[title] = turned_on(title, feature, 0), turned_on(title, feature, amount)
    control = turned_on(title, random, amount)
    print(
        f"{title:15} red seen in {reds(without[title])} without, {reds(with_red[title])} with red's feature, ", end=""
    )
    print(f"{reds(control)} with the random one")
show([these[0] for these in without.values()], [*without])
show([these[0] for these in with_red.values()], ["red turned on"] * len(with_red))

# %% [markdown]
# **What we see.** The upper row is the first of the four captions, drawn in three settings. Below it, the feature that
# was found in one step is turned on everywhere in the picture. The lines above count in how many of the four pictures the
# judge sees red. Does the feature do the same in every setting? In a setting of many steps it is added many times, and
# guidance exaggerates it as it exaggerates the prompt.
#
# **Take away.** "It transfers" can mean three things: the SAE explains the updates, the same features stay on, or turning
# a feature on has the same effect. Measure each of them, and compare each with its own control.
#
# ## For the fast
#
# 1. `turned_on(title, feature, amount, steps=[0])` acts at the first step only. When does a feature act: at the first
#    step, or at the last?
# 2. Give the base model a guidance of 1, which means none. Does a line of the figure move?
# 3. Put an untrained SAE, `sae_lib.TopKSAE(sae.d_model, sae.n_f, sae.k)`, into Exercise 4.1. How much of the explained
#    variance is left?

# %% tags=["fast"]
# 1. The first step, the last one, all four
for name, steps in {"first step": [0], "last step": [3], "all four": None}.items():
    print(f"red's feature at {name}: red seen in {reds(turned_on('Turbo, 4 steps', feature, amount, steps))}")

# %% tags=["fast"]
# 2. The base model without guidance: the mean over its steps
((_, recorded),) = stream_updates(pipes["base"], prompts, [block], CallSettings(20, 1.0, batch_size=24))
plain = explained_by_step(recorded[block], sae)
active = [sae.encode(to_vectors(of_step)) for of_step in recorded[block]]
stays = torch.stack([mean_iou(active[i], active[i + 1]) for i in range(19)])
guided, kept_on = explained["base, 20 steps"], torch.tensor(overlap["base, 20 steps"])
print(f"explained variance {guided.mean():.2f} with guidance, {plain.mean():.2f} without")
print(f"IoU {kept_on.mean():.2f} with guidance, {stays.mean():.2f} without")

# %% tags=["fast"]
# 3. An untrained SAE
from sae_lib import untrained

for title, steps in updates.items():
    left_over = explained_by_step(steps, untrained(sae)).mean()
    print(f"{title:15} explained variance {explained[title].mean():.2f} trained, {left_over:.2f} untrained")

# %% [markdown] tags=["instructor"]
# **Before the lesson** project Figure 3 of [notebook 04](../04_transfer.ipynb): the same curves over more blocks and
# prompts, with intervals.
#
# **Skip first**: 4.3 (show the pictures from the solution).
#
# **They will ask**
# - *Why does the curve of the base model begin low?* Its first steps see almost pure noise. Their updates are unlike the
#   updates of Turbo's single step.
# - *What is guidance?* The U-Net runs once with the prompt and once without, and the difference is exaggerated.
# - *Is 0.5 a good IoU?* Ask back: compared with what? The dotted control answers.
