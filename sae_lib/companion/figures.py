"""What a notebook leaves: its figures and tables, a record of the numbers drawn and of the run, and its answer."""

import csv
import html
import importlib.metadata
import io
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import HTML, Image as Picture, Markdown, display
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from sae_lib.cache.artefact import ROOT, cache_root, write_together
from sae_lib.cache.results import commit_hash
from sae_lib.companion.run import Run
from sae_lib.companion.style import ACCENT_COLORS, BLOCK_COLORS, CONTROL_COLOR, VERDICT_COLORS
from sae_lib.companion.verdicts import Verdict, bare, in_words
from sae_lib.judges.intervals import Interval
from sae_lib.models.blocks import ATTENTION_BLOCKS

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "matplotlib")
"""Packages whose versions a record states."""

_QUICK = {"savefig.dpi": "figure", "pdf.fonttype": 3}
"""How a figure without a conclusion is saved: nobody compares it, and cutting fonts to size takes
most of a PDF's time."""


class SavedFigure(NamedTuple):
    """Paths of one figure; printed without the folder of this machine."""

    png: Path
    pdf: Path
    json: Path

    def __repr__(self) -> str:
        return f"{self.png.parent.name}/{self.png.stem}.png|pdf|json"


def figure_folder(run: Run) -> Path:
    """The folder of a run's figures: in git (`figures/`) only if they allow a conclusion and `notebooks/run.py` makes
    them, else in the cache."""
    if run.compared_with is None:
        return cache_root() / ("rehearsal" if run.rehearsal else "smoke") / "figures" / run.notebook
    folder = (ROOT if run.keeps_figures else cache_root()) / "figures" / run.notebook
    return folder / run.scale if run.compared_with == "published" else folder


def save_figure(
    run: Run,
    fig: Figure,
    name: str,
    result: Mapping[str, Any],
    artefact: Path | None = None,
    verdicts: Sequence[Verdict] = (),
) -> SavedFigure:
    """Save a figure and its record in the run's `figure_folder`; pictures of smoke and rehearsal are marked.

    In a notebook the figure is shown, also if an earlier cell began and closed it, since now it is complete.

    The record has two parts. `result`: the numbers drawn, n, seeds, and the verdicts, with 6 significant digits; None
    is a gap. `run`: scale, parameters, the folder name of the `artefact` (which ends with the hash of its inputs),
    commit, device, versions. It is rewritten only when `result` changes, so that git shows changed results and no
    others; the pictures hold no dates, so that an unchanged figure is an unchanged file. Where a record stands, the
    pictures beside it show its numbers, also after a process was killed: the record is removed before they change.

    Raises ValueError for a name that is no plain lower-case name or a result with NaN or infinity, TypeError for a
    result with no JSON form.
    """
    _refuse_name(name)
    verdicts = [{key: value for key, value in asdict(verdict).items() if value != ""} for verdict in verdicts]
    result = _as_json({**result, "verdicts": verdicts}, name)
    if run.mark and not any(text.get_gid() == "mark" for text in fig.texts):
        look = {"rotation": 15, "size": min(16, 4 * fig.get_figwidth()), "color": "#B00000", "alpha": 0.45}
        mark = run.mark.replace(": ", ":\n")
        fig.text(0.5, 0.5, mark, gid="mark", ha="center", va="center", in_layout=False, zorder=100, **look)
    saved = SavedFigure(*(figure_folder(run) / f"{name}.{kind}" for kind in SavedFigure._fields))
    with plt.rc_context(_QUICK if run.mark else {}):
        png = _render(fig, "png", {"Software": None})
        if run.mark:
            fig.set_layout_engine("none")  # laid out once for both
        pdf = _render(fig, "pdf", {"CreationDate": None})
    files = {saved.png: with_palette(png) if run.compared_with == "pocket" else png, saved.pdf: pdf}
    _write(files | {saved.json: _record(saved.json, result, run, artefact)})
    saved.json.touch()  # its time says when a run got this result
    _show(fig, Picture(png) if run.mark else fig)
    return saved


class SavedTable(NamedTuple):
    """Paths of one table; printed without the folder of this machine."""

    csv: Path
    tex: Path

    def __repr__(self) -> str:
        return f"{self.csv.parent.name}/{self.csv.stem}.csv|tex"


