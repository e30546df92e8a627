"""Builds fail because curl in them cannot fetch something, though the platform's certificate is sound.

It shows in the logs of several builds of several repositories: one repository alone asks for what is not there, and
that is its own affair. `nvm` and the cache are what fetch first in many builds.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import downloads, tls
from handlers.toolbox.downloads import Complaint, Job

FEWEST_JOBS, FEWEST_REPOSITORIES = 3, 2  # fewer have a reason of their own
LINK = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"
# Curl's number -> what builds cannot do, and what a person looks at.
KINDS = {
    6: (
        "resolve {host}",
        (
            "Ask a worker from inside a build image: `docker run --rm --entrypoint getent {image} hosts {host}`. When "
            "the worker itself knows the name (`getent hosts {host}`), set `dns` in its /etc/docker/daemon.json."
        ),
    ),
    7: (
        "connect to {host}",
        (
            "Let the workers out to {host}, or give builds the proxy that leads there: HTTPS_PROXY in the settings of "
            "the repositories. Try it: `docker run --rm --entrypoint curl {image} -sSI https://{host}/`."
        ),
    ),
    60: (
        "trust the certificate of {host}",
        (
            "Look in one of these logs which address curl fetched. When it is one of yours, or a proxy opens TLS on "
            "the way, its authority has to be one that build images know; `curl -v` inside {image} names it."
        ),
    ),
}


@diagnosis(
    "downloads fail",
    of="builds failing",
    each=Role.PLATFORM,
    says="Can builds fetch what they need?",
    unless=("tls.*@BROKEN", "net.*"),
    runbook=LINK,
    once=True,
)
def builds_download_fail(look: Look, machine: Target) -> Iterator[Finding]:
    failed = look(downloads.failed_jobs())
    if len(failed) < FEWEST_JOBS:
        return
    said = look(downloads.complaints(downloads.listed(failed)))
    for kind, count in Counter(each.kind for each in said).most_common():
        those = [each for each in said if each.kind == kind]
        if count >= FEWEST_JOBS and len(_repositories(failed, those)) >= FEWEST_REPOSITORIES:
            yield _finding(machine, failed, those)
            return  # one finding: the commonest reason is looked at first


def _repositories(failed: Sequence[Job], those: Sequence[Complaint]) -> set[int]:
    ids = {each.job for each in those}
    return {job.repository for job in failed if job.id in ids}


def _finding(machine: Target, failed: Sequence[Job], those: Sequence[Complaint]) -> Finding:
    code, host = those[0].kind
    cannot, person = KINDS[code]
    most = 2 * len(those) >= len(failed)
    named = {"host": host or "a server", "image": tls.IMAGE}
    jobs = ", ".join(str(each.job) for each in those[:5])
    return Finding(
        "build.download-failed",
        Severity.BROKEN if most else Severity.WARN,
        machine,
        f"{len(those)} of the last {len(failed)} failed builds cannot {cannot.format(**named)}",
        evidence=f"within a day, in {len(_repositories(failed, those))} repositories: {those[0].words}; jobs {jobs}",
        person=person.format(**named),
        link=LINK,
    )
