"""Every figure and table that is known of the paper, and what this repository has of it: the one list.

The table of `figures/README.md`, `figures/index.json` and the scorecard are made from it; a test fails where one of
its files is missing, or where a figure in `figures/` belongs to none.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_lib.cache.artefact import ROOT
from sae_lib.companion.figures import ANSWER

UNKNOWN, FORM_KNOWN = "not identified", "form known, content unknown"
"""Why an artefact has no file.

UNKNOWN: nobody outside has said what it shows. FORM_KNOWN: nobody has, but the forms of its
group are known, so that `notebooks/on_request.py` draws it as soon as somebody with the paper says what it shows.
"""


@dataclass(frozen=True)
class Artefact:
    """One figure or table of the paper, or a group of our own figures."""

    id: str
    """"Figure 2", "Table 5"; for what has no known number a few words; for ours "Companion NN"."""
    title: str
    version: str
    """Version of the paper, of which "v5" is the camera ready; empty for ours."""
    source: str
    """Tag of its published values (`verdicts.SOURCES`); "not published" where there are none, empty for ours."""
    files: tuple[str, ...] = ()
    """"notebook/figure", below `figures/`."""
    missing: str = ""
    """Why there is no file, one of UNKNOWN, FORM_KNOWN."""

    @property
    def status(self) -> str:
        """ "made", or why not."""
        return self.missing or "made"

    @property
    def notebooks(self) -> list[str]:
        """Stems of the notebooks that make it."""
        return list(dict.fromkeys(file.split("/")[0] for file in self.files))


def _numbered(
    kind: str, numbers: tuple[int, ...], title: str, missing: str = "", files: tuple[str, ...] = ()
) -> list[Artefact]:
    return [Artefact(f"{kind} {number}", title, "v5", "not published", files, missing) for number in numbers]


def _of(notebook: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{notebook}/{name}" for name in names)


_NOT_SAID = "not identified one by one; among them panels of features and case studies of prompts"
_TABLES = "not identified one by one; version 1's tables are of the metrics of features and of locality"
_PANELS = (*range(11, 14), *range(15, 18), *range(19, 35))

ARTEFACTS: tuple[Artefact, ...] = (
    Artefact(
        "Figure 1",
        "One feature turned on, in four settings",
        "v5",
        "not published",
        (*_of("08_writing_with_features", "figure1"), *_of("13_flux", "figure1_flux")),
    ),
    Artefact(
        "Figure 2",
        "Explained variance against k and expansion",
        "v5",
        "not published",
        _of("06_reconstruction", "figure2"),
    ),
    Artefact(
        "Figure 3",
        "Transfer to 4-step Turbo and SDXL base",
        "v5",
        "digitised",
        _of("04_transfer", "figure3", "similarity"),
    ),
    Artefact("IoU plot", "Active sets at adjacent steps", "", "digitised", _of("04_transfer", "figure3")),
    Artefact(
        "Figure 4",
        "Transport of features from one picture into another",
        "v5",
        "not published",
        _of("10_riebench", "figure4"),
    ),
    Artefact(
        "Figure 5",
        "RIEBench: distance against similarity gained",
        "v5",
        "not published",
        _of("11_riebench_results", "figure5", "categories"),
    ),
    Artefact(
        "Figure 6",
        "RIEBench: features selected, by block and kind of edit",
        "v5",
        "not published",
        _of("11_riebench_results", "figure6"),
    ),
    *_numbered("Figure", (7,), "", UNKNOWN),
    *_numbered("Figure", (8,), "Interventions on FLUX", files=_of("14_flux_interventions", "figure8")),
    *_numbered("Figure", (9,), "Interventions on FLUX", files=_of("14_flux_interventions", "figure9")),
    Artefact(
        "Figure 10", "Where the transformer blocks are", "v5", "not published", _of("01_model_and_blocks", "unet")
    ),
    *_numbered("Figure", _PANELS, _NOT_SAID, FORM_KNOWN),
    *_numbered("Figure", (14,), "RIEBench on FLUX", files=_of("14_flux_interventions", "figure14")),
    Artefact(
        "Figure 18",
        "Pictures with a block's update reconstructed",
        "v5",
        "not published",
        _of("06_reconstruction", "figure18"),
    ),
    *_numbered("Figure", tuple(range(35, 44)), "Features of FLUX", files=_of("14_flux_interventions", "panels")),
    Artefact(
        "Attention blocks ablated",
        "Pictures with each of the 11 attention blocks left out (v1: Figure 3)",
        "v1",
        "not published",
        _of("05_which_blocks_matter", "ablations"),
    ),
    Artefact(
        "Table 1",
        "Perceptual distance when each of 28 blocks is left out",
        "v5",
        "code",
        _of("05_which_blocks_matter", "table1"),
    ),
    *_numbered("Table", (2, 3, 4, 6, 7, 8), _TABLES, FORM_KNOWN),
    Artefact(
        "Feature panels",
        "Top pictures, activation maps, modulation and icons of features (v1's appendix; numbers unknown)",
        "v1",
        "not published",
        _of("07_reading_features", "panels", "gallery"),
    ),
    Artefact(
        "Feature metrics",
        "Specificity, texture, colour, sensitivity, causality: our definitions",
        "v1",
        "reported",
        _of("07_reading_features", "metrics"),
    ),
    Artefact(
        "Interventions",
        "Modulation, painting, turning on, replacing, timing",
        "v1",
        "not published",
        _of("08_writing_with_features", "interventions", "timing"),
    ),
    Artefact(
        "Guidance",
        "Features under classifier-free guidance (App. B)",
        "v5",
        "not published",
        _of("08_writing_with_features", "guidance"),
    ),
    Artefact(
        "Locality",
        "Change inside and outside of a feature's area",
        "v1",
        "not published",
        _of("08_writing_with_features", "locality"),
    ),
    Artefact(
        "Prompt case study",
        "A prompt's top features: maps, modulation, icons (authors' example notebook)",
        "v1",
        "code",
        _of("12_prompt_case_study", "top_features", "modulation", "icons"),
    ),
    Artefact("Table 5", "Reconstruction, 24 rows", "v5", "not published", _of("06_reconstruction", "table5")),
    Artefact("Preliminary scatter", "RIEBench, May 2025", "", "digitised", _of("11_riebench_results", "preliminary")),
    Artefact(
        "Supplementary grids", "An edit of each kind by every method", "", "not published", _of("10_riebench", "grid")
    ),
    Artefact(
        "Companion 01",
        "The pocket models: their pictures, their obedience, the blocks' sizes",
        "",
        "",
        _of("01_model_and_blocks", "agreement", "contact_sheet", "judge_by_eye", "update_sizes"),
    ),
    Artefact(
        "Companion 02",
        "The update vectors: sizes, dimensions, directions, neighbours",
        "",
        "",
        _of("02_one_step_activations", "components", "dimensions", "neighbours", "norms", "spectrum"),
    ),
    Artefact(
        "Companion 03",
        "Training: curves, learning rate, dead features, other seeds, top pictures",
        "",
        "",
        _of(
            "03_train_saes",
            "explained_variance",
            "firing",
            "learning_rate",
            "survival",
            "top_pictures",
            "training_curves",
        ),
    ),
    Artefact(
        "Companion 04",
        "Transfer: controls, the paper's block names, both guidance halves, the two definitions of explained variance",
        "",
        "",
        _of("04_transfer", "controls", "figure3_paper_blocks", "halves", "two_definitions"),
    ),
    Artefact(
        "Companion 05",
        "Where the caption enters, the blocks chosen by it; "
        "ablated blocks: size against effect, which attributes suffer",
        "",
        "",
        _of(
            "05_which_blocks_matter",
            "where_the_caption_enters",
            "estimates",
            "chosen_blocks",
            "size_and_effect",
            "what_changes",
        ),
    ),
    Artefact(
        "Companion 06",
        "What is left of a caption's statements after reconstruction",
        "",
        "",
        _of("06_reconstruction", "statements"),
    ),
    Artefact("Companion 07", "Features found by text", "", "", _of("07_reading_features", "search")),
    Artefact(
        "Companion 08",
        "Whether a feature writes what it reads, by a judge",
        "",
        "",
        _of("08_writing_with_features", "figure1_more", "figure1_paper_blocks", "causal"),
    ),
    Artefact(
        "Companion 09",
        "What features mean: reading, controls, blocks, writing, other seeds, exact truth",
        "",
        "",
        _of(
            "09_what_each_block_does",
            "meaning",
            "specialisation",
            "controls",
            "writing",
            "stability",
            "exact_truth",
        ),
    ),
    Artefact("Companion 10", "Which features an edit takes", "", "", _of("10_riebench", "selection")),
    Artefact(
        "Companion 11",
        "Edits that happened, against units and side effects",
        "",
        "",
        _of("11_riebench_results", "units"),
    ),
    Artefact(
        "Companion 13",
        "The pocket FLUX: its pictures, where the caption enters, four steps, features that are always on",
        "",
        "",
        _of("13_flux", "pictures", "blocks", "always_on"),
    ),
    Artefact(
        "Companion 15",
        "PocketBench: kinds of SAE and baselines where the truth is known, SAEs by step, and a second block",
        "",
        "",
        _of("15_pocket_bench", "kinds", "two_sides", "steps", "second_block"),
    ),
    Artefact(
        "Companion 20",
        "SAEPaint and the feature explorer: strokes, cards, what fires where",
        "",
        "",
        _of("20_paint_and_explore", "try_this", "strokes", "grids", "two_sets", "cards", "positions"),
    ),
    Artefact(
        "Companion 90",
        "Speed, scaling, precision, memory",
        "",
        "",
        _of("90_speed", "cards", "harvest", "precision", "sae_step", "scaling"),
    ),
    Artefact("Companion 99", "The paper's claims and their tests", "", "", _of("99_scorecard", "scorecard")),
)
"""In the paper's order, ours last."""


