"""The steps: what each measures, with the library's own functions, and how it is judged.

A measure writes `measured.json` and pictures into an artefact's folder. So a killed run goes on, and a step is measured
again only if its weights, prompts, counts or code have changed. Judging is cheap and done each time.
"""

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import psutil
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor

from notebooks.first_run.judging import Comparison, published
from sae_lib.activations.denoising import CallSettings, stream_updates
from sae_lib.activations.drawing import as_image, draw_pictures
from sae_lib.activations.updates import to_vectors
from sae_lib.assets import Assets
from sae_lib.companion.case_study import PRINTED, SLOTH, show_maps, study_prompt
from sae_lib.companion.plots import add_legend
from sae_lib.companion.style import BLOCK_COLORS, MODEL_LINES, TEXT_WIDTH
from sae_lib.editing.cases import pocket_cases, read_cases
from sae_lib.editing.settings import PAPER_SETTINGS, REHEARSAL_SETTINGS, Setting
from sae_lib.editing.sweep import cached_sweep
from sae_lib.features.injection import PROMPT_PAIRS, by_reader, estimate_injected, share_of_way
from sae_lib.features.interventions import draw_changed, reconstruct, skip_block
from sae_lib.models.blocks import ATTENTION_BLOCKS, PAPER_BLOCKS
from sae_lib.saes.checkpoints import load_saes
from sae_lib.saes.controls import untrained
from sae_lib.saes.statistics import RunningStatistics
from sae_lib.saes.topk import TopKSAE
from sae_lib.saes.transfer import measure_transfer

FIG3_SEED = 1337
"""The authors' (their code of Fig. 3)."""
TURBO_SEED = 42
"""The authors', of single pictures and of the ablations."""


@dataclass(frozen=True)
class Counts:
    """How much each step measures."""

    statistics: int
    """Prompts whose activations are compared with mean.pt."""
    others: int
    """Other prompts whose top features are the control of the sloth's."""
    reconstruction: int
    transfer: int
    """Prompts of Figure 3 (authors' code: 100)."""
    resnets: int
    """Prompts of Table 1 (authors: 20)."""
    cases: int
    """RIEBench's first cases (the preliminary points: 100)."""
    pairs: int
    """Pairs of prompts of each kind for the injection."""
    base_steps: int


FULL, TINY = Counts(500, 10, 20, 100, 20, 100, 3, 20), Counts(4, 1, 2, 2, 2, 1, 1, 2)


@dataclass(frozen=True)
class Kit:
    """What the steps work with."""

    assets: Assets
    counts: Counts
    batch: int = 10
    """Prompts per call; Fig. 3's base model at 1,024 px decides how much memory it takes."""
    riebench: str = ""

    @property
    def inputs(self) -> dict[str, Any]:
        """What all measured numbers depend on."""
        return {"assets": self.assets.identity, "counts": vars(self.counts), "batch": self.batch}


@contextmanager
def costs(kept: dict[str, Any]) -> Iterator[None]:
    """Adds the seconds and the peak memory of what runs inside the context."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield
    peak = torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss
    kept |= {"seconds": time.perf_counter() - start, "peak_gb": peak / 1e9}


def write(folder: Path, result: Mapping[str, Any], pictures: Mapping[str, bytes] | None = None) -> None:
    """The measured numbers, and pictures by their alternative texts."""
    pictures = dict(pictures or {})
    for place, content in enumerate(pictures.values()):
        (folder / f"picture_{place}").write_bytes(content)
    (folder / "measured.json").write_text(json.dumps(dict(result) | {"pictures": list(pictures)}, default=float))


def in_webp(pictures: Tensor, side: int = 192) -> bytes:
    """A strip of pictures with values in [0, 1], side by side."""
    images = [as_image(picture).resize((side, side)) for picture in pictures]
    whole = Image.new("RGB", (side * len(images), side))
    for place, image in enumerate(images):
        whole.paste(image, (side * place, 0))
    with io.BytesIO() as file:
        whole.save(file, "WEBP", quality=85)
        return file.getvalue()


def in_png(figure: Figure) -> bytes:
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=150, facecolor="white")
        plt.close(figure)
        return file.getvalue()


# 1 Statistics of the SAEs


def measure_statistics(kit: Kit, folder: Path) -> None:
    """Of the SAEs' mean.pt and std.pt: their summary; and how far measured means are from them."""
    assets, result = kit.assets, {"shipped": {}, "single": {}, "measured": {}}
    known = published("sae_statistics")["one feature each"]
    with costs(result):
        for block, of in assets.statistics().items():
            single = [feature for feature in known.get(block, ()) if int(feature) < len(of.mean)]
            result["single"][block] = {feature: of.mean[int(feature)].item() for feature in single}
            low, high = of.mean.quantile(torch.tensor([0.05, 0.95])).tolist()
            numbers = {"mean": of.mean.mean(), "median": of.mean.median(), "p5": low, "p95": high, "max": of.mean.max()}
            numbers |= {"mean std": of.std.mean(), "never active": (of.mean == 0).sum()}
            result["shipped"][block] = {name: float(number) for name, number in numbers.items()}
        counted = {block: RunningStatistics(sae.n_f) for block, sae in assets.saes().items()}
        _, call = assets.call(assets.one_step, TURBO_SEED, kit.batch)
        prompts = assets.prompts(kit.counts.statistics)
        for _, updates in stream_updates(assets.pipe(), prompts, list(counted), call):
            for block, sae in assets.saes().items():
                values, indices = sae.encode_sparse(to_vectors(updates[block].to(sae.pre_bias)))
                counted[block].add(values.cpu(), indices.cpu())
        for block, running in counted.items():
            result["measured"][block] = far_from(running, assets.statistics()[block].mean)
    write(folder, result)