def save_table(run: Run, name: str, rows: Sequence[Mapping[str, str]]) -> SavedTable:
    """Save a table beside the run's figures, as CSV and as LaTeX (`\\usepackage{booktabs}`).

    The rows' keys are the columns.

    Raises ValueError for a name that is no plain lower-case name, without rows, for rows of different columns, and for
    a character for which LaTeX has no sign here.
    """
    _refuse_name(name)
    columns = list(rows[0]) if rows else []
    if not rows or any(list(row) != columns for row in rows):
        raise ValueError(f"table {name!r}: wanted rows with the same columns, at least one")
    saved = SavedTable(*(figure_folder(run) / f"{name}.{kind}" for kind in SavedTable._fields))
    with io.StringIO(newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *(row.values() for row in rows)])
        as_csv = file.getvalue()
    lines = [
        " & ".join(_in_latex(str(cell)) for cell in cells) + r" \\" for cells in [columns, *(r.values() for r in rows)]
    ]
    body = [
        rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
    ]
    marked = [f"% {run.mark}"] * bool(run.mark)
    as_tex = "\n".join([*marked, *body, r"\end{tabular}"]) + "\n"
    _write({saved.csv: as_csv.encode(), saved.tex: as_tex.encode()})
    return saved


ANSWER = "answer"
"""Name of the record that holds a notebook's answer, beside the records of its figures."""


def show_answer(notebook: str) -> None:
    """Show, before anything has run, what the stored run of a notebook at pocket scale answered, with its verdicts.

    A notebook calls it in its first code cell, below its question. `save_answer`, in its last, puts the answer of the
    new run in the same place.
    """
    display(_answer_of(ROOT / "figures" / notebook, notebook), display_id=ANSWER)


def save_answer(run: Run, answer: str) -> None:
    """Save the one sentence that answers a notebook's question, and show it at the notebook's top with the verdicts.

    The sentence is made from the numbers of this run, and its first word from a verdict (`Verdict.yes_or_no`) where
    there is one. A run that allows no conclusion (smoke, rehearsal) leaves the stored answer where it stands. The
    verdicts are those in the records of the run's figures, so call it when all figures are saved.
    """
    result = {"answer": answer, "verdicts": []}
    path = figure_folder(run) / f"{ANSWER}.json"
    _write({path: _record(path, result, run)})
    path.touch()
    if run.mark:
        print(f"{run.mark}: {answer}")
    else:
        display(_answer_of(path.parent, run.notebook), display_id=ANSWER, update=True)


def we_see(run: Run, text: str) -> None:
    """Show, below a figure, what is seen in it: Markdown, with numbers of this run in it."""
    mark = f" ({run.mark})" if run.mark else ""
    display(Markdown(f"**What we see{mark}.** {text}"))


def _answer_of(folder: Path, notebook: str) -> HTML:
    """The answer in a folder of records, with its primary verdicts one by one and its others counted."""
    stored = _result_of(folder / f"{ANSWER}.json")
    if stored is None:
        return HTML(f'<div class="answer"><p>The answer appears here when {html.escape(notebook)} has run.</p></div>')
    records = [_result_of(path) or {} for path in sorted(folder.glob("*.json"))]
    verdicts = [verdict for record in records for verdict in record.get("verdicts", [])]
    primary = [verdict for verdict in verdicts if verdict.get("primary")]
    lines = [f"{_chip(each['word'])} {html.escape(each['id'])}: {html.escape(each['claim'])}" for each in primary]
    if other := [verdict["word"] for verdict in verdicts if not verdict.get("primary")]:
        lines.append(f"{'Other tests' if primary else 'Tests'}: {in_words(other)}")
    rows = "".join(f"<li>{line}</li>" for line in lines)
    chips = f'<ul class="verdicts" style="list-style: none; padding: 0">{rows}</ul>' if rows else ""
    return HTML(f'<div class="answer"><p><strong>Answer.</strong> {html.escape(stored["answer"])}</p>{chips}</div>')


def _chip(word: str | None) -> str:
    word = bare(word)
    color = VERDICT_COLORS.get(word, VERDICT_COLORS["undecided"])
    look = f"background: {color}; color: white; border-radius: 0.8em; padding: 0.1em 0.6em"
    return f'<span class="chip {word.replace(" ", "-")}" style="{look}">{word}</span>'


def with_interval(number: Interval, digits: int) -> str:
    """A number with its interval, as a table's cell shows it: "0.71 (0.65 to 0.77)".

    An interval without width, as the bootstrap gives of equal numbers, is left out: it would look like certainty.
    """
    if number.low == number.high:
        return f"{number.value:z.{digits}f}"
    return "{:z.{d}f} ({:z.{d}f} to {:z.{d}f})".format(*number, d=digits)


