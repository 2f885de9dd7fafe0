// A conversation whose answers are read while they are made.

import { $, call, element } from "./common.js";

const messages = [];
let answering = null; // the job whose answer is being read: { url, source, text, bubble }

function bubble(role, text = "") {
  $("hint")?.remove();
  const made = element("div", text, `bubble ${role}`);
  $("log").append(made);
  made.scrollIntoView({ block: "end" });
  return made;
}

function note(text) {
  $("state").textContent = text;
}

async function ask(question) {
  messages.push({ role: "user", content: question });
  bubble("user", question);
  busy(true);
  note("Sending …");
  try {
    const { task_id } = await call("POST", "/chat", { lane: $("lane").value, messages });
    note("Waiting in the lane …");
    read(`/chat/${task_id}`);
  } catch (error) {
    messages.pop();
    bubble("failed", error.message);
    $("question").value = question;
    busy(false);
  }
}

function read(url) {
  const made = { url, text: "", bubble: bubble("assistant waiting"), source: new EventSource(url) };
  answering = made;
  // A broken connection: the browser comes back by itself, with the id of the last event that it has seen.
  made.source.onerror = () => (made.source.readyState === EventSource.CLOSED ? end("failed", "The answer is lost.") : note("Reconnecting …"));
  made.source.onmessage = ({ data }) => take(made, JSON.parse(data));
}

function take(made, event) {
  if (made !== answering) return;
  if (event.type === "content_block_delta" && event.delta.text) {
    note("Answering …");
    show(made, made.text + event.delta.text);
  } else if (event.type === "restart") {
    note("The answer broke off and begins anew …");
    show(made, "");
  } else if (event.type === "message_stop") {
    messages.push({ role: "assistant", content: made.text });
    end("done");
    if (messages.length === 2) title();
  } else if (event.type === "error" && event.error.type === "BrokerUnreachable") {
    note("The queue is away; reconnecting …");
  } else if (event.type === "error") {
    event.error.type === "Cancelled" ? end("stopped", "Stopped.") : end("failed", event.error.message);
  }
}

function show(made, text) {
  const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 40;
  made.text = text;
  made.bubble.textContent = text; // never innerHTML: an answer is somebody else's text
  made.bubble.classList.toggle("waiting", !text);
  if (atEnd) scrollTo(0, document.body.scrollHeight);
}

function end(how, why = "") {
  const made = answering;
  answering = null;
  made.source.close();
  made.bubble.classList.remove("waiting");
  made.bubble.classList.add(how);
  if (how !== "done") {
    messages.pop(); // the question may be asked again
    if (!made.text) made.bubble.remove();
    bubble(how, why);
  }
  busy(false);
}

async function title() {
  const request = `A title of at most six words for a conversation that begins with: ${messages[0].content}`;
  try {
    const { text } = await call("POST", "/ask", { lane: "normal", messages: [{ role: "user", content: request }] });
    $("title").textContent = document.title = text.slice(0, 80);
  } catch {
    // It stays a new conversation; the answer is what counts.
  }
}

function busy(is) {
  $("send").hidden = is;
  $("stop").hidden = !is;
  $("stop").disabled = false;
  note("");
  if (!is) $("question").focus();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || !$("stop").hidden) return;
  $("question").value = "";
  ask(question);
});

$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});

// The stream's last event says that the job was cancelled; until then the page shows what still comes.
$("stop").addEventListener("click", async () => {
  if (!answering) return;
  $("stop").disabled = true;
  note("Stopping …");
  await call("DELETE", answering.url).catch((error) => end("failed", error.message));
});

// A closed tab must not cost an answer that nobody reads. The server cannot tell it from a connection that broke, so
// the page says so on its way out; `keepalive` lets the request outlive it, as sendBeacon does, which knows no DELETE.
// Not on `visibilitychange`: who looks at another tab will be back.
addEventListener("pagehide", () => {
  if (answering) call("DELETE", answering.url, undefined, { keepalive: true }).catch(() => {});
});
