"""What the parts make of a picture -> losses against what the generator knows: what its patches show, which picture it is. Dropped after training."""

import torch
from torch import nn
from torch.nn import functional

from demo.scenes import IGNORED, LABEL_COUNTS

LABELS = sum(LABEL_COUNTS.values())
NONE = 0.1  # weight of a patch that shows nothing: nine in ten do not, and what the others show must not be lost among them
THING = 4.0  # weight of a thing or glyph, which the patches that show it share: a small one counts as much as a large one
NUMBERS = 8  # pictures or frames that an episode shows at most
FOCUS = 0.4  # logit for each unit of likeness of a patch's place and a row's


class Heads(nn.Module):
    """Two readers of every label of every patch: one beside the patch itself, one that has only the resampler's rows and the place of the patch.

    A reader takes rows of one loudness, as the language model's first norm makes them, and its directions are fixed, of one length and square to each
    other: so what every label says has to be loud in the rows themselves. Readers that learn too leave most of it so faint that the language model
    never finds it: of what tells things apart, shape was a twentieth.

    Args:
        places: (queries, hidden), where each of the resampler's rows begins by looking.
    """

    def __init__(self, vision_hidden_size: int, places: torch.Tensor) -> None:
        super().__init__()
        hidden_size = places.shape[1]
        self.register_buffer("near", directions(vision_hidden_size)[:LABELS], persistent=False)
        self.register_buffer("far", directions(hidden_size)[:LABELS], persistent=False)
        self.places = nn.Parameter(places.clone())

    def forward(
        self, features: torch.Tensor, embeds: torch.Tensor, pos_embed: torch.Tensor, labels: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """features (pictures, patches, vision hidden), embeds (pictures, queries, hidden), labels (pictures, patches) -> a loss by name."""
        looks = torch.softmax(FOCUS * pos_embed.transpose(0, 1) @ self.places.T, dim=-1)  # (pictures, patches, queries)
        near = functional.rms_norm(features, features.shape[-1:])
        far = looks @ functional.rms_norm(embeds, embeds.shape[-1:])
        shares = _shares(labels)
        losses = {}
        for side, rows, directions in (("", near, self.near), (" far", far, self.far)):
            logits = (rows @ directions.T).split(list(LABEL_COUNTS.values()), dim=-1)
            for (name, wanted), said in zip(labels.items(), logits, strict=True):
                weights = torch.where(wanted == 0, NONE, shares) * (wanted != IGNORED)
                own = functional.cross_entropy(said.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
                losses[f"{name}{side}"] = (weights * own).sum() / weights.sum().clamp(min=1)
        return losses


def _shares(labels: dict[str, torch.Tensor]) -> torch.Tensor:
    """(pictures, patches): the weight of what a patch shows, by as many as show the same."""
    shown = torch.stack([labels[name] for name in ("shape", "colour", "rank", "glyph")], dim=-1)
    return THING / (shown[:, :, None] == shown[:, None]).all(-1).sum(2)


def directions(size: int) -> torch.Tensor:
    """(size, size), square to each other; the same each time. The first are those of the labels in a picture."""
    square, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0)))
    return square
