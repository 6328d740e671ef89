"""Command line: a MiniCPM-V 2.6 checkpoint (a folder or a Hub id) -> a folder of OpenVINO IR -> if asked to, a repo on the Hub.

Exit status 0 when it is done, 2 for an error of the person who asked, with one sentence on standard error, 130 when it is interrupted, 1 for a fault
of ours.
"""

import argparse
import contextlib
import ctypes
import logging
import math
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image

#: The exit status that shells know of a Ctrl-C.
INTERRUPTED = 130


class Interruption:
    """Ctrl-C or SIGTERM, remembered: a KeyboardInterrupt that passes through a library's C++ code comes out as something else, or not at all."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """From now on, in the main thread, whatever OpenVINO does to it.

        Its CPU plug-in gives the thread that loads it a stack for signals and takes it back when it goes. Of several that come and go in another
        order, one leaves the thread with a stack that is no longer there, and the next signal that is to run on it ends the process. Python has
        its handlers run there if there is one; the C library's plain `signal` does not.
        """
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, self)
            libc.signal(kind, libc.signal(kind, None))  # Python's own handler, as it was but for the stack
            signal.siginterrupt(kind, True)

    def __call__(self, *_: object) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self.asked:
            raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    # Imported here because they take seconds, and --help should not.
    from conversion.publish import Target, check_access, publish  # noqa: PLC0415
    from conversion.workspace import kept_steps  # noqa: PLC0415
    from pipeline.errors import ArtifactError, InputError  # noqa: PLC0415

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("conversion").setLevel(logging.INFO)
    interruption = Interruption()
    interruption.listen()
    finished = options.push_only
    try:
        target = Target(options.push_to, options.push_revision, options.private) if options.push_to else None
        if target:
            check_access(target)
        if finished is None:
            _convert(options, interruption)
            finished = options.output
        if target:
            publish(finished, target)
    except (InputError, ArtifactError) as error:
        unsent = finished is not None and options.push_only is None
        print(error, *[f"The conversion is complete: --push-only {finished} sends it without another."] * unsent, file=sys.stderr)
        return 2
    except BaseException:
        if not interruption.asked:
            raise
        if finished:
            rest = f"--push-only {finished} goes on where it was"
        else:
            kept = ", ".join(kept_steps(options.output))
            rest = f"kept for the next run of the same command: {kept}" if kept else "nothing was written"
        print(f"\nInterrupted: {rest}.", file=sys.stderr)  # below the bar of a download and the terminal's ^C
        return INTERRUPTED
    return 0


def _convert(options: argparse.Namespace, interruption: Interruption) -> None:
    from conversion.checkpoint import Source  # noqa: PLC0415
    from conversion.compress import Recipe  # noqa: PLC0415
    from conversion.fidelity import Limits  # noqa: PLC0415
    from conversion.job import convert  # noqa: PLC0415

    logging.getLogger("nncf").setLevel(logging.WARNING)
    chosen = {"group_size": options.group_size, "ratio": options.ratio, "symmetric": False if options.asymmetric else None}
    chosen |= {"vision_format": options.vision_format, "ptq_fallback": options.ptq_fallback}
    # NNCF draws its progress on standard output; ours is on standard error, and so belongs this.
    with contextlib.redirect_stdout(sys.stderr):
        recipe = Recipe(options.weight_format, **{name: value for name, value in chosen.items() if value is not None})
        pictures = _pictures(options.calibration) if recipe.vision_format == "int8-ptq" else []
        source, limits = Source.locate(options.source, options.revision), Limits(options.min_cosine, options.max_kl)
        convert(source, options.output, recipe, pictures, interruption.check, limits)


def _pictures(folder: Path | None) -> "list[PIL.Image.Image]":
    """Those of a folder, or drawn ones."""
    from demo.calibration import COUNT, pictures  # noqa: PLC0415
    from pipeline.config import MediaLimits  # noqa: PLC0415
    from pipeline.errors import InputError  # noqa: PLC0415
    from pipeline.message import Image  # noqa: PLC0415
    from pipeline.still import load_image  # noqa: PLC0415

    if folder is None:
        return pictures()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of pictures.")
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    # They are held in memory all at once, and each slice of them is computed several times.
    count = min(len(paths), COUNT)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    return [_reduced(load_image(Image(path), MediaLimits(), path.name).image) for path in chosen]


def _reduced(picture: "PIL.Image.Image") -> "PIL.Image.Image":
    """At most as large as all its slices together: more of a camera's pixels the model never sees, and sixty such pictures would fill the memory."""
    from pipeline.config import SliceConfig  # noqa: PLC0415

    slices = SliceConfig()
    scale = math.sqrt(slices.max_slice_nums / (picture.width * picture.height)) * slices.scale_resolution
    if scale >= 1:
        return picture
    return picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert a MiniCPM-V 2.6 checkpoint to OpenVINO IR. None of its Python code is run.")
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="a folder in the official checkpoint's format, or a Hub id OWNER/NAME")
    parser.add_argument("--output", metavar="DIR", type=Path, help="a new folder, or an earlier conversion to replace")
    parser.add_argument("--weight-format", choices=("int4", "int8", "fp16", "fp32"), default="int4", help="default: int4")
    parser.add_argument("--group-size", metavar="N", type=int, help="int4: weights that share a scale (default: 64)")
    parser.add_argument("--ratio", metavar="R", type=float, help="int4: share of the language model in 4 bits, the rest in 8 (default: 1.0)")
    parser.add_argument("--asymmetric", action="store_true", help="int4: scales with zero points")
    vision_formats = "image encoder: int8 weights, activations too (int8-ptq), or fp16 (default: int8 beside int4, else as --weight-format)"
    parser.add_argument("--vision-format", choices=("int8", "int8-ptq", "fp16"), help=vision_formats)
    parser.add_argument(
        "--calibration", metavar="DIR", type=Path, help="int8-ptq: pictures like those it will be shown, 60 at most (default: drawn ones)"
    )
    parser.add_argument(
        "--ptq-fallback", action="store_true", help="int8-ptq: where it comes out too far from the checkpoint, int8 instead of an error"
    )
    parser.add_argument("--min-cosine", metavar="X", type=float, help="least cosine of each part to the checkpoint's (default: by its format)")
    parser.add_argument("--max-kl", metavar="X", type=float, help="greatest divergence of the language model, in nats (default: by its format)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a SOURCE on the Hub")
    parser.add_argument("--push-to", metavar="OWNER/NAME", help="then push to this repo on the Hub, with the token in HF_TOKEN or of `hf auth login`")
    parser.add_argument("--push-revision", metavar="BRANCH", default="main", help="push to this branch (default: main)")
    parser.add_argument("--private", action="store_true", help="push to a private repo")
    parser.add_argument("--push-only", metavar="DIR", type=Path, help="convert nothing; push this folder, or what is missing of it")
    options = parser.parse_args(arguments)
    converting = (options.source, options.output, options.revision, options.vision_format, options.calibration)
    converting += (options.min_cosine, options.max_kl)
    if options.push_only is None and (options.source is None or options.output is None):
        parser.error("SOURCE and --output are needed, or --push-only")
    if options.push_only is not None and any(value is not None for value in converting):
        parser.error("--push-only converts nothing: SOURCE, --output and the options of a conversion do not go with it")
    if options.push_to is None and (options.push_only is not None or options.private or options.push_revision != "main"):
        parser.error("--push-only, --push-revision and --private need --push-to")
    if options.weight_format != "int4" and (options.group_size is not None or options.ratio is not None or options.asymmetric):
        parser.error(f"--group-size, --ratio and --asymmetric are for int4, not {options.weight_format}")
    if options.calibration is not None and options.vision_format != "int8-ptq":
        parser.error("--calibration is for --vision-format int8-ptq")
    if options.ptq_fallback and options.vision_format != "int8-ptq":
        parser.error("--ptq-fallback is for --vision-format int8-ptq")
    return options


if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED:
        os._exit(status)  # a download under way cannot be interrupted, and the interpreter's own end would wait for it
    sys.exit(status)
