"""Nothing but the generator -> a checkpoint of the demo model in the official format: a few million weights, trained on a CPU in under two hours.

    python -m demo.train --output DIR --minutes 110

First the image encoder and the resampler learn to see, from labels of what each patch shows; then the language model learns to talk about what is
seen; then all learn together. The checkpoint is saved every few minutes and is its own state, beside the log, in the folder `training` within it: a
training that was interrupted goes on from there, warming up anew.
"""

import argparse
import json
import math
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional

from conversion.checkpoint import Checkpoint
from conversion.model import MiniCPMV
from demo.batches import Batch, collate, collate_sights, example, look
from demo.chance import pick
from demo.curve import draw_curve
from demo.episodes import episode
from demo.four_bits import InFourBits
from demo.heads import Heads
from demo.initial import initialise, places
from demo.lexicon import lexicon
from demo.muon import Muon
from demo.pages import page
from demo.scenes import IGNORED, draw
from demo.stock import Stock
from demo.vocabulary import train_tokenizer, write_tokenizer
from demo.weights import halved, replace, write_weights
from pipeline.config import ModelConfig
from pipeline.processor import Processor
from pipeline.tokenizer import Tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "query_num": 64,
    "slice_config": {"max_slice_nums": 9, "patch_size": 14, "scale_resolution": 168, "model_type": "minicpmv"},
    "vision_config": {
        "model_type": "siglip",
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "image_size": 336,
        "patch_size": 14,
    },
    "drop_vision_last_layer": False,
    "use_image_id": True,
    "slice_mode": True,
    "batch_vision_input": True,
    "vision_batch_size": 16,
}
VOCABULARY = 640
FRAMES = 3000

PICTURES = 32  # slices a step, while only seeing is learned
EPISODES = 24  # a step, afterwards
PEAK = {"matrices": 0.02, "others": 2e-3}
WARM_UP_STEPS = 100
DECAY_FROM = 0.6  # share of the time after which the rates fall
FOUR_BITS_FROM = 0.85  # share of the time after which every other step computes with the language model's weights as INT4 will have them
_SHAPES = {"colour": 1.0, "shape": 1.0, "size": 1.0, "count": 1.0, "where": 1.0, "exist": 1.0, "describe": 1.0}
_ALONE = {**_SHAPES, "count": 1.5, "describe": 2.0, "relation": 2.0, "followup": 1.0, "read_number": 1.5, "read_word": 2.0, "refuse": 0.5}
_ALBUMS = {"multi": 4.0, "video": 3.5, "small_print": 1.5}


@dataclass(frozen=True)
class Stage:
    """What is learned until a share of the whole time.

    Args:
        sides: what learns, of "sight" and "talk".
        skills: how often each opens an episode, questions of others following; empty while there is only seeing.
        most: things in a picture, so that looking is learned before searching.
    """

    until: float
    sides: tuple[str, ...]
    skills: dict[str, float] = field(default_factory=dict)
    most: int = 6


STAGES = (
    Stage(0.20, ("sight",)),
    Stage(0.22, ("talk",), _SHAPES, most=1),
    Stage(0.26, ("talk",), {**_SHAPES, "read_number": 1.0, "refuse": 0.3}, most=2),
    Stage(0.32, ("talk",), _ALONE, most=3),
    Stage(0.50, ("talk",), _ALONE),
    Stage(0.75, ("talk",), {**_ALONE, **_ALBUMS}),
    Stage(1.00, ("sight", "talk"), {**_ALONE, **_ALBUMS}),
)
SEEN_SKILLS = ("colour", "count", "size", "relation", "read_number", "read_word", "small_print", "describe", "refuse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--minutes", type=float, default=110, help="of training in all, whatever they are spread over")
    parser.add_argument("--slice", type=float, default=math.inf, help="minutes to train now")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the process that draws is ended too
    options.output.mkdir(parents=True, exist_ok=True)
    if not (options.output / "config.json").exists():
        write_small_files(options.output)
    Trainer(options.output, options.minutes * 60).run(options.slice * 60)


