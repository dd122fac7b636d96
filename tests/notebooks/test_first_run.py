"""The first run at the paper's scale, rehearsed: `random/16` with counts cut to a few."""

import json
import math
import time
from pathlib import Path

import pytest
import torch

from notebooks.first_run import __main__ as command, kit as runs, machine, report, steps
from notebooks.first_run.causes import UNKNOWN, in_one_sentence, likely_cause
from notebooks.first_run.judging import (
    AGREES,
    DIFFERS,
    FAILED,
    NOT_RUN,
    REHEARSAL,
    UNPUBLISHED,
    Comparison,
    Record,
    published,
    verdict_of,
)
from sae_lib.assets import Assets
from sae_lib.companion.case_study import PRINTED
from sae_lib.saes.statistics import RunningStatistics
from tests.saes.test_checkpoints import write_published


@pytest.fixture(scope="module")
def rehearsed(empty_cache, tmp_path_factory):
    """The folder of a rehearsal's report."""
    folder = tmp_path_factory.mktemp("first_run")
    assert command.main(["--source", "random/16", "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def kit():
    return steps.Kit(Assets("sdxl", "random/16", blocks="paper"), steps.TINY)


@pytest.fixture
def real():
    """A kit that is judged as if its weights were the real ones; nothing of it is loaded."""
    return steps.Kit(Assets("sdxl", blocks="paper"), steps.FULL)


def step(name):
    return next(each for each in steps.STEPS if each.name == name)


# The whole kit


def test_a_rehearsal_runs_every_step_and_says_at_its_top_that_it_is_none(rehearsed):
    found = json.loads((rehearsed / "first_run.json").read_text())
    assert [each["step"] for each in found["steps"]] == [each.name for each in steps.STEPS]
    assert {each["verdict"] for each in found["steps"]} == {REHEARSAL}
    assert all(each["seconds"] > 0 and each["peak_gb"] > 0 and each["n"] for each in found["steps"])
    page = (rehearsed / "first_run.html").read_text()
    assert page.index("random weights, no science") < page.index("<h2>Steps</h2>")
    assert "agrees" not in page.partition("<body>")[2]


def test_the_page_needs_no_other_file_and_names_no_folder_of_this_machine(rehearsed):
    page = (rehearsed / "first_run.html").read_text()
    assert page.count("data:image/") == 4 and "<script" not in page
    assert not [word for word in ("http://", "https://", "<link") if word in page]
    for text in (page, (rehearsed / "first_run.json").read_text()):
        assert str(Path.home()) not in text and str(rehearsed) not in text


def test_a_second_run_measures_nothing_again_and_other_counts_do(rehearsed, kit, monkeypatch):
    used = [step("injection"), step("sloth")]
    records = runs.run_kit(kit, used, lambda line: None)["records"]
    assert [record.reused for record in records] == [True, True]
    other = steps.Kit(kit.assets, steps.TINY, batch=3)
    assert not runs.run_step(step("injection"), other).reused


def test_a_step_that_fails_stops_no_other_and_names_its_likely_cause(rehearsed, kit):
    def explode(kit, folder):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines")

    failing = step("sloth")._replace(name="explodes", measure=explode)
    costs = runs.forecast(kit.counts, "random/16", kit.batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "forecast", lambda *_: costs | {"explodes": (None, 1.0)})
        records = runs.run_kit(kit, [failing, step("injection")], lambda line: None)["records"]
    assert [record.verdict for record in records] == [FAILED, REHEARSAL]
    assert records[0].error == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert "--batch" in records[0].cause


def test_a_step_killed_in_the_middle_leaves_nothing_that_the_next_run_would_take(rehearsed, kit):
    runs_before = []

    def killed(kit, folder):
        (folder / "measured.json").write_text('{"half":')
        runs_before.append(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run_step(step("sloth")._replace(name="killed", measure=killed), kit)
    done = runs.run_step(step("sloth")._replace(name="killed"), kit)
    assert done.verdict == REHEARSAL and not done.reused and len(runs_before) == 1


# Verdicts


@pytest.mark.parametrize(
    ("measured", "control", "word"),
    [(9.0, 1.0, AGREES), (8.9, 1.0, DIFFERS), (None, 1.0, DIFFERS), (math.nan, 1.0, DIFFERS), (10.0, 9.5, DIFFERS)],
)
def test_a_number_agrees_within_its_tolerance_unless_its_control_does_too(measured, control, word):
    assert Comparison("found again", measured, 10.0, 1.0, "code", control).word == word


def test_an_unverified_number_is_never_printed_as_published():
    with pytest.raises(ValueError, match="needs a tolerance and a source .* 'unverified'"):
        Comparison("specificity", 0.7, 0.71, 0.1, "unverified")


def test_a_step_agrees_only_if_all_its_published_numbers_do():
    good, bad = (Comparison("x", value, 1.0, 0.1, "code") for value in (1.0, 2.0))
    none = Comparison("x", 5.0)
    assert verdict_of([good, none]) == AGREES and verdict_of([good, bad]) == DIFFERS
    assert verdict_of([none]) == verdict_of([]) == UNPUBLISHED
    assert verdict_of([good], rehearsal=True) == REHEARSAL


def curves_like(change):
    """The published curves of Figure 3, with unreadable points filled and all points changed."""
    return {
        quantity: {
            setting: {block: [change(value or 0.5) for value in curve] for block, curve in by_block.items()}
            for setting, by_block in by_setting.items()
        }
        for quantity, by_setting in published("fig3")["curves"].items()
    }


@pytest.mark.parametrize(
    ("change", "word"), [(lambda x: x + 0.015, AGREES), (lambda x: x - 0.03, DIFFERS), (lambda x: 0.0, DIFFERS)]
)
def test_figure_3_agrees_with_its_own_curves_and_not_with_a_dead_model(change, word, real):
    rows = steps.judge_figure3({"curves": curves_like(change)}, real)
    assert len(rows) == 24 and verdict_of(rows) == word


@pytest.mark.parametrize(("times", "word"), [(1.0, AGREES), (0.0, DIFFERS), (1.5, DIFFERS)])
def test_table_1_agrees_with_the_authors_and_not_with_a_dead_model(times, word, real):
    theirs = published("table1")["resnets"]
    distance = {block: times * row["lpips_mean"] for block, row in theirs.items()}
    rows = steps.judge_table1({"distance": distance}, real)
    assert len(rows) == 17 and verdict_of(rows) == word


def test_the_sloth_s_features_agree_unless_every_picture_has_them(real):
    others = [[1, 2, 3]]
    nine = [*PRINTED[:9], 0]
    assert verdict_of(steps.judge_sloth({"features": nine, "others": others}, real)) == AGREES
    assert verdict_of(steps.judge_sloth({"features": nine[:8], "others": others}, real)) == DIFFERS
    assert verdict_of(steps.judge_sloth({"features": nine, "others": [list(PRINTED)]}, real)) == DIFFERS


def statistics_like(**changes):
    shipped = {block: dict(row) for block, row in published("sae_statistics")["blocks"].items()}
    far = {block: {"distance": 0.04, "shuffled": 0.2, "features": 5_000} for block in shipped}
    single = published("sae_statistics")["one feature each"]
    return {"shipped": shipped, "single": single, "measured": far | changes}


def test_statistics_agree_with_mean_pt_unless_shuffled_ones_do_too(real):
    assert verdict_of(steps.judge_statistics(statistics_like(), real)) == AGREES
    dead = {"distance": math.nan, "shuffled": math.nan, "features": 0}
    alike = {"distance": 0.04, "shuffled": 0.04, "features": 5_000}
    for block in (dead, alike):
        assert verdict_of(steps.judge_statistics(statistics_like(**{"mid.0": block}), real)) == DIFFERS
    other = statistics_like()
    other["shipped"]["mid.0"]["mean"] += 1
    assert verdict_of(steps.judge_statistics(other, real)) == DIFFERS


def test_measured_means_are_compared_feature_by_feature():
    running = RunningStatistics(4)
    values = torch.tensor([[1.0, 2.0], [3.0, 2.0], [4.0, 0.0]])
    running.add(values, torch.tensor([[0, 1], [0, 1], [2, 3]]))  # means 2, 2, 4; the last never fires
    far = steps.far_from(running, torch.tensor([2.0, 1.0, 4.0, 9.0]))
    assert far["features"] == 3 and far["distance"] == 0.0
    assert math.isnan(steps.far_from(RunningStatistics(4), torch.ones(4))["distance"])


def test_curves_are_compared_where_they_could_be_read():
    assert steps.mean_distance([0.5, 0.7, 0.9], [0.4, None, 1.0]) == pytest.approx(0.1)
    assert math.isnan(steps.mean_distance([0.5], [0.4, 0.5]))


def test_black_pictures_and_nan_are_refused():
    for pictures in (torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), torch.nan)):
        with pytest.raises(ValueError) as error:
            steps.refuse_dead(pictures)
        assert "sdxl-vae-fp16-fix" in likely_cause(error.value)


# Causes and bad input


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("CUDA out of memory. Tried to allocate 5 GiB", "--batch"),
        ("the weights need 13.9 GB and cuda has 7.1 GB free: use a larger device", "--batch"),
        ("401 Client Error: access to model x is restricted", "licence was not accepted"),
        ("LPIPS at sdxl scale wants the extra packages: pip install '.[sdxl]'", "pip install"),
        ("there are no such files of variant=fp16", "lacks the fp16 files"),
        ("the pictures hold NaN", "sdxl-vae-fp16-fix"),
        ("'x/y' is not on this machine and cannot be downloaded: connect", "no network"),
        ("no RIEBench file was given", "--riebench"),
        ("the disk is full, 'x' could not be made", "disk is full"),
        ("no SAE of block 'mid.0' in saes", "SAE folder"),
        ("division by zero", UNKNOWN),
    ],
)
def test_an_error_points_to_its_likely_cause(error, cause):
    assert cause in likely_cause(ValueError(error))


