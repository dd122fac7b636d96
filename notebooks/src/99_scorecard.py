# %% [markdown]
# # 99 Scorecard
#
# **Question.** Which of the paper's claims did this companion test, by which rule, and what came out? Nothing is
# measured here. Each test stands in the notebook that made it, with its rule and its control, and left a record beside
# its figure. For each of the paper's claims one test is the **primary** one: it alone decides, and all primary tests
# are judged together. The register says which of their rules were changed after a look at numbers. The other tests are
# secondary: they say where a claim is strong and where it is not. A claim that fails on the pocket model is reported as
# failing there.
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
# | rule | the bound that the number must keep; written into a dated register, `notebooks/rules.json` |
# | margin | how far the number lies inside its rule, in half-widths of its interval: above 1 the test holds, below −1 it fails |

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

from sae_lib import ROOT, save_figure, start_run
from sae_lib.companion import decide, margin

run = start_run("99_scorecard", globals())
ARTEFACTS = json.loads((ROOT / "figures" / "index.json").read_text())
STATUS = {artefact["id"]: artefact["status"] for artefact in ARTEFACTS}

# %% [markdown]
# ## 99.2 The claims
#
# As far as we know them: the paper itself was not at hand. *summary* and *secondary* are public summaries, *audit* a
# public audit of the paper against its code, *code* and *riebench* the authors' repositories, *checkpoint* their
# released statistics. What is marked *inferred* is our reading; what is marked *our test* is no statement of the paper
# that we could verify, but a question that its readers will have.


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
    "C11": PaperClaim("The method extends to FLUX-schnell", "audit", "", STATUS["Figure 8"]),
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
# On the pocket model a claim has the word of its primary test. Where several questions are asked, some answers are
# lucky. So the primary tests of all claims are judged together (Holm's procedure at 5 %, with a normal error read
# off each 95 % interval). That asks more of each test than its own interval does. A claim without a primary test is
# *not run*. Secondary tests change no word; they are counted beside it. At sdxl scale the tests' own words are
# counted: *reproduced*, *close*, *not reproduced*, *not published*. Smoke and rehearsal conclude nothing, whatever
# lies on the disk.

# %%
COLUMNS = ["id", "claim", "word", "value", "interval", "published", "at_least", "at_most", "primary", "control"]
tests = []
if run.compared_with is not None:
    pattern = "[0-9][0-9]_*/sdxl/*.json" if scale == "sdxl" else "[0-9][0-9]_*/*.json"
    root = ROOT / "figures"
    for path in sorted(root.glob(pattern)):
        record = json.loads(path.read_text())
        where = path.relative_to(root).parts[0]
        n = record["result"].get("prompts")
        about = {"notebook": where, "figure": path.stem, "n": n if isinstance(n, int) else None}
        about["seed"] = record["run"]["parameters"]["seed"]
        tests += [about | verdict for verdict in record["result"]["verdicts"] if where != run.notebook]
tests = pd.DataFrame(tests, columns=[*COLUMNS, "notebook", "figure", "n", "seed"])
tests[["id", "control"]] = tests[["id", "control"]].fillna("")
of_claims = tests[tests["id"] != ""]
print(f"{len(tests)} tests, {len(of_claims)} of them of the paper's claims, {of_claims['primary'].sum()} primary")


# %%
def bounds(test):
    """The rule's two bounds; None for one that it has not."""
    return [None if pd.isna(bound) else bound for bound in (test.at_least, test.at_most)]


margins = {test.Index: margin(test.value, test.interval, *bounds(test)) for test in of_claims.itertuples()}
primaries = {test.id: test.Index for test in of_claims.itertuples() if test.primary}
decided = decide({name: margins[index][0] for name, index in primaries.items()}) if scale != "sdxl" else {}

# %% [markdown]
# ## 99.4 The scorecard
#
# Each claim, its word, and how its secondary tests came out.


# %%
def word_of(name, claim):
    """The claim's word, by the rule above."""
    if claim.waits or run.compared_with is None:
        return claim.waits or "no conclusion at this scale"
    if scale == "sdxl":
        words = Counter(of_claims.loc[of_claims["id"] == name, "word"])
        return ", ".join(f"{count} {word}" for word, count in words.most_common()) or "not run"
    return decided.get(name, "not run")


def secondary_of(name):
    """ "5 hold, 1 fails, 2 undecided" of the claim's other tests."""
    others = of_claims[(of_claims["id"] == name) & ~of_claims["primary"].astype(bool)]
    words = Counter(word.split()[0] for word in others["word"])
    verbs = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "undecided": ("undecided", "undecided")}
    return ", ".join(f"{words[word]} {verbs[word][words[word] > 1]}" for word in verbs if words[word])


# %%
rows = [(name, c.statement, c.sources, word_of(name, c), secondary_of(name)) for name, c in CLAIMS.items()]
card = pd.DataFrame(rows, columns=["claim", "statement", "known from", "word", "secondary tests"]).set_index("claim")
pd.set_option("display.max_colwidth", None)
card

# %%
LOOK = {"holds": ("#0072B2", "o"), "undecided": ("#767676", "s"), "fails": ("#D55E00", "X")}
WIDTH, WIDEST = 8.5, 6.0  # inches, for whole sentences; margins beyond are drawn at the edge
lines, groups = [], []
for name in CLAIMS:
    mine = of_claims[of_claims["id"] == name].sort_values("primary", ascending=False, kind="stable")
    groups.append((name, len(lines), max(1, len(mine))))
    lines += [*mine.itertuples(), *([None] if mine.empty else [])]


def short(text, length):
    """The sentence without what stands in brackets, cut where it is too long."""
    text = text.partition(" (")[0]
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


