"""RIEBench's sweep: every method at every setting on exactly the same cases, each case's scores kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached, write_if_changed
from sae_lib.editing.cases import Case
from sae_lib.editing.edit import Editor, edit_cases, load_editor
from sae_lib.editing.settings import ORIGINAL, READINGS, REFERENCES, Setting


def run_sweep(editor: Editor, cases: Sequence[Case], settings: Sequence[Setting], folder: Path) -> "Sweep":
    """Edits every case at every setting. A killed sweep goes on where it stopped, by what is in the folder.

    The passes, the masks and the references' scores are made once per case. A case without masks, or with a picture
    that is not finite (in 16 bits) by one of the methods, counts as failed for all methods, with the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(cases), editor.at_once):
        path = folder / f"cases_{start:05}.json"
        if not path.is_file():
            part = edit_cases(cases[start : start + editor.at_once], editor, settings)
            write_if_changed(path, json.dumps(part).encode())
    return read_sweep(folder)


def read_sweep(folder: Path) -> "Sweep":
    """The sweep that `run_sweep` left in a folder."""
    return Sweep.join([json.loads(path.read_text()) for path in sorted(folder.glob("cases_*.json"))])


def cached_sweep(
    assets: Assets,
    cases: Sequence[Case],
    settings: Sequence[Setting],
    seed: int,
    dilate: bool = True,
    batch: int = 0,
    read_from: str = "",
) -> tuple["Sweep", Path]:
    """`run_sweep` with `load_editor`'s editor, in the cache; gives the sweep and its folder.

    read_from: the file of the cases, empty for those of the pocket world.
    """
    inputs = {"cases": [case.id for case in cases], "settings": settings, "seed": seed, "riebench": read_from}
    inputs |= {"assets": assets.identity, "dilate": dilate, "batch": batch}

    def make(folder: Path) -> None:
        run_sweep(load_editor(assets, seed, batch, dilate), cases, settings, folder)

    folder = cached("riebench", inputs, make, resumable=True)
    return read_sweep(folder), folder


class Sweep(NamedTuple):
    """The scores of a sweep, case by case."""

    ids: list[str]
    """The cases that have scores, in the order of all tensors."""
    categories: Float[Tensor, " cases"]
    failed: dict[str, str]
    """By id, why a case has no scores."""
    specks: int
    """Number of instances too small for the grid, which got the cell that they cover most."""
    scores: dict[Setting, dict[str, Float[Tensor, " cases"]]]
    """By setting and name of the score; see `score_pictures`. The REFERENCES are among the settings."""
    selected: dict[Setting, dict[str, Float[Tensor, " cases"]]]
    """By block, of every setting whose method has SAE features: how many features were added. `untrained_of` a
    setting gives how many features of untrained SAEs would have been."""

    def of_method(self, name: str) -> list[Setting]:
        """A method's settings, by their number of units."""
        return sorted(setting for setting in self.scores if setting.method == name and setting not in REFERENCES)

    def gain(self, setting: Setting, reading: str) -> Float[Tensor, " cases"]:
        """What an edit did beyond the untouched picture, by one of READINGS."""
        score = READINGS[reading][1]
        return self.scores[setting][score] - self.scores[ORIGINAL][score]

    def points(self, settings: Sequence[Setting], reading: str) -> Float[Tensor, "cases settings 2"]:
        """Per case and setting, the cost and the gain; the untouched picture, a setting of
        every method, comes first."""
        cost = READINGS[reading][0]
        return torch.stack(
            [torch.stack([self.scores[s][cost], self.gain(s, reading)], 1) for s in (ORIGINAL, *settings)], 1
        )

    @classmethod
    def join(cls, parts: Sequence[dict]) -> "Sweep":
        """One sweep from the files of its parts, in their order."""
        done = [part for part in parts if part["ids"]]

        def joined(table: str) -> dict:
            return {
                _key(key): {
                    name: torch.cat([torch.tensor(part[table][key][name]).float() for part in done]) for name in of
                }
                for key, of in (done[0][table] if done else {}).items()
            }

        failed = {name: why for part in parts for name, why in part["failed"].items()}
        ids = [name for part in parts for name in part["ids"]]
        categories = torch.tensor([number for part in parts for number in part["categories"]])
        specks = sum(part["specks"] for part in parts)
        return cls(ids, categories, failed, specks, joined("scores"), joined("selected"))


def _key(text: str) -> Setting:
    method, units, strength = json.loads(text)
    return Setting(method, units, strength)
