"""A module's weights -> the same, rounded for a while as INT4 with scales for groups will round them, so that training gets used to it."""

import torch
from torch import nn

GROUP_SIZE = 64  # weights that share a scale


class InFourBits:
    """While it is entered, a module's matrices are rounded as INT4 with scales for groups will round them; gradients pass straight through."""

    def __init__(self, module: nn.Module | None) -> None:
        self.weights = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)] if module else []

    @torch.no_grad()
    def __enter__(self) -> None:
        self.kept = [weight.clone() for weight in self.weights]
        for weight in self.weights:
            weight.copy_(in_four_bits(weight))

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for weight, kept in zip(self.weights, self.kept, strict=True):
            weight.copy_(kept)


def in_four_bits(weight: torch.Tensor) -> torch.Tensor:
    """What INT4_SYM makes of a matrix: of each group the number furthest from zero becomes -8 steps."""
    groups = weight.unflatten(1, (-1, GROUP_SIZE))
    furthest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    step = furthest / -8
    step = torch.where(step == 0, torch.ones_like(step), step)
    return (torch.clamp(torch.round(groups / step), -8, 7) * step).flatten(1)
