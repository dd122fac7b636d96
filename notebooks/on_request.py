"""Draws figures and tables of the paper whose content nobody outside has described.

Somebody who has the PDF enters them in `figures/requests.json`, and `python notebooks/on_request.py "Figure 19"` draws
them. The file holds `requests`, each with an artefact's id, the generator that draws its form, and the generator's
arguments. It also has one example per generator, which the tests draw.
"""

import argparse
import csv
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it is not run from the clone's root

from notebooks.artefacts import ARTEFACTS, FORM_KNOWN, UNKNOWN
from sae_lib.activations.drawing import draw_pictures
from sae_lib.assets import ARGUMENTS, MODELS, Assets
from sae_lib.cache.artefact import ROOT
from sae_lib.companion.case_study import (
    draw_alone,
    draw_modulated,
    noise_seed,
    refuse_block,
    show_features,
    show_grid,
    show_maps,
    study_prompt,
)
from sae_lib.companion.figures import SavedFigure, SavedTable, figure_folder, save_figure, save_table
from sae_lib.companion.pictures import lay_over
from sae_lib.companion.run import Run, fits
from sae_lib.companion.style import BLOCK_COLORS, TEXT_WIDTH, use_house_style
from sae_lib.features.feature import FeatureId
from sae_lib.features.interventions import intervene, skip_block
from sae_lib.features.reading import Reading
from sae_lib.features.writing import amount_of, write
from sae_lib.models.blocks import ATTENTION_BLOCKS
from sae_lib.models.scales import set_up_torch
from sae_lib.saes.checkpoints import load_saes
from sae_lib.saes.transfer import measure_transfer

REQUESTS = ROOT / "figures" / "requests.json"
GRIDS = {"maps": (), "modulation": (draw_modulated, (-10, -5, 5, 10)), "icons": (draw_alone, (0.5, 1, 1.5))}
"""The grids of a case study: what draws them, and the authors' amounts."""


class Request(NamedTuple):
    """One entry of the file."""

    artefact: str
    """"Figure 19", "Table 2"."""
    generator: str
    """One of GENERATORS."""
    arguments: dict[str, Any]


def case_study(
    assets: Assets,
    block: str,
    prompt: str,
    grid: str = "maps",
    noise: int = 42,
    features: list | tuple = (),
    count: int = 6,
    amounts: list | tuple = (),
) -> Figure:
    """One grid of `case_study`: "maps", "modulation" or "icons".

    features: numbers; by default the most active ones. amounts: beta or gamma.
    """
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}; choose one of {', '.join(GRIDS)}")
    study = study_prompt(assets, block, prompt, noise, count, features)
    if grid == "maps":
        return show_maps(study, {})
    draw, usual = GRIDS[grid]
    strengths = [float(amount) for amount in amounts or usual]
    return show_features(draw(assets, study, strengths), study, {}, strengths)


def top_pictures(assets: Assets, features: list, count: int = 8) -> Figure:
    """Per feature ("down.2.1/2301"), the pictures of held-out captions that excite it most, under its maps."""
    reading, lines = Reading(assets), []
    for block, feature in map(FeatureId.parse, features):
        refuse_block(assets, block)
        rows = reading.means(block)[:, feature].topk(min(count, len(reading))).indices.tolist()
        maps = reading.maps(block, feature, rows)
        lines.append([lay_over(reading.pictures[row], its_map) for row, its_map in zip(rows, maps, strict=True)])
    return show_grid(lines, features, [str(place + 1) for place in range(len(lines[0]))])


def turned_on(
    assets: Assets,
    features: list,
    prompt: str,
    noise: int = 42,
    strength: float = 10.0,
    model: str = MODELS[0],
    spans: list | tuple = (None,),
) -> Figure:
    """Each feature turned on everywhere, in units of its mean activation.

    spans: [start, end) of the steps, one per column; null for all steps.
    """
    ids, (name, call) = [FeatureId.parse(feature) for feature in features], assets.call(model, noise_seed(assets))
    for feature in ids:
        refuse_block(assets, feature.block)
    unedited = draw_pictures(assets.pipe(name), [prompt], call, [noise])[0]
    amounts = [amount_of(assets, feature, strength) for feature in ids]
    asked = [prompt] * len(ids), [noise] * len(ids), ids, amounts
    columns = [write(assets, model, *asked, span=span and tuple(span), seed=call.seed) for span in spans]
    heads = ["unedited", *("all steps" if span is None else f"steps {span[0]} to {span[1] - 1}" for span in spans)]
    return show_grid([[unedited, *row] for row in zip(*columns, strict=True)], features, heads)


def transfer_curves(assets: Assets, saes: str | int = "transfer", prompts: int = 0) -> Figure:
    """Figure 3's two panels. saes: "panel", "transfer", or a k that there are SAEs of. prompts: 0
    for the scale's count."""
    fig, axes = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 2.6))
    texts = assets.prompts(prompts or assets.counts.transfer_prompts)
    for model, style in zip(MODELS[1:], ("-", "--"), strict=True):
        name, call = assets.call(model)
        asked = (saes, assets.scale, assets.sae_folder)
        named = assets.saes(saes) if isinstance(saes, str) else load_saes(*asked, blocks=assets.blocks)
        chosen = {block: {"SAE": named[block].to(assets.pipe(name).device)} for block in assets.blocks}
        for block, measured in measure_transfer(assets.pipe(name), texts, call, chosen).items():
            both = measured["SAE"].explained_variance(1), measured["SAE"].coefficient_similarity(1)
            for ax, values in zip(axes, both, strict=True):
                ax.plot(
                    torch.linspace(0, 100, len(values)), values[:, 0], style, color=BLOCK_COLORS[block], label=block
                )
    for ax, text in zip(axes, ("explained variance", "cosine of adjacent steps"), strict=True):
        ax.set(xlabel="denoising progress, %", ylabel=text)
    fig.legend(
        *(entries[: len(assets.blocks)] for entries in axes[0].get_legend_handles_labels()),
        loc="outside upper center",
        ncols=4,
    )
    fig.suptitle(f"{MODELS[1]} (solid), {MODELS[2]} (dashed); SAEs: {saes}; {len(texts)} prompts", size=9)
    return fig


