"""What the image encoder and the resampler make of a picture -> losses against its patch labels. Dropped after training."""

import torch
from torch import nn
from torch.nn import functional

from demo.scenes import IGNORED, LABEL_COUNTS

SHARPNESS = 2.0  # length of a label's direction
FOCUS = 0.4  # logit for each unit of likeness of a patch's place and a row's


class Heads(nn.Module):
    """Two readers of every label of every patch: one beside the patch itself, one that has only the resampler's rows and the place of the patch.

    A reader takes rows of one loudness, as the language model's first norm makes them, and its directions are of one length: so what a label says has
    to be loud in the rows themselves. Readers that could turn up their own weights leave it so faint that the language model never finds it.

    Args:
        places: (queries, hidden), where each of the resampler's rows begins by looking.
    """

    def __init__(self, vision_hidden_size: int, places: torch.Tensor) -> None:
        super().__init__()
        hidden_size = places.shape[1]
        self.near = nn.ParameterDict({name: torch.randn(count, vision_hidden_size) for name, count in LABEL_COUNTS.items()})
        self.far = nn.ParameterDict({name: torch.randn(count, hidden_size) for name, count in LABEL_COUNTS.items()})
        self.places = nn.Parameter(places.clone())

    def forward(
        self, features: torch.Tensor, embeds: torch.Tensor, pos_embed: torch.Tensor, labels: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """features (pictures, patches, vision hidden), embeds (pictures, queries, hidden), labels (pictures, patches) -> a loss by name."""
        looks = torch.softmax(FOCUS * pos_embed.transpose(0, 1) @ self.places.T, dim=-1)  # (pictures, patches, queries)
        near = functional.rms_norm(features, features.shape[-1:])
        far = looks @ functional.rms_norm(embeds, embeds.shape[-1:])
        losses = {}
        for name, wanted in labels.items():
            losses[name] = _loss(near, self.near[name], wanted)
            losses[f"{name} far"] = _loss(far, self.far[name], wanted)
        return losses


def _loss(rows: torch.Tensor, directions: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    logits = rows @ (SHARPNESS * functional.normalize(directions, dim=1)).T
    return functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
