"""The lessons: both versions come from one source, checks fail and pass when they should, and say what is wrong; what a
teacher projects, prints and reads holds their numbers."""

import functools
import re
import signal
import time
from types import SimpleNamespace

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup

from notebooks import run
from notebooks.execution import execute_notebook
from notebooks.workshop import lessons, materials
from sae_lib import Assets
from sae_lib.paint import load_suggestions

LESSONS = lessons.find_lessons()
PAGES = [materials.PAGES / f"{name}.html" for name in materials.PAGE_NAMES]
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


def stored(lesson, kind):
    return nbformat.read(lessons.FOLDER / f"{lesson.name}_{kind}.ipynb", as_version=4)


def cells(notebook):
    return [(cell.id, cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


@pytest.fixture
def classroom(monkeypatch):
    monkeypatch.syspath_prepend(str(lessons.FOLDER))
    import classroom

    return classroom


@functools.cache
def soup_of(name):
    return BeautifulSoup((materials.PAGES / f"{name}.html").read_text(), "html.parser")


@functools.cache
def heard_of(name):
    (lesson,) = [lesson for lesson in LESSONS if lesson.name == name]
    return list(lessons.play(lesson))


def pictures_in(solution):
    return [picture for cell in lessons.tagged(solution.cells, "picture") for picture in lessons.pictures_of(cell)]


@pytest.fixture(scope="module")
def tries():
    """The painter's buttons, without pictures: another machine may draw them with another last digit."""
    shown = SimpleNamespace(before=torch.zeros(3, 8, 8), after=torch.zeros(3, 8, 8))
    return materials.record_tries(load_suggestions(Assets("pocket")), SimpleNamespace(draw=lambda edit: shown))


@each_lesson
def test_both_stored_versions_are_what_the_source_gives(lesson):
    assert cells(stored(lesson, "exercise")) == cells(lessons.exercise_version(lesson, stored(lesson, "solution"))), (
        "run make workshop"
    )
    assert cells(stored(lesson, "solution")) == cells(lessons.solution_version(lesson)), "run make workshop"


def test_every_stored_lesson_has_a_source():
    wanted = {f"{lesson.name}_{kind}" for lesson in LESSONS for kind in ("exercise", "solution")}
    assert {path.stem for path in lessons.FOLDER.glob("*.ipynb")} == wanted


@each_lesson
def test_the_exercise_version_gives_nothing_away(lesson):
    for cell in stored(lesson, "exercise").cells:
        tags = cell.metadata.get("tags", ())
        assert not {"mistake", "instructor"} & set(tags)
        assert "BEGIN SOLUTION" not in cell.source and not cell.get("outputs")
        assert ("<details>" in cell.source) == bool({"hint", "solution", "fast", "expected"} & set(tags))
        assert (lessons.STUB in cell.source) == ("exercise" in tags)


@each_lesson
def test_the_solution_version_is_executed_and_without_errors(lesson):
    code = [cell for cell in stored(lesson, "solution").cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    passed = "".join(output.get("text", "") for output in outputs)
    assert passed.count("✓") == len(lesson.mistakes)


@each_lesson
def test_a_lesson_says_what_it_teaches_and_what_it_takes(lesson):
    assert re.match(r"Lesson \d: ", lesson.title) and 20 <= lesson.minutes <= 35
    assert lesson.says_after("You will be able to") and lesson.says_after("You need")
    text = "\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    for wanted in ("**What we see.**", "**Take away.**", "## For the fast", "**They will ask**", "**Skip first**"):
        assert wanted in text
    assert all(len(each) >= 3 for each in lesson.mistakes.values()), "three typical wrong answers an exercise"


@each_lesson
def test_a_lessons_first_cell_of_code_has_at_most_eight_lines(lesson):
    first = next(cell for cell in lesson.cells if cell.cell_type == "code")
    assert len(first.source.splitlines()) <= 8


@each_lesson
def test_a_lessons_minute_marks_leave_no_gap_and_end_with_its_time(lesson):
    starts, ends = [step.start for step in lesson.steps], [step.end for step in lesson.steps]
    assert starts == [0, *ends[:-1]] and ends[-1] == lesson.minutes and starts < ends
    assert 3 <= len(lesson.steps) <= 6, "what the projector's page has room for"


@each_lesson
def test_a_lesson_ends_with_what_should_have_come_out_and_answers_for_the_fast(lesson):
    exercise, solution = stored(lesson, "exercise"), stored(lesson, "solution")
    last = exercise.cells[-1]
    shown = [attached["image/png"] for attached in last.attachments.values()]
    assert shown == pictures_in(solution) and shown
    assert lessons.printed(lessons.tagged(solution.cells, "numbers")[0]) in last.source
    tasks = re.search(r"## For the fast\n(.*)", "\n".join(cell.source for cell in lesson.cells), re.DOTALL)[1]
    code = lessons.tagged(solution.cells, "fast")
    assert all(map(lessons.printed, code)) and all(f"{number}. " in tasks for number in (1, 2, 3))
    answers = " ".join(cell.source.splitlines()[0] for cell in code)
    assert all(f"{number}. " in answers for number in (1, 2, 3)), "an answer per task"
    folded = "\n".join(cell.source for cell in lessons.tagged(exercise.cells, "fast"))
    assert all(lessons.printed(cell) in folded for cell in code)


def test_the_workshop_takes_three_hours_and_begins_with_the_painter():
    parts = lessons.timetable(LESSONS)
    assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])] and parts[-1].end == 180
    assert (parts[0].start, parts[0].end) == (0, 5) and "painter" in parts[0].title
    assert [part.end - part.start for part in parts if part.lesson] == [lesson.minutes for lesson in LESSONS]
    assert parts[2].clock(35) == "1:00"


