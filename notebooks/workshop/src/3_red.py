# %% [markdown]
# # Lesson 3: Is there a feature for red?
#
# **Question.** Is there one feature that stands for "red", and how do you prove it to somebody who doubts it?
#
# **You will be able to** find the feature that fits a meaning best, prove that it reads the meaning and that it draws
# it, and decide whether a linear probe does better.
#
# **You need** lesson 2; mean and standard deviation. **Time:** 35 minutes.
#
# *Minutes 0 to 4.* In the pocket world there is a truth. A *judge* looks at a picture and says of each pixel which
# object it belongs to, and which colour that object has. So "this feature means red" is a claim that can be *wrong*. We
# look into three blocks of the same model, each with its own SAE. Guess before you begin: in how many of the three is
# there a feature for red?

# %%
import checks
import torch
from classroom import show, start

from sae_lib import CallSettings, draw_pictures, intervene, load_judge, load_pipeline, load_saes

start()

# %%
from sae_lib import attribute_values, capture_updates, judge_truth, load_prompts, to_vectors

block, value = "up.1.2", "red"
blocks = (block, "down.2.1", "up.1.1")
pipe, judge, saes = load_pipeline("turbo"), load_judge(), load_saes()
prompts = load_prompts("pocket", 192, "held-out")
with capture_updates(pipe, blocks) as updates:
    pictures = draw_pictures(pipe, prompts, CallSettings(1, 0.0, seed=0, batch_size=192))
sides = {where: update.shape[-1] for where, update in updates.items()}  # cells in a row of the block's grid
# ("shape", "shape", ..., "colour", ...) and ("circle", "square", ..., "red", ...)
families, names = zip(*attribute_values(), strict=True)
coloured = [i for i, family in enumerate(families) if family == "colour"]  # only objects have a colour

# %%
x, activations, present, objects = {}, {}, {}, {}
for where in blocks:
    x[where] = to_vectors(updates[where]).unflatten(0, (192, -1))  # [pictures, cells, d_model]
    activations[where] = saes[where].encode(x[where])  # [pictures, cells, n_f]
    present[where] = judge_truth(judge, pictures, grid=sides[where]).present  # [pictures, cells, values]: is it there?
    objects[where] = present[where][..., coloured].any(-1)  # [pictures, cells]: does the cell belong to an object?
    print(f"{where:9} activations {list(activations[where].shape)}")
red = {where: present[where][..., names.index(value)] for where in blocks}
everywhere = {where: torch.ones_like(objects[where]) for where in blocks}
print(f"{block}: {red[block].float().mean():.1%} of all cells are {value}")

# %% [markdown]
# ## Exercise 3.1: find it
#
# *Minutes 4 to 12.* Give each feature of the block a score: how different is its activation where the value is present?
#
# > score = (mean activation where present − mean activation where absent) / standard deviation
#
# The division makes loud and quiet features comparable. All three numbers are taken over the cells that take part:
# `among` is True there. A mask can index: `activations[mask]` has the shape `[cells where the mask is True, n_f]`. Some
# features never fire: give them the score 0.


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
# ## Exercise 3.2: prove that it reads red
#
# *Minutes 12 to 21.* The best of many features looks good even if all of them are noise. This is the *winner's curse*.
# Two precautions help. First: choose the feature on the even pictures, and measure what you claim on the odd ones.

# %%
even, odd = torch.arange(0, 192, 2), torch.arange(1, 192, 2)
on_even = score(activations[block][even], red[block][even], everywhere[block][even])
feature = int(on_even.argmax())
on_odd = score(activations[block][odd], red[block][odd], everywhere[block][odd])[feature]
print(f"chosen: {block}/{feature}   score where it was chosen {on_even[feature]:.2f}, on the other half {on_odd:.2f}")

# %%
from sae_lib import lay_over

maps = activations[block][odd][..., feature]
top = maps.mean(1).topk(5).indices
show(pictures[odd[top]], [f"top {i + 1}" for i in range(5)])
lit = maps[top].unflatten(1, (sides[block], sides[block]))
show([lay_over(picture, cells) for picture, cells in zip(pictures[odd[top]], lit, strict=True)], ["where"] * 5)

