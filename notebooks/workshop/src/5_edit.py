# %% [markdown]
# # Lesson 5: Edit an image, and measure the side effects
#
# **Question.** Can four features change the colour of one object, and what else do they change?
#
# **You will be able to** edit a picture by moving a few features from one run of the model into another, count how often
# the edit succeeds, measure what else changes, and give the number with an interval.
#
# **You need** lessons 2 and 3. **Time:** 30 minutes.
#
# *Minutes 0 to 5.* The recipe is that of RIEBench. The *original prompt* and the *edit prompt* are drawn from the same
# noise. In the cells of the object, features that the edit has more of are added, and features that the original has more
# of are taken off. The edits here change a colour, and the features come from the block that writes colours (lesson 3).

# %%
import checks
import torch
from classroom import show, start

from sae_lib import CallSettings, capture_updates, draw_pictures, intervene, load_judge, load_pipeline, load_saes

start()

# %%
from sae_lib.editing import JudgeFinder, NothingFound, find_mask, pocket_cases

block, category = "up.1.2", 6  # RIEBench's sixth kind of edit: a colour is changed
pipe, sae, judge = load_pipeline("turbo"), load_saes()[block], load_judge()
call = CallSettings(4, 0.0, seed=42, batch_size=24)
cases = [case for case in pocket_cases(24) if case.category == category]


def draw(texts):
    """Pictures from each case's own noise, the block's updates, and activation maps [steps, cases, n_f, side, side]."""
    with capture_updates(pipe, [block]) as updates:
        pictures = draw_pictures(pipe, texts, call, range(len(texts)))
    return pictures, updates[block], sae.encode(updates[block].movedim(2, -1)).movedim(-1, 2)


source_pictures, source_updates, source_maps = draw([case.editing_prompt for case in cases])
pictures, target_updates, target_maps = draw([case.original_prompt for case in cases])
print("original:", cases[0].original_prompt)
print("edit    :", cases[0].editing_prompt)
show([pictures[0], source_pictures[0]], ["original", "edit prompt"])

# %%
side, finder, cells_of = source_maps.shape[-1], JudgeFinder(judge), {}
for i, case in enumerate(cases):
    asked = (source_pictures[i], case.editing_phrase), (pictures[i], case.original_phrase)
    try:
        cells_of[i] = [find_mask(finder, picture, phrase, side).cells for picture, phrase in asked]
    except NothingFound:
        print(f"left out, the judge finds no {case.original_phrase}: {case.original_prompt}")
kept = list(cells_of)
cases, pictures = [cases[i] for i in kept], pictures[kept]
masks = tuple(torch.stack([cells_of[i][which] for i in kept]) for which in (0, 1))  # two of [cases, side, side]
maps = source_maps[:, kept], target_maps[:, kept]
means = [
    (of_pass[0] * mask[:, None]).sum((-2, -1)) / mask.sum((-2, -1))[:, None]
    for of_pass, mask in zip(maps, masks, strict=True)
]
print(f"{len(cases)} cases, {side} x {side} cells; ", end="")
print(f"mean activation in the object's cells: {list(means[0].shape)} for either prompt")

# %% [markdown]
# ## Exercise 5.1: which features?
#
# *Minutes 5 to 11.* For one case, `source` and `target` hold the mean activation of each of n features in the object's
# cells: `source` in the picture of the edit prompt, `target` in that of the original prompt. Divide each of the two by
# its own sum, so that a picture with higher activations overall has no advantage. Then subtract: source minus target.
# The k features with the highest difference are to be **added**, the k with the lowest are to be **taken off**.


# %% tags=["exercise"]
def choose(source, target, k):
    """Two tensors [n] -> (numbers of the k features to add, of the k to take off), best first."""
    # BEGIN SOLUTION
    score = source / source.sum() - target / target.sum()
    order = score.argsort(descending=True)
    return order[:k], order.flip(0)[:k]
    # END SOLUTION


# %% tags=["check"]
checks.choose(choose)

# %% [markdown] tags=["hint"]
# `score.argsort(descending=True)` gives the numbers of the features, the highest score first. `.flip(0)` reverses the
# order.


# %% tags=["mistake"]
# says: divided by their sums
def choose(source, target, k):
    order = (source - target).argsort(descending=True)
    return order[:k], order.flip(0)[:k]


