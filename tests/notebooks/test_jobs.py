"""Several notebooks at once: notebooks/jobs.py and what it stands on, on made-up numbers and on
notebooks of seconds."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from rich.console import Console

from notebooks import costs, execution, jobs, machine, progress, run, summary
from notebooks.account import Account
from notebooks.costs import Cost
from notebooks.execution import Outcome, Step
from sae_lib.cache.artefact import ROOT, cache_root

DRIVER = """
import functools, pathlib, sys
from notebooks import run
run.find_sources = functools.partial(run.find_sources, folder=pathlib.Path(sys.argv[1]))
run.leave(run.main(sys.argv[2:]))
"""
"""`notebooks/run.py` with the notebooks of another folder."""
TIMED = """\
# %% tags=["parameters"]
scale: str = "pocket"  # of nothing

# %%
import time
from pathlib import Path

start = time.time()
time.sleep(4)
_ = Path("NAME.times").write_text(f"{start} {time.time()}")
"""
ENDLESS = """\
# %%
import os, time
from pathlib import Path

Path("pid").write_text(str(os.getpid()))
time.sleep(600)
"""


def outcome(name, seconds=10.0, failure="", **account):
    return Outcome(name, seconds, failure, Account(**account))


def write_sources(folder, **texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text.replace("NAME", name))
    return run.find_sources(folder=folder)


# Order, memory, time: made-up numbers.


def test_the_long_come_before_the_short_and_99_last():
    lengths = {"01_short": Cost(10), "02_long": Cost(90), "99_scorecard": Cost(500)}
    assert jobs.in_order(lengths) == ["02_long", "01_short", "99_scorecard"]


def test_what_makes_an_artefact_early_starts_before_what_needs_it_late():
    lengths = {"04_transfer": Cost(400), "11_riebench_results": Cost(600), "03_train_saes": Cost(300)}
    assert jobs.in_order(lengths) == ["03_train_saes", "11_riebench_results", "04_transfer"]
    del lengths["04_transfer"]
    assert jobs.in_order(lengths) == ["11_riebench_results", "03_train_saes"]


def test_99_starts_when_all_others_have_ended():
    assert jobs.next_of(["99_scorecard"], ["01_model"]) is None
    assert jobs.next_of(["04_transfer", "99_scorecard"], ["03_train_saes"]) == "04_transfer"
    assert jobs.next_of(["99_scorecard"], []) == "99_scorecard" and jobs.next_of([], []) is None


@pytest.mark.parametrize(
    ("free", "running", "room"),
    [
        (2.0, [], True),
        (1.9, [], False),
        (3.0, [(2.0, 1.0)], True),
        (2.9, [(2.0, 1.0)], False),
        (2.0, [(1.0, 3.0)], True),
    ],
)
def test_a_notebook_of_2_gb_starts_if_it_fits_beside_what_the_running_ones_will_still_take(free, running, room):
    assert jobs.fits(2.0, free, running) is room


def test_memory_holds_as_many_as_it_does_of_the_largest_but_one_at_least():
    assert jobs.most_at_once(6.0, [1.0, 3.0, 2.0, 2.0]) == 2  # 3 + 2, and the other 2 no more
    assert jobs.most_at_once(9.0, [1.0, 3.0, 2.0, 2.0]) == 4 and jobs.most_at_once(0.5, [1.0]) == 1


def test_less_memory_than_jobs_is_told_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(machine, "free_gb", lambda: 18.0)
    assert run._at_once(16, [Cost(1, 2.9)] * 14) == 6
    assert capsys.readouterr().out == (
        "JOBS=16: memory allows 6 notebooks at once (18.0 GB free, up to 2.9 GB each); running 6\n"
    )
    assert run._at_once(16, [Cost(1, 2.9)] * 3) == 3 and capsys.readouterr().out == ""


def test_the_time_left_is_that_of_the_core_that_ends_last():
    assert jobs.seconds_left([30.0, 10.0], [50.0, 5.0], jobs=2) == 60.0  # 10 + 50 on one core, 30 + 5 on the other
    assert jobs.seconds_left([30.0], [50.0], jobs=2) == 50.0 and jobs.seconds_left([], [], jobs=1) == 0.0


def test_a_machine_that_took_twice_as_long_is_expected_to_go_on_so():
    assert jobs.pace([(20.0, 10.0), (40.0, 20.0)]) == 2.0 and jobs.pace([]) == 1.0


@pytest.mark.parametrize("words", ["0", "-1", "1.5", "x", "", "²"])
def test_jobs_that_are_no_number_from_1_up_are_refused_in_one_sentence(words):
    with pytest.raises(ValueError, match=f"JOBS is {words!r}: .* whole number from 1 up; leave it out for [0-9]+"):
        jobs.count_jobs(words, "pocket")


def test_by_default_there_is_a_job_per_core_and_at_sdxl_scale_one():
    assert jobs.count_jobs(None, "pocket") == machine.cores()
    assert jobs.count_jobs(None, "sdxl") == 1 and jobs.count_jobs("3", "sdxl") == 3


def test_the_command_line_refuses_bad_jobs_with_2_and_no_traceback(capsys, empty_cache):
    assert run.main(["reproduce", "--jobs", "1.5"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("JOBS is '1.5'") and len(told.err.splitlines()) == 1 and told.out == ""


# The machine: folders as Linux has them.


def write_group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_a_containers_quota_and_limit_are_found_in_control_groups_of_version_2(tmp_path):
    (tmp_path / "self").write_text("0::/outer/inner\n")
    write_group(tmp_path / "outer", cpu__max="150000 100000", memory__max=3_000_000_000, memory__current=2_500_000_000)
    write_group(tmp_path / "outer", memory__stat="anon 7\ninactive_file 500000000")
    write_group(tmp_path / "outer" / "inner", cpu__max="max 100000", memory__max="max", memory__current=5)
    assert machine.cores(tmp_path, tmp_path / "self") == 1
    assert machine.free_gb(tmp_path, tmp_path / "self") == 1.0


def test_a_containers_quota_and_limit_are_found_in_control_groups_of_version_1(tmp_path):
    (tmp_path / "self").write_text("5:memory:/box\n4:cpu,cpuacct:/box\n1:name=systemd:/\n")
    write_group(tmp_path / "cpu,cpuacct" / "box", cpu__cfs_quota_us=100_000, cpu__cfs_period_us=100_000)
    write_group(tmp_path / "memory" / "box", memory__limit_in_bytes=2_000_000_000, memory__usage_in_bytes=1_500_000_000)
    write_group(tmp_path / "memory" / "box", memory__stat="total_inactive_file 0")
    assert machine.cores(tmp_path, tmp_path / "self") == 1
    assert machine.free_gb(tmp_path, tmp_path / "self") == 0.5


def test_without_control_groups_the_machine_is_what_counts(tmp_path):
    assert 1 <= machine.cores(tmp_path, tmp_path / "none") <= os.cpu_count()
    assert 0 < machine.free_gb(tmp_path, tmp_path / "none") <= psutil.virtual_memory().total / 1e9


# Costs.


def test_what_was_measured_here_is_preferred_and_merged_with_what_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    committed = costs.known("pocket")
    costs.keep("pocket", [outcome("04_transfer", 7.0, peak_gb=1.5), outcome("01_model_and_blocks", failure="failed")])
    costs.keep("smoke", [outcome("04_transfer", 2.0)])
    costs.keep("pocket", [outcome("00_other", 3.0, peak_gb=0.5)])
    assert costs.known("pocket") == committed | {"04_transfer": Cost(7.0, 1.5), "00_other": Cost(3.0, 0.5)}
    assert costs.known("smoke")["04_transfer"] == Cost(2.0, 0.0)


def test_a_damaged_file_of_times_is_no_reason_not_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    costs.measured_file().write_text("{")
    assert "04_transfer" in costs.known("pocket")


def test_committed_costs_are_rounded_and_only_those_of_notebooks_that_computed_everything(tmp_path):
    file = tmp_path / "costs.json"
    file.write_text(
        '{"pocket": {"01_a": {"seconds": 5, "peak_gb": 1.0, "more": 3}}, "smoke": {"01_a": {"seconds": 1}}}'
    )
    measured = [outcome("01_a", 123.4, peak_gb=1.234, reused=("of_this_run",)), outcome("02_b", reused=("old",))]
    costs.commit(measured, {"old"}, file)
    entry = {"seconds": 120, "peak_gb": 1.2, "more": 3}
    assert json.loads(file.read_text()) == {"pocket": {"01_a": entry}, "smoke": {"01_a": {"seconds": 1}}}


def test_the_committed_costs_know_every_notebook():
    names = {source.stem for source in run.find_sources()}
    stored = json.loads(costs.COMMITTED.read_text())
    assert set(stored["pocket"]) == set(stored["smoke"]) == names


# What a person sees.


def test_times_are_told_as_people_tell_them():
    assert [progress.clock(each) for each in (5.4, 192, 3_723)] == ["0:05", "3:12", "1:02:03"]
    assert [progress.roughly(each) for each in (20, 80, 540, 7_400)] == [
        "less than a minute",
        "about a minute",
        "some 9 min",
        "some 2 h",
    ]


def test_without_a_terminal_a_line_tells_of_each_start_each_end_and_each_quiet_minute(capsys):
    running = jobs.Running("04_transfer", Cost())
    running.step = Step(12, 57, "4.2 Settings", 1)
    with progress.lines_for(14) as show:
        show.started("04_transfer")
        show.tick([running], 5, 600)
        show.last -= progress.HEARTBEAT
        show.tick([running], 5, 600)
        show.tick([running], 5, 600)
        show.ended(outcome("04_transfer", 192), 6, 540)
        show.ended(outcome("99_scorecard", 5, "failed"), 14, 0)
    assert capsys.readouterr().out.splitlines() == [
        "04_transfer ...",
        "running 04_transfer 12/57; 5 of 14, some 10 min left",
        "04_transfer done in 3:12, 6 of 14, some 9 min left",
        "99_scorecard FAILED after 0:05, 14 of 14",
    ]


def test_on_a_terminal_each_running_notebook_has_a_line_with_its_cell_and_heading():
    show, screen = progress.LiveLines(14), io.StringIO()
    show.live.console = Console(file=screen, force_terminal=True, width=60, highlight=False)
    running = jobs.Running(
        "04_transfer", Cost(), step=Step(12, 57, "4.2 The settings, which are long enough to be cut", 1)
    )
    with show:
        show.tick([running], 5, 600)
    told = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).split("\n")
    assert re.match(r"04_transfer +0:00 +12/57 +4\.2 The settin…", told[0])
    assert told[1].startswith("done 5 of 14, some 10 min left")


def test_the_table_compares_with_the_committed_records(tmp_path, empty_cache, monkeypatch):
    monkeypatch.setattr(summary, "committed_records", lambda name: {"square": {"of": name}})
    monkeypatch.setattr(summary, "compare", lambda committed, fresh: f"{len(committed)} with {len(fresh)}")
    monkeypatch.setattr(summary, "conclusion", lambda comparisons: f"Concluded: {comparisons['01_a']}.")
    monkeypatch.setattr(summary, "figure_folder", lambda run: tmp_path / "figures" / run.notebook)
    (tmp_path / "figures/01_a").mkdir(parents=True)
    (tmp_path / "figures/01_a/square.json").write_text('{"result": {"verdicts": [{"word": "holds"}]}}')
    of = {name: SimpleNamespace(notebook=name, compared_with="pocket") for name in ("01_a", "02_b")}
    ended = [outcome("01_a", 61, made=("x",), reused=("y", "z")), outcome("02_b", failure="02_b failed in cell 3")]
    told = summary.summary(ended, of, time.time() - 60, tmp_path / "copies")
    assert re.fullmatch(r"01_a +1:01 +1 +1/2 +1 holds +1 with 1", told[1])
    assert re.fullmatch(r"02_b +0:10 +0 +0/0 +FAILED +-", told[2]) and "02_b failed in cell 3" in told
    assert f"{tmp_path / 'figures'}/, as PNG" in told[-3] and told[-1] == "Concluded: 1 with 1."


def test_artefacts_of_an_older_cache_are_named_with_the_command_that_removes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    assert summary._left_over() == []
    for name, told in {"saes-1": '{"library": ""}', "saes-2": '{"code": ""}'}.items():
        (tmp_path / "artefacts" / name).mkdir(parents=True)
        (tmp_path / "artefacts" / name / "inputs.json").write_text(told)
    (line,) = summary._left_over()
    assert line.startswith("The cache holds 1 artefact (0 MB) of an older version") and "make fresh" in line


# With kernels.


def test_two_jobs_overlap_one_does_not_and_both_write_the_same_files(tmp_path, empty_cache, capsys):
    sources = write_sources(tmp_path / "src", **{"01_a": TIMED, "02_b": TIMED})
    stored, spans = {}, {}
    for count in ("1", "2"):
        folder = tmp_path / count
        folder.mkdir()
        assert run.build(sources, folder, count) == []
        stored[count] = {path.name: path.read_bytes() for path in folder.glob("*")}
        spans[count] = sorted(
            tuple(map(float, path.read_text().split())) for path in cache_root().glob("build/*.times")
        )
    assert stored["1"] == stored["2"] and len(stored["1"]) == 2
    assert spans["1"][0][1] < spans["1"][1][0] and spans["2"][0][1] > spans["2"][1][0]
    assert "01_a done in 0:0" in capsys.readouterr().out
    assert not list(cache_root().glob("build/.unfinished*"))


def test_a_notebook_that_fails_stops_no_other_and_the_table_says_where_to_look(tmp_path, empty_cache, capsys):
    good, bad = "# %%\n1\n", "# %%\nraise ValueError('first line\\nsecond line')\n"
    parameters = '# %% tags=["parameters"]\nscale: str = "smoke"\nsource: str = ""\nseed: int = 0\n\n'
    sources = write_sources(
        tmp_path / "src", **{"01_bad": parameters + bad, "02_good": parameters + good, "99_last": parameters + good}
    )
    (failure,) = run.reproduce(sources, tmp_path / "copies", {"scale": "smoke"}, "2")
    log = tmp_path / "copies" / "01_bad.ipynb"
    assert failure == f"01_bad failed in cell 2: ValueError: first line (see {log})" and log.is_file()
    printed = capsys.readouterr().out
    assert printed.index("02_good done") < printed.index("99_last ...") and failure in printed
    assert re.search(r"^01_bad .* FAILED +-$", printed, re.MULTILINE)


def test_the_account_counts_inside_the_kernel_and_leaves_no_trace_in_the_notebook(tmp_path, empty_cache):
    (tmp_path / "01_count.py").write_text(
        "# %% [markdown]\n# ## 1.1 Counts\n\n# %%\nimport torch\nfrom sae_lib.pocket.models import build_unet\n\n"
        "# %%\nmodel, told = build_unet(), {'text_embeds': torch.zeros(3, 128), 'time_ids': torch.zeros(3, 6)}\n"
        "for rows in (3, 2):\n    added = {name: each[:rows] for name, each in told.items()}\n"
        "    model(torch.ones(rows, 4, 32, 32), 0, torch.zeros(rows, 40, 192), added_cond_kwargs=added)\n\n"
        "# %%\noptimizer = torch.optim.SGD(model.parameters())\noptimizer.step()\n\n# %%\nlen(In)\n"
    )
    steps = []
    done = run.execute(tmp_path / "01_count.py", tmp_path / "out" / "01_count.ipynb", {}, steps.append)
    assert not done.failure and (done.account.forward_passes, done.account.sae_steps) == (5, 1)
    assert 0.1 < done.account.peak_gb < 5 and done.account.made == done.account.reused == ()
    notebook = nbformat.read(tmp_path / "out" / "01_count.ipynb", as_version=4)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3, 4]
    assert notebook.cells[4].outputs[0].data["text/plain"] == "5"  # the first of In is always empty
    assert [(step.cell, step.cells, step.heading) for step in steps] == [(n, 5, "1.1 Counts") for n in range(1, 6)]


def test_a_full_disk_is_told_in_one_sentence_and_leaves_nothing_half_written(tmp_path, empty_cache, monkeypatch):
    def write(notebook, path):
        with open(path, "w") as file:
            file.write("{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    (tmp_path / "01_a.py").write_text("# %%\n1\n")
    monkeypatch.setattr("papermill.engines.write_ipynb", write)
    done = run.execute(tmp_path / "01_a.py", tmp_path / "out" / "01_a.ipynb", {})
    assert re.fullmatch(
        r"01_a failed: .*01_a\.ipynb could not be written: No space left .*\. Free some .*", done.failure
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_listener_that_raises_ends_the_notebook_and_nothing_is_written(tmp_path, empty_cache):
    kernels = []

    def refuse(step):
        kernels.append(step.pid)
        raise ZeroDivisionError

    (tmp_path / "01_a.py").write_text("# %%\n1\n")
    with pytest.raises(ZeroDivisionError):
        run.execute(tmp_path / "01_a.py", tmp_path / "out" / "01_a.ipynb", {}, refuse)
    assert list((tmp_path / "out").iterdir()) == [] and len(kernels) == 1 and is_gone(*kernels, patience=0)


@pytest.fixture
def endless(tmp_path):
    """Starts a run of a notebook that never ends, in a process that ignores Ctrl-C as a background job does."""
    write_sources(tmp_path / "src", **{"01_endless": ENDLESS})
    (tmp_path / "driver.py").write_text(DRIVER)
    environment = os.environ | {"SAE_LIB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "src"), "reproduce"]
    started = []

    def start(ready=True):
        told = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(told, env=environment, cwd=tmp_path, **pipes)
        started.append(process)
        pid = tmp_path / "cache/reproduce/pid"
        while ready and not (pid.is_file() and pid.read_text()):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        return process, int(pid.read_text())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def is_gone(pid, patience=20.0):
    end = time.monotonic() + patience
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_kernels_and_says_what_was_done(endless, tmp_path, number):
    process, kernel = endless()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and is_gone(kernel, patience=0)
    assert err == "Stopped: 0 notebooks were done. The same command takes up what the cache holds.\n"
    left = {path.name for path in (tmp_path / "cache/reproduce").iterdir()}
    assert out == "01_endless ...\n" and left == {"pid"}


def test_a_second_run_in_the_same_clone_is_refused_and_says_who_runs(endless):
    process, _ = endless()
    second, _ = endless(ready=False)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 2 and out == ""
    told = rf"`notebooks/run.py reproduce` runs here already, as process {process.pid}, since [0-9:]+: .*\n"
    assert re.fullmatch(told, err)


def test_no_kernel_outlives_a_run_that_is_killed_and_the_next_may_start(endless, tmp_path):
    process, kernel = endless()
    process.kill()
    assert is_gone(kernel)
    (tmp_path / "cache/reproduce/pid").unlink()
    again, _ = endless()
    assert again.poll() is None


def test_a_kernel_that_dies_at_once_is_started_once_more(tmp_path, empty_cache, monkeypatch):
    started = []

    def start(client, **settings):
        started.append(start_as_usual(client, **settings))
        if len(started) == 1:
            psutil.Process(client.km.provisioner.pid).kill()

    start_as_usual = execution._Client.start_new_kernel
    monkeypatch.setattr(execution._Client, "start_new_kernel", start)
    (tmp_path / "01_a.py").write_text("# %%\n1\n")
    assert run.execute(tmp_path / "01_a.py", tmp_path / "out" / "01_a.ipynb", {}).failure == "" and len(started) == 2
