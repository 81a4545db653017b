// What the console does beyond plain pages: times in the viewer's zone, live updates, questions before deletions.
"use strict";

const FORMAT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const ZONE = FORMAT.resolvedOptions().timeZone;

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) {
      time.textContent = FORMAT.format(moment);
      time.dataset.local = "";
    }
  }
  for (const chart of root.querySelectorAll("img[data-zoned]")) {
    chart.removeAttribute("data-zoned");
    if (ZONE && ZONE !== "UTC") chart.src += `&zone=${encodeURIComponent(ZONE)}`;
  }
}

function askFirst(root) {
  for (const form of root.querySelectorAll("form[data-confirm]")) {
    form.addEventListener("submit", (event) => {
      if (!window.confirm(form.dataset.confirm)) event.preventDefault();
    });
  }
}

let usual = ""; // What is said while nothing is wrong.

function note(text) {
  const place = document.getElementById("live-note");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

// -- parts of the page that the server renders anew ---------------------------------------------------------

const sent = new Map(); // What the server sent of each part, as showTimes() changes it.

function remember(root) {
  for (const part of root.querySelectorAll("[data-part]")) sent.set(part.dataset.part, part.outerHTML);
}

let asking = false;
let again = false;
let meanwhile = null; // Changes that were told while the server rendered the page anew.

async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  meanwhile = [];
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok || answer.status === 404) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const names = (root) => [...root.querySelectorAll("[data-part]")].map((part) => part.dataset.part).join();
      if (names(page) !== names(document)) location.reload();
      else await replaceParts(page);
      note(usual);
      // What the server rendered may be older than what was told since it was asked.
      const table = document.getElementById("live");
      if (table) for (const change of meanwhile) updateList(table, change);
    } else {
      note(`The console answers ${answer.status}: what is shown may be old.`);
    }
  } catch {
    note("The console does not answer: what is shown may be old.");
  } finally {
    meanwhile = null;
  }
  // At most once a second, however much happens.
  setTimeout(() => {
    asking = false;
    if (again) {
      again = false;
      refresh();
    }
  }, 1000);
}

async function replaceParts(page) {
  for (const part of page.querySelectorAll("[data-part]")) {
    const name = part.dataset.part;
    const html = part.outerHTML;
    const shown = document.querySelector(`[data-part="${name}"]`);
    // Never under somebody's hands.
    if (html === sent.get(name) || shown.contains(document.activeElement)) continue;
    const fresh = document.adoptNode(part);
    const open = [...shown.querySelectorAll("details")].map((each) => each.open);
    fresh.querySelectorAll("details").forEach((each, place) => { if (place in open) each.open = open[place]; });
    showTimes(fresh);
    // The old charts stay until the new ones can be drawn.
    await Promise.allSettled([...fresh.querySelectorAll("img")].map((image) => image.decode()));
    sent.set(name, html);
    shown.replaceWith(fresh);
    askFirst(fresh);
  }
}

// -- a list of tasks whose rows come and go -------------------------------------------------------------------

function seconds(duration) {
  if (duration === undefined) return "";
  if (Math.abs(duration) < 0.001) return `${Math.round(duration * 1e6)} µs`;
  if (Math.abs(duration) < 1) return `${Math.round(duration * 1000)} ms`;
  if (duration < 60) return `${duration.toFixed(2)} s`;
  if (duration < 3600) return `${Math.floor(duration / 60)} min ${Math.floor(duration % 60)} s`;
  return `${Math.floor(duration / 3600)} h ${Math.floor((duration % 3600) / 60)} min`;
}

const KNOWN = ["SUCCESS", "FAILURE", "STARTED", "PROGRESS", "RETRY", "REVOKED", "PENDING", "RECEIVED"];

// Values become text nodes only: whatever a task is called or returns, it is never taken for HTML.
function element(kind, content, className) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.append(content);
  return made;
}

function timeOf(at) {
  const time = element("time", "");
  time.dateTime = at;
  time.title = `${at.slice(0, 19).replace("T", " ")} UTC`;
  return time;
}

function progressOf({ current, total, message }) {
  const made = element("span", "", "progress");
  const bar = element("progress", "");
  bar.setAttribute("aria-label", "progress");
  bar.max = 1;
  if (current !== undefined && current !== null && total) bar.value = current / total;
  made.append(bar, " ", current !== undefined && current !== null && total ? `${current} of ${total} ` : "", message || "");
  return made;
}

