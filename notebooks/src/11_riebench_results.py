# %% [markdown]
# # 11 RIEBench: results
#
# **Question.** Do a few SAE features edit pictures better than neurons do, and does the kind of edit decide which blocks
# the features come from?

# %% tags=["answer"]
from sae_lib.companion import show_answer

show_answer("11_riebench_results")

# %% [markdown]
# ![Edits done against side effects for every method, by the judge above and by CLIP below](../figures/11_riebench_results/figure5.png)
#
# **Figure 5.** A marker is a method at one setting, averaged over all cases. Higher is better: more edits done. Further
# left is better: less of the rest changed. Above, the judge says what was done and what else changed; below are the
# paper's two axes, CLIP similarity and perceptual distance. Left the paper's methods, right the controls. The dashed
# line is what the same blocks do when they read the edit prompt.
#
# ## 11.0 About this notebook
#
# Two claims are tested. C7 (paper: Fig. 5): SAE features edit as well as neurons with orders of magnitude fewer units
# (version 5 of the paper), or better than neurons and than moving whole updates (version 4). C8 (Fig. 6): which blocks
# the selected features come from depends on the kind of edit. Every method edits exactly the same cases at equally many
# settings, no failure is left out, and every number has an interval. Notebook 10 shows how one edit is made.
#
# | | smoke | pocket | sdxl |
# |---|---|---|---|
# | needs | shipped weights, SAEs and CLIP | shipped weights, SAEs and CLIP | SDXL Turbo, the published SAEs (k = 160), RIEBench's JSON, GroundingDINO, SAM 2.1, CLIP ViT-L/14 |
# | makes | the same, marked as smoke | `figure5` `categories` `figure6` `units` `preliminary` | the same without the judge's part |
# | cost | 25 s, one core | some 6 min, two cores | not run; a rehearsal with random weights took 18 GB of a GPU (measured) |
#
# | symbol | code | meaning |
# |---|---|---|
# | success | `success` | the judge sees what was asked for |
# | side effects | `rest` | share of the other attributes that are no longer what they were |
# | distance | `distance` | perceptual distance of the edited picture to the original one (notebook 05) |
# | similarity gained | `gain` | CLIP: cosine of picture and edit prompt, edited minus original picture; or with the edit prompt's own picture |
# | k | `units` | units added, and as many taken off |
# | m | `strength` | factor on everything that is added or taken off |

# %% [markdown]
# ## 11.1 Parameters and set-up
#
# The pocket cases are written from held-out scenes (notebook 10). Of each kind this notebook takes as many as
# `per_category` says. The first few of each kind, `contrast`, are edited once more in another set of blocks: in the
# paper's four if this run studies the chosen ones, and the other way round. `make riebench` edits 50 of each kind at
# more settings, which takes an hour of one core.

# %% tags=["parameters"]
scale: str = "pocket"  # "smoke", "pocket" or "sdxl"
source: str = ""  # sdxl: folder or Hub id of Turbo; "random" or "random/16" rehearses with random weights
seed: int = 42  # of the noise (the authors'), the random features and the bootstrap
blocks: str = ""  # "chosen" (default at pocket scale), "paper" (default at sdxl scale), or codes with commas
per_category: int = 7  # pocket: cases of each of the nine categories
contrast: int = 3  # pocket: of these, cases that are edited in the other set of blocks too; 0 for none
riebench: str = ""  # sdxl: path or address of RIEBench's JSON, or PIE-Bench by its name on the Hub
dilate: bool = True  # masks half a cell wider than what they show, as in the authors' later code
batch: int = 0  # cases at a time; 0 for the scale's, fewer for a small GPU
sae_folder: str = ""  # sdxl: a folder with the authors' checkpoints; empty for the Hub
prompt_file: str = ""  # sdxl: prompts that the principal components are fitted on; empty for the authors' data set
clip_source: str = ""  # sdxl: folder or Hub id of a CLIP; empty for ViT-L/14

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd
import torch

from sae_lib import ROOT, Claim, bootstrap_interval, find_block, interval_of, save_figure, start_run
from sae_lib.companion import ABOVE_ZERO, BLOCK_COLORS, CONTROL_COLOR, PRIMARY, TEXT_WIDTH, add_legend, we_see
from sae_lib.editing import CATEGORIES, INJECTION, METHODS, ORIGINAL, Setting, pocket_cases, read_cases, settings_of

# %%
run = start_run("11_riebench_results", globals())
assets = run.assets()
small = run.rehearsal or scale == "smoke"
sampling = {"resamples": assets.counts.bootstrap, "seed": seed}
if scale == "sdxl" and not run.rehearsal and not riebench:
    raise ValueError("riebench is empty: give the path or the address of RIEBench's JSON")
