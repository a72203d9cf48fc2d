"""The decoder of CWM and its relatives: one forward over packed tokens, for training and for inference.

Shapes: T tokens of a pack, D width, H query heads, G key/value heads, K channels a head, F width inside the MLP.
"""

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .activation import geglu, swiglu
from .attention import Backend, Documents, KeyValueCache, attend, choose_backend
from .config import DecoderConfig
from .head import TokenScorer
from .kernels.launch import fused
from .norm import add_rms_norm, offset_rms_norm, rms_norm
from .rope import Ropes, rotate


class RMSNorm(nn.Module):
    """x / rms(x) * weight; with ``offset``, * (1 + weight). Over the last axis."""

    def __init__(self, width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.offset, self.eps = config.norm_offset, config.rms_norm_eps
        self.weight = nn.Parameter(torch.full((width,), 0.0 if self.offset else 1.0))

    def own_weight(self) -> Tensor:
        """[D], for the tokens of this process."""
        return self.weight

    def forward(self, x_TD: Tensor) -> Tensor:
        norm = offset_rms_norm if self.offset else rms_norm
        return norm(x_TD, self.own_weight(), self.eps)


class Bias(nn.Module):
    """What is added to queries, keys and values: three vectors, as each is split by itself."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.zeros(config.num_heads * config.head_dim))
        self.k = nn.Parameter(torch.zeros(config.num_kv_heads * config.head_dim))
        self.v = nn.Parameter(torch.zeros(config.num_kv_heads * config.head_dim))

    def own(self, part: Tensor) -> Tensor:
        """Of the heads of this process."""
        return part

    def forward(self) -> Tensor:
        """[(H + 2 G) K]."""
        return torch.cat((self.own(self.q), self.own(self.k), self.own(self.v)))


class Attention(nn.Module):
    """Grouped-query attention with rotary positions. ``qkv`` stacks the rows of Hugging Face's q, k and v."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.window = config.window_of(index)
        self.backend: Backend = "auto"
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.query_scale = config.query_scale
        rows = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        self.qkv = nn.Linear(config.hidden_size, rows, bias=False)
        self.bias = Bias(config) if config.qkv_bias else None
        self.q_norm = RMSNorm(config.head_dim, config) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config) if config.qk_norm else None
        self.out = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)

    def forward(
        self, x_TD: Tensor, documents: Documents, rope: tuple[Tensor, Tensor] | None, cache: KeyValueCache | None
    ) -> Tensor:
        rows = self.qkv(x_TD)
        if self.bias is not None:
            rows = rows + self.bias()
        heads = rows.unflatten(-1, (-1, self.head_dim))
        qk, v = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([self.num_heads, self.num_kv_heads], dim=1)
            qk = torch.cat((_each_head(self.q_norm, q), _each_head(self.k_norm, k)), dim=1)
        if rope is not None:
            qk = rotate(qk, rope)
        q, k = qk.split([self.num_heads, self.num_kv_heads], dim=1)
        if self.query_scale != 1.0:
            q = q * self.query_scale
        if cache is None:
            mixed = attend(q, k, v, documents, self.window, backend=self.backend)
        else:
            mixed = cache.attend(self.index, q, k, v, self.window)
        return self.out(mixed.flatten(1))


def _each_head(norm: nn.Module, x_THK: Tensor) -> Tensor:
    return norm(x_THK.reshape(-1, x_THK.shape[-1])).view(x_THK.shape)


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)). ``gate_up`` stacks the rows of Hugging Face's gate and up."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gated = {"silu": swiglu, "gelu_tanh": geglu}[config.activation]
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down(self.gated(self.gate_up(x_TD)))


class Layer(nn.Module):
    """Attention and MLP, each on a normed copy of the residual stream; in some families what they write is normed
    too."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention_norm = RMSNorm(width, config)
        self.attention = Attention(config, index)
        self.attention_post_norm = RMSNorm(width, config) if config.post_norms else None
        self.mlp_norm = RMSNorm(width, config)
        self.mlp = GatedMLP(config)
        self.mlp_post_norm = RMSNorm(width, config) if config.post_norms else None

    def forward(
        self, x_TD: Tensor, documents: Documents, rope: tuple[Tensor, Tensor] | None, cache: KeyValueCache | None
    ) -> Tensor:
        attended = self.attention(self.attention_norm(x_TD), documents, rope, cache)
        if self.attention_post_norm is not None:
            attended = self.attention_post_norm(attended)
        if fused(x_TD, self.mlp_norm.weight) and not self.mlp_norm.offset:
            x_TD, normed = add_rms_norm(attended, x_TD, self.mlp_norm.weight, self.mlp_norm.eps)
        else:  # through the module, whose hooks may shard
            x_TD = x_TD + attended
            normed = self.mlp_norm(x_TD)
        written = self.mlp(normed)
        if self.mlp_post_norm is not None:
            written = self.mlp_post_norm(written)
        return x_TD + written


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


class Tied:
    """Of a head whose matrix is the embedding's: it has no parameter of its own."""

    _embed: list[nn.Embedding]  # in a list, so that it is no submodule of the head

    @property
    def weight(self) -> Tensor:
        """[V, D]."""
        return self._embed[0].weight


class TiedHead(Tied, Head):
    """See ``Tied``."""

    def __init__(self, embed: nn.Embedding) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = embed.embedding_dim, embed.num_embeddings, None
        self._embed = [embed]


class Decoder(TokenScorer):
    """Tokens to hidden states, to the log-probabilities of given tokens (``score``), or to logits."""

    def __init__(self, config: DecoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        # Not drawn by torch, which on the meta device imports its compiler for it: two seconds of every process.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embed = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config)
        tied = config.tied_embeddings
        self.head = TiedHead(self.embed) if tied else Head(config.hidden_size, config.vocab_size, bias=False)
        self.ropes = Ropes(config)
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
                parameter.fill_(0.0 if self.config.norm_offset else 1.0)
            elif parameter.dim() == 1:
                parameter.zero_()
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
        if self.config.embed_scale != 1.0:
            x_TD = x_TD * torch.tensor(self.config.embed_scale, dtype=x_TD.dtype)
        ropes = self.ropes.tables(documents.positions, x_TD.dtype)
        for layer, rope in zip(self.layers, ropes, strict=True):
            x_TD = layer(x_TD, documents, rope, cache)
        return self.norm(x_TD)

    def head_matrix(self) -> Tensor:
        """[V, D], of the ids that are known."""
        return self.head.matrix()[: self.config.num_ids]

    def _check_lengths(self, documents: Documents) -> None:
        longest, limit = documents.longest, self.config.max_position_embeddings
        if longest > limit:
            raise ConfigError(f"a document has {longest} tokens and the model's context {limit}; shorten or split it")

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """[T, V] unnormalized log-probabilities."""
        return self.head(hidden_TD)
