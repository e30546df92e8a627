"""What single answers are read as, where a mistake would send a change, or keep one from being sent."""

from datetime import timedelta

import pytest

from bot.core.errors import Unknown
from bot.core.fix import Wait, differs
from bot.core.question import HttpGet, Output, Response
from bot.core.target import Role, Target
from handlers.toolbox import broker, pool, rabbitmq, recovery, worker
from handlers.toolbox.rabbitmq import API, HOST

MACHINE = Target("worker-1", Role.WORKER, "prod", "10.0.0.11")


@pytest.mark.parametrize("init", [worker.UPSTART, worker.SYSTEMD])
@pytest.mark.parametrize(
    "said",
    [Output(1, "", "sudo: a password is required"), Output(None), Output(0, "")],
    ids=["denied", "no time", "nothing"],
)
def test_no_answer_does_not_say_that_the_process_is_another_one(init: str, said: Output) -> None:
    with pytest.raises(Unknown):
        worker.still_process(MACHINE, init, 4711).parse(said)


def test_a_process_is_the_same_or_another_one() -> None:
    upstart = worker.still_process(MACHINE, worker.UPSTART, 4711)
    assert upstart.parse(Output(0, "travis-worker start/running, process 4711\n"))
    assert not upstart.parse(Output(0, "travis-worker start/running, process 4712\n"))
    assert not upstart.parse(Output(0, "travis-worker stop/waiting\n"))
    systemd = worker.still_process(MACHINE, worker.SYSTEMD, 700)
    assert systemd.parse(Output(0, "ActiveState=active\nMainPID=700\n"))
    assert not systemd.parse(Output(0, "ActiveState=active\nMainPID=701\n"))
    with pytest.raises(Unknown):
        systemd.parse(Output(0, "ActiveState=active\n"))


ERROR = 'time="2026-11-22T03:00:00Z" level=error msg="couldn\'t connect to AMQP" err="{}" pid=1 self=cli'


@pytest.mark.parametrize(
    ("err", "said"),
    [
        ("x509: certificate signed by unknown authority", "x509: certificate signed by unknown authority"),
        (
            r"Exception (403) Reason: \"username or password not allowed\"",
            'Exception (403) Reason: "username or password not allowed"',
        ),
        (
            r"parse \"amqp://travis:ab/cd@travis.example.com/travis\": invalid port \":ab\" after host",
            "parse [masked]: invalid port [masked] after host",
        ),
        ("dial amqp://travis:s3cr3t@host:5672: i/o timeout", "dial amqp://[masked]@host:5672: i/o timeout"),
    ],
    ids=["certificate", "quotes", "a piece of the password", "a password"],
)
def test_the_last_error_comes_with_its_reason_and_without_passwords(err: str, said: str) -> None:
    last = worker.last_error(MACHINE, worker.SYSTEMD)
    assert last.parse(Output(0, ERROR.format(err) + "\n")) == f"couldn't connect to AMQP: {said}"


def test_a_log_without_errors_has_no_last_one() -> None:
    assert worker.last_error(MACHINE, worker.SYSTEMD).parse(Output(0, 'level=info msg="worker started"\n')) == ""


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("/etc/default/travis-worker", ""),
        ("/var/snap/travis-worker/common/worker.env", ""),
        ("", "no settings of travis-worker were found on it"),
        ("/etc/replicated.conf", "no settings of travis-worker were found on it"),
        ("/etc/default/travis-worker\n/etc/replicated.conf", "it has a platform on it as well (/etc/replicated.conf)"),
    ],
    ids=["worker", "snap", "nothing", "platform", "both"],
)
def test_only_a_machine_that_is_a_worker_alone_is_rebooted(there: str, why: str) -> None:
    assert worker.not_to_reboot(MACHINE).parse(Output(1, f"{there}\n", "stat: cannot stat")) == why


def test_a_machine_that_does_not_answer_is_not_rebooted() -> None:
    assert worker.not_to_reboot(MACHINE).parse(Output(None, "/etc/default/travis-worker\n"))