def far_from(running: RunningStatistics, shipped: Tensor, least: int = 100) -> dict[str, float]:
    """The median of |measured mean / mean.pt - 1| over features that fired `least` times, and of features shuffled."""
    fired = running.sums[0] >= (least if running.vectors > 100_000 else 1)
    ours, theirs = running.result().mean[fired].double(), shipped[fired].double()
    if len(ours) < 2:
        return {"distance": float("nan"), "shuffled": float("nan"), "features": int(fired.sum())}
    other = theirs[torch.randperm(len(theirs), generator=torch.Generator().manual_seed(0))]
    distances = [(ours / mean.clamp(min=1e-9) - 1).abs().median().item() for mean in (theirs, other)]
    return {"distance": distances[0], "shuffled": distances[1], "features": int(fired.sum())}


_ROUNDED = {"mean": 0.06, "median": 0.06, "p5": 0.06, "p95": 0.06, "max": 0.06, "mean std": 0.06, "never active": 0}


def judge_statistics(measured: Mapping[str, Any], kit: Kit) -> list[Comparison]:
    theirs, rows = published("sae_statistics"), []
    for block, numbers in theirs["blocks"].items():
        for name, expected in numbers.items():
            ours = measured["shipped"].get(block, {}).get(name)
            rows.append(Comparison(f"{block} mean.pt: {name}", ours, expected, _ROUNDED[name], theirs["source"]))
        for feature, expected in theirs["one feature each"].get(block, {}).items():
            ours = measured["single"].get(block, {}).get(feature)
            rows.append(Comparison(f"{block}/{feature}: mean.pt", ours, expected, 0.06, theirs["source"]))
        far = measured["measured"].get(block, {})
        row = f"{block}: measured means from mean.pt (median, relative)"
        rows.append(Comparison(row, far.get("distance"), 0.0, 0.1, theirs["source"], far.get("shuffled")))
    return rows


# 2 Top features of the sloth prompt


def measure_sloth(kit: Kit, folder: Path) -> None:
    """The ten most active features of down.2.1 in the authors' picture, and in other prompts' pictures."""
    assets, result = kit.assets, {}
    with costs(result):
        prompts = published("table1")["prompts"][: kit.counts.others]
        prompt = assets.prompts(1)[0] if assets.rehearsal else SLOTH
        study = study_prompt(assets, "down.2.1", prompt, TURBO_SEED)
        others = [study_prompt(assets, "down.2.1", other, TURBO_SEED) for other in prompts]
        figure = show_maps(study._replace(ids=study.ids[:6], maps=study.maps[:6]), {})
        pictures = {f"Where the six most active features of down.2.1 fire: {prompt}": in_png(figure)}
    result |= {"features": [name.feature for name in study.ids], "prompt": prompt}
    result["others"] = [[name.feature for name in other.ids] for other in others]
    write(folder, result, pictures)


def judge_sloth(measured: Mapping[str, Any], kit: Kit) -> list[Comparison]:
    again = len(set(PRINTED) & set(measured["features"]))
    others = [len(set(PRINTED) & set(features)) for features in measured["others"]]
    control = sum(others) / max(len(others), 1)
    return [Comparison("of the authors' ten features found again", again, 10.0, 1.0, "code", control)]


