"""The sweep: every setting on the same cases, failures counted, and a killed one goes on."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from sae_lib.assets import Assets
from sae_lib.editing import edit as edit_sweep
from sae_lib.editing.cases import pocket_cases
from sae_lib.editing.edit import load_editor
from sae_lib.editing.settings import (
    EDIT_PROMPT,
    INJECTION,
    METHODS,
    ORIGINAL,
    PAPER_SETTINGS,
    PER_UNITS,
    POCKET_SETTINGS,
    POCKET_SETTINGS_FULL,
    REHEARSAL_SETTINGS,
    SDXL_SETTINGS,
    Setting,
    settings_of,
    untrained_of,
)
from sae_lib.editing.sweep import Sweep, run_sweep

CASES, ASSETS = pocket_cases(1), Assets("smoke")


@pytest.fixture(scope="module")
def editor():
    """Edits in two steps, where the library's four would take twice as long; notebook 10 edits in four."""
    editor = load_editor(ASSETS, batch=5)
    return editor._replace(call=replace(editor.call, steps=2))


@pytest.fixture(scope="module")
def sweep(editor, tmp_path_factory):
    return run_sweep(editor, CASES, REHEARSAL_SETTINGS, tmp_path_factory.mktemp("sweep"))


def nothing(picture, noun):
    """A finder that is blind."""
    return torch.zeros(0, *picture.shape[-2:], dtype=torch.bool)


def test_every_setting_has_every_score_of_the_same_cases(sweep):
    assert len(sweep.ids) + len(sweep.failed) == len(CASES)
    assert set(sweep.scores) == {*REHEARSAL_SETTINGS, ORIGINAL, EDIT_PROMPT, INJECTION}
    for told in sweep.scores.values():
        assert all(len(values) == len(sweep.ids) and values.isfinite().all() for values in told.values())
    assert {"distance", "text edited", "image edited", "success", "rest"} <= set(told)


def test_the_references_score_as_they_must(sweep):
    original, edited, injected = (sweep.scores[each] for each in (ORIGINAL, EDIT_PROMPT, INJECTION))
    assert original["distance"].abs().max() < 1e-6 and edited["distance to edited"].abs().max() < 1e-6
    torch.testing.assert_close(original["distance to edited"], edited["distance"])
    assert original["rest"].max() == 0 and original["success"].sum() <= 2 < edited["success"].sum()
    assert injected["success"].sum() > 4  # of nine: the chosen blocks carry the caption


def test_points_begin_with_the_untouched_picture_and_gains_are_beyond_it(sweep):
    (steering,) = sweep.of_method("steering")
    points = sweep.points([steering], "judge")
    assert points.shape == (len(sweep.ids), 2, 2) and not points[:, 0].any()
    wanted = sweep.scores[steering]["success"] - sweep.scores[ORIGINAL]["success"]
    assert torch.equal(points[:, 1], torch.stack([sweep.scores[steering]["rest"], wanted], 1))


def test_selected_features_are_counted_by_block(sweep):
    counts = sweep.selected[Setting("SAE", 8, 2.0)]
    untrained = sweep.selected[untrained_of(Setting("SAE", 8, 2.0))]
    assert list(counts) == list(untrained) == list(ASSETS.blocks)
    for each in (counts, untrained):
        torch.testing.assert_close(sum(each.values()), torch.full((len(sweep.ids),), 8.0))


def test_the_papers_blocks_are_edited_in_the_authors_order():
    editor = load_editor(Assets("smoke", blocks="paper"))
    assert editor.blocks == ("down.2.1", "up.0.1", "up.0.0", "mid.0") == tuple(editor.bases["SAE"].saes)
    assert load_editor(Assets("smoke", blocks="up.1.2,mid.0")).blocks == ("up.1.2", "mid.0")


