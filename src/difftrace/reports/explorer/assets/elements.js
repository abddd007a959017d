// Elements are made here and nowhere from markup: what a model or a file says becomes text nodes alone.

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// What tells two runs apart stands above each; above a single one it would only be in the way.
function heading(tag, label, alone) {
  return alone ? null : make(tag, {}, label);
}

function section(title, ...children) {
  return make("section", {}, make("h3", {}, title), children);
}

// A group of buttons of which one is pressed; `choices` are [value, label] pairs.
function choice(label, choices, current, chosen) {
  const buttons = choices.map(([value, text]) =>
    make("button", { type: "button", "aria-pressed": String(value === current), "data-value": value }, text),
  );
  const group = make("div", { class: "choice", role: "group", "aria-label": label }, buttons);
  group.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    press(group, button.dataset.value);
    chosen(button.dataset.value);
  });
  return group;
}

function press(group, value) {
  for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.value === value));
}

const glyphs = { passed: "✓", failed: "✗", recorded: "●", other: "–" };

function badge(status) {
  return make("span", { class: `badge ${status}`, "aria-hidden": "true" }, glyphs[status]);
}
