// The dialogue that asks for an API key.

import { word } from "./words.js";

let asking = null;

// Resolves to whether a key was given; several calls at a time ask once.
export function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key");
    const value = document.getElementById("key-value");
    document.getElementById("key-title").textContent = word("key");
    document.getElementById("key-why").textContent = word("keyWhy");
    document.getElementById("key-send").textContent = word("keySend");
    value.value = "";
    const closed = () => {
      asking = null;
      if (value.value) sessionStorage.setItem("lucidlm-key", value.value.trim());
      resolve(Boolean(value.value));
    };
    dialog.addEventListener("close", closed, { once: true });
    dialog.addEventListener("cancel", () => (value.value = ""), { once: true });
    dialog.showModal();
  });
  return asking;
}
