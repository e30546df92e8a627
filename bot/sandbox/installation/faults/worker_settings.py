"""What can go wrong with a worker's settings and with the directory that they are put together in."""

from collections.abc import Callable

from bot.sandbox.installation.faults import SUSPICIOUS, CannotBe, fault, no_snap, worker_of
from bot.sandbox.installation.installation import DOMAIN, QUEUE, Installation
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.worker import EFFECTIVE, RUN_DIR, SETTINGS, main_settings

ENTERPRISE, _, _, _, LOCAL = SETTINGS
ELSEWHERE = "travis-old.example.com"
ENDPOINT = "TRAVIS_ENTERPRISE_BUILD_ENDPOINT"


@fault("looks for the old host", cause="worker.host-mismatch")
def old_host(installation: Installation, machine: Machine) -> None:
    """The platform has moved to another name, and the worker's settings still have the old one."""
    _edited(machine, main_settings(machine), lambda text: text.replace(DOMAIN, ELSEWHERE))
    if not machine.systemd:
        _edited(machine, ENTERPRISE, lambda text: text.replace(DOMAIN, ELSEWHERE))
    _started_again(installation, machine)


@fault("gets build scripts from elsewhere", cause="worker.host-mismatch")
def scripts_from_elsewhere(installation: Installation, machine: Machine) -> None:
    """Only the address of build scripts has an old host: the worker takes builds, and each of them errors."""
    old, new = f"https://{DOMAIN}", f"https://{ELSEWHERE}"
    _edited(machine, main_settings(machine), lambda text: text.replace(old, new))
    _started_again(installation, machine)


@fault("has no build endpoint", cause="worker.build-api")
def no_endpoint(installation: Installation, machine: Machine) -> None:
    """An upgrade commented the endpoint out (14.04), or the address of build scripts is gone (later)."""
    if machine.systemd:
        _edited(machine, main_settings(machine), lambda text: _without(text, "BUILD_API_URI"))
    else:
        made = f'export BUILD_API_URI="https://{DOMAIN}/${{{ENDPOINT}}}/script"\n'
        _edited(machine, main_settings(machine), lambda text: _without(text, "BUILD_API_URI") + made)
        _edited(machine, ENTERPRISE, lambda text: f'{text}# export {ENDPOINT}="__build__"\n')
    _started_again(installation, machine)


@fault("was not restarted after an edit", cause="worker.config-stale")
def not_restarted(installation: Installation, machine: Machine) -> None:
    """Somebody gave it more builds at a time, and did not restart it: it still runs with the settings before."""
    _stays_up(installation, machine)
    _edited(machine, main_settings(machine), lambda text: text.replace("POOL_SIZE='2'", "POOL_SIZE='4'"))


@fault("was given a hook and not restarted", cause="worker.config-stale")
def hook_not_used(installation: Installation, machine: Machine) -> None:
    """A setting that opsbot does not know was added after the start: only the digest of all of them differs.

    Without a container there is no such digest, and a larger pool as well gives it away.
    """
    _stays_up(installation, machine)
    if not machine.contained:
        not_restarted(installation, machine)
    _edited(machine, main_settings(machine), lambda text: f"{text}export TRAVIS_WORKER_HARD_TIMEOUT='2h'\n")


@fault("has its settings overridden", cause="worker.config-overridden")
def overridden(installation: Installation, machine: Machine) -> None:
    """The queue is right where people look, and a stray TRAVIS_WORKER_QUEUE_NAME in another file wins over it."""
    no_snap(machine)
    machine.write(LOCAL, "export TRAVIS_WORKER_QUEUE_NAME='builds.focal'\n", mode=0o640)
    _started_again(installation, machine)


@fault("was installed twice", cause="worker.config-overridden")
def installed_twice(installation: Installation, machine: Machine) -> None:
    """The installer was run again and appended its settings: the last queue wins, and it is not the worker's."""
    _edited(machine, main_settings(machine), lambda text: f"{text}export QUEUE_NAME='builds.focal'\n")
    _started_again(installation, machine)


@fault("has a space in its settings", cause="worker.config-unparsable")
def space(installation: Installation, machine: Machine) -> None:
    """The vendor's own example of two binds, whose quotes are taken away (14.04: somebody forgot the quotes)."""
    no_snap(machine)
    sign = '"' if machine.systemd else ""
    binds = f"export TRAVIS_WORKER_DOCKER_BINDS={sign}/tmp:/tmp:rw /var/log{sign}\n"
    _edited(machine, main_settings(machine), lambda text: text + binds)
    _started_again(installation, machine)


