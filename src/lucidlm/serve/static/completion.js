// Texts that go on from a prompt, if wanted with the probability of each token.

import { announce, make } from "./dom.js";
import { samplingSettings } from "./sampling.js";
import { tokenView } from "./tokens.js";
import { word } from "./words.js";
import { cutMark, writing } from "./writing.js";

const TOP = 5;
let lastPrompt = "";

export function completionPanel(model) {
  const settings = samplingSettings("completion", { many: true, usual: { max_tokens: 100 }, steering: model.steering });
  const prompt = make("textarea", { id: "prompt", rows: 4, value: lastPrompt, placeholder: word("promptHint") });
  const likely = make("input", { id: "likely", type: "checkbox", checked: true });
  const texts = make("ol", { className: "texts", "aria-label": word("result") });

  const start = async () => {
    lastPrompt = prompt.value;
    const asked = settings.read();
    const shown = Array.from({ length: asked.n ?? 1 }, () => {
      const said = make("span", { className: "said" });
      const tokens = likely.checked ? tokenView() : null;
      const before = make("span", { className: "before" }, lastPrompt);
      const element = make("li", {}, before, tokens ? tokens.element : said);
      return { element, said, tokens, text: "" };
    });
    texts.replaceChildren(...shown.map((one) => one.element));
    const body = { model: model.id, prompt: lastPrompt, ...asked, ...(likely.checked ? { logprobs: TOP } : {}) };
    const whole = await work.write("/v1/completions", body, (event) => {
      const [choice] = event.choices;
      const one = shown[choice.index];
      one.text += choice.text;
      if (one.tokens && choice.logprobs)
        choice.logprobs.tokens.forEach((token, place) =>
          one.tokens.add(token, choice.logprobs.token_logprobs[place], choice.logprobs.top_logprobs[place]),
        );
      else one.said.textContent = one.text;
      one.cut = cutMark(choice.finish_reason);
      if (one.cut) one.element.append(one.cut);
    });
    const told = (one) => `${one.text} ${one.cut?.textContent ?? ""}`.trim();
    if (whole) announce(word("answered", shown.map(told).join("\n")));
  };
  const work = writing("write", start);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
  });

  const element = make(
    "div",
    { className: "split" },
    make(
      "section",
      { className: "card", "aria-label": word("completion") },
      make(
        "form",
        { className: "ask" },
        make("label", { htmlFor: "prompt" }, word("prompt")),
        prompt,
        make("div", { className: "check" }, likely, make("label", { htmlFor: "likely" }, word("probabilities"))),
        make("div", { className: "row" }, work.button, work.status),
      ),
      texts,
      make("p", { className: "hint" }, word("probabilityHint")),
    ),
    make("aside", { className: "card" }, settings.element),
  );
  return { element, close: work.close };
}
