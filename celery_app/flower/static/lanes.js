// The lanes' page: fetches what there is every two seconds, and shows it in place, so that no button moves under a
// finger. Nothing is put in as HTML.
import {keep, make, put, rows} from "./rows.js";

const page = document.getElementById("lanes-page");
const url = page.dataset.url;
const mayChange = !page.dataset.whyNot;
const REFRESH_MS = 2000;
// The server answers within two seconds, whatever the broker does.
const PATIENCE_MS = 8000;
const FIELDS = {
  model: ["rpm", "itpm", "otpm", "concurrency"],
  lane: ["floor", "share", "capacity"],
  tenant: ["weight"],
};
const UNITS = {
  requests: "requests",
  input_tokens: "input tokens",
  output_tokens: "output tokens",
  calls: "calls in flight",
};
const MISSING = "\u2014";

const byId = (id) => document.getElementById(id);
const count = (number) => (number === null ? MISSING : Math.round(number).toLocaleString("en"));
const exact = (number) => (number === null ? "none" : number.toLocaleString("en", {maximumFractionDigits: 3}));
const clock = (secondsAgo) => new Date(Date.now() - secondsAgo * 1000).toLocaleTimeString("en-GB");

function duration(seconds) {
  if (seconds === null || seconds === undefined) { return MISSING; }
  if (seconds < 1) { return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`; }
  if (seconds < 120) { return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`; }
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function say(problem) {
  const old = byId("lanes-problem");
  if (old) { old.remove(); }
  if (!problem) { return; }
  const box = make("div", problem);
  box.id = "lanes-problem";
  box.className = "alert alert-warning";
  box.setAttribute("role", "alert");
  page.insertBefore(box, byId("lanes-cards"));
  box.scrollIntoView({block: "nearest"});
}

async function problemOf(answer) {
  if (answer.ok) { return ""; }
  const isTold = (answer.headers.get("Content-Type") || "").includes("json");
  return isTold ? (await answer.json()).problem : `Flower refuses it (${answer.status})`;
}

async function change(wish) {
  const token = document.cookie.match(/(?:^|;\s*)_xsrf=([^;]+)/);
  const headers = {"Content-Type": "application/json"};
  if (token) { headers["X-XSRFToken"] = decodeURIComponent(token[1]); }
  try {
    say(await problemOf(await fetch(`${url}/change`, {method: "POST", headers, body: JSON.stringify(wish)})));
  } catch (error) {
    say("Flower does not answer");
  }
  await refresh();
}

function stateOf(lane) {
  if (lane.paused.some((each) => !each.models)) { return ["paused", "text-bg-warning"]; }
  const kinds = lane.waiting_for.map((each) => each.kind);
  if (kinds.includes("account") || kinds.includes("shut")) { return ["shut by the API", "text-bg-danger"]; }
  if (kinds.includes("no_worker")) { return ["no worker", "text-bg-danger"]; }
  if (lane.paused.length) { return ["partly paused", "text-bg-warning"]; }
  if (lane.draining.length) { return ["draining", "text-bg-secondary"]; }
  return ["open", "text-bg-success"];
}

function figures(lane) {
  const wait = (ms) => duration(ms === null ? null : ms / 1000);
  return [
    ["in flight", count(lane.in_flight)],
    ["wait p50", wait(lane.wait_ms.p50)],
    ["wait p99", wait(lane.wait_ms.p99)],
    ["done per min", count(lane.throughput_per_min)],
    ["wait for a time", count(lane.returning)],
    ["dead letters", count(lane.dead)],
    ["workers", count(lane.workers)],
    ["slots", count(lane.slots)],
    ["more slots wanted", count(lane.slots_wanted)],
    ...(lane.usd_today === undefined ? [] : [
      ["spent today", dollars(lane.usd_today)],
      ["saved today", dollars(lane.usd_saved_today)],
    ]),
  ];
}

function dollars(usd) {
  return `$${usd.toFixed(usd >= 1 || usd === 0 ? 2 : 4)}`;
}

// What holds a lane up, as [key, words, advice]; a key stays the same while its numbers change.
function reasons(name, lane) {
  const told = lane.waiting_for.map((each, at) => [
    `${each.kind} ${at}`,
    each.words.startsWith("no ") ? each.words : `${name} waits for ${each.words}`,
    each.advice,
  ]);
  lane.draining.forEach((each) => {
    told.push(["draining", `${name} takes no more jobs: ${each.by} drained it ${duration(each.age_s)} ago`, ""]);
  });
  if (lane.dead) {
    told.push(["dead", `${count(lane.dead)} dead letters`, `see why, then put them back: lanes dead list --lane ${name}`]);
  }
  return told;
}

function makeCard([name]) {
  const card = byId("lanes-card").content.firstElementChild.cloneNode(true);
  card.id = `lane-${name}`;
  put(card.querySelector("h2"), name);
  card.addEventListener("click", (event) => {
    const action = event.target.dataset.action;
    const seconds = action && card.querySelector("select").value;
    if (action) { change({action, lane: name, ...(action === "pause" && seconds ? {for_s: Number(seconds)} : {})}); }
  });
  return card;
}

function fillCard(card, [name, lane]) {
  const [state, colour] = stateOf(lane);
  const badge = card.querySelector(".badge");
  put(badge, state);
  badge.className = `badge ${colour}`;
  put(card.querySelector("strong"), count(lane.depth));
  put(card.querySelector(".lane-oldest"), lane.oldest_s === null ? "" : `· the oldest for ${duration(lane.oldest_s)}`);
  keep(card.querySelector("dl"), figures(lane), ([key]) => key, ([key]) => make("div", make("dt", key), make("dd")),
    (child, [, value]) => put(child.lastChild, value));
  keep(card.querySelector("ul"), reasons(name, lane), ([key]) => key, () => make("li", make("span"), make("small")),
    (child, [, words, advice]) => { put(child.firstChild, words); put(child.lastChild, advice); });
  const resume = card.querySelector("[data-action=resume]");
  if (resume) { resume.disabled = !lane.paused.length; }
}

function fillBudget(cells, budget) {
  const shut = {"": "", account: " (the API refuses the account)"}[budget.shut] ?? ` (shut for ${duration(budget.shut_s)})`;
  const name = budget.model || (budget.family === "*" ? "all" : budget.family);
  const texts = [name + shut, UNITS[budget.dimension] || budget.dimension, budget.lanes.join(", ")];
  texts.forEach((text, at) => put(cells[at], text));
  put(cells[4], budget.limit === null ? MISSING : count(budget.limit));
  if (!cells[3].firstChild) {
    const bar = make("span");
    bar.dataset.key = "";
    const made = make("div", bar);
    made.className = "lanes-meter";
    cells[3].append(made, make("small"));
  }
  const [meter, words] = cells[3].children;
  const part = (units) => `${Math.max(0, Math.min(100, 100 * units / budget.capacity))}%`;
  const floors = Object.entries(budget.floors).filter(([, units]) => units > 0);
  keep(meter, [["", budget.level], ...floors], ([lane]) => lane, () => make("i"), (mark, [lane, units]) => {
    mark.style[lane ? "left" : "width"] = part(units);
  });
  const amount = (units) => units.toLocaleString("en", {maximumFractionDigits: budget.capacity < 100 ? 1 : 0});
  const marks = floors.map(([lane, units]) => `; ${lane} stops at ${amount(units)}`).join("");
  put(words, `${amount(Math.max(0, budget.level))} of ${amount(budget.capacity)}${marks}`);
}

function fillLimit(cells, limit) {
  const texts = [limit.kind === "model" ? `models like ${limit.name}` : `${limit.kind} ${limit.name}`, limit.field];
  [...texts, exact(limit.value), limit.origin].forEach((text, at) => put(cells[at], text));
  const button = cells[4].firstChild;
  if (button && !limit.set) { button.remove(); }
  if (button || !limit.set || !mayChange) { return; }
  const reset = make("button", "Reset");
  reset.className = "btn btn-sm btn-outline-secondary";
  reset.type = "button";
  reset.onclick = () => change({action: "reset", [limit.kind]: limit.name, fields: [limit.field]});
  cells[4].append(reset);
}

function leftOut(id, number, what) {
  byId(id).hidden = !number;
  put(byId(id), `${count(number)} more ${what} were not looked at.`);
}

function show(seen) {
  const workers = `${count(seen.workers)} worker${seen.workers === 1 ? "" : "s"}`;
  const spent = seen.spent ? `, ${dollars(seen.spent.usd)} spent today, ${dollars(seen.spent.usd_saved)} saved` : "";
  put(byId("lanes-workers"), `· ${workers}, ${count(seen.slots)} slots${spent}`);
  keep(byId("lanes-cards"), Object.entries(seen.lanes), ([name]) => name, makeCard, fillCard);
  const budgetKey = (each) => [each.lanes, each.family, each.model, each.dimension].join("|");
  rows("lanes-budgets", 5, seen.budgets, budgetKey, fillBudget);
  rows("lanes-tenants", 3, seen.tenants, (each) => `${each.lane}|${each.tenant}`, (cells, each) => {
    [each.tenant || "(none)", each.lane, count(each.jobs)].forEach((text, at) => put(cells[at], text));
  });
  rows("lanes-limits", 5, seen.limits, (each) => [each.kind, each.name, each.field].join("|"), fillLimit);
  leftOut("lanes-models-left-out", seen.models_left_out, "models");
  leftOut("lanes-tenants-left-out", seen.tenants_left_out, "tenants");
}

function showAway(problem) {
  byId("lanes-away").hidden = !problem;
  put(byId("lanes-away"), problem);
  byId("lanes-dot").classList.toggle("status-dot-live", !problem);
  put(byId("lanes-status"), problem ? "Away" : "Live");
}

async function refresh() {
  try {
    const answer = await fetch(`${url}/data`, {signal: AbortSignal.timeout(PATIENCE_MS)});
    if (!answer.ok) { throw new Error(`it answers ${answer.status}; load this page anew`); }
    const seen = await answer.json();
    const old = seen.shown ? ` What is shown is ${duration(seen.age_s)} old.` : "";
    const problem = `Broker away since ${clock(seen.away_s)}: ${seen.problem.replace(/\.$/, "")}.${old}`;
    showAway(seen.problem ? problem : "");
    if (seen.shown) { show(seen.shown); }
  } catch (error) {
    showAway(`Flower is away: ${error.message}.`);
  }
}

async function go() {
  if (!document.hidden) { await refresh(); }
  setTimeout(go, REFRESH_MS);
}

function listenTo(form) {
  const {kind, name, field, value, unseen} = form.elements;
  const offer = () => field.replaceChildren(...FIELDS[kind.value].map((each) => make("option", each)));
  kind.addEventListener("change", offer);
  offer();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = value.value.trim();
    const number = Number(text.replace(/,/g, ""));
    const set = text === "" || text === "none" ? null : Number.isNaN(number) ? text : number;
    change({action: "set", [kind.value]: name.value.trim(), values: {[field.value]: set}, new: unseen.checked});
  });
}

if (mayChange) { listenTo(byId("lanes-set")); }
go();