if riebench:
    cases, defects = read_cases(riebench)
    print(f"{len(cases)} cases; {len(defects)} records that are none", *defects, sep="\n")
else:
    cases = pocket_cases(1 if small else per_category)
cases = cases[:3] if run.rehearsal else cases[:: 4 if small else 1]
settings = settings_of(assets)

# %% [markdown]
# ## 11.2 The claims, as rules
#
# *Gap*: one method's envelope minus another's (section 11.5), averaged over how many side effects are allowed. At
# pocket scale it is measured in edits done at equal side effects, by the judge. At sdxl scale there is no judge, and it
# is CLIP's similarity at equal distance. The paper says "as well as", but a model in which nothing edits anything would
# pass that, so *more* is asked for. The primary test of C7 compares with neurons as the authors select them. Corrected
# neurons (notebook 10, section 10.7) are the stronger baseline.
#
# *Spread* (C8): a block's mean share of the selected features differs between kinds of edit; the spread is the standard
# deviation of these shares over kinds, averaged over blocks. The same for shuffled kinds is subtracted, **and so is what
# untrained SAEs give**. Only cases that these blocks can make at all are counted (section 11.4).
#
# These rules were changed on 2026-11-26, before the run with the chosen blocks. The former ones judged by CLIP's gain,
# which moves by a tenth of its range where the judge sees the edit. They counted edits that no change of these blocks
# can make, compared ten settings of one method with three of another, and asked for "a hundred times fewer units" where
# so many units do not exist. The primary rule of C8 was changed again on 2026-11-26, after its numbers had been seen: it
# held although untrained SAEs, whose features mean nothing, showed as much of it. Their value is now subtracted; the
# former rule stays, as a secondary one.

# %%
done, at_equal = ("edits", "side effects") if assets.known else ("CLIP gain", "distance")


def more_than(other, control="", **about):
    """The claim that SAE features do more than another method, which is subtracted."""
    text = f"SAE features make more {done} than {other} at equal {at_equal} (gap)"
    return Claim(text, at_least=ABOVE_ZERO, id="C7", control=control or other, **about)


worded = {"steering": "steering", "neurons, corrected": "neurons whose score is corrected"}
worded |= {"random features": "random features", "shuffled masks": "features selected in any place"}
claims = {"neurons": more_than("neurons", primary=True) if scale == "sdxl" else PRIMARY["C7"]}
claims |= {name: more_than(words) for name, words in worded.items()}
ceiling_claim = more_than("neurons, over the edits that these blocks can make,", "neurons")
clip = "SAE features gain more CLIP similarity than neurons at equal distance (gap)"
clip_claim = Claim(clip, at_least=ABOVE_ZERO, id="C7", control="neurons")
more_units = "Corrected neurons take {} units for the same effect (times)"
units_claims = {1: Claim(more_units.format("more"), 1 + ABOVE_ZERO, id="C7")}
units_claims |= {100: Claim(more_units.format("a hundred times as many"), 100, id="C7")}

# %%
shuffled = "Which blocks are drawn on depends on the kind of edit (spread of shares, minus shuffled kinds)"
written = "Edits draw more on the block that writes what they change than other edits do (share)"
controls = "the same shares under shuffled kinds of edit", "the same block's share in other kinds of edit"
block_claims = {"kinds": PRIMARY["C8"]}
block_claims |= {"shuffled": Claim(shuffled, at_least=ABOVE_ZERO, id="C8", control=controls[0])}
block_claims |= {"writers": Claim(written, at_least=ABOVE_ZERO, id="C8", control=controls[1])}

# %% [markdown]
# ## 11.3 The sweep
#
# The reference pictures and the masks of a case are made once; then every method draws the case at every setting. A
# case whose masks cannot be found counts as failed for all methods, with its reason. A sweep that is interrupted goes
# on where it stopped.
#
# At pocket scale each method has three settings. They were chosen out of eight on 27 other cases, by one rule for
# all methods: those whose envelope is highest (`frontiers.choose_settings`). More settings would make a higher
# envelope by luck alone.


# %%
from sae_lib.editing import cached_sweep, cross_fitted


def sweep_of(assets, cases, settings):
    """The sweep's results, and its folder."""
    return cached_sweep(assets, cases, settings, seed, dilate, batch, riebench)


sweep, folder = sweep_of(assets, cases, settings)
if not sweep.ids:
    raise ValueError(f"no case could be edited: {'; '.join(sorted(set(sweep.failed.values())))}")
n_edited, judged = len(sweep.ids), "success" in sweep.scores[ORIGINAL]
readings = ("judge", "text", "image") if judged else ("text", "image")  # CLIP with the edit prompt, with its picture
main = readings[0]

