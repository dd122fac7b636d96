import dataclasses
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest
import torch

from sae_lib.saes.metrics import explained_variance
from sae_lib.saes.statistics import FeatureStatistics
from sae_lib.saes.topk import TopKSAE
from sae_lib.training.config import SAEConfig
from sae_lib.training.loop import pieces, train_saes
from sae_lib.training.trainer import (
    SAETraining,
    count_silent_steps_,
    geometric_median,
    initialise_sae,
    peak_memory_gb,
    remove_parallel_gradient_,
)

FILES = ["config.json", "model.safetensors", "statistics.safetensors", "training.jsonl"]


def tiny_config(block="mid.0", **changes):
    """Six dimensions, twelve features, k = 2, batches of 16; the first two batches are for the beginning."""
    values = {"d_model": 6, "auxk": 4, "batch_size": 16, "lr": 1e-2, "dead_vectors_threshold": 160, "init_batches": 2}
    return SAEConfig.paper(block, **{"k": 2, "n_f": 12, **values, **changes})


def sparse_vectors(vectors=800, d_model=6, seed=0):
    """Vectors made of two of twelve directions each, around a mean."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(12, d_model, generator=generator)
    chosen = torch.rand(vectors, 12, generator=generator).argsort(1) < 2
    return (chosen * torch.rand(vectors, 12, generator=generator)) @ directions + 3


def stream_of(*blocks, chunk=100, **arguments):
    return [{block: vectors for block in blocks} for vectors in sparse_vectors(**arguments).split(chunk)]


# --- configuration


@pytest.mark.parametrize("frozen", ["encoder", "decoder"])
def test_frozen_weights_stay_as_they_began_while_the_others_move(frozen, tmp_path):
    config = tiny_config(frozen=frozen)
    (sae,) = train_saes(stream_of("mid.0"), [config], tmp_path).values()
    began = initialise_sae(config, torch.cat([part["mid.0"] for part in stream_of("mid.0")]))
    pairs = {name: [getattr(each, name).weight for each in (sae, began)] for name in ("encoder", "decoder")}
    same = {name: torch.allclose(*pair, atol=1e-6) for name, pair in pairs.items()}
    assert same.pop(frozen) and not any(same.values())
    with pytest.raises(ValueError, match="frozen is 'both'; choose 'encoder', 'decoder' or ''"):
        tiny_config(frozen="both")


def test_the_paper_s_values_are_the_published_ones():
    config = SAEConfig.paper("down.2.1")
    assert (config.d_model, config.n_f, config.k, config.auxk, config.auxk_coef) == (1280, 5120, 10, 256, 1 / 32)
    assert (config.batch_size, config.lr, config.dead_steps_threshold) == (4096, 1e-4, 2441)
    assert (config.init_batches, config.init_vectors, config.expansion_factor) == (10, 32768, 4)


def test_the_pocket_values_are_the_paper_s_but_for_sizes_and_learning_rate():
    config = SAEConfig.pocket("down.2.1")
    assert (config.d_model, config.n_f, config.k, config.auxk, config.batch_size) == (128, 512, 10, 256, 512)
    assert config.dead_vectors_threshold == 46_080 == 3000 * 512 * 3 // 100
    assert (config.auxk_coef, config.init_batches, config.init_vectors) == (1 / 32, 10, 32768)
    assert SAEConfig.pocket("mid.0", n_f=64).auxk == 32


def test_configs_with_equal_values_are_one_key():
    assert len({SAEConfig.pocket("mid.0"), SAEConfig.pocket("mid.0"), SAEConfig.pocket("mid.0", seed=1)}) == 2
    assert SAEConfig.pocket("mid.0", k=16, seed=3).folder_name == "mid.0_k16_hidden512_seed3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": "up.9"}, "unknown block 'up.9'; valid blocks: down.0.r0"),
        ({"k": 13}, "k is 13; wanted at most n_f = 12"),
        ({"k": 0}, "k is 0; wanted more than 0"),
        ({"auxk": 13}, "auxk is 13; wanted at most n_f = 12"),
        ({"lr": -1.0}, "lr is -1.0; wanted more than 0"),
        ({"dead_vectors_threshold": 15}, r"dead_vectors_threshold is 15; wanted one batch \(16\) or more"),
    ],
)
def test_values_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_config(), **changes)


# --- the equations


def test_the_geometric_median_of_a_line_is_its_middle_point_whatever_the_ends():
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [100.0, 100.0]])
    torch.testing.assert_close(geometric_median(points, maxiter=1000), torch.ones(2), atol=1e-2, rtol=0)


def test_the_geometric_median_of_a_regular_triangle_is_its_centre():
    points = torch.tensor([[math.cos(a), math.sin(a)] for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)])
    torch.testing.assert_close(geometric_median(points), torch.zeros(2), atol=1e-6, rtol=0)


def test_silent_steps_are_counted_from_the_last_kept_value_above_a_thousandth():
    sae = TopKSAE(2, 4, 2)
    sae.stats_last_nonzero += 5
    values = torch.tensor([[0.5, 0.0009], [2.0, -1.0]])
    count_silent_steps_(sae, values, torch.tensor([[0, 1], [0, 2]]))
    assert sae.stats_last_nonzero.tolist() == [1, 6, 6, 6]


def test_the_gradient_along_a_decoder_column_is_removed():
    sae = TopKSAE(2, 2, 1)
    sae.decoder.weight.data = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    sae.decoder.weight.grad = torch.tensor([[3.0, 0.8], [4.0, 1.6]])
    remove_parallel_gradient_(sae)  # column 0: (3, 4) loses 3 e0; column 1: (.8, 1.6) . (.6, .8) = 1.76
    torch.testing.assert_close(
        sae.decoder.weight.grad, torch.tensor([[0.0, 0.8 - 1.76 * 0.6], [4.0, 1.6 - 1.76 * 0.8]])
    )


# --- one SAE in training


def test_the_first_batches_set_scale_and_pre_bias_and_are_not_trained_on():
    config, batches = tiny_config(), sparse_vectors().split(16)
    training = SAETraining(config)
    training.step(batches[0])
    assert training.sae is None
    training.step(batches[1])
    assert training.steps == 0
    first = torch.cat(batches[:2])
    assert training.weights.mse_scale == pytest.approx(1 / (first - first.mean(0)).square().mean().item())
    assert torch.equal(training.sae.pre_bias.data, geometric_median(first))
    assert torch.equal(training.sae.encoder.weight, initialise_sae(config, first).encoder.weight)


def test_the_pre_bias_is_the_median_of_the_first_vectors_only():
    x = sparse_vectors(64)
    assert torch.equal(initialise_sae(tiny_config(init_vectors=10), x).pre_bias.data, geometric_median(x[:10]))


def test_the_seed_decides_the_encoder_and_leaves_torch_s_own_seed_alone():
    x = sparse_vectors(64)
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (initialise_sae(tiny_config(seed=seed), x).encoder.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_saes_that_begin_in_several_threads_at_once_have_the_weights_of_their_seeds():
    vectors, seeds = sparse_vectors(64), [number % 3 for number in range(300)]
    alone = [initialise_sae(tiny_config(seed=seed), vectors).encoder.weight for seed in range(3)]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(lambda seed: initialise_sae(tiny_config(seed=seed), vectors).encoder.weight, seeds)
    assert all(torch.equal(weight, alone[seed]) for weight, seed in zip(together, seeds, strict=True))


def test_one_step_is_the_paper_s_loss_and_order(monkeypatch):
    """Written out again: loss, backward, unit columns, parallel gradient removed, Adam."""
    config, batches = tiny_config(), sparse_vectors().split(16)
    training = SAETraining(config, log_interval=1)
    for batch in batches[:2]:
        training.step(batch)
    training.sae.decoder.weight.data *= 1.01  # as after a step: no longer unit
    reference = TopKSAE(6, 12, 2)
    reference.load_state_dict(training.sae.state_dict())
    training.step(batches[2])

    x, optimizer = batches[2], torch.optim.Adam(reference.parameters(), lr=1e-2, eps=6.25e-10)
    error = x - reference(x)
    target = error.detach() + reference.pre_bias.detach()
    auxiliary_term = (reference.pre_bias - target).square().mean() / (target - target.mean(0)).square().mean()
    loss = training.weights.mse_scale * error.square().mean() + auxiliary_term / 32
    loss.backward()
    weight = reference.decoder.weight
    weight.data /= weight.data.norm(dim=0)
    weight.grad -= (weight.grad * weight.data).sum(0) * weight.data
    optimizer.step()

    assert training.log[0]["loss"] == pytest.approx(loss.item())
    for name, tensor in reference.named_parameters():
        torch.testing.assert_close(training.sae.get_parameter(name), tensor, msg=lambda m, name=name: f"{name}: {m}")


def test_a_feature_is_dead_only_after_more_than_the_threshold():
    config = tiny_config(dead_vectors_threshold=48)  # three steps
    training = SAETraining(config, log_interval=1)
    for batch in sparse_vectors(16 * 7).split(16):
        if training.sae is not None:
            training.sae.latent_bias.data[0] = -1000.0  # feature 0 never fires
        training.step(batch)
    assert training.log[2]["dead_share"] == 0
    assert training.log[3]["dead_share"] >= 1 / 12


# --- many SAEs on one stream


def test_training_explains_more_and_more_and_writes_what_it_says(tmp_path):
    config = tiny_config()
    (sae,) = train_saes(stream_of("mid.0", vectors=16 * 302), [config], tmp_path, log_interval=50).values()
    folder = tmp_path / "mid.0_k2_hidden12_seed0"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    log = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 50, 100, 150, 200, 250, 300]
    measured = {"step", "vectors", "loss", "explained_variance", "l0", "dead_share"}
    assert log[-1].keys() == measured | {"vectors_per_second", "peak_memory_gb"}
    assert log[-1]["vectors"] == 4800 and 0 < log[-1]["l0"] <= 2
    assert log[-1]["explained_variance"] > log[0]["explained_variance"] + 0.2
    held_out = sparse_vectors(16 * 302)[:400]
    assert explained_variance(held_out, sae(held_out)) == pytest.approx(log[-1]["explained_variance"], abs=0.15)
    assert (
        json.loads((folder / "config.json").read_text())["training"].items()
        >= {
            **dataclasses.asdict(config),
            "steps": 300,
        }.items()
    )


def test_statistics_are_of_the_last_portion_as_it_was_trained_on(tmp_path):
    config, stream = tiny_config(), stream_of("mid.0", vectors=16 * 42, chunk=320)
    (sae,) = train_saes(stream, [config], tmp_path).values()
    statistics = FeatureStatistics.load(tmp_path / config.folder_name)
    activations = sae.encode(stream[-1]["mid.0"])  # 32 vectors, two steps: the SAE has hardly changed
    assert statistics.vectors == len(activations) == 32
    torch.testing.assert_close(statistics.firing_rate, (activations > 0).float().mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(statistics.max, activations.amax(0), atol=0.3, rtol=0.1)


def test_a_saved_sae_has_unit_decoder_columns(tmp_path):
    (sae,) = train_saes(stream_of("mid.0"), [tiny_config()], tmp_path).values()
    torch.testing.assert_close(sae.decoder.weight.norm(dim=0), torch.ones(12))
    loaded = TopKSAE.load(tmp_path / tiny_config().folder_name, block="mid.0")
    assert torch.equal(loaded.decoder.weight, sae.decoder.weight)


def test_the_size_of_the_stream_s_chunks_does_not_matter(tmp_path):
    config = tiny_config()
    saes = [
        train_saes(stream_of("mid.0", chunk=chunk), [config], tmp_path / str(chunk))[config]
        for chunk in (1, 7, 16, 800)
    ]
    for other in saes[1:]:
        assert torch.equal(other.encoder.weight, saes[0].encoder.weight)


def test_each_sae_of_a_shared_stream_is_as_if_trained_alone(tmp_path):
    configs = [tiny_config(), tiny_config(seed=1), tiny_config(k=4, batch_size=32), tiny_config(block="up.0.1")]
    together = train_saes(stream_of("mid.0", "up.0.1"), configs, tmp_path / "together")
    for number, config in enumerate(configs):
        alone = train_saes(stream_of(config.block), [config], tmp_path / str(number))[config]
        assert torch.equal(alone.decoder.weight, together[config].decoder.weight)


def test_a_finished_sae_is_loaded_and_not_trained_again(tmp_path):
    finished, new = tiny_config(), tiny_config(seed=1)
    first = train_saes(stream_of("mid.0"), [finished], tmp_path)[finished]
    both = train_saes(stream_of("mid.0"), [finished, new], tmp_path)
    assert torch.equal(both[finished].encoder.weight, first.encoder.weight)
    assert list(both) == [finished, new]


def test_an_sae_of_another_stream_is_refused_and_not_taken_for_this_one_s(tmp_path):
    config = tiny_config()
    train_saes(stream_of("mid.0"), [config], tmp_path)
    for other in (stream_of("mid.0", seed=9), stream_of("mid.0")[:-1]):
        with pytest.raises(ValueError, match=r"holds another SAE, whose stream\..*: use another folder, or remove it"):
            train_saes(other, [config], tmp_path)


def test_the_vectors_of_other_blocks_do_not_make_a_stream_another(tmp_path):
    config, beside = tiny_config(), tiny_config(block="up.0.1")
    train_saes(stream_of("mid.0"), [config], tmp_path)
    both = [portion | other for portion, other in zip(stream_of("mid.0"), stream_of("up.0.1", seed=1), strict=True)]
    assert train_saes(both, [config, beside], tmp_path).keys() == {config, beside}


def test_a_run_that_dies_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        train_saes([*stream_of("mid.0"), {"mid.0": torch.full((9, 6), torch.nan)}], [tiny_config()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_death_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("sae_lib.training.trainer.json.dumps", full_disk)
    with pytest.raises(OSError, match="no space"):
        train_saes(stream_of("mid.0"), [tiny_config()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_an_sae_of_other_settings_is_refused(tmp_path):
    train_saes(stream_of("mid.0"), [tiny_config()], tmp_path)
    with pytest.raises(
        ValueError, match=r"holds another SAE, whose lr is 0.01 \(asked: 0.02\): use another folder, or remove it"
    ):
        train_saes(stream_of("mid.0"), [tiny_config(lr=0.02)], tmp_path)


def test_two_configs_for_one_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="share a folder name"):
        train_saes(stream_of("mid.0"), [tiny_config(), tiny_config(lr=0.02)], tmp_path)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ([], "empty or too short for mid.0_k2_hidden12_seed0: wanted more than .* 32 vectors of mid.0"),
        ([{"mid.0": torch.randn(47, 6)}], "empty or too short"),
        ([{"up.0.1": torch.zeros(9, 6)}], "block 'mid.0' is missing from portion 0 of the stream, which has up.0.1"),
        ([{"mid.0": torch.zeros(9, 7)}], r"got \[9, 7\], wanted \[vectors, d_model = 6\]"),
        ([{"mid.0": torch.zeros(1, 9, 6)}], r"got \[1, 9, 6\], wanted \[vectors, d_model = 6\]"),
        ([{"mid.0": torch.zeros(9, 6)}, {"mid.0": torch.full((9, 6), torch.nan)}], "portion 1: .* NaN or infinity"),
    ],
)
def test_a_stream_that_does_not_fit_is_refused(tmp_path, stream, message):
    with pytest.raises(ValueError, match=message):
        train_saes(stream, [tiny_config()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pieces_are_the_portion_cut_and_blocks_keep_their_share():
    portion = {"mid.0": torch.arange(10.0)[:, None], "down.1.0": torch.arange(40.0)[:, None]}
    cut = list(pieces(portion, 15))
    assert [(len(piece["mid.0"]), len(piece["down.1.0"])) for piece in cut] == [(4, 14), (3, 13), (3, 13)]
    assert torch.equal(torch.cat([piece["mid.0"] for piece in cut]), portion["mid.0"])


def test_peak_memory_is_told_on_windows_too_which_has_no_resource_module(monkeypatch):
    here = peak_memory_gb(torch.device("cpu"))
    assert 0.05 < here < 100
    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=2_345_678_901))
    monkeypatch.setattr(psutil, "Process", lambda: memory)
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_gb(torch.device("cpu")) == 2.346
