# %% [markdown]
# # Lesson 1: What is an update?
#
# **Question.** What does one block of the model add to a picture, and what is missing without it?
#
# **You will be able to** say what a transformer block adds to a picture in the making, record it, bring it into the
# layout that a sparse autoencoder (SAE, lesson 2) reads, and measure what is lost without it.
#
# **You need** a little Python, and to know what a tensor's shape is. **Time:** 20 minutes.
#
# *Minutes 0 to 3.* Work from top to bottom, and run each cell with Shift+Enter. An exercise is a function whose last
# lines are missing: write them in place of `raise NotImplementedError`. Run the cell, then run the check below it. The
# check tells you what is wrong. Hints and solutions are folded: click to open them.

# %%
import checks
import torch
from classroom import difference, show, start

from sae_lib import PAPER_BLOCKS, CallSettings, draw_pictures, intervene, load_pipeline, load_prompts

start()

# %%
pipe = load_pipeline("turbo")
call = CallSettings(steps=1, guidance_scale=0.0, seed=0, batch_size=8)
prompts = load_prompts("pocket", 8, "held-out")
pictures = draw_pictures(pipe, prompts, call)
show(pictures[:6], [f"picture {i}" for i in range(6)])
print(prompts[0])

# %% [markdown]
# A text-to-image model drew these pictures from noise, in **one** step; the first caption stands below them. The model
# is a pocket version of SDXL Turbo: it has the same kinds of layers with the same names, but is small enough for your
# laptop. Its U-Net is a stack of blocks. Most of them are *residual*: a block does not replace what comes in, it
# **adds** something to it. What it adds is its *update*. The paper takes updates apart:
#
# > update = block output − block input
#
# ## Exercise 1.1: the update
#
# *Minutes 3 to 8.* Write down what the block adds. `block_input` and `block_output` are tensors `[batch, channels, height, width]`.


# %% tags=["exercise"]
def update_of(block_input, block_output):
    """What the block adds: a tensor of the same shape."""
    # BEGIN SOLUTION
    return block_output - block_input
    # END SOLUTION


# %% tags=["check"]
checks.update_of(update_of)

# %% [markdown] tags=["hint"]
# If you have 3 apples and afterwards 5, how many were added?


# %% tags=["mistake"]
# says: wrong way round
def update_of(block_input, block_output):
    return block_input - block_output


# %% tags=["mistake"]
# says: all of the output
def update_of(block_input, block_output):
    return block_output


# %% tags=["mistake"]
# says: changes the tensor that it was given
def update_of(block_input, block_output):
    block_output -= block_input
    return block_output


# %% tags=["mistake"]
# says: End it with `return
def update_of(block_input, block_output):
    print(block_output - block_input)


# %% [markdown]
# ## Look inside the model
#
# While the model draws, `intervene` calls a function of ours at a block. It hands over what goes in and what comes out.
# Our function only looks: it keeps both, and returns the output unchanged. We look at the four blocks that the paper
# chose. They work on a grid of 8 × 8 positions, with 128 channels at each position.

# %%
seen = {}


def look(block):
    """A function for `intervene` that keeps what it sees at this block."""

    def fn(block_input, block_output, at):
        seen[block] = (block_input.clone(), block_output.clone())
        return block_output

    return fn


with intervene(pipe, {block: look(block) for block in PAPER_BLOCKS}):
    draw_pictures(pipe, prompts, call)
for block, (block_input, block_output) in seen.items():
    size = update_of(block_input, block_output).norm() / block_input.norm()
    print(f"{block:9} {list(block_output.shape)}   |update| / |input| = {size:.2f}")

# %% [markdown]
# **What we see.** The last column says how large a block's update is, compared with its input. Does the block with the
# largest update also matter most to the picture? We will measure that below.
#
# ## Exercise 1.2: from maps to rows
#
# *Minutes 8 to 13.* An SAE reads one *position* at a time: a row of 128 numbers. So turn maps
# `[batch, channels, height, width]` into rows `[batch * height * width, channels]`. The rows go picture by picture,
# and within a picture line by line. The check's maps have 5 channels: take the number from `maps.shape[1]`.


# %% tags=["exercise"]
def to_rows(maps):
    """[batch, channels, height, width] -> [batch * height * width, channels]."""
    # BEGIN SOLUTION
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    # END SOLUTION


# %% tags=["check"]
checks.to_rows(to_rows)

# %% [markdown] tags=["hint"]
# `reshape` alone moves nothing in memory, so a row would mix channels and positions. First bring the channels to the
# end, then flatten.

# %% [markdown] tags=["hint"]
# `maps.permute(0, 2, 3, 1)` has the shape `[batch, height, width, channels]`.


# %% tags=["mistake"]
# says: bring the channels to the end first
def to_rows(maps):
    return maps.reshape(-1, maps.shape[1])


# %% tags=["mistake"]
# says: one picture's rows still stand apart
def to_rows(maps):
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


# %% tags=["mistake"]
# says: column by column
def to_rows(maps):
    return maps.permute(0, 3, 2, 1).reshape(-1, maps.shape[1])


