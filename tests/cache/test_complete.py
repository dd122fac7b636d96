"""A model or tokenizer is loaded with all that its files should hold, or refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, CLIPTextModel, CLIPTokenizer, GroundingDinoForObjectDetection, Sam2Model

from sae_lib.cache.complete import find_folder, load_complete, tensors_in
from sae_lib.judges.grounding import load_grounded_sam
from sae_lib.pocket import weights

KINDS = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel}
FLOATS = (torch.float64, torch.float32)


def damage(tensors, name, how):
    """Does one thing to one tensor; gives what the refusal says of it, or nothing where the tensor is still right."""
    x = tensors[name]
    if how == "another type":
        tensors[name] = x.to(FLOATS[len(name) % 2])
        return ""
    if how == "dropped":
        del tensors[name]
        return f"it lacks {name}"
    if how == "renamed":
        tensors[f"{name}.other"] = tensors.pop(name)
        return f"it lacks {name}; it has no place for {name}.other"
    if how == "surplus":
        tensors["surplus.weight"] = x.clone()
        return "it has no place for surplus.weight"
    if how == "flat":
        tensors[name] = torch.zeros(*x.shape, 2)
        return f"of another shape are {name}"
    if how == "integers":
        tensors[name] = torch.ones(x.shape, dtype=torch.int8)
        return f"integers stand in {name}"
    tensors[name] = x.clone()
    tensors[name].view(-1)[-1] = float(how)
    return f"NaN or infinity stands in {name}"


HOW = ["another type", "dropped", "renamed", "surplus", "flat", "integers", "nan", "inf", "-inf"]


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_model_with_one_tensor_changed_is_right_or_refused_by_the_tensors_name(tmp_path, data):
    part = data.draw(st.sampled_from(sorted(KINDS)))
    shutil.copytree(weights.ROOT / part, tmp_path / part, dirs_exist_ok=True)
    file = next((tmp_path / part).glob("*.safetensors"))
    tensors = load_file(file)
    name, how = data.draw(st.sampled_from(sorted(tensors))), data.draw(st.sampled_from(HOW))
    wrong = damage(tensors, name, how)
    save_file(tensors, file, {"format": "pt"})
    if wrong:
        with pytest.raises(ValueError) as refusal:
            load_complete(KINDS[part], tmp_path / part)
        assert str(refusal.value) == f"{tmp_path / part} holds no complete {KINDS[part].__name__}: {wrong}"
    else:
        loaded, whole = load_complete(KINDS[part], tmp_path / part, dtype=torch.float32), weights.load(part)
        assert all(map(torch.equal, loaded.state_dict().values(), whole.state_dict().values()))
        assert not loaded.training


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(part=st.sampled_from(sorted(KINDS)), name=st.sampled_from(["weights", "config.json"]), share=st.floats(0, 0.99))
def test_a_model_whose_file_was_cut_short_is_refused_in_one_line(tmp_path, part, name, share):
    shutil.copytree(weights.ROOT / part, tmp_path / part, dirs_exist_ok=True)
    file = next((tmp_path / part).glob("*.safetensors")) if name == "weights" else tmp_path / part / name
    whole = file.read_bytes().rstrip()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{part} .*no readable {KINDS[part].__name__} \(|is damaged: ") as refusal:
        load_complete(KINDS[part], tmp_path / part)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("loss", ["shard", "tensor of a shard", "name in the index"])
def test_what_a_model_in_several_files_lacks_is_named(tmp_path, loss):
    for part, kind in KINDS.items():
        folder = tmp_path / part
        weights.load(part).save_pretrained(folder, max_shard_size="300KB")
        assert torch.equal(*(next(model.parameters()) for model in (load_complete(kind, folder), weights.load(part))))
        files = sorted(folder.glob("*.safetensors"))
        assert len(files) > 2
        tensors = load_file(files[1])
        name = min(tensors)
        if loss == "shard":
            files[1].unlink()
        elif loss == "tensor of a shard":
            del tensors[name]
            save_file(tensors, files[1], {"format": "pt"})
        else:
            index = next(folder.glob("*.index.json"))
            content = json.loads(index.read_text())
            moved = [key for key, value in content["weight_map"].items() if value == files[1].name]
            content["weight_map"] = {key: value for key, value in content["weight_map"].items() if key not in moved}
            index.write_text(json.dumps(content))
        lost = files[1].name if loss == "shard" else f"it lacks .*{name.split('.')[-2]}"
        with pytest.raises(ValueError, match=lost):
            load_complete(kind, folder)


def test_files_as_older_releases_wrote_them_are_complete(tmp_path):
    shutil.copytree(weights.ROOT / "text_encoder", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    tensors = {f"text_model.{name}": x for name, x in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(40)[None]
    save_file(tensors, file, {"format": "pt"})
    load_complete(CLIPTextModel, tmp_path)


def in_two_files(folder, merges=None):
    """A tokenizer as the Hub has SDXL's, with so many of its merges."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [" ".join(pair) for pair in model["merges"][:merges]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))


