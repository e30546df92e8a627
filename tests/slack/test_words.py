"""The grammar: what people type on a phone at night, and what they are told when it is not understood."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import NotUnderstood
from bot.core.request import Ask, Request, Vocabulary
from bot.slack.words import guide, read
from tests.slack.fakes import TWO_SITES, VOCABULARY

EMPTY = Vocabulary("/travis", (), (), (), ())


def run(kind: str, subject: str, *targets: str, because: str = "", site: str = "prod") -> Request:
    return Request(Ask.RUN, kind, subject, targets, site, because)


DIAGNOSE = run("diagnose", "builds not starting")
RESTART = run("act", "restart", "worker-2", because="it hangs")

UNDERSTOOD = [
    ("diagnose builds not starting", DIAGNOSE),
    ("builds not starting", DIAGNOSE),
    ("Builds  NOT\u00a0starting?", DIAGNOSE),
    ("“builds not starting”", DIAGNOSE),
    ("please diagnose builds-not-starting.", DIAGNOSE),
    ("diagnose builds not starting on prod!", DIAGNOSE),
    ("diagnose builds not starting on `prod`", DIAGNOSE),
    ("\u200bbuilds not\u200b starting", DIAGNOSE),
    ("builds\nnot\nstarting", DIAGNOSE),
    ("diagnose builds not starting worker-1, worker-2", run("diagnose", "builds not starting", "worker-1", "worker-2")),
    ("builds not starting Worker-1 and workers worker-1", run("diagnose", "builds not starting", "worker-1")),
    ("web ui down <http://platform-1|platform-1>", run("diagnose", "web ui down", "platform-1")),
    ("restart worker-2 because it hangs", RESTART),
    ("RESTART WORKER-2 BECAUSE it hangs", RESTART),
    ("restart worker-2 because: it hangs", RESTART),
    ('restart "worker-2" because “it hangs” on prod', RESTART),
    ("restart worker-2 on prod because it hangs", RESTART),
    ("drain and restart worker-2 because it hangs", replace(RESTART, subject="drain and restart")),
    ("restart worker-1 worker-2 because it hangs", replace(RESTART, targets=("worker-1", "worker-2"))),
    ("restart worker-2 because a &lt;b&gt; &amp; c", replace(RESTART, because="a <b> & c")),
    (
        "restart worker-2 because <@U0BO|bo> said so in <#C0OPS|ops>, see <https://x.example/1|ticket 1>",
        replace(RESTART, because="<@U0BO> said so in ops, see ticket 1"),
    ),
    ("restart worker-2 because see <https://x.example/1>", replace(RESTART, because="see https://x.example/1")),
    ("restart worker-2 because it’s stuck on disk", replace(RESTART, because="it's stuck on disk")),
    ("restart worker-2 because the queue hangs on prod", replace(RESTART, because="the queue hangs on prod")),
    ("backup all", run("job", "backup all")),
    ("run backup", run("job", "backup")),
    ("status", Request(Ask.STATUS, site="prod")),
    ("Status on prod", Request(Ask.STATUS, site="prod")),
    ("diagnose everything", Request(Ask.STATUS, site="prod")),
    ("Diagnose everything on prod", Request(Ask.STATUS, site="prod")),
    ("runs", Request(Ask.RUNS)),
    ("show 12", Request(Ask.SHOW, number=12)),
    ("show run #12.", Request(Ask.SHOW, number=12)),
    ("cancel 12", Request(Ask.CANCEL, number=12)),
    ("approve 7", Request(Ask.APPROVE, number=7)),
    ("approve 7 3F2A91", Request(Ask.APPROVE, number=7, argument="3f2a91")),
    ("decline 7 because not in the evening", Request(Ask.DECLINE, number=7, because="not in the evening")),
    ("help", Request(Ask.HELP)),
    ("help restart", Request(Ask.HELP, subject="restart")),
    (
        'can <@U0ANA|ana> "restart worker-2" on prod',
        Request(Ask.CAN, "act", "restart", ("worker-2",), "prod", who="U0ANA"),
    ),
    ("can <@U0ANA> restart worker-2", Request(Ask.CAN, "act", "restart", ("worker-2",), "prod", who="U0ANA")),
    ("can I restart worker-2?", Request(Ask.CAN, "act", "restart", ("worker-2",), "prod")),
    ("can U0ANA backup all", Request(Ask.CAN, "job", "backup all", (), "prod", who="U0ANA")),
]

NOT_UNDERSTOOD = [
    ("", "Say what to do. For example: `/travis diagnose builds not starting` or `/travis restart worker-1 because"),
    (" \u00a0\u200b ", "Say what to do."),
    ("...", "Say what to do."),
    ("x" * 100_000, "That is 100,000 characters long; I read at most 2,000."),
    ("status\x07", "There are control characters in that"),
    ("bilds not starting", "I did not understand `bilds not starting`. Did you mean `builds not starting`?"),
    ("diagnose all", "I did not understand `all`. For example:"),
    ("diagnos", "I did not understand `diagnos`. Did you mean `diagnose`"),
    ("aprove 12", "Did you mean `approve`"),
    ("restrat worker-2 because it hangs", "Did you mean `restore` or `restart`"),
    ("diagnose", "Diagnose what? Such as `builds not starting`"),
    ("diagnose restart worker-1", "I did not understand `restart worker-1`."),
    ("statsu now", "I did not understand `statsu now`. Did you mean `status`?"),
    ("status worker-1", "`status` stands alone, or with `on` and a site."),
    ("builds not starting worker-3", "no machine `worker-3` on prod: did you mean `worker-2`? There is `platform-1`,"),
    ("builds not starting on mars", "I know no installation `mars`; there is `prod`."),
    ("restart", "Restart which worker? On prod there is `worker-1` and `worker-2`."),
    ("restart worker", "Restart which worker?"),
    ("restart worker-2", "Say why, since the approver reads it: `restart worker-2 because …`."),
    ("restart worker-2 it hangs", "Say why, since the approver reads it: `restart worker-2 because …`."),
    ("restart worker-2 because", "Say why"),
    ("restart wroker-7 because it hangs", "there is no worker `wroker-7` on prod: did you mean `worker-2`?"),
    ("restart platform-1 because it hangs", "`restart` is for a worker; platform-1 is a platform. On prod there is"),
    (f"restart worker-2 because {'x' * 501}", "The reason has 501 characters; at most 500 fit."),
    ("show", "Which run? Say its number: `show 12`. `runs` lists them."),
    ("show me", "Which run?"),
    ("show 12 13", "Which run?"),
    ("show ١٢", "Which run?"),
    ("cancel 99999999999999999999", "Which run?"),
    ("approve 7 worker-1", "`worker-1` is no plan: type the first characters of the one that you read."),
    ("approve 7 3f2", "`3f2` is no plan"),
    ("decline 7 3f2a91 because no", "Which run? Say its number"),
    ("decline 7", "Say why, since the requester reads it: `decline 7 because …`."),
    ("can", 'Say who, and what: `/travis can @ana "restart worker-1"`.'),
    ("can @ana restart worker-2", "`@ana` is: in Slack type @ and choose the person; in a terminal say their id"),
    ("can <@U0ANA> fly", "I did not understand `fly`."),
    ("can <@U0ANA> status", "No rule is about `status`; ask about a diagnosis, an action or a job: `/travis can @ana"),
    ("can me cancel 12", "No rule is about `cancel`"),
    ("backup all worker-2", "`backup all` is about the whole of prod: ask for it without `worker-2`."),
    ("backup all wroker-7", "there is no machine `wroker-7` on prod"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "request_"), UNDERSTOOD, ids=[text[:50] for text, _ in UNDERSTOOD])
def test_understands(text: str, request_: Request) -> None:
    assert read(text, VOCABULARY) == request_


@pytest.mark.parametrize(("text", "says"), NOT_UNDERSTOOD, ids=[text[:50] for text, _ in NOT_UNDERSTOOD])
def test_says_what_it_did_not_understand(text: str, says: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        read(text, VOCABULARY)
    assert says in str(refused.value)


def test_an_example_for_a_terminal_can_be_typed_there() -> None:
    terminal = replace(VOCABULARY, command="opsbot run")
    with pytest.raises(NotUnderstood) as refused:
        read("can @ana restart worker-2", terminal)
    example = 'can U012AB3CD "restart worker-1"'
    assert str(refused.value).endswith(f"`opsbot run {example}`")
    assert read(example, terminal).who == "U012AB3CD"


class TestSeveralSites:
    def test_asks_which(self) -> None:
        for text in ("status", "builds not starting", "restart worker-2 because it hangs", "backup"):
            with pytest.raises(NotUnderstood, match="On which installation"):
                read(text, TWO_SITES)

    def test_takes_the_named_one_or_the_default(self) -> None:
        assert read("status on staging", TWO_SITES).site == "staging"
        assert read("status", TWO_SITES, "staging").site == "staging"
        assert read("status on prod", TWO_SITES, "staging").site == "prod"
        assert read("restart worker-9 because it hangs on staging", TWO_SITES).targets == ("worker-9",)

    def test_knows_only_the_machines_of_that_site(self) -> None:
        with pytest.raises(NotUnderstood, match="no worker `worker-1` on staging"):
            read("restart worker-1 on staging because it hangs", TWO_SITES)


def test_a_handler_may_be_called_like_a_verb() -> None:
    vocabulary = replace(VOCABULARY, diagnoses=("show stuck builds", "pods on fire"))
    assert read("show stuck builds", vocabulary).subject == "show stuck builds"
    assert read("diagnose pods on fire", vocabulary).subject == "pods on fire"


def test_two_examples_that_are_offered_work() -> None:
    with pytest.raises(NotUnderstood) as refused:
        read("", VOCABULARY)
    offered = [part for part in str(refused.value).split("`") if part.startswith("/travis ")]
    assert len(offered) == 2
    for example in offered:
        read(example.removeprefix("/travis "), VOCABULARY)


@pytest.mark.parametrize("word", ["", "restart", "builds not starting", "backup", "show", "help", "nonsense"])
@pytest.mark.parametrize("vocabulary", [VOCABULARY, TWO_SITES, EMPTY])
def test_the_guide_has_an_answer(word: str, vocabulary: Vocabulary) -> None:
    assert len(guide(vocabulary, word)) > 20


def test_the_guide_names_everything() -> None:
    whole = guide(VOCABULARY)
    for name in (*VOCABULARY.diagnoses, *VOCABULARY.actions, *VOCABULARY.jobs, "status", "can @PERSON"):
        assert name in whole


PARTS = st.sampled_from(
    ["diagnose", "builds not starting", "restart", "worker-2", "because", "on", "prod", "mars", "can", "<@U0ANA>", '"',
     "’", "show", "12", "-1", "status", "help", "<", ">", "&lt;", "<!channel>", "`", "```", "\u00a0", "\u202e", "\x00",
     "ψ" * 80],
)  # fmt: skip
SENTENCES = st.lists(PARTS | st.text(max_size=30), max_size=12).map(" ".join) | st.text()


@given(SENTENCES, st.sampled_from([VOCABULARY, TWO_SITES, EMPTY]), st.sampled_from([None, "prod", "nowhere"]))
def test_never_fails_in_another_way(text: str, vocabulary: Vocabulary, site: str | None) -> None:
    if isinstance(answer := understood(text, vocabulary, site), str):
        assert answer
        return
    known = {name for _, machines in vocabulary.machines for name, _ in machines}
    assert set(answer.targets) <= known
    assert answer.kind != "act" or answer.ask is Ask.CAN or answer.because


@given(st.lists(PARTS | st.just("ψ" * 300), min_size=1, max_size=30).map(" ".join))
def test_never_echoes_more_than_a_little(text: str) -> None:
    if isinstance(answer := understood(text, VOCABULARY), str):
        assert answer.count("ψ") <= 200
        assert not set("<>") & set(answer)


def understood(text: str, vocabulary: Vocabulary, site: str | None = None) -> Request | str:
    """The request, or the sentence that says why there is none."""
    try:
        return read(text, vocabulary, site)
    except NotUnderstood as error:
        return str(error)


def test_an_action_for_another_kind_of_machine_names_the_one_that_fits() -> None:
    roles = (*VOCABULARY.action_roles, ("restart platform", "platform"))
    wider = replace(VOCABULARY, actions=(*VOCABULARY.actions, "restart platform"), action_roles=roles)
    with pytest.raises(NotUnderstood) as refused:
        read("restart platform-1 because it hangs", wider, "prod")
    assert "platform-1 is a platform. For a platform there is `restart platform`." in str(refused.value)


def test_the_example_is_an_action_that_everybody_knows() -> None:
    wider = replace(
        VOCABULARY,
        actions=("reset lost jobs", *VOCABULARY.actions),
        diagnoses=("backups", "builds not starting"),
    )
    example = "`/travis diagnose builds not starting` or `/travis restart worker-1 because it hangs`"
    with pytest.raises(NotUnderstood, match=example):
        read("", wider, "prod")
