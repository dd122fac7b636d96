# %% [markdown]
# # Lesson 2: Write a TopK encoder
#
# **Question.** Can a sum of four directions describe what a block adds at one position?
#
# **You will be able to** write the sparse autoencoder (SAE) of the paper in a few lines of PyTorch, prove that yours
# gives the same numbers as the library's, and say how much of the updates it explains.
#
# **You need** lesson 1, matrix products, and what a bias is. **Time:** 30 minutes.
#
# *Minutes 0 to 5.* An SAE has a list of n_f directions, its *features*. It writes each update vector x as a sum of a
# few of them, each with a strength of its own.
#
# | symbol | code | shape | meaning |
# |---|---|---|---|
# | x | `x` | `[rows, d_model]` | update vectors, one per position |
# | W_enc, b_act | `W_enc`, `b_act` | `[n_f, d_model]`, `[n_f]` | encoder |
# | b_pre | `b_pre` | `[d_model]` | subtracted before encoding, added again after decoding |
# | s | `s` | `[rows, n_f]` | activations: at most k in each row are not zero |
# | W_dec | `W_dec` | `[d_model, n_f]` | decoder: its columns are the features |

# %%
import checks
import matplotlib.pyplot as plt
import torch
from classroom import start

from sae_lib import CallSettings, load_pipeline, load_prompts, load_saes, stream_updates, to_vectors

start()

# %%
block = "up.1.2"
pipe, sae = load_pipeline("turbo"), load_saes()[block]
call = CallSettings(steps=1, guidance_scale=0.0, batch_size=64)
((_, updates),) = stream_updates(pipe, load_prompts("pocket", 64, "held-out"), [block], call)
x = to_vectors(updates[block])
W_enc, b_act, b_pre, W_dec = sae.encoder.weight, sae.latent_bias, sae.pre_bias, sae.decoder.weight
print("x", list(x.shape), "  W_enc", list(W_enc.shape), "  W_dec", list(W_dec.shape), f"  k = {sae.k}")

# %% [markdown]
# ## Exercise 2.1: pre-activations
#
# *Minutes 5 to 11.* How well does each feature fit each row? Subtract b_pre, multiply by the encoder, add b_act:
#
# > W_enc (x − b_pre) + b_act


# %% tags=["exercise"]
def pre_activations(x, W_enc, b_pre, b_act):
    """[rows, d_model] -> [rows, n_f]."""
    # BEGIN SOLUTION
    return (x - b_pre) @ W_enc.T + b_act
    # END SOLUTION


# %% tags=["check"]
checks.pre_activations(pre_activations)

# %% [markdown] tags=["hint"]
# The formula is for one column vector x. Here the vectors are the *rows* of x. So write the product the other way round:
# rows times W_encᵀ.


# %% tags=["mistake"]
# says: b_pre is not taken off
def pre_activations(x, W_enc, b_pre, b_act):
    return x @ W_enc.T + b_act


# %% tags=["mistake"]
# says: b_act is missing
def pre_activations(x, W_enc, b_pre, b_act):
    return (x - b_pre) @ W_enc.T


# %% tags=["mistake"]
# says: RuntimeError in the line `return W_enc @ (x - b_pre) + b_act`
def pre_activations(x, W_enc, b_pre, b_act):
    return W_enc @ (x - b_pre) + b_act


# %% [markdown]
# ## Exercise 2.2: TopK
#
# *Minutes 11 to 17.* In each row keep the k largest pre-activations in their places, and put 0 everywhere else. Then
# apply the ReLU: if a kept value is below 0, it becomes 0 too.


# %% tags=["exercise"]
def top_k(pre, k):
    """[rows, n_f] -> [rows, n_f], at most k of a row not zero."""
    # BEGIN SOLUTION
    values, places = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values.relu())
    # END SOLUTION


# %% tags=["check"]
checks.top_k(top_k)

# %% [markdown] tags=["hint"]
# `values, places = pre.topk(k, dim=-1)` gives the k largest of each row and where they stood, both `[rows, k]`.

# %% [markdown] tags=["hint"]
# `torch.zeros_like(pre).scatter(-1, places, values)` writes values to their places in a tensor of zeros.


# %% tags=["mistake"]
# says: the ReLU is missing
def top_k(pre, k):
    values, places = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values)


# %% tags=["mistake"]
# says: the k kept values alone
def top_k(pre, k):
    return pre.topk(k, dim=-1).values.relu()


# %% tags=["mistake"]
# says: by size without sign
def top_k(pre, k):
    places = pre.abs().topk(k, dim=-1).indices
    return torch.zeros_like(pre).scatter(-1, places, pre.gather(-1, places)).relu()