# %% [markdown]
# **What we see.** These are the five pictures of the other half in which the feature is most active, and below them the
# cells in which it is active. Would you sign that it means "red"?
#
# The second precaution is a control. Pair every picture with the truth of *another* picture, and search again. Now there
# is nothing to find, so the best score is luck. `order[i]` says whose truth picture i gets. Both `present` and `among`
# belong to the truth: shuffle both.


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
def search(where, value, only_objects=False, shuffles=100):
    """Finds the best feature on the even pictures and prints its scores, with those of shuffled truths; its number."""
    truth, among = present[where][..., names.index(value)], (objects if only_objects else everywhere)[where]
    given = activations[where][even], truth[even], among[even]
    scores, generator = score(*given), torch.Generator().manual_seed(0)
    best = int(scores.argmax())
    orders = [torch.randperm(len(even), generator=generator) for _ in range(shuffles)]
    chance = torch.tensor([float(best_by_chance(*given, order)) for order in orders])
    other = score(activations[where][odd], truth[odd], among[odd])[best]
    as_good = (chance >= scores[best]).float().mean()
    name = f"{where}/{best}"
    print(f"{value:6} {name:11} {scores[best]:9.2f} {other:10.2f} {chance.mean():14.2f} {as_good:14.0%}")
    return best


head = "value  feature     chosen on other half best by chance as good by chance"
print(head)
for word in (value, "star"):
    search(block, word)

# %% [markdown]
# **What we see.** Each row is a value with its best feature. The columns give the score in the half where the feature was
# chosen, the score in the other half, the best score that shuffled truths give (the mean of 100 shuffles), and the share
# of shuffles that are as good as the feature. Both features pass: they hold on new pictures, and chance does not reach
# them. Stop here and look at the numbers of the two features. **What else could the feature "for star" be?**
#
# Most cells show background. A feature that is active on every object, whatever its shape and colour, passes this
# test. So compare with the cells of **other objects**: now only cells of objects take part.

# %%
print(head)
feature, for_star = (search(block, word, only_objects=True) for word in (value, "star"))

# %% [markdown]
# **What we see.** These are the same two values, now among objects only. If many shuffles are as good as a feature, or if
# little of its score is left in the other half, then it does not read the value. The same code accepts one value and
# rejects the other: so the test can fail, and passing it means something.
#
# ## Prove that it draws red
#
# *Minutes 21 to 25.* A feature *reads* a value if it is active where the model draws it. Does it also *draw* the value:
# does the model draw red when you turn the feature on? Take captions of one object that is not red. Add the feature in
# the cells of the object, and let the judge count the red pictures. The amount is five times the feature's mean
# activation where it is active. The control is a random other feature for each picture, added in the same cells by the
# **same amount**. Every caption is drawn from two different noises.

# %%
from sae_lib import load_pocket_captions, load_statistics, see_values, strength_unit


def is_not_red(caption):
    """Whether it has one object, of another colour."""
    return [thing.get("colour", value) != value for thing in caption.objects] == [True]


captions = [caption for caption in load_pocket_captions(400, "held-out") if is_not_red(caption)][:12] * 2
texts, call = [caption.text for caption in captions], CallSettings(1, 0.0, seed=1, batch_size=24)
before = draw_pictures(pipe, texts, call)
statistics = load_statistics()


def draw(where, directions, amount):
    """The captions' pictures, with a direction of length 1 added by the amount in the cells of the object."""
    there = judge_truth(judge, before, grid=sides[where]).present[..., coloured].any(-1)
    change = amount * there.unflatten(1, (-1, sides[where]))[:, None] * directions[..., None, None]
    with intervene(pipe, {where: lambda block_input, block_output, at: block_output + change}):
        return draw_pictures(pipe, texts, call)


