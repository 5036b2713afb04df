// A panel for each task that a model was tuned for.

import { post } from "./api.js";
import { make } from "./dom.js";
import { askOnce } from "./form.js";
import { whyPanel } from "./why.js";
import { taskName, word } from "./words.js";

const TITLES = { text: "text", other: "otherText", question: "question", context: "context" };

export function taskPanel(model, task) {
  const fields = Object.keys(model.task.fields);
  const inputs = fields.map((field) => {
    const input = make("textarea", { id: `task-${field}`, rows: field === "question" ? 2 : 5, required: true });
    return { field, input, label: make("label", { htmlFor: input.id }, word(TITLES[field] ?? field)) };
  });
  const answer = async () => {
    const values = Object.fromEntries(inputs.map(({ field, input }) => [field, input.value]));
    const { results } = await post(`/v1/tasks/${task}`, { model: model.id, ...values });
    const elements = shown(results[0], values);
    const why = model.abilities.includes("explain") ? asksWhy(model, results[0], values) : [];
    return { elements: [...elements, ...why], said: elements.map((element) => element.textContent).join(" ") };
  };
  return askOnce(taskName(task), "run", inputs.flatMap(({ label, input }) => [label, input]), answer);
}

function shown(found, asked) {
  if (found.probabilities) return labels(found);
  if (found.entities) return entities(found.entities, asked.text);
  if ("answer" in found) return span(found, asked.context);
  if ("score" in found) return [make("p", { className: "large" }, `${word("score")}: ${found.score.toFixed(3)}`)];
  return [make("p", { className: "said large" }, found.text)];
}

// What asks why: a label, or an answer in a passage.
function asksWhy(model, found, asked) {
  if (found.probabilities) {
    const others = ranked(found).slice(1).map(([label]) => label);
    return [whyPanel({ model: model.id, text: asked.text }, others)];
  }
  if ("answer" in found)
    return [whyPanel({ model: model.id, text: asked.question, context: asked.context }, null)];
  return [];
}

const ranked = (found) => Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]);

function labels(found) {
  const chosen = found.labels ?? [found.label];
  const bars = ranked(found).map(([label, probability]) => {
    const bar = make("meter", { min: 0, max: 1, value: probability, "aria-label": label });
    const name = make("span", { className: chosen.includes(label) ? "chosen" : "" }, label);
    return make("li", {}, name, bar, make("span", { className: "number" }, `${(100 * probability).toFixed(1)} %`));
  });
  return [make("p", { className: "large" }, chosen.join(", ") || word("noLabels")), make("ul", { className: "bars" }, ...bars)];
}

function marked(text, places) {
  const parts = [];
  let end = 0;
  for (const { start, length, title } of places) {
    parts.push(text.slice(end, start), make("mark", {}, text.slice(start, start + length), title ? make("small", {}, ` ${title}`) : null));
    end = start + length;
  }
  return make("p", { className: "said" }, ...parts, text.slice(end));
}

// The server counts characters, JavaScript pairs of bytes.
const place = (text, characters) => [...text].slice(0, characters).join("").length;

function span(found, context) {
  if (!found.answer) return [make("p", { className: "large" }, word("noAnswer"))];
  const start = place(context, found.start);
  return [
    make("p", { className: "large" }, found.answer),
    marked(context, [{ start, length: found.answer.length }]),
  ];
}

function entities(found, text) {
  if (!found.length) return [make("p", { className: "large" }, word("noEntities"))];
  const places = found.map(({ kind, start, end }) => {
    const begin = place(text, start);
    return { start: begin, length: place(text, end) - begin, title: kind };
  });
  return [marked(text, places)];
}