# 3 Reconstruction


def measure_reconstruction(kit: Kit, folder: Path) -> None:
    """How far pictures move when a block's update is replaced by its reconstruction, or left out."""
    assets, result = kit.assets, {}
    with costs(result):
        saes, pipe = assets.saes(), assets.pipe()
        _, call = assets.call(assets.one_step, TURBO_SEED, kit.batch)
        prompts = assets.prompts(kit.counts.reconstruction)
        changes: dict[str, dict] = {"original": {}}
        for block, sae in saes.items():
            changes |= {
                f"{block}/SAE": {block: reconstruct(sae)},
                f"{block}/skipped": {block: skip_block},
                f"{block}/untrained SAE": {block: reconstruct(untrained(sae))},
            }
        drawn = list_of_changed(pipe, prompts, call, changes)
        far = assets.distance.against(drawn["original"])
        for name, pictures in drawn.items():
            if name != "original":
                manhattan = 255 * (pictures - drawn["original"]).abs().sum(1).mean((-2, -1))
                result[name] = {"distance": far(pictures)[0].mean(), "Manhattan": manhattan.mean()}
        sae_of = {block: {"SAE": sae} for block, sae in saes.items()}
        for block, named in measure_transfer(pipe, prompts, call, sae_of).items():
            result[f"{block}/SAE"]["explained variance"] = named["SAE"].explained_variance(1)[0, 0]
        shown = [drawn["original"][0], *(drawn[f"{block}/SAE"][0] for block in saes)]
        pictures = {f"The first prompt's picture, then with {', '.join(saes)} rebuilt by its SAE": in_webp(shown)}
    write(folder, result, pictures)


def list_of_changed(pipe, prompts: list[str], call: CallSettings, changes: Mapping) -> dict[str, Tensor]:
    """`draw_changed` batch by batch, so that no more than one batch is recorded at a time."""
    parts: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(prompts)).split(call.batch_size):
        for name, drawn in draw_changed(pipe, [prompts[row] for row in rows], call, changes, rows.tolist()):
            refuse_dead(drawn)
            parts.setdefault(name, []).append(drawn)
    return {name: torch.cat(drawn) for name, drawn in parts.items()}


def refuse_dead(pictures: Tensor) -> None:
    """Raises ValueError for pictures that are not finite, or all black."""
    if not pictures.isfinite().all():
        raise ValueError("the pictures hold NaN: wanted numbers between 0 and 1")
    if pictures.max() == 0:
        raise ValueError("all are black pictures: the autoencoder gave nothing")


def judge_reconstruction(measured: Mapping[str, Any], kit: Kit) -> list[Comparison]:
    return [
        Comparison(f"{name}: {what}", number)
        for name, numbers in measured.items()
        if "/" in name
        for what, number in numbers.items()
    ]


# 4 Figure 3

TITLES = {
    "explained_variance_as_published": "explained variance\n(as published)",
    "coefficient_similarity": "overlap of features\n(adjacent steps)",
    "active_set_iou": "IoU of active sets\n(adjacent steps)",
}
QUANTITIES = tuple(TITLES)


def measure_figure3(kit: Kit, folder: Path) -> None:
    """The curves of Figure 3 in Turbo's four steps and base's twenty."""
    assets, result = kit.assets, {"curves": {}}
    with costs(result):
        prompts = assets.prompts(kit.counts.transfer)
        calls = {"turbo": (4, 0.0), "base": (kit.counts.base_steps, assets.counts.base_guidance)}
        saes = {block: {"SAE": sae} for block, sae in transfer_saes(assets).items()}
        for setting, (steps, guidance) in calls.items():
            call = CallSettings(steps, guidance, FIG3_SEED, kit.batch)
            for block, named in measure_transfer(assets.pipe(setting), prompts, call, saes).items():
                for quantity in (*QUANTITIES, "explained_variance"):
                    curve = getattr(named["SAE"], quantity)(1)[:, 0].tolist()
                    result["curves"].setdefault(quantity, {}).setdefault(setting, {})[block] = curve
    write(folder, result, {"Figure 3: measured (lines) and digitised (dots)": in_png(draw_figure3(result["curves"]))})


def transfer_saes(assets: Assets) -> dict[str, TopKSAE]:
    """The SAEs of Figure 3, also where no statistics lie beside them."""
    if assets.untrained:
        return assets.saes("transfer")
    return load_saes("transfer", "sdxl", assets.sae_folder, assets.pipe()._execution_device, assets.blocks)


