// Texts in the order of what they have to do with a query.

import { post } from "./api.js";
import { make } from "./dom.js";
import { askOnce } from "./form.js";
import { word } from "./words.js";

let documents = "";

export function searchPanel(model) {
  const query = make("input", { id: "query", type: "search", required: true });
  const texts = make("textarea", { id: "documents", rows: 8, required: true, value: documents });
  texts.addEventListener("change", () => (documents = texts.value));
  const search = async () => {
    const lines = texts.value.split("\n").filter((line) => line.trim());
    const { results } = await post("/v1/rerank", { model: model.id, query: query.value, documents: lines });
    const hits = results.map((hit) =>
      make(
        "li",
        {},
        make("span", { className: "said" }, hit.document.text),
        make("span", { className: "number" }, hit.relevance_score.toFixed(3)),
      ),
    );
    const list = make("ol", { className: "hits", "aria-label": word("result") }, ...hits);
    return { elements: [list], said: results[0].document.text };
  };
  const fields = [
    make("label", { htmlFor: "query" }, word("query")),
    query,
    make("label", { htmlFor: "documents" }, word("documents")),
    texts,
  ];
  return askOnce(word("search"), "find", fields, search);
}
