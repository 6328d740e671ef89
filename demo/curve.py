"""The log of a training -> its learning curve as a picture: the loss of the words and of what is seen, over the minutes."""

import itertools
import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

NOT_LOSSES = ("step", "minutes", "stage")


def draw_curve(log: Path, picture: Path) -> None:
    """Overwrites `picture`, a PNG file."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in NOT_LOSSES]
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="minutes", ylabel="loss, nats", yscale="log")
    for name in sorted(names, key=lambda name: name != "words"):
        shown = [(line["minutes"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*shown, strict=True), label=name, linewidth=2.5 if name == "words" else 1, linestyle="--" if name.endswith(" far") else "-")
    for before, after in itertools.pairwise(lines):
        if before["stage"] != after["stage"]:
            axes.axvline(after["minutes"], color="lightgrey", zorder=0)
    axes.legend(ncols=3, fontsize="small")
    figure.savefig(picture, dpi=100, metadata={"Software": None})
