# %% [markdown]
# # Lesson 1: What is an update?
#
# **You will be able to** say what a transformer block adds to a picture in the making, record it, put it into the
# layout that an SAE reads, and measure what is lost without it.
#
# **You need** a little Python, and to know what a tensor's shape is. **Time:** 20 minutes: 5 to read, 10 for three
# exercises, 5 to look at the pictures.
#
# Work from top to bottom: run each cell with Shift+Enter. An exercise is a function with `raise NotImplementedError` in
# place of its last lines. Write them, run the cell, run the check below it. The check says what is wrong; hints and the
# solution are folded: click to open them.

# %%
import checks
import torch
from classroom import show, start

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
# A text-to-image model drew these from noise, in **one** step. It is a pocket version of SDXL Turbo: the same kinds of
# layers with the same names, but small enough for your laptop. Its U-Net is a stack of blocks. Most of them are
# *residual*: a block does not replace what comes in, it **adds** something to it. What it adds is its *update*, and
# updates are what the paper takes apart:
#
# > update = block output − block input
#
# ## Exercise 1.1: the update
#
# `block_input` and `block_output` are tensors `[batch, channels, height, width]`.


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
# `intervene` calls a function of ours at a block, with what goes in and what comes out, while the model draws. Ours
# only looks: it keeps both and returns the output unchanged. Four blocks are looked at, those that the paper chose;
# they work on a grid of 8 × 8 positions, with 128 channels at each.

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
# **What we see.** The last column says how much a block adds, compared with what was there. Blocks with a large update
# are not necessarily those that matter most to the picture; that is measured below.
#
# ## Exercise 1.2: from maps to rows
#
# An SAE reads one *position* at a time: a row of 128 numbers. So maps `[batch, channels, height, width]` have to become
# rows `[batch * height * width, channels]`, in the order picture by picture, and within a picture line by line. The
# check's maps have 5 channels: take the number from `maps.shape[1]`.


# %% tags=["exercise"]
def to_rows(maps):
    """[batch, channels, height, width] -> [batch * height * width, channels]."""
    # BEGIN SOLUTION
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    # END SOLUTION


# %% tags=["check"]
checks.to_rows(to_rows)

# %% [markdown] tags=["hint"]
# `reshape` alone does not move anything in memory: it would cut the channels of one position into several rows. First
# bring the channels to the end, then flatten.

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
# ## Exercise 1.3: a block left out
#
# What does a block do for the picture? Take it away and look. An *intervention* is a function of the block's input, its
# output and the current step (which you need not use). It returns what the block gives out instead. Write the one that
# makes the block add **nothing**.


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


# %%
without = {}
for block in PAPER_BLOCKS:
    with intervene(pipe, {block: leave_out}):
        without[block] = draw_pictures(pipe, prompts, call)
for i in range(2):
    show([pictures[i], *(drawn[i] for drawn in without.values())], ["all blocks", *(f"no {b}" for b in without)])
for block, drawn in without.items():
    print(f"without {block:9} a colour changes by {(drawn - pictures).abs().mean() * 255:5.1f} of 255 on average")

# %% [markdown]
# **What we see.** Two pictures, whole and without one block at a time, and the mean change over all eight. Compare with
# the sizes of the updates above: is the block that adds most also the one that is missed most? Where you see no
# difference, that is a result, too.
#
# **Take away.** A block adds an update. An SAE reads updates, one position per row. Leaving a block out shows what it
# is good for, and that is another question than how much it adds.
#
# ## For the fast
#
# 1. Let a block add *half* of its update. Is the change half as large?
# 2. Let it add its update five times. Which block's pictures change most, and does one fall apart?
# 3. Change `seed` in `call`: does the order of the four blocks stay?

# %% [markdown] tags=["instructor"]
# **Before the lesson** ask: "A block has 128 channels at 8 × 8 positions. How many numbers does it add to one
# picture?" (8,192.)
#
# **Skip first** if time is short: the bonus, then Exercise 1.2 (open the solution together, draw the axes on
# the board).
#
# **They will ask**
# - *Why not take the block's output?* The output also holds everything that earlier blocks wrote; the update is this
#   block's own contribution. The authors' choice; notebook 02 looks at both.
# - *Why one step?* In one step of Turbo there is one update per block and picture, so nobody has to choose a step.
#   Lesson 4 asks whether features found in this way also serve in four steps.
# - *Why does the picture hardly change without some block?* Later blocks make up for it, or it says little. Notebook 05
#   ablates all 28.