def draw_figure3(curves: Mapping[str, Any]) -> Figure:
    """Lines are measured, dots are the digitised curves."""
    theirs = published("fig3")["curves"]
    fig, axes = plt.subplots(1, 3, figsize=(1.5 * TEXT_WIDTH, 3.4), sharey=True)
    for ax, quantity in zip(axes, QUANTITIES, strict=True):
        for of, dots in ((theirs, True), (curves, False)):
            for setting, by_block in of[quantity].items():
                for block, curve in by_block.items():
                    values = [float("nan") if value is None else value for value in curve]
                    x = [100 * place / max(len(values) - 1, 1) for place in range(len(values))]
                    marker = {"turbo": "o", "base": "s"}[setting]
                    look = {"ls": "", "marker": marker, "ms": 3} if dots else {"ls": MODEL_LINES[setting]}
                    ax.plot(x, values, color=BLOCK_COLORS[block], **look)
        ax.set(title=TITLES[quantity], xlabel="progress (%)")
    axes[0].set_ylim(min(0, axes[0].get_ylim()[0]), 1.02)
    lines = {block: ("-", BLOCK_COLORS[block]) for block in PAPER_BLOCKS}
    lines |= {"Turbo, measured": ("-", "black"), "base, measured": ("--", "black")}
    add_legend(fig, lines | {"Turbo, digitised": ("o", "black"), "base, digitised": ("s", "black")}, ncols=4)
    return fig


def judge_figure3(measured: Mapping[str, Any], kit: Kit) -> list[Comparison]:
    """Per curve, the mean distance of its readable points: expected 0."""
    theirs, rows = published("fig3"), []
    for quantity, by_setting in theirs["curves"].items():
        for setting, by_block in by_setting.items():
            for block, curve in by_block.items():
                ours = measured["curves"][quantity][setting].get(block, [])
                name = f"{setting} {block} {quantity.replace('_', ' ')}"
                rows.append(Comparison(name, mean_distance(ours, curve), 0.0, 0.02, theirs["source"]))
    return rows


def mean_distance(ours: list[float], theirs: list[float | None]) -> float:
    """The mean of |ours - theirs| over the points that could be read; NaN for curves of another length."""
    if len(ours) != len(theirs):
        return float("nan")
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True) if b is not None]
    return sum(apart) / len(apart)


# 5 Table 1


def measure_table1(kit: Kit, folder: Path) -> None:
    """The perceptual distance of pictures without one ResNet."""
    assets, theirs, result = kit.assets, published("table1"), {"distance": {}}
    with costs(result):
        prompts = theirs["prompts"][: kit.counts.resnets]
        call = CallSettings(1, 0.0, TURBO_SEED, kit.batch)
        blocks = list(theirs["resnets"])[: 2 if assets.rehearsal else None]
        drawn = list_of_changed(
            assets.pipe(), prompts, call, {"none": {}} | {block: {block: skip_block} for block in blocks}
        )
        far = assets.distance.against(drawn["none"])
        result["distance"] = {block: far(drawn[block])[0].mean() for block in blocks}
        shown = [drawn[name][0] for name in ("none", *blocks[:5])]
        pictures = {f"The first prompt's picture, then without {', '.join(blocks[:5])}": in_webp(shown)}
    write(folder, result, pictures)


def judge_table1(measured: Mapping[str, Any], kit: Kit) -> list[Comparison]:
    theirs = published("table1")
    return [
        Comparison(
            f"LPIPS without {block}",
            measured["distance"].get(block),
            row["lpips_mean"],
            2 * row["lpips_std"] / len(theirs["prompts"]) ** 0.5,
            theirs["source"],
        )
        for block, row in theirs["resnets"].items()
        if block in measured["distance"] or not kit.assets.rehearsal
    ]


# 6 RIEBench


def riebench_settings(kit: Kit) -> tuple[Setting, ...]:
    """The settings of the preliminary points that the authors' later sweep has too."""
    if kit.assets.rehearsal:
        return (REHEARSAL_SETTINGS[0], REHEARSAL_SETTINGS[2])
    asked = {(p["method"], p["units"], p["strength"]) for p in published("riebench_preliminary")["points"]}
    return tuple(setting for setting in PAPER_SETTINGS if tuple(setting) in asked)