def draw_feature(where, number):
    """Pictures with a feature, and with a random other one for each picture, by the same amount."""
    columns, amount = saes[where].decoder.weight.T, 5 * strength_unit(statistics[where], number)
    others = [i for i in range(len(columns)) if i != number]
    lot = torch.randint(len(others), (len(texts),), generator=torch.Generator().manual_seed(0))
    return draw(where, columns[number], amount), draw(where, columns[torch.tensor(others)[lot]], amount)


def share(pictures):
    """Of the pictures, how many show red by the judge."""
    return see_values(judge, pictures)[:, names.index(value)].mean()


# %% tags=["picture"]
drawn = {"before": before}
drawn["red's feature"], drawn["random"] = draw_feature(block, feature)
for name, these in drawn.items():
    print(f"{name:13} {value} is seen in {share(these):.0%} of {len(texts)} pictures")
for i in [i for i, caption in enumerate(captions) if caption.scene.get("style") == "cartoon"][:2]:
    show([these[i] for these in drawn.values()], list(drawn))

# %% [markdown]
# **What we see.** The lines give the share of pictures in which the judge sees red. The rows show the first two cartoons
# among the captions. If the feature draws red and random features do not, then the block has a feature for red: it
# reads it **and** draws it. A random feature may change something as well, even a colour, but it should rarely draw red.
# Look with your own eyes too: would *you* call the object red, or is it a ruin that the judge calls red?
#
# ## Look where there is none
#
# *Minutes 25 to 29.* Now try both proofs in two other blocks. Does the best feature read red? Does it draw red?

# %%
print(head)
found = {block: feature} | {where: search(where, value, only_objects=True) for where in blocks[1:]}
print()
shares = {block: [share(drawn[name]) for name in ("red's feature", "random")]}
for where in blocks[1:]:
    shares[where] = [share(these) for these in draw_feature(where, found[where])]
for where, (own, random) in shares.items():
    print(f"{where + '/' + str(found[where]):11} red is seen in {own:4.0%}; with random features {random:4.0%}")

# %% [markdown]
# **What we see.** Answer two questions for each block: does its best feature read red in the other half, better than
# chance? Does it draw red, more often than random features do? Find the block whose feature does one and not the other.
# **A feature that reads need not draw.** The block may carry the colour in its update, and the later
# blocks may take it from somewhere else (notebook 05 finds out which block puts what into the picture).
#
# ## Exercise 3.3: a probe against the feature
#
# *Minutes 29 to 35.* In one block no feature reads red. Is red missing from the block, or only from its SAE? Ask the
# updates themselves. A *linear probe* is any direction in the space of the updates, found with the truth. The simplest
# one points from the mean of the other objects' cells to the mean of the red objects' cells. Give it length 1, as a
# feature's direction has.


# %% tags=["exercise"]
def probe(x, present, among):
    """[pictures, cells, d_model] and two masks [pictures, cells] -> a direction [d_model] of length 1."""
    # BEGIN SOLUTION
    rows, yes = x[among], present[among]
    direction = rows[yes].mean(0) - rows[~yes].mean(0)
    return direction / direction.norm()
    # END SOLUTION


# %% tags=["check"]
checks.probe(probe)

# %% [markdown] tags=["hint"]
# Begin as in Exercise 3.1: `rows, yes = x[among], present[among]`. The direction is a difference of two means.

# %% [markdown] tags=["hint"]
# `direction / direction.norm()` has length 1.


# %% tags=["mistake"]
# says: the wrong way round
def probe(x, present, among):
    rows, yes = x[among], present[among]
    direction = rows[~yes].mean(0) - rows[yes].mean(0)
    return direction / direction.norm()


# %% tags=["mistake"]
# says: its length is not 1
def probe(x, present, among):
    rows, yes = x[among], present[among]
    return rows[yes].mean(0) - rows[~yes].mean(0)


# %% tags=["mistake"]
# says: every cell takes part
def probe(x, present, among):
    rows, yes = x.flatten(0, 1), present.flatten()
    direction = rows[yes].mean(0) - rows[~yes].mean(0)
    return direction / direction.norm()


