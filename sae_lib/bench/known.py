"""Pictures in which everything is known: a block's updates while they were drawn, and what the judge sees in them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import capture_updates, to_vectors
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached_tensors
from sae_lib.features.reading import LATER, NOISE_SEED, PICTURES
from sae_lib.judges.attributes import Truth, judge_and_truth, values_in


class KnownPictures(NamedTuple):
    """Held-out captions drawn once, for any number of SAEs."""

    prompts: list[str]
    first: int
    """Number of the first caption among the held-out ones, and of its noise."""
    updates: Float[Tensor, "steps pictures cells d_model"]
    """Of one block, as 16-bit floats."""
    pictures: Tensor
    """`[pictures, 3, height, width]` in 8 bits."""
    shows: Float[Tensor, "pictures values"]
    truth: Truth
    """Of each cell of the block's grid, by the judge."""


def draw_known(assets: Assets, block: str, model: str = "", later: bool = False) -> KnownPictures:
    """The pictures that a `Reading` reads (later: those in which features write), with their updates; cached.

    model: one of the assets' `models`, by default the first; its updates are those of all steps, the truth is that of
    the final picture. Raises ValueError at sdxl scale, where nothing knows what is true.
    """
    if not assets.known or assets.rehearsal:
        raise ValueError(f"PocketBench needs known truth: the scale is {assets.scale!r}, wanted 'pocket' or 'smoke'")
    model, plain = model or assets.one_step, assets.with_blocks([block])
    first = PICTURES[plain.scale] if later else 0
    prompts = plain.prompts(first + (LATER if later else PICTURES)[plain.scale])[first:]
    name, call = plain.call(model, NOISE_SEED)

    def make() -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, len(prompts), call.batch_size):
            asked = prompts[start : start + call.batch_size]
            batch = draw_batch(plain, name, call, asked, range(first + start, first + start + len(asked)))
            batch |= {"updates": batch["updates"].half(), "pictures": (batch["pictures"] * 255).round().to(torch.uint8)}
            for part, tensor in batch.items():
                parts.setdefault(part, []).append(tensor.cpu())
        return {part: torch.cat(batches).contiguous() for part, batches in parts.items()}

    inputs = plain.identity | {"block": block, "model": model, "prompts": prompts, "first": first}
    tensors = cached_tensors("known_pictures", inputs, make)[1]
    truth = Truth(tensors["present"].bool(), tensors["valid"].bool())
    updates = tensors["updates"].transpose(0, 1)
    return KnownPictures(prompts, first, updates, tensors["pictures"], tensors["shows"], truth)


@torch.no_grad()
def draw_batch(
    assets: Assets, name: str, call: CallSettings, prompts: Sequence[str], rows: Sequence[int]
) -> dict[str, Tensor]:
    """Draws prompts with the noise of some numbers by the pipeline `name`: the pictures, what the judge `shows` in them
    and says of their cells (`present` and `valid`), and the `updates` `[pictures, steps, cells, d_model]` of the
    assets' only block."""
    (block,), pipe = assets.blocks, assets.pipe(name)
    with capture_updates(pipe, [block]) as updates:
        drawn = draw_pictures(pipe, prompts, call, rows)
    grid = assets.grid(block, name)
    judged, truths = judge_and_truth(assets.judge, drawn, [grid])
    vectors = to_vectors(updates[block]).unflatten(0, (call.steps, len(prompts), -1)).transpose(0, 1)
    batch = {"updates": vectors, "pictures": drawn, "shows": values_in(judged)}
    return batch | {"present": truths[grid].present, "valid": truths[grid].valid}
