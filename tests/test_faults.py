"""Whatever happens to a process that writes: the old thing or the new one is there, whole, and the next run goes on."""

import copy
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from matplotlib.figure import Figure

from notebooks.book import build as book
from notebooks.first_run.judging import Record
from notebooks.first_run.report import write_report
from notebooks.workshop.kit import build as kit
from sae_lib.activations.shards import ShardStream, write_shards
from sae_lib.activations.stream import TrainingStream
from sae_lib.bench.dataset import read_updates, write_dataset
from sae_lib.cache import artefact
from sae_lib.cache.results import save_result
from sae_lib.companion.figures import save_figure, save_table
from sae_lib.companion.run import Run
from sae_lib.saes.exchange import export_saelens, export_sparsify, load_saelens, load_sparsify
from sae_lib.saes.statistics import FeatureStatistics
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from sae_lib.training.resume import load_state, save_state
from sae_lib.training.trainer import SAETraining

if sys.platform != "linux":
    pytest.skip("forks a process for each fault, and the kernel stops it half-way", allow_module_level=True)

from tests import faults
from tests.bench import test_dataset


class Writer(NamedTuple):
    """Something that writes."""

    write: Callable[[Path], object]
    """Writes the new thing into a folder; the same bytes each time."""
    read: Callable[[Path], Any]
    """What a reader gets; a FileNotFoundError says that nothing is there."""
    prepare: Callable[[Path], object] = lambda folder: None
    """Writes what was there before."""
    may_be_missing: bool = False
    """Several files cannot be replaced at once: the one that says what the others are may be missing, never wrong."""
    refusal: str = "nothing"
    """What a reader says of a thing that is not whole yet."""
    same_bytes: bool = True
    """Whether the same thing is always the same file: safetensors writes several entries of metadata in any order."""


def sae(seed=0):
    return TopKSAE(4, 8, 2, torch.Generator().manual_seed(seed)).requires_grad_(False)


def numbers(module):
    return {name: tensor.tolist() for name, tensor in module.state_dict().items()}


CONFIG = SAEConfig.paper("mid.0", k=2, n_f=8, d_model=4, auxk=2, batch_size=4, init_batches=1, dead_vectors_threshold=8)


def training(vectors=16):
    made = SAETraining(CONFIG)
    made.take(torch.randn(vectors, 4, generator=torch.Generator().manual_seed(0)).split(4))
    made.log = [{"step": 1}]  # without this machine's speed and memory
    return made


def finished_sae(tmp_path, monkeypatch):
    made, name = training(), CONFIG.folder_name

    def read(folder):
        return numbers(TopKSAE.load(folder / name, "mid.0")), repr(FeatureStatistics.load(folder / name))

    return Writer(lambda folder: copy.deepcopy(made).save(folder, {"model": "turbo"}), read)


def saved_sae(tmp_path, monkeypatch):
    return Writer(sae().save, lambda folder: numbers(TopKSAE.load(folder)))


def for_saelens(tmp_path, monkeypatch):
    return Writer(partial(export_saelens, sae()), lambda folder: numbers(load_saelens(folder)[0]))


def for_sparsify(tmp_path, monkeypatch):
    return Writer(partial(export_sparsify, sae()), lambda folder: numbers(load_sparsify(folder)))


def statistics(tmp_path, monkeypatch):
    old, new = (training(vectors).statistics.result() for vectors in (16, 24))

    def prepare(folder):
        sae().save(folder)
        old.save(folder)

    return Writer(new.save, lambda folder: repr(FeatureStatistics.load(folder)), prepare)


def unfinished_training(tmp_path, monkeypatch):
    def save(position, folder):
        tensors, rest = training(8 * position[0]).state()
        save_state(folder, position, {"stream": 1}, tensors, rest)

    def read(folder):
        position, tensors, rest = load_state(folder, {"stream": 1})
        return position, {name: tensor.tolist() for name, tensor in tensors.items()}, rest

    return Writer(partial(save, (3, 0)), read, partial(save, (2, 1)), same_bytes=False)


class Portions(TrainingStream):
    """A stream whose portions are made from their numbers, without a model."""

    def __init__(self):
        self.portions, self.origin = 2, {"model": "none"}

    @property
    def shapes(self):
        return {"mid.0": (16, 4)}

    @property
    def description(self):
        return {"prompts": 2}

    def in_order(self, number):
        return {"mid.0": torch.randn(8, 4, generator=torch.Generator().manual_seed(number))}


def store_of_shards(tmp_path, monkeypatch):
    def read(folder):
        return [portion["mid.0"].tolist() for portion in ShardStream(folder / "store")]

    def write(folder):
        write_shards(Portions(), folder / "store", "float32")

    return Writer(write, read, refusal="holds 1 of 2 shards: its harvest was stopped; start it again")


