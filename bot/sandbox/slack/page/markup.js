// Slack's own markup ("mrkdwn") and rich text as elements.

import { link, make } from "./dom.js";

const EMOJI = {
  "+1": "👍", "-1": "👎", alarm_clock: "⏰", arrow_right: "➡️", arrows_counterclockwise: "🔄", ballot_box_with_check: "☑️",
  bell: "🔔", black_circle: "⚫", bulb: "💡", bust_in_silhouette: "👤", calendar: "📅", clipboard: "📋", computer: "💻",
  construction: "🚧", eyes: "👀", exclamation: "❗", fire: "🔥", floppy_disk: "💾", gear: "⚙️", green_heart: "💚",
  heavy_check_mark: "✔️", hourglass: "⌛", hourglass_flowing_sand: "⏳", information_source: "ℹ️", key: "🔑",
  large_blue_circle: "🔵", large_green_circle: "🟢", large_orange_circle: "🟠", large_yellow_circle: "🟡",
  large_red_circle: "🔴", link: "🔗", lock: "🔒", mag: "🔍", memo: "📝", no_entry: "⛔", no_entry_sign: "🚫", ok: "🆗",
  octagonal_sign: "🛑", package: "📦", page_facing_up: "📄", pencil2: "✏️", question: "❓", raised_hand: "✋", red_circle: "🔴", recycle: "♻️",
  repeat: "🔁", rocket: "🚀", rotating_light: "🚨", shield: "🛡️", sos: "🆘", stethoscope: "🩺", stop_sign: "🛑",
  stopwatch: "⏱️", tada: "🎉", thumbsup: "👍", timer_clock: "⏲️", unlock: "🔓", warning: "⚠️", wave: "👋",
  white_check_mark: "✅", white_circle: "⚪", wrench: "🔧", x: "❌", zap: "⚡", zzz: "💤",
};

export const emoji = (name) => EMOJI[name] ?? `:${name}:`;
export const unescape = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

// `known` has person(id), channel(id), group(id) -> name or undefined, and navigate(channel, ts, thread).
export function markup(text, known, verbatim = false) {
  const all = document.createDocumentFragment();
  String(text).split(/```\n?([\s\S]*?)\n?```/g).forEach((part, index) => {
    if (index % 2) all.append(make("pre", { class: "code" }, unescape(part)));
    else if (part) all.append(paragraphs(part, known, verbatim));
  });
  return all;
}

function paragraphs(text, known, verbatim) {
  const all = document.createDocumentFragment();
  let quote = null;
  text.replace(/^\n|\n$/g, "").split("\n").forEach((line, index) => {
    const quoted = /^(?:&gt;|>) ?(.*)$/.exec(line);
    if (quoted) {
      quote ??= all.appendChild(make("blockquote"));
      if (quote.hasChildNodes()) quote.append(make("br"));
      quote.append(inline(quoted[1], known, verbatim));
      return;
    }
    if (index && !quote) all.append(make("br"));
    quote = null;
    all.append(inline(line, known, verbatim));
  });
  return all;
}

const INLINE = new RegExp(
  [
    "`([^`\\n]+)`",
    "<([^<>\\n]+)>",
    "(?<![\\w*])\\*([^\\s*](?:[^*\\n]*[^\\s*])?)\\*(?![\\w*])",
    "(?<![\\w_])_([^\\s_](?:[^_\\n]*[^\\s_])?)_(?![\\w_])",
    "(?<![\\w~])~([^\\s~](?:[^~\\n]*[^\\s~])?)~(?![\\w~])",
    "(?<!\\w):([a-z0-9_+-]+):(?!\\w)",
    "(https?://[^\\s<>]+[^\\s<>.,;:!?)\\]'\"])",
  ].join("|"),
  "g",
);

function inline(text, known, verbatim) {
  const all = document.createDocumentFragment();
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, code, form, bold, italic, struck, name, address] = found;
    all.append(unescape(text.slice(at, found.index)));
    at = found.index + whole.length;
    if (code !== undefined) all.append(make("code", {}, unescape(code)));
    else if (form !== undefined) all.append(special(form, known));
    else if (bold !== undefined) all.append(make("strong", {}, inline(bold, known, verbatim)));
    else if (italic !== undefined) all.append(make("em", {}, inline(italic, known, verbatim)));
    else if (struck !== undefined) all.append(make("s", {}, inline(struck, known, verbatim)));
    else if (name !== undefined) all.append(emoji(name));
    else all.append(verbatim ? unescape(address) : link(unescape(address), unescape(address), known.navigate));
  }
  all.append(unescape(text.slice(at)));
  return all;
}

