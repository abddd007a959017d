// The canvas as text: one element for each position, masks dimmed, what the step commits marked.

function tokenText(tokens, index) {
  const piece = tokens.pieces[index];
  if (piece === null || piece === undefined) return `⟨${tokens.ids[index]}⟩`;
  return piece === "" ? "⟨⟩" : piece;
}

// Whether a token is one of those that models write as <|…|>, which end and pad more than they say.
function isSpecial(tokens, index) {
  return /^<\|.*\|>$/.test(tokens.pieces[index] ?? "");
}

// The same where it stands alone, so that blanks show.
function quoted(tokens, index) {
  const piece = tokens.pieces[index];
  return piece === null || piece === undefined ? `token ${tokens.ids[index]}` : `“${piece.replaceAll(" ", "␣")}”`;
}

class Words {
  constructor(side, other, label, tokens, divergence, { moved, chosen }) {
    Object.assign(this, { side, other, tokens, divergence });
    this.cells = range(0, side.width).map((position) => make("span", { "data-position": position }));
    this.ended = make("p", { class: "note", hidden: true });
    const text = (this.text = make("div", { class: "words" }, this.cells));
    text.addEventListener("pointerover", (event) => {
      const position = event.target.dataset.position;
      moved(null, position === undefined ? null : Number(position));
    });
    text.addEventListener("pointerleave", () => moved(null, null));
    text.addEventListener("click", (event) => {
      const position = event.target.dataset.position;
      const last = position === undefined ? null : side.eventAt(Number(position), side.steps);
      if (last !== null) chosen(side.stepOf[last]);
    });
    const prompt = side.prompt ? make("p", { class: "prompt" }, make("b", {}, "Prompt"), side.prompt) : null;
    this.element = make("div", { class: "side" }, heading("h4", label, !other && label === "Golden"), prompt, text, this.ended);
  }

  // Take the room of the final canvas at once, so that what is below stays where it is while the text grows.
  reserve() {
    const shown = this.cells.map((cell) => [cell.textContent, cell.className]);
    const canvas = this.side.canvas(this.side.steps);
    this.text.style.minHeight = "";
    this.cells.forEach((cell, position) => {
      cell.textContent = this.textOf(canvas, position);
      cell.className = isSpecial(this.tokens, canvas[position]) ? "special" : "";
    });
    this.text.style.minHeight = `${this.text.offsetHeight}px`;
    this.cells.forEach((cell, position) => ([cell.textContent, cell.className] = shown[position]));
  }

  // Of several special tokens in a row, the end of most runs, the first is written out and the others are dots.
  textOf(canvas, position) {
    const token = canvas[position];
    if (token === this.side.mask) return "░";
    if (position > 0 && canvas[position - 1] === token && isSpecial(this.tokens, token)) return "·";
    return tokenText(this.tokens, token);
  }

  update(step, focus) {
    const { side, other } = this;
    const canvas = side.canvas(step + 1);
    const against = other && other.start === side.start ? other.canvas(step + 1) : null;
    const fresh = new Set(side.events(step).map((event) => side.positions[event]));
    this.cells.forEach((cell, position) => {
      const token = canvas[position];
      const masked = token === side.mask;
      const differs = against && (position >= against.length || against[position] !== token);
      const names = [
        masked ? "masked" : isSpecial(this.tokens, token) ? "special" : "",
        fresh.has(position) ? "fresh" : "",
        differs ? "differs" : "",
        this.parts(position, step) ? "parts" : "",
        position === focus ? "focus" : "",
      ];
      const text = this.textOf(canvas, position);
      const name = names.filter(Boolean).join(" ");
      if (cell.textContent !== text) cell.textContent = text;
      if (cell.className !== name) cell.className = name;
    });
    this.ended.hidden = step < side.steps;
    this.ended.textContent = `This run ended after ${plural(side.steps, "step")}; this is its final canvas.`;
  }

  parts(position, step) {
    const { divergence, side } = this;
    if (!divergence || divergence.position === null) return false;
    return position === divergence.position - side.start && (divergence.step === null || step >= divergence.step);
  }
}
