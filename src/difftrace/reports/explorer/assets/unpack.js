// Unpacking a check: packing.py, shared.py, details.py and sides.py of difftrace.reports.explorer say what is in a pack.

const widths = { u1: 1, u2: 2, u4: 4, bf: 2 };

// The numbers of a column: the lowest bytes of all come first. Those of `bf` are the upper halves of float32.
function read(type, bytes, count) {
  const lift = type === "bf" ? 16 : 0;
  const numbers = new Uint32Array(count);
  for (let at = 0; at < bytes.length; at++) numbers[at % count] |= bytes[at] << (lift + 8 * Math.floor(at / count));
  return lift ? new Float32Array(numbers.buffer) : numbers;
}

// The header of a pack, and the bytes of its columns.
async function inflate(pack) {
  const packed = Uint8Array.from(atob(pack), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  const end = 4 + new DataView(data.buffer).getUint32(0, true);
  return [JSON.parse(new TextDecoder().decode(data.subarray(4, end))), data.subarray(end)];
}

// `shared` has what the checks of the page have in common.
async function unpack(pack, shared) {
  const [[{ tokens, fields }], [check, data]] = await Promise.all([shared, inflate(pack)]);
  Object.assign(check, { tokens, fields: check.fields.map((index) => fields[index]) });
  let offset = 0;
  const column = ([name, type, count]) => {
    const end = offset + count * widths[type];
    const values = read(type, data.subarray(offset, end), count);
    offset = end;
    return [name, values];
  };
  for (const sequence of check.sequences) {
    sequence.sides = sequence.sides.map(
      (side) => side && new Side(side, sequence.start, Object.fromEntries(side.columns.map(column))),
    );
    compareSides(...sequence.sides);
  }
  return check;
}

// One run of one sequence. Positions count from `start`, tokens are indices into the check's table.
class Side {
  constructor(header, start, columns) {
    Object.assign(this, header, columns, { start, width: columns.initial.length });
    // firsts[s] is the first event of step s, firsts[steps] the number of events.
    this.firsts = new Uint32Array(this.steps + 1);
    this.counts.forEach((count, step) => (this.firsts[step + 1] = this.firsts[step] + count));
    this.stepOf = new Uint32Array(this.positions.length);
    for (let step = 0; step < this.steps; step++) this.stepOf.fill(step, this.firsts[step], this.firsts[step + 1]);
    // 0 where there is none, else the position plus 1.
    if (this.evidence) this.passed = this.passed.map((position) => (position === this.width ? 0 : position + 1));
    if (this.exact) this.applyExact(this.exact);
  }

  applyExact({ step, from, confidences, margins, passed }) {
    const put = (column, value, index) => (column[index] = value ?? column[index]);
    confidences.forEach((value, index) => put(this.confidences, value, from + index));
    margins.forEach((value, index) => put(this.margins, value, from + index));
    put(this.passed_confidences, passed, step);
  }

  events(step) {
    return step < this.steps ? range(this.firsts[step], this.firsts[step + 1]) : [];
  }

  // The canvas after the first `steps` steps.
  canvas(steps) {
    const canvas = Uint32Array.from(this.initial);
    const end = this.firsts[Math.min(steps, this.steps)];
    for (let event = 0; event < end; event++) canvas[this.positions[event]] = this.tokens[event];
    return canvas;
  }

  // The event that put there what a position holds after the first `steps` steps, if one did.
  eventAt(position, steps) {
    for (let event = this.firsts[Math.min(steps, this.steps)] - 1; event >= 0; event--)
      if (this.positions[event] === position) return event;
    return null;
  }

  worst(step) {
    return this.events(step).reduce((least, event) => Math.min(least, this.confidences[event]), Infinity);
  }

  // By how much the worst committed position beat the best that was passed over; NaN where there is no such choice.
  gap(step) {
    if (!this.evidence || step >= this.steps || !this.passed[step] || !this.counts[step]) return NaN;
    const [worst, passed] = [this.worst(step), this.passed_confidences[step]];
    return worst === passed ? 0 : worst - passed;
  }

  closest(step) {
    return this.events(step).reduce((least, event) => Math.min(least, this.margins[event]), Infinity);
  }
}

// Mark on each side the events that the other does not have.
function compareSides(golden, observed) {
  if (!golden || !observed) return;
  const key = (side, event) => `${side.stepOf[event]} ${side.positions[event]} ${side.tokens[event]}`;
  const keys = [golden, observed].map((side) => new Set(range(0, side.tokens.length).map((event) => key(side, event))));
  [golden, observed].forEach((side, index) => {
    side.alone = range(0, side.tokens.length).map((event) => !keys[1 - index].has(key(side, event)));
  });
}

function range(start, end) {
  return Array.from({ length: Math.max(0, end - start) }, (_, index) => start + index);
}
