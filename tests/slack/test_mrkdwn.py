"""Foreign text in Slack's mark-up: whatever a log line holds, it mentions nobody and links nowhere."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack import mrkdwn

HOSTILE = st.lists(
    st.sampled_from(
        ["<!channel>", "<!here>", "<@U0CY>", "<#C0OPS|x>", "<https://evil.example|good>", "```", "`", "&lt;!here&gt;",
         "\n", ">", "<!date^1^{time}|x>", "<!subteam^S1>", "*", "|", "&"]
    ) | st.text(max_size=8), max_size=20,
).map("".join)  # fmt: skip


@given(HOSTILE)
def test_escaped_text_has_no_mark_up_left(text: str) -> None:
    escaped = mrkdwn.escape(text)
    assert not set("<>") & set(escaped)
    assert not re.search(r"&(?!amp;|lt;|gt;)", escaped)
    assert escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text


@given(HOSTILE)
def test_prose_never_mentions_links_or_opens_a_block(text: str) -> None:
    for safe in (mrkdwn.prose(text), mrkdwn.line(text)):
        assert not set("<>") & set(safe)
        assert "```" not in safe
        assert safe.count("`") % 2 == 0


@given(HOSTILE)
def test_only_known_people_and_channels_live(text: str) -> None:
    safe = mrkdwn.prose(f"{text} <@U0ANA> <#C0OPS>", {"U0ANA", "C0OPS"})
    assert set(re.findall("<[^>]*>", safe)) <= {"<@U0ANA>", "<#C0OPS>"}
    assert safe.endswith("<@U0ANA> <#C0OPS>")


@given(HOSTILE)
def test_code_cannot_be_left(text: str) -> None:
    span = mrkdwn.code(text)
    assert re.fullmatch("`[^`\n<>]+`", span)
    block = mrkdwn.block(text)
    assert block.count("```") == 2
    assert not set("<>") & set(block)


@given(st.text())
def test_ids_and_links_are_only_what_they_may_be(text: str) -> None:
    assert not set("<>") & set(mrkdwn.person(text)) or re.fullmatch("[UW][A-Z0-9]+", text)
    assert not set("<>") & set(mrkdwn.channel(text)) or re.fullmatch("[CGD][A-Z0-9]+", text)
    label = mrkdwn.link("https://docs.example/a#b", text)
    assert re.fullmatch(r"<https://docs\.example/a#b\|[^<>|]*>", label)


@pytest.mark.parametrize(
    "url",
    ["http://x.example/", "javascript:alert(1)", "https://x.example/|<!here>", "https://", "", "https://a b.example/"],
)
def test_what_is_no_https_address_is_no_link(url: str) -> None:
    assert "<" not in mrkdwn.link(url, "see")


def test_a_query_is_a_link_too() -> None:
    assert mrkdwn.link("https://x.example/?a=1&b=2", "see") == "<https://x.example/?a=1&amp;b=2|see>"


def test_a_date_falls_back_to_utc() -> None:
    moment = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)
    assert mrkdwn.date(moment) == "<!date^1795357800^{date_short_pretty} {time}|2026-11-22 14:30 UTC>"


@given(st.text(), st.integers(0, 300))
def test_what_is_cut_off_is_counted(text: str, most: int) -> None:
    clipped = mrkdwn.clip(text, most)
    if clipped != text:
        kept, left = re.fullmatch(r"(.*)… \(([\d,]+) more characters\)", clipped, re.S).groups()  # type: ignore[union-attr]
        assert len(kept) + int(left.replace(",", "")) == len(text)
        assert len(clipped) <= max(most, 40)
