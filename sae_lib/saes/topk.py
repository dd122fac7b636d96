"""The k-sparse autoencoder of update vectors."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from sae_lib.cache.artefact import write_together
from sae_lib.cache.reading import (
    check_tensors,
    file_in,
    read_object,
    read_safetensors,
    refuse_other_type,
    whole_number,
)

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"

_CPU_PIECE, _GPU_PIECE = 2**21, 2**28
"""Pre-activations computed at a time: 8 MB and 1 GB in float32."""


def top_k(x: Float[Tensor, "rows n"], k: int) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """`x.topk(k)`, on a CPU in half the time: first the k groups with the highest maxima, then the k highest in them.

    The k highest of a row lie in the k groups whose maxima are highest. Of equal values others may be chosen.
    """
    size = _group_size(x.shape[-1], k)
    if x.device.type != "cpu" or size == 1:
        return x.topk(k, dim=-1)
    groups = x.shape[-1] // size
    best = x.unflatten(-1, (size, groups)).amax(1).topk(k, dim=-1, sorted=False).indices
    members = (best[:, None] + groups * torch.arange(size)[:, None]).flatten(1)
    values, places = x.gather(1, members).topk(k, dim=-1)
    return values, members.gather(1, places)


def _group_size(n: int, k: int) -> int:
    """The power of two that divides n and leaves the least to look through: n / size maxima, then k * size members.

    1 for short rows, in which a single search takes less time than two.
    """
    if n < 128:
        return 1
    sizes = [2**power for power in range(9) if n % 2**power == 0 and n >= k * 2**power]
    return min(sizes, key=lambda size: n / size + k * size, default=1)


class TopKSAE(nn.Module):
    """A TopK sparse autoencoder (paper: section 2; equations as in the authors' code).

        s  = ENC(x) = ReLU(TopK_k(W_enc (x - b_pre) + b_act))
        x' = DEC(s) = W_dec s + b_pre = b_pre + sum over features rho of s_rho f_rho

    TopK keeps the k largest pre-activations of a vector and ReLU then drops the negative ones, so at most k activations
    are non-zero. f_rho is column rho of W_dec, of unit length. Starts as the paper's does, but for b_pre (which wants
    data): W_enc is torch's default for a linear layer, W_dec its transpose with unit columns, biases 0.

    An SAE follows what it is given: vectors on another device move it there, and there it stays.

    generator: draws W_enc; by default it is torch's own, which SAEs made in several threads at once would share.

    Raises ValueError if k is not between 1 and n_f.
    """

    encoder: nn.Linear
    """weight `[n_f, d_model]`, W_enc."""
    decoder: nn.Linear
    """weight `[d_model, n_f]`, W_dec."""
    pre_bias: Float[Tensor, " d_model"]
    """b_pre, taken off before encoding and put back after decoding."""
    latent_bias: Float[Tensor, " n_f"]
    """b_act."""
    stats_last_nonzero: Int[Tensor, " n_f"]
    """Training steps since the feature last had a kept pre-activation above 1e-3; 1 if that was the last step."""

    def __init__(self, d_model: int, n_f: int, k: int, generator: torch.Generator | None = None):
        if not 1 <= k <= n_f:
            raise ValueError(f"k is {k}; wanted 1 <= k <= n_f = {n_f}")
        super().__init__()
        self.d_model, self.n_f, self.k = d_model, n_f, k
        self.encoder = nn.utils.skip_init(nn.Linear, d_model, n_f, bias=False)
        self.decoder = nn.utils.skip_init(nn.Linear, n_f, d_model, bias=False)
        nn.init.kaiming_uniform_(self.encoder.weight, math.sqrt(5), generator=generator)  # as nn.Linear does
        # Features lie one after the other in memory, so that reading k of them reads k pieces.
        self.decoder.weight.data = self.encoder.weight.data.clone().T
        self.pre_bias = nn.Parameter(torch.zeros(d_model))
        self.latent_bias = nn.Parameter(torch.zeros(n_f))
        self.register_buffer("stats_last_nonzero", torch.zeros(n_f, dtype=torch.long))
        self.normalize_decoder_()

    def pre_activations(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows n_f"]:
        """W_enc (x - b_pre) + b_act, before TopK and ReLU. Raises ValueError for vectors of another width."""
        if x.shape[-1] != self.d_model:
            raise ValueError(f"got vectors of width {x.shape[-1]}, this SAE wants d_model = {self.d_model}")
        self._move_to(x)
        return F.linear(x - self.pre_bias, self.encoder.weight, self.latent_bias)

    def encode_sparse(
        self, x: Float[Tensor, "*rows d_model"]
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """The k activations kept of each vector, largest first, and their features. Values may be 0 (ReLU)."""
        values, indices = self.top_pre_activations(x)
        return values.relu(), indices

    def top_pre_activations(
        self, x: Float[Tensor, "*rows d_model"]
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """TopK before ReLU. Takes some rows at a time, so that on a CPU the products are still in its cache."""
        rows = max(1, (_CPU_PIECE if x.device.type == "cpu" else _GPU_PIECE) // self.n_f)
        parts = [top_k(self.pre_activations(piece), self.k) for piece in x.reshape(-1, x.shape[-1]).split(rows)]
        values, indices = (torch.cat(part).unflatten(0, x.shape[:-1]) for part in zip(*parts, strict=True))
        return values, indices

    def encode(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows n_f"]:
        """The activations, dense: >= 0, at most k of a vector non-zero."""
        values, indices = self.encode_sparse(x)
        return self.to_dense(values, indices)

    def to_dense(
        self, values: Float[Tensor, "*rows kept"], indices: Int[Tensor, "*rows kept"]
    ) -> Float[Tensor, "*rows n_f"]:
        """Sparse activations written out: zero wherever `indices` does not point."""
        return values.new_zeros(*values.shape[:-1], self.n_f).scatter(-1, indices, values)

    def decode(self, activations: Float[Tensor, "*rows n_f"]) -> Float[Tensor, "*rows d_model"]:
        """W_dec s + b_pre. Of all-zero activations it is b_pre."""
        self._move_to(activations)
        return self.decoder(activations) + self.pre_bias

    def forward(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The reconstruction DEC(ENC(x))."""
        return self.decode(self.encode(x))

    def _move_to(self, x: Tensor) -> None:
        if x.device != self.pre_bias.device:
            self.to(x.device)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Scales each decoder column to unit length, in place."""
        self.decoder.weight /= self.decoder.weight.norm(dim=0)

    def save(
        self, folder: str | Path, training: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Writes `model.safetensors` (parameters named as in the published checkpoints, in `dtype`) and `config.json`.

        training: what else a reader must know (block, seed, learning rate ...), stored under that key. Each file
        appears under its name only when it is complete, `config.json` last.

        Raises FileExistsError if another SAE is in the folder.
        """
        tensors = {
            name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
            for name, tensor in self.state_dict().items()
        }
        config = {"d_model": self.d_model, "n_f": self.n_f, "k": self.k, "training": training or {}}
        write_sae(folder, CONFIG_FILE, config, WEIGHTS_FILE, tensors)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        block: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "TopKSAE":
        """Reads what `save` wrote; the parameters want no gradient.

        block: where given, refuses an SAE that was trained on another block.

        Raises FileNotFoundError for a missing file, and ValueError, which names the file and the tensor, for a
        truncated or foreign one, for tensors that are not those that `config.json` says (see `assemble`), and for an
        SAE of another block.
        """
        way = "not an SAE's folder, or not completely copied; train or copy it again"
        file, path = file_in(folder, CONFIG_FILE, way), file_in(folder, WEIGHTS_FILE, way)
        config = read_object(file, ("d_model", "n_f", "k", "training"))
        training = config["training"]
        refuse_other_type(training, dict, f"training in {file}")
        if block is not None and training.get("block") != block:
            raise ValueError(f"the SAE in {folder} is for block {training.get('block')!r}, wanted {block!r}")
        return assemble(path, read_sizes(file, config), read_safetensors(path)).to(device, dtype)


