// The page: reads the workspace once, follows its changes, and does what the chosen person does.

import { readValues, showBlocks } from "./blocks.js";
import { make, showList } from "./dom.js";
import { markup } from "./markup.js";
import { showMessage } from "./messages.js";
import { confirmFirst, showModal } from "./modals.js";
import * as known from "./store.js";
import { apply, replaceAll, store } from "./store.js";

const $ = (id) => document.getElementById(id);

// Asking the server

async function act(name, body) {
  const response = await fetch(`/_page/act/${name}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ person: store.me, ...body }),
  });
  const answer = await response.json().catch(() => ({ error: `The local Slack answered ${response.status}.` }));
  if (!response.ok) {
    toast(answer.error ?? "That did not work.");
    throw new Error(answer.error);
  }
  return answer.result;
}

let toastEnds = 0;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => ($("toast").hidden = true), 6000);
}

// Following changes

let early = [];
let ready = false;

async function read() {
  ready = false;
  const response = await fetch("/_page/state");
  if (!response.ok) throw new Error(await response.text());
  replaceAll(await response.json());
  ready = true;
  const waiting = early;
  early = [];
  waiting.forEach(receive);
  readPlace();
  draw();
}

function receive(event) {
  if (!ready) return early.push(event);
  if (apply(event)) return read().catch(lost);
  return drawSoon();
}

function follow() {
  const events = new EventSource("/_page/events");
  events.addEventListener("open", () => read().catch(lost));
  events.addEventListener("message", (message) => receive(JSON.parse(message.data)));
  events.addEventListener("error", lost);
}

function lost() {
  store.connections = -1;
  drawConnection();
}

let drawing = false;
function drawSoon() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    draw();
  }, 30);
}

// Who and where, kept in the address so that a reload stays there

function readPlace() {
  const place = new URLSearchParams(location.hash.slice(1));
  const person = place.get("person") ?? store.me;
  store.me = store.people.has(person) ? person : known.switchable()[0].id;
  const mine = known.channelsOf(store.me);
  store.channel = (mine.find((one) => one.id === (place.get("channel") ?? store.channel)) ?? mine[0])?.id ?? null;
  store.thread = place.get("thread");
  store.tab = place.get("tab") === "home" ? "home" : "messages";
  const message = place.get("message");
  if (message) showPlaceOf(message);
}

function showPlaceOf(ts) {
  const found = store.messages.get(store.channel)?.get(ts);
  if (found?.thread_ts && found.thread_ts !== ts) store.thread = found.thread_ts;
  store.highlighted = ts;
}

function writePlace() {
  const place = new URLSearchParams({ person: store.me, channel: store.channel ?? "" });
  if (store.thread) place.set("thread", store.thread);
  if (store.tab === "home") place.set("tab", "home");
  history.replaceState(null, "", `#${place}`);
}

function go(changes) {
  $("toast").hidden = true;
  Object.assign(store, changes);
  if (changes.me && !known.channelsOf(store.me).some((one) => one.id === store.channel)) {
    Object.assign(store, { channel: known.channelsOf(store.me)[0]?.id ?? null, thread: null });
  }
  writePlace();
  draw();
}

function navigate(channel, ts, thread) {
  if (!known.channelsOf(store.me).some((one) => one.id === channel)) return toast("You are not in that channel.");
  Object.assign(store, { channel, thread: thread ?? null, tab: "messages" });
  showPlaceOf(ts);
  return go({});
}

const words = () => ({
  me: store.me,
  person: (id) => (known.isBot(id) ? store.bot.name : store.people.get(id)?.name),
  channel: (id) => {
    const found = store.channels.get(id);
    return found && (found.kind === "public" || known.mine(found)) ? found.name : undefined;
  },
  group: (id) => store.groups.get(id)?.handle,
  everybody: () => [...store.people.values()].filter((one) => !one.deactivated).map((one) => [one.id, one.real_name]),
  everyChannel: () => known.channelsOf(store.me).filter((one) => one.name).map((one) => [one.id, `#${one.name}`]),
  navigate,
});

// Pressing

async function press(action, body, element, button) {
  if (element.confirm && !(await confirmFirst($("layer"), element.confirm, words()))) return;
  if (element.type === "button" && element.url) window.open(element.url, "_blank", "noopener,noreferrer");
  button?.setAttribute("aria-busy", "true");
  try {
    await act(action, { action_id: element.action_id, ...body });
  } catch {
    // the toast said why
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

const pressIn = {
  message: (message) => (block, element, value, button) => {
    known.forgetTrouble(message.ts);
    const values = readValues(button.closest("[data-ts]"));
    return press("click", { channel: store.channel, ts: message.ts, block_id: block.block_id, value, values }, element, button);
  },
  view: (root) => (block, element, value, button) =>
    press("click_in_view", { block_id: block.block_id, value, values: readValues(root()) }, element, button),
  home: (block, element, value, button) => press("click_in_home", { block_id: block.block_id, value }, element, button),
};

// Drawing

function draw() {
  if (!store.me) return;
  known.markRead();
  drawSidebar();
  drawHints();
  drawConnection();
  drawChannel();
  drawThread();
  drawViews();
  $("app").dataset.ready = "true";
  $("app").dataset.person = store.me;
  $("app").dataset.channel = store.channel ?? "";
}

function drawSidebar() {
  $("workspace-name").textContent = store.workspace.name;
  const mine = known.channelsOf(store.me);
  showList($("channels"), mine.filter((one) => one.kind !== "im").map(channelItem), channelRow);
  showList($("directs"), mine.filter((one) => one.kind === "im").map(channelItem), channelRow);
  showList($("people"), known.switchable().map(personItem), personRow);
  $("breaking").hidden = store.menu.length === 0;
  showList($("menu-of-faults"), [{ key: "", look: "", title: "", items: [] }, ...store.menu.map(menuItem)], menuGroup);
}

const menuItem = (group) => ({ key: group.title, look: JSON.stringify(group), ...group });

function menuGroup({ title, items }) {
  if (!title) return make("option", { value: "" }, "Break something …");
  return make("optgroup", { label: title }, ...items.map((item) => make("option", { value: item }, item)));
}

function chooseFault({ target }) {
  setSidebar(false);
  fillComposer(target.value);
  target.value = "";
}

function channelItem(channel) {
  const unread = known.unreadIn(store.me, channel.id);
  const current = channel.id === store.channel;
  const label = known.channelLabel(channel);
  return { key: channel.id, look: JSON.stringify([label, unread, current, channel.kind, channel.shared]), channel, unread, current, label };
}

function channelRow({ channel, unread, current, label }) {
  const mark = { private: "🔒", im: "" }[channel.kind] ?? "#";
  const face = channel.kind === "im" ? avatar(store.bot.user, "small") : make("span", { class: "mark", "aria-hidden": true }, mark);
  const button = make(
    "button",
    {
      type: "button", class: unread.count ? "row unread" : "row", "aria-current": current ? "page" : null,
      data: { channel: channel.id, channelName: channel.name }, onclick: () => leaveSidebar({ channel: channel.id, thread: null, tab: "messages" }),
    },
    face, make("span", { class: "row-name" }, label),
    channel.shared ? make("span", { class: "row-note", title: "Shared with another company" }, "shared") : null,
    unread.mentioned ? make("span", { class: "badge", "aria-label": `${unread.mentioned} mentions` }, String(unread.mentioned)) : null,
  );
  return make("li", {}, button);
}

function personItem(person) {
  const current = person.id === store.me;
  const waiting = current ? 0 : known.mentionsFor(person.id);
  return { key: person.id, look: JSON.stringify([person, current, waiting]), person, current, waiting };
}

function personRow({ person, current, waiting }) {
  const button = make(
    "button",
    { type: "button", class: "row person", "aria-pressed": String(current), data: { person: person.id, personName: person.name }, onclick: () => leaveSidebar({ me: person.id }) },
    avatar(person.id, "small"),
    make("span", { class: "row-name" }, make("span", {}, person.real_name), make("small", {}, person.about)),
    waiting ? make("span", { class: "badge", "aria-label": `${waiting} mentions` }, String(waiting)) : null,
  );
  return make("li", {}, button);
}

function leaveSidebar(changes) {
  setSidebar(false);
  go(changes);
}

function setSidebar(open) {
  $("sidebar").classList.toggle("open", open);
  $("scrim").hidden = !open;
  $("menu").setAttribute("aria-expanded", String(open));
}

function avatar(user, size = "") {
  const name = known.nameOf(user);
  const number = ([...store.people.keys()].indexOf(user) + 8) % 8;
  const look = known.isBot(user) ? "avatar bot" : `avatar color-${number}`;
  const letters = known.isBot(user) ? "⚕" : name.split(/\s+/).map((one) => one[0]).slice(0, 2).join("");
  return make("span", { class: `${look} ${size}`, "aria-hidden": true }, letters);
}

function drawHints() {
  const box = $("hints");
  box.hidden = store.hints.length === 0 || box.dataset.closed === JSON.stringify(store.hints);
  const close = () => {
    box.dataset.closed = JSON.stringify(store.hints);
    box.hidden = true;
  };
  showList(box, [{ key: "hints", look: JSON.stringify(store.hints) }], () => make(
    "div", { class: "hints-inner" },
    make("ol", {}, ...store.hints.map(hint)),
    make("button", { type: "button", class: "icon-button", "aria-label": "Hide what to try", onclick: close }, "✕"),
  ));
}

// What a hint puts into the composer is between backticks; a hint that is a command or a mention is so as a whole.
function hint(text) {
  const whole = /^[/@]/.test(text);
  const parts = whole ? ["", text, ""] : text.split("`");
  return make("li", {}, ...parts.map((part, index) => (index % 2 ? hintButton(part) : markup(part, words()))));
}

function hintButton(text) {
  return make("button", { type: "button", class: "hint-fill", data: { hint: text }, onclick: () => fillComposer(text) }, text);
}

function fillComposer(text) {
  const inThread = store.thread && !text.startsWith("/");
  const field = $(inThread ? "thread-composer" : "composer").querySelector("textarea");
  field.value = text;
  field.focus();
}

function drawConnection() {
  const [look, text] = store.connections > 0 ? ["on", `${store.bot.name} is connected`]
    : store.connections === 0 ? ["off", `${store.bot.name} is not connected`] : ["off", "The local Slack is not running"];
  $("connection").className = `connection ${look}`;
  $("connection").textContent = text;
}

function drawChannel() {
  const channel = store.channels.get(store.channel);
  $("channel-name").textContent = channel ? `${{ private: "🔒 ", im: "" }[channel.kind] ?? "#"}${known.channelLabel(channel)}` : "No channel";
  $("channel-purpose").textContent = channel?.purpose || (channel?.kind === "im" ? "App" : "");
  $("composer").querySelector("textarea").placeholder = `Message ${$("channel-name").textContent} as ${known.nameOf(store.me)}, or / for a command`;
  $("thread-composer").querySelector("textarea").placeholder = `Reply as ${known.nameOf(store.me)}`;
  $("tabs").hidden = channel?.kind !== "im";
  const home = channel?.kind === "im" && store.tab === "home";
  $("tab-messages").setAttribute("aria-selected", String(!home));
  $("tab-home").setAttribute("aria-selected", String(home));
  for (const one of ["messages", "composer"]) $(one).hidden = home;
  $("home").hidden = !home;
  if (home) drawHome();
  else if (channel) drawMessages($("messages"), known.shownIn(store.channel), false);
}

function drawHome() {
  const view = store.homes.get(store.me);
  showList($("home"), [{ key: store.me, look: view?.hash ?? "none" }], () => {
    const box = make("div", { data: { view: view?.id ?? "" } });
    if (view) box.append(showBlocks(view.blocks, { known: words(), press: pressIn.home, values: view.state.values, view }));
    else box.append(make("p", { class: "empty" }, `${store.bot.name} shows nothing here.`));
    return box;
  });
}

function drawMessages(container, messages, inThread) {
  const place = `${store.me} ${store.channel} ${inThread ? store.thread : ""}`;
  if (container.dataset.place !== place) Object.assign(container.dataset, { place, atEnd: "true" });
  const items = messages.map((message, index) => messageItem(message, messages[index - 1], inThread));
  showList(container, items.length ? items : [{ key: "empty", look: store.channel, empty: true }], (item) =>
    item.empty ? make("p", { class: "empty" }, "Nothing has been said here yet.") : showMessage(item, { words: words(), avatar, press: pressIn.message, open: openThread, drop: dropWhisper, grown: stickToEnd }));
  const wanted = store.highlighted && container.querySelector(`[data-ts="${CSS.escape(store.highlighted)}"]`);
  if (wanted) {
    wanted.scrollIntoView({ block: "center" });
    wanted.classList.add("highlighted");
    store.highlighted = null;
    container.dataset.atEnd = "false";
  }
  stickToEnd();
}

// Whoever reads the newest message goes on reading the newest message.
function stickToEnd() {
  for (const one of document.querySelectorAll('.messages[data-at-end="true"]')) one.scrollTop = one.scrollHeight;
}

function messageItem(message, previous, inThread) {
  const day = new Date(Number(message.ts) * 1000).toDateString();
  const newDay = !previous || new Date(Number(previous.ts) * 1000).toDateString() !== day;
  const follows = !newDay && previous.user === message.user && !message.is_ephemeral && !previous.is_ephemeral && !message.notice && !previous.notice
    && Number(message.ts) - Number(previous.ts) < 300;
  const trouble = known.troubleOf(message);
  const newest = message.ts === store.thread;
  const key = `${store.me} ${message.ts}`;
  const look = JSON.stringify([message, follows, newDay, inThread, trouble?.ts, newest]);
  return { key, look, message, follows, newDay, inThread, trouble };
}

function openThread(ts) {
  go({ thread: ts });
  if (matchMedia("(hover: hover)").matches) $("thread-composer").querySelector("textarea").focus({ preventScroll: true });
}

function dropWhisper(ts) {
  store.whispers = store.whispers.filter((one) => one.ts !== ts);
  draw();
}

function drawThread() {
  const parent = store.thread && store.messages.get(store.channel)?.get(store.thread);
  $("thread").hidden = !parent;
  $("app").classList.toggle("with-thread", Boolean(parent));
  if (!parent) return;
  $("thread").dataset.thread = store.thread;
  $("thread-channel").textContent = $("channel-name").textContent;
  drawMessages($("thread-messages"), known.shownIn(store.channel, store.thread), true);
}

function drawViews() {
  const stack = store.views.get(store.me) ?? [];
  showModal($("layer"), stack, store.viewErrors, {
    words: words(),
    press: pressIn.view,
    submit: (values) => act("submit", { values }).catch(() => null),
    close: () => act("close", {}).catch(() => null),
  });
}

// Typing

function buildComposer(form, place) {
  const field = make("textarea", { rows: 1, "aria-label": place.label, autocomplete: "off", enterkeyhint: "send" });
  const send = make("button", { type: "submit", class: "send", "aria-label": "Send" }, "➤");
  form.append(field, send);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = field.value.trim();
    if (!text) return;
    field.value = "";
    place.list.dataset.atEnd = "true";  // whoever says something wants to see it
    try {
      await act("type", { text, channel: store.channel, thread_ts: place.thread() });
    } catch {
      field.value = text;
    }
  });
}

function wire() {
  buildComposer($("composer"), { label: "Message", list: $("messages"), thread: () => null });
  buildComposer($("thread-composer"), { label: "Reply in the thread", list: $("thread-messages"), thread: () => store.thread });
  for (const one of [$("messages"), $("thread-messages")]) {
    one.addEventListener("scroll", () => (one.dataset.atEnd = String(one.scrollHeight - one.scrollTop - one.clientHeight < 60)));
  }
  $("menu").addEventListener("click", () => setSidebar(!$("sidebar").classList.contains("open")));
  $("scrim").addEventListener("click", () => setSidebar(false));
  $("thread-close").addEventListener("click", () => go({ thread: null }));
  $("tab-messages").addEventListener("click", () => go({ tab: "messages" }));
  $("tab-home").addEventListener("click", () => {
    act("open_home", { tab: "home" }).catch(() => null);
    go({ tab: "home" });
  });
  $("menu-of-faults").addEventListener("change", chooseFault);
  window.addEventListener("hashchange", () => {
    readPlace();
    draw();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || $("layer").hasChildNodes()) return;
    if ($("sidebar").classList.contains("open")) setSidebar(false);
    else if (store.thread) go({ thread: null });
  });
}

wire();
follow();
