"""Where a picture changes when a feature acts in a part of it, and how much when it acts during some steps only."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lib.activations.drawing import draw_pictures
from sae_lib.features.feature import FeatureId
from sae_lib.features.interventions import intervene, modulate
from sae_lib.features.reading import NOISE_SEED, Reading
from sae_lib.features.writing import Target, Trials, amount_of, places_to_write, write
from sae_lib.saes.controls import untrained

AREAS = ("own area", "next picture's area")
"""Where a change is measured. The second area is a control: what one would see if changes were merely
where objects usually are."""

MEASURES = ("share", "difference")
"""share: the share of the whole change that is inside the area, minus the area's share of the picture. difference: the
mean change of a pixel inside, minus that outside, summed over its three colours (0 to 765)."""


def inside_and_outside(
    before: Float[Tensor, "pictures 3 height width"],
    after: Float[Tensor, "pictures 3 height width"],
    areas: Float[Tensor, "pictures rows columns"] | Bool[Tensor, "pictures rows columns"],
) -> Float[Tensor, "pictures areas measures"]:
    """MEASURES of each picture in each of AREAS; 0 in all for a picture that did not change."""
    change, measures = (before - after).abs().sum(1) * 255, []
    for masks in (areas, areas.roll(1, 0)):
        inside = F.interpolate(masks[:, None].float(), change.shape[-2:])[:, 0]
        means = [(change * part).sum((-2, -1)) / part.sum((-2, -1)).clamp(min=1) for part in (inside, 1 - inside)]
        total = change.sum((-2, -1))
        share = (change * inside).sum((-2, -1)) / total.clamp(min=1e-9) - inside.mean((-2, -1)) * (total > 0)
        measures.append(torch.stack([share, means[0] - means[1]], 1))
    return torch.stack(measures, 1)


def most_active(
    maps: Float[Tensor, "pictures cells n_f"],
) -> tuple[Int[Tensor, " pictures"], Bool[Tensor, "pictures side side"]]:
    """Per picture, the feature with the highest mean activation and its active area, where its map is
    above half of its maximum.

    Features whose active area covers more than half of the grid are left out.
    """
    areas = maps > 0.5 * maps.amax(1, keepdim=True)
    features = maps.mean(1).where(areas.float().mean(1) <= 0.5, -1).argmax(1)
    side = round(maps.shape[1] ** 0.5)
    return features, areas[torch.arange(len(maps)), :, features].unflatten(1, (side, side))


def quadrants(side: int, count: int) -> Float[Tensor, "count side side"]:
    """Masks with one quadrant of the grid, the next quadrant from picture to picture."""
    half = (torch.arange(side) < side // 2).float().expand(side, side)
    four = [half * half.T, half * (1 - half.T), (1 - half) * half.T, (1 - half) * (1 - half.T)]
    return torch.stack(four)[torch.arange(count) % 4]


def measure_modulation(
    later: Reading, block: str, rows: Sequence[int], betas: Sequence[float]
) -> tuple[Int[Tensor, " pictures"], Float[Tensor, "pictures betas areas measures"]]:
    """Each picture's `most_active` feature of a block, and where the picture changes when it is modulated.

    In one step of Turbo, see `interventions.modulate`.
    """
    features, areas = most_active(later.activations(block, list(rows)))
    name, call = later.assets.call(later.assets.one_step, NOISE_SEED, len(rows))
    pipe, before, changes = later.assets.pipe(name), later.unedited(later.assets.one_step, rows), []
    for beta in betas:
        with intervene(pipe, {block: modulate(later.assets.saes()[block], features, beta)}):
            after = draw_pictures(pipe, [later.prompts[row] for row in rows], call, later.noise(rows))
        changes.append(inside_and_outside(before, after, areas))
    return features, torch.stack(changes, 1)


def measure_painting(
    later: Reading,
    target: Target,
    rows: Sequence[int],
    strengths: Sequence[float | Mapping[str, float]],
) -> Float[Tensor, "pictures strengths areas measures"]:
    """Where pictures change when a feature is turned on in one of `quadrants`, in one step of Turbo."""
    masks = quadrants(later.assets.grid(target.id.block), len(rows))
    asked = [later.prompts[row] for row in rows], later.noise(rows)
    before = later.unedited(later.assets.one_step, rows)
    changes = []
    for strength in strengths:
        amounts = [amount_of(later.assets, target.id, strength)] * len(rows)
        after = write(later.assets, later.assets.one_step, *asked, [target.id] * len(rows), amounts, list(masks))
        changes.append(inside_and_outside(before, after, masks))
    return torch.stack(changes, 1)


def measure_timing(
    later: Reading,
    trials: Trials,
    spans: Sequence[tuple[int, int]],
    strength: float | Mapping[str, float] = 10.0,
    model: str = "",
    seed: int = 0,
) -> tuple[Float[Tensor, "trials spans 2"], Float[Tensor, "1"]]:
    """How far each trial's feature, and a random direction, move its picture when they are on during some steps only.

    model: one of the assets' `models`, by default the one of four steps. The direction has the feature's norm and
    place. The second result is how far rounding to 8 bits moves a picture: no eye sees a smaller change. All are
    amplitudes, square roots of the perceptual distance, which is a squared one.
    """
    model = model or later.assets.models[1]
    assets, rows, ids = later.assets, trials.rows.tolist(), [target.id for target in trials.chosen]
    control = {block: untrained(sae, seed + i) for i, (block, sae) in enumerate(assets.saes().items())}
    numbers = torch.randint(2**30, (len(ids),), generator=torch.Generator().manual_seed(seed)).tolist()
    random = [FeatureId(b, number % control[b].n_f) for (b, _), number in zip(ids, numbers, strict=True)]
    asked = [later.prompts[row] for row in rows], later.noise(rows)
    rest = [amount_of(assets, feature, strength) for feature in ids], places_to_write(later, trials, model)
    unedited = later.unedited(model, rows)
    far = assets.distance.against(unedited)
    moved = [
        far(write(assets, model, *asked, features, *rest, span=span, saes=saes))[0]
        for span in spans
        for features, saes in ((ids, None), (random, control))
    ]
    rounded = far((unedited * 255).round() / 255)[0].mean().sqrt()[None]
    return torch.stack(moved, 1).sqrt().unflatten(1, (-1, 2)), rounded
