// The settings of sampling, which chat and completion share, and remember.

import { given } from "./api.js";
import { make } from "./dom.js";
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

// Returns the settings as an element, and what reads them as fields of a request.
export function samplingSettings(name, { many, usual = {} }) {
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
  const element = make(
    "details",
    { className: "settings", open: matchMedia("(min-width: 62rem)").matches },
    make("summary", {}, word("settings")),
    make("p", { className: "hint" }, word("settingsHint")),
    make("div", { className: "fields" }, ...numbers, labelled("stopAt", make("textarea", { rows: 2 })), ...held),
  );
  const read = () => {
    const fields = {};
    for (const field of Object.keys(FIELDS)) if (inputs[field]?.value) fields[field] = Number(inputs[field].value);
    const stop = inputs.stopAt.value.split("\n").filter(Boolean);
    const form = FORMS[inputs.form.value];
    return given({ ...fields, stop: stop.length ? stop : null, ...(form ? form(inputs.formText.value) : {}) });
  };
  return { element, read };
}
