// Conversations: they are kept as long as the page is.

import { announce, make, perFrame } from "./dom.js";
import { samplingSettings } from "./sampling.js";
import { word } from "./words.js";
import { cutMark, sendsOnEnter, writing } from "./writing.js";

const talks = new Map(); // by model

function turn(role, content, reason = null) {
  const said = make("div", { className: "said" }, content);
  const who = make("h3", {}, word(role === "user" ? "you" : "assistant"));
  const element = make("li", { className: `turn ${role}` }, who, said, cutMark(reason));
  return { element, said };
}

export function chatPanel(model) {
  if (!talks.has(model.id)) talks.set(model.id, []);
  const talk = talks.get(model.id);
  const settings = samplingSettings("chat", { many: false, steering: model.steering });
  const system = make("textarea", { id: "system", rows: 2, value: sessionStorage.getItem("lucidlm-system") ?? "" });
  system.addEventListener("change", () => sessionStorage.setItem("lucidlm-system", system.value));
  const list = make("ol", { className: "talk", "aria-label": word("chat") });
  const message = make("textarea", { id: "message", rows: 2, placeholder: word("messageHint"), required: true });
  const empty = make("p", { className: "empty" }, word("noTalk"));

  const show = () => {
    list.replaceChildren(...talk.map((one) => turn(one.role, one.content, one.reason).element));
    empty.hidden = talk.length > 0;
  };

  const send = async () => {
    const content = message.value.trim();
    if (!content || work.busy()) return;
    message.value = "";
    talk.push({ role: "user", content });
    show();
    const reply = turn("assistant", "");
    list.append(reply.element);
    reply.element.scrollIntoView({ block: "end" });
    const told = system.value.trim() ? [{ role: "system", content: system.value.trim() }] : [];
    const body = { model: model.id, messages: [...told, ...talk.map(({ role, content }) => ({ role, content }))], ...settings.read() };
    let [said, reason] = ["", null];
    const paint = perFrame(() => {
      reply.said.textContent = said;
      // Stay at the end, unless the reader has scrolled up.
      const below = document.documentElement.scrollHeight - innerHeight - scrollY;
      if (below < 240) reply.element.scrollIntoView({ block: "end" });
    });
    const whole = await work.write("/v1/chat/completions", body, (event) => {
      said += event.choices[0].delta.content ?? "";
      reason = event.choices[0].finish_reason;
      paint();
    });
    const cut = cutMark(reason);
    if (cut) reply.element.append(cut);
    if (said) talk.push({ role: "assistant", content: said, reason });
    else {
      talk.pop(); // so that it can be asked once more
      message.value = content;
      show();
    }
    if (whole) announce(word("answered", `${said} ${cut?.textContent ?? ""}`.trim()));
  };
  const work = writing("send", send);
  sendsOnEnter(message, send);
  const again = make("button", { type: "button", className: "quiet", onclick: restart }, word("again"));
  function restart() {
    work.close();
    talk.length = 0;
    show();
    message.focus();
  }

  show();
  const element = make(
    "div",
    { className: "split" },
    make(
      "section",
      { className: "card", "aria-label": word("chat") },
      empty,
      list,
      make(
        "form",
        { className: "ask" },
        make("label", { className: "unseen", htmlFor: "message" }, word("message")),
        message,
        make("div", { className: "row" }, work.button, again, work.status),
      ),
    ),
    make(
      "aside",
      { className: "card" },
      make(
        "div",
        { className: "field" },
        make("label", { htmlFor: "system" }, word("system")),
        system,
        make("small", {}, word("systemHint")),
      ),
      settings.element,
    ),
  );
  return { element, close: work.close };
}
