"""Every section of the configuration file. Each setting's description gives its unit, default and reason; the example
file carries the same words, and a test compares the two.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from bot.settings import fields


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Channels(Section):
    commands: tuple[fields.Channel, ...] = Field(
        default=(),
        description="Channels in which opsbot may be asked, and nowhere else. Default: none, then it is asked on the "
        "command line only.",
    )
    approvals: fields.Channel | None = Field(
        default=None,
        description="A channel that gets a pointer to each open approval, without buttons, and the questions of runs "
        "from the command line. Default: none, since a run's own thread has them; others go to the first of commands.",
    )


class Slack(Section):
    command: fields.SlashCommand = Field(
        default="/travis", description="The slash command, as in the app's manifest. Default: /travis."
    )
    team_id: fields.Team = Field(
        description="The workspace's id; requests from any other are refused. No default: it is half of who people are."
    )
    app_id: fields.App = Field(description="The app's id, from its Basic Information page. No default.")
    enterprise_id: fields.Enterprise | None = Field(
        default=None,
        description="The organisation's id where the workspace belongs to Slack's Enterprise Grid: who clicks there is "
        "of the organisation, not of the workspace, and would be refused. Default: none.",
    )
    connect: StrictBool = Field(
        default=True,
        description="Whether opsbot speaks to Slack. Default: true; false needs no tokens, and leaves the command "
        "line alone.",
    )
    channels: Channels = Field(default=Channels(), description="Where people ask and decide.")


class Database(Section):
    url: fields.Text = Field(
        default="embedded",
        description="opsbot's own database. Default: embedded, a PostgreSQL that opsbot starts in state_dir. Another "
        "is given by OPSBOT_DATABASE_URL, or here when its address holds no password.",
    )


class Bastion(Section):
    host: fields.Host = Field(description="The machine to jump over. No default.")
    port: fields.Port = Field(default=22, description="Its SSH port. Default: 22.")
    user: fields.UnixUser | None = Field(default=None, description="Who logs in there. Default: the user of ssh.")


class Ssh(Section):
    user: fields.UnixUser = Field(
        description="Who logs in on the machines; `opsbot manifest sudoers` says which rights it needs. No default."
    )
    key_file: fields.File = Field(description="Its private key; there are no passwords. No default.")
    known_hosts: fields.File = Field(
        description="The pinned host keys, in OpenSSH's format; an unknown or changed key is refused. No default."
    )
    jump: Bastion | None = Field(default=None, description="A bastion, with its own pin in known_hosts. Default: none.")


class Machine(Section):
    name: fields.Name = Field(description="What people call it: `restart worker-1`. No default.")
    host: fields.Host = Field(
        description="Its address as opsbot and RabbitMQ see it: connections of a worker are told by it. No default."
    )
    port: fields.Port = Field(default=22, description="Its SSH port. Default: 22.")
    user: fields.UnixUser | None = Field(
        default=None, description="Who logs in, when not the user of ssh. Default: that one."
    )


class Platform(Machine):
    data_dir: fields.Word = Field(
        default="/var/travis",
        description="Where the platform keeps its data. Default: /var/travis, as the vendor installs it.",
    )


class Worker(Machine):
    queue: fields.Word | None = Field(
        default=None, description="The queue it builds from. Default: none, then its own configuration is asked."
    )


class SiteDatabase(Section):
    read_dsn_env: fields.Variable | None = Field(
        default=None, description="The variable with the DSN of a user that may only read. Default: none, no queries."
    )
    write_dsn_env: fields.Variable | None = Field(
        default=None,
        description="The variable with the DSN of a user that may write, for fixes. Default: none, no such fixes.",
    )
    via: Literal["direct", "tunnel", "container"] = Field(
        default="container",
        description="How it is reached: direct, through an SSH tunnel to the platform, where the host in the DSN is as "
        "the platform sees it, or inside its container. Default: container, where 2.x has it.",
    )
    name: fields.Word = Field(
        default="travis_production",
        description="The database in the container; a DSN has its own. Default: travis_production, as the vendor "
        "installs it.",
    )
    user: fields.UnixUser = Field(
        default="travis", description="The database's user in the container; a DSN has its own. Default: travis."
    )


class RabbitMq(Section):
    via: Literal["container", "host", "http"] = Field(
        default="container",
        description="Where rabbitmqctl runs: in the platform's container, or on the platform's host itself; or the "
        "management API by http. Default: container, where 2.x has it.",
    )
    url_env: fields.Variable | None = Field(
        default=None,
        description="The variable with the management API's URL, user and password in it, for http; of several nodes "
        "one, or their load balancer: each answers for the whole cluster. Default: none.",
    )
    vhost: fields.Word = Field(
        default="travis", description="The vhost of the builds; in any other there is nothing to see. Default: travis."
    )


class Redis(Section):
    via: Literal["container", "tunnel", "direct"] = Field(
        default="container", description="How it is reached. Default: container, where 2.x has it."
    )
    url_env: fields.Variable | None = Field(
        default=None,
        description="The variable with its redis:// or rediss:// URL, for tunnel and direct. Default: none.",
    )


class Aws(Section):
    region: fields.Word = Field(description="The region that the platform runs in, such as eu-central-1. No default.")
    security_group: fields.SecurityGroup = Field(
        description="The security group of the platform's instance, by its id; ec2:DescribeSecurityGroups and "
        "ec2:DescribeNetworkInterfaces are asked. No default."
    )
    write: StrictBool = Field(
        default=False,
        description="Whether a fix may add the inbound rule that is missing, once somebody has approved it "
        "(ec2:AuthorizeSecurityGroupIngress). Default: false, then the call is shown for a person.",
    )


class Installation(Section):
    name: fields.Name = Field(description="What people call it: `status on prod`. No default.")
    version: fields.Version = Field(
        description='Version of Travis CI Enterprise, in quotes. "2.x" only: 3.x needs Kubernetes, which is not built '
        "yet. No default."
    )
    domain: fields.Host = Field(description="The host name people open in the browser. No default.")
    ssh: Ssh = Field(description="How its machines are reached.")
    platforms: Annotated[tuple[Platform, ...], Field(min_length=1)] = Field(
        description="The platform machines; several in 2.x High Availability. At least one."
    )
    workers: tuple[Worker, ...] = Field(default=(), description="The worker machines. Default: none.")
    database: SiteDatabase = Field(default=SiteDatabase(), description="The platform's database.")
    logs_database: SiteDatabase | None = Field(
        default=None, description="The logs' database, when it is another. Default: the same database."
    )
    rabbitmq: RabbitMq = Field(default=RabbitMq(), description="The broker.")
    redis: Redis = Field(default=Redis(), description="Redis, which holds the platform's background jobs.")
    aws: Aws | None = Field(
        default=None,
        description="Where the platform runs, when that is AWS; credentials come from boto3's own chain. Default: "
        "none.",
    )


class ApproverList(Section):
    usergroup: fields.Usergroup | None = Field(
        default=None, description="A Slack user group whose members may approve; asked afresh each time. Default: none."
    )
    users: tuple[fields.User, ...] = Field(
        default=(),
        description="Single people who may approve, also when Slack is away. Default: none; without a group, users and "
        "admins anybody in the command channels may, except who asked.",
    )


class People(Section):
    approvers: ApproverList = Field(
        default=ApproverList(), description="Who may approve. Nobody ever approves their own wish."
    )
    admins: tuple[fields.User, ...] = Field(default=(), description="People who may approve everything. Default: none.")
    uids: dict[fields.Uid, fields.User] = Field(
        default={},
        description="Who a Unix user of this machine is in Slack, for the command line. Default: none; an unmapped uid "
        "may look, but neither order changes nor approve. A person mapped by two uids counts as shared, so likewise.",
    )


class PolicyRule(Section):
    risk: Literal["none", "interrupts", "data", "destroys"] | None = Field(
        default=None, description="Which risk it is about: none, interrupts, data or destroys. Default: any."
    )
    action: fields.Text | None = Field(
        default=None,
        description=(
            "Which fix, action or job, such as worker.reboot, restart or backup all; a name that there is not stops "
            "the start. An action's means its fix, also where a diagnosis offers it. A job can only be forbidden. "
            "Default: any."
        ),
    )
    installation: fields.Name | None = Field(default=None, description="Which installation. Default: any.")
    role: Literal["platform", "worker"] | None = Field(default=None, description="Which machines. Default: any.")
    approvals: fields.Approvals = Field(
        description="How many other people must agree: 0, 1, 2 or forbidden. No default."
    )
    max_targets: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        default=10, description="How many machines one plan may change. Default: 10."
    )
    one_at_a_time: StrictBool = Field(
        default=False,
        description="Whether two machines of one role may be changed at the same moment: true forbids it. "
        "Default: false.",
    )


class Schedule(Section):
    cron: fields.Cron = Field(description="When, as minute hour day month weekday, in UTC, in quotes. No default.")
    run: fields.Text = Field(description="What, in the words of the chat: `diagnose builds not starting`. No default.")
    on: fields.Name | None = Field(default=None, description="On which installation. Default: the only one.")


class Keep(Section):
    daily: Annotated[StrictInt, Field(ge=0, le=3660)] = Field(
        default=7, description="How many days that have a proven backup keep their newest one. Default: 7."
    )
    weekly: Annotated[StrictInt, Field(ge=0, le=520)] = Field(
        default=4, description="How many weeks that have one keep their newest. Default: 4."
    )
    monthly: Annotated[StrictInt, Field(ge=0, le=120)] = Field(
        default=12, description="How many months that have one keep their newest. Default: 12."
    )


class Proof(Section):
    restore: Literal["schema", "full", "off"] = Field(
        default="schema",
        description="Whether each dump is restored into a throw-away PostgreSQL of opsbot's own: its tables only, all "
        "of it, or not at all. Default: schema.",
    )
    max_size: fields.Bytes = Field(
        default=20 * 1024**3, description="A dump that was larger than this last time is only listed. Default: 20GiB."
    )


class Backups(Section):
    store: fields.Store = Field(
        description="Where backups go: file:///FOLDER, s3://BUCKET/PATH, gs:// or az://. No default."
    )
    recipients: Annotated[tuple[fields.Recipient, ...], Field(min_length=1)] = Field(
        description="The age public keys that backups are encrypted to; opsbot cannot open them. At least one; two, "
        "kept apart, are better."
    )
    keep: Keep = Field(
        default=Keep(), description="How long; the newest and the newest proven one are never thrown away."
    )
    overdue_after: fields.Grace = Field(
        default=timedelta(hours=26),
        description="After how long without a complete backup the channel is told. Default: 26h, a day and its grace.",
    )
    proof: Proof = Field(default=Proof(), description="What is done to know that dumps can be restored.")


class CommandLine(Section):
    impersonate: StrictBool = Field(
        default=False,
        description="Whether `--as USER` works, for trying things out. Default: false; both people count as parties.",
    )


class Engine(Section):
    lease: fields.Lease = Field(
        default=timedelta(seconds=10),
        description="How long a process that died keeps its runs from the others. Default: 10s.",
    )
    poll: fields.Poll = Field(
        default=timedelta(seconds=2), description="How often work is looked for when nothing wakes opsbot. Default: 2s."
    )
    approval_open_for: fields.Patience = Field(
        default=timedelta(minutes=30), description="How long a plan waits for people before it expires. Default: 30m."
    )
    sample_every: fields.Patience = Field(
        default=timedelta(minutes=5),
        description="How often what is compared with an earlier look is looked at by itself, so that a stuck sync is "
        "known at once. Default: 5m.",
    )
    finish_within: fields.Patience = Field(
        default=timedelta(minutes=5),
        description="How long a change that is under way may take to end when opsbot is told to stop; all else is "
        "given back at once, and a second signal waits for nothing. Let whatever stops opsbot wait as long. "
        "Default: 5m.",
    )
    workers: Annotated[StrictInt, Field(ge=1, le=200)] = Field(
        default=16,
        description="How many runs, questions and clicks are worked on at the same moment; those that wait hold none, "
        "and what takes longer than 10 s holds up no other. Default: 16.",
    )


class File(Section):
    """The whole file."""

    slack: Slack = Field(description="The workspace and the app.")
    database: Database = Field(default=Database(), description="Where opsbot keeps its runs.")
    socket: fields.File = Field(
        default=Path(),
        description="Where the command line meets `opsbot serve`; the group of its folder may use it. Default: "
        "opsbot.sock in state_dir, as root /run/opsbot/opsbot.sock.",
    )
    state_dir: fields.File = Field(
        default=Path(),
        description="What opsbot keeps on disk: the embedded database. Default: ~/.local/state/opsbot, as root "
        "/var/lib/opsbot.",
    )
    installations: Annotated[tuple[Installation, ...], Field(min_length=1)] = Field(
        description="What opsbot looks after. At least one."
    )
    people: People = Field(default=People(), description="Who is who.")
    rules: tuple[PolicyRule, ...] = Field(
        default=(),
        alias="policy",
        description="Who must agree before something is changed: the first rule that fits decides. Default, also after "
        "the last rule: none 0, interrupts 1, data 1, destroys forbidden.",
    )
    schedules: tuple[Schedule, ...] = Field(default=(), description="What runs by itself. Default: nothing.")
    backups: Backups | None = Field(
        default=None, description="Encrypted backups that leave the machine. Default: none are taken."
    )
    handlers: tuple[fields.File, ...] = Field(
        default=(),
        description="Folders with a team's own handlers; refused when others can write there. Default: none.",
    )
    cli: CommandLine = Field(default=CommandLine(), description="The command line.")
    engine: Engine = Field(default=Engine(), description="How runs are carried; the defaults fit.")
