"""What a teacher projects, prints and reads: pages, handout, form and notes, from the lessons and their results.

Pictures and numbers are those of the executed solutions; the painter's pictures are drawn when the pages are made.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nbconvert.filters import markdown2html
from torch import Tensor

from notebooks.workshop.lessons import (
    FOLDER,
    Heard,
    Lesson,
    mistakes_of,
    pictures_of,
    printed,
    tagged,
    timetable,
)
from sae_lib import Layer, Painter, as_image
from sae_lib.paint import Suggestion

PAGES = FOLDER / "pages"
"""The pages to project and to print; each is one file that loads nothing else."""
PAGE_NAMES = ("slides", "handout", "feedback")

NAMES = (
    ("block", "a part of the model's U-Net; most blocks *add* something to what they get"),
    ("update", "what a block adds: its output minus its input"),
    ("feature", "a direction of an update, and how strongly it is present at a position (its *activation*)"),
    ("SAE", "sparse autoencoder: writes each update as a sum of few features; TopK keeps the k largest"),
    ("reads", "a feature reads a value if it is active where the picture shows the value"),
    ("writes", "a feature writes a value if the picture shows the value once the feature is turned on"),
    ("strength", "how much of a feature is added, in multiples of its mean activation where it is active"),
    ("control", "the same measurement where nothing should be found: a random feature, shuffled pictures"),
    ("interval", "where the number would fall in 95 of 100 repetitions with other cases"),
)
CODE = """\
from sae_lib import add_features, capture_updates, draw_pictures, intervene, load_pipeline, load_saes
from sae_lib import CallSettings, load_statistics, strength_unit, to_vectors
block, pipe = "{block}", load_pipeline("turbo")
scene = pipe, ["a cartoon of a large blue circle in a meadow"], CallSettings(4, 0.0)
sae, unit = load_saes()[block], strength_unit(load_statistics()[block], {feature})

with capture_updates(pipe, [block]) as updates: before = draw_pictures(*scene)                 # 1. record
activations = sae.encode(to_vectors(updates[block]))                                           # 2. take apart
with intervene(pipe, {{block: add_features(sae, {feature}, 3 * unit)}}): after = draw_pictures(*scene)  # 3. turn on
"""
"""The handout's code; block and feature are those that lesson 4 finds."""

PLACES = (
    ("../../20_paint_and_explore.ipynb", "Notebook 20", "the painter and the explorer: search a feature, paint it"),
    ("../../01_model_and_blocks.ipynb", "Notebook 01", "the model, its blocks, and the names of their parts"),
    ("../../03_train_saes.ipynb", "Notebook 03", "train an SAE yourself"),
    ("../../07_reading_features.ipynb", "Notebook 07", "what features read"),
    ("../../08_writing_with_features.ipynb", "Notebook 08", "what features write"),
    ("../../11_riebench_results.ipynb", "Notebook 11", "nine kinds of edits, compared with other methods"),
    ("../../99_scorecard.ipynb", "Notebook 99", "every claim of the paper, with the test that decided it"),
)


class Try(NamedTuple):
    """A "Try this" button of the painter, and what is seen when it is pressed."""

    words: str
    """On the button."""
    caption: str
    what: str
    """What it does inside the model, as in "feature up.1.2/19 is turned on where it was painted"."""
    count: str
    """How often it worked in its test, in words."""
    before: str
    """The picture without the edit, as base64 of its PNG."""
    after: str


def record_tries(suggestions: Sequence[Suggestion], painter: Painter) -> list[Try]:
    """Presses each button of the painter, and records the two pictures."""
    tries = []
    for suggestion in suggestions:
        drawn, edit = painter.draw(suggestion.edit), suggestion.edit
        what = " and ".join(map(_in_words, edit.layers))
        pictures = (_as_base64(picture) for picture in (drawn.before, drawn.after))
        count = f"worked in {suggestion.worked} of {len(suggestion.seeds)} seeds"
        tries.append(Try(suggestion.button, edit.prompt, what, count, *pictures))
    return tries


def _in_words(layer: Layer) -> str:
    place = "everywhere" if layer.mask is None else "where it was painted"
    return f"feature {layer.feature} is turned {'on' if layer.strength > 0 else 'down'} {place}"


def _as_base64(picture: Tensor) -> str:
    with io.BytesIO() as file:
        as_image(picture).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()


def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=lambda name: name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters["blocks"] = markdown2html
    env.filters["inline"] = lambda text: re.sub(r"^<p>|</p>$", "", markdown2html(text).strip())
    return env


def instructor_notes(
    lessons: Sequence[Lesson],
    solutions: Mapping[str, nbformat.NotebookNode],
    heard: Mapping[str, Sequence[Heard]],
    demo: Sequence[Try],
) -> str:
    """The teacher's page: the timetable, the five minutes with the painter, and per lesson its goals, steps, questions,
    answers, and the common mistakes with what the check says of them."""
    fast = {name: "\n".join(map(printed, tagged(solution.cells, "fast"))) for name, solution in solutions.items()}
    content = {"parts": timetable(lessons), "heard": heard, "demo": demo, "fast": fast, "mistakes_of": mistakes_of}
    return _environment().get_template("INSTRUCTOR.md.j2").render(content)


def pages(
    lessons: Sequence[Lesson], solutions: Mapping[str, nbformat.NotebookNode], demo: Sequence[Try]
) -> dict[str, str]:
    """By file name the pages to project, the handout and the feedback form."""
    content = {
        "parts": timetable(lessons),
        "demo": demo,
        "names": NAMES,
        "places": PLACES,
        "code": code(solutions["4_transfer"]),
        "symbols": symbols(lessons[1]),
        "pictures": {},
        "numbers": {},
        "last_check": {},
    }
    for name, solution in solutions.items():
        shown = [pictures_of(cell) for cell in tagged(solution.cells, "picture")]
        content["pictures"][name] = [picture for of_cell in shown for picture in of_cell][:2]  # more would be small
        content["numbers"][name] = "\n".join(map(printed, tagged(solution.cells, "numbers")))
        content["last_check"][name] = printed(tagged(solution.cells, "check")[-1])
    env = _environment()
    return {f"{name}.html": env.get_template(f"{name}.html.j2").render(content) for name in PAGE_NAMES}


def code(transfer: nbformat.NotebookNode) -> str:
    """The handout's lines of code, with the feature that the executed lesson 4 chose."""
    said = "\n".join(printed(cell) for cell in transfer.cells if cell.cell_type == "code")
    block, feature = re.search(r"^(\S+)/(\d+) reads red", said, re.MULTILINE).groups()
    return CODE.format(block=block, feature=feature)


def symbols(lesson: Lesson) -> str:
    """The lesson's table of symbols, in markdown."""
    return re.search(r"^\| symbol .*(?:\n\|.*)+", lesson.cells[0].source, re.MULTILINE)[0]
