"""The list of the intact generations in a durable folder, with a checksum of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from backsweep.errors import SnapshotError
from backsweep.storage.files import reason, write_durably

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Generation:
    """A point that was written: its number, and checksums of its file and of those it needs."""

    number: int
    checksum: int
    attached: dict[str, int]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder's points belong to, and its generations, the newest first.

    `made_folder` says whether the folder itself was made with the first of them.
    """

    identity: dict[str, str]
    generations: tuple[Generation, ...]
    made_folder: bool


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Replace the manifest durably. Raises OSError."""
    content = asdict(manifest)
    document = {"format": FORMAT_VERSION, "checksum": _digest(content), "content": content}
    write_durably(path, json.dumps(document, indent=1).encode(), what="manifest")


def read_manifest(path: Path) -> Manifest | None:
    """The manifest, or None where there is none.

    Raises
    ------
    SnapshotError
        If it is damaged, or was edited.
    """
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT_VERSION:
            raise ValueError(f"it has format {document['format']}, expected {FORMAT_VERSION}")
        content = document["content"]
        if document["checksum"] != _digest(content):
            raise ValueError("its checksum is wrong")
        generations = tuple(Generation(**each) for each in content["generations"])
        return Manifest(content["identity"], generations, content["made_folder"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise SnapshotError(f"{path} cannot be used: {reason(error)}") from error


def hash_identity(identity: Mapping[str, str]) -> str:
    """Stands for the identity of a computation in the files of its points."""
    return _digest(dict(identity))[:32]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