def test_the_stored_pages_and_notes_are_what_the_lessons_give(tries):
    solutions = {lesson.name: stored(lesson, "solution") for lesson in LESSONS}
    heard = {lesson.name: heard_of(lesson.name) for lesson in LESSONS}
    notes = materials.instructor_notes(LESSONS, solutions, heard, tries)
    assert (lessons.FOLDER / "INSTRUCTOR.md").read_text() == notes, "run make workshop"

    def without_drawn(html):
        demo, rest = html.split('<section id="lesson-1">') if "lesson-1" in html else ("", html)
        return re.sub(r"data:[^\"]+", "", demo) + rest

    for name, html in materials.pages(LESSONS, solutions, tries).items():
        assert without_drawn((materials.PAGES / name).read_text()) == without_drawn(html), "run make workshop"


@each_lesson
def test_the_page_to_project_has_the_lessons_question_steps_picture_check_and_numbers(lesson):
    section, solution = soup_of("slides").find(id=f"lesson-{lesson.name[0]}"), stored(lesson, "solution")
    assert section.h2.text == lesson.title.split(": ", 1)[1]
    assert section.find(class_="question").text == lesson.question.replace("*", "") and lesson.question.endswith("?")
    assert [step.b.text for step in section.select(".steps li")] == [f"{of.start} to {of.end}" for of in lesson.steps]
    shown = [image["src"].removeprefix("data:image/png;base64,") for image in section.select("img")]
    assert shown == pictures_in(solution)[:2] and shown and all(image["alt"] for image in section.select("img"))
    lines = section.pre.text.splitlines()
    assert lines and all(len(line) <= 100 for line in lines)
    said = [lessons.printed(cell) for cell in solution.cells if cell.cell_type == "code"]
    assert all(any(line in text for text in said) for line in lines)
    assert section.find(class_="done").code.text in said


def test_the_demo_presses_the_painters_buttons_in_the_notes_and_on_the_first_page(tries):
    notes, section = (lessons.FOLDER / "INSTRUCTOR.md").read_text(), soup_of("slides").find(id="painter")
    assert tries and len(section.select("img")) == 2 * len(tries)
    for one in tries:
        assert f'the button "{one.words}"' in notes and one.count in notes
        assert one.words in section.text and one.caption in section.text
    for before, after in (pair.select("img") for pair in section.select(".pair")):
        assert before["src"] != after["src"], "each button changes its picture"


