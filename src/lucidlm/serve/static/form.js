// A form that asks once: its answer, or what went wrong, stands below it.

import { announce, make } from "./dom.js";
import { word } from "./words.js";

// Returns a card with the fields and a button; `answer` returns the elements to show, and what is read out of them.
export function askOnce(title, label, fields, answer) {
  const result = make("div", { className: "result" });
  const button = make("button", { type: "submit", className: "main" }, word(label));
  const onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const { elements, said } = await answer();
      result.replaceChildren(...elements);
      announce(word("answered", said ?? result.textContent));
    } catch (error) {
      result.replaceChildren(make("p", { className: "error", role: "alert" }, word("failed", error.message)));
    } finally {
      button.disabled = false;
    }
  };
  const form = make("form", { className: "ask", onsubmit }, ...fields, make("div", { className: "row" }, button));
  return { element: make("section", { className: "card", "aria-label": title }, form, result) };
}
