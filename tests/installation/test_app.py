"""The platform's app: stopped, started, kept from getting ready; what Replicated, runit, docker and the pages say."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bot.core.command import sh
from bot.sandbox.installation import Installation, settled
from bot.sandbox.installation.platform import CERTIFICATE, NOT_READY
from bot.sandbox.installation.state import Disk
from tests.installation.console import Console, pass_time, standing_still

CURL = ("curl", "-sk", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}")


@pytest.fixture
def healthy(travis_dsn: str) -> Installation:
    return settled(standing_still(), dsn=travis_dsn)


@pytest.fixture
def platform(healthy: Installation) -> Console:
    return Console(healthy, "platform-1")


def asked(platform: Console, *words: str) -> Any:
    return json.loads(platform.say(sh("replicatedctl", *words, "-o", "json").sudo()))


def state(platform: Console) -> tuple[str, str]:
    [said] = asked(platform, "app", "status")
    return said["State"], said["Error"]


def code(platform: Console, path: str = "/api/uptime") -> str:
    return platform.ask(sh(*CURL, f"https://localhost{path}"))[0].out


def restart(installation: Installation, platform: Console) -> None:
    platform.say(sh("replicatedctl", "app", "stop").sudo())
    pass_time(installation, 20)
    platform.say(sh("replicatedctl", "app", "start").sudo())


def consumers(installation: Installation, queue: str) -> int:
    found = installation.broker.queue(queue)
    return len(found.consumers) if found else 0


def test_a_healthy_app_says_so_everywhere(platform: Console) -> None:
    assert state(platform) == ("started", "")
    assert (code(platform), code(platform, "/__build__/uptime")) == ("200", "200")
    assert platform.ask(sh(*CURL, "https://localhost:8800/"))[0].out == "200"
    assert asked(platform, "license", "inspect")["IsExpired"] is False
    assert asked(platform, "app-config", "export")["hostname"] == {"value": "travis.example.com"}


def test_what_is_hidden_comes_only_when_asked_for(healthy: Installation, platform: Console) -> None:
    assert "rabbitmq_password" not in asked(platform, "app-config", "export")
    said = asked(platform, "app-config", "export", "--hidden")
    assert said["rabbitmq_password"] == {"value": healthy.password}


def test_it_stops_and_starts_and_the_workers_come_back(healthy: Installation, platform: Console) -> None:
    platform.say(sh("replicatedctl", "app", "stop").sudo())
    assert state(platform) == ("stopping", "")
    pass_time(healthy, 20)
    assert state(platform) == ("stopped", "")
    assert code(platform) == "000"
    assert "te-main" not in platform.say(sh("docker", "ps", "-a").sudo())
    assert healthy.broker.connections == []
    platform.say(sh("replicatedctl", "app", "start").sudo())
    pass_time(healthy, 30)
    assert state(platform) == ("starting", "")
    pass_time(healthy, 60)
    assert state(platform) == ("started", "")
    assert code(platform) == "200"
    assert consumers(healthy, "builds.trusty") == 6
    assert consumers(healthy, "reporting.jobs.builds") == 1
    assert [sent.changed for sent in platform.received].count(True) == 2


def no_oauth(installation: Installation) -> None:
    installation.app.oauth = False


def other_license(installation: Installation) -> None:
    installation.app.license.hostname = "travis.example.org"


def ended_license(installation: Installation) -> None:
    installation.app.license.expires = installation.timeline.date() - timedelta(days=1)
    installation.app.license.policy = "noupdate-stop"


def full_disk(installation: Installation) -> None:
    installation.platform.disks.append(Disk("/dev/xvdf", "/var/travis", 10_000_000))
    installation.platform.disk("/var/travis").fill(100)


NOT_GETTING_READY = [(no_oauth, "502"), (other_license, "000"), (ended_license, "000"), (full_disk, "500")]


@pytest.mark.parametrize(("broken", "page"), NOT_GETTING_READY)
def test_what_keeps_it_from_getting_ready(
    healthy: Installation, platform: Console, broken: Callable[[Installation], None], page: str
) -> None:
    broken(healthy)
    assert state(platform) == ("started", "")  # only the next start is the victim
    restart(healthy, platform)
    pass_time(healthy, 120)
    assert (state(platform), code(platform)) == (("starting", ""), page)
    pass_time(healthy, 600)
    assert (state(platform), code(platform)) == (("stopped", NOT_READY), "000")


def test_a_start_gets_ready_as_soon_as_the_trouble_is_gone(healthy: Installation, platform: Console) -> None:
    healthy.app.oauth = False
    restart(healthy, platform)
    pass_time(healthy, 300)
    healthy.app.oauth = True
    pass_time(healthy, 30)
    assert state(platform) == ("started", "")
    pass_time(healthy, 600)
    assert state(platform) == ("started", "")


def test_a_license_that_has_ended_may_matter_to_nobody(healthy: Installation, platform: Console) -> None:
    healthy.app.license.expires = healthy.timeline.date() - timedelta(days=1)
    assert asked(platform, "license", "inspect")["IsExpired"] is True
    restart(healthy, platform)
    pass_time(healthy, 90)
    assert state(platform) == ("started", "")


def test_a_folder_for_a_certificate_until_it_is_removed(healthy: Installation, platform: Console) -> None:
    healthy.platform.folder(CERTIFICATE)
    restart(healthy, platform)
    said, error = state(platform)
    assert said == "stopped"
    assert f'mounting \\\\\\"{CERTIFICATE}' in error
    [container] = platform.say(sh("docker", "ps", "-aq", "--filter", "status=exited").sudo()).split()
    assert "not a directory" in platform.say(sh("docker", "inspect", "-f", "{{.State.Error}}", container).sudo())
    [refused] = platform.ask(sh("docker", "exec", container, "true").sudo())
    assert "is not running" in refused.err
    healthy.platform.files.pop(CERTIFICATE)
    platform.say(sh("replicatedctl", "app", "start").sudo())
    pass_time(healthy, 90)
    assert state(platform) == ("started", "")


def test_the_page_is_about_the_web_service_and_the_database_alone(healthy: Installation, platform: Console) -> None:
    assert healthy.database is not None
    healthy.broker.stop()
    healthy.redis.running = False
    assert code(platform) == "200"
    healthy.database.refuses = "the database system is starting up"
    assert code(platform) == "500"
    healthy.app.services["travis-api"].stop()
    assert code(platform) == "502"
    healthy.app.services["nginx"].stop()
    assert platform.ask(sh(*CURL, "https://localhost/api/uptime"))[0].exit == 7


def sv(platform: Console, *words: str) -> str:
    return platform.ask(sh("replicated", "admin", "--no-tty", "bash", "-c", " ".join(("sv", *words))).sudo())[0].out


@pytest.mark.parametrize(
    ("name", "queue"), [("travis-hub-drain", "reporting.jobs.builds"), ("travis-logs-drain", "reporting.jobs.logs")]
)
def test_a_drain_is_stopped_and_started(healthy: Installation, platform: Console, name: str, queue: str) -> None:
    assert sv(platform, "status", name).startswith(f"run: {name}: ")
    sv(platform, "stop", name)
    assert consumers(healthy, queue) == 0
    assert sv(platform, "status", name).startswith(f"down: {name}: 0s")
    assert sv(platform, "restart", name).startswith(f"ok: run: {name}: ")
    assert consumers(healthy, queue) > 0


def test_a_service_that_cannot_start_stays_down_through_a_restart(healthy: Installation, platform: Console) -> None:
    scheduler = healthy.app.services["travis-scheduler"]
    scheduler.stop()
    scheduler.broken = True
    assert not healthy.redis.alive("scheduler")
    assert sv(platform, "start", "travis-scheduler").startswith("timeout: down: ")
    restart(healthy, platform)
    pass_time(healthy, 90)
    assert not healthy.redis.alive("scheduler")
    assert healthy.redis.alive("hub")


def test_a_reboot_brings_everything_back(healthy: Installation, platform: Console) -> None:
    assert healthy.database is not None
    platform.ask(sh("shutdown", "-r", "now").sudo())
    pass_time(healthy, 10)
    assert not healthy.database.running
    pass_time(healthy, 60)
    assert (state(platform), code(platform)) == (("started", ""), "200")
    assert consumers(healthy, "builds.trusty") == 6


def test_a_user_is_synced_by_an_admin_command(healthy: Installation, platform: Console) -> None:
    assert healthy.database is not None
    syncing = "SELECT login FROM users WHERE is_syncing ORDER BY login"
    order = sh("replicated", "admin", "--no-tty", "sync_users", "--logins=ada,nils").sudo()
    platform.say(order)
    assert [row["login"] for row in healthy.database.run(syncing)] == ["ada", "nils"]
    pass_time(healthy, 30)
    assert healthy.database.run(syncing) == []
    [row] = healthy.database.run(
        "SELECT now() - synced_at < interval '1 minute' AS fresh FROM users WHERE login = 'nils'"
    )
    assert row["fresh"]
    healthy.app.services["travis-github-sync"].stop()
    platform.say(order)
    pass_time(healthy, 600)
    assert len(healthy.database.run(syncing)) == 2


def test_only_root_and_only_where_replicated_is(healthy: Installation, platform: Console) -> None:
    [denied] = platform.ask(sh("replicatedctl", "app", "stop"))
    assert "permission denied" in denied.err
    assert state(platform) == ("started", "")
    [absent] = Console(healthy, "worker-1").ask(sh("replicatedctl", "app", "status", "-o", "json"))
    assert absent.exit == 127


def test_df_tells_one_disk_from_another(healthy: Installation, platform: Console) -> None:
    full_disk(healthy)
    [said] = platform.ask(sh("df", "-P", "-k", "/", "/var/travis", "/nix"))
    assert [line.split()[4] for line in said.out.splitlines()] == ["Capacity", "23%", "100%"]
    assert (said.exit, said.err) == (1, "df: /nix: No such file or directory\n")


def test_the_database_follows_the_builds_as_long_as_somebody_drains_their_reports(healthy: Installation) -> None:
    assert healthy.database is not None
    states = "SELECT state FROM jobs WHERE queued_at > now() - interval '15 minutes'"
    healthy.push(2)
    assert healthy.database.run(states) == [{"state": "queued"}] * 2
    pass_time(healthy, 60)
    assert healthy.database.run(states) == [{"state": "started"}] * 2
    drain = healthy.app.services["travis-hub-drain"]
    drain.stop()
    pass_time(healthy, 120)
    assert healthy.database.run(states) == [{"state": "started"}] * 2
    drain.start()
    pass_time(healthy, 60)
    assert healthy.database.run(states) == [{"state": "passed"}] * 2