# %%
height = 1 + 0.145 * len(lines)
fig = plt.figure(figsize=(WIDTH, height))
fig.set_layout_engine("none")  # names left and right of one narrow panel
ax = fig.add_axes((1.15 / WIDTH, 0.6 / height, 1.35 / WIDTH, 1 - 1.0 / height))
for y, test in enumerate(lines):
    if test is None or scale == "sdxl":
        continue
    at, low, high = (min(max(value, -WIDEST), WIDEST) for value in margins[test.Index])
    color, marker = LOOK[decided[test.id] if test.primary else test.word.split()[0]]
    ax.hlines(y, low, high, color=color, linewidth=2.2 if test.primary else 0.9, clip_on=False)
    look = {"mfc": color if test.primary else "white", "markersize": 6 if test.primary else 3.5, "clip_on": False}
    ax.plot(at, y, marker, color=color, zorder=3, **look)
    weight = "bold" if test.primary else "normal"
    ax.text(WIDEST + 0.7, y, short(test.claim, 90 if test.primary else 105), va="center", size=7, weight=weight)
for name, start, count in groups:
    ax.axhline(start - 0.5, color="#DDDDDD", linewidth=0.6)
    text = f"{name}  {card.loc[name, 'word']}" if not CLAIMS[name].waits else f"{name}  not run"
    ax.text(-WIDEST - 0.7, start + (count - 1) / 2, text, ha="right", va="center", size=8, weight="bold")
plt.close(fig)  # shown when it is complete

# %%
ax.axvline(0, color="black", linewidth=1)
ax.axvspan(-1, 1, color="#F0F0F0", zorder=0)
ax.set(xlim=(-WIDEST, WIDEST), ylim=(len(lines) - 0.5, -0.8), yticks=[])
ax.set_xlabel(
    "breaks its rule  ←    → keeps it\n(margin, half-widths of the 95 % interval; at the edge: 6 or more)", size=8
)
ax.grid(False)
ax.spines["left"].set_visible(False)
for word, (color, marker) in LOOK.items():
    ax.plot([], [], marker, color=color, label=word)
ax.plot([], [], "o", color="black", markersize=6, label="primary test")
ax.plot([], [], "o", color="black", mfc="white", markersize=3.5, label="secondary")
fig.legend(loc="upper center", ncols=5, columnspacing=1)
result = {"claims": card.to_dict("index")}
result |= {"margins": {str(of_claims.loc[i, "claim"]): placed for i, placed in margins.items()}}
save_figure(run, fig, "scorecard", result | {"tests": len(tests), "primaries": len(primaries)})

# %% [markdown]
# **What we see.** A line is a test, with its 95 % interval; what lies right of the black line keeps its rule, what lies
# left of it breaks it, and an interval that reaches over the black line decides nothing by itself: its dot is then in
# the grey band. Filled markers and bold words are the primary tests, which give the claims on the left their word;
# hollow ones are secondary. Margins beyond the edge are drawn at the edge. All of it is about the pocket model, one
# model of one training: it says what the method finds in a world whose truth is known, and not what SDXL does.
#
# ## 99.5 Every test
#
# The number, its 95 % interval, the rule's word, its control, the published number where there is one, and where
# to look.

# %%
shown = of_claims.copy()
shown["order"] = shown["id"].str.removeprefix("C").astype(int)
shown = shown.sort_values(["order", "primary"], ascending=[True, False], kind="stable").drop(columns="order")
for test in shown.itertuples():
    low, high = test.interval
    published = "" if pd.isna(test.published) else f"; published {test.published:.3g}"
    n = "" if pd.isna(test.n) else f", n = {test.n:.0f}"
    print(f"{test.id:4} {'PRIMARY ' if test.primary else ''}{test.word}: {test.claim}")
    print(f"     {test.value:.3g} ({low:.3g} to {high:.3g}){published}; control: {test.control or 'none'};", end=" ")
    print(f"{test.notebook}/{test.figure}{n}, seed {test.seed}")

# %% [markdown]
# ## 99.6 What would change our mind
#
# For each claim that was tested, the observation that would speak against it.

# %%
for name, claim in CLAIMS.items():
    print(f"{name:4} {claim.would_change or claim.waits}")

# %% [markdown]
# ## 99.7 Which of the paper's figures and tables are made here
#
# The counts come from `figures/index.json`, which, like the table of `figures/README.md`, is made from the registry
# in `notebooks/artefacts.py`.

# %% tags=["nbval-check-output"]
of_the_paper = [status for name, status in STATUS.items() if not name.startswith("Companion")]
for status, count in Counter(of_the_paper).most_common():
    print(f"{status:26} {count:3d} of {len(of_the_paper)}")

# %% [markdown]
# ## 99.8 Limits
#
# - One pocket model and one training of it: no interval covers that. Words hold for it alone.
# - Rules have thresholds, and thresholds are choices. They stand in the notebooks, and `notebooks/rules.json` says when
#   each was written and whether its numbers had been seen before. Many were changed after a look at other blocks, and
#   some after a look at their own numbers: those words deserve less trust.
# - Which test is primary is a choice too. A claim of several parts has one primary test, for the part that
#   matters most.
# - Tests are not independent, and their errors are not quite normal: Holm's procedure needs no independence, the
#   p-values need normality.
# - What the paper says was read off code, an audit and summaries, not off the paper.
#
# ## 99.9 Exercises
#
# 1. In section 99.3, give `decide` the level 0.001. Which words change?
# 2. Which claim has the most tests in one notebook only? What would an independent second test of it look like?
# 3. Take one claim that fails, go to its notebook, and find the weakest assumption in its rule.
