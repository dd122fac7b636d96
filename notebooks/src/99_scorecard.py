# %% [markdown]
# # 99 Scorecard
#
# **Question.** Which of the paper's claims hold up in this companion's tests?
#
# **What this rests on.** The paper's text was not at hand. Its claims are known here from its public code, an audit of it
# and public summaries. At pocket scale every word is about one small model and not about SDXL.

# %% tags=["answer"]
from sae_lib.companion import show_answer

show_answer("99_scorecard")

# %% [markdown]
# ![Each claim with its words, the word that its primary test gave, how clearly, and how many of its other tests hold](../figures/99_scorecard/scorecard.png)
#
# **The paper's claims, one per row.** The word is that of the claim's primary test. The mark beside it shows how far
# that test lies from the limit of its rule, with its 95 % interval: right of the grey band the claim holds, left of it
# the claim fails, inside it the claim is undecided. The last column counts the other tests: amber if only some of them
# hold.
#
# ## 99.0 About this notebook
#
# Nothing is measured here. Each test stands in the notebook that made it, with its rule and its control, and left a
# record beside its figure. For each of the paper's claims one test is the **primary** one: it alone decides, and all
# primary tests are judged together. The register `notebooks/rules.json` says which of their rules were changed after
# numbers had been seen. The other tests are secondary: they say where a claim is strong and where it is not.
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
# | rule | the bound that the number must keep, written into the dated register |
# | margin | how far the number lies inside its rule, in half-widths of its 95 % interval; below zero it breaks the rule |

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
from statistics import NormalDist
from textwrap import fill
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd

from sae_lib import ROOT, save_figure, start_run
from sae_lib.companion import CONTROL_COLOR, TEXT_WIDTH, VERDICT_COLORS, decide, in_words, margin, save_answer, we_see

run = start_run("99_scorecard", globals())
ARTEFACTS = json.loads((ROOT / "figures" / "index.json").read_text())

# %% [markdown]
# ## 99.2 The claims
#
# Each claim names where we know it from, since the paper itself was not at hand. *Summary* and *secondary* are public
# summaries, *audit* is a public audit of the paper against its code, *code* and *riebench* are the authors'
# repositories, and *checkpoint* is their released statistics. *Inferred* marks our own reading. *Our test* marks a
# question that readers will have, where we could not verify that the paper says so.


# %%
class PaperClaim(NamedTuple):
    statement: str
    sources: str
    would_change: str


CLAIMS = {
    "C1": PaperClaim(
        "One-step SAEs learn interpretable, causally effective, local features",
        "summary",
        "Features no better than random directions at predicting or changing an attribute",
    ),
    "C2": PaperClaim(
        "One-step SAEs carry over to four-step Turbo and the base model without more training",
        "summary, code",
        "SAEs trained on the target explaining much more, or edits that work in one step only",
    ),
    "C3": PaperClaim("Explained variance grows with k and with expansion", "summary", "A step up that explains less"),
    "C4": PaperClaim("Almost no feature is dead", "checkpoint", "Many features that never fire on more pictures"),
}

# %%
CLAIMS |= {
    "C5": PaperClaim(
        "Of the 11 attention blocks only the paper's four change pictures strongly",
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
        "Under guidance it is best to add a feature to one half and subtract it from the other",
        "audit",
        "No larger intended effect than adding alone",
    ),
    "C11": PaperClaim("The method extends to FLUX-schnell", "audit", "As large a rise by random features of FLUX"),
    "C12": PaperClaim(
        "Features of down.2.1 can be captioned; captions predict activation (our test)",
        "secondary",
        "Captions of other features predicting as well",
    ),
    "C13": PaperClaim(
        "Interventions change pixels mostly inside the active area", "our test", "As much change outside"
    ),
    "C14": PaperClaim(
        "Reconstructing one block preserves the picture; less so with smaller k or fewer features",
        "audit, partly inferred",
        "Reconstruction no better than leaving the block out",
    ),
}

# %% [markdown]
# ## 99.3 From tests to a word
#
# On the pocket model a claim has the word of its primary test. When many tests are made, some come out well by luck. So
# the primary tests of all claims are judged together (Holm's procedure at 5 %, with a normal error read off each 95 %
# interval). That asks more of each test than its own interval does, and a test that holds or fails in its own notebook
# may be undecided here. A claim without a primary test is *not run*. Secondary tests change no word; they are counted
# beside it. At sdxl scale the tests' own words are counted: *reproduced*, *close*, *not reproduced*, *not published*.
# Smoke and rehearsal conclude nothing, whatever records there are.