# %% tags=["mistake"]
# says: count as cells without the value
def probe(x, present, among):
    shown = present & among
    direction = x[shown].mean(0) - x[~shown].mean(0)
    return direction / direction.norm()


# %% tags=["mistake"]
# says: (And its length is not 1
def probe(x, present, among):
    return x[present].mean(0) - x[~present].mean(0)


# %% tags=["mistake"]
# says: nothing is compared
def probe(x, present, among):
    direction = x[among][present[among]].mean(0)
    return direction / direction.norm()


# %% tags=["mistake"]
# says: divided by the standard deviation
def probe(x, present, among):
    rows, yes = x[among], present[among]
    direction = (rows[yes].mean(0) - rows[~yes].mean(0)) / rows.std(0)
    return direction / direction.norm()


# %% [markdown]
# A second probe is *ridge regression*, the usual one: the weighted sum of all dimensions that fits "red or not" best.
# Both probes are made on the even pictures. Now the contest, on the odd pictures and at equal size:
#
# - **reads**: how often is its answer correct in the cells of objects? It answers "red" above a threshold, which is set
#   on the even pictures. Cells that are red and cells that are not count half each, so guessing gives 50 %.
# - **draws**: each direction is added by the same amount as the feature above, in the same cells.


# %%
def ridge(x, present, among):
    """The direction of the ridge regression from x to "present or not", of length 1."""
    rows, wanted = x[among] - x[among].mean(0), present[among].float()
    penalty = 0.1 * rows.square().sum() / rows.shape[1] * torch.eye(rows.shape[1])
    direction = torch.linalg.solve(rows.T @ rows + penalty, rows.T @ (wanted - wanted.mean()))
    return direction / direction.norm()


def correct_share(said, where, half):
    """How often the answer is correct: the mean of the shares for red objects' cells and for other objects' cells."""
    said, yes = (cells[half][objects[where][half]] for cells in (said, red[where]))
    return float(said[yes].float().mean() + (~said[~yes]).float().mean()) / 2


def say_red(values, where):
    """Which cells a reader says are red: those above the threshold that is best on the even pictures."""
    thresholds = values[even][objects[where][even]].quantile(torch.linspace(0, 1, 99)).unique()
    return values > max(thresholds, key=lambda threshold: correct_share(values > threshold, where, even))


said, directions = {}, {}
for where in blocks:
    said[where, "feature"] = say_red(activations[where][..., found[where]], where)
    for name, fit in {"difference of means": probe, "ridge regression": ridge}.items():
        directions[where, name] = fit(x[where][even], red[where][even], objects[where][even])
        said[where, name] = say_red(x[where] @ directions[where, name], where)
reads = {reader: correct_share(cells, reader[0], odd) for reader, cells in said.items()}
for where in blocks:
    print(f"{where:9} correct:", ", ".join(f"{name} {reads[w, name]:.0%}" for w, name in reads if w == where))

# %% tags=["numbers"]
amount = 5 * strength_unit(statistics[block], feature)
contest = {"random": drawn["random"], "feature": drawn["red's feature"]}
for name in ("difference of means", "ridge regression"):
    contest[name] = draw(block, directions[block, name], amount)
for name, these in contest.items():
    correct = f"{reads[block, name]:4.0%}" if (block, name) in reads else "   -"
    print(f"{name:20} reads: {correct} correct   draws: {share(these):4.0%} of {len(texts)} pictures are red")
for i in [i for i, caption in enumerate(captions) if caption.scene.get("style") == "cartoon"][:2]:
    show([before[i], *(these[i] for these in contest.values())], ["before", "random", "feature", "means", "ridge"])

