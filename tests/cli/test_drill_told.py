"""What a drill tells, whoever reads it."""

import json

import pytest

from bot.cli.drill import play
from bot.cli.screen import Screen
from bot.core.drill import Drilled
from bot.core.errors import Permanent
from bot.drilling import Drill
from bot.engine.drills import Task

TASKS = (Task("settings", "params", "why"), Task("databases", "database-main", "why"), Task("redis", "redis", "why"))


def restored(task: Task) -> Drilled:
    if task.name == "redis":
        raise Permanent("There is no room here.")
    return Drilled(task.kind, task.name, task.name == "params", "what was done", 3.25, 7)


def test_what_came_before_one_that_could_not_be_tried_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Permanent, match="no room here"):
        play(Drill("backup 7", TASKS, restored), Screen())
    assert capsys.readouterr().out.splitlines() == [
        "backup 7", "params\tpassed\t3 s\twhat was done", "database-main\tFAILED\t3 s\twhat was done"
    ]  # fmt: skip


def test_one_that_failed_fails_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert play(Drill("backup 7", TASKS[:2], restored, note="The key is not drilled."), Screen()) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == ("1 of 2 FAILED: database-main. Take a new backup now, and look at the store.")
    assert told.err == "The key is not drilled.\n"
    assert play(Drill("backup 7", TASKS[:1], restored), Screen()) == 0
    assert "The only piece, params, was restored from the store." in capsys.readouterr().out
    assert play(Drill("backup 7", (), restored), Screen()) == 1, "nothing proves nothing"


def test_scripts_read_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert play(Drill("backup 7", TASKS[:2], restored, number=7), Screen(as_json=True)) == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": "drill", "backup": 7, "kind": "settings", "name": "params", "passed": True,
         "said": "what was done", "seconds": 3.25},
        {"event": "drill", "backup": 7, "kind": "databases", "name": "database-main", "passed": False,
         "said": "what was done", "seconds": 3.25},
        {"event": "drilled", "backup": 7, "passed": False, "note": ""},
    ]  # fmt: skip
