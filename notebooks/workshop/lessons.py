"""A lesson's one source, and what is made of it: the exercise, the solution, and what a learner would hear.

Tags of the source's cells: `exercise` (its solution stands between two marks), `check`, `hint`, `mistake`
(a typical wrong answer, whose first line says what the check must say of it), `fast` (the answer to a task for the
fast), `picture` and `numbers` (the cells whose pictures and printed lines stand on the lesson's page for the projector)
and `instructor`. Mistakes and what only the instructor reads are in neither version.

Differs from nbgrader, which makes two versions of one source as well: that wants a course database, and knows neither
folded hints and solutions nor wrong answers that are tried.
"""

import hashlib
import linecache
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nbformat

from notebooks import run
from notebooks.execution import METADATA

FOLDER = Path(__file__).resolve().parent
STUB = 'raise NotImplementedError("your turn")'
_SOLUTION = re.compile(r"^( *)# BEGIN SOLUTION\n(.*?)^ *# END SOLUTION\n?", re.MULTILINE | re.DOTALL)
_SAYS = re.compile(r"# says: (.+)\n")


class Mistake(NamedTuple):
    """A typical wrong answer."""

    says: str
    """What the check's sentence must contain."""
    code: str


class Step(NamedTuple):
    """A time box of a lesson, in minutes from its start."""

    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Lesson:
    """A lesson, as read from its source."""

    path: Path
    cells: list[nbformat.NotebookNode]

    @property
    def name(self) -> str:
        """As in "2_topk"."""
        return self.path.stem

    @property
    def title(self) -> str:
        """The first heading: "Lesson 2: Write a TopK encoder"."""
        return self.cells[0].source.splitlines()[0].removeprefix("# ")

    @property
    def minutes(self) -> int:
        """The time box."""
        return int(re.search(r"\*\*Time:\*\* (\d+) minutes", self.cells[0].source)[1])

    def says_after(self, lead: str) -> str:
        """The sentence of the first cell after a bold `lead`, such as "You will be able to"."""
        match = re.search(rf"\*\*{lead}\*\* (.+?)(?:\*\*|\n\n|\Z)", self.cells[0].source, re.DOTALL)
        return " ".join(match[1].split())

    @property
    def question(self) -> str:
        """What the lesson asks, in one sentence."""
        return self.says_after(r"Question\.")

    @property
    def _prose(self) -> str:
        return "\n\n".join(cell.source for cell in self.cells if cell.cell_type == "markdown")

    @property
    def take_away(self) -> str:
        """What a learner is to remember."""
        return " ".join(re.search(r"\*\*Take away\.\*\* (.+?)(?:\n\n|\Z)", self._prose, re.DOTALL)[1].split())

    @property
    def steps(self) -> list[Step]:
        """The sections that begin with a mark such as "*Minutes 5 to 11.*"; the first is the opening."""
        marks = re.findall(r"^(?:## (.+)\n\n)?\*Minutes (\d+) to (\d+)\.\*", self._prose, re.MULTILINE)
        return [Step(title or "Read, and run the first cells", int(start), int(end)) for title, start, end in marks]

    @property
    def notes(self) -> str:
        """The cells that only the teacher reads."""
        return "\n\n".join(cell.source for cell in self.cells if _is(cell, "instructor"))

    @property
    def mistakes(self) -> dict[str, list[Mistake]]:
        """By the exercise's function, its typical wrong answers."""
        by_function: dict[str, list[Mistake]] = {function_of(cell): [] for cell in self.cells if _is(cell, "exercise")}
        for cell in self.cells:
            if _is(cell, "mistake"):
                says, code = _SAYS.match(cell.source), _SAYS.sub("", cell.source, count=1)
                by_function[function_of(cell)].append(Mistake(says[1], code))
        return by_function


def find_lessons() -> list[Lesson]:
    """All lessons, in order."""
    paths = sorted((FOLDER / "src").glob("[0-9]_*.py"))
    return [Lesson(path, run.read_source(path).cells) for path in paths]


def function_of(cell: nbformat.NotebookNode) -> str:
    """Name of the function that an exercise's cell defines."""
    return re.search(r"^def (\w+)", cell.source, re.MULTILINE)[1]