def test_a_snap_is_drained_as_the_program_that_it_is() -> None:
    """It is no container, its builds run in LXD, and nothing starts it again when a second USR2 has ended it."""
    back = Wait(worker.boot_id(MACHINE), differs("any"), timedelta(minutes=1))
    on = recovery.Handle(MACHINE, worker.SYSTEMD, 812, "any", "", back, snap=True)
    fix = recovery.drain_and_restart(on)
    told = [str(change.command) for change in (*fix.changes(), *fix.ensure)]
    restart = "sudo -n systemctl restart travis-worker"
    assert told == ["sudo -n kill -s USR2 812", restart, restart]
    [builds] = [step.fact for step in fix.steps if isinstance(step, Wait) and step.fact.asks.startswith("number")]
    assert str(builds.question) == "sudo -n lxc list travis-job- -c n --format csv"
    assert not any("docker" in text for text in told)


@pytest.mark.parametrize(
    ("init", "words"),
    [(worker.SYSTEMD, "systemctl restart travis-worker"), (worker.UPSTART, "service travis-worker restart")],
)
def test_one_that_was_between_two_processes_is_restarted_all_the_same(init: str, words: str) -> None:
    """`is it still process 0?` is answered with no as soon as it is up, and nothing would be sent."""
    back = Wait(worker.boot_id(MACHINE), differs("any"), timedelta(minutes=1))
    [change] = recovery.restart(recovery.Handle(MACHINE, init, 0, "any", "", back)).changes()
    assert (str(change.command), change.needed) == (f"sudo -n {words}", None)


def test_the_address_of_docker_is_nobodys_own() -> None:
    """Every machine with Docker has it, so consumers seen from there are anybody's."""
    seen = worker.addresses(MACHINE).parse(Output(0, "10.0.0.11 172.17.0.1 fe80::1 192.168.3.4 \n"))
    assert seen == ("10.0.0.11", "192.168.3.4")
    behind = Target("worker-2", Role.WORKER, "prod", "172.17.0.1")
    assert worker.addresses(behind).parse(Output(0, "172.17.0.1 \n")) == ("172.17.0.1",)


USAGE = "\n\x1b[1mUsage\x1b[0m\n\nrabbitmqctl [--node <node>] list_queues\n"
DIAGNOSTICS = "\n\nDIAGNOSTICS\n===========\n\n * Erlang cookie hash: jfcyQ2KEY987zJuF/oPlNg==\n"
NO_NODE = "Error: unable to perform an operation on node 'rabbit@te-main'."


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (f"{NO_NODE} Please see diagnostics information and suggestions below.{DIAGNOSTICS}", NO_NODE),
        (f"Error:\nThis command requires the 'rabbit' app.\nArguments given:\n\t-q{USAGE}",
         "This command requires the 'rabbit' app."),
        ("", "no words"),
    ],
)  # fmt: skip
def test_why_rabbitmqctl_failed_is_its_first_line(said: str, why: str) -> None:
    """What follows is a screen of advice with a hash of the cookie, or the usage in colours, for every question."""
    for made in (
        rabbitmq.queues("4f1c", "travis"),
        rabbitmq.channels("4f1c", "travis"),
        rabbitmq.held("4f1c", "travis"),
    ):
        with pytest.raises(Unknown) as told:
            made.parse(Output(69, "", said))
        assert str(told.value) == f"rabbitmqctl failed: {why}"