# %%
print(f"{len(cases)} cases, {n_edited} edited by all methods, {len(sweep.failed)} failed; {len(settings)} settings")
for number, name in CATEGORIES.items():
    at = [case for case in cases if case.category == number]
    failed = [case for case in at if case.id in sweep.failed]
    if at:
        print(f"{name:18} {len(at) - len(failed):3} of {len(at)}")
reasons = sorted(sweep.failed.values())
for why in dict.fromkeys(reasons):
    print(f"   {reasons.count(why)} x {why}")
print(f"{sweep.specks} instances were smaller than a cell and got the one that they cover most")

# %% [markdown]
# ## 11.4 What these blocks can make at all
#
# No choice of features can do more than the blocks themselves. There are two ceilings. *Tokens* is the original prompt's
# picture while the blocks read the edit prompt (notebook 05's swap, at all four steps, everywhere). *All updates*
# (steering) moves the blocks' whole updates inside the masks. If both make less than one in ten edits of a kind, that
# kind *cannot be made by these blocks*. A case whose edit appears with the tokens is one *with a ceiling*.
#
# Each method's share of edits done is read at the setting that has most success minus side effects on the *other* half
# of the cases.

# %%
from sae_lib.judges import bootstrap_share

of_kind = {number: sweep.categories == number for number in CATEGORIES}
used = [number for number, rows in of_kind.items() if rows.any()]
everyone = torch.ones(n_edited, dtype=torch.bool)
has_ceiling = sweep.scores[INJECTION]["success"] > 0 if judged else everyone


def percent(values):
    """The mean in hundredths, with its interval; of none or all of n cases the bound of the rule of three."""
    if len(values) < 2:
        return "–" if len(values) == 0 else f"{100 * values.mean():.0f}"
    return "{:.0f} ({:.0f} to {:.0f})".format(*(100 * end for end in bootstrap_share(values, **sampling)))


def by_kind(values, kinds=sweep.categories):
    """A column of a table: percent by kind of edit, and of all cases."""
    return {CATEGORIES[number]: percent(values[kinds == number]) for number in used} | {"all": percent(values)}


# %%
other, contrasted = None, None
if judged and contrast and not run.rehearsal and not riebench:
    other = assets.with_blocks("chosen" if set(assets.blocks) == set(assets.with_blocks("paper").blocks) else "paper")
    few = [case for case in cases if int(case.id[-3:]) < contrast][:: 3 if small else 1]
    steering = [Setting("steering", 0, m) for m in (1.0, 2.0)]
    one = [each for each in settings_of(other) if each.method == "SAE"][-1]
    contrasted, _ = sweep_of(other, few, (one, *steering))


def ceilings(of):
    """What a sweep's blocks can make of each case: with the edit prompt's tokens, and with all updates."""
    return {"tokens": of.scores[INJECTION]["success"], "all updates": cross_fitted(of, "steering")}


# %%
table, cannot = {}, []
if judged:
    table = {("these blocks", what): by_kind(values) for what, values in ceilings(sweep).items()}
    if contrasted and contrasted.ids:
        theirs = ceilings(contrasted) | {"SAE features": cross_fitted(contrasted, "SAE")}
        table |= {("other blocks", what): by_kind(values, contrasted.categories) for what, values in theirs.items()}
    for name, kept in (("all cases", everyone), ("with a ceiling", has_ceiling)):
        table["SAE features", name] = by_kind(cross_fitted(sweep, "SAE")[kept], sweep.categories[kept])
    most = torch.stack([*ceilings(sweep).values()])
    cannot = [number for number in used if most[:, of_kind[number]].mean(1).max() < 0.1]
    print("these blocks:", ", ".join(assets.blocks))
    print("other blocks:", ", ".join(other.blocks) if contrasted else "not edited")
    print("cannot be made by these blocks:", ", ".join(CATEGORIES[number] for number in cannot) or "none")
pd.DataFrame(table)

# %%
if judged:
    most = ", ".join(f"{100 * values.mean():.0f} % with {what}" for what, values in ceilings(sweep).items())
    text = f"These blocks make {most} of the edits; a few SAE features make "
    text += f"{100 * cross_fitted(sweep, 'SAE').mean():.0f} %."
    if contrasted and contrasted.ids:
        text += f" The other blocks make {100 * contrasted.scores[INJECTION]['success'].mean():.0f} % with tokens."
    we_see(run, text)

