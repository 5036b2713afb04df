// Tokens with their probabilities: shaded by them, and told in words on hover and focus.

import { make } from "./dom.js";

const SHADES = [0.05, 0.2, 0.5, 0.8];
const PART = "bytes:"; // how the server spells what is a part of a character

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
const bytesOf = (token) => Uint8Array.from(token.matchAll(/\\x(..)/g), (found) => parseInt(found[1], 16));
const named = (token) => (token.startsWith(PART) ? token.slice(PART.length) : JSON.stringify(token));

// Returns an element that tokens are added to as they come.
export function tokenView() {
  const tip = make("div", { className: "tip", role: "tooltip", hidden: true });
  const decoder = new TextDecoder();
  const line = make("span", { className: "tokens", role: "group" });
  const element = make("span", { className: "token-view" }, line, tip);

  const tell = (span) => {
    tip.replaceChildren(
      ...span.alternatives.map(([token, logprob]) =>
        make(
          "div",
          { className: token === span.token ? "chosen" : "" },
          make("code", {}, named(token)),
          make("span", {}, percent(logprob)),
        ),
      ),
    );
    tip.hidden = false;
    const [box, around] = [span.getClientRects()[0], tip.offsetParent.getBoundingClientRect()];
    tip.style.left = `${Math.max(0, Math.min(box.left - around.left, around.width - tip.offsetWidth))}px`;
    tip.style.top = `${box.bottom - around.top + 4}px`;
  };
  const hide = () => (tip.hidden = true);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    const next = step && document.activeElement?.[step];
    if (!next?.classList.contains("token")) return;
    event.preventDefault();
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  // Of a character in several tokens the last one shows it.
  const visible = (token) => (token.startsWith(PART) ? decoder.decode(bytesOf(token), { stream: true }) || "·" : token);

  const add = (token, logprob, top) => {
    const alternatives = Object.entries(top).sort((a, b) => b[1] - a[1]);
    if (!alternatives.some(([other]) => other === token)) alternatives.push([token, logprob]);
    const probability = Math.exp(logprob);
    const shade = SHADES.filter((limit) => probability >= limit).length;
    const span = make(
      "span",
      {
        className: `token shade-${shade}`,
        tabIndex: line.childElementCount ? -1 : 0,
        role: "img",
        "aria-label": `${named(token)}: ${alternatives.map(([other, value]) => `${named(other)} ${percent(value)}`).join(", ")}`,
        onmouseenter: () => tell(span),
        onmouseleave: hide,
        onfocus: () => tell(span),
        onblur: hide,
      },
      visible(token),
    );
    Object.assign(span, { token, alternatives });
    line.append(span);
  };
  return { element, add };
}