def records_of(file: str, figures: Path = ROOT / "figures") -> list[tuple[str, Path]]:
    """The scales at which a figure ("04_transfer/figure3") has a record in `figures/`, with the records' paths."""
    notebook, name = file.split("/")
    folders = {"pocket": figures / notebook, "sdxl": figures / notebook / "sdxl"}
    paths = {scale: folder / f"{name}.json" for scale, folder in folders.items()}
    return [(scale, path) for scale, path in paths.items() if path.is_file()]


def records(artefact: Artefact, figures: Path = ROOT / "figures") -> dict[str, list[dict[str, Any]]]:
    """By scale, the records of an artefact's figures that are in `figures/`."""
    by_scale: dict[str, list[dict[str, Any]]] = {}
    for file in artefact.files:
        for scale, path in records_of(file, figures):
            by_scale.setdefault(scale, []).append(json.loads(path.read_text()))
    return by_scale


def answer_of(notebook: str, figures: Path = ROOT / "figures") -> str:
    """The sentence with which a notebook's stored run answered its question (`save_answer`).

    Raises FileNotFoundError if it left no record, ValueError for a damaged one.
    """
    path = figures / notebook / f"{ANSWER}.json"
    try:
        return json.loads(path.read_text())["result"]["answer"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"figures/{notebook}/{path.name} is damaged: run make notebooks") from None


def index(figures: Path = ROOT / "figures") -> list[dict[str, Any]]:
    """What `figures/index.json` holds: each artefact, its status, the scales it was run at, and its verdicts there."""
    rows = []
    for artefact in ARTEFACTS:
        by_scale = records(artefact, figures)
        verdicts = {
            scale: Counter(verdict["word"] for record in at_scale for verdict in record["result"]["verdicts"])
            for scale, at_scale in by_scale.items()
        }
        row = asdict(artefact) | {"status": artefact.status, "notebooks": artefact.notebooks}
        del row["missing"]
        rows.append(row | {"scales": list(by_scale), "verdicts": verdicts})
    return rows
