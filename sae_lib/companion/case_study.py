"""One prompt's features (authors' example notebook): which are most active, where, what scaling them does, and
what each draws alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import capture_updates
from sae_lib.assets import MODELS, Assets
from sae_lib.companion.pictures import lay_over, show_picture
from sae_lib.companion.style import BLOCK_COLORS, TEXT_WIDTH
from sae_lib.features.feature import FeatureId, activation_maps
from sae_lib.features.reading import NOISE_SEED
from sae_lib.features.writing import amount_of, draw_icons, write

SLOTH = "A cinematic shot of a professor sloth wearing a tuxedo at a BBQ party."
"""The prompt of the authors' example; its block is down.2.1."""

PRINTED = (1674, 4608, 4539, 2881, 4751, 567, 1226, 3119, 2345, 2128)
"""The features that the authors' notebook prints for it, with noise 42, the most active first [code]."""


class CaseStudy(NamedTuple):
    """One picture of one step of Turbo, and features of one block in it."""

    prompt: str
    noise: int
    """Number of the picture's noise; at sdxl scale the seed of the authors' CPU generator."""
    picture: Float[Tensor, "3 height width"]
    ids: list[FeatureId]
    maps: Float[Tensor, "features side side"]
    """Activation maps (paper: S^rho)."""


def noise_seed(assets: Assets) -> int:
    """With which noise is drawn: at sdxl scale the authors', elsewhere one that no SAE was trained on."""
    return 0 if assets.scale == "sdxl" else NOISE_SEED


def refuse_block(assets: Assets, block: str) -> None:
    """Raises ValueError for a block that the assets have not."""
    if block not in assets.blocks:
        raise ValueError(f"{block!r} is none of this run's blocks; choose from {', '.join(assets.blocks)}")


@torch.no_grad()
def study_prompt(
    assets: Assets, block: str, prompt: str, noise: int = 42, count: int = 10, features: Sequence[int] = ()
) -> CaseStudy:
    """The `count` features of a block with the highest mean activation over positions (authors' rule), or
    those that are asked for.

    Raises ValueError for a block that the assets have not, for a feature that its SAE has not, and if none is active.
    """
    refuse_block(assets, block)
    sae, (_, call) = assets.saes()[block], assets.call(MODELS[0], noise_seed(assets))
    if not all(0 <= each < sae.n_f for each in features):
        raise ValueError(f"features {list(features)} of an SAE with {sae.n_f}: wanted 0 to {sae.n_f - 1}")
    with capture_updates(assets.pipe(), [block]) as updates:
        picture = draw_pictures(assets.pipe(), [prompt], call, [noise])[0]
    maps = activation_maps(sae, updates[block][0], torch.arange(sae.n_f))[0].cpu()
    means = maps.mean((1, 2))
    chosen = list(features) or [each for each in means.topk(min(count, sae.n_f)).indices.tolist() if means[each] > 0]
    if not chosen:
        raise ValueError(f"no feature of {block} is active in the picture of {prompt!r}")
    return CaseStudy(prompt, noise, picture, [FeatureId(block, each) for each in chosen], maps[chosen])


def draw_modulated(
    assets: Assets, study: CaseStudy, betas: Sequence[float], features: Sequence[FeatureId] = ()
) -> Float[Tensor, "features betas 3 height width"]:
    """The picture with beta S_rho f_rho added to the block's output, S_rho the study's map (paper:
    the causal experiment).

    features: others that are added in place of the study's own, where those are active and as strongly: a control.
    """
    ids, pairs = list(features) or study.ids, [(i, beta) for i in range(len(study.ids)) for beta in betas]
    asked = [study.prompt] * len(pairs), [study.noise] * len(pairs), [ids[i] for i, _ in pairs]
    amounts, masks = [beta for _, beta in pairs], [study.maps[i] for i, _ in pairs]
    drawn = write(assets, MODELS[0], *asked, amounts, masks, seed=noise_seed(assets))
    return drawn.unflatten(0, (-1, len(betas)))


def draw_alone(
    assets: Assets, study: CaseStudy, gammas: Sequence[float]
) -> Float[Tensor, "features gammas 3 height width"]:
    """The features' icons: with an empty prompt the block gives out its input and gamma k mu_rho f_rho, nothing else.

    Raises ValueError for a feature that never fired while its statistics were taken.
    """
    k = assets.saes()[study.ids[0].block].k
    amounts = [amount_of(assets, each, gamma * k) for each in study.ids for gamma in gammas]
    ids = [each for each in study.ids for _ in gammas]
    return draw_icons(assets, ids, amounts, seed=noise_seed(assets), noise=study.noise).unflatten(0, (-1, len(gammas)))


def show_maps(study: CaseStudy, labels: Mapping[FeatureId, str]) -> Figure:
    """The picture under each feature's activation map, three in a row, "Feature N" above (authors' first figure).

    labels: a second line of titles. Differs from the authors' figure, whose maps are jet and equally opaque everywhere.
    """
    rows = -(-len(study.ids) // 3)
    fig, axes = plt.subplots(rows, 3, figsize=(TEXT_WIDTH, 2.05 * rows), squeeze=False)
    for ax, each, activation_map in zip(axes.flat, study.ids, study.maps, strict=False):
        show_picture(ax, lay_over(study.picture, activation_map))
        ax.set_title("\n".join(filter(None, (f"Feature {each.feature}", labels.get(each, "")))), fontsize=9)
    for ax in axes.flat[len(study.ids) :]:
        ax.axis("off")
    return fig


def show_grid(
    pictures: Float[Tensor, "rows columns 3 height width"] | Sequence[Sequence[Tensor]],
    labels: Sequence[str],
    heads: Sequence[str],
    color: str = "black",
) -> Figure:
    """Pictures in rows and columns: a rotated label left of each row, a head above each column."""
    side = min(1.1, TEXT_WIDTH / len(heads))
    look = {"figsize": (side * len(heads) + 0.3, side * len(labels) + 0.25), "squeeze": False, "dpi": 100}
    fig, axes = plt.subplots(len(labels), len(heads), **look)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    for line, row, label in zip(axes, pictures, labels, strict=True):
        for ax, picture in zip(line, row, strict=True):
            show_picture(ax, picture)
        line[0].set_ylabel(label, fontsize=8, color=color)
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=8, pad=3)
    return fig


def show_features(
    pictures: Float[Tensor, "features columns 3 height width"],
    study: CaseStudy,
    labels: Mapping[FeatureId, str],
    amounts: Sequence[float],
) -> Figure:
    """`show_grid` with a feature's number and label beside each row, and "Strength x" above each column
    (authors' other figures)."""
    names = ["\n".join(filter(None, (str(each.feature), labels.get(each, "")))) for each in study.ids]
    color = BLOCK_COLORS[study.ids[0].block]
    return show_grid(pictures, names, [f"Strength {amount:g}" for amount in amounts], color)
