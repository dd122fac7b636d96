"""Checkpoints of every format, damaged at random: either the right SAE or one sentence that says what is wrong."""

import json
import traceback
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file, save_file

from sae_lib.cache.artefact import PACKAGE
from sae_lib.saes.exchange import export_saelens, export_sparsify, load_saelens, load_sdxl_unbox, load_sparsify
from sae_lib.saes.statistics import FeatureStatistics, RunningStatistics
from sae_lib.saes.topk import TopKSAE
from tests.saes.test_exchange import save_sdxl_unbox, write_saelens_default


def save_ours(sae, folder):
    sae.save(folder, {"block": "mid.0"})


def save_saelens_s_default(sae, folder):
    """With the flag that SAELens sets; the decoder's rows are of length 2."""
    sae = TopKSAE(sae.d_model, sae.n_f, sae.k).requires_grad_(False)
    sae.decoder.weight *= 2
    write_saelens_default(sae, folder)


def save_with_statistics(sae, folder):
    save_ours(sae, folder)
    running = RunningStatistics(sae.n_f)
    running.add(*sae.encode_sparse(torch.randn(50, sae.d_model)))
    running.result().save(folder)


def state_of_the_authors(folder):
    sae, mean, std = load_sdxl_unbox(folder)
    return sae.state_dict() | {"k": sae.k, "mean": mean, "std": std}


class Format(NamedTuple):
    save: Any
    load: Any
    """From a folder, all numbers that were loaded, by name."""
    tensors: dict
    """Files of tensors and the tensors in them."""
    config: dict
    """The configuration's file, and its keys without which nothing can be loaded."""


def state_of(load):
    def read(folder):
        sae = load(folder)
        sae = sae[0] if isinstance(sae, tuple) else sae
        return sae.state_dict() | {"k": sae.k}

    return read


OURS = ("encoder.weight", "decoder.weight", "pre_bias", "latent_bias", "stats_last_nonzero")
LENS, SPARSIFY = ("W_enc", "W_dec", "b_enc", "b_dec"), ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
IN_LENS = {"cfg.json": ("architecture", "d_in", "d_sae", "k")}
FORMATS = {
    "ours": Format(
        save_ours,
        state_of(TopKSAE.load),
        {"model.safetensors": OURS},
        {"config.json": ("d_model", "n_f", "k", "training")},
    ),
    "statistics": Format(
        save_with_statistics,
        lambda folder: FeatureStatistics.load(folder)._asdict(),
        {"statistics.safetensors": FeatureStatistics._fields},
        {"config.json": ("n_f",)},
    ),
    "sdxl-unbox": Format(
        save_sdxl_unbox,
        state_of_the_authors,
        {"state_dict.pth": OURS, "mean.pt": ("mean",), "std.pt": ("std",)},
        {"config.json": ("n_dirs_local", "d_model", "k")},
    ),
    "SAELens": Format(export_saelens, state_of(load_saelens), {"sae_weights.safetensors": LENS}, IN_LENS),
    "SAELens, default": Format(
        save_saelens_s_default, state_of(load_saelens), {"sae_weights.safetensors": LENS}, IN_LENS
    ),
    "sparsify": Format(
        export_sparsify, state_of(load_sparsify), {"sae.safetensors": SPARSIFY}, {"cfg.json": ("d_in", "k")}
    ),
}

FLOATS = [torch.float16, torch.bfloat16, torch.float64]
OTHERS = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.complex64]
NO_SIZES = [None, True, "8", "", 0, -1, 2.5, 1e400, [8], {"k": 8}, 10**30]


def read_tensors(path):
    if path.suffix == ".safetensors":
        return load_file(path)
    stored = torch.load(path, weights_only=True)
    return {path.stem: stored} if isinstance(stored, torch.Tensor) else dict(stored["state_dict"])


def write_tensors(path, tensors):
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors.get(path.stem, {"state_dict": tensors}), path)


def change_tensor(draw, path, names):
    """One tensor of a file; how much the numbers loaded may then differ, None if the file must be refused."""
    tensors, name = read_tensors(path), draw(st.sampled_from(names))
    tensor, whole = tensors[name], not tensors[name].is_floating_point()
    changes = ["other type", "longer", "extra dimension"]
    changes += [] if whole else ["float type", "not finite"]
    changes += ["transposed"] if tensor.ndim == 2 else []
    changes += [] if path.suffix == ".pt" else ["dropped", "renamed", "one more"]
    change = draw(st.sampled_from(changes))
    if change == "other type":
        tensors[name] = tensor.to(draw(st.sampled_from([dtype for dtype in OTHERS if dtype != tensor.dtype])))
    elif change == "longer":
        tensors[name] = torch.cat([tensor[None] if tensor.ndim == 0 else tensor] * 2)
    elif change == "extra dimension":
        tensors[name] = tensor[None]
    elif change == "float type":
        tensors[name] = tensor.to(draw(st.sampled_from(FLOATS)))
    elif change == "not finite":
        flat = tensor.flatten().clone()
        flat[draw(st.integers(0, len(flat) - 1))] = draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
        tensors[name] = flat.view(tensor.shape)
    elif change == "transposed":
        tensors[name] = tensor.T
    elif change == "one more":
        tensors[draw(st.sampled_from(["threshold", "W_skip", "scaling_factor", "0"]))] = tensor.clone()
    else:
        tensors.pop(name)
        if change == "renamed":
            tensors[draw(st.sampled_from(["module." + name, name.upper() + "_", "weight"]))] = tensor
    write_tensors(path, tensors)
    return 0.02 if change == "float type" else None