# %% [markdown]
# **What we see.** The first table says how well each reader does in each block. Is there a block in which no feature
# reads red, but a probe does? **Absence in one dictionary is not absence in the model.** The second table is the
# contest in the block that has a feature for red.
#
# **You decide: who wins, and at what?** The probes saw the truth of every cell, and they know this one value only. The
# SAE was trained without any truth; you needed the truth only to pick one of its features. What would you take to find
# a value that nobody has labelled?
#
# **Take away.** There is a feature for red, and you proved it twice: it reads red and it draws red. A proof needs new
# pictures, a control that repeats the whole search, and the question "compared with *what*?". A feature that reads need
# not draw. What one SAE lacks the model may still have.
#
# ## For the fast
#
# 1. Are there features for the other four colours? Use `search(block, ..., only_objects=True)`.
# 2. Turn red's feature on and the old colour's feature off in the same cells. Is red seen more often?
# 3. Did the best reader win by luck? Resample the odd pictures and compare the two best readers again.

# %% tags=["fast"]
# 1. The other colours, in the same block
print(head)
of_colour = {names[i]: search(block, names[i], only_objects=True) for i in coloured if names[i] != value}

# %% tags=["fast"]
# 2. Red's direction minus the old colour's, by the same amount
columns = saes[block].decoder.weight.T
old = torch.tensor([of_colour[caption.objects[0]["colour"]] for caption in captions])
swapped = draw(block, columns[feature] - columns[old], amount)
print(f"red on: {share(contest['feature']):.0%}; red on and the old colour off: {share(swapped):.0%}")

# %% tags=["fast"]
# 3. The difference of the two best readers in 300 resamples of the odd pictures
first, second = sorted((name for where, name in reads if where == block), key=lambda name: -reads[block, name])[:2]
generator, gaps = torch.Generator().manual_seed(0), []
for _ in range(300):
    drawn_by_lot = odd[torch.randint(len(odd), (len(odd),), generator=generator)]
    one, other = (correct_share(said[block, name], block, drawn_by_lot) for name in (first, second))
    gaps.append(one - other)
low, high = torch.tensor(gaps).quantile(torch.tensor([0.025, 0.975]))
gap = reads[block, first] - reads[block, second]
print(f"{first} minus {second}: {gap:+.1%} (95 % {low:+.1%} to {high:+.1%}); if 0 lies inside, nobody has won")

# %% [markdown] tags=["instructor"]
# **Before the lesson** let them guess: in how many of the three blocks is there a feature for red? Collect the answers
# on the board and come back to them before the probe. At the end let them vote: feature or probe, for reading and for
# drawing.
#
# **Skip first**: Exercise 3.3, but run its solution: everybody wants to see who wins. Never skip 3.2 and the two tables
# after it, since they are the proof.
#
# **Talk about** the question "what else could the feature for star be?" before anybody runs the next cell. Somebody
# will see that it has red's number, or say "object".
#
# **Talk about** the table of the other two blocks. One has a feature that reads red and does not draw it. In the other
# no feature reads red, but the probe does. So neither "it reads" nor "we found none" says what the model does.
#
# **Talk about** the sizes: every direction is added by the same amount. If a control were added by five times its *own*
# mean, the comparison would be unfair. It is the same question again: compared with what?
#
# **They will ask**
# - *Is there one feature for red, then?* There is one in this SAE, in this block, by these two tests. Another SAE may
#   split it into several; notebook 09 counts.
# - *Why are there so few features?* A rule chose the size by what the features read, in pictures of their own, and
#   never looked at drawing. The paper's SAEs have four features per dimension.
# - *Why does star's score collapse on the other half?* The best of many was chosen, and there was nothing to find. This
#   is the winner's curse.
# - *Why shuffle whole pictures, not cells?* Neighbouring cells belong to one object. If cells were shuffled, chance
#   would look weaker than it is.
# - *Why "best of all features" in the control?* Because we searched all of them. A control must repeat the whole search.
# - *Why are there two probes?* Ridge regression also asks which dimensions vary together, and so reads well. The
#   difference of the means is where red objects differ, and so it may draw well. No rule says that one direction is
#   best at both.
# - *Did the probe win unfairly?* It is fitted to this one question with the truth of every cell. The SAE's feature was
#   there before anybody asked about red. Whether that matters is what the vote is about.
# - *Is the judge right?* The model card says how often, by attribute, on rendered scenes. It had no part in training
#   the models.
