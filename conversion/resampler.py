"""image_feature (pictures, patches, vision hidden) float32 -> last_hidden_state (pictures, queries, hidden): as many rows for any picture."""

import torch
from torch import nn
from torch.nn import functional

#: The norms' eps and the width of a head are constants of the architecture: no config holds them.
EPS = 1e-6
HEAD_DIM = 128


class CrossAttention(nn.Module):
    """Multi-head attention with the three input projections packed in one matrix, as the official state dict has them."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.num_heads = hidden_size // HEAD_DIM
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_size))
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """query (pictures, queries, hidden), key and value (pictures, patches, hidden), mask added to scores -> (pictures, queries, hidden)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (pictures, heads, rows, head_dim)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """Learned queries that attend to a picture's patches, under the names of the official state dict (`resampler.`)."""

    def __init__(self, query_num: int, hidden_size: int, vision_hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(query_num, hidden_size))
        self.kv_proj = nn.Linear(vision_hidden_size, hidden_size, bias=False)
        self.attn = CrossAttention(hidden_size)
        self.ln_q = nn.LayerNorm(hidden_size, eps=EPS)
        self.ln_kv = nn.LayerNorm(hidden_size, eps=EPS)
        self.ln_post = nn.LayerNorm(hidden_size, eps=EPS)
        self.proj = nn.Parameter(torch.empty(hidden_size, hidden_size))
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.normal_(self.proj, std=hidden_size**-0.5)

    def forward(self, image_feature: torch.Tensor, pos_embed: torch.Tensor, key_padding_mask: torch.Tensor) -> torch.Tensor:
        """Condense each picture's patches into `query_num` rows.

        Args:
            image_feature: (pictures, patches, vision hidden) float32 from the image encoder.
            pos_embed: (patches, pictures, hidden) float32, the sin/cos table of each picture's grid; zeros on padding.
            key_padding_mask: (pictures, patches) float32; anything but 0 marks padding.

        Returns:
            (pictures, queries, hidden) float32, ready to stand among the language model's embeddings.
        """
        value = self.ln_kv(self.kv_proj(image_feature))
        key = value + pos_embed.transpose(0, 1)
        query = self.ln_q(self.query).expand(value.shape[0], -1, -1)
        mask = torch.zeros_like(key_padding_mask).masked_fill(key_padding_mask != 0, float("-inf"))
        return self.ln_post(self.attn(query, key, value, mask[:, None, None, :])) @ self.proj