def measure_riebench(kit: Kit, folder: Path) -> None:
    """LPIPS to the original and CLIP's similarity to the edit prompt's picture, per setting, over the first cases."""
    if not kit.riebench and not kit.assets.rehearsal:
        raise FileNotFoundError("no RIEBench file was given")
    result: dict[str, Any] = {"points": []}
    with costs(result):
        cases = pocket_cases(1) if kit.assets.rehearsal else read_cases(kit.riebench)[0]
        settings = riebench_settings(kit)
        sweep, _ = cached_sweep(kit.assets, cases[: kit.counts.cases], settings, TURBO_SEED, True, 0, kit.riebench)
        for setting in settings if sweep.ids else ():
            means = {name: sweep.scores[setting][name].mean() for name in ("distance", "image edited")}
            result["points"].append(setting._asdict() | means)
    write(folder, result | {"cases": len(sweep.ids), "failed": sorted(set(sweep.failed.values()))})


def judge_riebench(measured: Mapping[str, Any], kit: Kit) -> list[Comparison]:
    theirs, rows = published("riebench_preliminary"), []
    ours = {(p["method"], p["units"], p["strength"]): p for p in measured["points"]}
    for point in theirs["points"]:
        key = point["method"], point["units"], point["strength"]
        if key in ours:
            label = f"{key[0]} {key[1] or ''} x{key[2]:g}: "
            rows += [
                Comparison(label + name, ours[key][name], point[name], 0.1, theirs["source"])
                for name in ("distance", "image edited")
            ]
    rows += [
        Comparison(f"{key[0]} {key[1]} x{key[2]:g}: {name}", p[name])
        for key, p in ours.items()
        if not rows
        for name in ("distance", "image edited")
    ]
    return rows


# 7 Injection


def measure_injection(kit: Kit, folder: Path) -> None:
    """How far the one-step estimate goes towards another prompt's, when one block alone reads that prompt."""
    assets, result = kit.assets, {}
    with costs(result):
        pairs = {kind: PROMPT_PAIRS[kind][: kit.counts.pairs] for kind in list(PROMPT_PAIRS)}
        pairs = dict(list(pairs.items())[:2]) if assets.rehearsal else pairs
        first, second = ([pair[at] for same in pairs.values() for pair in same] for at in (0, 1))
        readers = {"all": ATTENTION_BLOCKS} | {block: (block,) for block in ATTENTION_BLOCKS}
        call = CallSettings(1, 0.0, TURBO_SEED, kit.batch)
        estimates = dict(by_reader(estimate_injected, assets.pipe(), first, second, readers | four(), call))
        names = [*ATTENTION_BLOCKS, *four()]
        way = {name: share_of_way(estimates["nothing"], estimates[name], estimates["all"]) for name in names}
        kinds = [kind for kind, same in pairs.items() for _ in same]
        result |= {"share": {name: share.mean() for name, share in way.items()}, "pairs": len(first)}
        result["by kind"] = {
            kind: {name: share[[i for i, k in enumerate(kinds) if k == kind]].mean() for name, share in way.items()}
            for kind in pairs
        }
    write(folder, result)


def four() -> dict[str, tuple[str, ...]]:
    """The paper's four blocks as one group."""
    return {"the paper's four": PAPER_BLOCKS}


def judge_injection(measured: Mapping[str, Any], kit: Kit) -> list[Comparison]:
    return [Comparison(f"{name}: share of the way", share) for name, share in measured["share"].items()]


# All of them


class Step(NamedTuple):
    """A step: how it is measured and judged, and what the report says of it."""

    name: str
    title: str
    measure: Callable[[Kit, Path], None]
    judge: Callable[[Mapping[str, Any], Kit], list[Comparison]]
    count: str
    """The field of `Counts` that says how many prompts it has."""
    seed: int
    reason: str
    says: Callable[[Mapping[str, Any]], str]
    passes: Callable[[Counts], float]
    """Passes of the U-Net at 512 px, from which minutes are estimated."""
    size: int = 512
    """Pixels of its largest pictures."""


def best(shares: Mapping[str, float]) -> str:
    alone = {name: share for name, share in shares.items() if name in ATTENTION_BLOCKS}
    most = max(alone, key=alone.get)
    return f"Alone, {most} carries most: {alone[most]:.2f} of the way."


def order_of_resnets(measured: Mapping[str, Any]) -> str:
    ours, theirs = measured["distance"], published("table1")["resnets"]
    if len(ours) < 3:
        return f"{len(ours)} ResNets ablated."
    order = spearmanr(list(ours.values()), [theirs[block]["lpips_mean"] for block in ours]).statistic
    return f"{len(ours)} ResNets ablated; rank correlation with the authors' {order:.2f}."


