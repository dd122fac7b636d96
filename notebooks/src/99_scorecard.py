# %% [markdown]
# # 99 Scorecard
#
# **Question.** Which of the paper's claims did this companion test, by which rule, and what came out? Nothing is measured
# here. Each test stands in the notebook that made it, with its rule fixed before its numbers, and left a record beside its
# figure; this notebook collects the records of one scale, counts them by the paper's claims C1 to C14, and applies one more
# rule, which turns a claim's tests into a word. A claim that fails on the pocket model is reported as failing there.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | nothing: smoke allows no conclusion | the records in `figures/` | the records in `figures/*/sdxl/` |
# | makes | the same, marked as smoke | `scorecard` | the same |
# | cost | 5 s, one core | 5 s, one core | 5 s, one core |
#
# | symbol | meaning |
# |---|---|
# | claim | a statement of the paper, C1 to C14, with the tags of the sources from which we know it |
# | test | a number of ours with its 95 % interval, and the word that its rule gave |

# %% [markdown]
# ## 99.1 Parameters and set-up
#
# Records are read as the other notebooks left them: run those first, or read the committed ones.

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"
source: str = ""  # sdxl: "random" rehearses, and concludes nothing
seed: int = 0  # not used here

# %%
import json
from collections import Counter
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd

from sae_lib import save_figure, start_run
from sae_lib.artefacts import ARTEFACTS, NO_FLUX
from sae_lib.figures import figure_folder
from sae_lib.style import TEXT_WIDTH

run = start_run("99_scorecard", globals())

# %% [markdown]
# ## 99.2 The claims
#
# As far as we know them: the paper itself was not at hand. *summary* and *secondary* are public summaries, *audit* a public audit of
# the paper against its code, *code* and *riebench* the authors' repositories, *checkpoint* their released statistics. What is
# marked *inferred* is our reading; what is marked *our test* is no statement of the paper that we could verify, but a
# question that its readers will have.


# %%
class PaperClaim(NamedTuple):
    statement: str
    sources: str
    would_change: str
    waits: str = ""


CLAIMS = {
    "C1": PaperClaim(
        "One-step SAEs learn interpretable, causally effective, local features",
        "summary",
        "Features no better than random directions at predicting or changing an attribute",
    ),
    "C2": PaperClaim(
        "They carry over to 4-step Turbo and the base model without more training",
        "summary, code",
        "SAEs trained on the target explaining much more, or edits that work in one step only",
    ),
    "C3": PaperClaim("Explained variance grows with k and with expansion", "summary", "A step up that explains less"),
    "C4": PaperClaim("Near no feature is dead", "checkpoint", "Many features that never fire on more pictures"),
}

# %%
CLAIMS |= {
    "C5": PaperClaim(
        "Of the 11 attention blocks only the four change pictures strongly",
        "summary",
        "Another block whose ablation changes as much",
    ),
    "C6": PaperClaim(
        "Blocks specialise: down.2.1 composition, up.0.0 detail, up.0.1 colour and style",
        "summary, secondary",
        "Attributes read and written equally well in all blocks",
    ),
    "C7": PaperClaim(
        "SAE features edit as well as neurons with far fewer units",
        "summary, audit, riebench",
        "Neurons, random features or misplaced ones that gain as much with as few units",
    ),
    "C8": PaperClaim(
        "Which block's features are selected depends on the edit (direction inferred)",
        "audit",
        "The same blocks for colours as for poses",
    ),
}

# %%
CLAIMS |= {
    "C9": PaperClaim(
        "Early interventions perturb strongly, late ones subtly; up.0.1 is effective late",
        "summary",
        "Late interventions that change as much as early ones",
    ),
}

# %%
CLAIMS |= {
    "C10": PaperClaim(
        "Under guidance: add to the conditional half, subtract from the other",
        "audit",
        "No larger intended effect than adding alone",
    ),
    "C11": PaperClaim("The method extends to FLUX-schnell", "audit", "", NO_FLUX),
    "C12": PaperClaim(
        "Features of down.2.1 can be captioned; captions predict activation (our test)",
        "secondary",
        "Captions of other features predicting as well",
    ),
    "C13": PaperClaim(
        "Interventions change pixels mostly inside the active area", "our test", "As much change outside"
    ),
    "C14": PaperClaim(
        "Reconstructing one block preserves the picture; less so for smaller k and n_f",
        "audit, partly inferred",
        "Reconstruction no better than leaving the block out",
    ),
}

# %% [markdown]
# ## 99.3 From tests to a word
#
# On the pocket model: a claim *holds* if all its tests hold, *fails* if all fail, *holds in part* if some hold and some
# fail, and is *undecided* otherwise. Without a test it is *not run*. At sdxl scale the tests' own words are counted:
# *reproduced*, *close*, *not reproduced*, *not published*. Smoke and rehearsal conclude nothing, whatever lies on the disk.


# %%
def word_of(words):
    """The claim's word from those of its tests, by the rule above."""
    if not words:
        return "not run"
    short = {word.removesuffix(" on the pocket model") for word in words}
    if short <= {"holds", "fails", "undecided"}:
        if len(short) == 1:
            return short.pop()
        return "holds in part" if {"holds", "fails"} <= short else "undecided"
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


