// Pieces of text that say more on hover and focus: Tab reaches the first of them, the arrow keys go on from there.

import { make } from "./dom.js";

// Returns an element that pieces are added to as they come.
export function pieceView(label = null) {
  const tip = make("div", { className: "tip", role: "tooltip", hidden: true });
  const line = make("span", { className: "tokens", role: "group", "aria-label": label });
  const element = make("span", { className: "token-view" }, line, tip);

  const tell = (span, told) => {
    tip.replaceChildren(...told());
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

  // Adds a piece; `said` is read out in its place, and `told` returns what the tip holds.
  const add = (text, className, said, told) => {
    const span = make(
      "span",
      {
        className: `token ${className}`,
        tabIndex: line.childElementCount ? -1 : 0,
        role: "img",
        "aria-label": said,
        onmouseenter: () => tell(span, told),
        onmouseleave: hide,
        onfocus: () => tell(span, told),
        onblur: hide,
      },
      text,
    );
    line.append(span);
    return span;
  };
  const plain = (text) => line.append(text);
  return { element, add, plain };
}
