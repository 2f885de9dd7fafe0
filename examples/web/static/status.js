// The three lanes, looked at once a second.

import { $, call, fill, number, pause } from "./common.js";

const wait = (ms) => (ms === null ? "–" : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const age = (s) => (s === null ? "–" : wait(s * 1000));

function card(name) {
  const made = document.getElementById(`lane-${name}`);
  if (made) return made;
  const section = $("lane").content.firstElementChild.cloneNode(true);
  section.id = `lane-${name}`;
  section.classList.add(name);
  section.querySelector("h2").textContent = name;
  $("lanes").append(section);
  return section;
}

function show([name, lane]) {
  const section = card(name);
  section.querySelector(".note").textContent = lane.waiting_for ? `waits for ${lane.waiting_for}` : "";
  fill(section.querySelector("dl"), [
    ["queued", number(lane.depth)],
    ["in flight", number(lane.in_flight)],
    ["oldest", age(lane.oldest_s)],
    ["per minute", number(Math.round(lane.throughput_per_min))],
    ["wait p50", wait(lane.wait_ms.p50)],
    ["wait p95", wait(lane.wait_ms.p95)],
    ["done", number(lane.processed)],
    ["failed", number(lane.failed)],
  ]);
}

for (;;) {
  try {
    Object.entries((await call("GET", "/stats")).lanes).forEach(show);
    $("problem").hidden = true;
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  }
  await pause(1000);
}