# %% [markdown]
# ## Exercise 1.3: leave a block out
#
# *Minutes 13 to 16.* What does a block do for the picture? Take it away and look. An *intervention* is a function of the
# block's input, its output and the current step (you need not use the step). It returns what the block shall give out
# instead. Write the intervention that makes the block add **nothing**.


# %% tags=["exercise"]
def leave_out(block_input, block_output, at):
    """What the block gives out if its update is zero."""
    # BEGIN SOLUTION
    return block_input
    # END SOLUTION


# %% tags=["check"]
checks.leave_out(leave_out)

# %% [markdown] tags=["hint"]
# In output = input + update, put 0 for the update.


# %% tags=["mistake"]
# says: nothing would change
def leave_out(block_input, block_output, at):
    return block_output


# %% tags=["mistake"]
# says: what came in is lost too
def leave_out(block_input, block_output, at):
    return torch.zeros_like(block_output)


# %% tags=["mistake"]
# says: the update alone
def leave_out(block_input, block_output, at):
    return block_output - block_input


# %% [markdown]
# ## Look at what is missing
#
# *Minutes 16 to 20.* First you see two pictures, whole and without one block at a time. Below each stands the
# *difference picture*: the picture without the block, minus the original. Grey means that nothing changed.

# %% tags=["picture", "numbers"]
without = {}
for block in PAPER_BLOCKS:
    with intervene(pipe, {block: leave_out}):
        without[block] = draw_pictures(pipe, prompts, call)
for i in range(2):
    show([pictures[i], *(drawn[i] for drawn in without.values())], ["all blocks", *(f"no {b}" for b in without)])
    changes = [difference(pictures[i], drawn[i]) for drawn in [pictures, *without.values()]]
    show(changes, ["no difference", *["difference"] * len(without)])
for block, drawn in without.items():
    print(f"without {block:9} a colour changes by {(drawn - pictures).abs().mean() * 255:5.1f} of 255 on average")

# %% [markdown]
# **What we see.** The printed lines give the mean change over all eight pictures. Compare them with the sizes of the
# updates above: is the block that adds most also the block that is missed most? If a difference picture is grey, that
# is a result as well: the model can draw this picture without that block.
#
# **Take away.** A block adds an update. An SAE reads updates, one position per row. A large update and an important
# update are two different things: leave the block out to see how important it is.
#
# ## For the fast
#
# 1. Let each block add *half* of its update. Is the change half as large?
# 2. Let each block add its update five times. Which block changes the pictures most?
# 3. Change `seed` in `call`, so that the model starts from other noise. Does the order of the four blocks stay?

# %% tags=["fast"]
# 1. output = input + half of the update
for block, drawn in without.items():
    with intervene(pipe, {block: lambda block_input, block_output, at: (block_input + block_output) / 2}):
        half = draw_pictures(pipe, prompts, call)
    shares = [(these - pictures).abs().mean() for these in (half, drawn)]
    print(f"{block:9} half of the update changes {shares[0] / shares[1]:.0%} of what no update changes")

# %% tags=["fast"]
# 2. output = input + 5 times the update
for block in PAPER_BLOCKS:
    with intervene(pipe, {block: lambda block_input, block_output, at: 5 * block_output - 4 * block_input}):
        five = draw_pictures(pipe, prompts, call)
    print(f"{block:9} five times: a colour changes by {(five - pictures).abs().mean() * 255:5.1f} of 255 on average")

# %% tags=["fast"]
# 3. Other noise: the whole picture and the four ablations again
other, change = CallSettings(steps=1, guidance_scale=0.0, seed=1, batch_size=8), {}
whole = draw_pictures(pipe, prompts, other)
for block in PAPER_BLOCKS:
    with intervene(pipe, {block: leave_out}):
        change[block] = float((draw_pictures(pipe, prompts, other) - whole).abs().mean())
before = {block: float((drawn - pictures).abs().mean()) for block, drawn in without.items()}
for seed, order in enumerate((before, change)):
    print(f"seed {seed}: from most to least missed:", ", ".join(sorted(order, key=order.get, reverse=True)))

# %% [markdown] tags=["instructor"]
# **Before the lesson** ask: "A block has 128 channels at 8 × 8 positions. How many numbers does it add to one
# picture?" (8,192.)
#
# **Skip first** if time is short: the bonus, then Exercise 1.2 (open the solution together, draw the axes on
# the board).
#
# **They will ask**
# - *Why not take the block's output?* The output also holds everything that earlier blocks wrote. The update is this
#   block's own contribution, so the authors chose it. Notebook 02 looks at both.
# - *Why one step?* In one step of Turbo there is one update per block and picture, so nobody has to choose a step.
#   Lesson 4 asks whether features found in this way also serve in four steps.
# - *Why does the picture hardly change without some block?* Later blocks make up for it, or the block adds little that
#   this picture needs. Notebook 05 leaves out each of the 28 blocks.
# - *Why is a difference picture coloured?* Each colour channel is shown as grey plus its change. Where red went away
#   you see the opposite of red, a blue-green.
