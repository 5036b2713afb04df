// Texts in the order of what they have to do with a query.

import { post } from "./api.js";
import { announce, make } from "./dom.js";
import { word } from "./words.js";

let documents = "";

export function searchPanel(model) {
  const query = make("input", { id: "query", type: "search", required: true });
  const texts = make("textarea", { id: "documents", rows: 8, required: true, value: documents });
  texts.addEventListener("change", () => (documents = texts.value));
  const result = make("div", { className: "result" });
  const button = make("button", { type: "submit", className: "main" }, word("find"));
  const search = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const lines = texts.value.split("\n").filter((line) => line.trim());
      const { results } = await post("/v1/rerank", { model: model.id, query: query.value, documents: lines });
      const hits = results.map((hit) =>
        make("li", {}, make("span", { className: "said" }, hit.document.text), make("span", { className: "number" }, hit.relevance_score.toFixed(3))),
      );
      result.replaceChildren(make("ol", { className: "hits", "aria-label": word("result") }, ...hits));
      announce(word("answered", results[0].document.text));
    } catch (error) {
      result.replaceChildren(make("p", { className: "error", role: "alert" }, word("failed", error.message)));
    } finally {
      button.disabled = false;
    }
  };
  const form = make(
    "form",
    { className: "ask", onsubmit: search },
    make("label", { htmlFor: "query" }, word("query")),
    query,
    make("label", { htmlFor: "documents" }, word("documents")),
    texts,
    make("div", { className: "row" }, button),
  );
  return { element: make("section", { className: "card", "aria-label": word("search") }, form, result) };
}
