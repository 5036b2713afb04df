// Look inside: where heads look, what each layer would answer, how large states are, what writes an answer's logit.

import { given, post } from "./api.js";
import { make, signed } from "./dom.js";
import { askOnce } from "./form.js";
import { heatMap } from "./heatmap.js";
import { placeName, word } from "./words.js";

const percent = (share) => `${(100 * share).toFixed(0)} %`;
const few = (value, digits = 2) => signed(value, digits, "");

// Of each view: the titles of its grids, which of their labels are words of ours, and what is said of it.
const VIEWS = {
  attention: {
    titles: ({ grids }) => grids.map((grid, place) => (isOfHeads(grid) && place ? word("lostWithout") : placeName(grid.title))),
    ours: (grid) => [isOfHeads(grid), isOfHeads(grid)],
    most: (grid) => (isOfHeads(grid) ? null : 1),
    said: ({ figures, grids }) => {
      const [sink, even] = [percent(figures.weight_on_first_token), percent(figures.even_weight)];
      const needed = figures.most_needed;
      return [
        word("sink", sink, JSON.stringify(grids[0].rows[0]), even),
        needed ? word("needed", placeName(`layer ${needed.layer}, head ${needed.head}`), few(needed.nats, 4)) : null,
      ];
    },
  },
  lens: {
    titles: ({ grids }) => (grids.length > 1 ? [word("likeliest"), word("divergence")] : [word("labelChances")]),
    ours: () => [true, false],
    most: (_, place) => (place ? null : 1),
    said: ({ figures, grids }) => {
      if (!figures.agreement_by_layer)
        return [word("labelAgree", percent(figures.agreement), placeName(figures.agrees_from)), word("labelHint")];
      const [shares, spread] = [figures.agreement_by_layer, figures.divergence_by_layer];
      const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
      const rows = grids[0].rows.map(placeName);
      return [
        word("lensAgree", percent(mean), percent(shares[0]), rows[0], percent(shares.at(-1)), rows.at(-2)),
        word("lensSpread", few(spread[0]), few(spread.at(-1))),
        word("lensHint"),
      ];
    },
  },
  norms: {
    titles: () => [word("normStream"), word("normAttention"), word("normMlp")],
    ours: () => [true, false],
    most: () => null,
    said: ({ figures }) => [word("normLargest", few(figures.largest), few(figures.times_median, 1)), word("normHint")],
  },
  logits: {
    titles: ({ figures, grids }) => [
      word("addedTo", figures.answer),
      word("topNeurons", grids[1].rows.length),
      word("logitLost"),
    ],
    ours: () => [true, true],
    most: () => null,
    said: ({ figures }) => {
      const agreed = figures.agreement_with_ablation;
      return [
        word("logitSum", few(figures.sum, 4), few(figures.logit, 4)),
        agreed ? word("logitAgree", few(agreed.value), few(agreed.low), few(agreed.high)) : word("logitFew"),
      ];
    },
  },
};
const NGRAMS = "The n-grams"; // how the one sentence begins that is about some models only

const isOfHeads = (grid) => grid.columns[0] === "head 0";

let lastText = "";

export function inspectPanel(model) {
  const text = make("textarea", { id: "look-text", rows: 3, required: true, value: lastText });
  const options = (kind, count) =>
    Array.from({ length: count }, (_, place) => make("option", { value: place }, placeName(`${kind} ${place}`)));
  const names = Object.keys(VIEWS).map((name) => make("option", { value: name }, word(`view_${name}`)));
  const view = make("select", { id: "look-view" }, ...names);
  const layer = make("select", { id: "look-layer" }, ...options("layer", model.layers));
  const all = make("option", { value: "" }, word("allHeads"));
  const head = make("select", { id: "look-head" }, all, ...options("head", model.heads));
  const target = make("input", { id: "look-target", autocomplete: "off", placeholder: word("targetHint") });
  const foil = make("input", { id: "look-foil", autocomplete: "off", placeholder: word("foilHint") });
  const labelled = (key, input) => make("div", { className: "field" }, make("label", { htmlFor: input.id }, word(key)), input);
  const hint = make("p", { className: "hint", id: "look-hint" });
  view.setAttribute("aria-describedby", hint.id);
  const of = {
    attention: make("div", { className: "pair" }, labelled("layer", layer), labelled("head", head)),
    logits: make("div", { className: "pair" }, labelled("target", target), labelled("foil", foil)),
  };
  const show = () => {
    for (const [name, fields] of Object.entries(of)) fields.hidden = name !== view.value;
    hint.textContent = word(`view_${view.value}Hint`);
  };
  view.addEventListener("change", show);
  show();

  const ask = async () => {
    lastText = text.value;
    const chosen = {
      attention: { layer: Number(layer.value), head: head.value === "" ? null : Number(head.value) },
      logits: { target: target.value, foil: foil.value },
    }[view.value];
    const body = { model: model.id, text: text.value, view: view.value, ...given(chosen ?? {}) };
    return shown(await post("/v1/inspect", body));
  };
  const fields = [make("label", { htmlFor: text.id }, word("text")), text, labelled("view", view), hint, of.attention, of.logits];
  return askOnce(word("inspect"), "look", fields, ask);
}

function shown(found) {
  const { titles, ours, most, said } = VIEWS[found.view];
  const names = titles(found);
  const maps = found.grids.map((grid, place) => {
    const [rows, columns] = [grid.rows, grid.columns].map((labels, side) => (ours(grid)[side] ? labels.map(placeName) : labels));
    const { values, texts = null } = grid;
    return heatMap({ title: names[place], rows, columns, values, texts, most: most(grid, place) });
  });
  const notes = found.verdict.some((line) => line.startsWith(NGRAMS)) ? [word("ngramsLeftOut")] : [];
  const lines = [...said(found), ...notes].filter(Boolean);
  return { elements: [...lines.map((line) => make("p", { className: "trust" }, line)), ...maps], said: lines.join(" ") };
}