def test_a_broker_says_the_same_by_its_command_and_by_its_api() -> None:
    """In the words of RabbitMQ 3.10.8, asked both ways; only a channel has another name."""
    tables = {
        "consumers": "queue_name\tchannel_pid\tconsumer_tag\nbuilds.xenial\t<a@b.1.30.0>\tbuild-job-consumer\n",
        "channels": "pid\tname\n<a@b.1.30.0>\t10.0.0.11:41234 -> 10.0.0.20:5672 (1)\n",
        "queues": "name\tmessages_ready\tmessages_unacknowledged\tconsumers\n"
        "builds.xenial\t3\t1\t1\nbuilds.gone\t\t\t\n",
        "counted": "name\tvhost\tconsumer_count\n10.0.0.11:41234 -> 10.0.0.20:5672 (1)\ttravis\t1\n",
    }
    name = "10.0.0.11:41234 -> 10.0.0.20:5672 (1)"
    tagged = '"consumer_tag":"build-job-consumer","queue":{"name":"builds.xenial"}'
    consumer = f'{{"channel_details":{{"name":"{name}"}},{tagged}}}'
    queue = '{"consumers":1,"messages_ready":3,"messages_unacknowledged":1,"name":"builds.xenial","state":"running"}'
    lists = {
        "consumers": f"[{consumer}]",
        "channels": f"[{consumer}]",
        "queues": f'[{queue},{{"name":"builds.gone","state":"down"}}]',
        "counted": f'[{{"consumer_count":1,"name":"{name}","vhost":"travis"}}]',
    }
    ctl = {what: Output(0, text) for what, text in tables.items()}
    api = {what: Response(200, text) for what, text in lists.items()}
    for place, said, channel in ((HOST, ctl, "<a@b.1.30.0>"), (API, api, name)):
        assert rabbitmq.consumers(place, "travis").parse(said["consumers"]) == (
            rabbitmq.Consumer("builds.xenial", channel, rabbitmq.BUILD_TAG),
        )
        assert rabbitmq.channels(place, "travis").parse(said["channels"]) == {channel: "10.0.0.11"}
        assert rabbitmq.queues(place, "travis").parse(said["queues"]) == (
            rabbitmq.Queue("builds.xenial", 3, 1, 1),
            rabbitmq.Queue("builds.gone", 0, 0, 0, up=False),
        )
        mine = rabbitmq.consumers_from(place, "travis", "worker-1", "10.0.0.11,10.1.0.11")
        assert mine.parse(said["counted"]) == 1


def test_the_api_is_asked_for_columns_of_the_vhost_alone() -> None:
    question = rabbitmq.queues(API, "a/b c").question
    assert isinstance(question, HttpGet)
    assert question.url == (
        "rabbitmq:/api/queues/a%2Fb%20c?columns=name,messages_ready,messages_unacknowledged,consumers,state"
    )
    assert question.most > 1_000_000, "a fleet of a hundred workers has four thousand consumers"


@pytest.mark.parametrize(
    "said",
    [
        Response(200, "[", truncated=True),
        Response(200, '[{"name"', truncated=False),
        Response(200, '{"status":"ok"}'),
        Response(200, "[]"),
        Response(401, '{"error":"not_authorised","reason":"Login failed"}'),
        Response(503, "<html>"),
    ],
)
def test_what_the_api_does_not_say_is_not_known(said: Response) -> None:
    with pytest.raises((Unknown, ValueError)):
        broker.cluster(API).parse(said)
    if said.body != "[]":
        with pytest.raises((Unknown, ValueError)):
            rabbitmq.consumers(API, "travis").parse(said)


def test_what_is_no_row_of_the_api_has_no_name_and_no_numbers() -> None:
    odd = Response(200, '[1,"x",{"channel_details":[],"queue":{"name":"builds.a"}}]')
    assert rabbitmq.consumers(API, "travis").parse(odd)[2] == rabbitmq.Consumer("builds.a", "")
    assert rabbitmq.channels(API, "travis").parse(odd) == {"": ""}


@pytest.mark.parametrize(
    ("err", "why"),
    [
        ("grep: /etc/a: No such file or directory\ngrep: /etc/b: No such file or directory\n", "there are none"),
        ("grep: /etc/a: No such file or directory\ngrep: /etc/b: Is a directory\n", "grep: /etc/b: Is a directory"),
        ("", "there are none"),
    ],
)
def test_settings_that_cannot_be_read_are_said_in_one_line(err: str, why: str) -> None:
    with pytest.raises(Unknown) as unknown:
        pool.lines(MACHINE).parse(Output(2, "", err))
    assert str(unknown.value) == f"the worker's settings cannot be read: {why}"