@pytest.mark.parametrize("path", [*PAGES, lessons.FOLDER / "INSTRUCTOR.md"], ids=lambda path: path.name)
def test_pages_and_notes_lead_to_files_that_are_there_and_load_nothing(path):
    text = path.read_text()
    links = re.findall(r'(?:href|src)="([^"]+)"', text) + re.findall(r"\]\(([^)]+)\)", text)
    files = [link.split("#")[0] for link in links if not link.startswith(("data:image/png;base64,", "#"))]
    assert not [link for link in files if "//" in link]
    assert not [link for link in files if not (path.parent / link).is_file()]
    assert "<link" not in text and "<script src" not in text and "@import" not in text


def test_the_handouts_lines_of_code_run_and_change_the_picture():
    code = soup_of("handout").find(id="code").text
    assert all(f"{number}. " in code for number in (1, 2, 3))
    namespace = {}
    exec(code, namespace)  # noqa: S102 (our own handout)
    assert namespace["activations"].count_nonzero() > 0
    assert not torch.equal(namespace["before"], namespace["after"])


@each_lesson
def test_every_check_fails_before_passes_after_and_says_what_is_wrong_with_typical_answers(lesson):
    notes, heard = (lessons.FOLDER / "INSTRUCTOR.md").read_text(), heard_of(lesson.name)
    assert [each.exercise for each in heard] == list(lesson.mistakes)
    for exercise, before, of_mistakes, after in heard:
        assert "not written yet" in before and after == "", (exercise, before, after)
        for mistake, sentence in zip(lesson.mistakes[exercise], of_mistakes, strict=True):
            assert mistake.says in sentence, mistake.code
            assert sentence.removeprefix(f"{exercise}: ") in notes, "run make workshop"


FEWER = {
    "3_red": {"192": "64"},
    "4_transfer": {"24": "8", "CallSettings(20,": "CallSettings(5,", "range(19)": "range(4)"},
    "5_edit": {"24": "8"},
    "6_claim": {"192": "64"},
}
"""Counts of pictures and steps in the code of lessons, and the smaller ones of a test; `make workshop` runs all."""


def with_fewer(lesson):
    """The solution version, every cell of it, on fewer pictures."""
    notebook = lessons.solution_version(lesson)
    for count, fewer in FEWER.get(lesson.name, {}).items():
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and count in cell.source]
        assert code, f"{lesson.path.name} counts no {count}"
        for cell in code:
            cell.source = cell.source.replace(count, fewer)
    return notebook


@each_lesson
def test_the_solution_notebook_runs(lesson, tmp_path):
    run.use_this_interpreter()
    notebook = with_fewer(lesson)
    assert execute_notebook(lesson.name, notebook, tmp_path / "executed.ipynb", lessons.FOLDER).failure == ""


def double(x):
    return 2 * x


def refuse(x):
    raise ValueError