# %% [markdown]
# **How to read it.** Percent of the cases in which the judge sees the edit, with 95 % intervals. The columns of
# ceilings say what the blocks carry. The last two columns say what a few of their features do, over all cases and over
# those with a ceiling.
#
# ## 11.5 Figure 5: what an edit costs, and what it does
#
# The figure stands at the top of this notebook. The line is the method's *envelope*: the most that its settings, or a
# mixture of two of them, reach at each cost.

# %%
from sae_lib.companion import draw_envelopes, more_edits
from sae_lib.editing import EDIT_PROMPT, allowed_cost

PAPERS = ("SAE", "steering", "neurons", "neurons, mean", "neurons, corrected")
CONTROLS = ("SAE", "random features", "shuffled masks", "SAE, add only", "principal components")
COLORS = ("#0072B2", "#009E73", "#D55E00", "#E69F00", "#000000", *[CONTROL_COLOR] * 2, "#56B4E9", "#CC79A7")
NAMED = zip((*PAPERS, *CONTROLS[1:]), COLORS, "os^v<x+PD", strict=True)
LOOKS = {name: {"color": color, "marker": marker} for name, color, marker in NAMED}
COSTS = {"judge": "share of other attributes changed", "text": "perceptual distance", "image": "perceptual distance"}
GAINS = {"judge": "edits done\n(share, beyond the original)", "text": "CLIP similarity gained\n(edit prompt)"}
GAINS |= {"image": "CLIP similarity gained\n(its picture)"}

CEILINGS = {"judge": sweep.gain(INJECTION, "judge")} if judged else {}  # the ceiling: the edit prompt's tokens

# %%
fig, axes = plt.subplots(2, 2, figsize=(TEXT_WIDTH, 5.0), sharex="row", sharey="row")
for line, reading in zip(axes, readings, strict=False):
    line[0].set_ylabel(GAINS[reading])
    for ax, names in zip(line, (PAPERS, CONTROLS), strict=True):
        draw_envelopes(ax, sweep, reading, {name: LOOKS[name] for name in names}, CEILINGS.get(reading))
        ax.set_xlabel(COSTS[reading])
if judged:
    look = {"transform": axes[0, 1].get_yaxis_transform(), "ha": "right", "va": "top", "fontsize": 7}
    axes[0, 1].text(0.98, sweep.gain(INJECTION, main).mean(), "ceiling: tokens ", **look)
axes[0, 0].set_title("the paper's methods")
axes[0, 1].set_title("controls")
look = {"ncols": 2, "columnspacing": 0.8, "handletextpad": 0.1, "fontsize": 7}
for ax, side in zip(axes[1], ("left", "right"), strict=True):
    fig.legend(*ax.get_legend_handles_labels(), loc=f"outside lower {side}", **look)
plt.close(fig)  # shown when it is complete


# %%
def intervals(columns):
    """The mean over cases of each column with its interval; None for a single case."""
    return [bootstrap_interval(column, **sampling) for column in columns] if n_edited > 1 else None


every = (*settings, INJECTION, EDIT_PROMPT)
table = {f"{r}: {each}": intervals(sweep.points([each], r)[:, 1].T) for r in readings for each in every}
result = {"settings": table, "cases": n_edited, "failed": sweep.failed, "prompts": n_edited, "seed": seed}
save_figure(run, fig, "figure5", result | {"blocks": assets.blocks}, folder)
tops = {name: max(sweep.gain(each, main).mean().item() for each in sweep.of_method(name)) for name in METHODS}
order = sorted(tops, key=tops.get, reverse=True)
ranked = ", ".join(f"{name} {tops[name]:{'.0%' if judged else '+.3f'}}" for name in order)
we_see(run, f"{'Edits done' if judged else 'Similarity gained'} at each method's highest setting: {ranked}.")

# %% [markdown]
# **How to read it.** Compare curves only where both exist: there the higher one makes more of the edit for the same
# change of the rest. Random features are directions of the same number and length; for shuffled masks the features were
# selected in the wrong places. If these lay as high as the SAE's curve, it would not matter what is selected.
#
# ## 11.6 The comparison, with intervals
#
# In each bootstrap sample of the cases every setting is averaged and the envelopes are taken. The *gap* is their
# difference, averaged over how much may change: by the judge up to a tenth of the other attributes, by CLIP up to the
# distance of the edit prompt's own picture. Beyond its highest point an envelope stays level, because a method that is
# allowed to change more does not have to.


# %%
def compared(second, reading=main, rows=everyone):
    """The gap of SAE's envelope to another method's, with its interval; None for fewer than two cases."""
    limit = allowed_cost(sweep, reading)
    return more_edits(sweep, second, reading, limit, rows, **sampling) if rows.sum() > 1 else None