def change_file(draw, path):
    """A file of tensors as a whole."""
    content = path.read_bytes()
    change = draw(st.sampled_from(["cut short", "removed", "a folder", "noise", "one in the place of another", "text"]))
    path.unlink()
    if change == "cut short":
        path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])
    elif change == "a folder":
        path.mkdir()
    elif change == "noise":
        path.write_bytes(draw(st.binary(max_size=64)))
    elif change == "one in the place of another":
        torch.save(draw(st.sampled_from([{"state_dict": [1]}, {"state_dict": {}}, {}, [torch.zeros(3)], 3.0])), path)
    elif change == "text":
        path.write_text(draw(st.text(max_size=20)), encoding="utf-8")
    return 0 if change == "removed" and path.suffix == ".pt" else None


def change_config(draw, path, needed):
    """The configuration: a key, its value, or the file as a whole."""
    config = json.loads(path.read_text())
    change = draw(st.sampled_from(["dropped", "no size", "other value", "other content", "cut short", "no UTF-8"]))
    if change == "cut short":
        content = path.read_bytes().rstrip()
        path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])
        return None
    if change == "no UTF-8":
        path.write_bytes(b"\xff" + path.read_bytes())
        return None
    if change == "other content":
        content = draw(st.sampled_from([[], [config], "d_model", 3, None, {}]))
    elif change == "dropped":
        key = draw(st.sampled_from(sorted(config.keys() - {"rescale_acts_by_decoder_norm"})))  # SAELens reads: false
        content = {name: value for name, value in config.items() if name != key}
    elif change == "no size":
        key = draw(st.sampled_from([name for name in needed if isinstance(config[name], int)]))
        content = config | {key: draw(st.sampled_from(NO_SIZES))}
    else:
        free = {"dtype", "device", "auxk", "dead_steps_threshold", "normalize_decoder", "multi_topk"}
        free &= set(config)
        key = draw(st.sampled_from(sorted(free) or ["of nobody"]))
        content = config | {key: draw(st.sampled_from([None, 1, "x", [], {}]))}
        needed = ()
    path.write_text(json.dumps(content))
    if change == "other value" or (change == "dropped" and key not in needed):
        return 0
    return None


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_damaged_at_random_is_loaded_rightly_or_refused_in_one_sentence(name, tmp_path):
    form = FORMATS[name]
    torch.manual_seed(0)
    sae = TopKSAE(6, 12, 3).requires_grad_(False)
    sae.pre_bias.normal_()
    sae.latent_bias.normal_()
    form.save(sae, tmp_path / "whole")
    whole, original, numbers = form.load(tmp_path / "whole"), files_of(tmp_path / "whole"), iter(range(10**6))

    @settings(max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])
    @given(st.data())
    def check(data):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        for path, content in original.items():
            (folder / path).write_bytes(content)
        kind = data.draw(st.sampled_from(["tensor", "tensor", "file", "config"]))
        file = data.draw(st.sampled_from(sorted(form.config if kind == "config" else form.tensors)))
        if kind == "tensor":
            tolerance = change_tensor(data.draw, folder / file, form.tensors[file])
        elif kind == "file":
            tolerance = change_file(data.draw, folder / file)
        else:
            tolerance = change_config(data.draw, folder / file, form.config[file])
        try:
            loaded = form.load(folder)
        except (ValueError, FileNotFoundError) as error:
            assert type(error) in (ValueError, FileNotFoundError), "a library's own error"
            assert tolerance is None, f"refused without need: {error}"
            assert traceback.extract_tb(error.__traceback__)[-1].filename.startswith(str(PACKAGE))
            assert "\n" not in str(error) and len(str(error)) < 600
            assert any(name in str(error) for name in [*form.config, *form.tensors])
        else:
            assert tolerance is not None, "loaded in silence"
            for part, value in loaded.items():
                if value is not None:  # of a removed mean.pt or std.pt
                    torch.testing.assert_close(value, whole[part], atol=tolerance, rtol=tolerance)

    check()
