"""How a worker's settings are read and edited: text like a shell's is hostile, secrets stay on the machine, and what
sed is told does what is shown.
"""

import dataclasses
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.fix import Fix, Risk
from bot.core.plan import Plan
from bot.core.question import Output
from bot.core.shown import Redactor
from bot.core.target import Role, Target
from bot.engine.words import plan_text
from handlers.toolbox import edit, settings, worker
from handlers.toolbox.edit import Edit, Way
from handlers.toolbox.settings import AMQP, BUILD_API, ENDPOINT, HOST, MAIN, QUEUE, TOKEN, Entry

MACHINE = Target("worker-1", Role.WORKER, "prod", "10.0.0.11")
DOMAIN = "travis.example.com"
SECRET = "s3cr3tpw"
SIGNS = "ab1 \t\"'&;|<>()`$\\#{}:-=@/._~*?!%\n"
FEW = examples(max_examples=40, deadline=None)  # each starts a real program
lines = st.text(SIGNS, max_size=40)


def shell(text: str, stdin: str = "") -> str:
    """What a real shell answers, for lines made here; never for what came from elsewhere."""
    ran = subprocess.run(["bash", "-c", text], input=stdin, capture_output=True, text=True, timeout=20, check=False)
    return ran.stdout


def masked(text: str) -> str:
    """What of the lines of a file leaves the machine, by the real sed."""
    source = settings.written(MACHINE).question
    assert isinstance(source, Command)
    *_, mask = source.parts()
    return shell(mask.text(), "".join(f"{MAIN}:{no}:{line}\n" for no, line in enumerate(text.splitlines(), 1)))


def read(text: str, init: str = worker.SYSTEMD, file: str = MAIN) -> settings.Settings:
    found = settings.entries("".join(f"{file}:{no}:{line}\n" for no, line in enumerate(text.splitlines(), 1)))
    return settings.settings(found, init)


# ---------------------------------------------------------------- reading


@given(st.text(max_size=200))
def test_whatever_stands_there_is_read_or_left_out(text: str) -> None:
    for entry in settings.entries(text):
        assert entry.file.startswith("/")
        assert entry.line >= 0


@given(lines)
def test_hostile_shell_is_read_or_unknown_and_never_anything_else(text: str) -> None:
    for init in (worker.SYSTEMD, worker.UPSTART):
        try:
            value = read(f"export QUEUE_NAME={text}".replace("\n", " "), init).value(QUEUE)
        except Unknown:
            continue
        assert isinstance(value, str)


@FEW
@given(st.text("ab1\"' $\\{}:-", max_size=20))
def test_a_value_of_14_04_is_what_a_real_shell_makes_of_it(text: str) -> None:
    """Where we claim a value, dash or bash, sourcing the line, gives the same."""
    try:
        ours = settings.expanded(text, {"b": "'two words'"})
    except Unknown:
        return
    script = f"b='two words'; export V={text}\nprintf %s \"$V\""
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20, check=False)
    if ran.returncode == 0 and not ran.stderr:
        assert ours == ran.stdout


def test_the_last_line_wins_and_the_prefix_before_it() -> None:
    found = read("QUEUE_NAME=a\nexport TRAVIS_WORKER_QUEUE_NAME='b'\nQUEUE_NAME=c\n")
    assert found.value(QUEUE) == "b"
    assert read("QUEUE_NAME=a\n#QUEUE_NAME=b\n").value(QUEUE) == "a"
    assert read("QUEUE_NAME=a\nQUEUE_NAME=c\n").value(QUEUE) == "c"


def test_quotes_mean_something_on_14_04_alone() -> None:
    line = 'QUEUE_NAME="builds.$DIST"\nDIST=trusty\n'
    assert read(line).value(QUEUE) == "builds.$DIST"
    assert read(line, worker.UPSTART).value(QUEUE) == "builds.trusty"


def test_settings_that_refer_to_each_other_in_a_ring_are_unknown() -> None:
    with pytest.raises(Unknown, match="ring"):
        read("QUEUE_NAME=$A\nA=$B\nB=$A\n", worker.UPSTART).value(QUEUE)


