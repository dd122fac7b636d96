"""PocketBench from pictures to scores, with the smoke scale's few pictures."""

import json

import pytest
import torch

from sae_lib.__main__ import main
from sae_lib.bench import scores as module
from sae_lib.bench.known import draw_known
from sae_lib.bench.scores import MEASURES, PocketBench, Scores, kept, legend, reseed_noise, save, table, with_room
from sae_lib.features.reading import Reading
from sae_lib.judges.intervals import Interval
from sae_lib.saes.checkpoints import load_saes
from sae_lib.saes.statistics import FeatureStatistics, RunningStatistics
from sae_lib.saes.topk import TopKSAE

BLOCK = "up.1.2"


@pytest.fixture(scope="module")
def bench():
    return PocketBench(BLOCK, "smoke", resamples=100)


@pytest.fixture(scope="module")
def sae():
    return load_saes("panel", blocks=[BLOCK])[BLOCK]


@pytest.fixture(scope="module")
def scored(bench, sae):
    return bench.score(sae, seeds=[bench.control(sae)]), bench.score(bench.control(sae), writes=False)


def test_an_sae_is_scored_by_every_measure_and_beats_an_untrained_one(scored):
    ours, control = scored
    # Eight pictures do not have enough cells of any two values.
    assert list(ours.measured) == [name for name in MEASURES if name != "absorption"]
    for name in ("explained variance", "total variance explained", "reads with 5", "erases", "coverage"):
        assert ours.measured[name].value > control.measured[name].value, name
    assert ours.measured["L0"].value == control.measured["L0"].value == 4
    assert ours.measured["linear probe"] == control.measured["linear probe"]
    assert not {"writes", "stability"} & set(control.measured)
    assert all(low <= value <= high for value, low, high in ours.measured.values())


def test_the_same_sae_gets_the_same_scores(bench, sae, scored):
    again = PocketBench(BLOCK, "smoke", resamples=100).score(sae, writes=False)
    assert again.record()["measured"].items() <= scored[0].record()["measured"].items()


def test_a_dead_sae_gets_zeros_and_no_error(bench, sae):
    dead = TopKSAE(sae.d_model, sae.n_f, sae.k).requires_grad_(False)
    dead.latent_bias.data[:] = -1e6
    scored = bench.score(dead, writes=False)
    values = {name: interval.value for name, interval in scored.measured.items()}
    nothing = ("L0", "use", "coverage", "reads with 16", "erases")
    assert [values[name] for name in nothing] == pytest.approx([0] * 5, abs=1e-6)
    assert values["dead share"] == 1 and "absorption" not in values and scored.holes == []


def test_pictures_that_are_drawn_already_are_read_as_a_reading_reads_them(bench, sae):
    running = RunningStatistics(sae.n_f)
    running.add(*kept(torch.cat(bench.encode(sae)).flatten(0, 1)))
    assets = bench.assets.with_saes({BLOCK: sae}, {BLOCK: running.result()})
    for later in (False, True):
        fast, slow = module._KnownReading(assets, bench.known(later), later), Reading(assets, later)
        assert fast.make() != slow.make() and fast.prompts == slow.prompts
        assert torch.equal(fast.shows, slow.shows) and torch.equal(fast.pictures, slow.pictures)
        assert all(map(torch.equal, fast.truth(BLOCK), slow.truth(BLOCK)))
        # Updates are kept in 16 bit: of two activations that are nearly equal the other may be the last one kept.
        off = (fast.activations(BLOCK) - slow.activations(BLOCK)).abs()
        assert (off > 0.01).float().mean() < 1e-3


def test_other_saes_have_another_identity(bench, sae):
    statistics = {BLOCK: FeatureStatistics(*(torch.ones(sae.n_f) for _ in range(4)), torch.tensor(1))}
    changed = TopKSAE(sae.d_model, sae.n_f, sae.k).requires_grad_(False)
    changed.load_state_dict(sae.state_dict())
    same = bench.assets.with_saes({BLOCK: changed}, statistics).identity
    assert same == bench.assets.with_saes({BLOCK: sae}, statistics).identity != bench.assets.identity
    changed.pre_bias.data[3] += 1e-6
    assert bench.assets.with_saes({BLOCK: changed}, statistics).identity != same


