// A request that streams: it can be stopped, says how it went, and tells of errors where they belong.

import { announce, make } from "./dom.js";
import { stream } from "./api.js";
import { word } from "./words.js";

// Returns a button that starts and stops, a line that says how it went, and `write`, which streams a request's events.
export function writing(label, start) {
  const button = make("button", { type: "submit", className: "main" }, word(label));
  const status = make("p", { className: "status" });
  let controller = null;

  button.addEventListener("click", (event) => {
    event.preventDefault();
    if (controller) controller.abort();
    else start();
  });

  // Returns whether all of it came.
  const write = async (path, body, onEvent) => {
    controller = new AbortController();
    button.textContent = word("stop");
    status.classList.remove("error");
    status.textContent = "";
    const began = performance.now();
    let tokens = 0;
    try {
      const events = stream(path, { ...body, stream_options: { include_usage: true } }, controller.signal);
      for await (const event of events) {
        if (event.usage) tokens = event.usage.completion_tokens;
        else onEvent(event);
      }
      const seconds = (performance.now() - began) / 1000;
      status.textContent = word("written", tokens, seconds.toFixed(1), (tokens / seconds).toFixed(0));
      return true;
    } catch (error) {
      const stopped = error.name === "AbortError";
      status.classList.toggle("error", !stopped);
      status.textContent = stopped ? word("stopped") : word("failed", error.message);
      announce(status.textContent);
      return false;
    } finally {
      controller = null;
      button.textContent = word(label);
    }
  };
  return { button, status, write, busy: () => controller !== null, close: () => controller?.abort() };
}

// Returns a line that says where a text was cut short, for what the server calls its end; null if it came to one by itself.
export function cutMark(reason) {
  if (reason !== "length" && reason !== "content_filter") return null;
  return make("p", { className: "cut" }, word(`cut_${reason}`));
}

// Lets Enter send a form, where it does not choose a word in an input method, as for Chinese.
export function sendsOnEnter(textarea, send) {
  textarea.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      send();
    }
  });
}
