"""What the vendor's support asks for, as texts: logs, versions, how full and how busy machines are.

Of settings only harmless values leave a machine; of all others their names. Source:
https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/#contact-enterprise-support
"""

from bot.core.command import Command, sh
from bot.core.fact import Fact, fact
from bot.core.question import Output
from bot.core.target import Target
from handlers.toolbox import settings
from handlers.toolbox.platform import CONTAINERS
from handlers.toolbox.worker import SERVICE, UPSTART

LINES = "2000"  # of each log
SETTINGS = (*settings.FILES, settings.SNAP)
UPSTART_LOG = f"/var/log/upstart/{SERVICE}.log"
ROTATED = (f"{UPSTART_LOG}.1", f"{UPSTART_LOG}.1.gz")  # yesterday's: whether it is packed, logrotate's settings say
HARMLESS = (
    "QUEUE_NAME", "POOL_SIZE", "DOCKER_ENDPOINT", "DOCKER_API_VERSION", "DOCKER_CPUS", "DOCKER_MEMORY",
    "DOCKER_NATIVE", "DOCKER_PRIVILEGED", "AMQP_INSECURE", "AMQP_HEARTBEAT", "BUILD_API_INSECURE_SKIP_VERIFY",
    "HARD_TIMEOUT", "LOG_TIMEOUT", "STARTUP_TIMEOUT", "SCRIPT_UPLOAD_TIMEOUT", "MAX_LOG_LENGTH",
)  # fmt: skip


def system(machine: Target) -> tuple[Fact[str], ...]:
    """The machine itself; needs no rights."""
    questions = (
        sh("cat", "/etc/os-release"), sh("uname", "-r"), sh("uptime"), sh("date", "-u"), sh("df", "-P", "-k"),
        sh("df", "-P", "-i"), sh("free", "-m"),
    )  # fmt: skip
    return tuple(_text(machine, question) for question in questions)


@fact
def platform_docker(platform: Target) -> Fact[str]:
    return _text(platform, sh("docker", "version").sudo())


@fact
def platform_containers(platform: Target) -> Fact[str]:
    return _text(platform, CONTAINERS)


@fact
def replicated_version(platform: Target) -> Fact[str]:
    return _text(platform, sh("replicatedctl", "version").sudo())


@fact
def replicated_app(platform: Target) -> Fact[str]:
    return _text(platform, sh("replicatedctl", "app", "status", "-o", "json").sudo())


@fact
def platform_log(platform: Target, folder: str) -> Fact[str]:
    return _text(platform, sh("tail", "-n", LINES, f"{folder}/log/travis.log").sudo())


@fact
def worker_docker(machine: Target) -> Fact[str]:
    return _text(machine, sh("docker", "version").sudo())


@fact
def worker_containers(machine: Target) -> Fact[str]:
    return _text(machine, CONTAINERS)


@fact
def worker_log(machine: Target, init: str) -> Fact[str]:
    if init == UPSTART:
        return _text(machine, sh("tail", "-n", LINES, UPSTART_LOG).sudo())
    return _text(machine, sh("journalctl", "-u", SERVICE, "-n", LINES, "-o", "cat", "--no-pager").sudo())


@fact
def worker_log_before(machine: Target) -> Fact[str]:
    """The log that upstart's was before it was rotated; the journal is one."""
    return _text(machine, sh("zcat", "-f", *ROTATED).sudo() | sh("tail", "-n", LINES))


@fact
def worker_program(machine: Target) -> Fact[str]:
    """The version of the program on 14.04; elsewhere the image of its container says it."""
    return _text(machine, sh(SERVICE, "-v"))


@fact
def worker_settings(machine: Target) -> Fact[str]:
    """The lines of harmless settings, whole."""
    pattern = f"^(export )?(TRAVIS_WORKER_)?({'|'.join(HARMLESS)})="
    return _text(machine, sh("grep", "-h", "-s", "-E", pattern, *SETTINGS).sudo())


@fact
def worker_setting_names(machine: Target) -> Fact[str]:
    """The names of all settings, without their values."""
    return _text(machine, sh("grep", "-h", "-s", "-o", "-E", "^(export )?[A-Z0-9_]+=", *SETTINGS).sudo())


def _text(machine: Target, question: Command) -> Fact[str]:
    def parse(said: Output) -> str:
        ending = "" if said.ok else f"(exit {said.exit})"
        told = "\n".join(filter(None, (said.out.rstrip(), said.err.rstrip(), ending)))
        return f"$ {question}\n{told}\n"

    return Fact(f"{question} on {machine}", machine, question, parse)
