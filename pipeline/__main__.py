"""The command line: `ask` streams an answer to standard output, `explain` prints what the model would see, as JSON."""

import argparse
import asyncio
import io
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import locate, obtain
from pipeline.assistant import Answer, Assistant, Notice, TextDelta
from pipeline.config import EngineConfig, GenerationConfig
from pipeline.errors import ArtifactError, InputError, PipelineError
from pipeline.message import Image, Message, Part, Text, Video
from pipeline.processor import Options, Processor


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 2 for a user's error (one plain sentence on standard error), 1 for a fault of ours."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an answer may hold characters that the terminal has not
    try:
        environ = {"MODEL_DIR": options.model} if options.model else os.environ
        if options.command == "explain":
            _explain(locate(environ), options)
        else:
            asyncio.run(_ask(obtain(environ), options))
    except (InputError, ArtifactError) as error:
        print(error, file=sys.stderr)
        return 2
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has enough of it; nothing is left to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


async def _ask(folder: Path, options: argparse.Namespace) -> None:
    messages, generation = _messages(options), _generation(options)
    asked = Options(system_prompt=options.system, max_slice_nums=options.max_slices)
    started = time.perf_counter()
    with Assistant(folder, EngineConfig(device=os.environ.get("DEVICE") or "AUTO")) as assistant:
        load_s = time.perf_counter() - started
        async for delta in assistant.stream(messages, generation, asked):
            if isinstance(delta, TextDelta):
                print(delta.text, end="", flush=True)
            elif isinstance(delta, Notice):
                print(delta.text, file=sys.stderr)
    print()
    if options.json and isinstance(delta, Answer):
        print(json.dumps(_report(delta, load_s), ensure_ascii=False))


def _report(answer: Answer, load_s: float) -> dict[str, Any]:
    fields = ("text", "token_ids", "finish_reason", "prompt_tokens", "image_tokens", "cached_tokens")
    timings = {"load_s": load_s, "vision_s": answer.vision_s, "ttft_s": answer.ttft_s, "decode_tps": answer.decode_tps}
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**{name: getattr(answer, name) for name in fields}, "timings": timings, "peak_rss_mib": peak_kib / 1024}


def _explain(folder: Path, options: argparse.Namespace) -> None:
    processor = Processor(folder)
    plan = processor.plan(_messages(options), Options(system_prompt=options.system, max_slice_nums=options.max_slices))
    query_num = processor.config.query_num
    pictures = [
        {
            "size": item.layout.size,
            "grid": item.layout.grid,
            "overview_size": item.layout.overview_size,
            "refined_size": item.layout.refined_size,
            "tgt_sizes": item.layout.tgt_sizes,
            "tokens": len(item.layout.tgt_sizes) * query_num,
            "frame_time_s": item.time,
        }
        for item in plan.pictures
    ]
    prompt = plan.prompt
    document = {
        "pictures": pictures,
        "prompt": prompt.text,
        "input_ids": prompt.input_ids,
        "image_bound": prompt.image_bound,
        "prompt_tokens": len(prompt.input_ids),
        "image_tokens": prompt.image_tokens,
    }
    print(json.dumps(document, ensure_ascii=False))


def _messages(options: argparse.Namespace) -> list[Message]:
    """The history, then the last turn: pictures, the video, the text."""
    last: list[Part] = [Image(path) for path in options.image]
    if options.video:
        last.append(Video(options.video))
    if options.text is not None:
        last.append(Text(options.text))
    return [*(_history(Path(options.history)) if options.history else []), *([Message("user", tuple(last))] if last else [])]


def _history(path: Path) -> list[Message]:
    """Turns from a JSON file; an `InputError` says what is wrong with it."""
    kinds: dict[str, type[Part]] = {"text": Text, "image": Image, "video": Video}
    try:
        messages = []
        for turn in _list(json.loads(path.read_text(encoding="utf-8-sig"))):
            content = [(kind, value) for item in _list(turn["content"]) for kind, value in item.items()]
            messages.append(Message(turn["role"], tuple(kinds[kind](_string(value)) for kind, value in content)))
        return messages
    except OSError as cause:
        raise InputError(f"The history {path} cannot be read: {cause.strerror}.") from cause
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise InputError(
            f'The history {path} is not of the form [{{"role": "user", "content": [{{"image": PATH}}, {{"text": STRING}}]}}, ...].'
        ) from cause


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _generation(options: argparse.Namespace) -> GenerationConfig:
    length: dict[str, Any] = {} if options.max_new_tokens is None else {"max_new_tokens": options.max_new_tokens}
    if options.greedy:
        return GenerationConfig.greedy(**length)
    if options.beams is not None:
        return GenerationConfig.beams(num_beams=options.beams, **length)
    return GenerationConfig.sampling(seed=options.seed, **length)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("ask", help="answer the last message")
    explain = commands.add_parser("explain", help="show the prompt, its ids and how each picture is cut; runs no model")
    for command in (ask, explain):
        command.add_argument("--model", metavar="DIR", help="a model folder (default: MODEL_DIR, MODEL_REPO or the bundled demo)")
        command.add_argument("--image", metavar="FILE", action="append", default=[], help="a picture; may be given several times")
        command.add_argument("--video", metavar="FILE", help="a video")
        command.add_argument("--text", help="what to say")
        command.add_argument("--history", metavar="FILE.json", help="the turns before")
        command.add_argument("--system", metavar="TEXT", help="a system prompt")
        command.add_argument("--max-slices", type=int, metavar="N", help="cut pictures and frames into at most N slices")
        command.add_argument("--json", action="store_true", help="print one JSON document last")
    how = ask.add_mutually_exclusive_group()
    how.add_argument("--greedy", action="store_true", help="always the likeliest token, no repetition penalty")
    how.add_argument("--beams", type=int, metavar="N", help="beam search with the official penalty of 1.2")
    how.add_argument("--seed", type=int, help="make sampling repeatable")
    ask.add_argument("--max-new-tokens", type=int, metavar="N", help="length of the answer at most")
    return parser


if __name__ == "__main__":
    sys.exit(main())