def test_a_snap_reads_its_own_file_alone() -> None:
    found = (Entry(MAIN, 1, QUEUE, "a"), Entry(settings.SNAP, 1, QUEUE, "b"))
    assert settings.settings(found, worker.SYSTEMD).value(QUEUE) == "b"


def test_14_04_does_not_read_the_files_of_later_ones() -> None:
    found = (Entry(MAIN, 1, QUEUE, "a"), Entry("/etc/default/travis-worker-chef", 1, QUEUE, "b"))
    assert settings.settings(found, worker.UPSTART).value(QUEUE) == "a"


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("amqp://[masked]@Travis.Example.com/travis", DOMAIN),
        ("amqps://travis.example.com.:4567/travis", DOMAIN),
        ("https://10.0.0.10/__build__/script", "10.0.0.10"),
        ("amqp://[masked]@-oProxyCommand=x/travis", ""),
        ("amqp://[masked]@[::1]/travis", ""),
        ("[masked]", ""),
        ("", ""),
    ],
)
def test_the_host_of_an_address(uri: str, host: str) -> None:
    assert settings.host_of(uri) == host


# ---------------------------------------------------------------- secrets


PASSWORDS = [
    "s3cr3tpw",
    "a@s3cr3tpw",
    "s3cr3tpw@b",
    "s3 cr3tpw",
    "s3cr3tpw#b",
    "s3cr3tpw/b",
    "a:s3cr3tpw",
    "${A:-s3cr3tpw}",
]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "line",
    [
        'export AMQP_URI="amqp://travis:{}@travis.example.com/travis"',
        "AMQP_URI='amqps://travis:{}@travis.example.com:4567/travis'",
        "TRAVIS_WORKER_AMQP_URI=amqp://travis:{}@travis.example.com",
        "AMQP_URI=travis:{}@travis.example.com",
        "#export AMQP_URI=amqp://travis:{}@travis.example.com/travis",
        "BUILD_API_URI=https://{}@travis.example.com/__build__/script",
        "export TRAVIS_ENTERPRISE_SECURITY_TOKEN='{}'",
        "TRAVIS_ENTERPRISE_HOST=travis.example.com # the password is {}",
    ],
)
def test_no_password_leaves_the_machine(line: str, password: str) -> None:
    said = masked(line.format(password))
    assert said
    assert not [part for part in ("s3cr3tpw", "cr3tpw") if part in said]


def test_an_address_without_a_host_is_masked_as_a_whole() -> None:
    assert masked("AMQP_URI=amqp://s3cr3tpw/travis") == f"{MAIN}:1:AMQP_URI=[masked]\n"


@FEW
@given(st.text("abc1@:/#%&$ '\"=?", min_size=6, max_size=20))
def test_no_sort_of_password_leaves_the_machine(odd: str) -> None:
    secret = f"Zq{odd}Zq"
    said = masked(f'export AMQP_URI="amqp://travis:{secret}@travis.example.com/travis"')
    assert "Zq" not in said


@FEW
@given(lines)
def test_a_shape_shows_no_value(text: str) -> None:
    """The letters of a value become `x`, whatever stands between them."""
    question = settings.shapes(MACHINE).question
    assert isinstance(question, Command)
    script = shlex.join(str(word) for word in question.words[: -len(settings.FILES)])
    said = shell(script, "KEY=" + text.replace("\n", " ").replace("x", "a") + "\n")
    value = said.splitlines()[-1].partition("=")[2] if said else ""
    assert not set(value) & set("ab1{}:-=@/._~*?!%")


