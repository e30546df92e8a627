"""Archives that a run attached, kept as files of the person who asked."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bot.core.archive import archive


def keep(folders: Iterable[Path], run: int, name: str, files: Mapping[str, Any]) -> str:
    """Write the archive into the first folder that can be written; a sentence that says where it is, or why nowhere."""
    content = archive({str(path): str(text) for path, text in files.items()})
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(name).name)[:100]
    why = "there is no folder for it"
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return f"kept as {_written(folder / f'run-{run}-{safe}', content)}"
        except OSError as error:
            why = f"{folder}: {error.strerror}"
    return f"{safe} could not be kept ({why}); `opsbot show {run} --json` prints what is in it"


def _written(path: Path, content: bytes) -> Path:
    """For the owner's eyes; a link that somebody put there is not followed."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return path
