// Modals and confirmation dialogs, over everything else; focus stays inside.

import { readValues, showBlocks, words as textOf, writeValues } from "./blocks.js";
import { make } from "./dom.js";

let shown = null; // { id, hash, root, depth }

// Shows the top of the stack. What was typed into a modal that is still open stays.
export function showModal(layer, stack, errors, page) {
  const view = stack.at(-1) ?? null;
  if (!view) return hide();
  if (shown?.id !== view.id || shown.hash !== view.hash) {
    const typed = shown?.id === view.id ? readValues(shown.root) : {};
    hide();
    shown = build(view, stack.length, page);
    writeValues(shown.root, typed);
    layer.append(shown.root);
    (shown.root.querySelector("[data-focus]") ?? shown.root.querySelector(".field-control, .choices input") ?? shown.root.querySelector("button")).focus();
  }
  return showErrors(shown.root, view, errors.get(view.id));
}

function hide() {
  shown?.root.remove();
  shown = null;
}

function build(view, depth, page) {
  const root = make("div", { class: "overlay" });
  const where = { known: page.words, press: page.press(() => root), values: view.state.values, view };
  const submit = async (event) => {
    event.preventDefault();
    root.classList.add("busy");
    await page.submit(readValues(root));
    root.classList.remove("busy");
  };
  const form = make(
    "form",
    { class: "modal", role: "dialog", "aria-modal": "true", "aria-labelledby": `title-${view.id}`, novalidate: true, onsubmit: submit, data: { view: view.id, callbackId: view.callback_id, depth } },
    make("header", {}, make("h2", { id: `title-${view.id}` }, textOf(view.title, where)), make("button", { type: "button", class: "icon-button", "aria-label": "Close", data: { close: "x" }, onclick: page.close }, "✕")),
    make("div", { class: "modal-body" }, make("p", { class: "trouble", role: "alert", hidden: true, data: { trouble: view.id } }), showBlocks(view.blocks, where)),
    make(
      "footer", {},
      make("button", { type: "button", class: "button", data: { close: "footer" }, onclick: page.close }, view.close ? textOf(view.close, where) : depth > 1 ? "Back" : "Cancel"),
      view.submit ? make("button", { type: "submit", class: "button primary", data: { submit: view.id } }, textOf(view.submit, where)) : null,
    ),
  );
  root.append(form);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") page.close();
    keepInside(event, form);
  });
  return { id: view.id, hash: view.hash, root };
}

function showErrors(root, view, found) {
  const trouble = root.querySelector("[data-trouble]");
  trouble.textContent = found?.trouble ? `⚠️ ${found.trouble}` : "";
  trouble.hidden = !found?.trouble;
  for (const block of root.querySelectorAll(".block-input")) {
    const error = block.querySelector(".error");
    const text = found?.errors?.[block.dataset.blockId] ?? "";
    error.textContent = text;
    error.hidden = !text;
    error.dataset.errorFor = block.dataset.blockId;
    for (const one of block.querySelectorAll(".field-control")) one.setAttribute("aria-invalid", String(Boolean(text)));
  }
}

function keepInside(event, box) {
  if (event.key !== "Tab") return;
  const all = [...box.querySelectorAll("button, input, textarea, select, a[href]")].filter((one) => !one.disabled && one.offsetParent);
  const [first, last] = [all[0], all.at(-1)];
  if (event.shiftKey && document.activeElement === first) {
    event.preventDefault();
    last.focus();
  } else if (!event.shiftKey && document.activeElement === last) {
    event.preventDefault();
    first.focus();
  }
}

// Asks a button's own question; true when the person goes on.
export function confirmFirst(layer, confirm, known) {
  return new Promise((resolve) => {
    const where = { known };
    const before = document.activeElement;
    const end = (answer) => {
      root.remove();
      before?.focus?.();
      resolve(answer);
    };
    const yes = make("button", { type: "button", class: `button ${confirm.style ?? "primary"}`, data: { confirm: "yes" }, onclick: () => end(true) }, textOf(confirm.confirm, where));
    const no = make("button", { type: "button", class: "button", data: { confirm: "no" }, onclick: () => end(false) }, textOf(confirm.deny, where));
    const box = make(
      "div", { class: "modal small", role: "alertdialog", "aria-modal": "true", "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text" },
      make("header", {}, make("h2", { id: "confirm-title" }, textOf(confirm.title, where))),
      make("div", { class: "modal-body", id: "confirm-text" }, textOf(confirm.text, where)),
      make("footer", {}, no, yes),
    );
    const root = make("div", { class: "overlay" }, box);
    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end(false);
      keepInside(event, box);
    });
    layer.append(root);
    no.focus();
  });
}
