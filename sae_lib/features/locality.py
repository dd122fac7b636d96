"""Where a picture changes when a feature acts in a part of it: inside that part, or elsewhere."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lib.activations.drawing import draw_pictures
from sae_lib.assets import MODELS
from sae_lib.features.interventions import intervene, modulate
from sae_lib.features.reading import NOISE_SEED, Reading
from sae_lib.features.writing import Target, amount_of, write

AREAS = ("own area", "next picture's area")
"""Where the change is looked for: the second says what one would find if changes were where objects usually are."""

MEASURES = ("share", "difference")
"""The share of the whole change that is inside minus the area's share of the picture; and the mean change of a pixel
inside minus outside, the sum over its three colours of absolute differences (0 to 765)."""


def inside_and_outside(
    before: Float[Tensor, "pictures 3 height width"],
    after: Float[Tensor, "pictures 3 height width"],
    areas: Float[Tensor, "pictures rows columns"] | Bool[Tensor, "pictures rows columns"],
) -> Float[Tensor, "pictures areas measures"]:
    """MEASURES of each picture in its own area and in the next picture's; a picture that did
    not change has 0 in all."""
    change, found = (before - after).abs().sum(1) * 255, []
    for masks in (areas, areas.roll(1, 0)):
        inside = F.interpolate(masks[:, None].float(), change.shape[-2:])[:, 0]
        means = [(change * part).sum((-2, -1)) / part.sum((-2, -1)).clamp(min=1) for part in (inside, 1 - inside)]
        total = change.sum((-2, -1))
        share = (change * inside).sum((-2, -1)) / total.clamp(min=1e-9) - inside.mean((-2, -1)) * (total > 0)
        found.append(torch.stack([share, means[0] - means[1]], 1))
    return torch.stack(found, 1)


def most_active(
    maps: Float[Tensor, "pictures cells n_f"],
) -> tuple[Int[Tensor, " pictures"], Bool[Tensor, "pictures side side"]]:
    """Of each picture the feature of the highest mean activation whose active area covers at most half of
    the grid, and that area.

    Active is where a map is above half of its maximum.
    """
    areas = maps > 0.5 * maps.amax(1, keepdim=True)
    features = maps.mean(1).where(areas.float().mean(1) <= 0.5, -1).argmax(1)
    side = round(maps.shape[1] ** 0.5)
    return features, areas[torch.arange(len(maps)), :, features].unflatten(1, (side, side))


def quadrants(side: int, count: int) -> Float[Tensor, "count side side"]:
    """Ones in one quadrant of the grid, another one from picture to picture."""
    half = (torch.arange(side) < side // 2).float().expand(side, side)
    four = [half * half.T, half * (1 - half.T), (1 - half) * half.T, (1 - half) * (1 - half.T)]
    return torch.stack(four)[torch.arange(count) % 4]


def measure_modulation(
    later: Reading, block: str, rows: Sequence[int], betas: Sequence[float]
) -> tuple[Int[Tensor, " pictures"], Float[Tensor, "pictures betas areas measures"]]:
    """Each picture's `most_active` feature of a block, scaled by its own map in one step of Turbo: the features,
    and what changed where."""
    features, areas = most_active(later.activations(block, list(rows)))
    name, call = later.assets.call(MODELS[0], NOISE_SEED, len(rows))
    pipe, before, found = later.assets.pipe(name), later.unedited(MODELS[0], rows), []
    for beta in betas:
        with intervene(pipe, {block: modulate(later.assets.saes()[block], features, beta)}):
            after = draw_pictures(pipe, [later.prompts[row] for row in rows], call, later.noise(rows))
        found.append(inside_and_outside(before, after, areas))
    return features, torch.stack(found, 1)


def measure_painting(
    later: Reading,
    target: Target,
    rows: Sequence[int],
    strengths: Sequence[float | Mapping[str, float]],
) -> Float[Tensor, "pictures strengths areas measures"]:
    """A feature turned on in one of `quadrants` in one step of Turbo: what changed where."""
    masks = quadrants(later.assets.grid(target.id.block), len(rows))
    asked, before = ([later.prompts[row] for row in rows], later.noise(rows)), later.unedited(MODELS[0], rows)
    found = []
    for strength in strengths:
        amounts = [amount_of(later.assets, target.id, strength)] * len(rows)
        after = write(later.assets, MODELS[0], *asked, [target.id] * len(rows), amounts, list(masks))
        found.append(inside_and_outside(before, after, masks))
    return torch.stack(found, 1)
