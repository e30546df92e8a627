"""An archive of texts, made where it is shown: what is stored and sent on the way is Shown text, never bytes."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath

SUFFIX = ".tar.gz"


def archive(files: Mapping[str, str]) -> bytes:
    """A gzipped tar of these files, path to text; the same files give the same bytes, whoever makes it and when."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path, text in sorted(files.items()):
            content = text.encode(errors="replace")
            member = tarfile.TarInfo(_inside(path))
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _inside(path: str) -> str:
    """A path that stays where the archive is unpacked."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..", ".")]
    return "/".join(parts) or "unnamed"
