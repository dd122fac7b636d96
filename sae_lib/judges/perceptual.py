"""How different two pictures look: LPIPS's formula, on the autoencoder's encoder, or LPIPS itself at sdxl scale."""

from collections.abc import Callable
from pickle import UnpicklingError

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils.torch_utils import get_module_execution_device
from jaxtyping import Float
from torch import Tensor, nn

from sae_lib.cache.reading import reason_of

Pictures = Float[Tensor, "pictures 3 height width"]
Distances = Callable[[Tensor], Float[Tensor, "references pictures"]]

_AT_ONCE = 16
"""Pictures per batch; the distance does not depend on it."""


def load_perceptual(scale: str, pipe: StableDiffusionXLPipeline, rehearsal: bool = False) -> "LPIPS | EncoderDistance":
    """The perceptual distance of a scale: one number per pair of pictures with values in [0, 1]; equal ones have 0.

    At sdxl scale it is AlexNet LPIPS, as the authors use it (torchmetrics; wants the extra `.[sdxl]`). At pocket and
    smoke scale and in a rehearsal it is the same formula on the layers of the pipeline's own VAE encoder, all of equal
    weight. Values of the two are not comparable.

    Raises at sdxl scale ModuleNotFoundError if the extra is not installed, ConnectionError if AlexNet's weights are
    not in torchvision's cache and cannot be fetched, ValueError if they are damaged; ValueError from the distance for
    pictures of different shapes.
    """
    if scale != "sdxl" or rehearsal:
        return EncoderDistance(pipe.vae)
    try:
        import torchvision  # noqa: F401  torchmetrics notices that it is missing later, and says less
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("LPIPS at sdxl scale wants the extra packages: pip install '.[sdxl]'") from error
    try:
        net = LearnedPerceptualImagePatchSimilarity("alex").net
    except OSError as error:
        raise ConnectionError(f"LPIPS wants AlexNet's weights: connect to the internet once. {error}") from error
    except (RuntimeError, EOFError, UnpicklingError) as error:  # what torch says of a file cut short
        where = f"the weights of AlexNet in {torch.hub.get_dir()}"
        raise ValueError(f"{where} are damaged ({reason_of(error)}): delete them, they are fetched again") from error
    return LPIPS(net.to(pipe._execution_device))


class LPIPS:
    """LPIPS of Zhang et al. (2018), by the network that torchmetrics loads."""

    def __init__(self, net: nn.Module):
        self._net = net

    @torch.inference_mode()
    def __call__(self, a: Pictures, b: Float[Tensor, "..."]) -> Float[Tensor, " pictures"]:
        _refuse_other_shape(a, b)
        device = next(self._net.parameters()).device
        pairs = zip(a.to(device).split(_AT_ONCE), b.to(device).split(_AT_ONCE), strict=True)
        return torch.cat([self._net(x, y, normalize=True).flatten() for x, y in pairs]).cpu()

    def against(self, *references: Pictures) -> Distances:
        """As `EncoderDistance.against`; nothing is kept but the pictures."""
        return lambda pictures: torch.stack([self(reference, pictures) for reference in references])


class EncoderDistance:
    """LPIPS's formula on a VAE's encoder.

        sum over the encoder's stages of the mean over positions of |u(a) - u(b)|^2

    where u is a stage's output, scaled to unit length over its channels.
    """

    def __init__(self, vae: nn.Module):
        self._vae = vae

    def __call__(self, a: Pictures, b: Float[Tensor, "..."]) -> Float[Tensor, " pictures"]:
        return self.against(a)(b)[0]

    @torch.inference_mode()
    def against(self, *references: Pictures) -> Distances:
        """The distances of other pictures to these, `[references, pictures]`: the references are encoded once."""
        kept = [self._units(reference) for reference in references]

        @torch.inference_mode()
        def distances(pictures: Pictures) -> Float[Tensor, "references pictures"]:
            for reference in references:
                _refuse_other_shape(reference, pictures)
            units = self._units(pictures)
            return torch.stack([_sum_of_squares(reference, units) for reference in kept])

        return distances

    def _units(self, pictures: Pictures) -> list[list[Tensor]]:
        """u of each stage, for some pictures at a time."""
        stages: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _module, _args, output: stages.append(output))
            for block in self._vae.encoder.down_blocks
        ]
        try:
            parts = []
            for part in pictures.split(_AT_ONCE):
                self._vae.encode((part * 2 - 1).to(get_module_execution_device(self._vae), self._vae.dtype))
                parts.append([nn.functional.normalize(stage.float(), dim=1) for stage in stages])
                stages.clear()
            return parts
        finally:
            for hook in hooks:
                hook.remove()


def _sum_of_squares(a: list[list[Tensor]], b: list[list[Tensor]]) -> Float[Tensor, " pictures"]:
    parts = [
        sum((u - v).square().sum(1).mean((-2, -1)) for u, v in zip(*stages, strict=True))
        for stages in zip(a, b, strict=True)
    ]
    return torch.cat(parts).cpu()


def _refuse_other_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"pictures of {list(a.shape)} and {list(b.shape)}: wanted two of the same shape")
