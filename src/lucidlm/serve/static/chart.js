// Line charts in SVG: the lines are stretched to any width, the words beside them are not.

import { draw, make } from "./dom.js";

const COLOURS = 6;

function ticks(low, high, count = 4) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(tick);
  return found;
}

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

const NOISY = 100; // points from which on a line is smoothed, and drawn faintly as it is

function smoothed(points) {
  const keep = 1 - Math.min(1, 50 / points.length);
  let [sum, weight] = [0, 0];
  return points.map(([x, y]) => {
    [sum, weight] = [keep * sum + (1 - keep) * y, keep * weight + (1 - keep)];
    return [x, sum / weight];
  });
}

// Returns a chart of lines {name, points: [[x, y], …]}; a point on a line that has few is drawn as a dot.
export function lineChart(title, lines) {
  const drawn = lines.filter((line) => line.points.length);
  const all = drawn.flatMap((line) => line.points);
  if (!all.length) return null;
  const bound = (place, pick) => all.reduce((found, point) => pick(found, point[place]), all[0][place]);
  const [left, right, low, high] = [bound(0, Math.min), bound(0, Math.max), bound(1, Math.min), bound(1, Math.max)];
  const across = (x) => (1000 * (x - left)) / (right - left || 1);
  const up = (y) => 1000 - (1000 * (y - low)) / (high - low || 1);

  const svg = draw("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": "true" });
  const [rows, columns] = [ticks(low, high), ticks(left, right)];
  for (const tick of rows) svg.append(draw("path", { class: "grid", d: `M0 ${up(tick)}H1000` }));
  drawn.forEach((line, place) => {
    const placed = (some) => some.map(([x, y]) => `${across(x).toFixed(1)} ${up(y).toFixed(1)}`);
    const noisy = line.points.length >= NOISY;
    const points = placed(noisy ? smoothed(line.points) : line.points);
    const colour = `colour-${place % COLOURS}`;
    if (noisy) svg.append(draw("path", { class: `faint ${colour}`, d: `M${placed(line.points).join("L")}` }));
    svg.append(draw("path", { class: `line ${colour}`, d: `M${points.join("L")}` }));
    if (points.length < 20) svg.append(draw("path", { class: `dots ${colour}`, d: points.map((point) => `M${point}h0`).join("") }));
  });
  const label = (tick, style, value) => {
    const span = make("span", {}, short.format(tick));
    span.style[style] = `${value / 10}%`;
    return span;
  };
  const last = drawn.map((line) => `${line.name}: ${line.points.at(-1)[1].toFixed(3)}`);
  return make(
    "figure",
    { className: "chart", role: "img", "aria-label": `${title}. ${last.join("; ")}` },
    make("figcaption", {}, title),
    make(
      "div",
      { className: "plot" },
      make("div", { className: "y" }, ...rows.map((tick) => label(tick, "top", up(tick)))),
      svg,
      make("div", { className: "x" }, ...columns.map((tick) => label(tick, "left", across(tick)))),
    ),
    make("ul", { className: "legend" }, ...drawn.map((line, place) => make("li", { className: `colour-${place % COLOURS}` }, last[place]))),
  );
}
