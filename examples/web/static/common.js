// What all pages share: requests that carry Django's CSRF token, and text that is never read as HTML.

const token = document.querySelector('meta[name="csrf-token"]').content;

export const $ = (id) => document.getElementById(id);

export class Refused extends Error {
  constructor(body, status) {
    super(body.error?.message ?? `The server answers with status ${status}.`);
    this.invalid = body.invalid ?? [];
  }
}

/** Send a request and return the JSON of its answer; a Refused says what the server says. */
export async function call(method, url, body, options = {}) {
  const headers = { "X-CSRFToken": token };
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(url, { method, headers, body, ...options });
  } catch {
    throw new Refused({ error: { message: "The server cannot be reached." } });
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(answer, response.status);
  return answer;
}

/** Make an element with text in it. */
export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Fill a <dl> with names and values, in place, so that what has not changed does not flicker. */
export function fill(list, pairs) {
  while (list.children.length < pairs.length) {
    const pair = element("div");
    pair.append(element("dt"), element("dd"));
    list.append(pair);
  }
  pairs.forEach(([name, value], index) => {
    const [dt, dd] = list.children[index].children;
    if (dt.textContent !== name) dt.textContent = name;
    if (dd.textContent !== String(value)) dd.textContent = value;
  });
}

export const number = (value) => value.toLocaleString("en");
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

for (const link of document.querySelectorAll("nav a")) {
  if (link.pathname === location.pathname) link.setAttribute("aria-current", "page");
}