# %%
COLUMNS = ["id", "claim", "word", "value", "interval", "published", "at_least", "at_most", "primary", "control"]
tests = []
if run.compared_with is not None:
    pattern = "[0-9][0-9]_*/sdxl/*.json" if scale == "sdxl" else "[0-9][0-9]_*/*.json"
    root = ROOT / "figures"
    for path in sorted(path for path in root.glob(pattern) if path.stem != "answer"):
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
def word_of(name):
    """The claim's word, by the rule above."""
    if run.compared_with is None:
        return "no conclusion at this scale"
    if scale == "sdxl":
        words = Counter(of_claims.loc[of_claims["id"] == name, "word"])
        return ", ".join(f"{count} {word}" for word, count in words.most_common()) or "not run"
    return decided.get(name, "not run")


def others_of(name):
    """The words of the claim's other tests."""
    return list(of_claims.loc[(of_claims["id"] == name) & ~of_claims["primary"].astype(bool), "word"])


# %%
rows = [(name, c.statement, c.sources, word_of(name), in_words(others_of(name))) for name, c in CLAIMS.items()]
card = pd.DataFrame(rows, columns=["claim", "statement", "known from", "word", "secondary tests"]).set_index("claim")
pd.set_option("display.max_colwidth", None)
card

# %%
MARKERS = {"holds": "o", "undecided": "s", "fails": "X"}
ROW, WIDEST, LEFT, ACROSS = 0.37, 6.0, 3.3, 1.25  # inches; margins beyond WIDEST are drawn at the edge
height = ROW * len(CLAIMS) + 1.2
fig = plt.figure(figsize=(TEXT_WIDTH, height))
fig.set_layout_engine("none")  # words left and right of one narrow panel
ax = fig.add_axes((LEFT / TEXT_WIDTH, 0.6 / height, ACROSS / TEXT_WIDTH, ROW * len(CLAIMS) / height))


def write(x, y, text, **look):
    """Text in a row of the figure, x inches from its left edge."""
    look = {"va": "center", "size": 7, "transform": ax.get_yaxis_transform(), **look}
    return ax.text((x - LEFT) / ACROSS, y, text, **look)


def draw_margin(y, placed, color, marker):
    """A primary test: how far inside its rule, with its interval; what lies beyond the edge is drawn there."""
    at, low, high = (min(max(value, -WIDEST), WIDEST) for value in placed)
    ax.hlines(y, low, high, color=color, linewidth=2, clip_on=False)
    ax.plot(at, y, marker, color=color, markersize=7, zorder=3, clip_on=False)


plt.close(fig)  # shown when it is complete

# %%
for y, (name, claim) in enumerate(CLAIMS.items()):
    word, others = card.loc[name, "word"].partition(":")[0], [each.split()[0] for each in others_of(name)]
    color = VERDICT_COLORS.get(word, CONTROL_COLOR)
    ax.axhline(y + 0.5, xmin=-LEFT / ACROSS, xmax=(TEXT_WIDTH - LEFT) / ACROSS, color="#DDDDDD", lw=0.6, clip_on=False)
    write(0.05, y, name, size=8, weight="bold")
    write(0.38, y, fill(claim.statement, 34), linespacing=1.05)
    if word in MARKERS:
        ax.plot(
            (2.48 - LEFT) / ACROSS, y, MARKERS[word], color=color, transform=ax.get_yaxis_transform(), clip_on=False
        )
        draw_margin(y, margins[primaries[name]], color, MARKERS[word])
    write(2.57, y, fill(word, 12), size=7.5, weight="bold", color=color)
    held = sum(each in ("holds", "reproduced") for each in others)
    if others:
        part = "in part" if held else "fails" if {"fails", "not"} & {*others} else "undecided"
        part = "holds" if held == len(others) else part
        box = {"facecolor": VERDICT_COLORS[part], "edgecolor": "none", "boxstyle": "round,pad=0.25"}
        look = {"color": "black" if part == "in part" else "white", "bbox": box, "ha": "center"}
        write(5.08, y, f"{held} of {len(others)}", weight="bold", **look)

# %%
undecided = max(1, sum(word == "undecided" for word in decided.values()))
limit = NormalDist().inv_cdf(1 - 0.05 / (2 * undecided)) / NormalDist().inv_cdf(0.975)  # Holm's last step
ax.axvspan(-limit, limit, color="#E8E8E8", zorder=0)
ax.axvline(0, color="black", linewidth=0.8)
ax.set(xlim=(-WIDEST, WIDEST), ylim=(len(CLAIMS) - 0.5, -0.5), yticks=[])
ax.set_xticks([-6, -3, 0, 3, 6], ["≤−6", "−3", "0", "3", "≥6"], size=7)
ax.set_xlabel("distance from the rule's limit, in\nhalf-widths of the 95 % interval", size=7)
ax.grid(False)
ax.spines["left"].set_visible(False)
plt.close(fig)  # shown when it is complete

