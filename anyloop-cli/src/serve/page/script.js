
"use strict";

const SAMPLES = 60; // of a chart, one a second
const LINES = 200; // of a conversation; older ones are removed
const CHARACTERS = 2000; // of a message that are shown
const SHORTEST_DELAY = 500; // before another attempt to connect, in milliseconds
const LONGEST_DELAY = 15_000;
const STABLE = 5000; // after this long an open connection counts as a success
const SILENCE = 3000; // without an answer to a ping the server counts as silent

const $ = (selector) => document.querySelector(selector);

/** A WebSocket of this server that is opened again after it has closed. The delay doubles with each failure. */
class Link {
  state = "connecting";
  failures = 0;

  constructor(path, { onmessage, onclose = () => {} }) {
    this.url = new URL(path, location.href.replace(/^http/, "ws"));
    Object.assign(this, { onmessage, onclose });
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.state = "connecting";
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.state = "open";
      this.since = performance.now();
      showState();
    };
    socket.onmessage = ({ data }) => this.onmessage(data);
    socket.onclose = (event) => this.closed(event);
    this.socket = socket;
  }

  closed(event) {
    const wasOpen = this.state === "open";
    if (wasOpen && performance.now() - this.since > STABLE) this.failures = 0;
    const delay = Math.min(LONGEST_DELAY, SHORTEST_DELAY * 2 ** this.failures) * (0.75 + Math.random() / 2);
    this.failures += 1;
    this.state = "closed";
    this.retryAt = performance.now() + delay;
    this.timer = setTimeout(() => this.connect(), delay);
    if (wasOpen) this.onclose(event);
    showState();
  }

  /** Returns whether the message was sent. */
  send(message) {
    if (this.state !== "open" || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(message);
    return true;
  }
}

/** A number each second, the newest at the right. `null` is a gap. */
class Chart {
  values = [];

  constructor(id, format) {
    this.figure = document.getElementById(id);
    this.name = this.find("figcaption").textContent;
    this.format = format;
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > SAMPLES) this.values.shift();
    const known = this.values.filter((value) => value !== null);
    const top = Math.max(0, ...known);
    this.draw(top || 1);
    const [number, unit] = value === null ? ["–", ""] : this.format(value);
    const small = document.createElement("small");
    small.textContent = unit;
    this.find(".number").replaceChildren(`${number} `, small);
    const range = known.length ? `up to ${this.format(top).join(" ").trim()} in the last minute` : "no data";
    this.find(".range").textContent = range;
    this.find("svg").setAttribute("aria-label", `${this.name}: ${range}`);
  }

  find(selector) {
    return this.figure.querySelector(selector);
  }

  draw(top) {
    const first = SAMPLES - this.values.length;
    const runs = [[]];
    this.values.forEach((value, i) => {
      if (value === null) runs.push([]);
      else runs.at(-1).push(`${first + i},${(20 - 18 * value / top).toFixed(2)}`);
    });
    const lines = runs.filter((run) => run.length);
    const x = (point) => point.split(",")[0];
    const line = lines.map((run) => `M${run.join("L")}`);
    const area = lines.map((run) => `M${x(run[0])},20L${run.join("L")}L${x(run.at(-1))},20Z`);
    this.find(".line").setAttribute("d", line.join(""));
    this.find(".area").setAttribute("d", area.join(""));
  }
}

/** Messages to one path and from it, and a form to send. */
class Talk {
  waiting = [];
  removed = 0;
  unanswered = []; // what was sent and has not come back, with its time