def ablations(assets: Assets, prompts: list, noise: int = 42) -> Figure:
    """Each prompt's picture, and the same with each of the eleven attention blocks left out."""
    name, call = assets.call(MODELS[0], noise_seed(assets))
    columns = []
    for changes in ({}, *({block: skip_block} for block in ATTENTION_BLOCKS)):
        with intervene(assets.pipe(name), changes):
            columns.append(draw_pictures(assets.pipe(name), prompts, call, [noise] * len(prompts)))
    numbers = [str(place + 1) for place in range(len(prompts))]
    return show_grid(torch.stack(columns, 1), numbers, ["none", *ATTENTION_BLOCKS])


def table(assets: Assets, of: str, columns: list, where: dict | None = None) -> list[dict[str, str]]:
    """Rows and columns of a table that a notebook has saved.

    of: such as "07_reading_features/metrics". where: {column: value} of the rows that are kept.
    """
    notebook, name = of.split("/")
    path = figure_folder(Run(notebook, {"scale": assets.scale, "source": assets.source})) / f"{name}.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    wanted = where or {}
    if unknown := [column for column in (*columns, *wanted) if column not in rows[0]]:
        raise ValueError(f"{of} has no column {unknown[0]!r}; it has {', '.join(rows[0])}")
    return [{c: row[c] for c in columns} for row in rows if all(row[c] == value for c, value in wanted.items())]


GENERATORS: dict[str, Callable[..., Figure | list[dict[str, str]]]] = {
    draw.__name__: draw for draw in (case_study, top_pictures, turned_on, transfer_curves, ablations, table)
}
"""By name, the functions that draw a form; an entry's arguments are their keyword arguments."""


def read_requests(path: Path = REQUESTS) -> dict[str, Request]:
    """The file's requests by artefact.

    Raises ValueError for a damaged file, an unknown artefact or one whose content is known, two entries of one
    artefact, an unknown generator and wrong arguments; FileNotFoundError without the file.
    """
    try:
        entries = [Request(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["requests"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path.name} is damaged ({error}): wanted a list `requests` of {', '.join(Request._fields)}"
        ) from None
    asked_for: dict[str, Request] = {}
    for entry in entries:
        if entry.artefact in asked_for:
            raise ValueError(f"{path.name} has two entries for {entry.artefact}: leave one")
        _refuse(entry)
        asked_for[entry.artefact] = entry
    return asked_for


def draw_request(artefact: str, assets: Assets, path: Path = REQUESTS) -> SavedFigure | SavedTable:
    """Draw an artefact as the file says, into `figures/requests/`, with a record.

    Raises what `read_requests` and the generator raise, and ValueError for an artefact that the file does not name.
    """
    asked_for = read_requests(path)
    if artefact not in asked_for:
        raise ValueError(f"{path.name} has no entry for {artefact!r}; it has {', '.join(asked_for) or 'none at all'}")
    request, name = asked_for[artefact], artefact.lower().replace(" ", "_")
    set_up_torch(assets.scale)
    use_house_style()
    drawn = GENERATORS[request.generator](assets, **request.arguments)
    parameters = {"scale": assets.scale, "source": assets.source, "sae_folder": assets.sae_folder}
    run = Run("requests", parameters | {"prompt_file": assets.prompt_source, "blocks": list(assets.blocks)})
    return (
        save_figure(run, drawn, name, request._asdict()) if isinstance(drawn, Figure) else save_table(run, name, drawn)
    )


def _refuse(request: Request) -> None:
    """Raises ValueError for what cannot be drawn."""
    free = {entry.id for entry in ARTEFACTS if entry.missing in (FORM_KNOWN, UNKNOWN)}
    if request.artefact not in free:
        known = request.artefact in {entry.id for entry in ARTEFACTS}
        why = "what it shows is known" if known else "the paper has none of that name"
        raise ValueError(f"{request.artefact!r} cannot be requested: {why}")
    if request.generator not in GENERATORS:
        raise ValueError(
            f"{request.artefact}: no generator {request.generator!r}; choose one of {', '.join(GENERATORS)}"
        )
    _, *wanted = inspect.signature(GENERATORS[request.generator]).parameters.values()
    names = {argument.name: argument for argument in wanted}
    needed = [argument.name for argument in wanted if argument.default is argument.empty]
    missing = [name for name in needed if name not in request.arguments]
    wrong = [n for n, value in request.arguments.items() if n not in names or not fits(value, names[n].annotation)]
    if missing or wrong:
        mistakes = "; ".join(
            f"{word} {', '.join(some)}" for word, some in (("missing", missing), ("wrong", wrong)) if some
        )
        raise ValueError(f"{request.artefact}: {mistakes}; {request.generator} takes {', '.join(map(str, wanted))}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python notebooks/on_request.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact", help='"Figure 19", "Table 2"')
    defaults = dict.fromkeys(ARGUMENTS, "") | {"scale": "pocket", "architecture": "sdxl"}
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help="as in the notebooks")
    options = parser.parse_args(arguments)
    try:
        print(draw_request(options.artefact, Assets(**{name: getattr(options, name) for name in ARGUMENTS})))
    except (ValueError, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
