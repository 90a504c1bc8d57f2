// A table of points: sorted by a click on a head, filtered by words and by comparisons.

const COMPARED = /^([a-z_0-9.]+)(<=|>=|<|>|=)(-?[0-9.]+(?:e[+-]?\d+)?)([kmg%]?)$/i;
const FACTORS = { k: 1e3, m: 1e6, g: 1e9, "%": 0.01, "": 1 };

function compared(word, set) {
  const found = COMPARED.exec(word);
  if (!found) return null;
  const [, name, how, number, unit] = found;
  const wanted = name.toLowerCase();
  const axis = set.axes.find(
    (item) => item.drawn && (item.key === wanted || item.title.toLowerCase().replaceAll(" ", "_") === wanted),
  );
  if (!axis) return null;
  const bound = Number(number) * FACTORS[unit.toLowerCase()];
  const holds = {
    "<": (value) => value < bound, ">": (value) => value > bound,
    "<=": (value) => value <= bound, ">=": (value) => value >= bound, "=": (value) => value === bound,
  }[how];
  return (row) => {
    const value = row.values[axis.key];
    return value !== null && value !== undefined && holds(value);
  };
}

const words = new WeakMap();

function searchable(row) {
  if (!words.has(row)) {
    words.set(row, [row.id, row.model, row.group, ...row.tags, ...Object.values(row.texts)].join(" ").toLowerCase());
  }
  return words.get(row);
}

function filtered(set, text) {
  const tests = text.toLowerCase().split(/\s+/).filter(Boolean).map(
    (word) => compared(word, set) || ((row) => searchable(row).includes(word)),
  );
  return set.rows.filter((row) => tests.every((test) => test(row)));
}

function sorted(rows, key, down) {
  if (key === null) return [...rows]; // as the report has them: the best first
  const of = (row) => {
    const value = row.values[key];
    return value === undefined ? row.texts[key] ?? row.id : value;
  };
  return [...rows].sort((one, other) => {
    const [a, b] = [of(one), of(other)];
    if (a === null || b === null) return (a === null) - (b === null); // unknown ones stay last
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return down ? -order : order;
  });
}

// A figure breaks before its interval alone, and only where the table is too wide.
function figureCell(axis, text) {
  if (!axis.drawn) return element("td", { class: "text" }, text);
  return element("td", { class: "figure" }, text.replaceAll(/ (?!\[)/g, "\u00a0"));
}

function table(set, state, heard) {
  const axes = set.axes.filter((axis) => state.shown.has(axis.key));
  const head = (key, title, how) => {
    const own = state.sort === key;
    const arrow = own ? (state.down ? " ▼" : " ▲") : "";
    return element(
      "th", { scope: "col", "aria-sort": own ? (state.down ? "descending" : "ascending") : "none", title: how },
      button(title + arrow, () => heard.sort(key), { class: "head" }),
    );
  };
  const all = sorted(state.rows(), state.sort, state.down);
  const rows = all.slice(0, state.most);
  const body = rows.map((row) =>
    element(
      "tr", { "data-id": row.id },
      element(
        "th", { scope: "row" },
        button(row.id, () => heard.select(row.id), { class: "name", "aria-pressed": "false" }),
        row.tags.length ? element("small", {}, row.tags.join(" · ")) : null,
      ),
      ...axes.map((axis) => figureCell(axis, row.texts[axis.key] ?? "-")),
    ),
  );
  if (all.length > rows.length) {
    const more = button(`${all.length - rows.length} more`, heard.more, {});
    body.push(element("tr", {}, element("td", { colspan: axes.length + 1, class: "text" }, more)));
  }
  return element(
    "table", {},
    element("thead", {}, element("tr", {}, head("", set.noun[0].toUpperCase() + set.noun.slice(1), "Its name; a click shows it."), ...axes.map((axis) => head(axis.key, axis.title, axis.how)))),
    element("tbody", {}, ...body),
  );
}

// Marks the row that is selected; the table stays as it is.
function mark(holder) {
  for (const line of holder.querySelectorAll("tr[data-id]")) {
    const mine = line.dataset.id === selection.id;
    line.classList.toggle("selected", mine);
    line.querySelector("button.name").setAttribute("aria-pressed", String(mine));
  }
}

function asCsv(set, rows) {
  const keys = [...new Set(set.axes.flatMap((axis) => [axis.key, axis.low, axis.high]).filter(Boolean))];
  const lines = [["id", "model", "tags", ...keys].join(",")];
  for (const row of rows) {
    const own = keys.map((key) => cell(row.values[key] ?? (key in row.values ? null : row.texts[key])));
    lines.push([cell(row.id), cell(row.model), cell(row.tags.join("; ")), ...own].join(","));
  }
  return lines.join("\n") + "\n";
}
