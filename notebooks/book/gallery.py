"""The gallery's pages: the features of a block as cards, from the drawn gallery."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from notebooks.book.drawing import TILES
from notebooks.book.search import Entry
from sae_lib.models.blocks import ATTENTION_BLOCKS


@dataclass(frozen=True)
class Block:
    """A block of the drawn gallery."""

    name: str
    """"down.2.1"."""
    cards: list[dict[str, Any]]
    """As `drawing.card` made them, the highest score first."""
    dead: int
    """Features without a card: never active in the catalogue's pictures, or in training."""

    @property
    def page(self) -> str:
        return f"gallery_{self.name}.html"


def read_gallery(folder: Path) -> list[Block]:
    """The blocks of a drawn gallery, in the order of the forward pass."""
    blocks = []
    for name in _in_order(folder):
        record = json.loads((folder / name / "features.json").read_text())
        cards = sorted(record["live"], key=lambda card: (-card["score"], card["number"]))
        blocks.append(Block(name, cards, record["n_f"] - len(cards)))
    return blocks


def _in_order(folder: Path) -> list[str]:
    """The blocks that were drawn, in the order of the forward pass."""
    return [block for block in ATTENTION_BLOCKS if (folder / block / "features.json").is_file()]


def copy_strips(folder: Path, book: Path) -> int:
    """Copy the drawn strips below `book`/gallery; returns the width and height of a tile in pixels."""
    for name in _in_order(folder):
        shutil.copytree(folder / name, book / "gallery" / name, ignore=shutil.ignore_patterns("*.json"))
    with Image.open(next(book.glob("gallery/*/*.webp"))) as strip:
        width, height = strip.size
    if width != TILES * height:
        raise ValueError(f"the gallery's strips are {width} x {height}, wanted {TILES} square tiles: run make fresh")
    return height


def entries_of(block: Block) -> list[Entry]:
    """The search index's entries for a block's features."""
    page = f"Features of {block.name}"
    return [
        Entry(
            f"{block.page}#f{card['number']}",
            page,
            f"{block.name}/{card['number']}",
            f"{card['meaning']}, score {card['score']:.2f}",
        )
        for card in block.cards
    ]