def write_sae(
    folder: str | Path, config_name: str, config: Mapping[str, Any], weights_name: str, weights: Mapping[str, Tensor]
) -> None:
    """An SAE's two files, in any format: each under its name only when it is complete, the configuration last.

    Raises FileExistsError if another SAE is in the folder: a killed process could leave the files of two.
    """

    def write(unfinished: Path) -> None:
        save_file(dict(weights), unfinished / weights_name)
        (unfinished / config_name).write_text(json.dumps(config, indent=2) + "\n")

    write_together(folder, config_name, write)


def read_sizes(
    path: Path, config: Mapping[str, Any], names: tuple[str, str, str] = ("d_model", "n_f", "k")
) -> tuple[int, int, int]:
    """d_model, n_f and k as a configuration says them under its own `names`.

    Raises ValueError for what is no whole number of at least 1, and for a k above n_f.
    """
    d_model, n_f, k = (whole_number(path, config, name) for name in names)
    if k > n_f:
        raise ValueError(f"{path} says {names[2]} is {k}; wanted at most {names[1]} = {n_f}")
    return d_model, n_f, k


def assemble(path: Path, sizes: tuple[int, int, int], stored: Any, names: Mapping[str, str] | None = None) -> TopKSAE:
    """An SAE of exactly the tensors that a file holds, in float32, wanting no gradient; nothing is left as it began.

    sizes: d_model, n_f and k. names: our names of the tensors -> those in the file, which end in ".T" where it holds
    the transposed matrix; by default our own. A format that has no `stats_last_nonzero` leaves it at zeros.

    Raises ValueError, which names the file and the tensor, for tensors that are missing, unknown, of another shape or
    type, or that hold NaN or infinite numbers. In a square SAE (d_model = n_f) a transposed matrix has the right shape:
    a decoder is refused if its rows are of unit length and its columns, the features, are not. What cannot be seen: a
    transposed square encoder, and another k than that of the training.
    """
    d_model, n_f, _ = sizes
    wanted = {"encoder.weight": (n_f, d_model), "decoder.weight": (d_model, n_f), "pre_bias": (d_model,)}
    wanted |= {"latent_bias": (n_f,), "stats_last_nonzero": (n_f,)}
    names = names or {name: name for name in wanted}
    shapes = {
        theirs.removesuffix(".T"): wanted[ours][:: -1 if theirs.endswith(".T") else 1] for ours, theirs in names.items()
    }
    stored = check_tensors(path, stored, shapes, counts=("stats_last_nonzero",))
    state = {"stats_last_nonzero": torch.zeros(n_f, dtype=torch.int64)}
    for ours, theirs in names.items():
        state[ours] = stored[theirs.removesuffix(".T")].T if theirs.endswith(".T") else stored[theirs]
    sae = TopKSAE(*sizes)
    sae.load_state_dict(state)
    if d_model == n_f and _is_unit(sae.decoder.weight.T) and not _is_unit(sae.decoder.weight):
        raise ValueError(f"the decoder in {path} is transposed: its rows are of unit length, wanted its columns")
    return sae.requires_grad_(False)


def column_lengths(path: Path, sae: TopKSAE) -> Float[Tensor, " n_f"]:
    """The lengths of the decoder's columns, to divide by. Raises ValueError, which names the file, if one is 0."""
    lengths = sae.decoder.weight.norm(dim=0)
    if zeros := int((lengths == 0).sum()):
        raise ValueError(f"{zeros} features in {path} have a decoder vector of length 0, which cannot be scaled")
    return lengths


def _is_unit(columns: Tensor) -> bool:
    """Whether all columns are of unit length, as 16 bit keep it."""
    return bool(((columns.norm(dim=0) - 1).abs() < 0.01).all())
