"""The page that teaches writing a handler is run: its code, its case, and its fault."""

import re
import runpy
from pathlib import Path
from threading import Event

import pytest
import yaml

from bot.core.handler import PENDING, Diagnosis
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser
from bot.sandbox.installation import FAULTS
from tests.engine.machines import Machines, table
from tests.installation.practice import Practice

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-handler.md"
WORKER = Target("worker-1", Role.WORKER, "prod", "10.0.0.11")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S)


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    folder = tmp_path_factory.mktemp("handlers")
    folder.chmod(0o755)
    file = folder / "worker_disk_full.py"
    file.write_text("\n\n".join(blocks("python")))
    file.chmod(0o644)
    discover()  # ours register when they are first imported, and stay
    before = len(PENDING)
    try:
        return discover([folder]).diagnoses["worker disk full"]
    finally:
        del PENDING[before:]


def test_its_case_holds(handler: Diagnosis) -> None:
    (case,) = (yaml.safe_load(text) for text in blocks("yaml"))
    machines = Machines(table(case["answers"]))
    site = Site("prod", "travis.example.com", "2.2", (WORKER,))
    report = Diagnoser(site, machines, lambda target, question, span: None).look([handler], site, Event())
    found = [(each.finding.cause, each.finding.severity.name) for each in report.findings]
    assert found == [(each["cause"], each["severity"]) for each in case["finds"]]


def test_a_healthy_disk_is_no_finding(handler: Diagnosis) -> None:
    machines = Machines(
        {"worker-1": {"df -P /": "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 9 1 8 12% /\n"}}
    )
    site = Site("prod", "travis.example.com", "2.2", (WORKER,))
    report = Diagnoser(site, machines, lambda target, question, span: None).look([handler], site, Event())
    assert (report.findings, report.unknown) == ((), ())


def test_its_fault_is_what_it_finds(handler: Diagnosis, tmp_path: Path) -> None:
    file = tmp_path / "worker_disk.py"
    file.write_text(*blocks("py"))
    known = dict(FAULTS)
    practice = Practice()
    try:
        runpy.run_path(str(file))
        practice.inject("worker-1 has a full root disk")
    finally:
        FAULTS.clear()
        FAULTS.update(known)
    report = practice.diagnoser.look([handler], practice.site, Event())
    assert [(str(each.finding.target), each.finding.cause) for each in report.findings] == [
        ("worker-1", "worker.disk-full")
    ]
    assert practice.machines.unknown() == []
