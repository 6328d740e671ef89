"""Nothing -> drawn pictures (RGB) to calibrate 8-bit activations on, where an operator has no pictures of their own."""

import numpy as np
import PIL.Image

from demo.episodes import SKILLS, episode

COUNT = 60


def pictures() -> list[PIL.Image.Image]:
    """The same ones each time: of every skill, large and small, with print and without."""
    shown = (episode(seed, "train", SKILLS[seed % len(SKILLS)]).turns[0].media[0].frames[0] for seed in range(COUNT))
    return [PIL.Image.fromarray(np.asarray(image)) for image in shown]
