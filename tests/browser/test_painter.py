"""The painter of notebook 20 in JupyterLab, at smoke scale with the real pocket model."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from sae_lib.cache.artefact import ROOT
from tests.browser.pages import (
    DRAW_SECONDS,
    Painter,
    Quiet,
    open_notebook,
    restart_kernel,
    run_all,
    write_copy,
)

ACROSS = ((0.2, 0.45), (0.8, 0.45))
DOWN = ((0.7, 0.1), (0.7, 0.9))
PROGRESS = ("status", "progress", "cancel")
CANCEL_AT_STEP_2 = """([status, progress, cancel]) => {
    const cancelled = { at: null, offered: false };
    new MutationObserver((_, observer) => {
        if (!/step ([2-9]|\\d\\d)/.test(status.textContent)) return;
        observer.disconnect();
        cancelled.at = progress.value;
        cancelled.offered = cancel.checkVisibility() && !cancel.disabled;
        cancel.click();
    }).observe(status, { childList: true });
    return cancelled;
}"""
"""Run in the page: a fast machine is done with all steps between two looks from outside."""


@pytest.fixture(scope="module")
def page(new_page, lab, folder, source):
    """Notebook 20, run, with a second painter below the first."""
    write_copy(source, folder / "notebooks/painter.ipynb", painters=2)
    page = new_page(viewport={"width": 1366, "height": 3000})  # JupyterLab takes what is out of sight out of the page
    page.quiet = Quiet(page)
    open_notebook(page, lab, "notebooks/painter.ipynb")
    return page


@pytest.fixture
def painters(page):
    """Both painters as they open, nothing painted yet; at the end the console is empty and no other host was asked."""
    page.quiet.complaints.clear()
    painters = [Painter(root) for root in page.locator(".sae-painter").all()]
    for painter in painters:
        painter.start_again()
        painter.begin()
    yield painters
    assert page.quiet.complaints == page.quiet.elsewhere == []


@pytest.fixture
def painter(painters):
    return painters[0]


def drawn_by_the_code(painter, folder):
    """Pixels of the picture that the copied code draws in a process of its own."""
    command = [sys.executable, "-c", f"{painter.part('code').input_value()}\npicture.save('picture.png')"]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return np.asarray(Image.open(folder / "picture.png").convert("RGB"))


def test_the_notebook_runs_without_an_error_and_shows_both_widgets(page, painters):
    assert page.locator(".jp-OutputArea [data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert len(painters) == 2 and page.locator(".sae-explorer").count() == 1


def test_a_stroke_changes_the_picture_inside_the_mask_and_leaves_the_rest_nearly_still(painter):
    assert np.array_equal(painter.picture("before"), painter.picture())
    painter.stroke(*ACROSS)
    change = np.abs(painter.picture() - painter.picture("before")).mean(-1)
    inside = painter.touched(*ACROSS)
    count, grid = painter.cells()
    assert count == inside.sum() * grid**2 / inside.size
    assert change[inside].mean() > 10
    assert change[~inside].mean() < change[inside].mean() / 2


def test_the_difference_is_bright_where_the_picture_changed_and_dark_elsewhere(painter):
    assert len(np.unique(painter.picture("difference").reshape(-1, 3), axis=0)) == 1
    painter.stroke(*ACROSS)
    change = np.abs(painter.picture() - painter.picture("before")).mean(-1)
    shown = painter.picture("difference").mean(-1)
    assert np.corrcoef(change.flat, shown.flat)[0, 1] > 0.8


def test_undo_and_redo_restore_the_pictures_bit_for_bit(painter):
    pictures = [painter.picture()]
    for stroke in (ACROSS, DOWN):
        painter.stroke(*stroke)
        pictures.append(painter.picture())
    assert not any(np.array_equal(*pair) for pair in itertools.pairwise(pictures))
    for button, shown in (("undo", 1), ("undo", 0), ("redo", 1), ("redo", 2)):
        painter.press(button)
        assert np.array_equal(painter.picture(), pictures[shown]), (button, shown)


def test_the_copied_code_draws_the_same_picture_bit_for_bit_in_a_fresh_process(painter, tmp_path):
    painter.stroke(*ACROSS)
    drawn = drawn_by_the_code(painter, tmp_path)
    assert not np.array_equal(drawn, painter.picture("before"))
    assert np.array_equal(drawn, painter.picture())


def test_the_saved_picture_is_the_shown_one(painter, tmp_path):
    painter.stroke(*ACROSS)
    with painter.page.expect_download() as download:
        painter.part("save").click()
    download.value.save_as(tmp_path / "saved.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "saved.png").convert("RGB")), painter.picture())


def test_search_finds_features_by_their_meaning_and_one_of_them_is_painted(painter):
    painter.stroke(*ACROSS)
    strong = painter.picture()
    word = painter.another().locator(".meaning").inner_text()
    other = painter.find(word).filter(has_not_text=painter.strong).first
    with painter.redrawn():
        other.click()
    assert painter.part("layer").get_attribute("data-feature") == other.get_attribute("data-feature") != painter.strong
    assert not np.array_equal(painter.picture(), strong)
    assert not np.array_equal(painter.picture(), painter.picture("before"))


def test_a_stroke_is_carried_over_to_the_grid_of_another_blocks_feature(painter):
    with painter.redrawn():
        painter.find("up.0.2/").first.click()
    painter.stroke(*ACROSS)
    assert painter.cells() == (6, 8)
    coarse = painter.picture()
    with painter.redrawn():
        painter.find("up.1.1/").first.click()
    assert painter.cells() == (24, 16)
    painter.stroke((0.1, 0.9), (0.2, 0.9))
    assert painter.cells() == (27, 16)
    painter.press("undo")
    painter.press("undo")
    assert painter.cells() == (6, 8) and np.array_equal(painter.picture(), coarse)


def test_the_list_of_active_features_follows_the_picture(painter):
    painter.another()
    results = painter.root.locator(".results")
    searched = results.inner_text()
    painter.part("active").click()
    expect(results).not_to_have_text(searched, use_inner_text=True)
    expect(painter.part("search")).to_have_value("")
    of_first = results.inner_text()
    painter.fill("prompt", "a small blue star at night as a pastel")
    expect(results).not_to_have_text(of_first, use_inner_text=True)


def test_several_features_are_painted_at_once(painter):
    painter.stroke(*ACROSS)
    one = painter.picture()
    other = painter.another().get_attribute("data-feature")
    with painter.redrawn():
        painter.root.get_by_role("button", name=f"Add {other} as another layer").click()
    assert painter.part("layer").count() == 2 and np.array_equal(painter.picture(), one)
    painter.stroke(*DOWN)
    both = painter.picture()
    with painter.redrawn():
        painter.root.get_by_role("button", name=f"Remove {painter.strong}").click()
    other = painter.picture()
    assert not any(np.array_equal(*pair) for pair in itertools.combinations((one, both, other), 2))


def test_two_painters_do_not_disturb_each_other(painters):
    one, other = painters
    untouched = other.picture(), other.revision()
    one.stroke(*ACROSS)
    assert np.array_equal(other.picture(), untouched[0]) and other.revision() == untouched[1]
    drawn = one.picture()
    other.stroke(*DOWN)
    assert np.array_equal(one.picture(), drawn) and not np.array_equal(other.picture(), drawn)
    other.press("undo")
    assert np.array_equal(one.picture(), drawn) and np.array_equal(other.picture(), untouched[0])


def test_two_painters_that_draw_at_the_same_time_both_arrive(painters):
    revisions = [painter.revision() for painter in painters]
    for painter in painters:
        painter.part("brush").focus()
        painter.page.keyboard.press("Space")
    for painter, revision in zip(painters, revisions, strict=True):
        painter.wait_until_drawn(revision + 1)
    assert np.array_equal(*[painter.picture() for painter in painters])
    assert not np.array_equal(painters[0].picture(), painters[0].picture("before"))


def test_the_painter_works_by_keyboard_and_jupyterlab_does_not_listen(page, painter):
    cells, before = page.locator(".jp-Cell").count(), painter.picture()
    painter.part("brush").focus()
    for key in ("ArrowRight", "ArrowDown") * 3:
        page.keyboard.press(key)
    with painter.redrawn():
        page.keyboard.press("Space")
    change = np.abs(painter.picture() - before).sum(-1)
    assert change.any()
    with painter.redrawn():
        page.keyboard.press("Control+z")
    assert np.array_equal(painter.picture(), before)
    for key in ("a", "b", "d", "d", "x"):
        page.keyboard.press(key)
    assert page.locator(".jp-Cell").count() == cells


def test_a_longer_run_shows_its_progress_and_can_be_cancelled(page, painter):
    painter.fill("prompt", "a large blue circle")  # of no other test: base has drawn nothing of it
    painter.stroke(*ACROSS)
    before, revision = painter.picture(), painter.revision()
    cancelled = page.evaluate_handle(CANCEL_AT_STEP_2, [painter.part(name).element_handle() for name in PROGRESS])
    painter.part("model").select_option("base")
    page.wait_for_function("cancelled => cancelled.at !== null", arg=cancelled, timeout=DRAW_SECONDS * 1000)
    seen = cancelled.json_value()
    assert 0 < seen["at"] < 1 and seen["offered"]
    expect(painter.part("status")).to_have_text("ready")
    assert painter.part("cancel").is_disabled() and "Turbo, 1 step" == painter.part("model").input_value()
    assert np.array_equal(painter.picture(), before) and painter.revision() == revision
    painter.stroke(*DOWN)
    assert not np.array_equal(painter.picture(), before)


def test_only_the_steps_that_were_asked_for_of_the_base_model_are_edited(painter, tmp_path):
    painter.stroke(*ACROSS)
    with painter.redrawn():
        painter.part("model").select_option("base")
    all_steps = painter.picture()
    painter.fill("steps-start", "2")
    late = painter.picture()
    assert not any(
        np.array_equal(*pair) for pair in itertools.combinations((painter.picture("before"), all_steps, late), 2)
    )
    assert "during(layer_0, 2, 4)" in painter.part("code").input_value()
    assert np.array_equal(late, drawn_by_the_code(painter, tmp_path))
    painter.fill("steps-start", "0")
    assert np.array_equal(painter.picture(), all_steps)


def test_a_prompt_that_is_too_long_is_told_of_in_place_and_the_painter_lives_on(painter):
    painter.fill("prompt", "a red heart " * 700)
    expect(painter.part("alert")).to_contain_text("were cut")
    painter.fill("prompt", "a red heart")
    expect(painter.part("alert")).to_be_empty()
    painter.stroke(*ACROSS)
    assert not np.array_equal(painter.picture(), painter.picture("before"))


@pytest.mark.parametrize("prompt", ["красное сердце", "赤いハート", "💚"])
def test_a_prompt_in_another_script_is_told_of_in_place(painter, prompt):
    painter.fill("prompt", prompt)
    expect(painter.part("alert")).to_contain_text("never learnt")
    painter.stroke(*ACROSS)
    assert not np.array_equal(painter.picture(), painter.picture("before"))


def test_an_empty_prompt_draws_what_the_model_draws_of_itself(painter):
    before = painter.picture()
    painter.fill("prompt", "")
    assert not np.array_equal(painter.picture(), before)
    painter.stroke(*ACROSS)
    assert not np.array_equal(painter.picture(), painter.picture("before"))


def test_a_kernel_restart_in_the_middle_of_painting_is_told_of_in_place(page, painter):
    painter.stroke(*ACROSS)
    shown = painter.picture()
    restart_kernel(page)
    painter.drag(*DOWN)
    expect(painter.part("alert")).to_contain_text("run this cell again", timeout=10_000)
    assert np.array_equal(painter.picture(), shown)
    page.evaluate("document.querySelectorAll('.sae-painter').forEach(root => root.dataset.old = true)")
    run_all(page)
    again = Painter(page.locator(".sae-painter:not([data-old])").first)
    again.begin()
    again.start_again()  # it opens with painted cells, as the first one did
    again.stroke(*ACROSS)
    assert np.array_equal(again.picture(), shown)
