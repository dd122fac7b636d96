"""`make workshop`: from each lesson's source its exercise and solution notebooks; from all of them what a teacher uses.

python -m notebooks.workshop.build [NAME ...]   all lessons, or those named ("2_topk"), then pages and notes
"""

import sys
from collections.abc import Sequence

import nbformat

from notebooks import run
from notebooks.execution import execute_notebook
from notebooks.workshop.lessons import FOLDER, Lesson, exercise_version, find_lessons, play, solution_version
from notebooks.workshop.materials import PAGES, instructor_notes, pages, record_tries
from sae_lib import Assets, Painter
from sae_lib.cache.artefact import cache_root, write_if_changed
from sae_lib.paint import load_suggestions


def build(lesson: Lesson) -> str:
    """Writes both versions; returns one sentence that says what failed, empty if nothing did.

    A solution that fails leaves what was there.
    """
    executed = cache_root() / "workshop" / f"{lesson.name}.ipynb"
    if failure := execute_notebook(lesson.name, solution_version(lesson), executed, FOLDER).failure:
        return failure
    solution = run.without_traces(nbformat.read(executed, as_version=4))
    for kind, notebook in {"solution": solution, "exercise": exercise_version(lesson, solution)}.items():
        content = nbformat.writes(notebook).encode() + b"\n"
        write_if_changed(FOLDER / f"{lesson.name}_{kind}.ipynb", content)
    return ""


def build_materials(lessons: Sequence[Lesson]) -> None:
    """Writes the pages to project and to print, and the instructor notes, from the stored solutions."""
    stored = {of.name: nbformat.read(FOLDER / f"{of.name}_solution.ipynb", as_version=4) for of in lessons}
    heard, assets = {of.name: list(play(of)) for of in lessons}, Assets("pocket")
    tries = record_tries(load_suggestions(assets), Painter(assets))
    write_if_changed(FOLDER / "INSTRUCTOR.md", instructor_notes(lessons, stored, heard, tries).encode())
    for name, html in pages(lessons, stored, tries).items():
        write_if_changed(PAGES / name, html.encode())


def main(names: Sequence[str]) -> int:
    """The command line; 1 if a lesson failed, 2 for an unknown name."""
    lessons = find_lessons()
    if unknown := sorted(set(names) - {lesson.name for lesson in lessons}):
        print(
            f"no lesson {', '.join(unknown)}; there are {', '.join(lesson.name for lesson in lessons)}", file=sys.stderr
        )
        return 2
    run.use_this_interpreter()
    failures = []
    for lesson in lessons:
        if not names or lesson.name in names:
            print(f"{lesson.name} ...", flush=True)
            failures.append(build(lesson))
    if not any(failures):
        build_materials(lessons)
    print(*filter(None, failures), sep="\n")
    return int(any(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
