"""The book's GPT in one file: a plain PyTorch model, and the same model as ``transformers`` wears it.

This file is the package's own and is copied, byte for byte, into every exported folder, where
``AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`` runs it. It therefore imports nothing
but torch and transformers, and works with transformers 4.57 and 5.

The architecture is GPT-2 (Radford et al. 2019) as "Build a Large Language Model (From Scratch)" writes it:
learned positions, pre-LayerNorm blocks, fused query/key/value projection, GELU (tanh), untied output head.
State-dict keys are the book's, so weights made by its scripts load here unchanged.

Letters in shape comments: B batch, T tokens given now, S tokens seen in all (cache included),
C embedding width, H heads, D = C / H, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class Sizes(Protocol):
    """What a model needs to know to be built; `CustomGPTConfig` and mamegpt's own config both offer it."""

    vocab_size: int
    context_length: int
    emb_dim: int
    n_layers: int
    n_heads: int
    drop_rate: float
    qkv_bias: bool


class Cache(Protocol):
    """Keys and values of the tokens before, by layer; the two methods are those of transformers' own caches."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) keys and values to a layer and return all of its (B, H, S, D)."""
        ...

    def get_seq_length(self) -> int:
        """How many tokens are held."""
        ...


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, eq. 1), one matrix product for q, k and v."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads = sizes.n_heads
        self.drop_weights = nn.Dropout(sizes.drop_rate)
        self.qkv = nn.Linear(sizes.emb_dim, 3 * sizes.emb_dim, bias=sizes.qkv_bias)
        self.proj = nn.Linear(sizes.emb_dim, sizes.emb_dim)

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """(B, T, C) -> (B, T, C). ``mask`` is true where a query may look, (T, S) or (B, 1, T, S); None: causal."""
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_heads, C // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, T, 3, H, D) -> 3 x (B, H, T, D)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)  # (B, H, S, D)
        # One query after a cache may look at everything, several at the start only backwards; else see the mask.
        is_causal = mask is None and T > 1
        if self.training and is_causal and x.device.type == "cpu":
            y = self._written_out(q, k, v)
        else:
            drop_rate = self.drop_weights.p if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop_rate, is_causal=is_causal)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))  # (B, H, T, D) -> (B, T, C)

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of (B, H, T, D), product by product; PyTorch's CPU kernel is slower for short windows."""
        B, H, T, D = q.shape
        future = torch.full((T, T), float("-inf"), device=q.device).triu(1)
        q, k = q.reshape(B * H, T, D), k.reshape(B * H, T, D)
        scores = torch.baddbmm(future.to(q.dtype), q, k.transpose(1, 2), alpha=D**-0.5)  # (BH, T, T)
        return (self.drop_weights(scores.softmax(-1)) @ v.reshape(B * H, T, D)).view(B, H, T, D)


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them, with GELU (tanh approximation)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(sizes.emb_dim, 4 * sizes.emb_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * sizes.emb_dim, sizes.emb_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.layers(x)


class Block(nn.Module):
    """One pre-norm transformer block: attention, then feed-forward, each added to what came in."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.att = Attention(sizes, layer)
        self.ff = FeedForward(sizes)
        self.norm1 = nn.LayerNorm(sizes.emb_dim)
        self.norm2 = nn.LayerNorm(sizes.emb_dim)
        self.drop_shortcut = nn.Dropout(sizes.drop_rate)

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.drop_shortcut(self.att(self.norm1(x), mask, cache))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))


class GPTModel(nn.Module):
    """Token ids in, logits out. It never sees targets and never computes a loss."""

    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.context_length = sizes.context_length
        self.gradient_checkpointing = False  # transformers sets it, and _gradient_checkpointing_func with it
        self.tok_emb = nn.Embedding(sizes.vocab_size, sizes.emb_dim)
        self.pos_emb = nn.Embedding(sizes.context_length, sizes.emb_dim)
        self.drop_emb = nn.Dropout(sizes.drop_rate)
        self.trf_blocks = nn.ModuleList(Block(sizes, layer) for layer in range(sizes.n_layers))
        self.final_norm = nn.LayerNorm(sizes.emb_dim)
        self.out_head = nn.Linear(sizes.emb_dim, sizes.vocab_size, bias=False)

    def hidden(
        self,
        ids: Tensor | None,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        attention_mask: Tensor | None = None,
        embeddings: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states: (B, T) ids -> (B, T, C); ``out_head`` makes logits of them.

        ``cache`` holds the tokens before these. ``attention_mask`` (B, S) is 0 at padding, 1 elsewhere.
        ``embeddings`` (B, T, C) stand in for ``ids``. Raises ValueError past ``context_length`` positions.
        """
        x = self.tok_emb(ids) if embeddings is None else embeddings
        T = x.shape[1]
        past = cache.get_seq_length() if cache is not None else 0
        S = past + T
        if self.context_length < S:
            raise ValueError(f"{S} tokens do not fit into context_length {self.context_length}")
        mask = None
        if attention_mask is not None or (past > 0 and T > 1):
            rows = torch.arange(past, S, device=x.device)[:, None]
            columns = torch.arange(S, device=x.device)[None, :]
            mask = columns <= rows  # (T, S)
            if attention_mask is not None:
                # A padded query sees at least itself, so that no softmax runs over nothing.
                mask = (mask & attention_mask.bool()[:, None, None, :]) | (columns == rows)  # (B, 1, T, S)
        if positions is None:
            if attention_mask is not None:
                positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, past:]
            else:
                positions = torch.arange(past, S, device=x.device)
        x = self.drop_emb(x + self.pos_emb(positions))
        for block in self.trf_blocks:
            if self.gradient_checkpointing and self.training and cache is None:
                x = self._gradient_checkpointing_func(block, x, mask, cache)
            else:
                x = block(x, mask, cache)
        return self.final_norm(x)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits: (B, T) -> (B, T, V)."""
        return self.out_head(self.hidden(ids, cache))


class CustomGPTConfig(PretrainedConfig):
    """The sizes of a `GPTModel`, in the words transformers and the book each use."""

    model_type = "custom-gpt"
    attribute_map = {  # noqa: RUF012  (transformers' own convention)
        "num_hidden_layers": "n_layers",
        "hidden_size": "emb_dim",
        "num_attention_heads": "n_heads",
        "max_position_embeddings": "context_length",
    }

    def __init__(
        self,
        vocab_size: int = 50257,
        context_length: int = 256,
        emb_dim: int = 128,
        n_layers: int = 4,
        n_heads: int = 4,
        drop_rate: float = 0.1,
        qkv_bias: bool = False,
        fast: bool = True,
        use_cache: bool = True,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.emb_dim = emb_dim
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.drop_rate = drop_rate
        self.qkv_bias = qkv_bias
        self.fast = fast  # kept from the original format; there is one backbone, the fast one
        self.use_cache = use_cache
        # transformers 4 ties the head to the embedding unless told otherwise: the stored head would be lost.
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class CustomGPTForCausalLM(PreTrainedModel, GenerationMixin):
    """`GPTModel` as a transformers causal language model: generate, key/value cache, labels, padded batches."""

    config_class = CustomGPTConfig
    _no_split_modules = ["Block"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: CustomGPTConfig) -> None:
        super().__init__(config)
        self.backbone = GPTModel(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding, (V, C)."""
        return self.backbone.tok_emb

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.backbone.tok_emb = value

    def get_output_embeddings(self) -> nn.Module:
        """The output head, (V, C)."""
        return self.backbone.out_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the output head."""
        self.backbone.out_head = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V), or of the last ``logits_to_keep`` positions only.

        ``labels`` are the input ids themselves, shifted inside; -100 is ignored.
        """
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        hidden = self.backbone.hidden(
            input_ids,
            cache=past_key_values,
            positions=position_ids,
            attention_mask=attention_mask,
            embeddings=inputs_embeds,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.backbone.out_head(hidden[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)
