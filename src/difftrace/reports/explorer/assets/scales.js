// Colours and numbers. The colours are viridis (van der Walt and Smith, 2015), which colour-blind readers can order;
// each theme takes the part that stands out from its ground, and starts with what stands out most: the close calls.

const viridis = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"].map(
  (hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)),
);

const themes = {
  light: {
    from: 0, to: 0.82, masked: "#eef0f2", filled: "#dbe1e7", ink: "#1b1f24", soft: "#5b6570", line: "#c9d0d7",
    accent: "#0b62a8", differ: "#b3420a", halo: "#ffffff", unknown: "#7d8894", same: "#7d8894",
  },
  dark: {
    from: 1, to: 0.22, masked: "#1f242a", filled: "#2f363e", ink: "#e4e7ea", soft: "#9aa5b1", line: "#3c444d",
    accent: "#6cb4ee", differ: "#ff9d5c", halo: "#101316", unknown: "#8a95a1", same: "#8a95a1",
  },
};

const darkWanted = matchMedia("(prefers-color-scheme: dark)");
let printing = false;

function theme() {
  return darkWanted.matches && !printing ? themes.dark : themes.light;
}

// `share` is 0 for the closest call and 1 for the clearest.
function shade(share) {
  const { from, to, unknown } = theme();
  if (Number.isNaN(share)) return unknown;
  const at = (from + (to - from) * Math.min(1, Math.max(0, share))) * (viridis.length - 1);
  const below = Math.min(viridis.length - 2, Math.floor(at));
  const mixed = viridis[below].map((low, i) => Math.round(low + (viridis[below + 1][i] - low) * (at - below)));
  return `rgb(${mixed.join(" ")})`;
}

// Margins and gaps are laid out by their logarithm, from a thousandth to ten.
const leastMargin = 1e-3;
const mostMargin = 10;

function marginShare(margin) {
  if (Number.isNaN(margin)) return NaN;
  return Math.log(Math.max(margin, leastMargin) / leastMargin) / Math.log(mostMargin / leastMargin);
}

const colourings = {
  confidence: {
    name: "Confidence",
    of: (side, event) => (side.evidence ? shade(Math.exp(side.confidences[event])) : shade(NaN)),
    ticks: [["0 %", 0], ["50 %", 0.5], ["100 %", 1]],
    caption: "confidence of the position when it was committed",
  },
  margin: {
    name: "Margin",
    of: (side, event) => (side.evidence ? shade(marginShare(side.margins[event])) : shade(NaN)),
    ticks: [["≤ 0.001", 0], ["0.1", 0.5], ["≥ 10", 1]],
    caption: "score of the token above its runner-up",
  },
  agreement: {
    name: "Agreement",
    of: (side, event) => (side.alone && side.alone[event] ? theme().differ : theme().same),
    ticks: null,
    caption: "whether both runs made the same commit at the same step",
  },
};

function number(value) {
  if (value === -Infinity) return "−∞";
  if (!Number.isFinite(value)) return "not known";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 0.001 && size < 10000 ? String(Number(size.toPrecision(3))) : size.toExponential(1);
  return (value < 0 ? "−" : "") + text;
}

// A log-confidence as a percentage, with enough digits to tell it from 100 %.
function percent(logConfidence) {
  if (Number.isNaN(logConfidence)) return "not known";
  const share = 100 * Math.exp(logConfidence);
  const short = 100 - share;
  if (share === 0) return "0 %";
  if (short <= 0) return "100 %";
  if (short < 1) return short < 1e-4 ? "> 99.9999 %" : `${(Math.floor((100 - Number(short.toPrecision(2))) * 1e6) / 1e6).toString()} %`;
  return share < 0.01 ? "< 0.01 %" : `${Number(share.toPrecision(3))} %`;
}

function plural(count, what) {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
