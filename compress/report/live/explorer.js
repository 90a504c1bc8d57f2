// An explorer of points: any two figures against each other, and the table below.

// Points that no other beats: the quality higher for a cost that is not higher.
function frontOf(rows, x, y) {
  const sign = (axis) => (axis.role === "quality" ? -1 : 1);
  const known = rows.filter((row) => isNumber(row.values[x.key]) && isNumber(row.values[y.key]));
  const order = [...known].sort(
    (a, b) => sign(x) * (a.values[x.key] - b.values[x.key]) || sign(y) * (a.values[y.key] - b.values[y.key]),
  );
  const found = [];
  let best = Infinity;
  for (const row of order) {
    const own = sign(y) * row.values[y.key];
    if (own < best) {
      best = own;
      found.push(row);
    }
  }
  return found.sort((a, b) => a.values[x.key] - b.values[x.key]);
}

const PAGE = 200; // rows that a table begins with

function isNumber(value) {
  return typeof value === "number";
}

// Times are drawn in seconds, whose parts plotly names: 38 us.
function scaled(value, axis) {
  return axis.unit.trim() === "ms" ? value / 1000 : value;
}

function spread(rows, axis) {
  const known = rows.map((row) => row.values[axis.key]).filter((value) => isNumber(value) && value > 0);
  return known.length > 1 && Math.max(...known) / Math.min(...known) >= 4;
}

const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "\u00b5"], [1e-9, "n"]];

function ticked(value, suffix) {
  const [size, prefix] = PREFIXES.find(([least]) => value >= 0.999 * least) || PREFIXES.at(-1);
  return `${Number((value / size).toPrecision(2))}${prefix}${suffix}`;
}

// Plotly's own ticks of a logarithmic axis show the unit at powers of ten alone.
function logTicks(rows, axis, suffix) {
  const known = rows.map((row) => row.values[axis.key]).filter((value) => isNumber(value) && value > 0).map((value) => scaled(value, axis));
  if (!known.length) return {};
  const [low, high] = [Math.floor(Math.log10(Math.min(...known))), Math.ceil(Math.log10(Math.max(...known)))];
  const tickvals = [];
  for (let power = low - 1; power <= high; power += 1) {
    for (const digit of high - low > 3 ? [1] : [1, 2, 5]) tickvals.push(digit * 10 ** power);
  }
  return { tickmode: "array", tickvals, ticktext: tickvals.map((value) => ticked(value, suffix)) };
}

// Ticks that differ: enough decimals of percentages, and a range where all values are the same.
function linearTicks(rows, axis) {
  const known = rows.map((row) => row.values[axis.key]).filter(isNumber).map((value) => scaled(value, axis));
  if (!known.length) return {};
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const share = axis.tick === ".1%";
  if (low === high) {
    const away = share ? 0.01 : Math.abs(low) * 0.05 || 1;
    return { range: [low - away, share ? Math.min(high + away, 1.0005) : high + away] };
  }
  if (!share || high - low >= 0.02) return {};
  return { tickformat: high - low >= 0.002 ? ".2%" : ".3%" };
}

function ends(rows, axis) {
  if (!axis.low) return undefined;
  const away = (row, key) =>
    isNumber(row.values[key]) && isNumber(row.values[axis.key]) ? scaled(Math.abs(row.values[key] - row.values[axis.key]), axis) : 0;
  return {
    type: "data", symmetric: false, visible: true, thickness: 1, width: 3,
    array: rows.map((row) => away(row, axis.high)), arrayminus: rows.map((row) => away(row, axis.low)),
  };
}

function scattered(set, state) {
  const byKey = Object.fromEntries(set.axes.map((axis) => [axis.key, axis]));
  const [x, y] = [byKey[state.x], byKey[state.y]];
  const rows = state.rows().filter((row) => isNumber(row.values[x.key]) && isNumber(row.values[y.key]));
  const front = frontOf(rows.filter((row) => row.counts), x, y);
  const traces = [];
  if (x.role !== "other" && y.role !== "other" && front.length > 1) {
    traces.push({
      type: "scatter", mode: "lines", x: front.map((row) => scaled(row.values[x.key], x)), y: front.map((row) => scaled(row.values[y.key], y)),
      line: { shape: x.role === "cost" && y.role === "quality" ? "hv" : "linear", dash: "dot", width: 1.5, color: colour("--soft") },
      name: "Pareto front", hoverinfo: "skip",
    });
  }
  for (const [group, [tone, symbol]] of Object.entries(set.groups)) {
    const own = rows.filter((row) => row.group === group);
    if (!own.length) continue;
    traces.push({
      type: "scatter", mode: "markers", name: group,
      x: own.map((row) => scaled(row.values[x.key], x)), y: own.map((row) => scaled(row.values[y.key], y)),
      meta: { points: own.map((row) => row.id), models: own.map((row) => row.model) },
      marker: { color: tone, symbol, size: 10, line: { width: 1, color: colour("--card") } },
      error_x: state.bars ? ends(own, x) : undefined, error_y: state.bars ? ends(own, y) : undefined,
      customdata: own.map((row) => [row.id, row.texts[x.key] ?? "", row.texts[y.key] ?? "", row.tags.join(", ")]),
      hovertemplate: `%{customdata[0]}\n${safe(y.title)}: %{customdata[2]}\n${safe(x.title)}: %{customdata[1]}\n%{customdata[3]}`,
    });
  }
  const axisOf = (axis, log) => {
    const suffix = { ms: "s", B: "B" }[axis.unit.trim()] || "";
    return {
      title: { text: axis.title }, type: log ? "log" : "linear", tickformat: axis.tick, tickangle: 0,
      ...(log ? logTicks(rows, axis, suffix) : { ticksuffix: suffix, nticks: 8, ...linearTicks(rows, axis) }),
    };
  };
  return {
    traces,
    layout: { xaxis: axisOf(x, state.logX), yaxis: axisOf(y, false), height: 420, showlegend: true },
  };
}

