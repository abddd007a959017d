// The list of checks with what narrows it down.

function checkList(checks, select) {
  const state = { status: "all", class: "all", text: "" };
  const rows = checks.map((check, index) => {
    const row = listRow(check);
    row.firstChild.addEventListener("click", () => select(index));
    return row;
  });
  const texts = checks.map((check) => `${check.test} ${check.class ?? ""} ${check.outcome}`.toLowerCase());
  const statuses = ["failed", "passed", "recorded", "other"].filter((one) => checks.some((c) => c.status === one));
  const classes = [...new Set(checks.map((check) => check.class).filter(Boolean))].sort();
  const count = make("p", { class: "count", role: "status" });
  const none = make("p", { class: "none", hidden: true }, "No check matches.");
  const search = make("input", {
    type: "search", id: "search", placeholder: "Search checks", "aria-label": "Search checks", autocomplete: "off",
    spellcheck: "false",
  });
  const counted = (status) => checks.filter((check) => check.status === status).length;
  const byStatus = choice(
    "Status",
    [["all", `All ${checks.length}`], ...statuses.map((one) => [one, `${capital(one)} ${counted(one)}`])],
    "all",
    (value) => narrow({ status: value }),
  );
  const byClass = make(
    "select",
    { id: "class", "aria-label": "Class", onchange: () => narrow({ class: byClass.value }) },
    make("option", { value: "all" }, "Every class"),
    classes.map((name) =>
      make("option", { value: name }, `${name} (${checks.filter((check) => check.class === name).length})`),
    ),
  );
  search.addEventListener("input", () => narrow({ text: search.value.trim().toLowerCase() }));

  function narrow(change) {
    Object.assign(state, change);
    const matching = checks.map(
      (check, index) =>
        (state.status === "all" || check.status === state.status) &&
        (state.class === "all" || check.class === state.class) &&
        state.text.split(/\s+/).every((word) => texts[index].includes(word)),
    );
    rows.forEach((row, index) => (row.hidden = !matching[index]));
    const shown = matching.filter(Boolean).length;
    count.textContent = shown === checks.length ? plural(shown, "check") : `${shown} of ${plural(checks.length, "check")}`;
    none.hidden = shown > 0;
  }
  narrow({});

  return {
    element: make(
      "nav",
      { class: "checks", "aria-label": "Checks" },
      make(
        "div",
        { class: "filters" },
        search,
        statuses.length > 1 ? byStatus : null,
        classes.length > 1 ? byClass : null,
        count,
      ),
      make("ul", { tabindex: "-1" }, rows),
      none,
    ),
    search,
    // The next shown check from `index` in a direction, or `index` where there is none.
    next(index, direction) {
      for (let at = index + direction; at >= 0 && at < rows.length; at += direction) if (!rows[at].hidden) return at;
      return index;
    },
    mark(index) {
      rows.forEach((row, at) => {
        if (at === index) row.firstChild.setAttribute("aria-current", "true");
        else row.firstChild.removeAttribute("aria-current");
      });
      rows[index].scrollIntoView({ block: "nearest" });
    },
  };
}

function listRow(check) {
  const [module, name] = splitTest(check.test);
  const where = check.step === null ? null : `step ${check.step}`;
  const below = [check.class && check.class !== "IDENTICAL" ? check.class : capital(check.outcome), where, module];
  return make(
    "li",
    {},
    make(
      "button",
      { type: "button", title: check.test },
      badge(check.status),
      make("span", { class: "name" }, make("span", { class: "unseen" }, `${check.status}: `), name),
      make("span", { class: "below" }, below.filter(Boolean).join(" · ")),
    ),
  );
}

function splitTest(test) {
  const at = test.indexOf("::");
  return at < 0 ? ["", test] : [test.slice(0, at), test.slice(at + 2)];
}

function capital(text) {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