@pytest.mark.parametrize(
    "text",
    [
        f"export AMQP_URI='amqp://travis:{SECRET}@travis.example.com/travis'",
        f"export TRAVIS_ENTERPRISE_SECURITY_TOKEN='{SECRET}'",
        f"/etc/default/travis-worker:3:TRAVIS_ENTERPRISE_SECURITY_TOKEN={SECRET}",
        f"AMQP_URI=amqp://travis:{SECRET}%40b@travis.example.com/travis",
        f"AMQP_URI=amqp://{SECRET}@travis.example.com/travis",
        f"BUILD_API_URI=https://{SECRET}@travis.example.com/__build__/script",
        f"amqp://travis:{SECRET}@b@travis.example.com/travis",
        f"amqp://travis:a/{SECRET}@travis.example.com/travis",
        f"REMOTE_CONTROLLER_AUTH=user:{SECRET}",
        f"TRAVIS_WORKER_BUILD_CACHE_S3_SECRET_ACCESS_KEY={SECRET}",
    ],
)
def test_what_may_be_shown_of_settings_has_no_secret(text: str) -> None:
    assert SECRET not in Redactor().show(text)


# ---------------------------------------------------------------- what breaks a start


@pytest.mark.parametrize(
    ("shape", "systemd", "upstart"),
    [
        ('A="x x"', "a space", ""),
        ("A=x x", "a space", "a space"),
        ('A="x&x"', "`&`", ""),
        ("A=x&x", "`&`", "`&`"),
        ('A="x$x"', "`$`", ""),
        ("A='x' # x", settings.COMMENT, ""),
        ("A=x", "", ""),
        ("A=", "", ""),
        ("A= x", "a space", "a space"),
        ('A="x', "", "a quote that is not closed"),
        ("A=x(x)", "`(`", "`(`"),
        ("A=`x`", "a backtick", "a backtick"),
        ("x x", settings.NO_VALUE, ""),
    ],
)
def test_what_breaks_a_start(shape: str, systemd: str, upstart: str) -> None:
    def sign(sourced: bool) -> str:
        return next((each.sign for each in settings.broken(((MAIN, 1, shape),), sourced)), "")

    assert (sign(False), sign(True)) == (systemd, upstart)


