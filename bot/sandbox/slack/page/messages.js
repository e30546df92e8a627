// One message as an element: who, when, what, its files, its thread.

import { showBlocks } from "./blocks.js";
import { make } from "./dom.js";
import { emoji, markup, unescape } from "./markup.js";
import { isBot, nameOf, store } from "./store.js";

const PREVIEW_LINES = 8;

export function showMessage({ message, follows, newDay, inThread, trouble }, page) {
  if (message.notice) return showNotice(message, newDay, page);
  const shown = make(
    "article",
    {
      class: ["message", follows ? "follows" : "", message.is_ephemeral ? "ephemeral" : "", message.subtype ?? ""].join(" "),
      "aria-label": `${nameOf(message.user)} at ${clock(message.ts)}`,
      data: { ts: message.ts, channel: message.channel ?? store.channel, user: message.user, threadTs: message.thread_ts, ephemeral: message.is_ephemeral },
    },
    newDay ? dayLine(message.ts) : null,
    message.is_ephemeral ? onlyYou(message, page) : null,
    page.avatar(message.user),
    make("div", { class: "body" }, ...body({ message, inThread, trouble }, page)),
    inThread || message.is_ephemeral ? null : make("button", { type: "button", class: "reply-button", "aria-label": "Reply in thread", title: "Reply in thread", onclick: () => page.open(message.thread_ts ?? message.ts) }, "💬"),
  );
  return shown;
}

function body({ message, inThread, trouble }, page) {
  return [
    make("header", {}, ...whoAndWhen(message)),
    message.subtype === "thread_broadcast" && !inThread ? make("p", { class: "note" }, "replied to a thread") : null,
    content(message, page),
    message.edited ? make("span", { class: "edited", title: clock(message.edited.ts, true) }, "(edited)") : null,
    ...(message.files ?? []).map((one) => file(one, page)),
    trouble ? make("p", { class: "trouble", role: "alert" }, `⚠️ ${trouble.text}`) : null,
    message.reactions?.length ? make("div", { class: "reactions" }, ...message.reactions.map((one) => make("span", {}, `${emoji(one.name)} ${one.count}`))) : null,
    message.reply_count && !inThread ? threadFooter(message, page) : null,
  ];
}

function whoAndWhen(message) {
  return [
    make("span", { class: "who" }, nameOf(message.user)),
    isBot(message.user) || message.bot_id ? make("span", { class: "app-tag" }, "APP") : null,
    make("time", { datetime: new Date(Number(message.ts) * 1000).toISOString() }, clock(message.ts)),
  ];
}

function content(message, page) {
  const where = { known: page.words, press: page.press(message), values: {}, view: null };
  const typed = !message.bot_id; // what a person typed: its blocks say the same without the markup
  if (message.blocks?.length && !typed) return make("div", { class: "blocks" }, showBlocks(message.blocks, where));
  if (!message.text) return null;
  const text = message.is_command ? make("code", { class: "typed-command" }, unescape(message.text)) : markup(message.text, page.words);
  return make("div", { class: "text" }, text);
}

function onlyYou(message, page) {
  return make(
    "p", { class: "only-you" }, "👁 Only visible to you ",
    make("button", { type: "button", class: "link-button", onclick: () => page.drop(message.ts) }, "Dismiss"),
  );
}

function showNotice(message, newDay, page) {
  return make(
    "article", { class: "message ephemeral notice", data: { ts: message.ts, notice: "true" } },
    newDay ? dayLine(message.ts) : null, onlyYou(message, page), make("span", { class: "avatar slackbot", "aria-hidden": true }, "✱"),
    make("div", { class: "body" }, make("header", {}, make("span", { class: "who" }, "Slackbot"), make("time", {}, clock(message.ts))), make("div", { class: "text", role: "alert" }, message.text)),
  );
}

function threadFooter(message, page) {
  const count = message.reply_count;
  return make(
    "button", { type: "button", class: "thread-footer", data: { openThread: message.ts }, onclick: () => page.open(message.ts) },
    ...message.reply_users.slice(0, 4).map((one) => page.avatar(one, "tiny")),
    make("span", { class: "thread-count" }, `${count} ${count === 1 ? "reply" : "replies"}`),
    make("span", { class: "thread-last" }, `Last at ${clock(message.latest_reply)}`),
  );
}

function file(one, page) {
  const path = `/files/${encodeURIComponent(one.id)}`;
  return make(
    "div", { class: "file", data: { file: one.id } },
    make(
      "div", { class: "file-head" },
      make("span", { class: "file-icon", "aria-hidden": true }, "📄"),
      make("a", { href: path, target: "_blank", rel: "noopener" }, make("span", { class: "file-title" }, one.title), make("small", {}, `${one.name} · ${size(one.size)}`)),
      make("a", { class: "icon-button", href: `${path}?download=1`, "aria-label": `Download ${one.name}` }, "⤓"),
    ),
    one.mimetype === "image/png" ? picture(one, path, page) : beginning(path, page),
  );
}

function picture(one, path, page) {
  const image = make("img", { src: path, alt: one.alt_txt || one.title, onload: page.grown });
  return make("a", { class: "picture", href: path, target: "_blank", rel: "noopener" }, image);
}

function beginning(path, page) {
  const preview = make("pre", { class: "code preview", hidden: true });
  fillPreview(preview, path).then(page.grown);
  return preview;
}

async function fillPreview(box, path) {
  const response = await fetch(path);
  if (!response.ok) return;
  const lines = (await response.text()).split("\n");
  box.textContent = lines.slice(0, PREVIEW_LINES).map((one) => one.slice(0, 200)).join("\n") + (lines.length > PREVIEW_LINES ? "\n…" : "");
  box.hidden = false;
}

const size = (bytes) => (bytes < 1000 ? `${bytes} B` : bytes < 1_000_000 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`);

function clock(ts, seconds = false) {
  const shape = { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}) };
  return new Date(Number(ts) * 1000).toLocaleTimeString("en-GB", shape);
}

const dayLine = (ts) => make("div", { class: "day", role: "separator" }, make("span", {}, day(ts)));

function day(ts) {
  const when = new Date(Number(ts) * 1000);
  if (when.toDateString() === new Date().toDateString()) return "Today";
  return when.toLocaleDateString("en-GB", { weekday: "long", day: "numeric", month: "long" });
}
