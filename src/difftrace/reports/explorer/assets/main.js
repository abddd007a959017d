// The page: which check, sequence and step is looked at, and the keys.

const data = JSON.parse(document.getElementById("data").textContent);
const app = document.getElementById("app");
const packs = new Map();
const shared = inflate(data.shared);
const state = { index: -1, details: null, sequence: 0, step: 0, view: null, timer: null };
const settings = { colouring: "confidence", colour: recolour, play };
const list = checkList(data.checks, chosen);
const narrow = matchMedia("(max-width: 760px)");
const main = make("main", { id: "check", tabindex: "-1" });
const help = helpDialog();

function start() {
  const failed = data.checks.filter((check) => check.status === "failed").length;
  const counts = data.checks.length > 1 ? `${plural(data.checks.length, "check")}${failed ? `, ${failed} failed` : ""}` : "";
  const facts = [...(counts ? [["", counts]] : []), ...data.facts];
  app.classList.toggle("single", data.checks.length < 2);
  app.append(
    make(
      "header",
      { class: "top" },
      make("h1", {}, data.title),
      make("p", {}, facts.map(([label, text]) => make("span", {}, label ? make("b", {}, `${label} `) : null, text))),
      make("button", { type: "button", onclick: () => help.showModal() }, "Keys ", make("kbd", {}, "?")),
    ),
    ...(data.checks.length > 1 ? [list.element] : []),
    main,
    help,
  );
  if (!data.checks.length) {
    main.append(make("p", { class: "empty" }, "There is no check in this report."));
    return;
  }
  const wanted = decodeURIComponent(location.hash.slice(1));
  const named = data.checks.findIndex((check) => check.test === wanted);
  const first = data.checks.findIndex((check) => check.status === "failed");
  select(named >= 0 ? named : Math.max(0, first));
  darkWanted.addEventListener("change", () => redraw());
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  let width = 0;
  new ResizeObserver(() => {
    if (main.clientWidth !== width && state.view) state.view.draw();
    width = main.clientWidth;
  }).observe(main);
  document.addEventListener("keydown", pressed);
}

// Where the list stands above the check, one that is chosen there comes into view.
async function chosen(index) {
  await select(index);
  if (narrow.matches) main.scrollIntoView();
}

async function select(index) {
  if (index === state.index) return;
  stop();
  state.index = index;
  if (data.checks.length > 1) list.mark(index);
  const check = data.checks[index];
  if (!packs.has(index)) packs.set(index, unpack(check.pack, shared));
  let details;
  try {
    details = await packs.get(index);
  } catch (error) {
    if (state.index === index) main.replaceChildren(make("p", { class: "problem" }, `This check cannot be shown: ${error.message}`));
    return;
  }
  // Whoever was selected while this one was being unpacked is the one to show.
  if (state.index !== index) return;
  location.replace(`#${encodeURIComponent(check.test)}`);
  state.details = details;
  const diverging = details.sequences.findIndex((sequence) => sequence.divergence);
  state.sequence = Math.max(0, check.sequence ?? diverging);
  show(check, details);
}

function show(check, details) {
  const { sequences } = details;
  const jump = make("button", { type: "button", class: "jump", hidden: true, onclick: toDivergence });
  const picker =
    sequences.length > 1
      ? choice(
          "Sequence",
          sequences.map((sequence, index) => [String(index), `Sequence ${index}${sequence.divergence ? " ≠" : ""}`]),
          String(state.sequence),
          (value) => pick(Number(value)),
        )
      : null;
  const place = make("div", { class: "place" });
  Object.assign(state, { picker, place, jump });
  main.replaceChildren(
    ...[
      headPanel(check, details, jump),
      picker,
      place,
      fieldsPanel(details),
      factsPanel(details),
    ].filter(Boolean),
  );
  main.scrollTop = 0;
  pick(state.sequence);
}

function pick(index) {
  const { details, place, picker, jump } = state;
  const sequence = details.sequences[index];
  if (picker) press(picker, String(index));
  state.sequence = index;
  state.view = null;
  if (!sequence) {
    place.replaceChildren();
    return;
  }
  state.view = new SequenceView(details, sequence, settings, { jumped: (step) => go(step, true) });
  place.replaceChildren(state.view.element, textsPanel(state.view.sides) ?? "");
  const { divergence } = sequence;
  jump.hidden = !divergence;
  jump.disabled = !divergence || divergence.step === null;
  jump.textContent = divergence ? divergenceText(divergence) : "";
  go(divergence && divergence.step !== null ? divergence.step : state.view.steps - 1);
  state.view.draw();
}

function divergenceText({ kind, step, position }) {
  if (kind === "decision") return `First divergence: step ${step}, position ${position}`;
  if (kind === "sequences") return "Another number of sequences";
  if (kind === "length") return `One run ends at step ${step}`;
  const what = kind === "prompt" ? "Prompts" : "First canvases";
  return `${what} differ${position === null ? "" : ` at position ${position}`}`;
}

function go(step, byHand = false) {
  if (!state.view) return;
  if (byHand) stop();
  state.step = Math.min(Math.max(0, step), Math.max(0, state.view.steps - 1));
  state.view.update(state.step);
}

function toDivergence() {
  const { divergence } = state.view.sequence;
  if (divergence && divergence.step !== null) go(divergence.step, true);
}

function recolour(name) {
  settings.colouring = name;
  state.view.draw();
}

function play() {
  if (state.timer !== null) return stop();
  if (state.step >= state.view.steps - 1) go(0);
  // The whole run in about eight seconds, no step shorter than a frame.
  const pause = Math.min(400, Math.max(16, 8000 / Math.max(1, state.view.steps)));
  state.timer = setInterval(() => {
    go(state.step + 1);
    if (state.step >= state.view.steps - 1) stop();
  }, pause);
  state.view.playing(true);
}

function stop() {
  if (state.timer === null) return;
  clearInterval(state.timer);
  state.timer = null;
  state.view.playing(false);
}

function redraw() {
  if (state.view) state.view.draw();
}

function print(on) {
  printing = on;
  redraw();
}

const actions = {
  ArrowLeft: (event) => go(state.step - (event.shiftKey ? 10 : 1), true),
  ArrowRight: (event) => go(state.step + (event.shiftKey ? 10 : 1), true),
  Home: () => go(0, true),
  End: () => go(Infinity, true),
  d: toDivergence,
  j: () => select(list.next(state.index, 1)),
  k: () => select(list.next(state.index, -1)),
  "[": () => pickNext(-1),
  "]": () => pickNext(1),
  c: nextColour,
  " ": play,
  "/": () => list.search.focus(),
  "?": () => help.showModal(),
};

function pickNext(direction) {
  const index = state.sequence + direction;
  if (state.details.sequences[index]) pick(index);
}

function nextColour() {
  const offered = Object.keys(colourings).filter((name) => state.view.offers(name));
  recolour(offered[(offered.indexOf(state.view.colouring()) + 1) % offered.length]);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const { target } = event;
  const typing = target.matches("select, textarea, input:not([type=range])");
  if (typing) {
    if (event.key === "Escape") target.blur();
    return;
  }
  // Blank presses a button that has the focus, as everywhere.
  if (event.key === " " && target.matches("button, summary")) return;
  const action = actions[event.key];
  if (!action || !(state.view || "jk/?".includes(event.key))) return;
  event.preventDefault();
  action(event);
}

start();
