// What is told of a check around its runs: the verdict above, what ran and where below.

function headPanel(check, details, jump) {
  const { verdict } = details;
  const [module, name] = splitTest(check.test);
  const differs = Boolean(check.class) && check.class !== "IDENTICAL";
  return make(
    "header",
    { class: "head" },
    module ? make("p", { class: "module" }, module) : null,
    make("h2", {}, name),
    make(
      "p",
      { class: "status" },
      badge(check.status),
      make("b", {}, capital(check.outcome)),
      differs ? make("span", { class: "class" }, check.class) : null,
      jump,
    ),
    verdict && verdict.reason && differs ? make("p", { class: "reason" }, verdict.reason) : null,
    details.problems.map((problem) => make("p", { class: "problem" }, problem)),
    verdict && (differs || check.status === "failed") ? verdictList(verdict) : null,
  );
}

function verdictList(verdict) {
  const rows = [
    verdict.measured.length ? ["Measured", `${verdict.measured.join("; ")}`] : null,
    verdict.measured.length ? ["Budget", verdict.budget ?? "none"] : null,
    verdict.came ? ["Outcome", verdict.came] : null,
    ...verdict.unknown.map((sentence) => ["Cannot tell", sentence]),
  ];
  return pairs(rows.filter(Boolean));
}

function pairs(rows) {
  if (!rows.length) return null;
  return make("dl", {}, rows.map(([label, text]) => [make("dt", {}, label), make("dd", {}, text)]));
}

function factsPanel({ facts, verdict }) {
  const text = verdict ? verdict.text : [];
  if (!facts.length && !text.length) return null;
  const failure = make("details", {}, make("summary", {}, "The failure as the terminal shows it"), make("pre", {}, text.join("\n")));
  return section("This check", pairs(facts), text.length ? failure : null);
}

// Tables of what ran and where: what differs is shown, the rest can be opened.
function fieldsPanel(details) {
  const both = details.compared;
  const differing = details.fields.filter((field) => field[3]);
  const equal = details.fields.filter((field) => !field[3]);
  if (!details.fields.length) return null;
  return section(
    both ? "What else differs" : "What ran, and where",
    details.environments ? note(capital(details.environments)) : null,
    both && !differing.length ? note("Model, sampler and environment are the same, as far as both name them.") : null,
    differing.length ? fieldTable(differing, ["golden", "observed"]) : null,
    equal.length
      ? make(
          "details",
          {},
          make("summary", {}, `${equal.length} ${differing.length ? "other " : ""}${equal.length === 1 ? "field" : "fields"}`),
          fieldTable(equal, both ? ["golden", "observed"] : [""]),
        )
      : null,
  );
}

function fieldTable(fields, sides) {
  const row = ([name, golden, observed, mark]) => {
    const values = sides.length === 2 ? [golden, observed] : [golden ?? observed];
    const decides = mark === "decides" ? make("span", { class: "decides", title: "Makes the environments not comparable" }, "decides") : null;
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, name, decides),
      values.map((value) => make("td", { class: value === null ? "absent" : null }, value === null ? "nothing" : value)),
    );
  };
  const head = make("tr", {}, ["", ...sides].map((name) => make(name ? "th" : "td", name ? { scope: "col" } : {}, name)));
  return make(
    "div",
    { class: "scrolled" },
    make("table", { class: "fields" }, sides.length === 2 ? make("thead", {}, head) : null, make("tbody", {}, fields.map(row))),
  );
}

function textsPanel(sides) {
  const known = sides.filter(({ side }) => side.text !== null);
  if (!known.length) return null;
  const equal = known.length === 2 && known[0].side.text === known[1].side.text;
  const rows = equal ? [["Golden and observed", known[0].side.text]] : known.map(({ label, side }) => [label, side.text]);
  const filled = rows.map(([label, text]) => [label, text || "(empty)"]);
  return section("Final text", make("div", { class: "finals" }, pairs(filled)));
}

const keys = [
  ["← →", "one step back or on (with Shift: ten)"],
  ["Home End", "first or last step"],
  ["d", "the first divergence"],
  ["j k", "next or previous check"],
  ["[ ]", "previous or next sequence"],
  ["c", "another colouring"],
  ["Space", "play or pause the steps"],
  ["/", "search the checks"],
  ["?", "this list"],
];

function helpDialog() {
  const close = make("button", { type: "button" }, "Close");
  const dialog = make(
    "dialog",
    { "aria-label": "Keys" },
    make("h2", {}, "Keys"),
    make("dl", { class: "keys" }, keys.map(([key, what]) => [make("dt", {}, key.split(" ").map((one) => make("kbd", {}, one))), make("dd", {}, what)])),
    close,
  );
  close.addEventListener("click", () => dialog.close());
  return dialog;
}