def test_the_four_steps_of_turbo_have_a_truth_of_their_own():
    four = PocketBench(BLOCK, "smoke", "Turbo, 4 steps", step=3)
    assert four.known().updates.shape[0] == 4
    assert not torch.equal(four.known().pictures, draw_known(four.assets, BLOCK).pictures)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"block": "up.9"}, "unknown block 'up.9'"),
        ({"block": BLOCK, "scale": "sdxl"}, "PocketBench needs known truth: the scale is 'sdxl'"),
        ({"block": BLOCK, "step": 1}, "step is 1; Turbo, 1 step has the steps 0 to 0"),
        ({"block": BLOCK, "model": "Turbo"}, "unknown model 'Turbo'"),
    ],
)
def test_what_cannot_be_measured_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        PocketBench(**asked).known()


def test_saes_that_do_not_fit_are_refused(bench, sae):
    with pytest.raises(ValueError, match=r"width 128, those of up\.1\.2 have 64: name its own block with --block"):
        bench.score(TopKSAE(128, 32, 4))
    with pytest.raises(ValueError, match="SAEs of 32 and 16 features"):
        bench.score(sae, seeds=[TopKSAE(64, 16, 4)])


def test_an_sae_with_one_unit_that_reads_is_scored(bench, sae):
    one = TopKSAE(sae.d_model, sae.n_f, 1).requires_grad_(False)
    one.load_state_dict(sae.state_dict())
    one.latent_bias.data[2:] = -1e6
    measured = bench.score(one).measured
    assert "writes" not in measured or measured["writes"].low < measured["writes"].high
    assert measured["dead share"].value >= 30 / 32


def test_outcomes_that_are_all_alike_leave_room_for_three():
    assert with_room(Interval(0.0, 0.0, 0.0), 30) == (0.0, -0.1, 0.1)
    assert with_room(Interval(0.5, 0.4, 0.6), 30) == (0.5, 0.4, 0.6)


def test_a_code_is_kept_with_as_many_units_as_are_ever_active():
    values, units = kept(torch.tensor([[0.0, 2, 0, 1], [0, 0, 3, 0]]))
    assert values.tolist() == [[2, 1], [3, 0]]
    assert units[0].tolist() == [1, 3] and units[1, 0] == 2
    assert kept(torch.zeros(2, 4))[0].shape == (2, 1)


def test_the_table_shows_number_interval_control_and_noise(scored, tmp_path):
    ours, control = scored
    text = table(ours, control, {"explained variance": 0.0123})
    (line,) = [line for line in text.splitlines() if " explained variance" in line and "total" not in line]
    value, low, high = ours.measured["explained variance"]
    for number in (value, low, high, control.measured["explained variance"].value, 0.0123):
        assert f"{number:.3f}" in line
    assert len(text.splitlines()) == 1 + len(ours.measured) and max(map(len, text.splitlines())) < 80
    assert all(MEASURES[name].text in legend(ours.measured) for name in ours.measured)
    save(tmp_path / "scores.json", ours, reseed={})
    assert json.loads((tmp_path / "scores.json").read_text())["about"]["block"] == BLOCK


def test_the_command_writes_what_it_prints_and_no_folder_is_lost(sae, tmp_path, capsys):
    sae.save(tmp_path / "sae", {"block": BLOCK})
    asked = ["bench", str(tmp_path / "sae"), "--scale", "smoke", "--output"]
    assert main([*asked, str(tmp_path)]) == 1
    assert "is a folder, wanted the name of a file" in capsys.readouterr().err and (tmp_path / "sae").is_dir()
    assert main([*asked, str(tmp_path / "scores.json")]) == 0
    said, written = capsys.readouterr().out, json.loads((tmp_path / "scores.json").read_text())
    assert f"{written['measured']['explained variance'][0]:.3f}" in said and "smoke: too few pictures" in said
    assert set(written["untrained"]) < set(written["measured"]) and written["reseed"] == {}


def test_reseed_noise_is_that_of_the_block_s_own_seeds(tmp_path, monkeypatch):
    about = {"about": {"block": BLOCK}}
    rows = [about | {"name": module.RESEEDED, "measured": {"L0": [value, 0, 0]}} for value in (1.0, 3.0)]
    rows.append(about | {"name": "random", "measured": {"L0": [9.0, 0, 0]}})
    (tmp_path / "noise.json").write_text(json.dumps({"result": {"rows": rows}}))
    monkeypatch.setattr(module, "result_path", lambda name: tmp_path / "noise.json")
    assert reseed_noise(BLOCK) == {"L0": pytest.approx(2**0.5)}
    assert reseed_noise("mid.0") == {}
    monkeypatch.setattr(module, "result_path", lambda name: tmp_path / "none.json")
    assert reseed_noise(BLOCK) == {}


def test_scores_are_rounded_in_the_record():
    record = Scores({"L0": Interval(1 / 3, 0.1, 0.5)}, [], {}).record()
    assert record["measured"]["L0"] == [0.3333, 0.1, 0.5]