def _is(cell: nbformat.NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", ())


def tagged(cells: Iterable[nbformat.NotebookNode], tag: str) -> list[nbformat.NotebookNode]:
    """The cells with a tag."""
    return [cell for cell in cells if _is(cell, tag)]


def pictures_of(cell: nbformat.NotebookNode) -> list[str]:
    """The pictures that an executed cell shows, as base64 of their PNGs."""
    return [output.data["image/png"].strip() for output in cell.outputs if "image/png" in output.get("data", {})]


def printed(cell: nbformat.NotebookNode) -> str:
    """What an executed cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream").rstrip()


def exercise_version(lesson: Lesson, solution_executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The version for the learner: hints, the solution below each check and the answers for the fast are folded.

    It ends with what the executed solution printed and showed.
    """
    cells, solution = [], None
    said = {cell.source: printed(cell) for cell in tagged(solution_executed.cells, "fast")}
    for cell in lesson.cells:
        if _is(cell, "mistake") or _is(cell, "instructor"):
            continue
        if solution and not (_is(cell, "check") or _is(cell, "hint")):
            cells.append(_folded("Solution", f"```python\n{solution}\n```", "solution"))
            solution = None
        if _is(cell, "exercise"):
            solution = without_marks(cell.source)
            cells.append(_like(cell, _SOLUTION.sub(rf"\g<1>{STUB}\n", cell.source).rstrip()))
        elif _is(cell, "hint"):
            cells.append(_folded("Hint", cell.source, "hint"))
        elif _is(cell, "fast"):
            answer = f"```python\n{cell.source}\n```\n\nIt prints:\n\n```text\n{said.get(cell.source, '')}\n```"
            cells.append(_folded("Answer for the fast", answer, "fast"))
        else:
            cells.append(cell)
    return _notebook([*cells, _expected(solution_executed)])


def _expected(solution: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What should have come out: what was printed, and the lesson's pictures, attached to the cell."""
    lines, attachments = [], {}
    for cell in solution.cells:
        if cell.cell_type == "code" and printed(cell) and not (_is(cell, "check") or _is(cell, "fast")):
            lines.append(printed(cell))
    for picture in (picture for cell in tagged(solution.cells, "picture") for picture in pictures_of(cell)):
        attachments[f"expected_{len(attachments) + 1}.png"] = {"image/png": picture}
    shown = "\n\n".join(f"![What the lesson shows](attachment:{name})" for name in attachments)
    text = "```text\n" + "\n\n".join(lines) + f"\n```\n\n{shown}"
    cell = _folded("What came out when the lesson was made: compare it with yours", text, "expected")
    return nbformat.from_dict({**cell, "attachments": attachments})


def solution_version(lesson: Lesson) -> nbformat.NotebookNode:
    """The version for the teacher, and for those who read without running: every exercise is solved."""
    left_out = ("mistake", "instructor", "hint")
    cells = [cell for cell in lesson.cells if not any(_is(cell, tag) for tag in left_out)]
    return _notebook([_like(cell, without_marks(cell.source)) if _is(cell, "exercise") else cell for cell in cells])


def without_marks(source: str) -> str:
    """The solved exercise."""
    return _SOLUTION.sub(r"\g<2>", source).rstrip()


def _like(cell: nbformat.NotebookNode, source: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, metadata=cell.metadata)


def _folded(title: str, text: str, tag: str) -> nbformat.NotebookNode:
    source = f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": [tag]})


def _notebook(cells: list[nbformat.NotebookNode]) -> nbformat.NotebookNode:
    """A notebook of these cells, with ids that depend on the text alone."""
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    for number, cell in enumerate(cells):
        new = nbformat.from_dict(dict(cell))
        new["id"] = hashlib.sha256(f"{number}\n{cell.source}".encode()).hexdigest()[:8]
        notebook.cells.append(new)
    return notebook


class Heard(NamedTuple):
    """What a check said of one exercise; an empty sentence is a pass."""

    exercise: str
    before: str
    """What it said about the cell as the learner gets it."""
    of_mistakes: list[str]
    after: str
    """What it said about the folded solution, put in."""


def play(lesson: Lesson) -> Iterator[Heard]:
    """Takes the exercise version as a learner would who checks the empty cell, makes every typical mistake, and then
    unfolds the solution.

    Of the other cells only the first is executed, the imports: no check needs more. Raises whatever it raises.
    """
    notebook, mistakes, namespace = exercise_version(lesson, _notebook([])), lesson.mistakes, {"__name__": lesson.name}
    sys.path.insert(0, str(FOLDER))
    try:
        _execute(next(cell.source for cell in notebook.cells if cell.cell_type == "code"), namespace)
    finally:
        sys.path.remove(str(FOLDER))
    check = stub = None
    for cell in notebook.cells:
        if _is(cell, "exercise"):
            stub = cell
        elif _is(cell, "check"):
            check = cell.source
        elif _is(cell, "solution"):
            name, solution = function_of(stub), re.search(r"```python\n(.*)\n```", cell.source, re.DOTALL)[1]
            tries = [stub.source, *(mistake.code for mistake in mistakes[name]), solution]
            before, *wrong, after = (_said(code, check, namespace) for code in tries)
            yield Heard(name, before, wrong, after)


def _said(code: str, check: str, namespace: dict) -> str:
    _execute(code, namespace)
    try:
        _execute(check, namespace)
    except namespace["checks"].NotYet as error:
        return str(error)
    return ""


def _execute(code: str, namespace: dict) -> None:
    """Executes code as a cell, so that tracebacks know its lines."""
    file = f"<cell {hashlib.sha256(code.encode()).hexdigest()[:8]}>"
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    exec(compile(code, file, "exec"), namespace)  # noqa: S102 (our own lessons)


def _body(code: str) -> list[str]:
    """A function's lines below its first."""
    return [line.strip() for line in textwrap.dedent(code.split(":\n", 1)[1]).strip().splitlines()]


def mistakes_of(lesson: Lesson, heard: Heard) -> Iterator[tuple[str, str]]:
    """Of an exercise's typical wrong answers the telling lines, and what the check said."""
    bodies = [_body(mistake.code) for mistake in lesson.mistakes[heard.exercise]]
    last = [body[-1] for body in bodies]
    for body, sentence in zip(bodies, heard.of_mistakes, strict=True):
        yield "; ".join(body) if last.count(body[-1]) > 1 else body[-1], sentence.removeprefix(f"{heard.exercise}: ")


class Part(NamedTuple):
    """A part of the day, in minutes from its start."""

    title: str
    start: int
    end: int
    lesson: Lesson | None = None

    def clock(self, minutes: int = 0) -> str:
        """The time so many minutes after the part's start, as in "1:05"."""
        return f"{(self.start + minutes) // 60}:{(self.start + minutes) % 60:02}"


def timetable(lessons: list[Lesson]) -> list[Part]:
    """The parts of the day: the painter, the lessons, and a break after the third."""
    parts = [Part("The painter on the projector; everybody opens lesson 1 and runs its first cell", 0, 5)]
    for number, lesson in enumerate(lessons, 1):
        parts.append(Part(lesson.title, parts[-1].end, parts[-1].end + lesson.minutes, lesson))
        if number == 3:
            parts.append(Part("Break", parts[-1].end, parts[-1].end + 10))
    return parts
