"""The CWM decoder: one forward over packed tokens, for training and for inference.

Shapes: T tokens of a pack, D width, H query heads, G key/value heads, K channels a head, F width of the SwiGLU.
"""

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .activation import swiglu
from .attention import Backend, Documents, KeyValueCache, attend, choose_backend
from .config import DecoderConfig
from .head import TokenScorer
from .kernels.launch import fused
from .norm import add_rms_norm, rms_norm
from .rope import rope_frequencies, rope_table, rotate


class RMSNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        return rms_norm(x_TD, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions. ``qkv`` stacks the rows of Hugging Face's q, k and v."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.window = config.window_of(index)
        self.backend: Backend = "auto"
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        rows = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        self.qkv = nn.Linear(config.hidden_size, rows, bias=False)
        self.out = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(
        self, x_TD: Tensor, documents: Documents, rope: tuple[Tensor, Tensor], cache: KeyValueCache | None
    ) -> Tensor:
        heads = self.qkv(x_TD).unflatten(-1, (-1, self.head_dim))
        qk, v = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        q, k = rotate(qk, rope).split([self.num_heads, self.num_kv_heads], dim=1)
        if cache is None:
            mixed = attend(q, k, v, documents, self.window, backend=self.backend)
        else:
            mixed = cache.attend(self.index, q, k, v, self.window)
        return self.out(mixed.flatten(1))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)). ``gate_up`` stacks the rows of Hugging Face's gate and up."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x_TD)))


class Layer(nn.Module):
    """Attention and SwiGLU, each on a normed copy of the residual stream."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, index)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(
        self, x_TD: Tensor, documents: Documents, rope: tuple[Tensor, Tensor], cache: KeyValueCache | None
    ) -> Tensor:
        attended = self.attention(self.attention_norm(x_TD), documents, rope, cache)
        if fused(x_TD, self.mlp_norm.weight):
            x_TD, normed = add_rms_norm(attended, x_TD, self.mlp_norm.weight, self.mlp_norm.eps)
        else:  # through the module, whose hooks may shard
            x_TD = x_TD + attended
            normed = self.mlp_norm(x_TD)
        return x_TD + self.mlp(normed)


class Head(nn.Linear):
    """Hidden states to logits. Training takes its matrix instead, and never makes all logits."""

    def matrix(self) -> Tensor:
        """[V, D]."""
        return self.weight

    def own_rows(self) -> Tensor:
        """The rows that this process multiplies: all of them, where tensor parallel does not split them."""
        return self.matrix()

    def joined(self, logits_TV: Tensor) -> Tensor:
        """Logits of the whole vocabulary from those of ``own_rows``."""
        return logits_TV


class Decoder(TokenScorer):
    """Tokens to hidden states, to the log-probabilities of given tokens (``score``), or to logits."""

    def __init__(self, config: DecoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        # Not drawn by torch, which on the meta device imports its compiler for it: two seconds of every process.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embed = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Head(config.hidden_size, config.vocab_size, bias=False)
        # Not a buffer: float32 and out of the state dict whatever the dtype of the weights.
        self._frequencies = rope_frequencies(config)
        if self.embed.weight.device.type != "meta":
            self.init_weights(seed)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw all weights anew. What writes to the residual stream starts smaller, by the square root of the number
        of such writes, so that the stream's size does not grow with depth."""
        generator = torch.Generator(device=self.embed.weight.device).manual_seed(seed)
        depth = (2 * self.config.num_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name in ("embed.weight", "head.weight"):
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                scale = depth if name.endswith(("out.weight", "down.weight")) else 1.0
                parameter.normal_(0.0, scale * 0.5 * parameter.shape[1] ** -0.5, generator=generator)

    def use_attention(self, backend: Backend) -> None:
        """Choose what attention runs on, in every layer; see ``attention.choose_backend``.

        Raises:
            ConfigError: it cannot run where the decoder lies (one on the meta device is asked later).
        """
        weight = self.head.weight
        if weight.device.type != "meta":
            choose_backend(backend, weight.device, weight.dtype, self.config.head_dim)
        for layer in self.layers:
            layer.attention.backend = backend  # type: ignore[union-attr]

    @property
    def attention(self) -> Backend:
        """What ``use_attention`` chose."""
        return self.layers[0].attention.backend  # type: ignore[union-attr, return-value]

    def forward(self, token_ids: Tensor, documents: Documents, cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states of packed documents.

        Args:
            token_ids: [T] int64.
            documents: of the pack; with a cache, its positions continue what the cache holds.
            cache: keys and values of earlier calls; None to see this pack alone.
        Returns:
            [T, D], normed: the head's input.
        Raises:
            ConfigError: a document is longer than the model's context.
        """
        self._check_lengths(documents)
        x_TD = self.embed(token_ids)
        rope = rope_table(documents.positions, self._frequencies.to(x_TD.device), x_TD.dtype)
        for layer in self.layers:
            x_TD = layer(x_TD, documents, rope, cache)
        return self.norm(x_TD)

    def head_matrix(self) -> Tensor:
        """[V, D]."""
        return self.head.matrix()

    def _check_lengths(self, documents: Documents) -> None:
        longest, limit = max(documents.lengths, default=0), self.config.max_position_embeddings
        if longest > limit:
            raise ConfigError(f"a document has {longest} tokens and the model's context {limit}; shorten or split it")

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """[T, V] unnormalized log-probabilities."""
        return self.head(hidden_TD)
