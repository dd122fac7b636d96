"""Choose how large the SAEs are whose features are looked at (stage `sizes`): one k and one n_f per block width.

The rule was fixed before the sweep was first run (2026-11-26), and it never looks at what features write. It considers
the settings that explain at least `WANTED_VARIANCE` of the held-out updates in every chosen block of a width, and takes
the one that reads best: on average over values and blocks, the score of a value's best feature, minus that of the best
random direction, of equally many directions of which equally many are active. The best feature is chosen on one half of
the pictures and scored on the other half.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionXLPipeline
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import capture_updates, to_vectors
from sae_lib.features.meaning import keep_top, reading_scores
from sae_lib.judges.attributes import Truth, judge_truth
from sae_lib.models.blocks import grid_of, width_of
from sae_lib.models.prompts import load_pocket_captions
from sae_lib.pocket import weights
from sae_lib.pocket.chosen import SIZES_FILE, load_choice, store
from sae_lib.saes.metrics import explained_variance
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from sae_lib.training.recipe import TrainingRun

KS, EXPANSION_FACTORS = (2, 4, 8, 16), (1 / 2, 1, 2, 4)
WANTED_VARIANCE = 0.5
PICTURES, PASSES, BATCH = 512, 2, 16
_FIRST_PICTURE = 30_000
"""The first training caption that is looked at: no SAE is trained on those from here on, and no notebook uses them."""


def choose_sizes(prompts: int, seed: int, device: str) -> None:
    """Train SAEs of all settings on one-step updates of the chosen blocks, measure them, and store the choice
    with its measurements."""
    blocks = tuple(load_choice()["chosen"])
    run = TrainingRun("pocket", seed=seed, prompts=prompts, passes=PASSES, blocks=blocks)
    pipe = run.load_pipeline(device)
    run = replace(run, ks=KS, expansion_factors=EXPANSION_FACTORS)
    vectors, truths = _look(pipe, blocks, seed)
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for config, sae in run.train(Path(folder), pipe).items():
            quality = _measure(config, sae, vectors[config.block], truths[grid_of(pipe, config.block)])
            measured.append(
                {"block": config.block, "d_model": config.d_model, "k": config.k, "n_f": config.n_f, **quality}
            )
            print(measured[-1], flush=True)
    record = {
        "command": f"python -m notebooks.experiments.pocket.train sizes --steps {prompts} --seed {seed}",
        "rule": {"explained_variance": WANTED_VARIANCE, "pictures": PICTURES, "passes": PASSES},
        "chosen": {
            str(width): best_setting([row for row in measured if row["d_model"] == width])
            for width in sorted({width_of(pipe, block) for block in blocks})
        },
        "measured": measured,
    }
    store(SIZES_FILE, record)


def best_setting(measured: Sequence[Mapping]) -> dict[str, int]:
    """The k and n_f that the rule takes for one width.

    Raises ValueError if no setting explains enough in every block.
    """
    by_setting: dict[tuple[int, int], list[Mapping]] = {}
    for row in measured:
        by_setting.setdefault((row["k"], row["n_f"]), []).append(row)
    enough = {
        setting: rows
        for setting, rows in by_setting.items()
        if min(row["explained_variance"] for row in rows) >= WANTED_VARIANCE
    }
    if not enough:
        raise ValueError(
            f"no setting explains {WANTED_VARIANCE:.0%} of every block's updates: train longer, or offer larger ones"
        )
    k, n_f = max(
        enough,
        key=lambda setting: sum(row["reading"] - row["random"] for row in enough[setting]) / len(enough[setting]),
    )
    return {"k": k, "n_f": n_f}


@torch.no_grad()
def _look(
    pipe: StableDiffusionXLPipeline, blocks: Sequence[str], seed: int
) -> tuple[dict[str, Float[Tensor, "pictures cells d_model"]], dict[int, Truth]]:
    """By block the updates, and by grid the judge's truth, of pictures that are used for nothing else."""
    texts = [caption.text for caption in load_pocket_captions(_FIRST_PICTURE + PICTURES)[_FIRST_PICTURE:]]
    settings, judge = CallSettings(1, 0.0, seed + 2_000, batch_size=BATCH), weights.load("judge").to(pipe.device)
    vectors, pictures = {block: [] for block in blocks}, []
    for start in range(0, PICTURES, BATCH):
        rows = range(start, start + BATCH)
        with capture_updates(pipe, blocks) as updates:
            pictures.append(draw_pictures(pipe, [texts[i] for i in rows], settings, rows))
        for block in blocks:
            vectors[block].append(to_vectors(updates[block][0]).unflatten(0, (BATCH, -1)))
    seen = torch.cat(pictures)
    grids = {grid_of(pipe, block) for block in blocks}
    return {block: torch.cat(parts) for block, parts in vectors.items()}, {
        side: judge_truth(judge, seen, side) for side in grids
    }


def _measure(
    config: SAEConfig, sae: TopKSAE, vectors: Float[Tensor, "pictures cells d_model"], truth: Truth
) -> dict[str, float]:
    codes = sae.encode(vectors)
    x, x_hat = vectors.flatten(0, 1), sae.decode(codes).flatten(0, 1)
    generator = torch.Generator().manual_seed(config.seed)
    directions = F.normalize(torch.randn(config.n_f, config.d_model, generator=generator), dim=1).to(vectors)
    kept = keep_top(((vectors - sae.pre_bias) @ directions.T).relu(), config.k)
    return {
        "explained_variance": round(float(explained_variance(x, x_hat)), 4),
        "reading": _reading(codes, truth),
        "random": _reading(kept, truth),
    }


def _reading(activations: Float[Tensor, "pictures cells units"], truth: Truth) -> float:
    """Mean over values: the score, in one half of the pictures, of the unit that reads the value best in the other."""
    halves = torch.arange(len(activations)).chunk(2)
    matched, scored = (reading_scores(activations[half].cpu(), truth.take(half)) for half in halves)
    return round(scored.gather(0, matched.argmax(0)[None]).mean().item(), 4)
