"""The installation as a process of its own, as `opsbot try` and the chaos tests start it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bot

ROOT = Path(bot.__file__).parents[1]
WITHIN = 30


@contextmanager
def process(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bot.sandbox.installation", "--folder", str(folder), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as child:
        try:
            yield child
        finally:
            child.kill()


def answer(child: subprocess.Popen[str], asked: object = None) -> Any:
    assert child.stdin is not None
    assert child.stdout is not None
    if asked is not None:
        child.stdin.write(json.dumps(asked) + "\n")
        child.stdin.flush()
    return json.loads(child.stdout.readline())


def test_it_says_when_it_is_ready_and_takes_orders(tmp_path: Path) -> None:
    with process(tmp_path, "--fault", "worker-2 lost RabbitMQ", "--speed", "50", "--name", "chaos") as child:
        ready = answer(child)
        assert ready["installation"]["name"] == "chaos"
        assert [worker["name"] for worker in ready["installation"]["workers"]] == ["worker-1", "worker-2", "worker-3"]
        assert Path(ready["log"]).exists()
        state = answer(child, {"do": "state"})
        assert [machine.get("consumers") for machine in state["machines"].values()] == [None, 2, 0, 2]
        assert answer(child, {"do": "inject", "what": "worker-1 is stopped"})["fault"] == "is stopped"
        assert answer(child, {"do": "state"})["machines"]["worker-1"]["worker"] == "inactive (dead)"
        assert len(answer(child, {"do": "push", "count": 3})["jobs"]) == 3
        assert "lost RabbitMQ" in answer(child, {"do": "inject", "what": "nonsense"})["error"]
        assert "do is one of" in answer(child, {"do": "dance"})["error"]
        assert "error" in answer(child, "text")
        answer_to_stop(child)


def answer_to_stop(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write('{"do": "stop"}\n')
    child.stdin.flush()
    assert child.wait(WITHIN) == 0


def test_it_ends_when_nobody_holds_it_any_more(tmp_path: Path) -> None:
    with process(tmp_path) as child:
        answer(child)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(WITHIN) == 0


def test_an_unknown_fault_is_a_sentence(tmp_path: Path) -> None:
    with process(tmp_path, "--fault", "worker-2 fell over") as child:
        out, err = child.communicate(timeout=WITHIN)
        assert (child.returncode, out) == (1, "")
        assert err.startswith("`worker-2 fell over`: say one of platform-1")
