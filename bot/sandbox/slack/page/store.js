// What this page knows: the workspace as the server tells it, and who and where its reader is.

export const store = {
  revision: 0,
  workspace: {}, bot: {}, commands: [], hints: [], menu: [],
  people: new Map(), channels: new Map(), groups: new Map(),
  messages: new Map(), // channel -> Map(ts -> message)
  whispers: [], // private messages and Slack's own notices since this page was loaded: { to, channel, ts, … }
  views: new Map(), homes: new Map(), viewErrors: new Map(),
  unread: new Map(), // "person channel" -> { count, mentioned }
  connections: 0,
  me: null, channel: null, thread: null, tab: "messages", highlighted: null,
};

const byId = (all) => new Map(all.map((one) => [one.id, one]));

export function replaceAll(state) {
  Object.assign(store, {
    revision: state.revision, workspace: state.workspace, bot: state.bot, commands: state.commands, hints: state.hints, menu: state.menu,
    people: byId(state.people), channels: byId(state.channels), groups: byId(state.groups),
    messages: new Map(Object.entries(state.messages).map(([id, all]) => [id, new Map(all.map((one) => [one.ts, one]))])),
    views: new Map(Object.entries(state.views)), homes: new Map(Object.entries(state.homes)),
    connections: state.connections,
  });
}

const EVENTS = {
  message({ channel, message }) {
    const kept = store.messages.get(channel) ?? store.messages.set(channel, new Map()).get(channel);
    if (!kept.has(message.ts)) countUnread(channel, message);
    kept.set(message.ts, message);
  },
  deleted({ channel, ts }) {
    store.messages.get(channel)?.delete(ts);
    store.whispers = store.whispers.filter((one) => one.ts !== ts);
  },
  ephemeral({ message }) {
    store.whispers = [...store.whispers.filter((one) => one.ts !== message.ts), message];
  },
  notice(told) {
    store.whispers.push({ ...told, notice: true });
    if (told.view) store.viewErrors.set(told.view, { errors: {}, trouble: told.text });
  },
  views: ({ person, views }) => {
    for (const one of views) store.viewErrors.delete(one.id);
    store.views.set(person, views);
  },
  view_errors: ({ view, errors }) => store.viewErrors.set(view, { errors, trouble: null }),
  home: ({ person, view }) => store.homes.set(person, view),
  hints: ({ hints }) => (store.hints = hints),
  connections: ({ count }) => (store.connections = count),
};

// True when everything must be read anew: people, channels and groups change rarely.
export function apply(event) {
  if (event.revision <= store.revision) return false;
  store.revision = event.revision;
  if (["person", "channel", "group"].includes(event.kind)) return true;
  EVENTS[event.kind]?.(event);
  return false;
}

// People

export const isBot = (user) => user === store.bot.user;
export const nameOf = (user) => (isBot(user) ? store.bot.name : (store.people.get(user)?.real_name || store.people.get(user)?.name || user));
export const switchable = () => [...store.people.values()].filter((one) => !one.bot);
export const mine = (channel) => channel.members.includes(store.me);

export function channelsOf(person) {
  return [...store.channels.values()].filter((one) => one.members.includes(person));
}

export function channelLabel(channel) {
  if (channel.kind !== "im") return channel.name;
  return nameOf(channel.members.find((one) => one !== store.me) ?? store.bot.user);
}

// Messages

export function shownIn(channel, thread = null) {
  const said = [...(store.messages.get(channel)?.values() ?? [])].filter((one) => belongs(one, thread));
  const private_ = store.whispers.filter((one) => one.to === store.me && one.channel === channel && !one.message_ts && !one.view && (one.thread_ts ?? null) === thread);
  return [...said, ...private_].sort((a, b) => (a.ts < b.ts ? -1 : 1));
}

function belongs(message, thread) {
  if (thread) return message.ts === thread || message.thread_ts === thread;
  return !message.thread_ts || message.thread_ts === message.ts || message.subtype === "thread_broadcast";
}

export const troubleOf = (message) => store.whispers.find((one) => one.message_ts === message.ts && one.to === store.me) ?? null;

export function forgetTrouble(ts) {
  store.whispers = store.whispers.filter((one) => one.message_ts !== ts);
}

// What is new for whom

function countUnread(channel, message) {
  for (const person of store.channels.get(channel)?.members ?? []) {
    if (person === message.user || (person === store.me && channel === store.channel)) continue;
    const key = `${person} ${channel}`;
    const known = store.unread.get(key) ?? { count: 0, mentioned: 0 };
    store.unread.set(key, { count: known.count + 1, mentioned: known.mentioned + (mentions(message, person) ? 1 : 0) });
  }
}

function mentions(message, person) {
  const text = JSON.stringify([message.text, message.blocks ?? []]);
  const groups = [...store.groups.values()].filter((one) => one.members.includes(person));
  return text.includes(`<@${person}`) || groups.some((one) => text.includes(`<!subteam^${one.id}`));
}

export const unreadIn = (person, channel) => store.unread.get(`${person} ${channel}`) ?? { count: 0, mentioned: 0 };

export function mentionsFor(person) {
  return channelsOf(person).reduce((sum, one) => sum + unreadIn(person, one.id).mentioned, 0);
}

export function markRead() {
  store.unread.delete(`${store.me} ${store.channel}`);
}
