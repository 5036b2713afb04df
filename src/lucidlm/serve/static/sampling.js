// The settings of sampling, which chat and completion share, and remember.

import { given } from "./api.js";
import { make, signed } from "./dom.js";
import { word } from "./words.js";

const FIELDS = {
  max_tokens: { min: 1, step: 1, whole: true },
  temperature: { min: 0, max: 100, step: 0.1 },
  top_p: { min: 0.01, max: 1, step: 0.01 },
  top_k: { min: 0, step: 1, whole: true },
  min_p: { min: 0, max: 1, step: 0.01 },
  repetition_penalty: { min: 0.1, max: 100, step: 0.05 },
  presence_penalty: { min: -2, max: 2, step: 0.1 },
  frequency_penalty: { min: -2, max: 2, step: 0.1 },
  seed: { step: 1, whole: true },
  n: { min: 1, max: 16, step: 1, whole: true },
};

// What a text can be held to, and the field of a request that says so.
const FORMS = {
  schema: (text) => ({ guided_json: text }),
  regex: (text) => ({ guided_regex: text }),
  choices: (text) => ({ guided_choice: text.split("\n").filter(Boolean) }),
  grammar: (text) => ({ guided_grammar: text }),
  required: (text) => ({ required_phrases: text.split("\n").filter(Boolean) }),
  forbidden: (text) => ({ forbidden_phrases: text.split("\n").filter(Boolean) }),
};

const FARTHEST = 8; // strengths that a slider reaches, unless the server is set to a stronger one

// Returns the settings as an element, and what reads them as fields of a request. `steering` are the strengths of the
// server's vectors, by name.
export function samplingSettings(name, { many, usual = {}, steering = {} }) {
  const kept = { ...usual, ...JSON.parse(sessionStorage.getItem(`lucidlm-${name}`) ?? "{}") };
  const inputs = {};
  const keep = () => {
    const values = Object.fromEntries(Object.entries(inputs).map(([field, input]) => [field, input.value]));
    sessionStorage.setItem(`lucidlm-${name}`, JSON.stringify(values));
  };
  const labelled = (field, input) => {
    inputs[field] = input;
    input.id = `${name}-${field}`;
    input.value = kept[field] ?? "";
    input.addEventListener("change", keep);
    const hint = make("small", { id: `${input.id}-hint` }, word(`${field}Hint`));
    input.setAttribute("aria-describedby", hint.id);
    return make("div", { className: "field" }, make("label", { htmlFor: input.id }, word(field)), input, hint);
  };
  const numbers = Object.entries(FIELDS)
    .filter(([field]) => field !== "n" || many)
    .map(([field, { whole, ...limits }]) =>
      labelled(field, make("input", { type: "number", inputMode: whole ? "numeric" : "decimal", ...limits })),
    );
  const forms = ["free", ...Object.keys(FORMS)].map((form) => make("option", { value: form }, word(`form_${form}`)));
  const held = [
    labelled("form", make("select", {}, ...forms)),
    labelled("formText", make("textarea", { rows: 3, spellcheck: false })),
  ];
  inputs.form.value = kept.form ?? "free";
  const sliders = Object.entries(steering).map(([vector, strength]) => {
    const end = Math.max(FARTHEST, Math.ceil(Math.abs(strength)));
    const input = make("input", { type: "range", min: -end, max: end, step: 0.1, id: `${name}-steer-${vector}` });
    input.value = strength;
    const set = input.value; // rounded to a step of the slider
    input.value = kept[`steer-${vector}`] ?? set;
    inputs[`steer-${vector}`] = input;
    const shown = make("output", { htmlFor: input.id, className: "number" });
    const show = () => (shown.textContent = signed(Number(input.value), 1));
    input.addEventListener("input", show);
    input.addEventListener("change", keep);
    show();
    const label = make("label", { htmlFor: input.id }, vector);
    const element = make("div", { className: "slider" }, label, shown, input);
    // What is as the server is set is left out.
    return { element, strength: () => (input.value === set ? [] : [[vector, Number(input.value)]]) };
  });
  const steered = make(
    "fieldset",
    { className: "steering" },
    make("legend", {}, word("steering")),
    ...sliders.map((slider) => slider.element),
    make("small", {}, word("steeringHint")),
  );
  const element = make(
    "details",
    { className: "settings", open: matchMedia("(min-width: 62rem)").matches },
    make("summary", {}, word("settings")),
    make("p", { className: "hint" }, word("settingsHint")),
    make("div", { className: "fields" }, ...numbers, labelled("stopAt", make("textarea", { rows: 2 })), ...held),
    sliders.length ? steered : null,
  );
  const read = () => {
    const fields = {};
    for (const field of Object.keys(FIELDS)) if (inputs[field]?.value) fields[field] = Number(inputs[field].value);
    const stop = inputs.stopAt.value.split("\n").filter(Boolean);
    const form = FORMS[inputs.form.value];
    const strengths = sliders.flatMap((slider) => slider.strength());
    const steer = strengths.length ? Object.fromEntries(strengths) : null;
    return given({ ...fields, stop: stop.length ? stop : null, steer, ...(form ? form(inputs.formText.value) : {}) });
  };
  return { element, read };
}