function safe(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("%{", "%&#123;");
}

function explorer(set, select) {
  const axes = set.axes.filter((axis) => axis.drawn && set.rows.some((row) => isNumber(row.values[axis.key])));
  const state = {
    x: axes.some((axis) => axis.key === set.x) ? set.x : axes[0].key, y: set.y, bars: true, text: "",
    sort: null, down: false, most: PAGE, shown: new Set(set.axes.filter((axis) => axis.shown).map((axis) => axis.key)),
  };
  state.logX = spread(set.rows, axes.find((axis) => axis.key === state.x));
  state.rows = () => filtered(set, state.text);

  const place = element("div", { class: "live-plot", id: `plot-${set.id}`, role: "figure", "aria-label": `${set.title}: every figure of it is in the table.` });
  const holder = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${set.title}, table` });
  const count = element("span", { class: "soft", role: "status" });
  let picture = null;
  const list = () => {
    const had = document.activeElement && holder.contains(document.activeElement) ? document.activeElement.textContent : null;
    holder.replaceChildren(table(set, state, {
      sort: (key) => {
        state.down = state.sort === key ? !state.down : false;
        state.sort = key;
        list();
      },
      more: () => {
        const had = state.most;
        state.most += 5 * PAGE;
        list();
        holder.querySelectorAll("tbody button.name")[had].focus();
      },
      select,
    }));
    mark(holder);
    if (had !== null) {
      const bare = had.replace(/ [▲▼]$/, "");
      const again = [...holder.querySelectorAll("button")].find((item) => item.textContent.replace(/ [▲▼]$/, "") === bare);
      if (again) again.focus();
    }
    count.textContent = `${state.rows().length} of ${set.rows.length}`;
  };
  const both = () => {
    picture.draw();
    list();
  };
  const log = tick("log scale", state.logX, (on) => {
    state.logX = on;
    picture.draw();
  });
  let waiting = 0;
  const options = axes.map((axis) => [axis.key, axis.title]);
  const filter = element("input", {
    type: "search", placeholder: "words, or macs<2m", "aria-label": `filter ${set.title}`,
    on: { input: () => { clearTimeout(waiting); waiting = setTimeout(() => { state.text = filter.value; both(); }, set.rows.length > PAGE ? 150 : 0); } },
  });
  const columns = element("details", { class: "columns" }, element("summary", {}, "Columns"), element("div", {}, ...set.axes.map((axis) =>
    tick(axis.title, state.shown.has(axis.key), (on) => {
      if (on) state.shown.add(axis.key); else state.shown.delete(axis.key);
      list();
    }))));
  const box = element(
    "section", { class: "explorer", id: `set-${set.id}`, "aria-label": set.title },
    element("h2", {}, set.title),
    element("div", { class: "controls" }, labelled("filter", filter), count, columns,
      button("CSV", () => download(`${set.id}.csv`, asCsv(set, sorted(state.rows(), state.sort, state.down)), "text/csv"), { "aria-label": `download ${set.title} as CSV` })),
    holder,
    element(
      "div", { class: "controls" },
      labelled("x axis", choice(options, state.x, (key) => {
        state.x = key;
        state.logX = spread(set.rows, axes.find((axis) => axis.key === key));
        log.querySelector("input").checked = state.logX;
        picture.draw();
      })),
      labelled("y axis", choice(options, state.y, (key) => { state.y = key; picture.draw(); })),
      log,
      tick("intervals", state.bars, (on) => { state.bars = on; picture.draw(); }),
    ),
    place,
    element("p", { class: "soft" }, set.lead),
  );
  return { box, mark: () => mark(holder), show: () => { picture = plot(place, () => scattered(set, state), select); list(); } };
}
