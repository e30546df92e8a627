"""The configuration: what each mistake says (cases in tests/cases/settings), and what the engine gets of a good one."""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from bot.core.fix import Fix, Risk
from bot.core.target import Role
from bot.engine.people import Approvers
from bot.settings import BadSettings, HostSettings, Secrets, Settings, load, load_file
from bot.settings.sections import File

CASES = Path(__file__).parent / "cases" / "settings"
EXAMPLE = Path(__file__).parents[1] / "config" / "opsbot.example.yaml"
VALID = (CASES / "valid.yaml").read_text()
TOKENS = {"SLACK_BOT_TOKEN": "xoxb-1-2-bot", "SLACK_APP_TOKEN": "xapp-1-A-app"}
SECRET = "hunter2"  # in every case that has a password


def cases() -> Iterator[Any]:
    for file in sorted(CASES.glob("*.yaml")):
        if file.name != "valid.yaml":
            for case in yaml.safe_load(file.read_text()):
                yield pytest.param(case, id=f"{file.stem}: {case['case']}")


def steps_of(path: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]


def broken(case: Mapping[str, Any]) -> str:
    """The text of the case's configuration."""
    if "text" in case:
        return str(case["text"])
    data = yaml.safe_load(VALID)
    for path, value in case.get("put", {}).items():
        *before, last = steps_of(path)
        inner = data
        for step in before:
            inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
        inner[last] = value
    for path in case.get("drop", ()):
        *before, last = steps_of(path)
        inner = data
        for step in before:
            inner = inner[step]
        del inner[last]
    changed = "put" in case or "drop" in case
    return (yaml.safe_dump(data, sort_keys=False) if changed else VALID) + str(case.get("add", ""))


def environment_of(case: Mapping[str, Any], folder: Path) -> dict[str, str]:
    given = {**TOKENS, **case.get("environment", {})}
    return {name: value.replace("{folder}", str(folder)) for name, value in given.items() if value is not None}


def problems(path: Path, environment: Mapping[str, str]) -> list[str]:
    try:
        load(path, environment)
    except BadSettings as bad:
        return str(bad).split("\n")
    return []


def valid(folder: Path, text: str = VALID) -> Path:
    path = folder / "opsbot.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("case", list(cases()))
def test_each_mistake_has_its_sentences(case: dict[str, Any], tmp_path: Path) -> None:
    path = valid(tmp_path, broken(case))
    for name, file in case.get("files", {}).items():
        (tmp_path / name).write_text(file["text"])
        (tmp_path / name).chmod(int(str(file["mode"]), 8))
    said = problems(path, environment_of(case, tmp_path))
    assert said == [each.replace("{folder}", str(tmp_path)).replace("{file}", str(path)) for each in case["says"]]
    assert SECRET not in "\n".join(said)


def test_every_kind_of_file_that_is_no_configuration(tmp_path: Path) -> None:
    missing, folder, latin = tmp_path / "none.yaml", tmp_path / "folder", valid(tmp_path)
    folder.mkdir()
    assert problems(missing, TOKENS) == [
        f"{missing}: there is no such file; copy config/opsbot.example.yaml, or name yours with --config"
    ]
    assert problems(folder, TOKENS) == [f"{folder}: is not a configuration (no ordinary file, or larger than 1 MiB)"]
    latin.write_bytes(b"slack:\n  command: /caf\xe9\n")
    assert problems(latin, TOKENS) == [f"{latin}, line 2: is not UTF-8 text"]
    latin.write_text("#" * (1024 * 1024 + 1))
    assert problems(latin, TOKENS) == [f"{latin}: is not a configuration (no ordinary file, or larger than 1 MiB)"]
    latin.write_text("[" * 100_000)
    assert problems(latin, TOKENS) == [f"{latin}: a value in it cannot be read as YAML"]


def test_a_file_that_everybody_can_write_decides_nothing(tmp_path: Path) -> None:
    path = valid(tmp_path)
    path.chmod(0o666)
    assert problems(path, TOKENS) == [
        f"{path}: everybody can write it, and with it decide who approves; chmod o-w {path}"
    ]


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    assert problems(pipe, TOKENS) == [f"{pipe}: is not a configuration (no ordinary file, or larger than 1 MiB)"]
    said = problems(valid(tmp_path), {"SLACK_APP_TOKEN": "xapp-1", "SLACK_BOT_TOKEN_FILE": str(pipe)})
    assert said == [f"SLACK_BOT_TOKEN_FILE: {pipe} cannot be used: it is no ordinary file"]


