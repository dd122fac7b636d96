"""CLIP: how well pictures and texts go together, on a scale of cosines.

At sdxl scale it is the authors' CLIP, at the other scales a small one of our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from sae_lib.cache.complete import find_folder, load_complete
from sae_lib.models.blocks import as_list
from sae_lib.models.scales import get_scale

RETRIEVAL, SCORES = "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"
"""The authors' CLIPs on the Hub: of their search over features [code], and of RIEBench's scores [riebench]."""

_AT_ONCE = 64


@dataclass(frozen=True)
class Clip:
    """Embeddings of pictures and of texts; their dot products are the cosines that CLIP scores are made of."""

    model: CLIPModel
    tokenizer: CLIPTokenizer
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Subtracted from each colour channel; by default OpenAI's numbers."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @torch.inference_mode()
    def embed_images(self, pictures: Float[Tensor, "..."]) -> Float[Tensor, "pictures dimensions"]:
        """Unit vectors of pictures with values in [0, 1], on the CPU; does not depend on the batch.

        Pictures are brought to the model's size (bicubic, shorter side, centre) and to its mean and deviation.
        Raises ValueError for another shape.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(f"CLIP wants pictures [pictures, 3, height, width], got {list(pictures.shape)}")
        parts = [self._embed(part) for part in pictures.split(_AT_ONCE)]
        return torch.cat(parts)

    @torch.inference_mode()
    def embed_texts(self, texts: str | Sequence[str]) -> Float[Tensor, "texts dimensions"]:
        """Unit vectors of texts, cut to the model's longest. Raises ValueError if there are none."""
        if not texts:
            raise ValueError("no texts: wanted at least one")
        length = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer(
            as_list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return F.normalize(self.model.get_text_features(**words.to(self.model.device)).pooler_output, dim=-1).cpu()

    def _embed(self, pictures: Tensor) -> Tensor:
        size = self.model.config.vision_config.image_size
        x = pictures.to(self.model.device, torch.float32)
        if min(x.shape[-2:]) != size:
            x = F.interpolate(
                x, scale_factor=size / min(x.shape[-2:]), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
        top, left = ((side - size) // 2 for side in x.shape[-2:])
        x = x[..., top : top + size, left : left + size]
        mean, std = (x.new_tensor(numbers).view(3, 1, 1) for numbers in (self.mean, self.std))
        embedded = self.model.get_image_features(pixel_values=(x - mean) / std)
        return F.normalize(embedded.pooler_output, dim=-1).cpu()


def load_clip(scale: str = "pocket", source: str = "", device: str | torch.device = "cpu") -> Clip:
    """The CLIP of a scale.

    At pocket and smoke scale, and in a rehearsal, it is ours, trained only on rendered scenes and their captions, so
    that it knows nothing of the diffusion models. At sdxl scale it is `source`, a folder or a name on the Hub, by
    default the CLIP of the authors' search.

    Raises ValueError for an unknown scale and for an incomplete model (`load_complete`), FileNotFoundError if there is
    no such folder, ConnectionError if the model is not on this machine and cannot be fetched.
    """
    get_scale(scale)
    if scale != "sdxl" or source == "pocket":
        from sae_lib.pocket import weights

        return Clip(weights.load("clip").to(device), weights.load("tokenizer"), (0.5,) * 3, (0.5,) * 3)
    name = str((find_folder(source) if source else None) or source or RETRIEVAL)
    try:
        return Clip(load_complete(CLIPModel, name).to(device), load_complete(CLIPTokenizer, name))
    except OSError as error:
        raise ConnectionError(
            f"CLIP {name!r} is not on this machine and cannot be fetched: "
            f"download it from the Hub, or give its folder. {error}"
        ) from error
