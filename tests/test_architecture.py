"""The rooms: what may import what, what is exported, and what the run time never loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline import errors

ROOT = Path(__file__).parent.parent
# Each module may import those before it; the order is the way of the data.
ORDER = [
    "errors",
    "config",
    "hub",
    "artifacts",
    "tokenizer",
    "message",
    "media",
    "still",
    "video",
    "preprocess",
    "cutting",
    "decoder_program",
    "decoder_process",
    "decoder",
    "attachments",
    "processor",
    "vision",
    "engine.request",
    "engine.compiled",
    "engine.sampler",
    "engine.sequence",
    "engine.block_manager",
    "engine.scheduler",
    "engine.prompt_lookup",
    "engine.job",
    "engine.model_runner",
    "engine.engine",
    "engine.stateful_runner",
    "engine.stateful",
    "stream",
    "pace",
    "readers",
    "assistant",
    "__init__",
    "__main__",
]
# These import nothing but each other and the standard library.
PURE = ["errors", "engine.sequence", "engine.block_manager", "engine.scheduler"]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def tops(path: Path) -> set[str]:
    """The packages that a file imports anything from."""
    return {name.partition(".")[0] for name in imports(path)}


def test_every_module_of_the_pipeline_has_its_place_in_the_order() -> None:
    found = {path.relative_to(ROOT / "pipeline").with_suffix("").as_posix().replace("/", ".") for path in (ROOT / "pipeline").rglob("*.py")}
    assert found == {*ORDER, "engine.__init__"}


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    path = ROOT / "pipeline" / f"{module.replace('.', '/')}.py"
    later = {f"pipeline.{name}" for name in ORDER[ORDER.index(module) :]}
    assert not imports(path) & later


def test_blocks_and_their_schedule_are_pure_python() -> None:
    """So a test does with them in seconds what a server does in days."""
    pure = [f"pipeline.{module}" for module in PURE]
    named = {name for module in pure for name in imports(ROOT / f"{module.replace('.', '/')}.py")}
    ours = {name for name in named if any(f"{name}.".startswith(f"{module}.") for module in pure)}
    assert ours
    assert {name.partition(".")[0] for name in named - ours} <= sys.stdlib_module_names


def test_importing_the_pipeline_loads_no_conversion_library_and_no_front() -> None:
    code = "import sys, pipeline.__main__; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = ast.literal_eval(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert not {"torch", "transformers", "nncf", "safetensors", "gradio", "conversion"} & set(loaded)
    assert "openvino" in loaded


def test_openvino_finds_nothing_to_report_its_use_with() -> None:
    code = "import pipeline, openvino.tools.ovc, sys; print(sys.modules['openvino_telemetry'])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "None\n"


def test_the_front_alone_knows_gradio_and_nobody_else_the_front() -> None:
    for room in ("pipeline", "conversion", "demo", "bench"):
        for path in (ROOT / room).rglob("*.py"):
            assert not {"gradio", "ui", "app"} & tops(path), path


def test_the_run_time_and_the_front_know_no_conversion() -> None:
    for path in (ROOT / "app.py", *(ROOT / "pipeline").rglob("*.py"), *(ROOT / "ui").rglob("*.py")):
        assert not {"torch", "transformers", "nncf", "conversion"} & tops(path), path


def test_the_parts_of_the_front_do_not_reach_back_to_its_layout() -> None:
    for path in (ROOT / "ui").rglob("*.py"):
        assert "app" not in tops(path), path


def test_the_exported_names_are_all_there_and_sorted() -> None:
    assert pipeline.__all__ == sorted(pipeline.__all__)
    assert all(hasattr(pipeline, name) for name in pipeline.__all__)


def test_the_tree_of_errors_is_the_one_drawn_in_its_docstring() -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if "--" in line]
    names = [line.split("-- ")[1].split()[0] for line in drawn]
    assert {*names, "PipelineError"} == set(errors.__all__)
    for line, name in zip(drawn, names, strict=True):
        parent = errors.InputError if line.startswith(("|   ", "    ")) else errors.PipelineError
        assert getattr(errors, name).__bases__ == (parent,)