STEPS = (
    Step(
        "statistics",
        "Statistics of the released SAEs (k 10, n_f 5120)",
        measure_statistics,
        judge_statistics,
        "statistics",
        TURBO_SEED,
        "The summary of mean.pt must be the published one up to its rounding: otherwise these are other SAEs. Means "
        "over our prompts may differ by a tenth (median over features), since the authors' are a slightly mis-weighted "
        "running mean of other pictures; the same with features shuffled is the control and must be further away.",
        lambda of: (
            "Median distance of measured means from mean.pt: "
            + ", ".join(f"{block} {row['distance']:.3f}" for block, row in of["measured"].items())
            + "."
        ),
        lambda counts: counts.statistics,
    ),
    Step(
        "sloth",
        "Top features of the sloth prompt",
        measure_sloth,
        judge_sloth,
        "others",
        TURBO_SEED,
        "One of ten may differ: the tenth and the eleventh may change places in 16 bits. The control is the mean count "
        "in other prompts' pictures, since some features are active in every picture.",
        lambda of: f"Top features: {', '.join(map(str, of['features']))}.",
        lambda counts: 1 + counts.others,
    ),
    Step(
        "reconstruction",
        "Pictures with one block rebuilt by its SAE",
        measure_reconstruction,
        judge_reconstruction,
        "reconstruction",
        TURBO_SEED,
        "No value of the paper's Table 5 is known. Read it beside its controls: the SAE's picture should be much "
        "nearer to the original than the picture without the block and than that of an untrained SAE.",
        lambda of: (
            "Perceptual distance with the SAE and with the block skipped: "
            + ", ".join(
                f"{name[:-4]} {of[name]['distance']:.3f} and {of[name[:-3] + 'skipped']['distance']:.3f}"
                for name in of
                if name.endswith("/SAE")
            )
            + "."
        ),
        lambda counts: 14 * counts.reconstruction,
    ),
    Step(
        "figure3",
        "Figure 3: four steps of Turbo, twenty of base",
        measure_figure3,
        judge_figure3,
        "transfer",
        FIG3_SEED,
        "Curves were read off plots to 0.005 (dense ones 0.01), and other prompts and 16 bits move them by about as "
        "much (ours are held out, theirs probably not): 0.02, in the mean over a curve's readable points.",
        lambda of: (
            "Mean explained variance as published: "
            + ", ".join(
                f"{setting} {sum(map(sum, by.values())) / sum(map(len, by.values())):.3f}"
                for setting, by in of["curves"][QUANTITIES[0]].items()
            )
            + "."
        ),
        lambda counts: counts.transfer * (4 + 2 * 4 * counts.base_steps),
        1024,
    ),
    Step(
        "table1",
        "Table 1, the ResNets' half",
        measure_table1,
        judge_table1,
        "resnets",
        TURBO_SEED,
        "Two standard errors of the authors' mean over 20 prompts. Their noise came from a generator on the GPU, ours "
        "from the CPU. That their table in the code equals the printed one is inferred.",
        order_of_resnets,
        lambda counts: 18 * counts.resnets,
    ),
    Step(
        "riebench",
        "RIEBench's preliminary points",
        measure_riebench,
        judge_riebench,
        "cases",
        TURBO_SEED,
        "0.1: the authors' points were read off two scatter plots of May 2025; they come from code before two "
        "corrections, so the order of the settings counts for more than the heights.",
        lambda of: f"{of['cases']} of the cases edited{': not ' + '; '.join(of['failed']) if of['failed'] else ''}.",
        lambda counts: 4 * counts.cases * 17,
    ),
    Step(
        "injection",
        "Which block carries the prompt",
        measure_injection,
        judge_injection,
        "pairs",
        TURBO_SEED,
        "Nothing is published for SDXL Turbo. 0 is the picture of the first prompt, 1 that of the second in all eleven "
        "blocks; a single block's share is how far it goes by itself.",
        lambda of: best(of["share"]),
        lambda counts: 14 * 7 * counts.pairs,
    ),
)
"""In the order in which they run: the cheapest comparison first."""


def check_picture(kit: Kit) -> None:
    """One picture, before all steps. Raises ValueError if it is black or not finite, as in 16 bits it may be."""
    call = CallSettings(1, 0.0, TURBO_SEED, 1)
    refuse_dead(draw_pictures(kit.assets.pipe(), kit.assets.prompts(1) if kit.assets.rehearsal else [SLOTH], call))
