// What one step decided: the committed positions from the least sure to the surest, and the best one passed over.

const mostRows = 8;

class Decisions {
  constructor(side, label, alone, tokens, divergence) {
    Object.assign(this, { side, tokens, divergence });
    this.body = make("div", { class: "scrolled" });
    this.element = make("div", { class: "side" }, heading("h4", label, alone), this.body);
  }

  update(step) {
    this.body.replaceChildren(...this.content(step));
  }

  content(step) {
    const { side } = this;
    if (step >= side.steps) return [note(`No step ${step}: this run has ${plural(side.steps, "step")}.`)];
    const events = side.events(step);
    if (!events.length) return [note("This step commits nothing.")];
    if (side.evidence) events.sort((one, other) => side.confidences[one] - side.confidences[other]);
    const shown = events.filter((event, index) => index < mostRows || this.parts(event, step));
    const names = ["Position", "Token", ...(side.evidence ? ["Confidence", "Margin", "Runner-up"] : [])];
    const rows = shown.map((event) => this.row(event, step));
    return [
      make(
        "table",
        {},
        make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)))),
        make("tbody", {}, rows, this.passedRow(step)),
      ),
      events.length > shown.length ? note(`and ${events.length - shown.length} more, all surer`) : null,
      this.boundary(step),
    ].filter(Boolean);
  }

  parts(event, step) {
    const { divergence, side } = this;
    return Boolean(divergence) && divergence.step === step && divergence.position === side.positions[event] + side.start;
  }

  row(event, step) {
    const { side, tokens } = this;
    const alone = side.alone && side.alone[event];
    const cells = [
      [side.positions[event] + side.start, "number"],
      [quoted(tokens, side.tokens[event]), "token"],
    ];
    if (side.evidence) {
      cells.push(
        [percent(side.confidences[event]), "number"],
        [number(side.margins[event]), "number"],
        [quoted(tokens, side.runners[event]), "token"],
      );
    }
    const name = [alone ? "differs" : "", this.parts(event, step) ? "parts" : ""].filter(Boolean).join(" ");
    return make("tr", { class: name || null }, cells.map(([text, kind]) => make("td", { class: kind }, String(text))));
  }

  passedRow(step) {
    const { side, tokens } = this;
    if (!side.evidence || !side.passed[step]) return null;
    const cells = [
      [side.passed[step] - 1 + side.start, "number"],
      [quoted(tokens, side.passed_tokens[step]), "token"],
      [percent(side.passed_confidences[step]), "number"],
    ];
    return make(
      "tr",
      { class: "passed" },
      cells.map(([text, kind]) => make("td", { class: kind }, String(text))),
      make("td", { colspan: "2" }, "best one passed over"),
    );
  }

  boundary(step) {
    const { side } = this;
    if (!side.evidence) return note("Recorded without evidence: how sure the choice was is not known.");
    if (!side.passed[step]) return note("Every candidate was committed: the order was no choice.");
    const gap = side.gap(step);
    const close = gap === 0 ? " (a tie)" : "";
    return note(`Order decided by a gap of ${number(gap)}${close} in log-confidence, token by a margin of ${number(side.closest(step))}.`);
  }
}

function note(text) {
  return make("p", { class: "note" }, text);
}