function special(form, known) {
  const bar = form.indexOf("|");
  const target = bar < 0 ? form : form.slice(0, bar);
  const label = bar < 0 ? null : unescape(form.slice(bar + 1));
  if (target.startsWith("@")) return mention("@", known.person(target.slice(1)) ?? label ?? target.slice(1), known.me === target.slice(1));
  if (target.startsWith("#")) return mention("#", known.channel(target.slice(1)) ?? (label || "private channel"));
  if (target.startsWith("!subteam^")) return mention("@", known.group(target.slice(9)) ?? label?.replace(/^@/, "") ?? "group");
  if (target.startsWith("!date^")) return date(target.slice(6).split("^"), label);
  if (target.startsWith("!")) return mention("@", target.slice(1), true);
  return link(unescape(target), label ?? unescape(target).replace(/^mailto:/, ""), known.navigate);
}

const mention = (mark, name, mine = false) => make("span", { class: mine ? "mention mine" : "mention" }, `${mark}${name}`);

function date([seconds, format, address], fallback) {
  const when = new Date(Number(seconds) * 1000);
  if (Number.isNaN(when.getTime())) return document.createTextNode(fallback ?? "");
  const text = (format ?? "{date_short_pretty} {time}").replace(/\{(\w+)\}/g, (whole, name) => DATES[name]?.(when) ?? whole);
  const shown = make("time", { datetime: when.toISOString(), title: when.toString() }, text);
  return address ? link(unescape(address), text) : shown;
}

const shape = (options) => (when) => when.toLocaleString("en-GB", options);
const pretty = (plain) => (when) => nearDay(when) ?? plain(when);
const short = shape({ day: "numeric", month: "short", year: "numeric" });
const long = shape({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
const full = shape({ day: "numeric", month: "long", year: "numeric" });

const DATES = {
  date_num: shape({ year: "numeric", month: "2-digit", day: "2-digit" }),
  date: full, date_short: short, date_long: long,
  date_pretty: pretty(full), date_short_pretty: pretty(short), date_long_pretty: pretty(long),
  time: shape({ hour: "2-digit", minute: "2-digit" }),
  time_secs: shape({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
  ago,
};

function nearDay(when) {
  const days = Math.round((new Date(when).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 86_400_000);
  return { "-1": "yesterday", 0: "today", 1: "tomorrow" }[days];
}

function ago(when) {
  const seconds = Math.round((when - Date.now()) / 1000);
  const [size, unit] = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(([one]) => Math.abs(seconds) >= one) ?? [1, "second"];
  return new Intl.RelativeTimeFormat("en").format(Math.round(seconds / size), unit);
}

// Rich text

export function richText(elements, known) {
  const all = document.createDocumentFragment();
  for (const one of elements) {
    if (one.type === "rich_text_preformatted") all.append(make("pre", { class: "code" }, pieces(one.elements, known)));
    else if (one.type === "rich_text_quote") all.append(make("blockquote", {}, pieces(one.elements, known)));
    else if (one.type === "rich_text_list") all.append(list(one, known));
    else all.append(make("div", { class: "rich-section" }, pieces(one.elements ?? [], known)));
  }
  return all;
}

function list(one, known) {
  const items = one.elements.map((item) => make("li", {}, pieces(item.elements, known)));
  return make(one.style === "ordered" ? "ol" : "ul", { class: `rich-list indent-${Math.min(one.indent ?? 0, 3)}` }, ...items);
}

function pieces(elements, known) {
  const all = document.createDocumentFragment();
  for (const one of elements) all.append(styled(piece(one, known), one.style ?? {}));
  return all;
}

function piece(one, known) {
  const kinds = {
    text: () => document.createTextNode(one.text),
    link: () => link(one.url, one.text || one.url, known.navigate),
    user: () => mention("@", known.person(one.user_id) ?? one.user_id, known.me === one.user_id),
    usergroup: () => mention("@", known.group(one.usergroup_id) ?? "group"),
    channel: () => mention("#", known.channel(one.channel_id) ?? "private channel"),
    broadcast: () => mention("@", one.range, true),
    emoji: () => document.createTextNode(emoji(one.name)),
    date: () => date([one.timestamp, one.format, one.url], one.fallback),
  };
  return kinds[one.type]?.() ?? document.createTextNode("");
}

function styled(node, style) {
  let outer = node;
  for (const [name, tag] of [["code", "code"], ["strike", "s"], ["italic", "em"], ["bold", "strong"]]) {
    if (style[name]) outer = make(tag, {}, outer);
  }
  return outer;
}
