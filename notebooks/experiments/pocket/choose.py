"""Choose the blocks whose updates are decomposed (stages `blocks`, `flux_blocks`), by what they do in *this* model.

The paper chose its blocks by ablation. This rule is ours and was fixed before it was first applied to these weights
(2026-11-26). The same rule chooses among FLUX's blocks. Blocks are ordered greedily on pairs of training captions: the
next block is the one that raises most the share of the caption's effect that the set carries when all its blocks read
the other caption's tokens, on average over families of statements. The choice is the shortest prefix of at most `MOST`
blocks that carries `WANTED_MEAN` on average and `WANTED_LEAST` of every family.
"""

from collections.abc import Callable, Sequence

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.denoising import CallSettings
from sae_lib.features.injection import draw_injected, encode_tokens, readers_of, share_carried
from sae_lib.models.blocks import ATTENTION_BLOCKS
from sae_lib.models.pipelines import load_pipeline
from sae_lib.models.prompts import load_pocket_captions
from sae_lib.pocket import weights
from sae_lib.pocket.captions import Caption
from sae_lib.pocket.chosen import BLOCKS_FILES, MOST, WANTED_LEAST, WANTED_MEAN, hash_of_model, store
from sae_lib.pocket.judge import Judge
from sae_lib.pocket.statements import FAMILIES, count_statements

ShareOf = Callable[[Sequence[str]], Float[Tensor, " families"]]


def order_blocks(
    share_of: ShareOf, blocks: Sequence[str] = ATTENTION_BLOCKS
) -> list[tuple[str, Float[Tensor, " families"]]]:
    """The blocks in greedy order: next is the block that raises the mean share most. With each comes the share that the
    set then carries."""
    path: list[tuple[str, Tensor]] = []
    while left := [block for block in blocks if block not in dict(path)]:
        shares = {block: share_of([*dict(path), block]) for block in left}
        best = max(left, key=lambda block: shares[block].mean().item())
        path.append((best, shares[best]))
    return path


def prefix_of(path: Sequence[tuple[str, Float[Tensor, " families"]]]) -> list[str]:
    """The shortest prefix that carries enough; the first `MOST` blocks if none does."""
    enough = [at for at, (_, share) in enumerate(path) if share.mean() >= WANTED_MEAN and share.min() >= WANTED_LEAST]
    return [block for block, _ in path[: min([at + 1 for at in enough] + [MOST])]]


def shares_on(pipe: DiffusionPipeline, judge: Judge, captions: Sequence[Caption], settings: CallSettings) -> ShareOf:
    """A function that says, by family, what a set of blocks carries of these captions when it reads
    the next one's tokens."""
    others = [*captions[1:], captions[0]]
    texts, tokens = [caption.text for caption in captions], encode_tokens(pipe, [caption.text for caption in others])

    def read(blocks: Sequence[str]) -> Tensor:
        counts = count_statements(judge, draw_injected(pipe, texts, blocks, tokens, settings), others).sum(0)
        return counts[:, 0] / counts[:, 1]

    floor, ceiling = read([]), read(readers_of(pipe))
    return lambda blocks: share_carried(read(blocks), floor, ceiling)


def choose_blocks(pairs: int, seed: int, device: str) -> None:
    """Order the blocks of the shipped Turbo on pairs of training captions, and store the order with its inputs."""
    _choose("sdxl", "blocks", "unet", load_pipeline("turbo", device=device), pairs, seed)


def choose_flux_blocks(pairs: int, seed: int, device: str) -> None:
    """Order the blocks of the shipped FLUX in the same way."""
    _choose("flux", "flux_blocks", "transformer", load_pipeline("flux", device=device), pairs, seed)


def _choose(architecture: str, stage: str, part: str, pipe: DiffusionPipeline, pairs: int, seed: int) -> None:
    judge = weights.load("judge").to(pipe._execution_device)
    measure = shares_on(pipe, judge, load_pocket_captions(pairs), CallSettings(1, 0.0, seed, batch_size=16))

    def share_of(blocks: Sequence[str]) -> Tensor:
        share = measure(blocks)
        print(f"{share.mean():.3f} {' '.join(blocks)}", flush=True)
        return share

    path = order_blocks(share_of, readers_of(pipe))
    record = {
        "command": f"python -m notebooks.experiments.pocket.train {stage} --steps {pairs} --seed {seed}",
        part: hash_of_model(architecture),
        "rule": {"mean": WANTED_MEAN, "least": WANTED_LEAST, "most": MOST},
        "pairs": pairs,
        "chosen": prefix_of(path),
        "path": [{"block": block, "share": dict(zip(FAMILIES, share.tolist(), strict=True))} for block, share in path],
    }
    store(BLOCKS_FILES[architecture], record)
