"""The features of one prompt (authors' example notebook): the most active ones, their maps, what scaling them does, and
what they draw alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import capture_updates
from sae_lib.assets import Assets
from sae_lib.companion.pictures import lay_over, show_picture
from sae_lib.companion.style import BLOCK_COLORS, TEXT_WIDTH
from sae_lib.features.feature import FeatureId, activation_maps
from sae_lib.features.reading import NOISE_SEED
from sae_lib.features.writing import amount_of, draw_icons, write

SLOTH = "A cinematic shot of a professor sloth wearing a tuxedo at a BBQ party."
"""The prompt of the authors' example, in which they study block down.2.1."""

PRINTED = (1674, 4608, 4539, 2881, 4751, 567, 1226, 3119, 2345, 2128)
"""The features that the authors' notebook prints for SLOTH with noise 42, the most active first [code]."""


class CaseStudy(NamedTuple):
    """A picture of one step of Turbo, and features of one block in it."""

    prompt: str
    noise: int
    """Number of the picture's noise; at sdxl scale the seed of the authors' CPU generator."""
    picture: Float[Tensor, "3 height width"]
    ids: list[FeatureId]
    maps: Float[Tensor, "features side side"]
    """Activation maps (paper: S^rho)."""


def noise_seed(assets: Assets) -> int:
    """The seed of the noise: at sdxl scale the authors', elsewhere one that no SAE was trained on."""
    return 0 if assets.scale == "sdxl" else NOISE_SEED


def refuse_block(assets: Assets, block: str) -> None:
    """Raises ValueError for a block that is not among the assets' blocks."""
    if block not in assets.blocks:
        raise ValueError(f"{block!r} is none of this run's blocks; choose from {', '.join(assets.blocks)}")


@torch.no_grad()
def study_prompt(
    assets: Assets, block: str, prompt: str, noise: int = 42, count: int = 10, features: Sequence[int] = ()
) -> CaseStudy:
    """The `count` features of a block with the highest mean activation over positions (authors' rule).

    features: these instead. Raises ValueError for a block that is not among the assets' blocks, for a number that no
    feature of its SAE has, and if no feature is active.
    """
    refuse_block(assets, block)
    sae, (_, call) = assets.saes()[block], assets.call(assets.one_step, noise_seed(assets))
    if not all(0 <= feature < sae.n_f for feature in features):
        raise ValueError(f"features {list(features)} of an SAE with {sae.n_f}: wanted 0 to {sae.n_f - 1}")
    with capture_updates(assets.pipe(), [block]) as updates:
        picture = draw_pictures(assets.pipe(), [prompt], call, [noise])[0]
    maps = activation_maps(sae, updates[block][0], torch.arange(sae.n_f))[0].cpu()
    means = maps.mean((1, 2))
    most_active = means.topk(min(count, sae.n_f)).indices.tolist()
    chosen = list(features) or [feature for feature in most_active if means[feature] > 0]
    if not chosen:
        raise ValueError(f"no feature of {block} is active in the picture of {prompt!r}")
    return CaseStudy(prompt, noise, picture, [FeatureId(block, feature) for feature in chosen], maps[chosen])


def draw_modulated(
    assets: Assets, study: CaseStudy, betas: Sequence[float], features: Sequence[FeatureId] = ()
) -> Float[Tensor, "features betas 3 height width"]:
    """The picture with beta S_rho f_rho added to the block's output (paper: the causal experiment).

    S_rho is the study's map. features: a control, which is added in place of the study's features, where and as
    strongly as these are active.
    """
    ids, pairs = list(features) or study.ids, [(i, beta) for i in range(len(study.ids)) for beta in betas]
    asked = [study.prompt] * len(pairs), [study.noise] * len(pairs), [ids[i] for i, _ in pairs]
    amounts, masks = [beta for _, beta in pairs], [study.maps[i] for i, _ in pairs]
    drawn = write(assets, assets.one_step, *asked, amounts, masks, seed=noise_seed(assets))
    return drawn.unflatten(0, (-1, len(betas)))


def draw_alone(
    assets: Assets, study: CaseStudy, gammas: Sequence[float]
) -> Float[Tensor, "features gammas 3 height width"]:
    """The features' icons: with an empty prompt, the block gives out its input and gamma k mu_rho f_rho, nothing else.

    Raises ValueError for a feature that never fired while its statistics were taken.
    """
    k = assets.saes()[study.ids[0].block].k
    amounts = [amount_of(assets, feature, gamma * k) for feature in study.ids for gamma in gammas]
    ids = [feature for feature in study.ids for _ in gammas]
    return draw_icons(assets, ids, amounts, seed=noise_seed(assets), noise=study.noise).unflatten(0, (-1, len(gammas)))


def show_maps(study: CaseStudy, labels: Mapping[FeatureId, str]) -> Figure:
    """The picture under each feature's activation map, three per row, titled "Feature N" (authors' first figure).

    labels: the second lines of the titles. Differs from the authors' figure, whose maps are jet and
    equally opaque everywhere.
    """
    rows = -(-len(study.ids) // 3)
    fig, axes = plt.subplots(rows, 3, figsize=(TEXT_WIDTH, 2.05 * rows), squeeze=False)
    for ax, feature, activation_map in zip(axes.flat, study.ids, study.maps, strict=False):
        show_picture(ax, lay_over(study.picture, activation_map))
        ax.set_title("\n".join(filter(None, (f"Feature {feature.feature}", labels.get(feature, "")))), fontsize=9)
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
    """`show_grid` with rows named by feature and label, columns by "Strength x" (authors' other figures)."""
    names = ["\n".join(filter(None, (str(feature.feature), labels.get(feature, "")))) for feature in study.ids]
    color = BLOCK_COLORS[study.ids[0].block]
    return show_grid(pictures, names, [f"Strength {amount:g}" for amount in amounts], color)
