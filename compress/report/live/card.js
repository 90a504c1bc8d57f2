// The card of what is selected: what it is, its files and how to feed them, what was removed.

function copied(text, what) {
  return button("copy", () => {
    const done = () => said(`${what} copied`);
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => said("copying is not allowed here"));
    else said("copying is not allowed here");
  }, { "aria-label": `copy ${what}`, class: "small-button" });
}

function rowOf(id) {
  for (const set of data.sets) {
    const row = set.rows.find((item) => item.id === id);
    if (row) return { set, row };
  }
  return null;
}

function compareTable(set, row, base) {
  const axes = set.axes.filter((axis) => axis.drawn && row.texts[axis.key] !== undefined && row.texts[axis.key] !== "-");
  // of times the row of the speed-up tells the ratio: paired by round, where that of two medians is not
  const ratio = (axis) => {
    if (axis.unit.trim() === "ms") return "";
    const [before, after] = [base && base.values[axis.key], row.values[axis.key]];
    if (axis.role !== "cost" || !isNumber(before) || !isNumber(after) || !after) return "";
    return `${(before / after).toFixed(2)}x`;
  };
  return element(
    "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "figures of what is selected" },
    element(
      "table", {},
      element("thead", {}, element("tr", {}, ...["Figure", base ? "original" : null, base ? "this" : "value", base ? "old/new" : null].filter(Boolean).map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...axes.map((axis) => element(
        "tr", {}, element("th", { scope: "row", title: axis.how }, axis.title),
        base ? element("td", {}, base.texts[axis.key] ?? "-") : null, element("td", {}, row.texts[axis.key]),
        base ? element("td", {}, ratio(axis)) : null,
      ))),
    ),
  );
}

function folded(title, ...content) {
  return element("details", {}, element("summary", {}, title), ...content);
}

function card(id, select) {
  const found = rowOf(id);
  if (!found) return { box: element("p", { class: "soft" }, "Select a point or a row to see what it is."), show: () => {} };
  const { set, row } = found;
  const own = data.cards[row.model];
  const file = own && own.files[row.id];
  const base = file && file.baseline !== row.id ? set.rows.find((item) => item.id === file.baseline) : null;
  const parts = [element("h3", {}, row.id, row.tags.length ? element("small", {}, ` ${row.tags.join(" · ")}`) : null)];
  if (file) parts.push(element("p", {}, file.effect), element("p", { class: "soft" }, file.training));
  if (file) {
    const path = file.ship || file.path;
    parts.push(element("p", {}, file.ship ? "Ship this: " : "File: ", element("code", {}, path), " ", copied(path, "path")));
    if (file.feeding) parts.push(folded("How to feed it", element("pre", {}, file.feeding), copied(file.feeding, "code")));
  }
  if (row.told) parts.push(...row.told.map((text) => element("p", { class: "soft" }, text)));
  parts.push(compareTable(set, row, base));
  const charts = data.charts.filter((chart) => chart.model === row.model).map((chart) => chartBox(chart, select));
  if (file) parts.push(...file.panels.map(panelBox));
  if (file && file.precisions) parts.push(precisionsBox(file.precisions));
  parts.push(element("div", { class: "charts" }, ...charts.map((chart) => chart.box)));
  if (own) {
    parts.push(element("p", { class: "soft" }, own.finetuning), ...own.choices.map((text) => element("p", { class: "soft" }, text)));
    parts.push(...own.notes.map((text) => element("p", { class: "soft" }, `Note: ${text}`)));
    if (own.layers.length) parts.push(folded("Layers pruned and kept", element("ul", {}, ...own.layers.map((text) => element("li", {}, text)))));
    parts.push(folded("Files against the Keras model", element("p", {}, own.checks)));
    parts.push(...own.commands.map((text) => element("pre", {}, text)));
  }
  return { box: element("div", { class: "card" }, ...parts), show: () => charts.forEach((chart) => chart.show()) };
}

// How each layer is computed in a file, and what that loses.
function precisionsBox(told) {
  const cells = (texts, kind) => texts.map((text) => element(kind, kind === "th" ? { scope: "col" } : {}, text));
  return folded(
    told.title, element("p", { class: "soft" }, told.about),
    element(
      "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": told.title },
      element(
        "table", {},
        element("thead", {}, element("tr", {}, ...cells(told.heads, "th"))),
        element("tbody", {}, ...told.rows.map(([layer, ...texts]) => element("tr", {}, element("th", { scope: "row" }, layer), ...cells(texts, "td")))),
      ),
    ),
  );
}

// A panel of rows and columns (a confusion matrix, say), or of pictures with words below.
function panelBox(panel) {
  const parts = [element("h3", {}, panel.title), element("p", { class: "soft" }, panel.caption)];
  if (panel.kind === "matrix") {
    const most = Math.max(1, ...panel.cells.flat());
    parts.push(element(
      "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": panel.title },
      element(
        "table", { class: "matrix" },
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, panel.corner), ...panel.columns.map((text) => element("th", { scope: "col" }, text)))),
        element("tbody", {}, ...panel.cells.map((cells, line) => element(
          "tr", {}, element("th", { scope: "row" }, panel.rows[line]),
          ...cells.map((value, place) => {
            const made = element("td", { class: line === place ? "right" : value ? "wrong" : "none" }, String(value));
            made.style.setProperty("--share", String(value / most));
            return made;
          }),
        ))),
      ),
    ));
  }
  if (panel.kind === "examples") {
    parts.push(element("div", { class: "examples" }, ...panel.items.map((item) => element(
      "figure", {}, item.picture ? element("img", { src: item.picture, alt: item.text }) : null, element("figcaption", {}, item.text),
    ))));
  }
  return element("div", { class: "panel" }, ...parts);
}
