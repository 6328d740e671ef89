"""Nothing but the generator -> a checkpoint of the demo model in the official format: a few million weights, trained on a CPU in four hours.

    python -m demo.train --output DIR

First the image encoder and the resampler learn to see, from labels of what each patch shows; then the language model learns to talk about what is
seen, and they learn no more: words teach them nothing that labels do not, and what is read must not change under the reading. The checkpoint is saved
every few minutes and is its own state, beside the log, in the folder `training` within it: one that was interrupted goes on from there, warming up
anew.
"""

import argparse
import json
import math
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional

from conversion.checkpoint import Checkpoint
from conversion.model import MiniCPMV
from demo.batches import Batch
from demo.circuits import circuit_losses
from demo.curriculum import STAGES, batches, rate_at, stage_at
from demo.curve import draw_curve
from demo.four_bits import InFourBits
from demo.heads import Heads
from demo.initial import initialise, places
from demo.lexicon import lexicon
from demo.muon import Muon
from demo.scenes import IGNORED
from demo.small_files import write_small_files
from demo.weights import halved, replace, write_weights
from pipeline.config import ModelConfig
from pipeline.tokenizer import Tokenizer

PEAK = {  # the language model learns nothing more from larger ones
    "sight": {"matrices": 0.02, "others": 2e-3},
    "names": {"matrices": 0.003, "others": 4e-4},
    "talk": {"matrices": 0.005, "others": 7e-4},
}
WARM_UP_STEPS = 40
WEIGHTS = {"sight": 0.5, "words": 1.0, "circuits": 0.2}  # of losses
HALF = torch.cpu._is_avx512_bf16_supported()  # matrices are multiplied in bfloat16 where that is faster, which is most of the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--slice", type=float, default=math.inf, help="minutes to train now")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the process that draws is ended too
    options.output.mkdir(parents=True, exist_ok=True)
    if not (options.output / "config.json").exists():
        write_small_files(options.output)
    Trainer(options.output).run(options.slice * 60)


