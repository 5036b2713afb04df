// Elements from JavaScript. Text is always set as text: nothing that a model writes becomes markup.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-")) element[name] = value;
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A number with so many digits behind the point, and a sign where it is not 0 then.
export function signed(value, digits, plus = "+") {
  const size = Math.abs(value).toFixed(digits);
  return Number(size) === 0 ? size : `${value < 0 ? "−" : plus}${size}`;
}

// Returns a function that has `paint` called with the next frame, however often it is called before: what comes faster
// than a screen is drawn would keep the page too busy to be clicked.
export function perFrame(paint) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  };
}

// Read out by screen readers, once: a stream would be read word by word.
export function announce(text) {
  document.getElementById("announcement").textContent = text;
}