# %% tags=["mistake"]
# says: of all rows together
def top_k(pre, k):
    smallest = pre.flatten().topk(k).values[-1]
    return torch.where(pre >= smallest, pre, 0).relu()


# %% tags=["mistake"]
# says: does one of its loops never end
def top_k(pre, k):
    kept = torch.zeros_like(pre)
    while (kept > 0).sum() < k * len(pre):
        print("still looking")
    return kept


# %% tags=["mistake"]
# says: on the device meta
def top_k(pre, k):
    return torch.zeros(pre.shape, device="meta")


# %% [markdown]
# ## Exercise 2.3: decode
#
# *Minutes 17 to 22.* Go back from activations to a vector. Multiply each feature (a column of W_dec) by its activation,
# sum over the features, and add b_pre again.


# %% tags=["exercise"]
def decode(s, W_dec, b_pre):
    """[rows, n_f] -> [rows, d_model]."""
    # BEGIN SOLUTION
    return s @ W_dec.T + b_pre
    # END SOLUTION


# %% tags=["check"]
checks.decode(decode)

# %% [markdown] tags=["hint"]
# As in Exercise 2.1 the vectors are rows: rows times W_decᵀ.


# %% tags=["mistake"]
# says: b_pre is not put back
def decode(s, W_dec, b_pre):
    return s @ W_dec.T


# %% tags=["mistake"]
# says: b_pre is taken off
def decode(s, W_dec, b_pre):
    return s @ W_dec.T - b_pre


# %% tags=["mistake"]
# says: RuntimeError
def decode(s, W_dec, b_pre):
    return s @ W_dec + b_pre


# %% [markdown]
# ## The same as the library?
#
# Now your three functions get the trained weights. Their results are compared with those of the library's `TopKSAE`.
# When two programs that were written separately give the same numbers, both are probably right.

# %%
s = top_k(pre_activations(x, W_enc, b_pre, b_act), sae.k)
x_hat = decode(s, W_dec, b_pre)
print("largest difference of the activations:", f"{(s - sae.encode(x)).abs().max():.1e}")
print("largest difference of the reconstruction:", f"{(x_hat - sae(x)).abs().max():.1e}")
print(f"features active in a row: {(s > 0).sum(1).float().mean():.1f} of {s.shape[1]}")

# %% [markdown]
# ## Exercise 2.4: explained variance
#
# *Minutes 22 to 30.* How good is the reconstruction? The authors' training metric looks at each dimension by itself, and
# then takes the mean over dimensions:
#
# > mean over dimensions of ( 1 − var(x − x̂) / var(x) ),  variances over the rows
#
# 1 is perfect; 0 is no better than always answering with the mean vector. Use `x.var(0, correction=0)`.


# %% tags=["exercise"]
def explained_variance(x, x_hat):
    """Two tensors [rows, d_model] -> one number."""
    # BEGIN SOLUTION
    return (1 - (x - x_hat).var(0, correction=0) / x.var(0, correction=0)).mean()
    # END SOLUTION


# %% tags=["check"]
checks.explained_variance(explained_variance)

# %% [markdown] tags=["hint"]
# `(x - x_hat).var(0, correction=0)` has one number for each dimension. First divide, then take the mean.


# %% tags=["mistake"]
# says: sums the variances over the dimensions before it divides
def explained_variance(x, x_hat):
    return 1 - (x - x_hat).var(0, correction=0).sum() / x.var(0, correction=0).sum()


# %% tags=["mistake"]
# says: the share that is lost
def explained_variance(x, x_hat):
    return ((x - x_hat).var(0, correction=0) / x.var(0, correction=0)).mean()


# %% tags=["mistake"]
# says: variances over the dimensions
def explained_variance(x, x_hat):
    return (1 - (x - x_hat).var(1, correction=0) / x.var(1, correction=0)).mean()


# %% tags=["mistake"]
# says: the two arguments of the division are swapped
def explained_variance(x, x_hat):
    return (1 - (x - x_hat).var(0, correction=0) / x_hat.var(0, correction=0)).mean()


# %%
ks = [1, 2, 4, 8, 16, 32]
generator = torch.Generator().manual_seed(0)
random_encoder = torch.randn(W_enc.shape, generator=generator) * W_enc.std()
random_decoder = random_encoder.T / random_encoder.norm(dim=1)
trained, untrained = [], []
for k in ks:
    s = top_k(pre_activations(x, W_enc, b_pre, b_act), k)
    trained.append(float(explained_variance(x, decode(s, W_dec, b_pre))))
    s = top_k(pre_activations(x, random_encoder, b_pre, 0 * b_act), k)
    untrained.append(float(explained_variance(x, decode(s, random_decoder, b_pre))))

