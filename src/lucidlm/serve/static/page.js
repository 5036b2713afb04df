// The page: which panels the served models can fill, and which of them is shown.

import { get } from "./api.js";
import { make } from "./dom.js";
import { currentLanguage, setLanguage, taskName, word } from "./words.js";
import { chatPanel } from "./chat.js";
import { completionPanel } from "./completion.js";
import { taskPanel } from "./tasks.js";
import { searchPanel } from "./search.js";
import { inspectPanel } from "./inspect.js";
import { runsPanel } from "./runs.js";

const main = document.getElementById("main");
const select = document.getElementById("model");
let models = [];
let panels = [];
let leave = () => {};

function offered(hasRuns) {
  const able = (ability) => models.filter((model) => model.abilities.includes(ability));
  const found = [];
  if (able("chat").length) found.push({ id: "chat", title: () => word("chat"), models: able("chat"), panel: chatPanel });
  if (able("completions").length)
    found.push({ id: "completion", title: () => word("completion"), models: able("completions"), panel: completionPanel });
  for (const task of new Set(models.filter((model) => model.task).map((model) => model.task.name)))
    found.push({
      id: `task-${task}`,
      title: () => taskName(task),
      models: able(`tasks/${task}`),
      panel: (model) => taskPanel(model, task),
    });
  if (able("rerank").length)
    found.push({ id: "search", title: () => word("search"), models: able("rerank"), panel: searchPanel });
  if (able("inspect").length)
    found.push({ id: "inspect", title: () => word("inspect"), models: able("inspect"), panel: inspectPanel });
  if (hasRuns) found.push({ id: "runs", title: () => word("runs"), models: [], panel: runsPanel });
  return found;
}

function show() {
  leave();
  const chosen = panels.find((panel) => `#${panel.id}` === location.hash) ?? panels[0];
  document.documentElement.lang = currentLanguage() === "zh" ? "zh-CN" : "en";
  document.getElementById("skip").textContent = word("skip");
  document.getElementById("language").textContent = word("other");
  document.getElementById("model-label").textContent = word("model");
  document.getElementById("nav").replaceChildren(
    ...panels.map((panel) =>
      make("a", { href: `#${panel.id}`, "aria-current": panel === chosen ? "page" : null }, panel.title()),
    ),
  );
  if (!chosen) {
    main.replaceChildren(make("p", { className: "empty" }, word("nothing")));
    return;
  }
  document.title = `${chosen.title()} · lucidlm`;
  const before = select.value;
  select.replaceChildren(...chosen.models.map((model) => make("option", { value: model.id }, model.id)));
  if (chosen.models.some((model) => model.id === before)) select.value = before;
  document.querySelector(".where").classList.toggle("alone", chosen.models.length === 0);
  const model = chosen.models.find((one) => one.id === select.value);
  const { element, close } = chosen.panel(model);
  leave = close ?? (() => {});
  main.replaceChildren(element);
}

window.addEventListener("hashchange", () => {
  show();
  main.focus();
});
select.addEventListener("change", show);
document.getElementById("language").addEventListener("click", () => {
  setLanguage(currentLanguage() === "zh" ? "en" : "zh");
  show();
});
// The hash names panels, so this link moves the focus itself.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

try {
  models = (await get("/v1/models")).data;
  const hasRuns = await get("/runs").then(
    () => true,
    () => false,
  );
  panels = offered(hasRuns);
  show();
} catch (error) {
  main.replaceChildren(make("p", { className: "error", role: "alert" }, word("failed", error.message)));
}
