// Making elements. Text goes in as text and nowhere as HTML: everything that people and apps say is foreign.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, present(value));
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((one) => one !== null && one !== undefined));
  return element;
}

function present(data) {
  return Object.fromEntries(Object.entries(data).filter(([, value]) => value !== null && value !== undefined));
}

// Shows `items` in `container`, keeping the elements of those that look as before (so focus and open menus survive).
export function showList(container, items, build) {
  const before = new Map([...container.children].map((one) => [one.listKey, one]));
  const wanted = items.map(({ key, look, ...item }) => {
    const kept = before.get(key);
    if (kept && kept.listLook === look) return kept;
    const made = build(item);
    made.listKey = key;
    made.listLook = look;
    return made;
  });
  const keep = new Set(wanted);
  for (const one of [...container.children]) if (!keep.has(one)) one.remove();
  wanted.forEach((one, index) => {
    if (container.children[index] !== one) container.insertBefore(one, container.children[index] ?? null);
  });
}

const WEB = new Set(["http:", "https:", "mailto:"]);

// A link, unless its address is something a browser would run.
export function link(address, label, navigate) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    return document.createTextNode(label);
  }
  if (!WEB.has(url.protocol)) return document.createTextNode(label);
  const anchor = make("a", { href: url.href, rel: "noopener noreferrer", target: "_blank" }, label);
  const here = url.origin === location.origin && /^\/archives\/(\w+)\/p(\d+)(\d{6})$/.exec(url.pathname);
  if (here && navigate) {
    anchor.removeAttribute("target");
    anchor.addEventListener("click", (event) => {
      event.preventDefault();
      navigate(here[1], `${here[2]}.${here[3]}`, url.searchParams.get("thread_ts"));
    });
  }
  return anchor;
}
