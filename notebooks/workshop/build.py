"""`make workshop`: from each lesson's source its exercise and solution notebooks, and the instructor notes.

python -m notebooks.workshop.build [NAME ...]   all lessons, or those named ("2_topk"); the notes need all
"""

import sys
from collections.abc import Sequence

import nbformat

from notebooks import run
from notebooks.execution import execute_notebook
from notebooks.workshop.lessons import (
    FOLDER,
    Lesson,
    exercise_version,
    find_lessons,
    instructor_notes,
    play,
    solution_version,
)
from sae_lib.cache.artefact import cache_root, write_if_changed


def build(lesson: Lesson) -> str:
    """Writes both versions; returns one sentence that says what failed, empty if nothing did.

    A solution that fails leaves what was there.
    """
    executed = cache_root() / "workshop" / f"{lesson.name}.ipynb"
    if failure := execute_notebook(lesson.name, solution_version(lesson), executed, FOLDER).failure:
        return failure
    solution = run.without_traces(nbformat.read(executed, as_version=4))
    for kind, notebook in {"solution": solution, "exercise": exercise_version(lesson)}.items():
        content = nbformat.writes(notebook).encode() + b"\n"
        write_if_changed(FOLDER / f"{lesson.name}_{kind}.ipynb", content)
    return ""


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
    if not names:
        heard = {lesson.name: list(play(lesson)) for lesson in lessons}
        write_if_changed(FOLDER / "INSTRUCTOR.md", instructor_notes(lessons, heard).encode())
    print(*filter(None, failures), sep="\n")
    return int(any(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
