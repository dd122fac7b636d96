"""The pocket models' training: every stage runs, writes what the next one needs, and goes on from what is there."""

import pytest
import torch
from diffusers import FluxPipeline

from notebooks.experiments.pocket import fitting, train, train_clip, train_flux, train_text, train_unet
from sae_lib.pocket import weights
from sae_lib.pocket.captions import Caption

SHIPPED = weights.ROOT


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All stages for two steps each, in an empty folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "ROOT", tmp_path_factory.mktemp("weights"))
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.manual_seed(0)
        for stage in (
            train.train_vae,
            train_text.train_text,
            train.train_judge,
            train_clip.train_clip,
            train_unet.train_base,
        ):
            stage(2, 0, "cpu", batch=4)
        train_unet.make_pairs(4, 0, "cpu", batch=4)
        train_unet.train_turbo(2, 0, "cpu", batch=4)
        train_flux.train_flux_vae(2, 0, "cpu", batch=4)
        train_flux.train_t5(2, 0, "cpu", batch=4)
        train_flux.make_flux_scenes(8, 0, "cpu", batch=4)
        train_flux.train_teacher(2, 0, "cpu", batch=4)
        train_flux.make_flux_pairs(4, 0, "cpu", batch=4)
        train_flux.train_flux(2, 0, "cpu", batch=4)
        yield weights.ROOT


def test_every_stage_leaves_its_part_of_one_diffusers_pipeline(trained):
    parts = {"vae", "text_encoder", "text_encoder_2", "judge", "clip", "unet", "unet_base", "tokenizer", "scheduler"}
    assert parts <= {path.name for path in trained.iterdir()}
    assert not list(trained.glob(".*unfinished"))


def test_no_configuration_names_a_folder_of_this_machine(trained):
    configs = [*trained.glob("*/config.json"), *SHIPPED.glob("*/config.json")]
    assert configs and not [path for path in configs if "_name_or_path" in path.read_text()]


def test_turbo_starts_as_base_and_moves_away(trained):
    base, turbo = (weights.load(f"unet_{name}").state_dict() for name in ("base", "turbo"))
    distance = sum((turbo[name] - base[name]).square().sum() for name in base).sqrt()
    assert 0 < distance < 0.1 * sum(value.square().sum() for value in base.values()).sqrt()


def test_once_a_unet_knows_the_latents_only_the_decoder_is_trained(trained):
    before = weights.load("vae").state_dict()
    train.train_vae(2, 1, "cpu", batch=4)
    after = weights.load("vae").state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {"decoder", "post_quant_conv"} and "decoder" in changed


def test_finished_pairs_are_kept_and_belong_to_their_teacher(trained):
    (file,) = train_unet._pairs_folder().glob("*.safetensors")
    written = file.stat().st_mtime_ns
    train_unet.make_pairs(4, 0, "cpu", batch=4)
    assert file.stat().st_mtime_ns == written
    folder = train_unet._pairs_folder()
    weights.save("unet_base", weights.load("unet_turbo"))
    assert train_unet._pairs_folder() != folder
    with pytest.raises(FileNotFoundError, match="no pairs of the present base model"):
        train_unet.train_turbo(1, 0, "cpu")


def test_the_student_of_flux_starts_as_its_teacher_and_moves_away(trained):
    teacher, student = train_flux._load_teacher().state_dict(), weights.load("flux_transformer").state_dict()
    distance = sum((student[name] - teacher[name]).square().sum() for name in teacher).sqrt()
    assert 0 < distance < 0.1 * sum(value.square().sum() for value in teacher.values()).sqrt()


def test_scenes_are_stored_as_flux_packs_latents(trained):
    scenes = train_flux._stored(train_flux._scenes_folder(), "flux_scenes")
    assert scenes["latents"].shape == (8, 64, 32) and scenes["t5"].shape == scenes["clip"].shape == (8, 40)
    latents = torch.arange(8 * 16 * 16.0).view(1, 8, 16, 16)
    packed = FluxPipeline._pack_latents(latents, 1, 8, 16, 16)
    assert torch.equal(train_flux.pack(latents), packed)


def test_what_flux_learns_from_belongs_to_what_made_it(trained):
    (file,) = train_flux._pairs_folder().glob("*.safetensors")
    written = file.stat().st_mtime_ns
    train_flux.make_flux_pairs(4, 0, "cpu", batch=4)
    assert file.stat().st_mtime_ns == written
    train_flux.train_teacher(1, 1, "cpu", batch=4)
    with pytest.raises(FileNotFoundError, match="has nothing to learn from: run the stage flux_pairs first"):
        train_flux.train_flux(1, 0, "cpu")
    train_flux.train_flux_vae(1, 1, "cpu", batch=4)  # its decoder alone: the file is another one
    with pytest.raises(FileNotFoundError, match="run the stage flux_scenes first"):
        train_flux.train_teacher(1, 0, "cpu")


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved():
    saved = []
    layer = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="the loss became nan by step 2"):
        fitting.fit({"layer": layer}, lambda _: layer.weight.sum() * torch.nan, 3, lr=0.1, save=saved.append)
    assert not saved


def test_what_a_caption_states_becomes_classes_and_what_it_leaves_open_the_last_one():
    caption = Caption("", ({"shape": "heart", "colour": "red"},), {"style": "pastel"}, None)
    row = train_text.caption_targets([caption])[0].tolist()
    assert row[:7] == [3, 0, 3, 2, 2, 3, 5], "shape, colour, then open: material, size, pose, content, position"
    assert row[7:14] == [5, 5, 3, 2, 2, 3, 5], "no second object"
    assert row[14:] == [0, 2, 4, 1], "one object, no relation, background open, pastel"


def test_batches_are_the_same_for_any_number_of_processes():
    made = fitting._Made(lambda scenes, rng: (scenes, rng.random()), 3, 5)
    loaders = [fitting.DataLoader(made, batch_size=None, num_workers=workers) for workers in (0, 2)]
    alone, together = ([batch for batch, _ in zip(loader, range(5), strict=False)] for loader in loaders)
    assert alone == together and len({rng for _, rng in alone}) == 5


def test_our_muon_steps_as_torchs_does():
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 8), (8, 24), (24, 8), (8, 8)]
    ours, theirs = (
        [
            torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(at)))
            for at, shape in enumerate(shapes)
        ]
        for _ in range(2)
    )
    steps = (
        fitting.Muon(ours, lr=0.1),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=fitting._WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for step in steps:
            step.step()
    for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        start = torch.randn(one.shape, generator=torch.Generator().manual_seed(at))
        moved, wanted = one.detach() - start, other.detach() - start
        assert (moved - wanted).norm() < 0.02 * wanted.norm(), "theirs rounds to bfloat16"
