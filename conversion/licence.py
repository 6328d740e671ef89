"""A checkpoint's source -> the licence that it states: the lines for a card's front matter, and a sentence. None is claimed that nobody stated."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urljoin, urlsplit

from huggingface_hub import metadata_load

from conversion.checkpoint import Source
from pipeline.artifacts import CARD

#: Its card states no licence; its makers do, elsewhere.
OFFICIAL, MAKERS = "openbmb/MiniCPM-V-2_6", "https://github.com/OpenBMB/MiniCPM-V"

UNKNOWN = (
    "No licence was found with the checkpoint. Before you pass this folder on, find out under which terms its weights may be passed on, and add "
    "`license: ...` to the head of this file."
)


@dataclass(frozen=True)
class Licence:
    """`lines` are those of `license`, `license_name` and `license_link` that there are."""

    lines: dict[str, str]
    sentence: str

    @classmethod
    def of(cls, source: Source) -> Self:
        """As the checkpoint's own card states it, else as the makers of the official one do."""
        lines = _stated(source)
        if lines:
            name, link = lines.get("license_name", lines["license"]), lines.get("license_link")
            return cls(lines, f"{f'[{name}]({link})' if link else name}, as the checkpoint's card states it.")
        if source.revision is not None and source.name == OFFICIAL:
            return cls({"license": "apache-2.0"}, f"apache-2.0, as [its makers]({MAKERS}) state it.")
        return cls({}, UNKNOWN)


def _stated(source: Source) -> dict[str, str]:
    try:
        front_matter = metadata_load(source.folder / CARD) or {}
    except Exception:  # there is no card, or its head is no YAML in one of many ways: hours of work do not end for that
        return {}
    lines = {name: value for name in ("license", "license_name", "license_link") if isinstance(value := front_matter.get(name), str)}
    if "license" not in lines:
        return {}
    if link := lines.pop("license_link", None):  # perhaps to a file that lies beside the card, and is not copied
        if source.revision is not None:
            lines["license_link"] = urljoin(f"https://huggingface.co/{source.name}/blob/{source.revision}/", link)
        elif urlsplit(link).scheme:
            lines["license_link"] = link
    return lines