class Trainer:
    """The model, its optimisers and how far it is."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder, self.training = folder, folder / "training"
        self.training.mkdir(exist_ok=True)
        self.log, self.progress_file, self.heads_file = (self.training / name for name in ("log.jsonl", "progress.json", "heads.safetensors"))
        self.config = ModelConfig.from_folder(folder)
        self.model = MiniCPMV(self.config)
        self.model.llm.set_attn_implementation("eager")  # which tells where it looks
        tokenizer = Tokenizer(folder)
        initialise(self.model, lexicon(tokenizer), tokenizer.control_id("<|im_start|>"))
        self.heads = Heads(self.config.vision.hidden_size, places(self.config.query_num, self.config.text.hidden_size))
        self.step, self.elapsed = 0, 0.0
        if self.progress_file.exists():
            self._restore()
        self.sides = self._sides()
        layers = [*self.model.vpm.encoder.layers, *self.model.llm.model.layers]
        chosen = {id(weight) for layer in layers for weight in layer.parameters() if weight.ndim == 2}
        groups: dict[str, list[dict[str, Any]]] = {"matrices": [], "others": []}
        for side, modules in self.sides.items():
            for name, wanted in (("matrices", True), ("others", False)):
                groups[name].append({"params": [weight for weight in modules.parameters() if (id(weight) in chosen) is wanted], "side": side})
        self.optimisers = {
            "matrices": Muon(groups["matrices"], lr=0.0),
            "others": torch.optim.AdamW(groups["others"], lr=0.0, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
        }
        self.steps = dict.fromkeys(self.sides, 0)  # that each side has learned from since it was started

    def _sides(self) -> dict[str, nn.ModuleList]:
        """What learns apart. Of the language model that which begins by finding what words name: an optimiser that makes every step as large as any
        other would undo it long before the rest knows what to do with it.
        """
        llm = self.model.llm
        return {
            "sight": nn.ModuleList([self.model.vpm, self.model.resampler, self.heads]),
            "names": nn.ModuleList([llm.model.embed_tokens, *llm.model.layers[:2]]),
            "talk": nn.ModuleList([*llm.model.layers[2:], llm.model.norm, llm.lm_head]),
        }

    def run(self, slice_s: float) -> None:
        """Train to the end or until this slice of time is used up, saving the state every few minutes."""
        begun, begun_at, saved = time.monotonic(), self.elapsed, time.monotonic()
        running: dict[str, float] = {}
        for batch in batches(self.folder, self.step):
            if not stage_at(self.step)[1]:
                running = {}
            for name, value in self.learn(batch).items():
                running[name] = 0.98 * running.get(name, value) + 0.02 * value
            self.elapsed = begun_at + time.monotonic() - begun
            if self.step % 25 == 0:
                self._report(running)
            if time.monotonic() - saved > 180:
                self.save()
                saved = time.monotonic()
            if self.elapsed - begun_at >= slice_s:
                break
        self.save()
        if self.log.exists():
            draw_curve(self.log, self.training / "curve.png")

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step of the stage it is in; the loss of the words and of each of the auxiliary heads."""
        stage, rate = STAGES[stage_at(self.step)[0]], rate_at(self.step)
        learning = stage.sides
        for side, modules in self.sides.items():
            modules.requires_grad_(side in learning)
            self.steps[side] += side in learning
        # A side that has begun anew beside another warms up anew with it.
        warm = {side: min(1.0, self.steps[side] / WARM_UP_STEPS) for side in self.sides}
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                side = group["side"]
                group["lr"] = PEAK[side][name] * rate * warm[side]
        four_bits = stage.four_bits and self.step % 2 == 0
        with InFourBits(self.model.llm if four_bits else None):
            with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
                losses = self._losses(batch)
            total = sum((WEIGHTS[side] * loss for side, own in losses.items() for loss in own.values()), torch.zeros(()))
            total.backward()
        for side in learning:
            nn.utils.clip_grad_norm_(self.sides[side].parameters(), 1.0)
        for optimiser in self.optimisers.values():
            with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return {name: float(value.detach()) for own in losses.values() for name, value in own.items()}

    def _losses(self, batch: Batch) -> dict[str, dict[str, torch.Tensor]]:
        """Of WEIGHTS, each by name."""
        pictures = batch.pictures
        with torch.set_grad_enabled(not batch.words):
            features = self.model.vpm(pictures.pixel_values, pictures.patch_mask, pictures.position_ids)
            embeds = self.model.resampler(features, pictures.pos_embed, 1 - pictures.patch_mask[:, 0]).float()
        if not batch.words:
            return {"sight": self.heads(features, embeds, pictures.pos_embed, pictures.labels)}
        llm, hidden, targets = self.model.llm.model, [], []
        circuits: dict[str, list[tuple[torch.Tensor, int]]] = defaultdict(list)
        for words in batch.words:
            inputs_embeds = llm.embed_tokens(words.input_ids)
            inputs_embeds = inputs_embeds.index_put(tuple(words.image_positions.T), embeds[words.pictures].flatten(0, 1))
            wanted = words.targets[:, 1:] != IGNORED  # the head is the widest layer: only where it is asked for
            states = llm(inputs_embeds=inputs_embeds, use_cache=False, output_hidden_states=True, output_attentions=True)
            for name, loss in circuit_losses(states.hidden_states, states.attentions, words.lessons).items():
                circuits[name].append(loss)
            hidden.append(states.last_hidden_state[:, :-1][wanted])
            targets.append(words.targets[:, 1:][wanted])
        said = functional.cross_entropy(self.model.llm.lm_head(torch.cat(hidden)).float(), torch.cat(targets))
        return {"words": {"words": said}, "circuits": {name: _mean(losses) for name, losses in circuits.items()}}

    def save(self) -> None:
        """The checkpoint in bfloat16, the heads, and how far it is; each file is replaced whole."""
        write_weights(self.model, self.folder)
        replace(self.heads_file, save(halved(self.heads)))
        replace(self.progress_file, json.dumps({"step": self.step, "minutes": round(self.elapsed / 60, 2)}).encode())

    def _restore(self) -> None:
        checkpoint = Checkpoint.open(self.folder)
        for prefix, module in (("vpm.", self.model.vpm), ("resampler.", self.model.resampler), ("llm.", self.model.llm)):
            checkpoint.load(module, prefix, torch.float32)
        self.heads.load_state_dict(load_file(self.heads_file))
        progress = json.loads(self.progress_file.read_text())
        self.step, self.elapsed = progress["step"], 60 * progress["minutes"]
        if self.log.exists():  # what was learned after the last save will be learned again
            lines = self.log.read_text().splitlines(keepends=True)
            replace(self.log, "".join(line for line in lines if json.loads(line)["step"] <= self.step).encode())

    def _report(self, losses: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2), "stage": stage_at(self.step - 1)[0]}
        line |= {name: round(value, 4) for name, value in losses.items()}
        print(json.dumps(line), flush=True)
        with self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")


def _mean(losses: Sequence[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """Of means over so many places each."""
    return sum((loss * count for loss, count in losses), torch.zeros(())) / sum(count for _, count in losses)


if __name__ == "__main__":
    main()