against = [name for name in METHODS if name != "SAE"]
gaps = {(second, reading): compared(second, reading) for reading in readings for second in against}
gaps |= {(second, "ceiling"): compared(second, main, has_ceiling) for second in against if judged}
table = {reading: {} for _, reading in gaps}
for (second, reading), gap in gaps.items():
    table[reading][second] = "–" if gap is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*gap)
print("SAE's envelope minus another's; ceiling: over the cases with a ceiling")
pd.DataFrame(table)

# %%
asked = {(second, main): claim for second, claim in claims.items()}
asked |= {("neurons", "ceiling"): ceiling_claim, ("neurons", "text"): clip_claim} if judged else {}
verdicts = [claim.judge(run, gaps[at].value, gaps[at][1:]) for at, claim in asked.items() if gaps[at] is not None]
stored = json.loads((ROOT / "figures" / "results" / "riebench.json").read_text())["result"]
if run.compared_with == "pocket" and stored.get("blocks") == list(assets.blocks):
    print(f"make riebench, {stored['cases']} cases: SAE minus")
    for name, gap in stored["gaps"].items():
        print(f"   {name:21} " + "{:+.4f} ({:+.4f} to {:+.4f})".format(*gap))

# %%
fig, axes = plt.subplots(3, 3, figsize=(TEXT_WIDTH, 5.4), sharex=True, sharey=judged)
by_category, FIVE = {}, ("SAE", "steering", "neurons", "neurons, corrected", "random features")
for ax, (number, rows) in zip(axes.flat, of_kind.items(), strict=True):
    ax.set_title(f"{CATEGORIES[number]}, n = {int(rows.sum())}", fontsize=8)
    if rows.sum() > 1:
        draw_envelopes(ax, sweep, main, {name: LOOKS[name] for name in FIVE}, CEILINGS.get(main), rows)
        for second in ("neurons", "neurons, corrected", "steering"):
            by_category[f"{CATEGORIES[number]} / {second}"] = compared(second, main, rows)
    if number in cannot:
        ax.text(0.5, 0.5, "cannot be made\nby these blocks", transform=ax.transAxes, ha="center", fontsize=8)
axes[1, 0].set_ylabel(GAINS[main].replace("\n", " "))
axes[2, 1].set_xlabel(COSTS[main])
if by_category:
    add_legend(fig)
plt.close(fig)  # shown when it is complete

# %%
result = {"gaps": by_category, "cannot": cannot, "cases": n_edited, "prompts": n_edited, "seed": seed}
save_figure(run, fig, "categories", result, folder, verdicts)
table = {}
for which, gap in by_category.items():
    kind, second = which.split(" / ")
    table.setdefault(f"minus {second}", {})[kind] = "{:.0f} ({:.0f} to {:.0f})".format(*(100 * end for end in gap))
sure = {w.replace(" / ", " (against ") + ")": gap.low > 0 for w, gap in by_category.items() if gap.low * gap.high > 0}
more, fewer = (", ".join(which for which in sure if sure[which] == up) for up in (True, False))
we_see(run, f"SAE features clearly do more in {more or 'no kind of edit'}; clearly less in {fewer or 'none'}.")
print("SAE's envelope minus another's, hundredths (95 % interval)")
pd.DataFrame(table)

# %% [markdown]
# **How to read it.** A panel is a kind of edit, with its ceiling as a dashed line. With so few cases per kind a panel
# by itself decides little. *Clearly*: the whole 95 % interval in the table lies on one side of zero.
#
# How often did the edit happen? The next table takes each method at the setting that is best on the other half of the
# cases. It gives the share of cases in which the judge sees what was asked for (at sdxl scale the similarity gained),
# and the share of the rest that changed.

# %%
edited = {name: [cross_fitted(sweep, name), cross_fitted(sweep, name, "rest")] for name in METHODS}
for each in (INJECTION, EDIT_PROMPT) if judged else ():
    edited[each.method] = [sweep.scores[each][score] for score in ("success", "rest")]
table = {name: by_kind(values) for name, (values, _) in edited.items()}
for name, (values, rest) in edited.items() if judged else ():
    table[name] |= {"with a ceiling": percent(values[has_ceiling]), "side effects": percent(rest)}
print("percent of the cases (95 % interval)" if judged else "hundredths of cosine (95 % interval)")
pd.DataFrame(table)

# %%
if judged:
    three = ("SAE", "neurons", "steering")
    parts = ["{} {:.0f} % ({:.0f} %)".format(name, *(100 * each.mean() for each in edited[name])) for name in three]
    we_see(run, f"Edits done over all cases, and side effects in brackets: {', '.join(parts)}.")

