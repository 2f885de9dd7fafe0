// Documents on their way through batch. The batch's id is in the page's address, and nothing else is remembered: a
// reload, another browser or a restarted server finds it again.

import { $, call, element, fill, number, pause } from "./common.js";

const MOST_SHOWN = 200;
const id = () => new URLSearchParams(location.search).get("id");

function complain(message, lines = []) {
  $("problem").hidden = !message;
  $("problem").querySelector("p").textContent = message;
  $("problem").querySelector("ul").replaceChildren(...lines.map((line) => element("li", line)));
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  complain("");
  if (!$("file").files.length && !$("text").value.trim()) return complain("Choose a file, or write some lines.");
  const form = new FormData($("form"));
  if (!$("file").files.length) form.delete("file");
  $("send").disabled = true;
  try {
    const { id, invalid } = await call("POST", "/batches", form);
    history.pushState(null, "", `/batch?id=${encodeURIComponent(id)}`);
    if (invalid.length) complain("These lines were left out:", invalid);
    watch();
  } catch (error) {
    complain(error.message, error.invalid);
  } finally {
    $("send").disabled = false;
  }
});

async function watch() {
  const watched = id();
  $("form").hidden = true;
  $("batch").hidden = false;
  for (let complete = false; !complete && watched === id(); ) {
    try {
      complete = show(await call("GET", `/batches/${encodeURIComponent(watched)}`));
    } catch (error) {
      $("state").textContent = error.message;
    }
    await pause(500);
  }
}

function show(batch) {
  const ended = batch.done + batch.failed + batch.cancelled;
  const complete = batch.answers !== null;
  $("bar").max = batch.queued || 1;
  $("bar").value = batch.queued ? ended : 1;
  $("state").textContent = complete ? "Done." : `${number(ended)} of ${number(batch.queued)} documents`;
  if (complete && batch.cancelled) $("state").textContent = "Cancelled.";
  fill($("counts"), ["done", "failed", "cancelled"].map((name) => [name, number(batch[name])]).concat([["left out", number(batch.invalid)]]));
  $("cancel").hidden = complete;
  $("another").hidden = !complete;
  if (complete) answers(batch.answers);
  return complete;
}

function answers(byDocument) {
  const all = Object.entries(byDocument);
  $("results").hidden = !all.length;
  const shown = all.slice(0, MOST_SHOWN).map(([document, text]) => {
    const item = element("li", text);
    item.value = document;
    return item;
  });
  $("answers").replaceChildren(...shown);
  $("more").hidden = all.length <= MOST_SHOWN;
  $("more").textContent = `… and ${number(all.length - shown.length)} more`;
}

$("cancel").addEventListener("click", async () => {
  $("cancel").disabled = true;
  await call("DELETE", `/batches/${encodeURIComponent(id())}`).catch((error) => complain(error.message));
});

$("summarise").addEventListener("click", async () => {
  $("summarise").disabled = true;
  $("summary").hidden = false;
  $("summary").textContent = "One moment …";
  try {
    $("summary").textContent = (await call("POST", `/batches/${encodeURIComponent(id())}/summary`)).text;
  } catch (error) {
    $("summary").textContent = error.message;
  }
  $("summarise").disabled = false;
});

addEventListener("popstate", () => location.reload());

if (id()) watch();
else $("form").hidden = false;