def data_set(tmp_path, monkeypatch):
    def read(folder):
        about, data = read_updates(folder / "set")
        return about, {name: tensor.tolist() for name, tensor in data.items()}

    def write(folder):
        write_dataset(folder / "set", test_dataset.ABOUT, test_dataset.CAPTIONS, test_dataset.make)

    return Writer(write, read, refusal="start the export again, which makes only what is missing")


def cached(tmp_path, monkeypatch):
    return cache_writer(monkeypatch, resumable=False)


def cached_resumable(tmp_path, monkeypatch):
    return cache_writer(monkeypatch, resumable=True)


def make_two_files(folder):
    (folder / "one.txt").write_text("1" * 100)
    (folder / "two.txt").write_text("2" * 100)


def follow_once(monkeypatch, make):
    """The code that a maker reaches is read once, and not for each fault."""
    reached = artefact.reach.follow(make, artefact.CLONE)
    monkeypatch.setattr(artefact.reach, "follow", lambda make, clone: reached)
    for name in ("made", "waited", "reused"):
        monkeypatch.setattr(artefact, name, [])


def cache_writer(monkeypatch, resumable):
    follow_once(monkeypatch, make_two_files)

    def write(folder):
        monkeypatch.setenv("SAE_LIB_CACHE", str(folder))
        return artefact.cached("numbers", {"seed": 0}, make_two_files, resumable)

    def read(folder):
        found = [path for path in folder.glob("artefacts/*") if not path.name.startswith(".")]
        if not found:
            raise FileNotFoundError
        return faults.content(found[0])

    return Writer(write, read)


def cached_tensors(tmp_path, monkeypatch):
    def make():
        return {"row": torch.eye(2)}

    follow_once(monkeypatch, make)

    def write(folder):
        monkeypatch.setenv("SAE_LIB_CACHE", str(folder))
        return artefact.cached_tensors("row", {}, make)

    def read(folder):
        if not [path for path in folder.glob("artefacts/*") if not path.name.startswith(".")]:
            raise FileNotFoundError
        return write(folder)[1]["row"].tolist()

    return Writer(write, read)


def figure(tmp_path, monkeypatch):
    monkeypatch.setattr("sae_lib.companion.figures.commit_hash", lambda: "a commit")

    def save(height, folder):
        monkeypatch.setattr("sae_lib.companion.figures.ROOT", folder)
        drawn = Figure((1, 1), dpi=20)
        drawn.add_artist(__import__("matplotlib.patches").patches.Rectangle((0, 0), 1, height))
        save_figure(Run("04_transfer", {"scale": "pocket", "source": "", "seed": 0}), drawn, "fig3", {"height": height})

    def read(folder):
        json_file = folder / "figures/04_transfer/fig3.json"
        record = json.loads(json_file.read_text())
        return record, json_file.with_suffix(".png").read_bytes(), json_file.with_suffix(".pdf").read_bytes()

    return Writer(partial(save, 0.7), read, partial(save, 0.3), may_be_missing=True)


def table(tmp_path, monkeypatch):
    def save(cell, folder):
        monkeypatch.setattr("sae_lib.companion.figures.ROOT", folder)
        save_table(Run("04_transfer", {"scale": "pocket", "source": "", "seed": 0}), "table1", [{"method": cell}])

    def read(folder):
        tex = folder / "figures/04_transfer/table1.tex"
        return tex.read_text(), tex.with_suffix(".csv").read_text()

    return Writer(partial(save, "new"), read, partial(save, "old"), may_be_missing=True)


def measured_result(tmp_path, monkeypatch):
    monkeypatch.setattr("sae_lib.cache.results.commit_hash", lambda: "a commit")

    def save(seconds, folder):
        save_result(folder / "speed.json", {"seconds": seconds}, "make bench")

    return Writer(partial(save, 2), lambda folder: json.loads((folder / "speed.json").read_text()), partial(save, 1))


def kit_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "ROOT", tmp_path)
    monkeypatch.setattr(kit, "HERE", tmp_path)
    for name in ("install.py", "start.py", "unpack.py", "START.md", "one.whl"):
        (tmp_path / name).write_text(name)

    def save(version, folder):
        kit.write_archive(folder / "kit.zip", [tmp_path / "one.whl"], [], {"version": version})

    def read(folder):
        digest = (folder / "kit.zip.sha256").read_text()
        assert digest.split()[0] == kit.sha256(folder / "kit.zip")
        with zipfile.ZipFile(folder / "kit.zip") as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    return Writer(partial(save, 2), read, partial(save, 1), may_be_missing=True)


