"""The pocket models' training: every stage runs, writes what the next one needs, and goes on from what is there."""

import pytest
import torch

from sae_lib.pocket import train, train_clip, train_unet, weights
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
            train.train_text,
            train.train_judge,
            train_clip.train_clip,
            train_unet.train_base,
        ):
            stage(2, 0, "cpu", batch=4)
        train_unet.make_pairs(4, 0, "cpu", batch=4)
        train_unet.train_turbo(2, 0, "cpu", batch=4)
        yield weights.ROOT


def test_every_stage_leaves_its_part_of_one_diffusers_pipeline(trained):
    parts = {"vae", "text_encoder", "text_encoder_2", "judge", "clip", "unet", "unet_base", "tokenizer", "scheduler"}
    assert parts <= {path.name for path in trained.iterdir()}
    assert not list(trained.glob(".unfinished-*"))


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


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved():
    saved = []
    layer = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="the loss became nan at step 0"):
        train.fit({"layer": layer}, lambda _: layer.weight.sum() * torch.nan, 3, lr=0.1, save=saved.append)
    assert not saved


def test_what_a_caption_states_becomes_classes_and_what_it_leaves_open_the_last_one():
    caption = Caption("", ({"shape": "heart", "colour": "red"},), {"style": "pastel"}, None)
    row = train.caption_targets([caption])[0].tolist()
    assert row[:7] == [3, 0, 3, 2, 2, 3, 5], "shape, colour, then open: material, size, pose, content, position"
    assert row[7:14] == [5, 5, 3, 2, 2, 3, 5], "no second object"
    assert row[14:] == [0, 2, 4, 1], "one object, no relation, background open, pastel"
