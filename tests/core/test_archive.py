"""An archive holds the texts it was given, stays where it is unpacked, and is the same for everybody."""

import io
import tarfile

from bot.core.archive import archive


def unpacked(packed: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar)
        return {name: file.read().decode() for name, file in files if file is not None}


def test_it_holds_the_texts() -> None:
    files = {"worker-1/log.txt": "über\n", "README.txt": ""}
    assert unpacked(archive(files)) == files
    assert archive(files) == archive(dict(reversed(files.items())))


def test_no_path_leads_out_of_it() -> None:
    assert unpacked(archive({"../../etc/passwd": "x", "/": "y"})) == {"etc/passwd": "x", "unnamed": "y"}


def test_half_a_character_is_no_reason_to_fail() -> None:
    assert unpacked(archive({"a": "x\ud800"})) == {"a": "x?"}
