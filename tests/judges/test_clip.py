"""The CLIP of each scale: one embedding a picture and a text, prepared as the model wants it."""

import random

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from notebooks.experiments.pocket.train_clip import contrastive_loss, describe, true_of
from sae_lib.judges.clip import Clip, load_clip
from sae_lib.pocket.captions import Caption, attribute_words
from sae_lib.pocket.world import render, sample_scenes


@pytest.fixture(scope="module")
def clip():
    return load_clip("pocket")


@pytest.fixture(scope="module")
def scenes():
    return sample_scenes(96, 5, "test")


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(clip, scenes):
    pictures = render(scenes[:70])
    both = clip.embed_images(pictures)
    torch.testing.assert_close(both.norm(dim=1), torch.ones(70))
    torch.testing.assert_close(clip.embed_images(pictures[66:]), both[66:], atol=1e-5, rtol=0)
    texts = clip.embed_texts(["a red star", "at night"])
    torch.testing.assert_close(clip.embed_texts(["at night"]), texts[1:], atol=1e-5, rtol=0)


def test_a_picture_is_shrunk_to_the_models_size_and_standardised(clip, monkeypatch):
    seen = {}
    model = clip.model.get_image_features
    monkeypatch.setattr(
        clip.model, "get_image_features", lambda pixel_values: seen.update(x=pixel_values) or model(pixel_values)
    )
    Clip(clip.model, clip.tokenizer, (0.1, 0.2, 0.3), (0.5, 0.5, 2.0)).embed_images(torch.full((1, 3, 128, 160), 0.7))
    wanted = torch.tensor([1.2, 1.0, 0.2]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    torch.testing.assert_close(seen["x"], wanted)


def test_the_pocket_clip_finds_the_caption_of_a_picture_and_its_attributes(clip, scenes):
    rng = random.Random(0)
    captions = [describe(scene, rng) for scene in scenes]
    cosines = clip.embed_texts([caption.text for caption in captions]) @ clip.embed_images(render(scenes)).T
    true = true_of(captions, scenes)
    best = true[torch.arange(96), cosines.argmax(1)].float().mean()
    assert best > 0.7 > 3 * true.float().mean()  # a picture by lot fits a fifth of them


def test_what_is_no_picture_and_no_text_is_refused(clip):
    with pytest.raises(ValueError, match=r"CLIP wants pictures \[pictures, 3, height, width\], got \[3, 64, 64\]"):
        clip.embed_images(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="no texts: wanted at least one"):
        clip.embed_texts([])


def test_a_clip_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(ConnectionError, match="download it from the Hub, or give its folder"):
        load_clip("sdxl", "nobody/nothing")
    with pytest.raises(FileNotFoundError, match="there is no folder .*nothing'"):
        load_clip("sdxl", str(tmp_path / "nothing"))


def test_a_clip_from_a_folder_is_complete_or_refused(clip, tmp_path):
    clip.model.save_pretrained(tmp_path)
    clip.tokenizer.save_pretrained(tmp_path)
    assert all(map(torch.equal, load_clip("sdxl", str(tmp_path)).model.parameters(), clip.model.parameters()))
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["logit_scale"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="no complete CLIPModel: it lacks logit_scale"):
        load_clip("sdxl", str(tmp_path))


def test_a_caption_is_true_of_a_scene_that_has_all_it_states():
    two = [each for each in sample_scenes(50, 0) if len(each.objects) == 2]
    scene = next(each for each in two if each.objects[0].position == "left")
    first, second = ({"shape": thing.shape, "colour": thing.colour} for thing in scene.objects)
    other = {
        "shape": first["shape"],
        "colour": next(c for c in ("red", "blue", "green") if c not in (first["colour"], second["colour"])),
    }
    asked = [
        Caption("", (first, second), {}, "horizontal"),
        Caption("", (second, first), {}, None),
        Caption("", (second, first), {}, "horizontal"),
        Caption("", (first, second), {}, "vertical"),
        Caption("", (second,), {"style": scene.style}, None),
        Caption("", (other,), {}, None),
    ]
    swapped = first == second
    assert true_of(asked, [scene])[:, 0].tolist() == [True, True, swapped, False, True, False]


def test_the_loss_is_clips_where_each_caption_has_one_picture():
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(5)
    wanted = (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
    torch.testing.assert_close(contrastive_loss(similarity, torch.eye(5).bool()), wanted)


def test_attributes_have_words_but_a_missing_eye_has_none():
    words = [
        attribute_words(*pair)
        for pair in (("shape", "star"), ("colour", "red"), ("content", "open eye"), ("background", "night"))
    ]
    assert words == ["a star", "red", "with an open eye", "at night"]
    with pytest.raises(ValueError, match="a missing eye is never stated"):
        attribute_words("content", "no eye")
