# %% [markdown]
# # Lesson 3: Find the feature for "red", and prove it
#
# **You will be able to** find the feature that fits a meaning best, test it on pictures that had no part in the choice,
# compare with what chance would find, and ask the question that most proofs forget: compared with *what*?
#
# **You need** lesson 2; mean, standard deviation, precision and recall. **Time:** 35 minutes: 5 to read, 20 for three
# exercises, 10 to discuss the result.
#
# The pocket world has a truth: a judge says of each pixel which object it belongs to and what colour that object has.
# So "this feature means red" is a claim that can be *wrong*.

# %%
import checks
import torch
from classroom import show, start

from sae_lib import (
    CallSettings,
    add_features,
    attribute_values,
    capture_updates,
    draw_pictures,
    inject_prompt,
    intervene,
    judge_truth,
    lay_over,
    load_judge,
    load_pipeline,
    load_pocket_captions,
    load_prompts,
    load_saes,
    load_statistics,
    see_values,
    strength_unit,
    to_vectors,
)

start()

# %%
block, value = "up.1.2", "red"
pipe, judge, saes = load_pipeline("turbo"), load_judge(), load_saes()
prompts = load_prompts("pocket", 192, "held-out")
with capture_updates(pipe, [block, "up.0.1"]) as updates:
    pictures = draw_pictures(pipe, prompts, CallSettings(1, 0.0, seed=0, batch_size=192))
# ("shape", "shape", ..., "colour", ...) and ("circle", "square", ..., "red", ...)
families, names = zip(*attribute_values(), strict=True)
coloured = [i for i, family in enumerate(families) if family == "colour"]  # what has a colour is an object


def read(block):
    """Activations [pictures, cells, features] of a block's SAE; truth [pictures, cells, values]: is the value there?"""
    activations = saes[block].encode(to_vectors(updates[block])).unflatten(0, (192, -1))
    return activations, judge_truth(judge, pictures, grid=updates[block].shape[-1]).present


# %%
reading = {where: read(where) for where in updates}
activations, truth = reading[block]
present = truth[..., names.index(value)]
every_cell = torch.ones_like(present)
side = updates[block].shape[-1]
print(f"{block}: {side} x {side} cells per picture; activations {list(activations.shape)}")
print(f"{value}: {present.float().mean():.1%} of all cells")

# %% [markdown]
# ## Exercise 3.1: a score for every feature
#
# How different is a feature where the value is present? The score is the mean activation where the value is present,
# minus the mean activation where it is absent, **divided by** the feature's standard deviation, so that loud features
# do not win by being loud. All three are taken over the cells that take part. `among` says which do: now all, later the
# cells of objects only. A mask can index: `activations[mask]` is `[cells where it is True, n_f]`. Some features never
# fire: give them 0.


# %% tags=["exercise"]
def score(activations, present, among):
    """[pictures, cells, n_f] and two masks [pictures, cells] -> [n_f]."""
    # BEGIN SOLUTION
    a, yes = activations[among], present[among]
    return (a[yes].mean(0) - a[~yes].mean(0)) / a.std(0).clamp(min=1e-6)
    # END SOLUTION


# %% tags=["check"]
checks.score(score)

# %% [markdown] tags=["hint"]
# `a = activations[among]` picks the cells that take part: its shape is `[cells, n_f]`. `yes = present[among]` says
# which of these show the value.

# %% [markdown] tags=["hint"]
# `a[yes].mean(0)` is one number for each feature. A feature that never fires has a standard deviation of 0, and 0 / 0
# is no number: divide by `a.std(0).clamp(min=1e-6)`.


# %% tags=["mistake"]
# says: wrong way round
def score(activations, present, among):
    a, yes = activations[among], present[among]
    return (a[~yes].mean(0) - a[yes].mean(0)) / a.std(0).clamp(min=1e-6)


# %% tags=["mistake"]
# says: not divided by the standard deviation
def score(activations, present, among):
    a, yes = activations[among], present[among]
    return a[yes].mean(0) - a[~yes].mean(0)


# %% tags=["mistake"]
# says: every cell takes part although
def score(activations, present, among):
    a, yes = activations.flatten(0, 1), present.flatten()
    return (a[yes].mean(0) - a[~yes].mean(0)) / a.std(0).clamp(min=1e-6)


# %% tags=["mistake"]
# says: a feature that never fires gives 0 / 0
def score(activations, present, among):
    a, yes = activations[among], present[among]
    return (a[yes].mean(0) - a[~yes].mean(0)) / a.std(0)


