# %% [markdown]
# # Lesson 5: Edit an image, and measure the side effects
#
# **You will be able to** edit a picture by moving a few features from one pass of the model into another, count whether
# the edit happened, measure what else changed, and give an interval with the number.
#
# **You need** lessons 2 and 3. **Time:** 30 minutes: 5 to read, 20 for three exercises, 5 to discuss.
#
# The recipe is RIEBench's: draw the *edit prompt* and the *original prompt* from the same noise. In the object's cells,
# features that the edit has and the original lacks are added; features that the original has and the edit lacks are
# taken off. Here the edits change a colour, and the features are those of the block that writes colours (lesson 3).

# %%
import checks
import torch
from classroom import show, start

from sae_lib import CallSettings, capture_updates, draw_pictures, intervene, load_judge, load_pipeline, load_saes
from sae_lib.editing import JudgeFinder, NothingFound, find_mask, pocket_cases
from sae_lib.judges import judge_edit
from sae_lib.pocket import judge_images

start()

# %%
block, category = "up.1.2", 6  # RIEBench's sixth kind of edit: a colour is changed
pipe, sae, judge = load_pipeline("turbo"), load_saes()[block], load_judge()
call = CallSettings(4, 0.0, seed=42, batch_size=24)
cases = [case for case in pocket_cases(24) if case.category == category]


def draw(texts):
    """Pictures, and activation maps [steps, cases, n_f, side, side] of the block, from each case's own noise."""
    with capture_updates(pipe, [block]) as updates:
        pictures = draw_pictures(pipe, texts, call, range(len(texts)))
    return pictures, sae.encode(updates[block].movedim(2, -1)).movedim(-1, 2)


source_pictures, source_maps = draw([case.editing_prompt for case in cases])
pictures, target_maps = draw([case.original_prompt for case in cases])
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
# `source` and `target` hold each feature's mean activation in the object's cells, for one case: `[n]`. First divide
# each by its own sum, so that a brighter picture does not win everything. Then take the difference, source minus
# target. The k highest are to be **added**, the k lowest **taken off**.


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
# `score.argsort(descending=True)` gives the features' numbers, the highest score first; `.flip(0)` turns them round.


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
    """Pictures with k features added in mask 1, k taken off in mask 2, `strength` times; directions [n_f, channels]."""
    moved = [torch.zeros_like(of_pass) for of_pass in maps]
    for case, (one, other) in enumerate(zip(*means, strict=True)):
        for change, of_pass, mask, numbers in zip(moved, maps, masks, choose(one, other, k), strict=True):
            change[:, case, numbers] = of_pass[:, case, numbers] * mask[case]
    change = strength * ((moved[0] - moved[1]).movedim(2, -1) @ directions).movedim(-1, 2)

    def fn(block_input, block_output, at):
        return block_output + change[at.index]

    with intervene(pipe, {block: fn}):
        return draw_pictures(pipe, [case.original_prompt for case in cases], call, kept)


directions = sae.decoder.weight.T
others = directions[torch.randperm(sae.n_f, generator=torch.Generator().manual_seed(0))]
edited = {
    "4 features": edit(directions),
    "control: random features": edit(others),
    "strength 0": edit(directions, 0.0),
}
for i in range(2):
    show([pictures[i], *(drawn[i] for drawn in edited.values())], ["original", "4 features", "random", "strength 0"])

# %% [markdown]
# ## Exercise 5.2: what else changed?
#
# Give the mean absolute change of a colour **inside** the object's cells, and **outside** of them. `mask` is `[16, 16]`
# with True inside; the pictures are `[3, 64, 64]`, so each cell is 4 × 4 pixels: `mask.repeat_interleave(4,
# 0).repeat_interleave(4, 1)` blows it up.


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
# `(after - before).abs().mean(0)` is one number per pixel, `[64, 64]`. Index it with the blown-up mask, then
# with `~mask`.


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
# A number without an interval is an anecdote. The *bootstrap* gives one: draw as many cases as there are, **with**
# replacement, and take the mean; repeat this many times; the middle 95 % of these means are the interval.


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
# `values[draws]` has the shape `[resamples, cases]`: the drawn values. Which axis must the mean go over?


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


# %%
draws = torch.randint(len(cases), (1000, len(cases)), generator=torch.Generator().manual_seed(0))
before, pixels = judge_images(judge, pictures), 64 // side
regions = [
    (one | other).repeat_interleave(pixels, 0).repeat_interleave(pixels, 1) for one, other in zip(*masks, strict=True)
]
for name, these in edited.items():
    judged = zip(cases, before, judge_images(judge, these), regions, strict=True)
    done = torch.tensor([float(judge_edit(*of_case)[0]) for of_case in judged])
    effects = [side_effect(one, other, mask) for one, other, mask in zip(pictures, these, masks[1], strict=True)]
    inside, outside = (255 * torch.tensor([float(pair[i]) for pair in effects]).mean() for i in range(2))
    low, high = interval(done, draws)
    print(f"{name:25} edits done {done.mean():.0%} (95 % {low:.0%} to {high:.0%}, {len(cases)} cases); ", end="")
    print(f"change inside {inside:.0f}, outside {outside:.0f} of 255")

# %% [markdown]
# **What we see.** How often the judge sees the new colour, with its interval, and how much the picture changed inside
# and outside of the object's cells. Strength 0 must change nothing: that is a test of the code, not of the features.
# Random features change the picture too; does that edit anything?
#
# **Take away.** An edit needs three numbers: whether it was done, what else changed, and how sure we are. And its
# features must be those of a block that writes what the edit changes: notebook 11 has all nine kinds of edits.
#
# ## For the fast
#
# 1. `edit(directions, 2.0)`, then `4.0`: do more edits succeed? What grows instead?
# 2. `edit(directions, k=1)`: how few features suffice?
# 3. `category = 5` changes poses. How many of these edits are done by features of up.1.2? And by those of
#    `block = "up.0.1"` at strength 2? (Its cells are 8 × 8 pixels: change your `side_effect` too.)

# %% [markdown] tags=["instructor"]
# **Before the lesson** show the painter (notebook 20) for two minutes: paint a feature, undo.
#
# **Skip first**: 5.3 if lesson 6 will be held (verdicts need intervals, so explain it in words).
#
# **They will ask**
# - *Why are shares compared, not activations?* Equation 8 of the paper. The check's first mistake shows a case where
#   it matters.
# - *Why only colours?* One block, one kind of edit, which it writes. In another block the same recipe does nothing:
#   bonus 3. Notebook 11 moves features of all blocks at once.
# - *Can all of this be done without an SAE?* Yes: move the whole update in the mask. Does that change more than was
#   asked for? Notebook 11 compares.
# - *Why does the outside change at all?* Later blocks mix positions, and the masks are a cell wider than the object.