def first_run_report(tmp_path, monkeypatch):
    def save(verdict, folder):
        records = [Record("sloth", "Top features", verdict)]
        write_report(folder, {"checks": [], "records": records, "machine": {}, "rehearsal": False})

    def read(folder):
        page = (folder / "first_run.html").read_text()
        verdict = json.loads((folder / "first_run.json").read_text())["steps"][0]["verdict"]
        assert f"1 {verdict}" in page
        return page, verdict

    return Writer(partial(save, "differs"), read, partial(save, "failed"), may_be_missing=True)


def book_s_site(tmp_path, monkeypatch):
    def save(version, folder):
        def write(made):
            (made.book / "index.html").write_text(f"edition {version}")
            (made.book / "assets").mkdir()
            (made.book / "assets" / "search.js").write_text(f"edition {version}")

        monkeypatch.setattr(book.Book, "__init__", lambda made, root, folder, *_: setattr(made, "book", folder))
        monkeypatch.setattr(book.Book, "write", write)
        book.build(tmp_path, folder / "book")

    def read(folder):
        return faults.content(folder / "book") if (folder / "book").exists() else (folder / "book").read_text()

    return Writer(partial(save, 2), read, partial(save, 1))


def book_s_site_elsewhere(tmp_path, monkeypatch):
    """Where the system cannot exchange two names in one step, neither has the final name for a moment."""
    monkeypatch.setattr(artefact, "_exchange", lambda one, other: False)
    return book_s_site(tmp_path, monkeypatch)._replace(may_be_missing=True)


WRITERS = [
    finished_sae,
    store_of_shards,
    data_set,
    saved_sae,
    for_saelens,
    for_sparsify,
    statistics,
    unfinished_training,
    cached,
    cached_resumable,
    cached_tensors,
    figure,
    table,
    measured_result,
    kit_archive,
    first_run_report,
    book_s_site,
    book_s_site_elsewhere,
]


def state(writer, folder):
    try:
        return writer.read(folder)
    except FileNotFoundError:
        return None
    except ValueError as error:
        assert writer.refusal in str(error)
        return None