  constructor(id) {
    this.section = document.getElementById(id);
    this.log = this.section.querySelector(".log");
    this.list = this.section.querySelector("ol");
    this.input = this.section.querySelector("input");
    this.section.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      this.submit();
    };
  }

  submit() {
    const text = this.input.value;
    const sent = this.link.send(text);
    const refusal = sent ? "" : "Not sent: there is no connection. The text is kept here.";
    this.section.querySelector(".refusal").textContent = refusal;
    if (!sent) return;
    this.input.value = "";
    this.unanswered.push({ text, at: performance.now() });
    this.onsubmit(text);
  }

  /** Takes the oldest message of ours, if this is it. Returns when it was sent. */
  answered(data) {
    if (this.unanswered[0]?.text === data) return this.unanswered.shift().at;
  }

  closed({ code, reason }) {
    const lost = this.unanswered.length;
    this.unanswered = [];
    const why = reason ? `, ${reason}` : "";
    const loss = lost ? ` ${lost} of your messages had not come back.` : "";
    this.add({ note: `The connection was closed (${code}${why}).${loss}` });
  }

  /** Adds a line. They are shown together, so that a flood of messages does not stop the page. */
  add(line) {
    this.waiting.push(line);
    if (this.waiting.length > LINES) {
      this.waiting.shift();
      this.removed += 1;
    }
    this.timer ??= setTimeout(() => this.show(), 30);
  }

  show() {
    this.timer = undefined;
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    this.list.append(...this.waiting.map(element));
    this.waiting = [];
    const surplus = [...this.list.querySelectorAll("li:not(.removed)")].slice(0, -LINES);
    surplus.forEach((line) => line.remove());
    this.removed += surplus.length;
    if (this.removed) {
      const note = this.list.querySelector(".removed") ?? document.createElement("li");
      note.className = "note removed";
      note.textContent = `${count(this.removed)} older lines are not shown.`;
      this.list.prepend(note);
    }
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }
}

/** The element of a line: who, what and a detail; or a note. */
function element({ who, data, detail = "", mine, note }) {
  const item = document.createElement("li");
  if (note) {
    item.className = "note";
    item.textContent = note;
    return item;
  }
  if (mine) item.className = "mine";
  const [name, text, small] = ["span", "bdi", "small"].map((tag) => document.createElement(tag));
  name.className = "who";
  name.textContent = who;
  text.textContent = shown(data);
  small.textContent = detail;
  item.append(name, text, small);
  return item;
}

function shown(data) {
  if (typeof data !== "string") return `${count(data.byteLength)} bytes of binary data`;
  if (data === "") return "(empty)";
  return data.length > CHARACTERS ? `${data.slice(0, CHARACTERS)}… (${count(data.length)} characters)` : data;
}

// Numbers with their units.

function count(n) {
  return n.toLocaleString("en");
}

function plain(n) {
  const options = n < 10_000 ? {} : { notation: "compact" };
  return [n.toLocaleString("en", { maximumFractionDigits: n >= 10 && n < 10_000 ? 0 : 1, ...options }), ""];
}

function bytes(n) {
  const units = ["B", "kB", "MB", "GB"];
  const power = Math.min(3, Math.floor(Math.log10(Math.max(n, 1)) / 3));
  const value = n / 1000 ** power;
  return [value.toFixed(power && value < 100 ? 1 : 0), units[power]];
}

function milliseconds(n) {
  return [n.toFixed(n < 1 ? 2 : n < 100 ? 1 : 0), "ms"];
}

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60].map(Math.floor);
  const parts = [[days, "d"], [hours, "h"], [minutes, "min"], [Math.floor(seconds % 60), "s"]];
  const first = parts.findIndex(([n]) => n);
  return first < 0 ? "0 s" : parts.slice(first, first + 2).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

// The counters of the server.

const charts = {
  connections: new Chart("connections", plain),
  messages: new Chart("messages", plain),
  bytes: new Chart("bytes", bytes),
  latency: new Chart("latency", milliseconds),
};

let before; // the last counters, to subtract

function counted(line) {
  const now = JSON.parse(line);
  const messages = now.messages_received + now.messages_sent;
  const payload = now.bytes_received + now.bytes_sent;
  const time = now.uptime - before?.uptime;
  charts.connections.add(now.open);
  if (time > 0) {
    charts.messages.add(Math.max(0, messages - before.messages) / time);
    charts.bytes.add(Math.max(0, payload - before.payload) / time);
  }
  before = { uptime: now.uptime, messages, payload };
  $("#uptime").textContent = duration(now.uptime);
  $("#opened").textContent = `${count(now.opened)}, of them ${count(now.open)} open`;
  $("#total").textContent = `${count(now.messages_received)} in, ${count(now.messages_sent)} out`;
}

// The conversations. On /echo, binary messages are pings of this page.

