"""Records of what real programs said, and the sample files that they were asked about."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Record:
    command: str
    out: str
    err: str
    exit: int

    def __str__(self) -> str:
        return self.command


def read(path: Path) -> list[Record]:
    return [_record(block.split("\n")) for block in path.read_text().strip("\n").split("\n\n")]


def _record(lines: list[str]) -> Record:
    def told(mark: str) -> str:
        return "".join(line[2:] + ("\n" if line[0] != "~" else "") for line in lines if line[:1] in mark)

    return Record(lines[0][2:], told(">~"), told("!"), int(lines[-1][2:]))
