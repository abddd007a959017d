// The map of a run: positions from left to right, steps downwards, a coloured cell where a step committed a position
// and a tint below it, where the position stays filled. Beside it, on the same rows, how close each step's choice was.

const axis = { left: 38, top: 34, bottom: 4, strip: 86, gutter: 22 };
const largestCell = 26;
const mapHeight = { least: 84, most: 340, row: 15 };

class TrajectoryMap {
  // `moved(step, position)` is called for the cell under the pointer, `chosen(step)` for a click.
  constructor(side, label, alone, divergence, steps, { moved, chosen }) {
    Object.assign(this, { side, divergence, rows: Math.max(1, steps) });
    this.base = make("canvas", { role: "img", "aria-label": describeMap(side, label, divergence) });
    this.overlay = make("canvas", { "aria-hidden": "true" });
    this.frame = make("div", { class: "map" }, this.base, this.overlay);
    this.element = make("figure", {}, heading("figcaption", label, alone), this.frame);
    this.overlay.addEventListener("pointermove", (event) => {
      const cell = this.cellAt(event);
      moved(cell && cell.step, cell && cell.position);
      if (cell && event.buttons & 1) chosen(cell.step);
    });
    this.overlay.addEventListener("pointerleave", () => moved(null, null));
    this.overlay.addEventListener("pointerdown", (event) => {
      const cell = this.cellAt(event);
      if (cell) chosen(cell.step);
    });
  }

  layout() {
    const available = this.frame.clientWidth;
    const strip = this.side.evidence && available > 260 ? axis.strip + axis.gutter : 0;
    const columns = Math.max(1, this.side.width);
    const width = Math.min(available - axis.left - strip - 1, columns * largestCell);
    const height = Math.min(mapHeight.most, Math.max(mapHeight.least, this.rows * mapHeight.row));
    const row = Math.min(height / this.rows, largestCell);
    Object.assign(this, { width, height: row * this.rows, column: width / columns, row, strip });
    const size = [axis.left + width + strip + 1, axis.top + this.height + axis.bottom];
    for (const canvas of [this.base, this.overlay]) resize(canvas, ...size);
  }

  x(position) {
    return axis.left + position * this.column;
  }

  y(step) {
    return axis.top + step * this.row;
  }

  cellAt(event) {
    const box = this.overlay.getBoundingClientRect();
    const position = Math.floor((event.clientX - box.left - axis.left) / this.column);
    const step = Math.floor((event.clientY - box.top - axis.top) / this.row);
    if (step < 0 || step >= this.rows) return null;
    return { step, position: position >= 0 && position < this.side.width ? position : null };
  }

  draw(colouring) {
    this.layout();
    const { side } = this;
    const pen = this.base.getContext("2d");
    const colours = theme();
    pen.fillStyle = colours.masked;
    pen.fillRect(axis.left, axis.top, this.width, this.row * side.steps);
    this.drawFilled(pen, colours);
    const [wide, high] = [Math.max(this.column - (this.column > 6 ? 1 : 0), 1.6), Math.max(this.row - (this.row > 6 ? 1 : 0), 1.6)];
    for (let event = 0; event < side.tokens.length; event++) {
      pen.fillStyle = colouring.of(side, event);
      pen.fillRect(this.x(side.positions[event]), this.y(side.stepOf[event]), wide, high);
    }
    this.drawAxes(pen, colours);
    if (this.strip) this.drawStrip(pen, colours);
    this.drawDivergence(pen, colours);
  }

  // What a position holds after it was committed, until it changes again; nothing where that is the mask.
  drawFilled(pen, colours) {
    const { side } = this;
    const since = new Float64Array(side.width).fill(-1);
    side.initial.forEach((token, position) => (since[position] = token === side.mask ? -1 : 0));
    const fill = (position, until) => {
      if (since[position] < 0) return;
      pen.fillRect(this.x(position), this.y(since[position]), Math.max(this.column, 0.5), (until - since[position]) * this.row);
    };
    pen.fillStyle = colours.filled;
    for (let event = 0; event < side.tokens.length; event++) {
      fill(side.positions[event], side.stepOf[event]);
      since[side.positions[event]] = side.tokens[event] === side.mask ? -1 : side.stepOf[event];
    }
    since.forEach((_, position) => fill(position, side.steps));
  }