const echo = new Talk("echo");
const broadcast = new Talk("broadcast");
let ping; // the one on its way
let pings = 0;

echo.onsubmit = (text) => echo.add({ who: "sent", data: text, mine: true });
echo.link = new Link("echo", {
  onclose: (event) => echo.closed(event),
  onmessage(data) {
    if (typeof data !== "string") return pong(data);
    const at = echo.answered(data);
    const time = at === undefined ? "" : milliseconds(performance.now() - at).join(" ");
    echo.add({ who: "echo", data, detail: time });
  },
});

broadcast.onsubmit = () => {}; // our own messages come back
broadcast.link = new Link("broadcast", {
  onclose: (event) => broadcast.closed(event),
  onmessage(data) {
    const mine = broadcast.answered(data) !== undefined;
    const detail = new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    broadcast.add({ who: mine ? "you" : "someone", data, detail, mine });
  },
});

const stats = new Link("stats", { onmessage: counted, onclose: () => (before = undefined) });
const links = [echo.link, broadcast.link, stats];

function pong(data) {
  if (new Uint32Array(data)[0] !== ping?.number) return;
  charts.latency.add(performance.now() - ping.at);
  ping = undefined;
  showState();
}

// Once a second: a ping, and a gap in the charts if there is nothing to show.
setInterval(() => {
  if (echo.link.state !== "open") ping = undefined;
  if (ping === undefined) {
    pings += 1;
    const next = { number: pings, at: performance.now() };
    if (echo.link.send(new Uint32Array([pings]))) ping = next;
  }
  if (ping === undefined || performance.now() - ping.at > 900) charts.latency.add(null);
  if (stats.state !== "open") ["connections", "messages", "bytes"].forEach((name) => charts[name].add(null));
  showState();
}, 1000);

// The state of the connections.

function showState() {
  const open = links.every((link) => link.state === "open");
  const closed = links.filter((link) => link.state === "closed");
  const lost = links.some((link) => link.failures > 0 && link.state !== "open");
  const silent = ping && performance.now() - ping.at > SILENCE;
  const state = open ? (silent ? "silent" : "open") : lost ? "closed" : "connecting";
  const words = {
    open: "Connected",
    silent: "Connected, but the server does not answer",
    closed: "Disconnected, reconnecting",
    connecting: "Connecting",
  };
  const status = $("#status");
  status.dataset.state = state;
  if (status.textContent !== words[state]) status.textContent = words[state]; // once, since it is read aloud
  showRetry(state === "closed", closed);
  $("#address").textContent = echo.link.url.href;
  $("#extensions").textContent = open ? echo.link.socket.extensions || "none" : "–";
  $("#subprotocol").textContent = open ? echo.link.socket.protocol || "none" : "–";
}

function showRetry(lost, closed) {
  const retry = $("#retry");
  if (!lost && retry.contains(document.activeElement)) $("#status").focus(); // its button goes
  retry.hidden = !lost;
  const seconds = Math.ceil((Math.min(...closed.map((link) => link.retryAt)) - performance.now()) / 1000);
  $("#countdown").textContent = closed.length ? `Next attempt in ${Math.max(1, seconds)} s.` : "Connecting.";
}

function retryNow() {
  links.filter((link) => link.state === "closed").forEach((link) => link.connect());
}

$("#retry button").onclick = () => {
  retryNow();
  showState();
};
addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => document.hidden || retryNow());

// The theme: that of the system, until the button was pressed.

const theme = $("#theme");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
let chosen = read();

function read() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // storage may be forbidden
  }
}

function showTheme() {
  if (chosen) document.documentElement.dataset.theme = chosen;
  theme.setAttribute("aria-pressed", (chosen ?? (systemIsDark.matches ? "dark" : "light")) === "dark");
}

theme.onclick = () => {
  chosen = theme.getAttribute("aria-pressed") === "true" ? "light" : "dark";
  try {
    localStorage.setItem("theme", chosen);
  } catch {}
  showTheme();
};
systemIsDark.onchange = showTheme;

showTheme();
showState();
$("#command").textContent = `anyloop connect ${broadcast.link.url.href}`;