# %% tags=["mistake"]
# says: exchanged
def choose(source, target, k):
    order = (source / source.sum() - target / target.sum()).argsort()
    return order[:k], order.flip(0)[:k]


# %% tags=["mistake"]
# says: only looks at what is active
def choose(source, target, k):
    return source.argsort(descending=True)[:k], target.argsort(descending=True)[:k]


# %%
def edit(directions, strength=1.0, k=4):
    """The pictures with k features added and k taken off, `strength` times; directions: [n_f, channels]."""
    moved = [torch.zeros_like(of_pass) for of_pass in maps]
    for case, (one, other) in enumerate(zip(*means, strict=True)):
        for change, of_pass, mask, numbers in zip(moved, maps, masks, choose(one, other, k), strict=True):
            change[:, case, numbers] = of_pass[:, case, numbers] * mask[case]
    change = strength * ((moved[0] - moved[1]).movedim(2, -1) @ directions).movedim(-1, 2)

    def fn(block_input, block_output, at):
        return block_output + change[at.index]

    with intervene(pipe, {block: fn}):
        return draw_pictures(pipe, [case.original_prompt for case in cases], call, kept)


# %% tags=["picture"]
directions = sae.decoder.weight.T
others = directions[torch.randperm(sae.n_f, generator=torch.Generator().manual_seed(0))]
edited = {"4 features": edit(directions), "random features": edit(others), "strength 0": edit(directions, 0.0)}
for i in range(2):
    show([pictures[i], edited["4 features"][i], edited["random features"][i]], ["original", *list(edited)[:2]])

# %% [markdown]
# **What we see.** Two of the cases, one per row: the original, the edit with four features, and the control, which adds
# and takes off the directions of random features by the same amounts. The third version, "strength 0", is not shown: it
# must be the original, and below we test that it is.
#
# ## Exercise 5.2: what else changed?
#
# *Minutes 11 to 17.* Compute the mean absolute change of a colour **inside** the object's cells, and **outside** of them.
# `mask` is `[16, 16]`, True inside. The pictures are `[3, 64, 64]`, so each cell covers 4 × 4 pixels.
# `mask.repeat_interleave(4, 0).repeat_interleave(4, 1)` enlarges the mask to the size of the picture.


# %% tags=["exercise"]
def side_effect(before, after, mask):
    """Two pictures [3, 64, 64] and a mask [16, 16] -> (mean change inside, mean change outside)."""
    # BEGIN SOLUTION
    inside = mask.repeat_interleave(4, 0).repeat_interleave(4, 1)
    change = (after - before).abs().mean(0)
    return change[inside].mean(), change[~inside].mean()
    # END SOLUTION


# %% tags=["check"]
checks.side_effect(side_effect)

# %% [markdown] tags=["hint"]
# `(after - before).abs().mean(0)` is one number per pixel, `[64, 64]`. Index it with the enlarged mask, then with its
# opposite, `~mask`.


# %% tags=["mistake"]
# says: brighter and darker cancel
def side_effect(before, after, mask):
    inside = mask.repeat_interleave(4, 0).repeat_interleave(4, 1)
    change = (after - before).mean(0)
    return change[inside].mean(), change[~inside].mean()


# %% tags=["mistake"]
# says: exchanged
def side_effect(before, after, mask):
    inside = mask.repeat_interleave(4, 0).repeat_interleave(4, 1)
    change = (after - before).abs().mean(0)
    return change[~inside].mean(), change[inside].mean()


# %% tags=["mistake"]
# says: IndexError
def side_effect(before, after, mask):
    change = (after - before).abs().mean(0)
    return change[mask].mean(), change[~mask].mean()


# %% [markdown]
# ## Exercise 5.3: how sure are we?
#
# *Minutes 17 to 24.* A share measured on few cases could be luck. The *bootstrap* says how far it can be trusted. Draw as
# many cases as there are, **with** replacement, and take their mean. Repeat this many times. The interval is the middle
# 95 % of these means.


# %% tags=["exercise"]
def interval(values, draws):
    """values [cases]; draws [resamples, cases], the cases' numbers -> (low, high), the 2.5 % and 97.5 % quantiles."""
    # BEGIN SOLUTION
    means = values[draws].mean(1)
    return means.quantile(0.025), means.quantile(0.975)
    # END SOLUTION


# %% tags=["check"]
checks.interval(interval)

# %% [markdown] tags=["hint"]
# `values[draws]` holds the drawn values: `[resamples, cases]`. Over which axis must you take the mean?