@fault("has a run directory of root", cause="worker.run-dir-owner")
def run_directory_of_root(installation: Installation, machine: Machine) -> None:
    """Somebody made the run directory anew with sudo, so that it belongs to root."""
    no_snap(machine)
    machine.files.pop(EFFECTIVE, None)
    machine.folder(RUN_DIR, "root")
    _started_again(installation, machine)


@fault("has a run directory too many", cause="worker.run-path-is-directory")
def run_path_is_directory(installation: Installation, machine: Machine) -> None:
    """Somebody followed the manual's words and made a directory where the wrapper writes its file."""
    no_snap(machine)
    machine.folder(EFFECTIVE, "travis")
    _started_again(installation, machine)


@fault("knows the platform by another name", cause=SUSPICIOUS)
def another_name(installation: Installation, machine: Machine) -> None:
    """Its settings have another name of the very same machine: that works."""
    machine.names["travis-internal.example.com"] = installation.platform.address
    _edited(machine, main_settings(machine), lambda text: text.replace(DOMAIN, "travis-internal.example.com"))
    _started_again(installation, machine)


@fault("goes through a load balancer", cause=SUSPICIOUS)
def balancer(installation: Installation, machine: Machine) -> None:
    """Its settings name a load balancer in front of the platform, and an old travis-enterprise the platform itself."""
    machine.names["balancer.internal"] = installation.broker.balancer = "127.0.0.99"
    _edited(machine, main_settings(machine), lambda text: text.replace(DOMAIN, "balancer.internal"))
    if machine.contained:
        machine.write(ENTERPRISE, f'export TRAVIS_ENTERPRISE_HOST="{DOMAIN}"\n')
    _started_again(installation, machine)


@fault("has its settings touched", cause=SUSPICIOUS)
def touched(_installation: Installation, machine: Machine) -> None:
    """Configuration management wrote the same text again: the file is newer than the start, and says the same."""
    _edited(machine, main_settings(machine), lambda text: text)


@fault("has its settings twice", cause=SUSPICIOUS)
def twice(installation: Installation, machine: Machine) -> None:
    """The installer was run twice with the same words: each setting is there twice, and they agree."""
    _edited(machine, main_settings(machine), lambda text: text + text)
    _started_again(installation, machine)


@fault("has a local queue file", cause=SUSPICIOUS)
def local_file(installation: Installation, machine: Machine) -> None:
    """travis-worker-local overrides the installer's queue with the right one, which is what it is for."""
    no_snap(machine)
    _edited(machine, main_settings(machine), lambda text: text.replace(QUEUE, "builds.focal"))
    machine.write(LOCAL, f"export QUEUE_NAME='{QUEUE}'\n", mode=0o640)
    _started_again(installation, machine)


@fault("has an idle enterprise file", cause=SUSPICIOUS)
def idle_file(_installation: Installation, machine: Machine) -> None:
    """travis-enterprise has an old host, and another file says the address itself."""
    no_snap(machine)
    machine.write(ENTERPRISE, f'export TRAVIS_ENTERPRISE_HOST="{ELSEWHERE}"\n')
    if machine.systemd:  # as if it had been there before the last start
        _aged(machine)


@fault("has a run directory for all", cause=SUSPICIOUS)
def run_directory_for_all(_installation: Installation, machine: Machine) -> None:
    """The run directory belongs to root, and everybody may write there."""
    no_snap(machine)
    machine.files[RUN_DIR].owner, machine.files[RUN_DIR].mode = "root", 0o777


def _stays_up(installation: Installation, machine: Machine) -> None:
    if worker_of(installation, machine).connection is None:
        raise CannotBe(f"travis-worker on {machine.name} does not stay up, so it reads its settings again and again")


def _aged(machine: Machine) -> None:
    machine.files[ENTERPRISE].changed = -86400.0
    effective = machine.files.get(EFFECTIVE)
    if effective is not None:
        effective.text = f"TRAVIS_ENTERPRISE_HOST={ELSEWHERE}\n{effective.text}"


def _edited(machine: Machine, path: str, edit: Callable[[str], str]) -> None:
    file = machine.files[path]
    file.text, file.changed = edit(file.text), machine.timeline.now() + 1


def _without(text: str, key: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if f"{key}=" not in line)


def _started_again(installation: Installation, machine: Machine) -> None:
    worker = worker_of(installation, machine)
    worker.lose_power(worker.unit)
    worker.unit.start()
