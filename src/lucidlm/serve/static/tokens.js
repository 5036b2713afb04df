// Tokens with their probabilities: shaded by them, and told in words on hover and focus.

import { make } from "./dom.js";
import { pieceView } from "./pieces.js";

const SHADES = [0.05, 0.2, 0.5, 0.8];
const PART = "bytes:"; // how the server spells what is a part of a character

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
const bytesOf = (token) => Uint8Array.from(token.matchAll(/\\x(..)/g), (found) => parseInt(found[1], 16));
const named = (token) => (token.startsWith(PART) ? token.slice(PART.length) : JSON.stringify(token));

// Returns an element that tokens are added to as they come.
export function tokenView() {
  const view = pieceView();
  const decoder = new TextDecoder();

  // Of a character in several tokens the last one shows it.
  const visible = (token) => (token.startsWith(PART) ? decoder.decode(bytesOf(token), { stream: true }) || "·" : token);

  const add = (token, logprob, top) => {
    const alternatives = Object.entries(top).sort((a, b) => b[1] - a[1]);
    if (!alternatives.some(([other]) => other === token)) alternatives.push([token, logprob]);
    const probability = Math.exp(logprob);
    const shade = SHADES.filter((limit) => probability >= limit).length;
    const said = `${named(token)}: ${alternatives.map(([other, value]) => `${named(other)} ${percent(value)}`).join(", ")}`;
    view.add(visible(token), `shade-${shade}`, said, () =>
      alternatives.map(([other, value]) =>
        make(
          "div",
          { className: other === token ? "chosen" : "" },
          make("code", {}, named(other)),
          make("span", {}, percent(value)),
        ),
      ),
    );
  };
  return { element: view.element, add };
}