WRONG = {
    "stops with ValueError in the line `raise ValueError`: it says no more": refuse,
    "wants a function and got": double(torch.ones(2)),
    "gives nothing back \\(None\\). It prints 'two', but": lambda x: print("two"),
    "gives nothing back \\(None\\). End it with": lambda x: None,
    "gives a list; wanted a tensor": lambda x: [2.0, 2.0],
    "a tensor of shape \\[1, 2\\]; wanted \\[2\\]": lambda x: 2 * x[None],
    "on the device meta; wanted cpu": lambda x: torch.ones(2, device="meta"),
    "is right in 1 of 2 entries; at \\[1\\] it gives 3, wanted 2": lambda x: torch.tensor([2.0, 3.0]),
    "stops with ZeroDivisionError": lambda x: 1 / 0,
    "changes the tensor that it was given": lambda x: x.mul_(2),
    "it is not doubled": lambda x: x.clone(),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_an_answer_of_any_kind_gets_one_clear_sentence(sentence, classroom):
    with pytest.raises(classroom.NotYet, match=sentence) as caught:
        classroom.expect(WRONG[sentence], (torch.ones(2),), torch.full((2,), 2.0), {"it is not doubled": torch.ones(2)})
    assert "\n" not in str(caught.value)


def test_the_right_answer_passes_and_what_it_prints_is_not_shown(classroom, capsys):
    classroom.expect(lambda x: (print("loud"), 2 * x)[1], (torch.ones(2),), torch.full((2,), 2.0))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background job"])
def test_an_endless_loop_is_stopped_and_what_it_prints_fills_no_memory(classroom, monkeypatch, handler):
    def endless():
        while True:
            print("again" * 100)

    monkeypatch.setattr(classroom, "SECONDS", 0.3)
    start, before = time.monotonic(), signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(classroom.NotYet, match="stopped after 0.3 s: does one of its loops never end"):
            classroom.ask(endless)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 5
    heard = classroom._Heard()
    for _ in range(1000):
        heard.write("again" * 100 + "\n")
    assert len(heard.text) == 40 and heard.lines == 1000


def test_the_learners_own_interrupt_is_not_mistaken_for_a_loop(classroom):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classroom.ask(interrupted)


def test_a_sentence_in_a_notebook_comes_without_a_traceback(classroom):
    assert classroom.NotYet("a row is missing")._render_traceback_() == ["Not yet. a row is missing"]


def test_a_small_laptop_and_a_folder_that_cannot_be_written_are_told_of(classroom, monkeypatch, capsys):
    monkeypatch.setattr(classroom.psutil, "virtual_memory", lambda: SimpleNamespace(available=0.9e9, total=4e9))
    monkeypatch.setattr(classroom.os, "access", lambda path, mode: False)
    monkeypatch.setattr(classroom, "use_house_style", lambda: None)
    with classroom.plt.rc_context():
        classroom.start()
    memory, folder = capsys.readouterr().out.splitlines()
    assert "has 0.9 GB of its 4 GB of memory free and a lesson needs 1.5: close other programs" in memory
    assert "This folder cannot be written, so your answers will not be saved" in folder


def test_a_laptop_that_will_do_is_told_nothing(classroom, monkeypatch, capsys):
    monkeypatch.setattr(classroom.psutil, "virtual_memory", lambda: SimpleNamespace(available=2e9, total=4e9))
    with classroom.plt.rc_context():
        classroom.start()
    assert capsys.readouterr().out == ""


def test_a_solution_that_fails_leaves_the_stored_lesson_as_it_was(tmp_path, monkeypatch):
    from notebooks.workshop import build

    source = tmp_path / "9_broken.py"
    source.write_text("# %% [markdown]\n# # Lesson 9\n\n# %%\n1 / 0\n")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    (tmp_path / "9_broken_solution.ipynb").write_text("as it was")
    run.use_this_interpreter()
    failure = build.build(lessons.Lesson(source, run.read_source(source).cells))
    assert "9_broken failed in cell 1: ZeroDivisionError" in failure
    assert (tmp_path / "9_broken_solution.ipynb").read_text() == "as it was"


def test_an_unknown_lesson_is_refused(capsys):
    from notebooks.workshop import build

    assert build.main(["7_nothing"]) == 2
    assert "no lesson 7_nothing; there are 1_update" in capsys.readouterr().err


def test_a_difference_picture_is_grey_where_nothing_changed_and_brighter_where_more_was_added(classroom):
    before, after = torch.tensor([0.25, 0.25, 1.0, 0.0]), torch.tensor([0.25, 0.5, 0.75, 1.0])
    assert classroom.difference(before, after).tolist() == [0.5, 0.75, 0.25, 1.0]


def test_lesson_3_finds_what_its_prose_says():
    (lesson,) = (lesson for lesson in LESSONS if lesson.name == "3_red")
    outputs = [output for cell in stored(lesson, "solution").cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    drawn = re.findall(r"^(\S+)/\d+ +red is seen in +(\d+)%; with random features +(\d+)%", text, re.MULTILINE)
    rise = {block: int(own) - int(random) for block, own, random in drawn}
    assert rise["up.1.2"] >= 30 and rise["down.2.1"] <= 10 and rise["up.1.1"] <= 10
    found = re.findall(r"^red +(\S+)/\d+ +(\S+) +(\S+) +(\S+) +(\d+)%", text, re.MULTILINE)
    other_half, as_good = ({block: float(row[i]) for block, *row in found} for i in (1, 3))
    assert as_good["up.1.2"] <= 5 and as_good["down.2.1"] <= 5 and as_good["up.1.1"] > 5
    assert other_half["down.2.1"] > 0.3 > abs(other_half["up.1.1"])
    correct = re.search(r"^up.1.1 +correct: feature (\d+)%.*ridge regression (\d+)%", text, re.MULTILINE)
    assert int(correct[1]) <= 55 and int(correct[2]) >= 60, "red is there, and no feature reads it"
