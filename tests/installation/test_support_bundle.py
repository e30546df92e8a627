"""The support bundle of a whole installation: everything that is asked for, and no secret."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Any

from bot.core.shown import Redactor
from bot.engine.rounds import AskingLook
from handlers import support_bundle as handler
from handlers.support_bundle import support_bundle
from tests.installation.practice import Practice


@dataclass
class Remembering:
    """Steps that keep what was recorded, attached and said."""

    redactor: Redactor
    found: Sequence[str] = ()
    recorded: dict[str, Any] = field(default_factory=dict)
    attached: dict[str, Mapping[str, str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        assert name not in self.recorded
        self.recorded[name] = do()
        return self.recorded[name]

    def say(self, text: str) -> None:
        self.said.append(text)

    def masked(self, text: str) -> tuple[str, Mapping[str, int]]:
        return self.redactor.counted(text)

    def attach(self, name: str, files: Mapping[str, str], says: str) -> None:
        self.attached[name] = files
        self.said.append(says)

    def findings(self) -> Sequence[str]:
        return self.found


def bundle(practice: Practice, *found: str) -> tuple[Mapping[str, str], Remembering, str]:
    steps = Remembering(Redactor(), found)
    ending = support_bundle(steps, AskingLook(practice.diagnoser, Flag()))
    return steps.attached["support-bundle"], steps, ending


def test_it_has_what_support_asks_for(practice: Practice) -> None:
    files, steps, ending = bundle(practice, "BROKEN worker-2: lost [worker.amqp-lost]\n  evidence: none")
    for name in ("worker-1", "worker-2", "worker-3"):
        assert {f"{name}/{each}" for each in ("system.txt", "docker.txt", "travis-worker.log", "settings.txt")} <= set(
            files
        )
        assert "worker started" in files[f"{name}/travis-worker.log"]
        assert "QUEUE_NAME='builds.trusty'" in files[f"{name}/settings.txt"]
        assert "AMQP_URI=\n" in files[f"{name}/settings.txt"]  # the name alone
    assert "te-main:2.2.19" in files["platform-1/docker.txt"]
    assert '"State": "started"' in files["platform-1/replicated.txt"]
    assert "builds.trusty" in files["rabbitmq.txt"]
    assert "evidence: none" in files["findings.txt"]
    assert "BROKEN worker-2: lost" in files["mail.txt"]
    assert "1 platform machine and 3 worker machines" in steps.said[-1]
    assert steps.said[-1].startswith("To: enterprise@travis-ci.com\n")
    assert "4 machines" in ending
    assert practice.machines.unknown() == practice.machines.changes() == []


def test_it_has_what_differs_between_generations(practice: Practice) -> None:
    """14.04 has a log of yesterday and a program of its own; some installers write other settings files."""
    old, new = (practice.installation.machines[name] for name in ("worker-3", "worker-1"))
    old.write("/var/log/upstart/travis-worker.log.1.gz", 'msg="worker started" self=yesterday\n', mode=0o640)
    for machine in (old, new):
        machine.write("/etc/default/travis-worker-chef", "export TRAVIS_WORKER_POOL_SIZE=7\nexport CHEF_TOKEN=s3cret\n")
    new.write("/var/snap/travis-worker/common/worker.env", "HARD_TIMEOUT=1h\nSNAP_TOKEN=s3cret\n")
    files, steps, _ = bundle(practice)
    assert "self=yesterday" in files["worker-3/travis-worker.log.1"]
    assert "travis-worker v=v4.6.1" in files["worker-3/version.txt"]
    assert not {"worker-1/travis-worker.log.1", "worker-1/version.txt"} & set(files)
    assert "POOL_SIZE=7" in files["worker-3/settings.txt"]
    assert "HARD_TIMEOUT=1h" in files["worker-1/settings.txt"]
    assert "SNAP_TOKEN=\n" in files["worker-1/settings.txt"]
    assert "s3cret" not in f"{files}{steps.recorded}"
    assert "https://travis.example.com:8800/support" in steps.said[-1]
    assert practice.machines.unknown() == practice.machines.changes() == []


def test_no_secret_is_in_it_or_recorded_on_the_way(practice: Practice) -> None:
    password = practice.installation.password
    practice.installation.app.log(f"connecting to amqp://travis:{password}@localhost/travis")
    practice.installation.app.log(
        "GET https://5ecre7t0ken@travis.example.com/__build__ github_oauth_token=abcdef012345"
    )
    files, steps, ending = bundle(practice)
    for where in (str(files), str(steps.recorded), str(steps.said)):
        assert not any(secret in where for secret in (password, "5ecre7t0ken", "abcdef012345"))
    assert "platform-1/travis.log: a password in a URL: 1" in files["masked.txt"]
    assert "platform-1/travis.log: a token before a host: 1" in files["masked.txt"]
    assert "a setting that is named like a secret: 1" in files["masked.txt"]
    assert "3 values in it were masked" in ending


def test_a_machine_that_is_off_is_said_and_hides_nothing(practice: Practice) -> None:
    practice.inject("worker-2 is unreachable")
    files, _, _ = bundle(practice)
    assert "worker-2 is down" in files["worker-2/not-read.txt"]
    assert not any(path.startswith("worker-2/") for path in files if not path.endswith("not-read.txt"))
    assert "worker-3/travis-worker.log" in files


def test_a_long_log_is_cut_at_its_beginning_and_masked_before(practice: Practice) -> None:
    secret = "password=" + "s3cret" * 20
    practice.installation.app.log(f"{secret} {'x' * (handler.LONGEST - 60)}")
    files, _, _ = bundle(practice)
    assert "characters are left out" in files["platform-1/travis.log"]
    assert "s3cret" not in files["platform-1/travis.log"]
