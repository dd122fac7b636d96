"""One run of one notebook: its parameters, checked, and what its numbers may be compared with."""

import ast
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from sae_lib.cache.artefact import cache_root
from sae_lib.companion.style import use_house_style
from sae_lib.models.pipelines import silence_progress_bars
from sae_lib.models.scales import get_scale, seed_everything, set_up_torch

if TYPE_CHECKING:
    from sae_lib.assets import Assets

EVERY_NOTEBOOK = {"scale": str, "source": str, "seed": int}
"""Parameters that each notebook declares; `source` "" means the scale's own models."""

KEEPS_FIGURES = "SAE_LIB_KEEPS_FIGURES"
"""The environment variable by which `notebooks/run.py` tells its kernels that `figures/` is theirs to write."""


@dataclass(frozen=True)
class Run:
    """A run that `start_run` has checked; `save_figure` and `Claim.judge` need it."""

    notebook: str
    """Stem of the notebook's file, as in "04_transfer"."""
    parameters: Mapping[str, Any]
    """Every declared parameter with the value it has in this run."""
    keeps_figures: bool = True
    """Whether its figures may go into `figures/`. Those of a notebook that a person runs stay in the cache."""

    @property
    def scale(self) -> str:
        """Name of the scale: "smoke", "pocket" or "sdxl"."""
        return self.parameters["scale"]

    @property
    def rehearsal(self) -> bool:
        """Whether the weights are random (`source` "random" or "random/16"): such a run shows that the code runs."""
        return self.parameters["source"].startswith("random")

    def assets(self, **changes: Any) -> "Assets":
        """The notebook's `Assets`, by those of its parameters that these take; `changes` replaces any."""
        from sae_lib.assets import ARGUMENTS, Assets

        return Assets(**{name: self.parameters[name] for name in ARGUMENTS if name in self.parameters} | changes)

    @property
    def compared_with(self) -> str | None:
        """What verdicts compare with: "published" numbers, the "pocket" model, or None (smoke and rehearsal).

        At sdxl scale a folder or Hub id is taken at its word to hold the published weights; the record names it.
        """
        if self.rehearsal or self.scale == "smoke":
            return None
        return "published" if self.scale == "sdxl" else "pocket"

    @property
    def mark(self) -> str:
        """What a figure that allows no conclusion says about itself; empty otherwise."""
        if self.rehearsal:
            return "rehearsal: random weights"
        return "smoke: counts cut, no conclusions" if self.scale == "smoke" else ""


def start_run(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Check a notebook's parameters, seed torch, numpy and random, set the scale's threads and the house style.

    A notebook calls `run = start_run("04_transfer", globals())` after its parameters cell, whose lines
    `name: type = value  # help` declare what papermill may set. The type decides what is accepted, because papermill
    itself passes on anything, a misspelt name and the string "1e-3" included.

    Raises ValueError for an unknown parameter, a missing one of EVERY_NOTEBOOK or an unknown scale, TypeError for a
    value of another type than declared. Each names the value and what would be accepted.
    """
    declared = dict(namespace.get("__annotations__", {}))
    for name, kind in EVERY_NOTEBOOK.items():
        if declared.get(name) is not kind:
            raise ValueError(f"{notebook}: the parameters cell must declare `{name}: {kind.__name__} = ...`")
    refuse_unknown(notebook, injected_by_papermill(namespace), declared)
    for name, kind in declared.items():
        if not fits(namespace[name], kind):
            wanted = getattr(kind, "__name__", kind)
            raise TypeError(f"{notebook}: parameter {name} = {namespace[name]!r} is no {wanted}")
    parameters = types.MappingProxyType({name: namespace[name] for name in declared})
    run = Run(notebook, parameters, keeps_figures=KEEPS_FIGURES in os.environ)
    get_scale(run.scale)
    set_up_torch(run.scale)
    seed_everything(run.parameters["seed"])
    silence_progress_bars()
    use_house_style()
    if run.compared_with and not run.keeps_figures:
        print(f"Figures go into {cache_root() / 'figures'}; `make reproduce` and `make notebooks` write figures/.")
    return run


def refuse_unknown(notebook: str, given: set[str], declared: Mapping[str, Any]) -> None:
    """Raise ValueError if a parameter is given that the notebook does not declare."""
    if unknown := sorted(given - set(declared)):
        raise ValueError(f"{notebook}: unknown parameter {', '.join(unknown)}; it has {', '.join(declared)}")


def injected_by_papermill(namespace: Mapping[str, Any]) -> set[str]:
    """Names that papermill's own cell assigns: it starts with the comment "# Parameters" in IPython's history."""
    cells = [cell for cell in namespace.get("In", ()) if cell.startswith("# Parameters\n")]
    assignments = [node for cell in cells for node in ast.parse(cell).body if isinstance(node, ast.Assign)]
    return {target.id for node in assignments for target in node.targets if isinstance(target, ast.Name)}


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of an annotated type: exactly (a bool is no int), save that an int is a float too."""
    if isinstance(kind, types.UnionType):
        return any(fits(value, option) for option in get_args(kind))
    kind = get_origin(kind) or kind
    return type(value) is kind or (kind is float and type(value) is int)