def test_a_tokenizer_that_lacks_words_or_merges_is_refused(tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(weights.ROOT / "tokenizer", folder)
    in_two_files(folder)
    whole = weights.load("tokenizer")
    assert load_complete(CLIPTokenizer, folder)("a red star").input_ids == whole("a red star").input_ids
    (folder / "merges.txt").write_text("\n".join((folder / "merges.txt").read_text().split("\n")[:60]))
    with pytest.raises(ValueError, match="no complete CLIPTokenizer: it lacks the merges of .* and .* more"):
        load_complete(CLIPTokenizer, folder)
    for name in ("merges.txt", "vocab.json"):
        (folder / name).unlink()
        with pytest.raises(ValueError, match="tokenizer holds no .* CLIPTokenizer"):
            load_complete(CLIPTokenizer, folder)


def test_the_models_that_find_masks_are_complete_or_refused(tmp_path):
    finder = load_grounded_sam(rehearsal=True)
    for kind, model in ((GroundingDinoForObjectDetection, finder.dino), (Sam2Model, finder.sam)):
        folder = tmp_path / kind.__name__
        model.save_pretrained(folder)
        loaded = load_complete(kind, folder)
        assert all(map(torch.equal, loaded.parameters(), model.parameters()))
        tensors = load_file(folder / "model.safetensors")
        lost = sorted(tensors)[len(tensors) // 2]
        del tensors[lost]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"it lacks {lost}"):
            load_complete(kind, folder)
    finder.tokenizer.save_pretrained(tmp_path / "bert")
    assert len(load_complete(BertTokenizer, tmp_path / "bert")) == len(finder.tokenizer)


def test_a_name_on_the_hub_that_cannot_be_fetched_stays_an_error_of_the_network():
    with pytest.raises(OSError, match="connect to"):
        load_complete(CLIPTextModel, "nobody/nothing")


def test_the_variant_of_the_files_is_told_apart(tmp_path):
    for name, dtype in (("model", torch.float32), ("model.fp16", torch.float16)):
        save_file({"x": torch.zeros(2, 3, dtype=dtype)}, tmp_path / f"{name}.safetensors")
    assert tensors_in(tmp_path) == {"x": ("F32", [2, 3])}
    assert tensors_in(tmp_path, "fp16") == {"x": ("F16", [2, 3])}


def test_a_source_is_a_folder_or_a_name_on_the_hub_and_a_misspelt_path_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "turbo").mkdir(parents=True)
    (tmp_path / "turbo.safetensors").write_text("")
    for source in ("~/models/turbo", "models/turbo/", "./models/turbo", str(tmp_path / "models" / "turbo")):
        assert find_folder(source).samefile(tmp_path / "models" / "turbo")
    assert find_folder("stabilityai/sdxl-turbo") is None
    for source in (
        "~/models/turbe",
        "models/turbe",
        "a/b/c",
        "./turbe",
        "/turbe",
        "turbe",
        "owner/model/",
        r"C:\turbo",
    ):
        with pytest.raises(FileNotFoundError, match="there is no folder .*turb|there is no folder '(a/b/c|owner)"):
            find_folder(source)
    with pytest.raises(ValueError, match="'turbo.safetensors' is a file, wanted a folder: read it with diffusers'"):
        find_folder("turbo.safetensors")
    assert Path("models/turbo").is_dir()