  drawAxes(pen, colours) {
    pen.fillStyle = colours.soft;
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const step of ticks(0, this.side.steps - 1, this.height / 26)) {
      pen.fillText(String(step), axis.left - 10, this.y(step) + this.row / 2);
    }
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    pen.textAlign = "left";
    pen.fillText("position", axis.left, 10);
    pen.textAlign = "right";
    pen.fillText("step", axis.left - 10, axis.top - 6);
    pen.textAlign = "center";
    const { start, width } = this.side;
    for (const position of ticks(start, start + width - 1, this.width / 40)) {
      pen.fillText(String(position), this.x(position - start) + this.column / 2, axis.top - 6);
    }
  }

  drawStrip(pen, colours) {
    const left = axis.left + this.width + axis.gutter;
    const inner = axis.strip - 12;
    const at = (value) => left + 6 + marginShare(value) * inner;
    pen.strokeStyle = colours.line;
    pen.lineWidth = 1;
    pen.fillStyle = colours.soft;
    pen.fillText("closeness", left + 6 + inner / 2, 10);
    for (const [value, text] of [[0.001, "10⁻³"], [0.1, "0.1"], [10, "10"]]) {
      const x = Math.round(Math.min(at(value), left + 6 + inner)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, axis.top);
      pen.lineTo(x, axis.top + this.row * this.side.steps);
      pen.stroke();
      pen.fillText(text, x, axis.top - 6);
    }
    const size = Math.min(3.5, Math.max(1.2, this.row / 3));
    for (let step = 0; step < this.side.steps; step++) {
      const y = this.y(step) + this.row / 2;
      this.dot(pen, Math.min(at(this.side.closest(step)), left + 6 + inner), y, size, colours.soft, false);
      this.dot(pen, Math.min(at(this.side.gap(step)), left + 6 + inner), y, size, colours.ink, true);
    }
  }

  dot(pen, x, y, size, colour, full) {
    if (Number.isNaN(x)) return;
    pen.beginPath();
    pen.arc(x, y, size, 0, 2 * Math.PI);
    pen.fillStyle = pen.strokeStyle = colour;
    if (full) pen.fill();
    else pen.stroke();
  }

  drawDivergence(pen, colours) {
    const { divergence, side } = this;
    if (!divergence || divergence.step === null) return;
    const y = this.y(divergence.step) + (divergence.position === null ? 0 : this.row / 2);
    pen.lineWidth = 1;
    pen.strokeStyle = colours.differ;
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(axis.left, y);
    pen.lineTo(axis.left + this.width, y);
    pen.stroke();
    pen.setLineDash([]);
    if (divergence.position === null) return;
    const x = this.x(divergence.position - side.start) + this.column / 2;
    const radius = Math.max(6.5, Math.min(this.column, this.row) * 0.62);
    for (const [colour, line] of [[colours.halo, 5], [colours.differ, 2.5]]) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.stroke();
    }
  }

  drawCursor(step, position) {
    const pen = this.overlay.getContext("2d");
    const colours = theme();
    pen.clearRect(0, 0, this.overlay.width, this.overlay.height);
    pen.strokeStyle = colours.accent;
    if (position !== null) {
      pen.lineWidth = 1;
      const x = this.x(position) + this.column / 2;
      pen.beginPath();
      pen.moveTo(x, axis.top);
      pen.lineTo(x, axis.top + this.row * this.side.steps);
      pen.stroke();
    }
    pen.lineWidth = 2;
    const right = axis.left + this.width + this.strip;
    const high = Math.max(this.row, 4);
    const y = this.y(step) + this.row / 2 - high / 2;
    pen.strokeRect(axis.left - 1, y, right - axis.left, high);
    pen.fillStyle = colours.accent;
    pen.beginPath();
    pen.moveTo(axis.left - 2, y + high / 2);
    pen.lineTo(axis.left - 7, y + high / 2 - 4);
    pen.lineTo(axis.left - 7, y + high / 2 + 4);
    pen.fill();
  }
}

function resize(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.getContext("2d").scale(scale, scale);
}

// Round numbers from `first` to `last`, both included, about as many as `room` allows.
function ticks(first, last, room) {
  const span = Math.max(1, last - first);
  const unit = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 500, 512, 1000, 2000, 4096, 10000, 100000].find(
    (one) => span / one <= Math.max(1, room - 1),
  );
  const found = range(Math.ceil(first / unit), Math.floor(last / unit) + 1).map((one) => one * unit);
  const apart = found.filter((one) => one - first > unit * 0.6 && last - one > unit * 0.6);
  return last > first ? [first, ...apart, last] : [first];
}

function describeMap(side, label, divergence) {
  const parts = [
    `${label}: ${plural(side.steps, "step")} by ${plural(side.width, "position")}`,
    `${plural(side.tokens.length, "commit")}`,
  ];
  if (divergence && divergence.position !== null && divergence.step !== null) {
    parts.push(`first divergence at step ${divergence.step}, position ${divergence.position}`);
  }
  return parts.join(", ");
}
