// Elements that stay the same ones while what they show changes.

export function put(element, text) {
  if (element.textContent !== text) { element.textContent = text; }
}

export function make(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

// Have one child for each item, the same one for as long as its key is there.
export function keep(parent, items, keyOf, makeOne, fill) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, at) => {
    const key = keyOf(item);
    const child = there.get(key) || makeOne(item);
    there.delete(key);
    child.dataset.key = key;
    if (parent.children[at] !== child) { parent.insertBefore(child, parent.children[at] || null); }
    fill(child, item);
  });
  there.forEach((child) => child.remove());
}

function emptyRow(words, columns) {
  const cell = make("td", words);
  cell.colSpan = columns;
  cell.className = "empty-table-message";
  return make("tr", cell);
}

export function rows(id, columns, items, keyOf, fill) {
  const body = document.getElementById(id);
  if (!items.length) {
    keep(body, [null], () => "-", () => emptyRow(body.dataset.empty, columns), () => {});
    return;
  }
  const makeRow = () => make("tr", ...Array.from({length: columns}, () => make("td")));
  keep(body, items, keyOf, makeRow, (row, item) => fill([...row.children], item));
}
