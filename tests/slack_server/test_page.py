"""The page in a headless Chromium, and who is refused before it."""

import base64
import http.client
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright
from slack_bolt import Ack

from bot.sandbox.slack import LocalSlack
from tests.slack_server.bolt import Bot, Json

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
PNG = base64.b64decode(  # two pixels, black and white
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAAAAADRSSBWAAAAC0lEQVR4nGNg+A8AAQIBANLNnAYAAAAASUVORK5CYII="
)
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<javascript:alert(1)|click me>",
    "<https://a.example/\" onmouseover=\"alert(1)|x>",
    "*bold <b>x</b>* `<i>code</i>` &lt;u&gt; ```</pre><svg onload=alert(1)>```",
    "<@U0ANA\"><img src=x onerror=alert(1)>|x>",
    "<!date^1700000000^{date}^javascript:alert(1)|<img src=x onerror=alert(1)>>",
    "\u202eevil\u202c :<img>: </article></body>",
)  # fmt: skip
MODAL: Json = {
    "type": "modal",
    "callback_id": "decline",
    "title": {"type": "plain_text", "text": "Decline the plan"},
    "submit": {"type": "plain_text", "text": "Decline"},
    "blocks": [
        {
            "type": "input",
            "block_id": "reason",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "text"},
        }
    ],
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, slack: LocalSlack) -> Iterator[Callable[[], Page]]:
    """Opens the start-up address; whatever a browser complains about fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(10_000)
    complaints: list[str] = []

    def complain(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def refuse(dialog: Dialog) -> None:
        complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def opened() -> Page:
        page = context.new_page()
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", refuse)
        page.goto(slack.page_url)
        expect(page.locator('#app[data-ready="true"]')).to_be_visible()
        return page

    yield opened
    context.close()
    assert complaints == []


def button(action_id: str, text: str, **more: object) -> Json:
    return {"type": "button", "action_id": action_id, "text": {"type": "plain_text", "text": text}, **more}


def test_command_typed_in_the_page_is_answered_privately(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    bot.on_command(lambda ack, body: ack(f"I look at *{body['text']}*"))
    bot.connect()
    page = open_page()
    page.get_by_label("Message", exact=True).fill("/travis diagnose builds")
    page.keyboard.press("Enter")
    private = page.locator("#messages [data-ephemeral]")
    expect(private).to_contain_text("I look at diagnose builds")
    expect(private).to_contain_text("Only visible to you")
    expect(private.locator("strong")).to_have_text("diagnose builds")
    page.locator('[data-person-name="bo"]').click()
    expect(private).to_have_count(0)
    page.locator('[data-person-name="ana"]').click()
    expect(private).to_have_count(1)
    page.reload()
    expect(page.locator('#app[data-ready="true"]')).to_be_visible()
    expect(private).to_have_count(0)


def test_hint_fills_the_composer(slack: LocalSlack, open_page: Callable[[], Page]) -> None:
    slack.driver.set_hints(["In #ops, type `/travis diagnose builds not starting`"])
    page = open_page()
    page.locator("[data-hint]").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("/travis diagnose builds not starting")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_thread_is_followed_live_and_survives_a_reload(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    page = open_page()
    parent = slack.driver.person("ana").say("builds are slow", "ops")
    first = bot.client.chat_postMessage(channel="C0OPS", thread_ts=parent.ts, text="Looking")
    page.locator(f'[data-open-thread="{parent.ts}"]').click()
    thread = page.get_by_label("Thread", exact=True).locator("article")
    expect(thread).to_have_count(2)
    bot.client.chat_update(channel="C0OPS", ts=first["ts"], text="Healthy")
    expect(thread.nth(1)).to_contain_text("Healthy")
    expect(thread.nth(1)).to_contain_text("(edited)")
    page.reload()
    expect(thread.nth(1)).to_contain_text("Healthy")
    page.get_by_label("Reply in the thread").fill("thanks")
    page.keyboard.press("Enter")
    expect(thread).to_have_count(3)
    assert slack.driver.messages("ops", parent.ts)[2].text == "thanks"


def test_button_asks_first_and_then_tells_the_app_who_pressed(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    bot.on_action("approve")
    bot.connect()
    words = {name: {"type": "plain_text", "text": name} for name in ("title", "text", "confirm", "deny")}
    row = {"type": "actions", "elements": [button("approve", "Approve", style="primary", confirm=words)]}
    bot.client.chat_postMessage(channel="C0OPS", text="Restart?", blocks=[row])
    page = open_page()
    page.locator('[data-person-name="bo"]').click()
    approve = page.locator('#messages [data-action-id="approve"]')
    approve.click()
    page.get_by_role("alertdialog").get_by_text("deny").click()
    assert bot.heard == []
    approve.click()
    page.get_by_role("alertdialog").locator('[data-confirm="yes"]').click()
    slack.driver.wait_for(lambda _: bot.heard)
    assert bot.heard[0]["user"]["id"] == "U0BO"


def test_button_that_is_not_acknowledged_gets_a_warning(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    bot.connect()
    bot.client.chat_postMessage(
        channel="C0OPS", text="x", blocks=[{"type": "actions", "elements": [button("nobody", "Press")]}]
    )
    page = open_page()
    page.locator('#messages [data-action-id="nobody"]').click()
    expect(page.locator("#messages .trouble")).to_contain_text("This app is not responding")


def test_modal_shows_errors_and_keeps_what_was_typed(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    def judge(ack: Ack, body: Json) -> None:
        typed = body["view"]["state"]["values"]["reason"]["text"]["value"]
        ack() if len(typed) > 5 else ack(response_action="errors", errors={"reason": "Say more."})

    def open_modal(ack: Ack, body: Json) -> None:
        ack()
        bot.client.views_open(trigger_id=body["trigger_id"], view=MODAL)

    bot.on_action("decline", open_modal)
    bot.on_submit("decline", judge)
    bot.connect()
    bot.client.chat_postMessage(
        channel="C0OPS", text="x", blocks=[{"type": "actions", "elements": [button("decline", "Decline")]}]
    )
    page = open_page()
    page.locator('#messages [data-action-id="decline"]').click()
    dialog = page.get_by_role("dialog", name="Decline the plan")
    field = dialog.get_by_label("Why?")
    expect(field).to_be_focused()
    dialog.get_by_role("button", name="Decline").click()
    expect(dialog.get_by_role("alert")).to_have_text("Please complete this required field.")
    field.fill("no")
    field.press("Enter")
    expect(dialog.locator('[data-error-for="reason"]')).to_have_text("Say more.")
    expect(field).to_have_value("no")
    field.fill("not during the release")
    dialog.get_by_role("button", name="Decline").click()
    expect(dialog).to_have_count(0)
    assert len(bot.heard) == 3


def test_hostile_text_stays_text_everywhere(slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]) -> None:
    slack.driver.change_person("gus", real_name="<img src=x onerror=alert(1)>", name="<b>gus</b>")
    slack.driver.set_hints(["`<img src=x onerror=alert(1)>`", "<script>alert(1)</script>"])
    page = open_page()
    for text in HOSTILE:
        slack.driver.person("bo").say(text, "ops")
        plain = {"type": "plain_text", "text": text[:75]}
        blocks: list[Json] = [
            {"type": "section", "text": {"type": "mrkdwn", "text": text}, "fields": [plain]},
            {"type": "header", "text": plain},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": text}]},
            {"type": "actions", "elements": [{**button("x", "x"), "text": plain, "accessibility_label": text[:75]}]},
            {"type": "rich_text", "elements": [
                {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]},
                {"type": "rich_text_section", "elements": [{"type": "text", "text": text, "style": {"bold": True}}]},
            ]},
        ]  # fmt: skip
        bot.client.chat_postMessage(channel="C0OPS", text=text, blocks=blocks)
        bot.client.chat_postMessage(channel="C0OPS", text=text)
    slack.driver.person("bo").say("the end", "ops")
    expect(page.locator("#messages article").last).to_contain_text("the end")
    foreign = page.locator("#messages").locator("img, script, svg, iframe, object, b, i, u, [onerror], [onmouseover]")
    assert foreign.count() == 0
    assert page.locator("img, script:not([src]), [onerror], [onload]").count() == 0
    links = page.locator("#messages a").evaluate_all("all => all.map((one) => one.protocol)")
    assert set(links) <= {"http:", "https:", "mailto:"}
    assert page.locator("#messages").get_by_text("<script>alert(1)</script>").count() > 0


def test_file_opens_as_plain_text_and_never_as_a_page(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    content = "<html><script>document.title='owned'</script>"
    bot.client.files_upload_v2(channel="C0OPS", filename='a"<b>.html', content=content, title="<i>Evidence</i>")
    page = open_page()
    card = page.locator("#messages [data-file]")
    expect(card).to_contain_text("<i>Evidence</i>")
    expect(card.locator(".preview")).to_have_text(content)
    with page.context.expect_page() as opened:
        card.locator("a").first.click()
    expect(opened.value.locator("body")).to_contain_text(content)
    assert opened.value.title() != "owned"
    link = urlsplit(slack.driver.messages("ops")[0].files[0]["permalink"])
    answer = page.request.get(link.geturl() + "?download=1")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == 'attachment; filename="a__b_.html"'


def test_a_long_plan_is_seen_whole_without_scrolling_in_it(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    """An inner scroller shows no bar on many screens: what is below would be approved unseen."""
    lines = {"type": "text", "text": "\n".join(f"{no}. sudo -n systemctl restart travis-worker" for no in range(60))}
    block = {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [lines]}]}
    bot.client.chat_postMessage(channel="C0OPS", text="a plan", blocks=[block])
    code = open_page().locator("#messages pre.code")
    expect(code).to_contain_text("59. sudo")
    assert code.evaluate("it => it.scrollHeight <= it.clientHeight")


def test_picture_is_shown_in_place(slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]) -> None:
    alt = 'Sizes" onerror="alert(1)'
    bot.client.files_upload_v2(channel="C0OPS", filename="sizes.png", content=PNG, title="Sizes", alt_txt=alt)
    page = open_page()
    image = page.locator("#messages [data-file] .picture img")
    expect(image).to_have_attribute("alt", alt)
    expect(image).to_have_js_property("naturalWidth", 2)
    answer = page.request.get(slack.base_url + str(image.get_attribute("src")))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_what_is_only_called_a_picture_stays_text(slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]) -> None:
    content = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    bot.client.files_upload_v2(channel="C0OPS", filename="sizes.png", content=content)
    page = open_page()
    expect(page.locator("#messages [data-file] .preview")).to_have_text(content)
    assert page.locator("#messages img").count() == 0
    link = slack.driver.messages("ops")[0].files[0]["permalink"]
    assert page.request.get(link).headers["content-type"] == "text/plain; charset=utf-8"


def test_guest_sees_only_their_channels_and_mentions_are_counted(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    page = open_page()
    bot.client.chat_postMessage(channel="C0INCIDENT", text="Approval needed: 1 of <!subteam^S0ONCALL>")
    expect(page.locator('[data-channel="C0INCIDENT"]')).to_have_class("row unread")
    expect(page.locator('[data-person-name="bo"] .badge')).to_have_text("1")
    expect(page.locator('[data-person-name="cy"] .badge')).to_have_count(0)
    page.locator('[data-person-name="sia"]').click()
    assert page.locator("#channels button").all_inner_texts() == ["#\ngeneral"]


def test_home_and_permalinks_open_in_place(slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]) -> None:
    bot.on_action("refresh")
    bot.on_event("app_home_opened")
    bot.connect()
    home = {"type": "home", "blocks": [{"type": "actions", "elements": [button("refresh", "Refresh")]}]}
    bot.client.views_publish(user_id="U0ANA", view=home)
    page = open_page()
    page.locator("#directs button").click()
    page.get_by_role("tab", name="Home").click()
    page.locator('#home [data-action-id="refresh"]').click()
    slack.driver.wait_for(lambda _: [one for one in bot.heard if one["type"] == "block_actions"])
    assert "app_home_opened" in [one.get("event", {}).get("type") for one in bot.heard]
    target = bot.client.chat_postMessage(channel="C0OPS", text="The report")
    permalink = bot.client.chat_getPermalink(channel="C0OPS", message_ts=target["ts"])["permalink"]
    bot.client.chat_postMessage(channel="C0INCIDENT", text=f"<{permalink}|see there>")
    page.locator('[data-channel="C0INCIDENT"]').click()
    page.get_by_text("see there").click()
    expect(page.locator(f'[data-ts="{target["ts"]}"].highlighted')).to_be_visible()


def test_what_one_says_is_seen_after_reading_old_messages(
    slack: LocalSlack, bot: Bot, open_page: Callable[[], Page]
) -> None:
    for number in range(60):
        slack.driver.person("bo").say(f"message {number}", "ops")
    page = open_page()
    expect(page.get_by_text("message 59", exact=True)).to_be_in_viewport()
    page.get_by_text("message 0", exact=True).scroll_into_view_if_needed()
    slack.driver.person("bo").say("somebody else's", "ops")
    expect(page.get_by_text("somebody else's")).not_to_be_in_viewport()
    page.get_by_label("Message", exact=True).fill("my own")
    page.keyboard.press("Enter")
    expect(page.locator("#messages").get_by_text("my own")).to_be_in_viewport()


def test_phone_has_one_column_and_the_list_behind_a_button(chromium: Browser, slack: LocalSlack, bot: Bot) -> None:
    parent = bot.client.chat_postMessage(channel="C0OPS", text="x" * 400)
    bot.client.chat_postMessage(channel="C0OPS", thread_ts=parent["ts"], text="y" * 400)
    context = chromium.new_context(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(slack.page_url)
    expect(page.locator('#app[data-ready="true"]')).to_be_visible()
    expect(page.locator("#sidebar")).not_to_be_visible()
    page.get_by_role("button", name="Channels and people").click()
    page.locator('[data-person-name="bo"]').click()
    expect(page.locator("#sidebar")).not_to_be_visible()
    page.locator("[data-open-thread]").click()
    expect(page.locator("#thread")).to_be_visible()
    expect(page.locator("#composer")).not_to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_page_says_when_the_app_or_the_server_is_gone(slack: LocalSlack, bot: Bot, chromium: Browser) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(slack.page_url)
    expect(page.locator("#connection")).to_have_text("opsbot is not connected")
    bot.connect()
    expect(page.locator("#connection")).to_have_text("opsbot is connected")
    slack.stop()
    expect(page.locator("#connection")).to_have_text("The local Slack is not running")
    slack.start()
    expect(page.locator("#connection")).not_to_have_text("The local Slack is not running")
    context.close()


# Who is refused


def ask(slack: LocalSlack, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(slack.host, slack.port, timeout=5)
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": f"{slack.host}:{slack.port}"} | headers).items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(b"{}" if method == "POST" else None)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


PATHS = ("/", "/_page/state", "/_page/events", "/files/F1", "/archives/C0OPS/p1700000000000100")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_shown_without_the_secret(slack: LocalSlack, path: str) -> None:
    assert ask(slack, path).status == 403
    assert ask(slack, f"{path}?token=wrong").status == 403
    cookie = f"local_slack_{slack.port}=wrong"
    assert ask(slack, path, Cookie=cookie).status == 403


@pytest.mark.parametrize("path", [*PATHS, "/page/app.js", "/api/auth.test", "/link/"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_foreign_host_names_are_refused_everywhere(slack: LocalSlack, path: str, host: str) -> None:
    cookie = f"local_slack_{slack.port}={slack.secret}"
    assert ask(slack, path, Host=host, Cookie=cookie).status in (400, 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
@pytest.mark.parametrize("path", ["/_page/act/say", "/_admin/drop", "/api/chat.postMessage", "/_page/state"])
def test_foreign_pages_are_refused_even_with_the_cookie(slack: LocalSlack, path: str, origin: str) -> None:
    method = "GET" if path == "/_page/state" else "POST"
    headers = {"Cookie": f"local_slack_{slack.port}={slack.secret}", "Content-Length": "2", "Origin": origin}
    assert ask(slack, path, method, **headers).status == 403


def test_acting_needs_an_origin_and_the_administrators_door_its_secret(slack: LocalSlack) -> None:
    cookie = {"Cookie": f"local_slack_{slack.port}={slack.secret}", "Content-Length": "2"}
    assert ask(slack, "/_page/act/say", "POST", **cookie).status == 403
    assert ask(slack, "/_admin/connections", "POST", **cookie).status == 403
    right = {"Authorization": f"Bearer {slack.secret}", "Content-Length": "2"}
    assert ask(slack, "/_admin/connections", "POST", **right).status == 200
    origin = {"Origin": f"http://{slack.host}:{slack.port}"}
    assert ask(slack, "/_page/act/drop", "POST", **cookie, **origin).status == 404


def test_start_up_address_turns_the_secret_into_a_cookie(slack: LocalSlack) -> None:
    response = ask(slack, f"/?token={slack.secret}")
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    page = ask(slack, "/", Cookie=cookie.split(";")[0])
    assert page.status == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")


def test_the_menu_of_the_surroundings_puts_its_words_into_the_composer(
    slack: LocalSlack, open_page: Callable[[], Page]
) -> None:
    slack.add_command("/break", str.upper, [{"title": "lamps <b>", "items": ["/break the lamp"]}])
    page = open_page()
    expect(page.locator("#breaking")).to_be_visible()
    page.locator("#menu-of-faults").select_option("/break the lamp")
    expect(page.get_by_label("Message", exact=True)).to_have_value("/break the lamp")
    page.keyboard.press("Enter")
    expect(page.locator("#messages article").last).to_contain_text("THE LAMP")