@FEW
@given(st.text("ax\"' &;#$", max_size=12))
def test_a_line_that_is_called_fine_is_read_by_a_real_shell(value: str) -> None:
    """What the wrapper sources: the line without its quotes."""
    if settings.broken(((MAIN, 1, f"A={value}"),), sourced=False):
        return
    bare = value.replace('"', "").replace("'", "")
    ran = subprocess.run(
        ["/bin/bash", "-e", "-c", f"A={bare}"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PATH": "/none"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_lines_that_cannot_be_told_apart_are_unknown() -> None:
    with pytest.raises(Unknown):
        settings.shapes(MACHINE).parse(Output(0, f"{MAIN}\nA=x\n"))


@pytest.mark.parametrize(
    "make", [settings.written, settings.shapes, settings.places], ids=lambda make: str(make.__name__)
)
@pytest.mark.parametrize(
    "said", [Output(1, "", "sudo: a password is required"), Output(None)], ids=["denied", "no time"]
)
def test_no_answer_is_not_an_empty_one(make: Callable[[Target], Fact[object]], said: Output) -> None:
    with pytest.raises(Unknown):
        make(MACHINE).parse(said)


# ---------------------------------------------------------------- edits


EDITS = [
    (Edit(MAIN, AMQP, DOMAIN, Way.HOST), f'export AMQP_URI="amqp://travis:a@b{SECRET}@old:5672/travis"'),
    (Edit(MAIN, AMQP, DOMAIN, Way.HOST), f"AMQP_URI=amqps://travis:{SECRET}@old.example.com/travis"),
    (Edit(MAIN, BUILD_API, DOMAIN, Way.HOST), "  export BUILD_API_URI='https://old/__build__/script'"),
    (Edit(MAIN, QUEUE, "builds.trusty", Way.VALUE), "export QUEUE_NAME='builds.focal'"),
    (Edit(MAIN, ENDPOINT, "__build__", Way.UNCOMMENT), '#  export TRAVIS_ENTERPRISE_BUILD_ENDPOINT="__build__"'),
    (Edit(MAIN, HOST, DOMAIN, Way.UNCOMMENT), "## TRAVIS_ENTERPRISE_HOST=old"),
    (Edit(MAIN, BUILD_API, f"https://{DOMAIN}/__build__/script", Way.APPEND), "# the last line"),
]


@pytest.mark.parametrize(("change", "line"), EDITS, ids=[f"{each.key} {each.way.name}" for each, _ in EDITS])
def test_the_real_sed_does_what_is_shown(tmp_path: Path, change: Edit, line: str) -> None:
    around = f"# kept\nOTHER_{change.key}=old\n"
    file = tmp_path / "travis-worker"
    file.write_text(f"{around}{line}\n")
    words = ("sed", "-i", "-E", "--follow-symlinks", "-e", change.expression, str(file))
    assert subprocess.run(words, check=False, timeout=20).returncode == 0
    after = file.read_text()
    assert after.startswith(around)
    found = read(after)
    value = found.value(change.key)
    assert change.value in (value, settings.host_of(value))
    if SECRET in line:
        assert f"{SECRET}@{DOMAIN}" in after
    if change.way in (Way.UNCOMMENT, Way.APPEND, Way.VALUE):
        assert change.after in after


@given(st.text(max_size=20))
def test_no_value_means_anything_else_to_sed_or_a_shell(wanted: str) -> None:
    made = edit.value(Entry(MAIN, 1, QUEUE, "builds.focal"), wanted)
    if made is not None:
        assert not set(wanted) & set(" \t\n|&\\'\"$;,#()[]{}*?!`<>~")


@FEW
@example("a/@.:")
@example("b/a@a")
@example("b:a/a@a")
@given(st.text("ab:/@.[]-$'\"", max_size=20))
def test_an_address_is_edited_only_where_its_host_is_sure(text: str) -> None:
    made = edit.host(Entry(MAIN, 1, AMQP, f"amqp://{text}"), DOMAIN)
    if made is not None:
        after = shell(shlex.join(["sed", "-E", "-e", made.expression]), f"AMQP_URI=amqp://{text}\n").removesuffix("\n")
        assert settings.host_of(after.partition("=")[2].strip("'\"")) in (DOMAIN, "")
        assert DOMAIN in after


def test_a_copy_is_named_by_the_edit() -> None:
    one, other = Edit(MAIN, QUEUE, "builds.trusty", Way.VALUE), Edit(MAIN, QUEUE, "builds.xenial", Way.VALUE)
    assert one.copy != other.copy
    assert one.copy == dataclasses.replace(one, before="x").copy
    assert one.copy.startswith(f"{MAIN}.opsbot-")


def test_a_secret_is_never_written_by_machine() -> None:
    keys = {each.key.removeprefix(settings.PREFIX) for each in edit.possible(DOMAIN, ("builds.trusty",))}
    assert TOKEN not in keys
    assert all(each.way is Way.HOST for each in edit.possible(DOMAIN, ()) if each.key.endswith(AMQP))


def test_two_edits_of_a_file_leave_one_copy_of_how_it_was() -> None:
    first, second = (Edit(MAIN, key, DOMAIN, Way.HOST) for key in (AMQP, BUILD_API))
    wishes = [edit.Wish(each, each.key, DOMAIN) for each in (first, second)]
    changes = [change for wish in wishes for change in edit.written(MACHINE, wish, worker.SYSTEMD, {MAIN: first})]
    commands = [str(change.command) for change in changes]
    assert [each.split()[2] for each in commands] == ["install", "sed", "sed"]
    assert sh("install", "-m", "600", MAIN, first.copy).sudo() == changes[0].command


@pytest.mark.parametrize(("key", "warned"), [(QUEUE, True), (settings.PREFIX + QUEUE, True), (BUILD_API, False)])
def test_who_approves_another_queue_reads_in_the_plan_that_the_images_stay(key: str, warned: bool) -> None:
    wish = edit.Wish(Edit(MAIN, key, "builds.trusty", Way.VALUE), key.removeprefix(settings.PREFIX), "builds.trusty")
    steps = tuple(edit.written(MACHINE, wish, worker.SYSTEMD, {}))
    plan = plan_text(Plan((Fix("edit", "Edit", MACHINE, steps, Risk.INTERRUPTS),)))
    assert (f"every build of {wish.value} runs in this machine's images" in plan) == warned