# %% [markdown]
# **How to read it.** A column is a method, a row a kind of edit. Read "all" together with "side effects": a picture
# that is redrawn altogether has many edits and many side effects.
#
# ## 11.7 How many units for an effect
#
# The effect asked for is the largest that both methods reach. Each number of units is taken at its best strength, and
# all of it is done again in each bootstrap sample. Units are counted in three ways: those *selected*, those that are
# *not zero in the region*, and the *numbers added*. An SAE feature is silent at most positions, a neuron is not.
#
# **Why the paper's number cannot appear here.** SDXL's four blocks have 204,800 neurons and 20,480 features, ten to
# one. The pocket's transformers have one layer per block instead of up to ten, so they have as many neurons as features.
# A ratio cannot exceed all neurons over the features used. "A hundred times" can be tested only for an effect that a
# hundredth of the features makes; otherwise it *cannot be tested here*.


# %%
from sae_lib.editing import Columns, best_strengths, units_needed

for name in ("SAE", "neurons", "neurons, corrected"):
    for each in best_strengths(sweep, name, main):
        means = {score: values.mean().item() for score, values in sweep.scores[each].items()}
        effect = sweep.gain(each, main).mean()
        print(f"{each!s:44} effect {effect:+.3f}, not zero in the region {means['units']:7.1f},", end=" ")
        print(f"numbers added {means['numbers']:10.1f}")
features = sum(sae.n_f for sae in assets.saes("transfer").values())
layers = [layer for block in assets.blocks for layer in find_block(assets.pipe(), block).transformer_blocks]
neurons = sum(layer.ff.net[2].in_features for layer in layers)
print(f"{neurons:,} neurons, {features:,} features: {neurons / features:.1f} to one")

# %%
needed, counted = {}, []
for name in ("neurons", "neurons, corrected") if n_edited > 1 else ():
    both = (Columns.of(sweep, each, main) for each in ("SAE", name))
    try:
        needed[name] = units_needed(*both, **sampling)
    except ValueError as error:
        print(f"{name}: {error}")
        continue

# %%
if "neurons, corrected" in needed:
    _, by_features, _, factor = needed["neurons, corrected"]
    largest = neurons / by_features.value
    for times, claim in units_claims.items():
        if largest < times:
            print(f"cannot be tested here (at most {largest:.0f} times): {claim.text}")
        else:
            counted.append(claim.judge(run, factor.value, factor[1:]))

# %%
fig, axes = plt.subplots(1, 2 if judged else 1, figsize=(TEXT_WIDTH, 2.9), squeeze=False)
panels = {"success": "edit seen by the judge", "rest": "other attributes changed"} if judged else {"gain": GAINS[main]}
drawn = {}
for ax, (score, title) in zip(axes[0], panels.items(), strict=True):
    of = (lambda each, score=score: sweep.scores[each][score]) if judged else (lambda each: sweep.gain(each, main))
    for name, best in {name: best_strengths(sweep, name, main) for name in METHODS}.items():
        if not best:
            continue
        spans, units = intervals(of(each) for each in best) or [], [each.units for each in best]
        drawn[f"{name}/{score}"] = dict(zip(map(str, best), spans, strict=False))
        ax.plot(units, [of(each).mean() for each in best], label=name, linewidth=1, **LOOKS[name])
        if spans and name in ("SAE", "neurons, corrected"):
            lows, highs = zip(*(each[1:] for each in spans), strict=True)
            ax.fill_between(units, lows, highs, color=LOOKS[name]["color"], alpha=0.15, lw=0)
    ax.set(xscale="log", xlabel="units added, and as many taken off", title=title)
    for setting, style in ((ORIGINAL, ":"), (INJECTION, "--")):
        ax.axhline(of(setting).mean().item(), color="black", linewidth=0.8, linestyle=style)
    steered = cross_fitted(sweep, "steering", score)
    ax.axhline(steered.mean().item(), color=LOOKS["steering"]["color"], linewidth=1, linestyle="-.")
plt.close(fig)  # shown when it is complete

# %%
axes[0, 0].set_ylabel(f"share ({n_edited} cases)" if judged else f"({n_edited} cases)")
lines = {"original": (":", "black"), "ceiling: tokens": ("--", "black")}
lines |= {"steering: all": ("-.", LOOKS["steering"]["color"])}
add_legend(fig, lines, columnspacing=1, handlelength=1.6)
result = {"needed": {name: each._asdict() for name, each in needed.items()}, "drawn": drawn}
result |= {"neurons": neurons, "features": features, "cases": n_edited, "prompts": n_edited, "seed": seed}
save_figure(run, fig, "units", result, folder, counted)

for name, (effect, mine, theirs, times) in needed.items():
    text = f"{theirs.value:.0f} {' '.join(reversed(name.split(', ')))} or {mine.value:.0f} SAE features make the same "
    text += f"effect ({effect:.2f}): {times.value:.1f} times as many (95 % {times.low:.1f} to {times.high:.1f})."
    we_see(run, text)