function details(task) {
  if (task.error) return (task.error.message ? `${task.error.type}: ${task.error.message}` : task.error.type).slice(0, 160);
  if (task.progress && !task.date_done) return progressOf(task.progress);
  if (task.eta && !task.started_at && !task.date_done) {
    const made = element("span", "not before ");
    made.append(timeOf(task.eta));
    return made;
  }
  const known = [task.args_text, task.kwargs_text].filter((text) => text && !["[]", "{}", "()"].includes(text));
  return element("code", known.join(" ").slice(0, 120));
}

function rowOf(table, task) {
  const row = element("tr", "", "fresh");
  row.dataset.id = task.id;
  const kind = KNOWN.includes(task.state) ? task.state.toLowerCase() : "other";
  const link = element("a", task.name || task.id);
  link.href = `${table.dataset.task}?id=${encodeURIComponent(task.id)}`;
  const at = task.date_done || task.started_at || task.sent_at;
  const cells = [
    [element("span", task.state, `state state-${kind}`)],
    [link, "name"],
    [at ? timeOf(at) : ""],
    [seconds(task.runtime), "number"],
    [seconds(task.queue_time), "number"],
    [task.worker || ""],
    [details(task), "what"],
  ];
  for (const [content, className] of cells) row.append(element("td", content, className));
  showTimes(row);
  return row;
}

function isEnded(row) {
  return ["SUCCESS", "FAILURE", "REVOKED"].includes(row.cells[0].textContent.trim());
}

function updateList(table, { tasks, gone, more }) {
  const body = table.tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const held = (row) => row && row.contains(document.activeElement); // Never under somebody's hands.
  for (const id of gone) if (rows.has(id) && !held(rows.get(id))) rows.get(id).remove();
  for (const task of tasks) {
    const before = rows.get(task.id);
    if (held(before)) continue;
    const row = rowOf(table, task);
    if (before) before.remove();
    // Those that have not ended stand first, as on a page that is loaded.
    if (task.date_done) body.insertBefore(row, [...body.rows].find(isEnded) || null);
    else body.prepend(row);
    rows.set(task.id, row);
  }
  const nothing = document.getElementById("nothing");
  if (nothing && body.rows.length) nothing.remove();
  while (body.rows.length > Number(table.dataset.most)) body.deleteRow(-1);
  note(more ? `More changes than can be shown: ${more} were left out.` : usual);
}

// -- live updates -------------------------------------------------------------------------------------------

function follow() {
  const source = new EventSource(document.body.dataset.events);
  const watched = document.querySelector("[data-watch]");
  let opened = false;
  source.addEventListener("open", () => { opened = true; });
  source.addEventListener("following", () => {
    // From now on each change is told. What happened before is on the page as the server renders it.
    if (!watched) usual = "This list is live.";
    note(usual);
    refresh();
  });
  source.addEventListener("tasks", (event) => {
    const change = JSON.parse(event.data);
    const table = document.getElementById("live");
    if (table) updateList(table, change);
    if (meanwhile) meanwhile.push(change);
    if (!watched) return;
    const { watch, root } = watched.dataset;
    const concerns = (task) => !watch || task.id === watch || task.root_id === root || task.id === root;
    if (change.more || change.tasks.some(concerns)) refresh();
  });
  source.addEventListener("away", () => note("The database does not answer at the moment."));
  source.addEventListener("error", () => note(opened ? "Live updates are interrupted; trying again." : ""));
  return source;
}

// A browser opens few connections to one server: tabs that nobody sees hold none, and catch up when they are seen.
let source = null;
let timer = null;

function watchWhileSeen() {
  const seen = document.visibilityState === "visible";
  const { events, every } = document.body.dataset;
  if (events && seen && !source) source = follow();
  if (source && !seen) {
    source.close();
    source = null;
  }
  if (every && seen && !timer) timer = setInterval(refresh, Number(every) * 1000);
  if (timer && !seen) {
    clearInterval(timer);
    timer = null;
  }
}

remember(document);
showTimes(document);
askFirst(document);
const address = new URL(location.href);
if (address.searchParams.has("done")) {
  // What was done is said once, not each time the page is loaded.
  address.searchParams.delete("done");
  history.replaceState(null, "", address);
}
watchWhileSeen();
document.addEventListener("visibilitychange", watchWhileSeen);
addEventListener("pagehide", () => {
  if (source) source.close();
  source = null;
});
addEventListener("pageshow", watchWhileSeen);
