"""Nothing but the generator -> a checkpoint of the demo model in the official format: a few million weights, trained on a CPU in about two hours.

    python -m demo.train --output DIR --work DIR --minutes 120

The work folder holds the state, so that training can be interrupted at any moment and goes on where it was when started again.
"""

import argparse
import json
import math
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from conversion.model import MiniCPMV
from demo.batches import IGNORED, LABELS, Batch, Example, collate, example
from demo.episodes import SKILLS, episode
from demo.scenes import LABEL_COUNTS
from demo.vocabulary import train_tokenizer, write_tokenizer
from pipeline.config import ModelConfig
from pipeline.processor import Processor

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
    "query_num": 36,
    "slice_config": {"max_slice_nums": 9, "patch_size": 14, "scale_resolution": 168, "model_type": "minicpmv"},
    "vision_config": {
        "model_type": "siglip",
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "image_size": 168,
        "patch_size": 14,
    },
    "drop_vision_last_layer": False,
    "use_image_id": True,
    "slice_mode": True,
    "batch_vision_input": True,
    "vision_batch_size": 16,
}
VOCABULARY = 900
BATCH = 24
PEAK = {"matrices": 0.02, "others": 2e-3}
WARM_UP_STEPS = 200
# Until then only what one picture shows; grounding comes before talk.
FIRST_SKILLS = ("colour", "shape", "size", "count", "where", "exist", "read_number")
FIRST_SHARE = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--work", type=Path, required=True, help="the state of the training")
    parser.add_argument("--minutes", type=float, default=120, help="of training in all, whatever they are spread over")
    parser.add_argument("--slice", type=float, default=math.inf, help="minutes to train now")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the process that draws is ended too
    options.output.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    if not (options.output / "config.json").exists():
        write_small_files(options.output)
    Trainer(options.output, options.work, options.minutes * 60).run(options.slice * 60)


def write_small_files(folder: Path) -> None:
    """The configs in the official form, and a tokenizer of what the generator says."""
    texts = (text for seed in range(4000) for turn in episode(seed, "train").turns for text in (turn.question, turn.answer))
    tokenizer = train_tokenizer((*texts, "system\nYou are a helpful assistant.\nuser\nassistant\n"), VOCABULARY)
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


class Trainer:
    """The model, its optimisers and how far it is."""

    def __init__(self, folder: Path, work: Path, budget_s: float) -> None:
        torch.manual_seed(0)
        self.folder, self.state, self.log, self.budget_s = folder, work / "state.pt", work / "log.jsonl", budget_s
        self.config = ModelConfig.from_folder(folder)
        self.model = MiniCPMV(self.config)
        self.heads = nn.ModuleDict({name: nn.Linear(self.config.vision.hidden_size, LABEL_COUNTS[name]) for name in LABELS})
        matrices = [weight for name, weight in self.model.named_parameters() if weight.ndim == 2 and ".layers." in name]
        chosen = {id(weight) for weight in matrices}
        others = [weight for weight in (*self.model.parameters(), *self.heads.parameters()) if id(weight) not in chosen]
        self.optimisers = {
            "matrices": torch.optim.Muon(matrices, lr=PEAK["matrices"], momentum=0.95, weight_decay=0.01),
            "others": torch.optim.AdamW(others, lr=PEAK["others"], betas=(0.9, 0.95), weight_decay=0.01),
        }
        self.step, self.elapsed = 0, 0.0
        if self.state.exists():
            self._restore()

    def run(self, slice_s: float) -> None:
        """Train until the budget or this slice of it is used up, saving the state every few minutes."""
        begun, begun_at, saved = time.monotonic(), self.elapsed, time.monotonic()
        running: dict[str, float] = {}
        for batch in self._batches():
            self.elapsed = begun_at + time.monotonic() - begun
            losses = self.learn(batch)
            for name, value in losses.items():
                running[name] = 0.98 * running.get(name, value) + 0.02 * value
            if self.step % 25 == 0:
                self._report(running)
            if time.monotonic() - saved > 180:
                self.save()
                saved = time.monotonic()
            if self.elapsed >= self.budget_s or self.elapsed - begun_at >= slice_s:
                break
        self.save()

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; the losses of the words and of each of the auxiliary heads."""
        rate = min(1.0, self.step / WARM_UP_STEPS) * max(0.02, math.cos(min(1.0, self.elapsed / self.budget_s) * math.pi / 2))
        for name, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = PEAK[name] * rate
        # On a CPU plain attention is a fifth faster to train than the fused one.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            losses = self._losses(batch)
            words, shown = losses["words"], sum(losses[name] for name in LABELS)
            (words + 0.5 * shown).backward()
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.heads.parameters()], 1.0)
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        llm = self.model.llm.model
        features = self.model.vpm(batch.pixel_values, batch.patch_mask, batch.position_ids)
        embeds = self.model.resampler(features, batch.pos_embed, 1 - batch.patch_mask[:, 0])
        inputs_embeds = llm.embed_tokens(batch.input_ids).to(embeds.dtype)
        rows, places = batch.image_positions.T
        inputs_embeds = inputs_embeds.index_put((rows, places), embeds.flatten(0, 1))
        hidden = llm(inputs_embeds=inputs_embeds).last_hidden_state[:, :-1]
        targets = batch.targets[:, 1:]
        wanted = targets != IGNORED  # the head is the widest layer: only where it is asked for
        losses = {"words": functional.cross_entropy(self.model.llm.lm_head(hidden[wanted]).float(), targets[wanted])}
        for name, head in self.heads.items():
            losses[name] = functional.cross_entropy(head(features).float().flatten(0, 1), batch.labels[name].flatten(), ignore_index=IGNORED)
        return losses

    def save(self) -> None:
        """The state, replaced whole, and the checkpoint in bfloat16."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "step": self.step,
            "elapsed": self.elapsed,
        }
        partial = self.state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state)
        tensors = {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in self.model.state_dict().items()}
        save_file(tensors, self.folder / "model.safetensors")

    def _restore(self) -> None:
        state = torch.load(self.state, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.step, self.elapsed = state["step"], state["elapsed"]

    def _report(self, losses: dict[str, float]) -> None:
        line = {"step": self.step, "minutes": round(self.elapsed / 60, 2), **{name: round(value, 4) for name, value in losses.items()}}
        print(json.dumps(line), flush=True)  # noqa: T201
        with self.log.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _batches(self) -> Iterator[Batch]:
        """Batches from a process of its own, a few ahead; each is drawn from seeds that its step alone decides."""
        with ProcessPoolExecutor(1, initializer=_prepare_worker, initargs=(self.folder,)) as pool:
            ahead = []
            for number in range(self.step, 10**9):
                ahead.append(pool.submit(_examples, number, self.elapsed < FIRST_SHARE * self.budget_s))
                if len(ahead) > 4:
                    yield collate(ahead.pop(0).result(), self.config)


_processor: list[Processor] = []  # of the worker process


def _prepare_worker(folder: Path) -> None:
    torch.set_num_threads(1)
    _processor.append(Processor(folder))


def _examples(number: int, only_first: bool) -> list[Example]:
    chosen = np.random.default_rng(number).choice(FIRST_SKILLS if only_first else SKILLS, BATCH)
    return [example(episode(number * BATCH + index, "train", str(skill), mixed=True), _processor[0]) for index, skill in enumerate(chosen)]


if __name__ == "__main__":
    main()