# %% [markdown]
# **How to read it.** Left, how often the edit really happened; right, how much else it changed, which the paper could
# not show. The dotted line is the untouched picture, the dashed one the edit prompt's tokens in these blocks, the green
# one all updates. A method that rises on the right as it rises on the left redraws the picture; one that rises on the
# left alone edits it.
#
# ## 11.8 Figure 6: which blocks are drawn on
#
# Here the features that are added are counted by block, for each kind of edit. They are selected from all blocks at
# once, so a block has to win its share. The control (ticks) is an untrained SAE of the same size in each block, with
# features selected by the same rule: it shows how much of the pattern is in the updates themselves. A star marks the
# block that *writes* what the edit changes (notebook 05): of the chosen blocks, the one that raised the share of such
# words drawn most when it was added.

# %%
from sae_lib.companion import save_answer, spread_by_kind, spread_over_untrained
from sae_lib.editing import untrained_of, writers_of

chosen = sweep.of_method("SAE")[0]  # the fewest features
k_shown, blocks_of = chosen.units, (chosen, untrained_of(chosen))
share, control = (torch.stack([sweep.selected[s][b] / k_shown for b in assets.blocks], 1) for s in blocks_of)
writers = writers_of(assets.blocks) if assets.known else {}

# %%
fig, axes = plt.subplots(3, 3, figsize=(TEXT_WIDTH, 5.2), sharex=True, sharey=True)
places, means = range(len(assets.blocks)), {}
for ax, (number, rows) in zip(axes.flat, of_kind.items(), strict=True):
    ax.set_title(f"{CATEGORIES[number]}, n = {int(rows.sum())}", fontsize=8)
    ax.tick_params(labelsize=7)
    if not rows.any():
        continue
    means[CATEGORIES[number]] = share[rows].mean(0).tolist()
    ax.barh(places, k_shown * share[rows].mean(0), color=[BLOCK_COLORS[block] for block in assets.blocks])
    ax.plot(k_shown * control[rows].mean(0), places, "|", color="black", markersize=8, label="untrained SAE")
    if rows.sum() > 1:
        for place in places:
            _, low, high = bootstrap_interval(k_shown * share[rows, place], **sampling)
            ax.hlines(place, low, high, color=CONTROL_COLOR, linewidth=1.2)
    if number in writers:
        place = assets.blocks.index(writers[number])
        ax.plot(0.95, place, "*", color="black", transform=ax.get_yaxis_transform(), markersize=6)
fig.supxlabel(f"features selected of {k_shown}; tick: untrained SAEs; star: the block that writes it", fontsize=9)
axes[0, 0].set_yticks(places, assets.blocks)
axes[0, 0].invert_yaxis()
plt.close(fig)  # shown when it is complete


# %%
numbers = {}
if has_ceiling.sum() > 1:
    kinds, own, theirs = (each[has_ceiling] for each in (sweep.categories, share, control))
    spread, of_untrained = (spread_by_kind(kinds, each, **sampling) for each in (own, theirs))
    numbers = {"kinds": spread_over_untrained(spread, of_untrained), "shuffled": interval_of(spread)}
if writers and has_ceiling.sum() > 1:
    at = torch.tensor([assets.blocks.index(writers[int(number)]) for number in sweep.categories])
    others = torch.stack([share[sweep.categories != number].mean(0) for number in sweep.categories])
    drawn_more = (share - others)[torch.arange(n_edited), at]
    numbers["writers"] = bootstrap_interval(drawn_more[has_ceiling], **sampling)
block_verdicts = [block_claims[name].judge(run, each.value, each[1:]) for name, each in numbers.items()]
result = {"blocks": assets.blocks, "share": means, "k": k_shown, "cases": n_edited, "prompts": n_edited, "seed": seed}
save_figure(run, fig, "figure6", result | {"writers": writers}, folder, block_verdicts)

first, of_control = ({n: assets.blocks[each[of_kind[n]].mean(0).argmax()] for n in used} for each in (share, control))
kinds = {block: [CATEGORIES[n] for n in used if first[n] == block] for block in assets.blocks}
most = "; ".join(f"{block} in {', '.join(names)}" for block, names in kinds.items() if names)
same, starred = (sum(first[n] == other.get(n) for n in used) for other in (of_control, writers))
text = f"; the block with the star has most in {starred}" * bool(writers)
we_see(run, f"Most come from {most}. With untrained SAEs it is the same block in {same} of {len(used)} kinds{text}.")