def test_an_error_is_told_in_one_line():
    assert in_one_sentence(ValueError("first\nsecond")) == "ValueError: first"
    assert len(in_one_sentence(ValueError("x" * 1_000))) == 400


def test_without_a_gpu_real_weights_are_refused_in_one_sentence(monkeypatch, real):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (check,) = machine.check_device("", 10)
    assert check.state == machine.STOPS
    assert check.found.startswith("There is no GPU that torch can use: ") and "random/16" in check.found


@pytest.mark.parametrize(("there", "state"), [(6.0, machine.STOPS), (12.0, machine.NOTE), (80.0, machine.GOOD)])
def test_a_gpu_is_too_small_or_wants_a_smaller_batch_or_is_large_enough(there, state):
    check = machine.check_gpu("Card", there, "", 10)
    assert check.state == state and f"{there:.1f} GB free" in check.found


def test_the_batch_that_is_proposed_fits():
    check = machine.check_gpu("Card", 14.0, "", 10)
    batch = int(check.found.rpartition(" ")[2])
    assert machine.step_gb("", 1_024, batch, 2) <= 14.0 < machine.step_gb("", 1_024, 10, 2)


def test_memory_is_counted_from_shapes():
    assert machine.step_gb("", 512, 10, 2) == pytest.approx(2 * 3.47 + 8 * 4 * 2 * 1_280 * 5_120 / 1e9 + 3, abs=0.1)