def test_a_killed_sweep_goes_on_and_comes_out_the_same(editor, sweep, tmp_path, monkeypatch):
    settings = REHEARSAL_SETTINGS[:2]
    edit, done = edit_sweep.edit_cases, []

    def dies_at_the_second(cases, *rest):
        if done:
            raise KeyboardInterrupt
        done.append(len(cases))
        return edit(cases, *rest)

    monkeypatch.setattr("sae_lib.editing.sweep.edit_cases", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(editor, CASES, settings, tmp_path)
    (first,) = tmp_path.iterdir()
    written = first.stat().st_mtime_ns
    monkeypatch.setattr("sae_lib.editing.sweep.edit_cases", edit)
    again = run_sweep(editor, CASES, settings, tmp_path)
    assert first.stat().st_mtime_ns == written and again.ids == sweep.ids
    for setting in settings:
        torch.testing.assert_close(again.scores[setting]["distance"], sweep.scores[setting]["distance"])


def test_a_case_without_masks_is_counted_with_its_reason(editor, tmp_path):
    found = run_sweep(editor._replace(finder=nothing), [CASES[0], CASES[8]], REHEARSAL_SETTINGS[:1], tmp_path)
    assert found.ids == [CASES[8].id]  # "#everything" needs no finder
    assert found.failed == {CASES[0].id: f"nothing in the picture is {CASES[0].editing_phrase!r}"}


def test_the_settings_are_the_papers_and_their_pocket_counterparts():
    assert len(PAPER_SETTINGS) == 8 + 4 + 20 and set(PAPER_SETTINGS) < set(SDXL_SETTINGS)
    assert set(POCKET_SETTINGS) < set(POCKET_SETTINGS_FULL)
    for settings, each in ((POCKET_SETTINGS, 3), (POCKET_SETTINGS_FULL, 8)):
        assert Counter(setting.method for setting in settings) == dict.fromkeys(METHODS, each)
    for settings in (SDXL_SETTINGS, POCKET_SETTINGS_FULL, POCKET_SETTINGS, REHEARSAL_SETTINGS):
        assert {setting.method for setting in settings} == set(METHODS) and len(set(settings)) == len(settings)
    for method, theirs, ours in (("SAE", 20_480, PER_UNITS), ("neurons", 204_800, PER_UNITS)):
        paper = {setting.units / theirs for setting in PAPER_SETTINGS if setting.method == method}
        assert paper <= {setting.units / ours for setting in POCKET_SETTINGS_FULL if setting.method == method}
    assert settings_of(Assets("sdxl")) == SDXL_SETTINGS
    assert settings_of(Assets("sdxl", source="random/16")) == REHEARSAL_SETTINGS


def test_pocket_settings_keep_their_share_of_the_features_whatever_the_blocks():
    assert settings_of(Assets("pocket", blocks="paper")) == POCKET_SETTINGS
    one = [Setting("SAE", 16, 2.0), Setting("steering", 0, 2.0)]
    assert [each.units for each in settings_of(Assets("pocket", blocks="mid.0,up.1.2"), one)] == [
        6,
        0,
    ]  # 512 + 256 of 2,048


def test_scores_survive_the_file_they_are_kept_in(sweep):
    part = {"ids": ["a"], "categories": [1], "failed": {}, "specks": 0, "selected": {}}
    part["scores"] = {json.dumps(Setting("SAE", 8, 2.0)): {"distance": [0.5]}}
    joined = Sweep.join([part, part | {"ids": ["b"]}])
    assert joined.ids == ["a", "b"] and joined.scores[Setting("SAE", 8, 2.0)]["distance"].tolist() == [0.5, 0.5]


def test_no_number_depends_on_how_many_cases_are_done_at_once(editor, sweep, tmp_path):
    settings = [Setting("shuffled masks", 8, 2.0), Setting("neurons, mean", 50, 2.0)]
    again = run_sweep(editor._replace(at_once=2), CASES[:4], settings, tmp_path)
    for setting in settings:
        for name, values in again.scores[setting].items():
            torch.testing.assert_close(values, sweep.scores[setting][name][:4], atol=1e-4, rtol=1e-4)


def test_a_sweep_of_which_no_case_has_masks_is_empty_and_says_why(editor, tmp_path):
    found = run_sweep(editor._replace(finder=nothing), CASES[:1], REHEARSAL_SETTINGS, tmp_path)
    assert found.ids == [] and found.scores == {} and len(found.failed) == 1


def test_a_case_of_which_one_method_makes_no_picture_fails_for_all(editor, tmp_path, monkeypatch):
    draw = edit_sweep.draw_edited

    def overflows(pipe, prompts, call, noise, maps):
        pictures = draw(pipe, prompts, call, noise, maps)
        if any("/" in site for site in maps):  # the neurons' change
            pictures[0] = torch.nan
        return pictures

    monkeypatch.setattr(edit_sweep, "draw_edited", overflows)
    found = run_sweep(editor, CASES[4:6], [Setting("SAE", 8, 2.0), Setting("neurons", 50, 2.0)], tmp_path)
    assert found.failed == {CASES[4].id: "no finite picture by neurons, 50 units, strength 2"}
    assert found.ids == [CASES[5].id] and all(len(told["distance"]) == 1 for told in found.scores.values())