# %% [markdown]
# **How to read it.** The bars of a panel add up to all features selected. If the blocks had no roles, all panels would
# look alike. Where bars follow the ticks, the pattern is that of the updates and not what the SAE has learnt. The
# authors' counts were not published as numbers, so none stands beside ours.
#
# ## 11.9 The authors' preliminary points
#
# These points were read off two scatter plots in the authors' notebook of May 2025 [digitised]. They come from other
# pictures, another CLIP, another distance and code from before two corrections, so they are context and no target.
# Compare the *order* of the methods.

# %%
published = json.loads((ROOT / "figures" / "results" / "riebench_preliminary.json").read_text())
fig, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.8))
highest = {}
for method in ("SAE", "steering", "neurons"):
    theirs = [(p["distance"], p["image edited"]) for p in published["points"] if p["method"] == method]
    axes[0].plot(*zip(*theirs, strict=True), label=method, linestyle="", **LOOKS[method])
    ours = [[sweep.scores[s][x].mean().item() for s in sweep.of_method(method)] for x in ("distance", "image edited")]
    axes[1].plot(*ours, linestyle="", **LOOKS[method])
    highest[method] = max(y for _, y in theirs), max(ours[1])
axes[0].set(title="authors, May 2025 [digitised]", xlabel="LPIPS to the original")
axes[0].set_ylabel("CLIP similarity\nto the edit prompt's picture")
axes[1].set(title=f"this run, {n_edited} cases", xlabel="perceptual distance to the original")
add_legend(fig)
save_figure(run, fig, "preliminary", {"published": published, "cases": n_edited, "seed": seed}, folder)

orders = [sorted(highest, key=lambda name, of=of: -highest[name][of]) for of in (0, 1)]
text = [", ".join(f"{name} {highest[name][of]:.2f}" for name in names) for of, names in enumerate(orders)]
we_see(run, f"Highest similarity to the edit prompt's picture: theirs {text[0]}; here {text[1]}.")

# %% [markdown]
# ## 11.10 Headline numbers
#
# The tests execute the next cell again, from an empty cache, and compare digit by digit.

# %% tags=["nbval-check-output"]
for each in (*settings[:: max(1, len(settings) // 8)], INJECTION):
    print(f"{each!s:46} distance {sweep.scores[each]['distance'].mean():.3f}", end="")
    print(f", gain {sweep.gain(each, 'text').mean():+.3f}", end="")
    print(f", success {sweep.scores[each]['success'].mean():.2f}" if judged else "")

# %% [markdown]
# ## 11.11 Scorecard
#
# Each line gives the word of a rule of section 11.2 and the number with its 95 % interval. Smoke and rehearsal give no
# verdict.

# %%
print(*verdicts, *counted, *block_verdicts, sep="\n")

# %%
primary, answer = {each.id: each for each in (*verdicts, *block_verdicts) if each.primary}, []
verb, what = ("make", "edits in 100") if judged else ("gain", "hundredths of CLIP similarity")
if gap := primary.get("C7"):
    ends = (100 * gap.value, *(100 * end for end in gap.interval))
    more, *range_ = (f"{abs(end):.{0 if judged else 1}f} {'more' if end >= 0 else 'fewer'}" for end in ends)
    text = f"{gap.yes_or_no}: at equal {at_equal} SAE features {verb} {more} {what} than neurons do"
    answer.append(f"{text} (95 % interval: {' to '.join(range_)}).")
if roles := primary.get("C8"):
    decides = {"Yes": "decides", "No": "does not decide"}.get(roles.yes_or_no, "may or may not decide")
    answer.append(f"The kind of edit {decides} the blocks more than it does for untrained SAEs.")
save_answer(run, " ".join(answer) or "Undecided: too few cases were edited.")

# %% [markdown]
# ## 11.12 Limits
#
# - One pocket model and one set of SAEs: intervals are over cases.
# - The judge always names some value: on a picture that it cannot read, a success may be luck. All methods have
#   the same judge.
# - An envelope of few settings is a polygon: small gaps depend on where its corners happen to lie. Equally many
#   settings per method make this fair, not small.
# - The ceiling by tokens is a picture of its own, drawn without masks: an edit with masks may succeed where it failed.
# - Units of different bases are not the same thing; section 11.7 gives three ways to count them.
#
# ## 11.13 Exercises
#
# 1. `blocks = "paper"`: which of the nine kinds still have a ceiling?
# 2. `per_category = 14`, which takes twice as long: which verdicts change? And `dilate = False`: do tighter
#    masks edit better?
# 3. Compare "SAE" with "SAE, add only": what did the error in the code of v3 and v4 cost the method?
#
# **Next:** [12](12_prompt_case_study.ipynb) looks at one prompt and its features.