# %% tags=["picture", "numbers"]
print("k             ", " ".join(f"{k:4}" for k in ks))
print("trained SAE   ", " ".join(f"{value:4.2f}" for value in trained))
print("random control", " ".join(f"{value:4.2f}" for value in untrained))
fig, ax = plt.subplots(figsize=(4, 2.4))
ax.plot(ks, trained, "o-", label=f"trained SAE (for k = {sae.k})")
ax.plot(ks, untrained, "s--", color="#767676", label="control: random features")
ax.axvline(sae.k, color="#BBBBBB", linewidth=1)
ax.set(xscale="log", xticks=ks, xticklabels=ks, xlabel="k: features kept per position", ylabel="explained variance")
ax.legend()
plt.show()

# %% [markdown]
# **What we see.** The more features are kept, the more of the updates' variance is explained. The dashed line is the
# control: an SAE of the same size with random weights. The trained SAE was trained with the k of the vertical line. What
# happens to the right of that line, and why?
#
# **Take away.** Encode, keep k, decode: each is one or two lines of code. "This SAE explains so much" says little until a
# control stands beside it.
#
# ## For the fast
#
# 1. Train one: `sae_lib.TopKSAE(64, 32, 4)`, loss `((sae(x) - x) ** 2).mean()`, Adam, 200 steps. How much does it
#    explain? And how much with 256 features?
# 2. The authors' code for Figure 3 swaps the two arguments: 1 − var(x − x̂) / var(x̂). Is its value larger or smaller
#    than yours, and why? (Notebook 04 shows both.)
# 3. Replace TopK by a ReLU alone. How many features are active in a row now?

# %% tags=["fast"]
# 1. Each step sees 1,024 rows drawn by lot; the test is on all rows.
from sae_lib import TopKSAE

for n_f in (32, 256):
    generator = torch.Generator().manual_seed(0)
    mine = TopKSAE(x.shape[1], n_f, sae.k, generator)
    optimiser = torch.optim.Adam(mine.parameters(), lr=3e-3)
    for _ in range(200):
        rows = x[torch.randint(len(x), (1024,), generator=generator)]
        optimiser.zero_grad()
        ((mine(rows) - rows) ** 2).mean().backward()
        optimiser.step()
    with torch.no_grad():
        explained = explained_variance(x, mine(x))
    print(f"{n_f:3} features, 200 steps: {explained:.2f} explained; the workshop's SAE: {trained[ks.index(sae.k)]:.2f}")

# %% tags=["fast"]
# 2. The same error is divided by the variance of the reconstruction, which is not that of x.
x_hat = sae(x)
print(f"var(x̂) is {(x_hat.var(0) / x.var(0)).mean():.2f} of var(x), on average over the dimensions")
print(f"swapped {explained_variance(x_hat, x):.3f}, yours {explained_variance(x, x_hat):.3f}")

# %% tags=["fast"]
# 3. Every pre-activation above 0 stays.
active = (pre_activations(x, W_enc, b_pre, b_act) > 0).sum(1).float().mean()
print(f"ReLU alone: {active:.1f} of {len(W_enc)} features are active in a row; TopK keeps at most {sae.k}")

# %% [markdown] tags=["instructor"]
# **Before the lesson** draw one row on the board: x → 32 numbers, at most 4 of them not 0 → x̂. The four exercises only
# fill in the two arrows, and measure how far x̂ is from x.
#
# **Skip first**: the bonus; then 2.3 (it is 2.1 backwards).
#
# **They will ask**
# - *Why TopK and not L1?* You set k directly and need not tune a penalty, and TopK does not shrink the strengths. The
#   paper chose it too.
# - *Only 32 features for 64 dimensions?* A rule chose the size by what the features read (notebook 03). The paper's SAEs
#   for SDXL have four features per dimension.
# - *Why b_pre?* Updates have a large common mean. If it were not subtracted, every feature would have to carry it.
# - *Why does the line flatten on the right?* The weights were trained for the k of the vertical line: features beyond
#   it were never asked to help. And in each row many pre-activations lie below 0, so the ReLU drops them (task 3 for the
#   fast counts the others).
# - *Is explained variance the same as 1 − FVU?* No: here a dimension of tiny variance counts as much as a large one
#   (Exercise 2.4's first mistake).