# %% tags=["mistake"]
# says: the standard deviation is over all cells
def score(activations, present, among):
    a, yes = activations[among], present[among]
    return (a[yes].mean(0) - a[~yes].mean(0)) / activations.std((0, 1)).clamp(min=1e-6)


# %% tags=["mistake"]
# says: nothing is compared
def score(activations, present, among):
    a, yes = activations[among], present[among]
    return a[yes].mean(0) / a.std(0).clamp(min=1e-6)


# %% [markdown]
# ## Choose on one half, test on the other
#
# The best of many features looks good even if all are noise: that is the *winner's curse*. So the feature is chosen on
# the even pictures, and everything that is claimed of it is measured on the odd ones.

# %%
even, odd = torch.arange(0, 192, 2), torch.arange(1, 192, 2)
on_even = score(activations[even], present[even], every_cell[even])
feature = int(on_even.argmax())
on_odd = score(activations[odd], present[odd], every_cell[odd])[feature]
print(f"chosen: {block}/{feature}   score where it was chosen {on_even[feature]:.2f}, on the other half {on_odd:.2f}")
rows = odd[activations[odd][..., feature].mean(1).topk(6).indices]
maps = activations[rows][..., feature].unflatten(1, (side, side))
show(pictures[rows], [f"top {i + 1}" for i in range(6)])
show([lay_over(picture, lit) for picture, lit in zip(pictures[rows], maps, strict=True)], ["where"] * 6)

# %% [markdown]
# **What we see.** These are the pictures of the test half in which the chosen feature is most active, and below them
# where it is active. Would you sign that it means "red"? Top pictures are the weakest kind of evidence: what follows
# is stronger.
#
# ## Exercise 3.2: precision and recall
#
# Call a cell *found* if the feature is active there. **Precision**: of the cells found, the share that show the value.
# **Recall**: of the cells that show the value, the share that was found.


# %% tags=["exercise"]
def precision_and_recall(found, present):
    """Two masks of the same shape -> (precision, recall)."""
    # BEGIN SOLUTION
    both = (found & present).sum()
    return both / found.sum(), both / present.sum()
    # END SOLUTION


# %% tags=["check"]
checks.precision_and_recall(precision_and_recall)

# %% [markdown] tags=["hint"]
# `(found & present).sum()` counts the hits. What do you divide by to get a share *of the cells found*?


# %% tags=["mistake"]
# says: swapped
def precision_and_recall(found, present):
    both = (found & present).sum()
    return both / present.sum(), both / found.sum()


# %% tags=["mistake"]
# says: cells where both are False
def precision_and_recall(found, present):
    right = (found == present).float().mean()
    return right, right


# %% tags=["mistake"]
# says: shares of all cells
def precision_and_recall(found, present):
    both = (found & present).float().mean()
    return both, both


# %%
precision, recall = precision_and_recall(activations[odd][..., feature] > 0, present[odd])
by_chance = present[odd].float().mean()
print(f"{block}/{feature} for {value}: precision {precision:.2f}, recall {recall:.2f}; ", end="")
print(f"precision by chance {by_chance:.2f}")

# %% [markdown]
# ## Exercise 3.3: what chance would find
#
# The control: pair every picture with the truth of *another* picture and search again. What the best of all features
# scores now is what the search finds when there is nothing to find. `order[i]` says whose truth picture i gets. Both
# `present` and `among` belong to the truth: shuffle both.


# %% tags=["exercise"]
def best_by_chance(activations, present, among, order):
    """The best score of all features with the truth shuffled over pictures: one number."""
    # BEGIN SOLUTION
    return score(activations, present[order], among[order]).max()
    # END SOLUTION


# %% tags=["check"]
checks.best_by_chance(best_by_chance, score)

# %% [markdown] tags=["hint"]
# `present[order]` is the truth, shuffled picture by picture. Then search exactly as before, over *all* features.


# %% tags=["mistake"]
# says: nothing was shuffled
def best_by_chance(activations, present, among, order):
    return score(activations[order], present[order], among[order]).max()


# %% tags=["mistake"]
# says: `among` belongs to the truth as well
def best_by_chance(activations, present, among, order):
    return score(activations, present[order], among).max()


# %% tags=["mistake"]
# says: one feature only
def best_by_chance(activations, present, among, order):
    return score(activations, present[order], among[order])[0]


