// The runs of one sequence: maps, the slider over steps, the canvas as text, and what the step decided.

class SequenceView {
  constructor(details, sequence, settings, { jumped }) {
    Object.assign(this, { sequence, settings, focus: null });
    const labels = ["Golden", "Observed"];
    this.sides = sequence.sides.map((side, index) => ({ side, label: labels[index] })).filter(({ side }) => side);
    const alone = this.sides.length === 1;
    this.steps = Math.max(...this.sides.map(({ side }) => side.steps));
    this.tokens = details.tokens;
    this.both = !alone;
    const { divergence } = sequence;
    const pointing = {
      moved: (step, position) => this.point(step, position),
      chosen: (step) => jumped(step),
    };
    this.maps = this.sides.map(({ side, label }) => new TrajectoryMap(side, label, alone, divergence, this.steps, pointing));
    this.words = this.sides.map(
      ({ side, label }, index) =>
        new Words(side, alone ? null : this.sides[1 - index].side, label, details.tokens, divergence, pointing),
    );
    this.decisions = this.sides.map(({ side, label }) => new Decisions(side, label, alone, details.tokens, divergence));
    this.readout = make("p", { class: "readout" });
    this.legend = make("div", { class: "legend" });
    this.stepTitle = make("h3", {});
    this.controls = this.buildControls(jumped);
    this.element = make(
      "div",
      { class: this.both ? "view both" : "view" },
      this.controls,
      make("div", { class: "pair" }, this.words.map((one) => one.element)),
      make("div", { class: "maps" }, this.maps.map((map) => map.element)),
      this.legend,
      this.readout,
      make("section", {}, this.stepTitle, make("div", { class: "pair" }, this.decisions.map((one) => one.element))),
    );
  }

  buildControls(jumped) {
    const last = Math.max(0, this.steps - 1);
    this.slider = make("input", { type: "range", min: "0", max: String(last), value: "0", "aria-label": "Step", disabled: last === 0 });
    this.slider.addEventListener("input", () => jumped(Number(this.slider.value)));
    this.counter = make("output", { class: "counter" });
    const button = (label, text, act) => make("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
    this.player = button("Play the steps", "▶", () => this.settings.play());
    const track = make("div", { class: "track" }, this.slider);
    const { divergence } = this.sequence;
    if (divergence && divergence.step !== null && last > 0) {
      const tick = make("span", { class: "tick", "aria-hidden": "true" });
      tick.style.left = `calc(8px + (100% - 16px) * ${Math.min(1, divergence.step / last)})`;
      track.append(tick);
    }
    const colours = Object.entries(colourings).filter(([name]) => this.offers(name)).map(([name, { name: text }]) => [name, text]);
    this.colours = choice("Colour of the map", colours, this.colouring(), (name) => this.settings.colour(name));
    return make(
      "div",
      { class: "controls" },
      button("Previous step", "‹", () => jumped(this.step - 1)),
      this.player,
      button("Next step", "›", () => jumped(this.step + 1)),
      track,
      this.counter,
      colours.length > 1 ? this.colours : null,
    );
  }

  offers(name) {
    return name === "agreement" ? this.both : this.sides.some(({ side }) => side.evidence);
  }

  // The colouring that is wanted, or one that these runs have.
  colouring() {
    if (this.offers(this.settings.colouring)) return this.settings.colouring;
    return this.offers("confidence") ? "confidence" : "agreement";
  }

  draw() {
    const name = this.colouring();
    press(this.colours, name);
    for (const one of this.words) one.reserve();
    for (const map of this.maps) map.draw(colourings[name]);
    this.drawLegend(colourings[name]);
    this.drawCursors();
  }

  drawLegend({ caption, ticks: marks }) {
    const entry = (kind, text) => make("span", { class: "entry" }, make("i", { class: kind, "aria-hidden": "true" }), text);
    const evidence = this.sides.some(({ side }) => side.evidence);
    const items = [];
    if (marks && evidence) items.push(ramp(marks, caption));
    else if (marks === null && this.both) items.push(entry("same", "commit that both made"), entry("alone", "commit of one run only"));
    else items.push(entry("same", "commit (recorded without evidence)"));
    items.push(entry("filled", "filled"), entry("mask", "masked"));
    if (this.sequence.divergence && this.sequence.divergence.position !== null) items.push(entry("ring", "first divergence"));
    if (this.maps.some((map) => map.strip)) {
      items.push(entry("order", "gap to the best position passed over"), entry("token", "margin over the runner-up, least of the step"));
    }
    this.legend.replaceChildren(...items);
  }

  drawCursors() {
    for (const map of this.maps) map.drawCursor(this.step, this.focus);
  }

  update(step) {
    this.step = step;
    this.slider.value = String(step);
    this.slider.setAttribute("aria-valuetext", `step ${step} of 0 to ${Math.max(0, this.steps - 1)}`);
    this.counter.textContent = this.steps ? `step ${step} of ${this.steps - 1}` : "no steps";
    this.stepTitle.textContent = `Decided at step ${step}`;
    this.drawCursors();
    for (const one of this.words) one.update(step, this.focus);
    for (const one of this.decisions) one.update(step);
    this.tell(null);
  }

  playing(on) {
    this.player.textContent = on ? "❚❚" : "▶";
    this.player.setAttribute("aria-label", on ? "Pause" : "Play the steps");
  }

  point(step, position) {
    if (position !== this.focus) {
      this.focus = position;
      this.drawCursors();
      for (const one of this.words) one.update(this.step, position);
    }
    this.tell(position === null ? null : step);
  }

  // One line on the position under the pointer, else on how to get one.
  tell() {
    if (this.focus === null) {
      this.readout.textContent = "Point at a position for its history; click a step to go there.";
      return;
    }
    const told = this.sides.map(({ side, label }) => {
      const event = this.focus < side.width ? side.eventAt(this.focus, side.steps) : null;
      const name = this.both ? `${label.toLowerCase()}: ` : "";
      if (event === null) return `${name}never committed`;
      const sure = side.evidence
        ? `, confidence ${percent(side.confidences[event])}, margin ${number(side.margins[event])} over ${quoted(this.tokens, side.runners[event])}`
        : "";
      return `${name}${quoted(this.tokens, side.tokens[event])} at step ${side.stepOf[event]}${sure}`;
    });
    this.readout.textContent = `Position ${this.focus + this.sequence.start} — ${told.join("; ")}`;
  }
}

function ramp(marks, caption) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  resize(canvas, 132, 9);
  const pen = canvas.getContext("2d");
  for (let x = 0; x < 132; x++) {
    pen.fillStyle = shade(x / 131);
    pen.fillRect(x, 0, 1, 9);
  }
  const labels = make("span", { class: "marks" }, marks.map(([text]) => make("span", {}, text)));
  return make("span", { class: "entry" }, make("span", { class: "ramp" }, canvas, labels), caption);
}
