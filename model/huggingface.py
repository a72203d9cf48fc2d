"""Any causal language model of transformers in the decoder's place, for training."""

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from .attention import Documents
from .head import TokenScorer
from .weights.checksums import check_sums
from .weights.converted import copy_into, named_weights
from .weights.delta import Block, Published, sum_of
from .weights.sources import DCP_METADATA

_PROBE = (5, 3)  # tokens of two documents


class HuggingFaceDecoder(TokenScorer):
    """Takes packed documents and gives hidden states and log-probabilities, as ``decoder.Decoder`` does.

    Models whose logits are more than the head's product, or in which one packed document sees another, are found by
    trying (``probe``) and refused. There is no dropout, whatever the mode.
    """

    def __init__(self, model: Any) -> None:
        """
        Args:
            model: of transformers' AutoModelForCausalLM; one on the meta device is not tried.
        Raises:
            ConfigError: it cannot be trained on packed documents; it says why.
        """
        super().__init__()
        self.model = model
        self.num_ids: int | None = None
        """Ids that the tokenizer knows, where the head has more rows; None: all."""
        self._generation_config = copy.deepcopy(model.generation_config)  # an engine makes the model's neutral
        self.eval()
        if (kind := _rope_of_all(self.config)) is not None:
            raise ConfigError(
                f"in {type(model).__name__} packed documents see each other: rotary frequencies of the type {kind!r} "
                "are chosen by the longest of them; it cannot be trained here"
            )
        if not self.head.weight.is_meta:
            self.probe()

    @classmethod
    def load(cls, path: Path | str, **options: Any) -> "HuggingFaceDecoder":
        """From a folder, or a name on the hub, with ``options`` of ``from_pretrained``.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        return cls(load_model(path, **options))

    @classmethod
    def shape_of(cls, path: Path, dtype: torch.dtype) -> "HuggingFaceDecoder":
        """That of a folder, without its numbers: no weight is read.

        Raises:
            CheckpointError: there is no such model. ConfigError: it cannot be trained here.
        """
        return cls(_empty_model_of(path, dtype))

    def save(self, path: Path | str, state: Mapping[str, Tensor] | None = None) -> None:
        """Write the model into the folder ``path``, as transformers does.

        Args:
            state: weights by transformers' names in the place of the model's own.
        """
        self.model.save_pretrained(path, state_dict=None if state is None else dict(state))
        if self._generation_config is not None:
            self._generation_config.save_pretrained(path)

    def save_settings(self, path: Path, dtype: torch.dtype) -> None:
        """Write what such a folder has beside its weights, which are of ``dtype``."""
        config = copy.deepcopy(self.config)
        config.dtype, config.architectures = dtype, [type(self.model).__name__]
        config.save_pretrained(path)
        if self._generation_config is not None:
            self._generation_config.save_pretrained(path)

    def load_weights(self, path: Path | str) -> None:
        """Copy the weights of a folder that ``save`` wrote. Raises CheckpointError: missing, or of another shape."""
        check_sums(path)
        copy_into(Path(path), self.model)

    @property
    def head(self) -> nn.Linear:
        return self.model.get_output_embeddings()

    @property
    def config(self) -> Any:
        """transformers' configuration."""
        return self.model.config

    def train(self, mode: bool = True) -> "HuggingFaceDecoder":
        """Never turns dropout on: scoring and training must see the same distribution."""
        return super().train(False)

    def forward(self, token_ids: Tensor, documents: Documents) -> Tensor:
        """[T] ids of packed documents to [T, D], the head's input."""
        found = self.model.base_model(
            input_ids=token_ids[None], position_ids=documents.positions[None], use_cache=False
        )
        if not hasattr(found, "last_hidden_state"):  # Llama4's text model is its own base
            raise ConfigError(
                f"{type(self.model).__name__} gives no hidden states without its head; it cannot be trained here"
            )
        return found.last_hidden_state[0]

    def head_matrix(self) -> Tensor:
        """[V, D], of the ids that are known."""
        return self.head.weight[: self.num_ids]

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """[T, V]."""
        return self.head(hidden_TD)

    @torch.no_grad()
    def probe(self) -> None:
        """Raises ConfigError where it cannot be trained on packed documents. Of a model that ranks have split, all must
        call this."""
        device = self.head.weight.device
        ids = torch.arange(sum(_PROBE), device=device) % self.head.weight.shape[0]
        packed = self(ids, Documents.from_lengths(_PROBE, device=device))  # after this the head is whole on every rank
        parts = ids.split(_PROBE)
        theirs = torch.cat([self.model(input_ids=part[None], use_cache=False).logits[0] for part in parts])
        alone = torch.cat([self(part, Documents.from_lengths([len(part)], device=device)) for part in parts])
        name, dtype = type(self.model).__name__, packed.dtype
        tolerance = {torch.float32: 1e-4, torch.float64: 1e-8}.get(dtype, 0.05)
        if not _close(alone @ self.head.weight.T, theirs, tolerance):
            raise ConfigError(f"{name} makes more of its logits than its head's product; it cannot be trained here")
        if not _close(packed, alone, tolerance):
            raise ConfigError(f"in {name} packed documents see each other; it cannot be trained here")