# %%
def search(block, value, only_objects=False, shuffles=100):
    """The best feature on the even pictures: its scores on both halves, the best by chance, how often that wins."""
    activations, truth = reading[block]
    present, among = truth[..., names.index(value)], truth[..., coloured].any(-1) | (not only_objects)
    generator = torch.Generator().manual_seed(0)
    scores = score(activations[even], present[even], among[even])
    best = int(scores.argmax())
    orders = [torch.randperm(len(even), generator=generator) for _ in range(shuffles)]
    given = activations[even], present[even], among[even]
    chance = torch.tensor([float(best_by_chance(*given, order)) for order in orders])
    reached, other = (chance >= scores[best]).float().mean(), score(activations[odd], present[odd], among[odd])[best]
    print(f"{value:6} {block}/{best:<4} {scores[best]:9.2f} {other:11.2f} {chance.mean():15.2f} {reached:20.0%}")


head = "value  feature     chosen on  other half  best by chance  shuffles that reach it"
print(head)
for word in (value, "star"):
    search(block, word)

# %% [markdown]
# **What we see.** For two values: the feature's score on both halves, what the search finds by chance, and how many of
# 100 shuffles find as much on the half where the feature was chosen (a p-value). By the usual standards both cases are
# closed: each feature was tested on new pictures and beats chance. Stop here for a minute and look at the two numbers
# of the features. **What else could a feature "for star" be?**
#
# ## Compared with what?
#
# Most cells show background. A feature that merely prefers objects, of whatever shape or colour, passes everything
# above. The honest comparison is with the cells of **other objects**: now `among` holds the cells of objects only.

# %%
print(head)
for word in (value, "star"):
    search(block, word, only_objects=True)

# %% [markdown]
# **What we see.** Both values again, now against other objects. If many shuffles reach a score, or if nothing is
# left of it on the other half, it cannot be distinguished from chance. A negative result for one value beside a
# positive one for another, by the same code, is worth more than either alone: it shows that the test can fail, and
# that it can succeed.
#
# ## Where red was sought in vain
#
# The paper worked on four blocks of SDXL Turbo. An earlier version of this lesson took one of the same name, up.0.1,
# looked for red with an SAE of 512 features, and found nothing that the test could distinguish from chance. Is it the
# SAE's fault? A **linear probe** is the ceiling for every feature of a block. It is the best weighted sum of *all*
# dimensions of the update, fitted to "red or not" on the objects of the even pictures, and scored on the odd ones as a
# feature is.

# %%
print(head)
for only_objects in (False, True):
    search("up.0.1", value, only_objects)


def probe(block):
    """Ridge regression from the update to the value, on objects: its score on the odd pictures."""
    truth = reading[block][1]
    present, among = truth[..., names.index(value)], truth[..., coloured].any(-1)
    x = to_vectors(updates[block]).unflatten(0, (192, -1))
    rows, wanted = x[even][among[even]], present[even][among[even]].float()
    x, rows = x - rows.mean(0), rows - rows.mean(0)
    ridge = 0.1 * rows.square().sum() / rows.shape[1] * torch.eye(rows.shape[1])
    weights = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ wanted)
    return score((x @ weights)[odd][..., None], present[odd], among[odd])[0]


print("\nlinear probe, other half:", ", ".join(f"{where} {probe(where):.2f}" for where in (block, "up.0.1")))

# %% [markdown]
# **What we see.** The table shows the best feature of up.0.1, first among all cells, then among objects; the last line
# shows the probe in both blocks. Compare its score in up.1.2 with that of the one feature above. Where even the probe
# reads little, the value is hardly there, and no dictionary can find it. *Why* is it not there? Perhaps the block never
# hears of it. Each block reads the caption for itself. So take captions of one object that is not red, and give **one
# block alone** the caption with "red" in place of the colour: the other blocks read the caption as it was.

# %%
captions = [
    caption
    for caption in load_pocket_captions(400, "held-out")
    if [thing.get("colour", "red") != "red" for thing in caption.objects] == [True]
][:32]
texts, call = [caption.text for caption in captions], CallSettings(1, 0.0, seed=0, batch_size=32)
in_red = [caption.text.replace(caption.objects[0]["colour"], "red") for caption in captions]
drawn = {"before": draw_pictures(pipe, texts, call)}
for where in ("up.0.1", block):
    with inject_prompt(pipe, {where: in_red}):
        drawn[f"red to {where}"] = draw_pictures(pipe, texts, call)


def share(pictures):
    """Of the pictures, how many show the value by the judge."""
    return see_values(judge, pictures)[:, names.index(value)].mean()


