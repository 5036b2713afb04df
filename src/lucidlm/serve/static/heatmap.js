// Numbers as a table of coloured cells. Tab reaches it, the arrow keys go from cell to cell, and a line above says what one
// holds; screen readers read it as a table.

import { make, signed } from "./dom.js";

const NUMBERED = 400; // most cells that show their numbers
const NARROW = 8; // columns from which on their labels stand upright
const READABLE = 60; // percent of the colour, on which text can still be read
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

// A label on one line: control characters as their pictures, and white space so that it shows.
function visible(text) {
  const line = text.replace(/[\x00-\x1f]/g, (letter) => String.fromCharCode(0x2400 + letter.charCodeAt(0)));
  return line.trim() ? line : line.replaceAll(" ", "␣") || "∅";
}

function digitsOf(largest) {
  if (largest >= 1000) return 0;
  if (largest >= 100) return 1;
  return largest > 0 && largest < 0.1 ? 3 : 2;
}

// Returns a figure of values (rows, columns); null is where there is none. `texts` stand in the cells in place of the
// numbers, and `most` is the value of the strongest colour, the largest if it is left out.
export function heatMap({ title, rows, columns, values, texts = null, most = null }) {
  const found = values.flat().reduce((largest, value) => Math.max(largest, Math.abs(value ?? 0)), 0);
  const [largest, digits] = [most ?? (found || 1), digitsOf(found)];
  const number = (value) => (value === null ? "–" : signed(value, digits, ""));
  const shown = texts !== null || rows.length * columns.length <= NUMBERED;
  const strongest = shown ? READABLE : 100;
  const told = (row, column) => {
    const text = texts ? `${JSON.stringify(texts[row][column])} ` : "";
    return `${visible(rows[row])} · ${visible(columns[column])}: ${text}${number(values[row][column])}`;
  };

  const cell = (value, row, column) => {
    const text = texts ? visible(texts[row][column]) : number(value);
    const attributes = { className: value < 0 ? "below" : "", tabIndex: -1, "aria-label": told(row, column) };
    const element = make("td", attributes, shown ? text : "");
    element.style.setProperty("--share", `${Math.round(strongest * Math.min(1, Math.abs(value ?? 0) / largest))}%`);
    return element;
  };
  const names = columns.map((name) => make("th", { scope: "col" }, make("span", {}, visible(name))));
  const lines = values.map((line, row) =>
    make("tr", {}, make("th", { scope: "row" }, visible(rows[row])), ...line.map((value, column) => cell(value, row, column))),
  );
  const body = make("tbody", {}, ...lines);
  const kinds = ["heat", shown ? "" : "small", columns.length >= NARROW && !texts ? "narrow" : ""];
  const table = make(
    "table",
    { className: kinds.filter(Boolean).join(" "), role: "grid", "aria-label": title },
    make("thead", {}, make("tr", {}, make("td", {}), ...names)),
    body,
  );

  const line = make("p", { className: "hint", "aria-hidden": "true" }, "\u00a0");
  const placed = (element) => [body.contains(element) ? element.parentElement.rowIndex - 1 : -1, element.cellIndex - 1];
  const tell = (event) => {
    const element = event.target.closest("td");
    const [row, column] = element ? placed(element) : [-1, -1];
    if (row >= 0) line.textContent = told(row, column);
  };
  let current = lines[0]?.cells[1];
  if (current) current.tabIndex = 0;
  const move = (to) => {
    current.tabIndex = -1;
    current = to;
    current.tabIndex = 0;
  };
  table.addEventListener("mouseover", tell);
  table.addEventListener("focusin", (event) => {
    tell(event);
    if (event.target.matches("tbody td")) move(event.target);
  });
  table.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const element = event.target.closest("tbody td");
    if (!step || !element) return;
    event.preventDefault();
    const [row, column] = placed(element);
    const next = lines[row + step[0]]?.cells[column + step[1] + 1];
    if (next?.matches("td")) next.focus();
  });
  const wide = make("div", { className: "wide" }, table);
  return make("figure", { className: "grid-view" }, make("figcaption", {}, title), line, wide);
}
