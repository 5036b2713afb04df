// Why: the words that an answer rests on, and whether that can be trusted.

import { given, post } from "./api.js";
import { announce, make, signed } from "./dom.js";
import { pieceView } from "./pieces.js";
import { word } from "./words.js";

const MOST = 3; // words that are named
const FAINT = 0.1; // below this share of the largest a word is not underlined

// Returns a button that asks why, beside it what to compare with, and below the answer.
// `asked` are the fields of the endpoint; `others` the labels to compare with, or null where words are.
export function whyPanel(asked, others) {
  const id = "why-other";
  const compared = others
    ? make(
        "select",
        { id },
        make("option", { value: "" }, word("anythingElse")),
        ...others.map((label) => make("option", { value: label }, label)),
      )
    : make("input", { id, placeholder: word("otherAnswer"), autocomplete: "off" });
  const result = make("div", { className: "because" });
  const button = make("button", { type: "button" }, word("why"));
  button.addEventListener("click", async () => {
    button.disabled = true;
    result.setAttribute("aria-busy", "true");
    announce(word("looking"));
    try {
      const body = { ...asked, by: "word", ...given({ rather_than: compared.value }) };
      const found = await post("/v1/explain", body);
      result.replaceChildren(...because(found));
      announce(`${most(found)} ${check(found.faithfulness)}`);
    } catch (error) {
      result.replaceChildren(make("p", { className: "error", role: "alert" }, word("failed", error.message)));
    } finally {
      button.disabled = false;
      result.removeAttribute("aria-busy");
    }
  });
  const choice = make("span", { className: "choice" }, make("label", { htmlFor: id }, word("ratherThan")), compared);
  return make("div", { className: "why" }, make("div", { className: "row" }, button, choice), result);
}

function because(found) {
  const name = (answer) => (answer ? `“${answer}”` : word("noAnswerAtAll"));
  const title =
    found.rather_than === null
      ? word("whyTarget", name(found.target))
      : word("whyRather", name(found.target), name(found.rather_than));
  const largest = Math.max(...found.pieces.map((piece) => Math.abs(piece.attribution))) || 1;
  const first = found.passage ?? 0;
  const parts = [];
  if (first) parts.push([word("question"), 0, first]);
  parts.push([word(first ? "context" : "text"), first, found.pieces.length]);
  const texts = parts.flatMap(([label, start, end]) => {
    const view = pieceView(label);
    for (let place = start; place < end; place++) addPiece(view, found, place, largest);
    return [first ? make("h3", {}, label) : null, make("p", { className: "said" }, view.element)];
  });
  const hint = word("whyHint", word(`unit ${found.unit}`), found.method);
  return [
    make("h2", {}, title),
    ...texts.filter(Boolean),
    ...(found.part ? [make("p", {}, word("whyPart", ...found.part.map((place) => place.toLocaleString())))] : []),
    make("p", {}, most(found)),
    make("p", { className: "check-line" }, check(found.faithfulness)),
    make("p", { className: "hint" }, hint),
  ];
}

function addPiece(view, found, place, largest) {
  const { text, attribution } = found.pieces[place];
  const share = Math.abs(attribution) / largest;
  const side = attribution < 0 ? "against" : "for";
  const answer = found.held.includes(place);
  const classes = [side, share < FAINT ? "faint" : "", answer ? "held" : ""].filter(Boolean).join(" ");
  const shown = signed(attribution, 3);
  const told = () => [make("div", {}, make("code", {}, text.trim() || JSON.stringify(text)), make("span", {}, shown))];
  const gap = text.length - text.trimStart().length; // white space is not coloured
  view.plain(text.slice(0, gap));
  view.add(text.slice(gap), classes, `${text.trim()}: ${shown}`, told).style.setProperty("--share", `${Math.round(55 * share)}%`);
}

function most(found) {
  const ordered = [...found.pieces].filter((piece) => piece.text.trim() && piece.attribution > 0);
  ordered.sort((a, b) => b.attribution - a.attribution);
  const named = ordered.slice(0, MOST).map((piece) => `“${piece.text.trim()}” ${signed(piece.attribution, 3)}`);
  return named.length ? word("whyMost", named.join(word("listed"))) : word("whyNothing");
}

function check(test) {
  if (test === null) return word("notTested");
  const points = (value) => signed(100 * value, 1, "");
  const figures = [points(test.figures.comprehensiveness), points(test.random.comprehensiveness), test.p_value.toFixed(3)];
  return word(test.better_than_random ? "better" : "notBetter", ...figures);
}