# ---------------------------------------------------------------- the example


def fields_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting: its path without indexes, its key, its description."""
    from bot.settings.problems import _model_in

    for name, field in model.model_fields.items():
        key = field.alias or name
        yield f"{path}{key}", key, field.description or ""
        if inner := _model_in(field.annotation):
            yield from fields_of(inner, f"{path}{key}.")


def written(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}{key}"
            yield from written(inner, f"{path}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from written(inner, path)


def example_environment() -> dict[str, str]:
    named = re.findall(r"(\w+_env): (\w+)", EXAMPLE.read_text())
    kinds = {"TRAVIS_REDIS_URL": "redis", "TRAVIS_RABBITMQ_URL": "https"}
    addresses = {name: f"{kinds.get(name, 'postgresql')}://user:secret@{name.lower()}" for _, name in named}
    return {**TOKENS, "OPSBOT_AUDIT_KEY": "k" * 64, **addresses}


def test_the_example_is_valid() -> None:
    settings = load(EXAMPLE, example_environment())
    assert [site.name for site in settings.sites()] == ["prod"]
    assert settings.secrets.named["TRAVIS_REDIS_URL"] == "redis://user:secret@travis_redis_url"


def test_the_example_has_every_setting_with_its_reason() -> None:
    text = EXAMPLE.read_text()
    comments = " ".join(line.strip().removeprefix("#").strip() for line in text.splitlines() if "#" in line)
    there = set(written(yaml.safe_load(text.replace("    on: prod", '    "on": prod'))))
    for path, _, description in fields_of(File):
        assert path in there, f"{path} is not in the example"
        assert description, f"{path} has no description"
        assert description in comments, f"the example does not say of {path}: {description}"


def test_every_setting_names_its_default_or_that_there_is_none() -> None:
    for path, _, description in fields_of(File):
        leads_on = any(other.startswith(f"{path}.") for other, _, _ in fields_of(File))
        assert leads_on or re.search(r"[Dd]efault|At least one", description), path


# ---------------------------------------------------------------- what the engine gets


def test_a_site_has_its_machines_and_options(tmp_path: Path) -> None:
    (site,) = load(valid(tmp_path), TOKENS).sites()
    assert [(each.name, each.role, each.address, each.key) for each in site] == [
        ("platform-1", Role.PLATFORM, "10.0.0.10", "prod/platform-1"),
        ("worker-1", Role.WORKER, "10.0.0.11", "prod/worker-1"),
        ("worker-2", Role.WORKER, "10.0.0.12", "prod/worker-2"),
    ]
    assert site.option("rabbitmq.vhost", "") == "travis"
    assert site.option("rabbitmq.via", "") == "container"
    assert site.option("data_dir.platform-1", "") == "/var/travis"
    assert site.option("queue.worker-1", "none") == "none"


def test_each_machine_says_how_it_is_reached(tmp_path: Path) -> None:
    case = {
        "put": {
            "installations[0].ssh.jump": {"host": "bastion.example.com", "port": 2222},
            "installations[0].workers[0].user": "worker-ops",
            "installations[0].workers[0].port": 2201,
        }
    }
    hosts = load(valid(tmp_path, broken(case)), TOKENS).ssh_hosts()
    key, pins = tmp_path / "id_ed25519", tmp_path / "known_hosts"
    bastion = HostSettings("bastion.example.com", 2222, "ops", key, pins)
    assert hosts["prod/worker-1"] == HostSettings("10.0.0.11", 2201, "worker-ops", key, pins, bastion)
    assert hosts["prod/platform-1"] == HostSettings("10.0.0.10", 22, "ops", key, pins, bastion)
    assert set(hosts) == {"prod/platform-1", "prod/worker-1", "prod/worker-2"}


def test_the_first_rule_that_fits_decides_and_is_named(tmp_path: Path) -> None:
    rules = [
        {"risk": "interrupts", "action": "worker.reboot", "approvals": 2, "max_targets": 1},
        {"risk": "interrupts", "role": "worker", "approvals": 1, "one_at_a_time": True},
        {"risk": "data", "installation": "prod", "approvals": "forbidden"},
    ]
    settings = load(valid(tmp_path, broken({"put": {"policy": rules}})), TOKENS)
    policy, (site,) = settings.policy(), settings.sites()
    platform, worker = site.targets[0], site.targets[1]

    def rule(fix: str, risk: Risk, target: Any) -> str:
        return str(policy.rule_for(Fix(fix, fix, target, (), risk)))

    assert rule("worker.reboot", Risk.INTERRUPTS, worker) == (
        "policy[0] risk=interrupts action=worker.reboot: 2 approvals"
    )
    assert rule("worker.restart", Risk.INTERRUPTS, worker) == "policy[1] risk=interrupts role=worker: 1 approval"
    assert rule("db.clean", Risk.DATA, platform) == "policy[2] risk=data installation=prod: forbidden"
    assert rule("web.restart", Risk.INTERRUPTS, platform) == "default for risk interrupts: 1 approval"
    assert policy.rules[1].one_at_a_time
    assert policy.rules[0].max_targets == 1


def test_approvers_are_a_group_and_single_people(tmp_path: Path) -> None:
    people = {"approvers": {"usergroup": "S012AB3CD", "users": ["U012AB3CD"]}, "admins": ["U999AB3CD"]}
    settings = load(valid(tmp_path, broken({"put": {"people": people}})), TOKENS)
    assert settings.approvers() == Approvers("S012AB3CD", ("U012AB3CD",), ("U999AB3CD",))
    assert load(valid(tmp_path), TOKENS).approvers() == Approvers()


@pytest.mark.parametrize(
    ("setting", "text", "span"),
    [
        ("poll", "500ms", 0.5),
        ("lease", "10s", 10),
        ("approval_open_for", "1m30s", 90),
        ("approval_open_for", "90s", 90),
        ("approval_open_for", "1h", 3600),
    ],
)
def test_time_spans_have_units(setting: str, text: str, span: float, tmp_path: Path) -> None:
    settings = load(valid(tmp_path, broken({"put": {"engine": {setting: text}}})), TOKENS)
    assert getattr(settings.engine, setting) == timedelta(seconds=span)


def test_paths_count_from_the_configuration_and_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    monkeypatch.chdir("/")
    case = {"put": {"handlers": ["ours", "/srv/theirs", "~/mine"], "state_dir": "state"}}
    settings = load(valid(tmp_path, broken(case)), {**TOKENS, "HOME": "/home/ana"})
    assert settings.handlers == (tmp_path / "ours", Path("/srv/theirs"), Path("/home/ana/mine"))
    assert settings.state_dir == tmp_path / "state"


def test_state_and_socket_have_a_private_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = valid(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    root = load_file(path, {"HOME": "/root"})
    assert (root.state_dir, root.socket) == (Path("/var/lib/opsbot"), Path("/run/opsbot/opsbot.sock"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    user = load_file(path, {"HOME": "/home/ana"})
    assert user.state_dir == Path("/home/ana/.local/state/opsbot")
    assert user.socket == Path("/home/ana/.local/state/opsbot/opsbot.sock")


def test_the_file_alone_needs_no_secret(tmp_path: Path) -> None:
    settings = load_file(valid(tmp_path), {})
    assert settings.secrets == Secrets()
    assert settings.slack.command == "/travis"


# ---------------------------------------------------------------- secrets


def test_secrets_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://opsbot:hunter2@db/opsbot\n")
    file.chmod(0o640)
    environment = {**TOKENS, "OPSBOT_DATABASE_URL_FILE": str(file), "OPSBOT_AUDIT_KEY": "k" * 64}
    settings = load(valid(tmp_path), environment)
    assert settings.database_url == "postgresql://opsbot:hunter2@db/opsbot"
    assert set(settings.secrets.values()) == {*TOKENS.values(), "k" * 64, settings.database_url, "hunter2"}
    assert load(valid(tmp_path), TOKENS).database_url == "embedded"


def test_no_secret_is_shown_or_dumped(tmp_path: Path) -> None:
    settings = load(valid(tmp_path), {**TOKENS, "OPSBOT_DATABASE_URL": "postgresql://opsbot:hunter2@db/opsbot"})
    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()} {settings.secrets!r}"
    for secret in (*TOKENS.values(), SECRET):
        assert secret not in shown


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings: Settings = load(valid(tmp_path), TOKENS)
    with pytest.raises(ValidationError, match="frozen"):
        settings.engine = settings.engine
    with pytest.raises(ValidationError, match="frozen"):
        settings.cli.impersonate = True