# %%
heads = {0.38: "the paper's claim", 2.43: "primary test", 3.42: "fails  undecided  holds", 4.68: "other tests hold"}
for x, text in heads.items():
    write(x, -0.75, text, color="#444444")
counts = in_words(decided.values() if decided else of_claims["word"]) or "no conclusion at this scale"
counts += f", {len(CLAIMS) - len(decided)} not run" if decided else ""
title = f"{len(CLAIMS)} claims on the pocket model" if decided else f"Tests of {len(CLAIMS)} claims"
write(
    0.05,
    len(CLAIMS) + 0.3,
    "The paper's text was not at hand: its claims are known\nfrom its code, an audit and public summaries.",
)
write(0.05, -1.4, f"{title}: {counts}", size=9, weight="bold")
result = {"claims": card.to_dict("index")}
result |= {"margins": {str(of_claims.loc[i, "claim"]): placed for i, placed in margins.items()}}
save_figure(run, fig, "scorecard", result | {"tests": len(tests), "primaries": len(primaries)})

# %%
if decided:
    groups = {word: ", ".join(n for n in CLAIMS if decided.get(n) == word) or "none" for word in MARKERS}
    words = {name: {word.split()[0] for word in others_of(name)} for name in CLAIMS}
    full, part = (
        ", ".join(n for n in CLAIMS if "holds" in words[n] and (len(words[n]) > 1) == more) for more in (0, 1)
    )
    seen = f"Hold: {groups['holds']}. Fail: {groups['fails']}. Undecided: {groups['undecided']}."
    seen += f" All other tests hold: {full or 'no claim'}. Only some of them hold: {part or 'none'}."
    alone = {name: of_claims.loc[index, "word"].split()[0] for name, index in primaries.items()}
    apart = ", ".join(f"{name} ({alone[name]})" for name in CLAIMS if alone.get(name) != decided.get(name))
    seen += f" Judged alone, in their own notebooks, these have other words: {apart}." * bool(apart)
    we_see(run, seen)

# %% [markdown]
# **How to read it.** One small model of one training gave all words at pocket scale. They say what the method finds in
# a world whose truth is known, and not what SDXL does. A claim has several parts; the primary test asks for the part
# that matters most, and the other tests show the rest. The grey band is as wide as the joint judgement of all primary
# tests makes it.
#
# ## 99.5 Every test
#
# For each test: the word that its rule gave, the number with its 95 % interval, the published number where there is one,
# its control, and the notebook and figure where it stands.

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
# For each claim: the observation that would speak against it.

# %%
for name, claim in CLAIMS.items():
    print(f"{name:4} {claim.would_change}")

# %% [markdown]
# ## 99.7 Which of the paper's figures and tables are made here
#
# The counts come from `figures/index.json`, which, like the table of `figures/README.md`, is made from the registry
# in `notebooks/artefacts.py`.

# %% tags=["nbval-check-output"]
of_the_paper = [artefact["status"] for artefact in ARTEFACTS if not artefact["id"].startswith("Companion")]
for status, count in Counter(of_the_paper).most_common():
    print(f"{status:26} {count:3d} of {len(of_the_paper)}")

# %%
TELLING = {  # what one would say of a claim that holds, and of one that fails
    "C14": (
        "pictures survive when an SAE reconstructs one block",
        "pictures suffer when an SAE reconstructs one block",
    ),
    "C2": (
        "the SAEs serve the base model without more training",
        "on the base model the SAEs fall short of ones trained there",
    ),
    "C5": ("the paper's four blocks change pictures most", "the paper's four blocks do not change pictures most"),
    "C7": ("SAE features edit better than neurons", "SAE features do not edit better than neurons"),
}
sure = [TELLING[name][decided[name] == "fails"] for name in TELLING if decided.get(name) in ("holds", "fails")]
unsure = ", ".join(f"whether {TELLING[name][0]}" for name in TELLING if decided.get(name) == "undecided")
findings = "; ".join([*sure, *[f"it is undecided {unsure}"] * bool(unsure)])
of_what = "tests of the paper's claims" if scale == "sdxl" else f"{len(CLAIMS)} claims on the pocket model"
save_answer(run, f"Of the {of_what}: {counts}." + f" {findings[:1].upper()}{findings[1:]}." * bool(findings))

# %% [markdown]
# ## 99.8 Limits
#
# - There is one pocket model, from one training. No interval covers that, and the words are about this model alone.
# - Rules have thresholds, and thresholds are choices. They stand in the notebooks, and `notebooks/rules.json` says when
#   each was written and whether its numbers had been seen before. Many were changed after a look at other blocks, and
#   some after a look at their own numbers. Trust those words less.
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
