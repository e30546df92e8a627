// Block Kit as elements.
//
// `where` says whose blocks they are: { known, press(block, element, value, control), values, view }.
// `known` is what markup.js needs; `values` is Slack's state.values of a view.

import { make } from "./dom.js";
import { emoji, markup, richText, unescape } from "./markup.js";

export function showBlocks(blocks, where) {
  const all = document.createDocumentFragment();
  for (const block of blocks) {
    const show = BLOCKS[block.type];
    const shown = show ? show(block, where) : make("p", { class: "unknown" }, `(a block of type ${block.type})`);
    shown.dataset.blockId = block.block_id ?? "";
    shown.dataset.blockType = block.type;
    shown.classList.add("block", `block-${block.type}`);
    all.append(shown);
  }
  return all;
}

export function words(text, where) {
  if (text.type === "plain_text") {
    return document.createTextNode(unescape(text.text).replace(/(?<!\w):([a-z0-9_+-]+):(?!\w)/g, (_, name) => emoji(name)));
  }
  return markup(text.text, where.known, text.verbatim);
}

const BLOCKS = {
  header: (block, where) => make("h3", {}, words(block.text, where)),
  divider: () => make("hr"),
  section: (block, where) => {
    const content = make("div", { class: "section-content" });
    if (block.text) content.append(make("div", { class: "section-text" }, words(block.text, where)));
    if (block.fields) {
      content.append(make("div", { class: "fields" }, ...block.fields.map((one) => make("div", { class: "field" }, words(one, where)))));
    }
    return make("div", {}, content, block.accessory ? control(block, block.accessory, where) : null);
  },
  context: (block, where) => make("div", {}, ...block.elements.map((one) => make("span", {}, one.type === "image" ? `[${one.alt_text}]` : words(one, where)))),
  actions: (block, where) => make("div", { role: "group" }, ...block.elements.map((one) => control(block, one, where))),
  image: (block) => make("figure", {}, block.title ? make("figcaption", {}, block.title.text) : null, make("p", { class: "unknown" }, `[image: ${block.alt_text}]`)),
  rich_text: (block, where) => make("div", {}, richText(block.elements, where.known)),
  markdown: (block, where) => make("div", {}, markup(block.text.replace(/\*\*([^*\n]+)\*\*/g, "*$1*").replace(/^#{1,6} (.+)$/gm, "*$1*"), where.known)),
  alert: (block, where) => make("div", { role: "note" }, words(block.text, where)),
  table: (block, where) => {
    const rows = block.rows.map((row, index) => make("tr", {}, ...row.map((cell) => make(index ? "td" : "th", {}, cellContent(cell, where)))));
    return make("div", { class: "scroll-x" }, make("table", {}, ...rows));
  },
  input: (block, where) => {
    const id = `input-${where.view?.id ?? "message"}-${block.block_id}`;
    const single = !["radio_buttons", "checkboxes", "multi_static_select", "multi_users_select"].includes(block.element.type);
    const title = [words(block.label, where), block.optional ? make("span", { class: "optional" }, " (optional)") : null];
    return make(
      single ? "div" : "fieldset", {},
      make(single ? "label" : "legend", single ? { for: id } : {}, ...title),
      control(block, block.element, where, id),
      block.hint ? make("p", { class: "hint" }, words(block.hint, where)) : null,
      make("p", { class: "error", id: `${id}-error`, role: "alert", hidden: true }),
    );
  },
};

function cellContent(cell, where) {
  if (cell.type === "rich_text") return richText(cell.elements, where.known);
  return document.createTextNode(cell.text ?? cell.number ?? "");
}

// What can be pressed or filled in

function control(block, element, where, id = null) {
  const shown = (CONTROLS[element.type] ?? unknown)(block, element, where, id);
  shown.dataset.actionId = element.action_id ?? "";
  shown.dataset.blockId = block.block_id ?? "";
  shown.dataset.element = element.type;
  return shown;
}

const unknown = (block, element) => make("span", { class: "unknown" }, `(an element of type ${element.type})`);

// Choices inside an input wait for the submission; outside they are told at once.
const tellsAtOnce = (block) => block.type !== "input" || block.dispatch_action === true;
const before = (block, element, where) => where.values?.[block.block_id]?.[element.action_id] ?? {};

function told(block, element, where, read) {
  if (!tellsAtOnce(block)) return undefined;
  return (event) => where.press(block, element, read(event.currentTarget), event.currentTarget);
}

const CONTROLS = {
  image: (block, element) => make("span", { class: "unknown" }, `[${element.alt_text}]`),
  button: (block, element, where) => make(
    "button",
    {
      type: "button", class: `button ${element.style ?? ""}`, "aria-label": element.accessibility_label,
      onclick: (event) => where.press(block, element, null, event.currentTarget),
    },
    words(element.text, where),
  ),
  overflow: (block, element, where) => make(
    "details", { class: "overflow" },
    make("summary", { "aria-label": "More" }, "⋯"),
    ...options(element).map((one) => make("button", { type: "button", class: "button", data: { value: one.value }, onclick: (event) => where.press(block, element, one.value, event.currentTarget) }, one.text.text)),
  ),
  static_select: (block, element, where, id) => {
    const chosen = before(block, element, where).selected_option?.value ?? element.initial_option?.value;
    return dropDown(block, element, where, id, options(element).map((one) => [one.value, one.text.text]), chosen);
  },
  users_select: (block, element, where, id) =>
    dropDown(block, element, where, id, where.known.everybody(), before(block, element, where).selected_user ?? element.initial_user),
  channels_select: (block, element, where, id) =>
    dropDown(block, element, where, id, where.known.everyChannel(), before(block, element, where).selected_channel ?? element.initial_channel),
  conversations_select: (block, element, where, id) =>
    dropDown(block, element, where, id, where.known.everyChannel(), before(block, element, where).selected_conversation ?? element.initial_conversation),
  multi_static_select: (block, element, where, id) =>
    choices(block, element, where, id, "checkbox", options(element), (before(block, element, where).selected_options ?? element.initial_options ?? []).map((one) => one.value)),
  multi_users_select: (block, element, where, id) => {
    const people = where.known.everybody().map(([value, name]) => ({ value, text: { type: "plain_text", text: name } }));
    return choices(block, element, where, id, "checkbox", people, before(block, element, where).selected_users ?? element.initial_users ?? []);
  },
  checkboxes: (block, element, where, id) =>
    choices(block, element, where, id, "checkbox", element.options, (before(block, element, where).selected_options ?? element.initial_options ?? []).map((one) => one.value)),
  radio_buttons: (block, element, where, id) => {
    const chosen = before(block, element, where).selected_option ?? element.initial_option;
    return choices(block, element, where, id, "radio", element.options, chosen ? [chosen.value] : []);
  },
  datepicker: (block, element, where, id) => field(block, element, where, id, "date", before(block, element, where).selected_date ?? element.initial_date),
  timepicker: (block, element, where, id) => field(block, element, where, id, "time", before(block, element, where).selected_time ?? element.initial_time),
  email_text_input: (block, element, where, id) => text(block, element, where, id, "email"),
  number_input: (block, element, where, id) => text(block, element, where, id, "text"),
  url_text_input: (block, element, where, id) => text(block, element, where, id, "url"),
  plain_text_input: (block, element, where, id) => text(block, element, where, id, element.multiline ? "textarea" : "text"),
};

const options = (element) => element.options ?? (element.option_groups ?? []).flatMap((one) => one.options);

function described(id) {
  return id ? { id, "aria-describedby": `${id}-error` } : {};
}

function dropDown(block, element, where, id, pairs, chosen) {
  const placeholder = element.placeholder?.text ?? "Choose …";
  return make(
    "select",
    { class: "field-control", "aria-label": id ? null : placeholder, ...described(id), onchange: told(block, element, where, (one) => one.value) },
    make("option", { value: "", selected: !chosen }, placeholder),
    ...pairs.map(([value, name]) => make("option", { value, selected: value === chosen }, name)),
  );
}

function choices(block, element, where, id, type, all, chosen) {
  const name = `${where.view?.id ?? "message"}-${block.block_id}-${element.action_id}`;
  const group = make("div", { class: "choices", ...described(id) });
  const tell = told(block, element, where, () => readControl(group));
  for (const one of all) {
    const box = make("input", { type, name, value: one.value, checked: chosen.includes(one.value), onchange: tell });
    group.append(make("label", { class: "choice" }, box, make("span", {}, words(one.text, where)), one.description ? make("small", {}, words(one.description, where)) : null));
  }
  return group;
}

function text(block, element, where, id, type) {
  return field(block, element, where, id, type, before(block, element, where).value ?? element.initial_value);
}

function field(block, element, where, id, type, value) {
  const tag = type === "textarea" ? "textarea" : "input";
  const made = make(tag, {
    class: "field-control", type: tag === "input" ? type : null, rows: tag === "textarea" ? 4 : null,
    placeholder: element.placeholder?.text, maxlength: element.max_length, autocomplete: "off",
    "aria-label": id ? null : (element.placeholder?.text ?? "Value"), ...described(id),
    onchange: told(block, element, where, (one) => one.value),
  });
  made.value = value ?? "";
  return made;
}

// What a person entered in one control.
export function readControl(element) {
  if (!element.classList.contains("choices")) return element.value;
  const boxes = [...element.querySelectorAll("input")];
  const chosen = boxes.filter((one) => one.checked).map((one) => one.value);
  return boxes[0]?.type === "radio" ? (chosen[0] ?? null) : chosen;
}

// Everything entered under `root`: inputs by block_id, other controls by action_id.
export function readValues(root) {
  const values = {};
  for (const one of root.querySelectorAll(".field-control, .choices")) {
    const inInput = one.closest(".block-input") !== null;
    values[inInput ? one.dataset.blockId : one.dataset.actionId] = readControl(one);
  }
  return values;
}

// Puts back what was typed into the fields that are still there.
export function writeValues(root, values) {
  for (const one of root.querySelectorAll("input.field-control, textarea.field-control")) {
    const typed = values[one.closest(".block-input") ? one.dataset.blockId : one.dataset.actionId];
    if (typed) one.value = typed;
  }
}