def gated(error):
    class Api:
        def auth_check(self, source):
            raise error

    return Api


def test_a_licence_that_was_not_accepted_and_a_missing_network_are_one_sentence_each(monkeypatch):
    import httpx
    from huggingface_hub.errors import GatedRepoError

    answer = httpx.Response(403, request=httpx.Request("GET", "https://hub"))
    monkeypatch.setattr("huggingface_hub.HfApi", gated(GatedRepoError("gated", response=answer)))
    check = machine.check_hub("turbo", "a/b")
    assert check.state == machine.STOPS and check.found.startswith("The licence of a/b was not accepted")
    monkeypatch.setattr("huggingface_hub.HfApi", gated(ConnectionError("no route")))
    check = machine.check_hub("turbo", "a/b")
    assert check.state == machine.STOPS and check.found.startswith("There is no network and a/b is not on this machine")


@pytest.mark.parametrize("source", ["./nowhere", "nowhere", "/a/b/c"])
def test_a_folder_that_is_not_there_is_refused(source):
    check = machine.check_source("turbo", source)
    assert check.state == machine.STOPS and f"There is no folder {source!r}" in check.found


def test_what_stops_the_run_is_the_reason_of_every_step_and_the_report_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    begun = time.perf_counter()
    assert command.main(["--source", str(tmp_path), "--output", str(tmp_path / "report")]) == 1
    assert time.perf_counter() - begun < 30, "nothing was loaded"
    found = json.loads((tmp_path / "report" / "first_run.json").read_text())
    assert {each["verdict"] for each in found["steps"]} == {NOT_RUN}
    assert all(each["error"].startswith("There is no GPU") for each in found["steps"])