def write_small_files(folder: Path) -> None:
    """The configs in the official form, and a tokenizer of what the generator says."""
    texts = (text for seed in range(4000) for turn in episode(seed, "train").turns for text in (turn.question, _unread(turn.answer)))
    frame = ["system\nYou are a helpful assistant.\nuser\nassistant\n"] * FRAMES  # of each conversation: its words are to be one token each
    tokenizer = train_tokenizer((*texts, *frame), VOCABULARY)
    write_tokenizer(tokenizer, folder)
    ids = {"bos_token_id": tokenizer.token_to_id("<|endoftext|>"), "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    kind = {"model_type": "minicpmv", "architectures": ["MiniCPMV"], "version": 2.6, "torch_dtype": "bfloat16"}
    config = {**kind, **SIZES, **ids, "vocab_size": tokenizer.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    slices = SIZES["slice_config"]
    processor = {
        "image_processor_type": "MiniCPMVImageProcessor", "processor_class": "MiniCPMVProcessor", "version": 2.6, "slice_mode": True,
        "max_slice_nums": slices["max_slice_nums"], "scale_resolution": slices["scale_resolution"], "patch_size": 14, "use_image_id": True,
        "image_feature_size": SIZES["query_num"], "im_start": "<image>", "im_end": "</image>", "slice_start": "<slice>", "slice_end": "</slice>",
        "unk": "<unk>", "im_id_start": "<image_id>", "im_id_end": "</image_id>", "norm_mean": [0.5] * 3, "norm_std": [0.5] * 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n")


def _unread(answer: str) -> str:
    """Without what was read in a picture: letters are to be written one by one."""
    return re.sub("[A-Z]{2,}", "", answer)


class Trainer:
    """The model, its optimisers and how far it is."""

    def __init__(self, folder: Path, budget_s: float) -> None:
        torch.manual_seed(0)
        self.folder, self.training, self.budget_s = folder, folder / "training", budget_s
        self.training.mkdir(exist_ok=True)
        self.log, self.progress_file, self.heads_file = (self.training / name for name in ("log.jsonl", "progress.json", "heads.safetensors"))
        self.config = ModelConfig.from_folder(folder)
        self.model = MiniCPMV(self.config)
        initialise(self.model, lexicon(Tokenizer(folder)))
        self.heads = Heads(self.config.vision.hidden_size, places(self.config.query_num, self.config.text.hidden_size))
        self.step, self.elapsed = 0, 0.0
        if self.progress_file.exists():
            self._restore()
        self.sides = {"sight": nn.ModuleList([self.model.vpm, self.model.resampler, self.heads]), "talk": nn.ModuleList([self.model.llm])}
        groups: dict[str, list[dict[str, Any]]] = {"matrices": [], "others": []}
        for side, modules in self.sides.items():
            named = list(modules.named_parameters())
            matrices = [weight for name, weight in named if weight.ndim == 2 and ".layers." in name]
            chosen = {id(weight) for weight in matrices}
            groups["matrices"].append({"params": matrices, "side": side})
            groups["others"].append({"params": [weight for _, weight in named if id(weight) not in chosen], "side": side})
        self.optimisers = {
            "matrices": Muon(groups["matrices"], lr=PEAK["matrices"]),
            "others": torch.optim.AdamW(groups["others"], lr=PEAK["others"], betas=(0.9, 0.95), weight_decay=0.01, fused=True),
        }
        self.steps = dict.fromkeys(self.sides, 0)  # that each side has learned from since it was started

    @property
    def progress(self) -> float:
        """Share of the whole time, 0 to 1."""
        return min(1.0, self.elapsed / self.budget_s)

    @property
    def stage(self) -> int:
        """Index in STAGES."""
        return next(index for index, stage in enumerate(STAGES) if self.progress < stage.until or stage is STAGES[-1])

    def run(self, slice_s: float) -> None:
        """Train until the budget or this slice of it is used up, saving the state every few minutes."""
        begun, begun_at, saved = time.monotonic(), self.elapsed, time.monotonic()
        running: dict[str, float] = {}
        for batch in self._batches():
            for name, value in self.learn(batch).items():
                running[name] = 0.98 * running.get(name, value) + 0.02 * value
            self.elapsed = begun_at + time.monotonic() - begun
            if self.step % 25 == 0:
                self._report(running)
            if time.monotonic() - saved > 180:
                self.save()
                saved = time.monotonic()
            if self.elapsed >= self.budget_s or self.elapsed - begun_at >= slice_s:
                break
        self.save()
        if self.log.exists():
            draw_curve(self.log, self.training / "curve.png")

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step of the stage it is in; the loss of the words and of each of the auxiliary heads."""
        learning = STAGES[self.stage].sides
        for side in learning:
            self.steps[side] += 1
        # A side that has begun anew beside another warms up anew with it.
        warm = {side: min(1.0, self.steps[side] / WARM_UP_STEPS) for side in self.sides}
        fall = min(1.0, max(0.02, (1 - self.progress) / (1 - DECAY_FROM)))
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = PEAK[name] * fall * warm[group["side"]]
        four_bits = self.progress >= FOUR_BITS_FROM and self.step % 2 == 0
        with InFourBits(self.model.llm if four_bits else None):
            losses = self._losses(batch, sight_learns="sight" in learning)
            shown = [loss for name, loss in losses.items() if name != "words"]
            total = losses.get("words", torch.zeros(())) + (0.1 if "words" in losses else 0.5) * sum(shown, torch.zeros(()))
            total.backward()
        for side in learning:
            nn.utils.clip_grad_norm_(self.sides[side].parameters(), 1.0)
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, batch: Batch, *, sight_learns: bool) -> dict[str, torch.Tensor]:
        pictures = batch.pictures
        with torch.set_grad_enabled(sight_learns):
            features = self.model.vpm(pictures.pixel_values, pictures.patch_mask, pictures.position_ids)
            embeds = self.model.resampler(features, pictures.pos_embed, 1 - pictures.patch_mask[:, 0])
            losses = self.heads(features, embeds, pictures.pos_embed, pictures.labels) if sight_learns else {}
        if not batch.words:
            return losses
        llm, hidden, targets = self.model.llm.model, [], []
        for words in batch.words:
            inputs_embeds = llm.embed_tokens(words.input_ids)
            rows, columns = words.image_positions.T
            inputs_embeds = inputs_embeds.index_put((rows, columns), embeds[words.pictures].flatten(0, 1))
            wanted = words.targets[:, 1:] != IGNORED  # the head is the widest layer: only where it is asked for
            hidden.append(llm(inputs_embeds=inputs_embeds, use_cache=False).last_hidden_state[:, :-1][wanted])
            targets.append(words.targets[:, 1:][wanted])
        return {"words": functional.cross_entropy(self.model.llm.lm_head(torch.cat(hidden)), torch.cat(targets)), **losses}

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

    def _report(self, losses: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2), "stage": self.stage}
        line |= {name: round(value, 4) for name, value in losses.items()}
        print(json.dumps(line), flush=True)
        with self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _batches(self) -> Iterator[Batch]:
        """Batches from a process of its own, a few ahead; each is drawn from seeds that its step alone decides."""
        with ProcessPoolExecutor(1, initializer=_prepare_worker, initargs=(self.folder,)) as pool:
            ahead: list[tuple[int, Future[Batch]]] = []
            for number in range(self.step, 10**9):
                # What was made ahead for an earlier stage is of no use to this one.
                ahead = [(stage, batch) for stage, batch in ahead if stage == self.stage]
                stage = STAGES[self.stage]
                ahead.append((self.stage, pool.submit(_episodes, number, stage) if stage.skills else pool.submit(_pictures, number)))
                if len(ahead) > 4:
                    yield ahead.pop(0)[1].result()


_processor: list[Processor] = []  # of the worker process


def _prepare_worker(folder: Path) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # it draws in what the training leaves over
    torch.set_num_threads(1)
    _processor.append(Processor(folder))


def _pictures(number: int) -> Batch:
    """Three quarters of them slices of crowded pages, the others of scenes that questions are asked about."""
    random, processor = np.random.default_rng(number), _processor[0]
    sights = []
    while len(sights) < PICTURES:
        if random.random() < 0.75:
            scene = page(random, Stock("train"))
            sights += look(draw(scene, random), scene, processor)
        else:
            shown = episode(int(random.integers(2**40)), "train", pick(random, SEEN_SKILLS)).turns[0].media[0]
            sights += look(shown.frames[0], shown.scenes[0], processor)[:5]
    return Batch(collate_sights(sights[:PICTURES], processor.config))


def _episodes(number: int, stage: Stage) -> Batch:
    weights = np.array(list(stage.skills.values()))
    chosen = np.random.default_rng(number).choice(list(stage.skills), EPISODES, p=weights / weights.sum())
    shown = [episode(number * EPISODES + index, "train", str(skill), mixed=True, most=stage.most) for index, skill in enumerate(chosen)]
    return collate([example(one, _processor[0]) for one in shown], _processor[0].config)


if __name__ == "__main__":
    main()