for name, these in drawn.items():
    print(f"{name:14} {value} is seen in {share(these):.0%} of {len(texts)} pictures")
shown = [i for i, caption in enumerate(captions) if caption.scene.get("style") == "cartoon"][:3]
show([these[i] for i in shown[:2] for these in drawn.values()], [*drawn] * 2)

# %% [markdown]
# **What we see.** The shares say which of the two blocks puts the caption's colour into the picture. Before you look
# for a feature, find out where the model writes what you look for: notebook 05 does so for all blocks and all kinds
# of values.
#
# ## Reading and writing
#
# A feature that *reads* a value is active where the model draws it. Does it also *write* it: does turning it on make
# the model draw it? Turn red's feature on in the same captions, in the cells where the judge sees the object, and let
# the judge count. +5 adds five times the feature's mean activation. Compared with what? With four random features of
# the block, turned on in the same cells by the **same amount**.

# %%
lots = [i for i in torch.randperm(saes[block].n_f, generator=torch.Generator().manual_seed(0)).tolist() if i != feature]
unit = strength_unit(load_statistics()[block], feature)  # the feature's mean activation where it is active
there = judge_truth(judge, drawn["before"], grid=side).present[..., coloured].any(-1)
mask, written = there.unflatten(1, (side, side)).float(), {"before": drawn["before"]}
for name, number, times in [
    (f"{value}'s +2", feature, 2),
    (f"{value}'s +5", feature, 5),
    *((f"random {i} +5", i, 5) for i in lots[:4]),
]:
    with intervene(pipe, {block: add_features(saes[block], number, times * unit, mask)}):
        written[name] = draw_pictures(pipe, texts, call)
for name, these in written.items():
    print(f"{name:12} {value} is seen in {share(these):.0%} of {len(texts)} pictures")
for i in shown:
    show([these[i] for these in written.values()], list(written))

# %% [markdown]
# **What we see.** The lines give the share of pictures in which the judge sees red; below them are the first three
# cartoons of the list. Compare red's feature with the random ones, and with the picture for which the whole block read
# "red". Then **look**: would *you* call it red, or is it a ruin that the judge calls red? A judge is to be trusted on
# pictures like those it learnt from. Where it fails, look at the old colour: nobody took it off.
#
# **Take away.** Choose on one half, test on the other. Compare with the best that chance finds. Ask: compared with
# *what*? Look where the model writes. Test writing by itself, against random features of the same size, and look at
# what was written.
#
# ## For the fast
#
# 1. Which values pass `search(block, ..., only_objects=True)`? Try "large", "striped", "heart".
# 2. `search(block, "night")`: does any feature read a background? With `only_objects=True` it gives nan: why?
# 3. Where is the star? `search("up.0.1", "star", only_objects=True)`. Turn its feature on in up.0.1: cells are
#    larger there.
# 4. Turn red's feature on and the old colour's off, with `add_features` of a negative amount: a function that
#    calls two.

# %% [markdown] tags=["instructor"]
# **Before the lesson** let them guess: how many of the block's features mean "red"? Collect the answers on the board,
# come back at the end.
#
# **Skip first**: 3.2. Never skip 3.3 and the table after it: they are the lesson.
#
# **Talk about** the question "what else could a feature for star be?" before anybody runs the next cell. Somebody will
# see that it has red's number, or say "object".
#
# **Talk about** the table of the two blocks. An honest failure has a reason: this lesson looked in up.0.1 for a long
# time, because the paper's block has that name. Which block writes what is a property of the model, not of the name;
# notebook 05 measures it.
#
# **Talk about** the writing table: with a control of another size ("five times its *own* mean") the comparison would be
# unfair. It is the same question as before: compared with what?
#
# **They will ask**
# - *Is there one feature for red, then?* One in this SAE, in this block, by this test. Another SAE may split it;
#   notebook 09 counts.
# - *Why are there so few features?* A rule chose the size by what the features read, in pictures of their own, and
#   never looked at writing. The paper's SAEs have four per dimension.
# - *Why does the score of star collapse on the other half?* The best of many was chosen, and there was nothing to find:
#   the winner's curse.
# - *Why shuffle whole pictures, not cells?* Neighbouring cells belong to one object; shuffling cells would break that
#   too and make chance look weaker than it is.
# - *Why "best of all features" in the control?* Because we searched all of them. A control must repeat the
#   whole search.
# - *Is the judge right?* The model card says how often, by attribute, on rendered scenes. It had no part in training
#   the models.
