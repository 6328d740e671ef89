"""The files around the code: pins, front matter and figures that agree with each other."""

import re
from importlib.metadata import packages_distributions
from pathlib import Path

from huggingface_hub import metadata_load

from bench import figures

ROOT = Path(__file__).parent.parent
REQUIREMENTS = [ROOT / name for name in ("requirements.txt", "requirements-convert.txt", "requirements-dev.txt")]


def test_every_requirement_is_pinned_exactly() -> None:
    for path in REQUIREMENTS:
        for line in path.read_text().splitlines():
            assert not line or line.startswith(("#", "-r ")) or re.fullmatch(r"[A-Za-z0-9_.\[\]-]+==[0-9.]+", line), (path.name, line)


def test_whatever_the_space_imports_is_pinned() -> None:
    sources = [ROOT / "app.py", *(ROOT / "ui").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]
    imported = {name for path in sources for name in re.findall(r"^ *(?:from|import) (\w+)", path.read_text(), re.M)}
    packages = {package.replace("_", "-") for name, found in packages_distributions().items() if name in imported for package in found}
    pinned = set(re.findall(r"^([a-z0-9-]+)", REQUIREMENTS[0].read_text(), re.M))
    assert packages - pinned == {"gradio-client"}, "which Gradio itself pins"


def test_the_space_installs_no_conversion_library() -> None:
    assert not re.search(r"^(torch|transformers|nncf)", REQUIREMENTS[0].read_text(), re.M)


def test_the_space_gets_the_gradio_that_was_tested() -> None:
    pinned = re.search(r"^gradio\[mcp\]==(.+)$", REQUIREMENTS[0].read_text(), re.M)
    declared = re.search(r"^sdk_version: (.+)$", (ROOT / "README.md").read_text(), re.M)
    assert pinned
    assert declared
    assert pinned[1] == declared[1]


def test_the_front_matter_is_what_a_space_needs() -> None:
    front = metadata_load(ROOT / "README.md")
    assert front == front | {
        "sdk": "gradio",
        "app_file": "app.py",
        "python_version": "3.11",
        "license": "apache-2.0",
        "models": ["openbmb/MiniCPM-V-2_6"],
        "suggested_hardware": "cpu-basic",
        "startup_duration_timeout": "1h",
    }
    assert (ROOT / front["app_file"]).is_file()
    assert {"openvino", "minicpmv", "image-text-to-text"} <= set(front["tags"])
    assert len(front["short_description"]) <= 60, "what the Hub shows of it"
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colours


def test_the_figures_of_the_documents_are_those_of_the_benchmarks() -> None:
    for path, text in figures.rendered().items():
        assert text == path.read_text(), path.name


def test_no_file_is_larger_than_a_space_accepts() -> None:
    skipped = (".git", ".mypy_cache", "mutants", "build", "model")  # what git ignores; the last is the README's own place for a converted one
    tops = [top for top in ROOT.iterdir() if top.name not in skipped and not top.name.startswith(".venv")]
    files = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top])]
    built = ROOT / "bench" / "built"  # by a benchmark, and ignored by git
    assert not [path for path in files if path.is_file() and built not in path.parents and path.stat().st_size > 10_000_000]