_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {sign: f"${sign}$" for sign in "<>|"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
_LATEX |= {
    "×": r"$\times$",
    "−": "$-$",
    "±": r"$\pm$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
}


def _in_latex(text: str) -> str:
    """The text for LaTeX: its special characters are escaped, and a "-" before a digit becomes a minus sign."""
    text = re.sub(r"(?<![\w.])-(?=\d)", "−", text)
    written = "".join(_LATEX.get(sign, sign) for sign in text)
    if not written.isascii():
        raise ValueError(
            f"{text!r} cannot be written in LaTeX: use ASCII, or {' '.join(c for c in _LATEX if ord(c) > 127)}"
        )
    return written


def _refuse_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise ValueError(f"figure name {name!r}: wanted lower-case letters, digits and '_'")


def _result_of(record: Path) -> Any:
    """The result in a record; None if there is no record, or a damaged one."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return json.loads(record.read_text())["result"]


def _record(path: Path, result: Mapping[str, Any], run: Run, artefact: Path | None = None) -> bytes:
    """A record with this result: the one that stands at `path` if it has the same, with what made that."""
    if _result_of(path) == result:
        return path.read_bytes()
    return (json.dumps({"result": result, "run": _provenance(run, artefact)}, indent=1) + "\n").encode()


def _write(files: Mapping[Path, bytes]) -> None:
    """The files of a figure or a table: the last stands only beside those that were written with it."""

    def write(unfinished: Path) -> None:
        for path, content in files.items():
            (unfinished / path.name).write_bytes(content)

    *_, last = files
    write_together(last.parent, last.name, write, replace=True)


def _render(fig: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    with io.BytesIO() as file:
        fig.savefig(file, format=kind, metadata=metadata)
        return file.getvalue()


def _show(fig: Figure, picture: Picture | Figure) -> None:
    """In a notebook, show a figure that an earlier cell began and closed.

    An open figure is shown at the end of its cell anyway, and drawn once more for this: where there is a picture of it
    already, the picture is shown instead.
    """
    is_open = getattr(fig, "number", None) in plt.get_fignums()
    if get_ipython() is not None and hasattr(fig, "number") and not (is_open and picture is fig):
        plt.close(fig)
        display(picture)


def with_palette(png: bytes) -> bytes:
    """The picture in 256 colours, at a third of the size: enough for drawings, not for photographs. The PDF keeps all.

    The colours that mean something, a block or a control, are kept exactly. Each pixel gets the nearest colour of the
    palette (Pillow's own search is approximate, and would tint the paper).
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    of_blocks = [BLOCK_COLORS[block] for block in ATTENTION_BLOCKS]  # FLUX's are among them and among the accents
    exact = [ImageColor.getrgb(color) for color in (*of_blocks, *ACCENT_COLORS, CONTROL_COLOR, "#FFFFFF")]
    median_cut = picture.quantize(256 - len(exact), Image.Quantize.MEDIANCUT).getpalette()[: 3 * (256 - len(exact))]
    palette = np.array([*exact, *zip(*[iter(median_cut)] * 3, strict=True)])
    packed = np.asarray(picture).astype(np.int64) @ (65_536, 256, 1)
    numbers, places = np.unique(packed, return_inverse=True)
    colors = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], 1).astype(np.float32)
    parts = np.array_split(colors, 1 + len(colors) // 4_096)
    # |color - palette|^2 less |color|^2: whole numbers that float32 holds exactly
    lengths, to_palette = (palette**2).sum(1), 2 * palette.T.astype(np.float32)
    nearest = np.concatenate([(lengths - part @ to_palette).argmin(1) for part in parts])
    drawn = Image.fromarray(nearest[places].reshape(picture.size[::-1]).astype(np.uint8), "P")
    drawn.putpalette(palette.astype(np.uint8).tobytes())
    with io.BytesIO() as file:
        drawn.save(file, "PNG", optimize=True)
        return file.getvalue()


def _as_json(value: Any, name: str) -> Any:
    """Plain JSON values; arrays and tensors as lists, floats with 6 significant digits."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _as_json(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, name) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"figure {name}: its result holds {value}; use None for a gap")
        return float(f"{value:.6g}")
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"figure {name}: its result holds {value!r}, which has no JSON form")


def _provenance(run: Run, artefact: Path | None) -> dict[str, Any]:
    """What made the figure: everything that may differ although the result is the same."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        "notebook": run.notebook,
        "scale": run.scale,
        "parameters": dict(run.parameters),
        "artefact": artefact and artefact.name,
        "commit": commit_hash(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": {"python": platform.python_version(), **versions},
    }