def empty_model(config: Any, dtype: torch.dtype) -> Any:
    """A causal language model of transformers whose weights are on the meta device; what it computes from its
    configuration alone is there."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.tie_weights()  # each of two names has got an empty weight of its own
    return model


def load_model(path: Path | str, **options: Any) -> Any:
    """A causal language model of transformers.

    Args:
        options: of ``from_pretrained``. Code that comes with the model is not run, and nobody is asked about it, unless
            ``trust_remote_code`` is among them.
    Raises:
        CheckpointError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    if Path(path).is_dir():
        check_sums(path)
    if (Path(path) / DCP_METADATA).is_file():
        return _load_pieces(Path(path), **options)
    try:
        model, told = cast("Any", AutoModelForCausalLM).from_pretrained(
            path, **{"trust_remote_code": False, **options, "output_loading_info": True}
        )
    except (OSError, ValueError, RuntimeError, ImportError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"transformers cannot load {path} ({error}); check the path") from error
    lacking = sorted(told["missing_keys"])
    if lacking:  # it gives those random numbers, with a warning
        raise CheckpointError(f"{path} lacks the tensor {lacking[0]} ({len(lacking)} in all); copy it anew")
    return model


def _load_pieces(path: Path, *, dtype: torch.dtype | Literal["auto"] = "auto", **_: Any) -> Any:
    """What ranks have written, each its part. Raises CheckpointError."""
    model = _empty_model_of(path, None if dtype == "auto" else dtype)
    model._apply(lambda one: torch.empty_like(one, device="cpu") if one.is_meta else one)
    model.tie_weights()
    copy_into(path, model)
    told = Published.read(path)
    for name, value in named_weights(model).items():
        if told is not None and sum_of(value.detach(), Block.of(tuple(value.shape), None)) != told.sums[name]:
            raise CheckpointError(
                f"{path}: {name} is not what was published: its sum differs. Publish the weights anew"
            )
    return model.eval()


def _empty_model_of(path: Path, dtype: torch.dtype | None) -> Any:
    """``empty_model`` of a folder; None: in its own dtype. Raises CheckpointError."""
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        named = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        model = empty_model(config, dtype or named)
        if (path / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"transformers cannot load {path} ({error}); check the path") from error
    return model


def _rope_of_all(config: Any) -> str | None:
    """The kind of rotary frequencies that depends on the longest position of a call; None where they do not."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = {str(one.get("rope_type")) for one in (rope, *rope.values()) if isinstance(one, dict)}
    return next(iter(sorted(kinds & {"dynamic", "longrope"})), None)


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())
