"""The gallery's pages: the features of a block as cards, from the drawn gallery."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from notebooks.book.drawing import TILES, Gallery
from notebooks.book.search import Entry
from sae_lib.models.blocks import ATTENTION_BLOCKS


@dataclass(frozen=True)
class Block:
    """A block of the drawn gallery."""

    name: str
    """"down.2.1"."""
    cards: list[dict[str, Any]]
    """As `drawing.card` made them, those that read best first."""
    dead: int
    """Features without a card: never active in the catalogue's pictures, or in training."""

    @property
    def page(self) -> str:
        return f"gallery_{self.name}.html"


def read_gallery(drawn: Gallery) -> list[Block]:
    """The blocks of a drawn gallery, in the order of the forward pass."""
    blocks = []
    for name in (block for block in ATTENTION_BLOCKS if block in drawn.cards):
        cards = sorted(drawn.cards[name], key=lambda card: (-card["reads"], card["number"]))
        blocks.append(Block(name, cards, drawn.n_f[name] - len(cards)))
    return blocks


def copy_strips(drawn: Gallery, book: Path) -> int:
    """Copy the drawn strips below `book`/gallery; returns the width and height of a tile in pixels."""
    for name in drawn.cards:
        shutil.copytree(drawn.pictures / name, book / "gallery" / name, ignore=shutil.ignore_patterns(".*"))
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
            f"{card['label']}, reads {card['reads']:z.2f}",
        )
        for card in block.cards
    ]
