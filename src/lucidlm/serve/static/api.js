// Calls of the server this page came from. A key that it asks for is kept for as long as the tab is open.

import { askForKey } from "./key.js";

export class ApiError extends Error {}

async function call(path, options) {
  for (;;) {
    const key = sessionStorage.getItem("lucidlm-key");
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const response = await fetch(path, { ...options, headers });
    if (response.status === 401 && (await askForKey())) continue;
    if (response.ok) return response;
    const body = await response.json().catch(() => null);
    throw new ApiError(body?.error?.message ?? `${response.status} ${response.statusText}`);
  }
}

export async function get(path) {
  return (await call(path, {})).json();
}

function posted(body, signal) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
}

export async function post(path, body, signal) {
  return (await call(path, posted(body, signal))).json();
}

// Yields each event of a stream; an error in the midst of it is thrown.
export async function* stream(path, body, signal) {
  const response = await call(path, posted({ ...body, stream: true }, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (held + value).split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "))?.slice(6);
      if (!data || data === "[DONE]") continue;
      const found = JSON.parse(data);
      if (found.error) throw new ApiError(found.error.message);
      yield found;
    }
  }
}

// Fields of a form as the server reads them: what is empty is left out.
export function given(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== "" && value != null));
}