# %% tags=["mistake"]
# says: over the resamples
def interval(values, draws):
    means = values[draws].mean(0)
    return means.quantile(0.025), means.quantile(0.975)


# %% tags=["mistake"]
# says: of the values themselves
def interval(values, draws):
    return values.quantile(0.025), values.quantile(0.975)


# %% tags=["mistake"]
# says: 90 %
def interval(values, draws):
    means = values[draws].mean(1)
    return means.quantile(0.05), means.quantile(0.95)


# %% [markdown]
# ## The edits, measured
#
# *Minutes 24 to 30.* Three numbers for each version: how often the judge sees the new colour, how much changed inside, and
# how much outside.

# %%
from sae_lib.judges import judge_edit
from sae_lib.pocket import judge_images

draws = torch.randint(len(cases), (1000, len(cases)), generator=torch.Generator().manual_seed(0))
before, pixels = judge_images(judge, pictures), 64 // side
regions = [
    (one | other).repeat_interleave(pixels, 0).repeat_interleave(pixels, 1) for one, other in zip(*masks, strict=True)
]


def measure(name, these):
    """Prints the share of edits done with its interval, and the mean change inside and outside."""
    judged = zip(cases, before, judge_images(judge, these), regions, strict=True)
    done = torch.tensor([float(judge_edit(*of_case)[0]) for of_case in judged])
    effects = [side_effect(one, other, mask) for one, other, mask in zip(pictures, these, masks[1], strict=True)]
    inside, outside = (255 * torch.tensor([float(pair[i]) for pair in effects]).mean() for i in range(2))
    low, high = interval(done, draws)
    print(f"{name:15} {done.mean():4.0%} of edits done ({low:.0%} to {high:.0%}); ", end="")
    print(f"change {inside:2.0f} inside, {outside:.0f} outside")


# %% tags=["numbers"]
for name, these in edited.items():
    measure(name, these)

# %% [markdown]
# **What we see.** Each line gives the share of cases in which the judge sees the new colour, and the 95 % interval. The
# changes are those of a colour between 0 and 255. Compare the first line with the second: random features change the
# picture as well, but do they make the edit? "strength 0" must change nothing. That line tests the code, not the features.
# (If the judge sees an edit done there, it saw the new colour before anything was changed.)
#
# **Take away.** An edit needs three numbers: how often it succeeds, what else changes, and how sure we are. Take the
# features from a block that writes what you want to change: notebook 11 shows all nine kinds of edits.
#
# ## For the fast
#
# 1. `measure("strength 2", edit(directions, 2.0))`, then 4.0. Do more edits succeed? What grows with the strength?
# 2. `measure("1 feature", edit(directions, k=1))`: is one feature enough?
# 3. How many edits would succeed if the whole update of the edit prompt were moved, without an SAE? Write the line that
#    replaces `change` in `edit`.

# %% tags=["fast"]
# 1. and 2. Other strengths, and one feature
for name, these in {
    "strength 2": edit(directions, 2.0),
    "strength 4": edit(directions, 4.0),
    "1 feature": edit(directions, k=1),
}.items():
    measure(name, these)

# %% tags=["fast"]
# 3. The whole update in the cells of either object: change = (source's update - target's update) * mask
either = (masks[0] | masks[1])[:, None]
difference = (source_updates[:, kept] - target_updates[:, kept]) * either
with intervene(pipe, {block: lambda block_input, block_output, at: block_output + difference[at.index]}):
    measure("whole update", draw_pictures(pipe, [case.original_prompt for case in cases], call, kept))

# %% [markdown] tags=["instructor"]
# **Before the lesson** go back to the painter for one minute and press a "Try this" button. Ask: "How would you measure
# whether this worked?"
#
# **Skip first**: 5.3 if lesson 6 will be held. Verdicts need intervals, so explain them in words.
#
# **They will ask**
# - *Why are shares compared, not activations?* That is equation 8 of the paper. The check's first mistake shows a case in
#   which it matters.
# - *Why only colours?* Because this block writes colours. In another block the same recipe does nothing. Notebook 11 moves
#   features of all blocks at once.
# - *Can all of this be done without an SAE?* Yes: task 3 for the fast moves the whole update. Notebook 11 compares how
#   much else each method changes.
# - *Why does the outside change at all?* Later blocks mix positions, and the masks are one cell wider than the object.
