"""pixel_values (pictures, 3, patch, patch * patches) float32 -> last_hidden_state (pictures, patches, vision hidden): SigLIP for any shape."""

import torch
from torch import nn
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoder

from pipeline.config import VisionConfig


class VisionEmbeddings(nn.Module):
    """Each patch becomes a vector, plus the learned vector of its place in a square table of positions."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(config.position_side_patches**2, config.hidden_size)

    def forward(self, pixel_values: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)  # (pictures, patches, vision hidden)
        return patches + self.position_embedding(position_ids)


class VisionEncoder(nn.Module):
    """The image encoder under the names of the official state dict (`vpm.`). The layers are transformers' own SigLIP layers.

    Args:
        drop_last_layer: build one layer fewer than the config counts; the layer norm after the last one stays.
    """

    def __init__(self, config: VisionConfig, drop_last_layer: bool) -> None:
        super().__init__()
        layers = SiglipVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers - drop_last_layer,
            num_attention_heads=config.num_attention_heads,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            attn_implementation="sdpa",
        )
        self.embeddings = VisionEmbeddings(config)
        self.encoder = SiglipEncoder(layers)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor, patch_attention_mask: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Encode a padded batch of pictures.

        Args:
            pixel_values: (pictures, 3, patch, patch * patches) float32; the patches of a picture in a row, zeros after the last.
            patch_attention_mask: (pictures, 1, patches) float32; 1 for a patch, 0 for padding.
            position_ids: (pictures, patches) int64 into the table of positions; 0 on padding.

        Returns:
            (pictures, patches, vision hidden) float32 after the last layer norm; the rows of padding mean nothing.
        """
        hidden = self.embeddings(pixel_values, position_ids)
        padding = 1.0 - patch_attention_mask.to(hidden.dtype)
        # Added to the scores of every query and head: (pictures, 1, 1, patches), the most negative finite number on padded keys.
        attention_mask = padding[:, :, None, :] * torch.finfo(hidden.dtype).min
        return self.post_layernorm(self.encoder(hidden, attention_mask=attention_mask).last_hidden_state)