@pytest.mark.parametrize("arguments", [["--source", "random/3"], ["--batch", "0"], ["--steps", "all"]])
def test_wrong_arguments_are_refused_before_anything_runs(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert "random/3" in (said := capsys.readouterr().err) or "wanted at least 1" in said or "invalid choice" in said


def test_no_hash_is_invented_and_another_one_stops_the_run(tmp_path):
    file = tmp_path / "final" / "mean.pt"
    file.parent.mkdir()
    file.write_bytes(b"abc")
    right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    place = f"owner/name/{tmp_path.name}/final/mean.pt"
    assert machine.check_hash(file, {}).found == f"sha256 {right}; no published hash to compare with"
    assert machine.check_hash(file, {place: right}).state == machine.GOOD
    assert machine.check_hash(file, {place: "0" * 64}).state == machine.STOPS


def test_the_hashes_of_a_folder_s_saes_are_recorded(tmp_path):
    write_published(tmp_path, ks=(2, 3), n_f=6, d_model=3)
    wrong = steps.Kit(Assets("sdxl", "random/16", sae_folder=str(tmp_path), blocks="paper"), steps.TINY)
    assert {check.state for check in machine.check_hashes(wrong)} == {machine.STOPS}  # no SAE of these sizes
    for k in (8, 10):
        write_published(tmp_path / "right" / f"k{k}", ks=(k,), n_f=320, d_model=80)
    right = steps.Kit(Assets("sdxl", "random/16", sae_folder=str(tmp_path / "right"), blocks="paper"), steps.TINY)
    checks = machine.check_hashes(right)
    assert len(checks) == 8 * 4 and all("no published hash" in check.found for check in checks)


# The report


def test_the_report_escapes_what_it_shows(tmp_path):
    evil = "<script>alert('&')</script>"
    row = Comparison(evil, 1.0, 1.0, 0.1, "code")
    records = [Record("a", evil, AGREES, [row], evil, evil), Record("b", "B", FAILED, error=evil, cause=evil)]
    results = {"checks": [machine.Check(evil, "note", evil)], "machine": {evil: evil}, "rehearsal": False}
    page = report.write_report(tmp_path, results | {"records": records})
    html = page.read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "Of the 2 steps: 1 agrees, 1 failed." in html
    written = json.loads(page.with_suffix(".json").read_text())
    assert written["steps"][0]["comparisons"][0]["verdict"] == AGREES


def test_the_table_shows_the_number_that_is_furthest_out():
    rows = [Comparison("near", 1.0, 1.0, 0.1, "code"), Comparison("far", 1.3, 1.0, 0.2, "code")]
    record = Record("a", "A", DIFFERS, rows)
    assert report.furthest(record).name == "far"
    assert report.headline(record, False) == "1 of 2 agree; furthest: far"
