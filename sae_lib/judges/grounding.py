"""Masks of what a phrase names in a photograph: boxes by GroundingDINO, outlines by SAM 2.1 (RIEBench, paper: 4.2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Sam2Config,
    Sam2Model,
    SwinConfig,
)

from sae_lib.cache.complete import load_complete

DINO, SAM = "IDEA-Research/grounding-dino-tiny", "facebook/sam2.1-hiera-large"
"""On the Hub: GroundingDINO SwinT-OGC, SAM 2.1 hiera-large."""

BOX_THRESHOLD = 0.25
"""The value that the authors' code uses."""

_SIDES = {"dino": 800, "sam": 1024}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's numbers, which both models use."""


def _prepare(picture: Float[Tensor, "3 height width"], side: int) -> Float[Tensor, "1 3 side side"]:
    """Resizes and standardises as both models want it, without torchvision, which their own processors need."""
    resized = F.interpolate(picture[None].float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (resized.new_tensor(numbers).view(3, 1, 1) for numbers in (_MEAN, _STD))
    return (resized - mean) / std


@dataclass(frozen=True)
class GroundedSAM:
    """A `Finder` of photographs."""

    dino: GroundingDinoForObjectDetection
    tokenizer: BertTokenizer
    sam: Sam2Model
    threshold: float = BOX_THRESHOLD
    sides: tuple[int, int] = (_SIDES["dino"], _SIDES["sam"])
    """Pixels that the two models see."""

    @torch.inference_mode()
    def __call__(self, picture: Float[Tensor, "3 height width"], noun: str) -> Bool[Tensor, "instances height width"]:
        """The outline in each box above the threshold. Pictures must be square, as SDXL draws them."""
        picture = picture.to(self.dino.device)
        boxes = self.boxes(picture, noun)
        if len(boxes) == 0:
            return torch.zeros(0, *picture.shape[-2:], dtype=torch.bool)
        side = self.sides[1]
        asked = {"input_boxes": side * boxes[None], "multimask_output": False}
        outlined = self.sam(pixel_values=_prepare(picture, side), **asked)
        masks = outlined.pred_masks.reshape(1, len(boxes), *outlined.pred_masks.shape[-2:])
        return F.interpolate(masks.float(), picture.shape[-2:], mode="bilinear", align_corners=False)[0].cpu() > 0

    def boxes(self, picture: Float[Tensor, "3 height width"], noun: str) -> Float[Tensor, "boxes 4"]:
        """The boxes whose best word scores above the threshold: left, top, right, bottom as shares of the picture."""
        words = self.tokenizer(noun.lower().rstrip(". ") + ".", return_tensors="pt").to(picture.device)
        detected = self.dino(pixel_values=_prepare(picture, self.sides[0]), **words)
        score = detected.logits[0].sigmoid().amax(-1)
        middle, size = detected.pred_boxes[0][score > self.threshold].float().split(2, 1)
        return torch.cat([middle - size / 2, middle + size / 2], 1).clamp(0, 1)


def load_grounded_sam(rehearsal: bool = False, device: str | torch.device = "cpu") -> GroundedSAM:
    """Both models, from this machine or the Hub; in a rehearsal tiny ones of random weights, which box everything.

    Raises ValueError for an incomplete model (`load_complete`), ConnectionError if one is not on this machine and
    cannot be fetched.
    """
    if rehearsal:
        return _random_grounded_sam(device)
    try:
        dino, sam = load_complete(GroundingDinoForObjectDetection, DINO), load_complete(Sam2Model, SAM)
        return GroundedSAM(dino.to(device), load_complete(BertTokenizer, DINO), sam.to(device))
    except OSError as error:
        raise ConnectionError(
            f"{DINO} and {SAM} find the masks and are not on this machine: download them from the Hub. {error}"
        ) from error


def _random_grounded_sam(device: str | torch.device) -> GroundedSAM:
    letters = [*"abcdefghijklmnopqrstuvwxyz."]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    swin = SwinConfig(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], out_indices=[2, 3, 4], image_size=64)
    bert = BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    narrow = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    narrow |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 4}
    backbone = {"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2], "hidden_size": 8}
    backbone |= {"blocks_per_stage": [1, 1, 1, 1], "image_size": [64, 64]}
    vision = {"backbone_config": {"model_type": "sam2_hiera_det_model", **backbone}, "fpn_hidden_size": 32}
    vision |= {"backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder |= {"iou_head_hidden_dim": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dino = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin, text_config=bert, **narrow))
        sam = Sam2Model(
            Sam2Config(
                vision_config=vision,
                prompt_encoder_config={"hidden_size": 32, "image_size": 64, "mask_input_channels": 4},
                mask_decoder_config=decoder,
            )
        )
    return GroundedSAM(dino.eval().to(device), tokenizer, sam.eval().to(device), 0.0, (128, 64))