# %%
tests = []
if run.compared_with is not None:
    pattern = "[0-9][0-9]_*/sdxl/*.json" if scale == "sdxl" else "[0-9][0-9]_*/*.json"
    root = figure_folder(run).parents[scale == "sdxl"]
    for path in sorted(root.glob(pattern)):
        record = json.loads(path.read_text())
        where = path.relative_to(root).parts[0]
        n = record["result"].get("prompts")
        told = {"notebook": where, "figure": path.stem, "n": n if isinstance(n, int) else None}
        told["seed"] = record["run"]["parameters"]["seed"]
        tests += [told | verdict for verdict in record["result"]["verdicts"] if where != run.notebook]
tests = pd.DataFrame(
    tests, columns=["id", "claim", "word", "value", "interval", "published", "notebook", "figure", "n", "seed"]
)
tests["id"] = tests["id"].fillna("")
print(f"{len(tests)} tests, {(tests['id'] != '').sum()} of them of the paper's claims")

# %% [markdown]
# ## 99.4 The scorecard
#
# Each claim, the number of its tests by their words, and the claim's word.

# %%
rows = []
for name, claim in CLAIMS.items():
    words = tests.loc[tests["id"] == name, "word"].tolist()
    status = claim.waits or ("no conclusion at this scale" if run.compared_with is None else word_of(words))
    rows.append((name, claim.statement, claim.sources, len(words), status))
card = pd.DataFrame(rows, columns=["claim", "statement", "known from", "tests", "word"]).set_index("claim")
pd.set_option("display.max_colwidth", None)
card

# %%
colors = {"holds": "#0072B2", "undecided": "#BBBBBB", "fails": "#D55E00"}
fig, ax = plt.subplots(figsize=(TEXT_WIDTH, 3.6))
for row, name in enumerate(CLAIMS):
    words = [word.split()[0] for word in tests.loc[tests["id"] == name, "word"]]
    start = 0
    for word, color in colors.items():
        ax.barh(row, words.count(word), left=start, color=color, height=0.6)
        start += words.count(word)
    ax.annotate(card.loc[name, "word"], (start, row), xytext=(4, 0), textcoords="offset points", va="center", size=8)
for word, color in colors.items():
    ax.barh(0, 0, color=color, label=f"test {word}")
ax.set(xlabel="tests", yticks=range(len(CLAIMS)), ylim=(len(CLAIMS) - 0.4, -0.6))
ax.set_xlim(0, 1.7 * max(4, ax.get_xlim()[1]))
ax.set_yticklabels(CLAIMS)
ax.grid(False, axis="y")
fig.legend(loc="outside upper center", ncols=3)
result = {"claims": {name: row._asdict() for name, row in zip(card.index, card.itertuples(index=False), strict=True)}}
save_figure(run, fig, "scorecard", result | {"tests": len(tests)})

# %% [markdown]
# **What we see.** A bar is a claim, its length the number of tests, its colours what they said, the words beside it the claim's
# own word. A long bar is not a stronger claim: it has more tests. A word in grey tones only means that the intervals were too
# wide. All of it is about the pocket model, one model of one training: it says what the method finds in a world whose truth
# is known, and not what SDXL does.
#
# ## 99.5 Every test
#
# The number, its 95 % interval, the rule's word, the published number where there is one, and where to look.

# %%
shown = tests.loc[tests["id"] != ""].copy()
shown["order"] = shown["id"].str.removeprefix("C").astype(int)
shown = shown.sort_values(["order", "notebook"], kind="stable").drop(columns="order")
for test in shown.itertuples():
    low, high = test.interval
    published = "" if pd.isna(test.published) else f"; published {test.published:.3g}"
    n = "" if pd.isna(test.n) else f", n = {test.n:.0f}"
    print(f"{test.id:4} {test.word}: {test.claim}")
    print(
        f"     {test.value:.3g} ({low:.3g} to {high:.3g}){published}; {test.notebook}/{test.figure}{n}, seed {test.seed}"
    )

# %% [markdown]
# ## 99.6 What would change our mind
#
# For each claim that was tested, the observation that would speak against it.

# %%
for name, claim in CLAIMS.items():
    print(f"{name:4} {claim.would_change or claim.waits}")

# %% [markdown]
# ## 99.7 What is there of the paper's figures and tables
#
# Counted from the registry in `sae_lib/artefacts.py`, from which the README's table and `figures/index.json` are made too.

# %% tags=["nbval-check-output"]
of_the_paper = [artefact for artefact in ARTEFACTS if not artefact.id.startswith("Companion")]
for status, count in Counter(artefact.status for artefact in of_the_paper).most_common():
    print(f"{status:26} {count:3d} of {len(of_the_paper)}")

# %% [markdown]
# ## 99.8 Limits
#
# - One pocket model and one training of it: no interval covers that. Words hold for it alone.
# - Rules have thresholds, and thresholds are choices. They stand in the notebooks, before the numbers.
# - Tests of one claim are not independent, and their number depends on how finely a claim was cut.
# - What the paper says was read off code, an audit and summaries, not off the paper.
#
# ## 99.9 Exercises
#
# 1. In section 99.3, let a claim hold only if *every* test's interval is above its rule by half its width. Which words change?
# 2. Which claim has the most tests in one notebook only? What would an independent second test of it look like?
# 3. Take one claim that fails, go to its notebook, and find the weakest assumption in its rule.