def again(folder, before):
    """The folder as it was before."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)


@pytest.mark.parametrize("make", WRITERS, ids=lambda make: make.__name__)
def test_after_every_fault_the_old_or_the_new_thing_is_there_and_the_next_run_goes_on(make, tmp_path, monkeypatch):
    folder, before = tmp_path / "folder", tmp_path / "before"
    folder.mkdir()
    writer = make(tmp_path, monkeypatch)
    writer.prepare(folder)
    shutil.copytree(folder, before)
    old = state(writer, folder)
    status, error, operations = faults.run(writer.write, folder)
    assert (status, error) == (0, "") and operations
    wanted = faults.content(folder)
    new = state(writer, folder)
    assert new is not None and new != old
    counts = Counter()
    for fault in faults.faults(operations):
        what = f"{fault.kind} operation {fault.number}, {operations[fault.number]}"
        again(folder, before)
        status, error, _ = faults.run(writer.write, folder, fault)
        assert (status < 0) == fault.kind.startswith("killed"), f"{what}: {status} {error}"
        left = state(writer, folder)
        assert left in ([old, new, None] if writer.may_be_missing else [old, new]), what
        if fault.kind.startswith("disk full") and error:
            assert re.search(r"the disk is full, .* could not be made|No space left on device|File too large", error), (
                f"{what}: {error}"
            )
        writer.write(folder)
        assert state(writer, folder) == new and list(there := faults.content(folder)) == list(wanted), what
        assert there == wanted or not writer.same_bytes, what
        counts[fault.kind] += 1
    print(make.__name__, len(operations), dict(counts))


def test_an_old_folder_that_was_set_aside_comes_back_before_the_next_writing(tmp_path, monkeypatch):
    writer = book_s_site_elsewhere(tmp_path, monkeypatch)
    writer.prepare(tmp_path)
    old = writer.read(tmp_path)
    (tmp_path / "book").rename(tmp_path / ".book.replaced")  # what a process leaves that is killed between two steps
    monkeypatch.setattr(book.Book, "write", lambda made: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        book.build(tmp_path, tmp_path / "book")
    assert writer.read(tmp_path) == old and not list(tmp_path.glob(".*"))


def test_what_a_living_process_is_writing_is_left_alone(tmp_path):
    living, dead = (
        tmp_path / f".file.{artefact._machine()}-{number}-1.unfinished" for number in (os.getppid(), 2**22 + 1)
    )
    for folder in (living, dead):
        folder.mkdir()
    artefact.write_if_changed(tmp_path / "file", b"new")
    assert living.is_dir() and not dead.exists()


@pytest.mark.parametrize("make", [finished_sae, saved_sae, for_saelens, for_sparsify, store_of_shards, cached_tensors])
def test_a_reader_at_the_same_time_finds_nothing_or_the_whole_new_thing(make, tmp_path, monkeypatch):
    writer, folders = make(tmp_path, monkeypatch), [tmp_path / str(number) for number in range(10)]
    writer.write(tmp_path / "whole")
    whole = state(writer, tmp_path / "whole")
    got = faults.read_meanwhile(
        lambda: [state(writer, folder) for folder in folders], lambda: [writer.write(folder) for folder in folders]
    )
    assert all(one in (None, whole) for states in got for one in states)
    assert [state(writer, folder) for folder in folders] == [whole] * 10


@pytest.mark.parametrize("make", [statistics, figure, table, measured_result, kit_archive, book_s_site])
def test_a_reader_at_the_same_time_finds_each_file_old_or_new_and_never_missing(make, tmp_path, monkeypatch):
    writer, folder, contents = make(tmp_path, monkeypatch), tmp_path / "folder", []
    for write in (writer.prepare, writer.write):
        write(folder)
        contents.append({path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()})

    def bytes_of(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def read():
        return {path: bytes_of(path) for path in contents[0]}

    def write_both():
        for _ in range(10):
            writer.prepare(folder)
            writer.write(folder)

    may_be_missing = (".json", ".tex", ".sha256") if writer.may_be_missing else ()
    for got in faults.read_meanwhile(read, write_both):
        for path, content in got.items():
            assert content in [one[path] for one in contents] or (content is None and path.suffix in may_be_missing)


@pytest.mark.parametrize("export", [TopKSAE.save, export_saelens, export_sparsify])
def test_an_sae_is_never_written_over_another_one(export, tmp_path):
    export(sae(), tmp_path)
    before = faults.content(tmp_path)
    export(sae(), tmp_path)
    with pytest.raises(FileExistsError, match="holds another .*safetensors: write into another folder, or remove"):
        export(sae(seed=1), tmp_path)
    assert faults.content(tmp_path) == before


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize(
    "make",
    [finished_sae, for_saelens, for_sparsify, unfinished_training, store_of_shards, cached_tensors],
)
def test_a_thing_without_one_of_its_files_or_with_half_of_it_is_refused_in_a_sentence(make, cut, tmp_path, monkeypatch):
    writer, folder, before = make(tmp_path, monkeypatch), tmp_path / "folder", tmp_path / "before"
    writer.prepare(folder)
    writer.write(folder)
    shutil.copytree(folder, before)
    for name in faults.content(folder):
        read = name.endswith((".safetensors", "config.json", "cfg.json", "manifest.json", "inputs.json"))
        if read and (cut or make is not unfinished_training):  # without its state there is no unfinished training
            again(folder, before)
            whole = (folder / name).read_bytes()
            (folder / name).write_bytes(whole[: len(whole) // 2]) if cut else (folder / name).unlink()
            with pytest.raises((ValueError, FileNotFoundError)) as refusal:
                writer.read(folder)
            text = str(refusal.value)
            assert str(folder) in text and "\n" not in text and len(text) < 500, text


def make_slowly(folder):
    for name in ("one.txt", "two.txt"):
        (folder / name).write_text("1" * 100)
        time.sleep(0.002)


@pytest.mark.parametrize("resumable", [True, False])
def test_two_processes_killed_at_random_moments_leave_no_artefact_or_a_whole_one(resumable, tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    follow_once(monkeypatch, make_slowly)
    moments, whole = random.Random(0), {"one.txt", "two.txt", "inputs.json"}

    def make(number):
        return artefact.cached("numbers", {"number": number}, make_slowly, resumable)

    for number in range(20):
        children = [faults.start(lambda pipe, number=number: make(number)) for _ in range(2)]
        for child, pipe in children:
            time.sleep(moments.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(pipe)
        for folder in tmp_path.glob("artefacts/[!.]*"):
            assert {path.name for path in folder.iterdir()} == whole
        assert {path.name for path in make(number).iterdir()} == whole
    assert len(list((tmp_path / "artefacts").iterdir())) == 20


def test_a_cache_that_is_emptied_while_something_is_made_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path / ".cache"))
    recipe = re.search(r"^fresh:.*\n((?:\t.*\n)+)", (artefact.ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    (tmp_path / "Makefile").write_text(f"fresh:\n{recipe}")

    def make(folder):
        (folder / "one.txt").write_text("1")
        subprocess.run(["make", "-s", "fresh"], cwd=tmp_path, check=True, capture_output=True)
        (folder / "two.txt").write_text("2")

    with pytest.raises(FileNotFoundError, match="was emptied while .*numbers-.* was made: run again, without"):
        artefact.cached("numbers", {}, make)
    assert not (tmp_path / ".cache").exists()
    assert artefact.cached("numbers", {}, make_two_files).is_dir()
