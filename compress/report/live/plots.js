// Charts: drawn by plotly, in the page's colours; what is selected stands out in all of them.

const drawn = [];
const MARKS = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function themed(layout) {
  const ink = colour("--ink");
  const axis = {
    gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"),
    automargin: true, tickfont: { color: ink },
  };
  const made = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12, family: "system-ui, sans-serif" },
    margin: { l: 56, r: 16, t: 16, b: 60 }, hovermode: "closest",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    hoverlabel: { bgcolor: colour("--card"), font: { color: ink }, bordercolor: ink },
    ...layout,
  };
  for (const name of Object.keys(made).filter((key) => /^[xy]axis\d*$/.test(key)).concat(["xaxis", "yaxis"])) {
    made[name] = { ...axis, ...(made[name] || {}) };
  }
  return made;
}

// plotly reads some markup in texts: what names say must stay text.
function plain(value, key) {
  if (typeof value === "string") {
    if (key === "hovertemplate") return value.replaceAll("\n", "<br>") + "<extra></extra>";
    return value.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  }
  if (Array.isArray(value)) return value.map((item) => plain(item, key));
  if (value && typeof value === "object") {
    // "meta" is ours: what a click selects by
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, name === "meta" ? item : plain(item, name)]));
  }
  return value;
}

// Charts are drawn when they come near the window: most of a long page is never looked at.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((item) => item.isIntersecting)) {
    near.unobserve(entry.target);
    const one = drawn.find((item) => item.place === entry.target);
    if (one) one.begin();
  }
}, { rootMargin: "300px" });
addEventListener("beforeprint", () => shown().forEach((one) => one.begin()));

// Charts that are in the page; those of a card that gave way are forgotten.
function shown() {
  const here = drawn.filter((one) => document.contains(one.place));
  drawn.splice(0, drawn.length, ...here);
  return here;
}

// place: an element in the page. figure(): traces and layout of now. heard(id): of a click.
function plot(place, figure, heard) {
  const one = { place, figure, begun: false };
  one.size = (layout) => {
    place.style.height = `${layout.height || 340}px`;
  };
  one.draw = () => {
    if (!one.begun) return null;
    const { traces, layout } = one.figure();
    one.size(layout);
    return Plotly.react(place, stressed(plain(traces)), themed(plain(layout)), MARKS);
  };
  one.begin = () => {
    if (one.begun) return;
    one.begun = true;
    one.draw().then(() => {
      place.on("plotly_click", (event) => {
        const point = event.points[0];
        const meta = point.data.meta;
        const id = meta && meta.points ? meta.points[point.pointIndex] : meta && meta.model;
        if (id) heard(id);
      });
    });
  };
  one.size(one.figure().layout);
  drawn.push(one);
  near.observe(place);
  return one;
}

// Traces in which the selected model stands out: a line thick and the others pale, a point ringed.
function stressed(traces) {
  const { model, id } = selection;
  if (!model) return traces;
  return traces.map((trace) => {
    const meta = trace.meta || {};
    if (meta.model !== undefined) {
      const mine = meta.model === model;
      const line = trace.line || {};
      return {
        ...trace, opacity: mine ? 1 : 0.25, line: { ...line, width: mine ? 4 : line.width || 1 },
      };
    }
    if (meta.points) {
      const places = meta.points
        .map((name, place) => (name === id || (meta.models && meta.models[place] === model) ? place : -1))
        .filter((place) => place >= 0);
      return {
        ...trace, selectedpoints: places,
        selected: { marker: { opacity: 1, size: 15 } }, unselected: { marker: { opacity: 0.55 } },
      };
    }
    return trace;
  });
}

function redraw() {
  for (const one of shown()) one.draw();
}

function chartBox(chart, heard) {
  const place = element("div", {
    class: "live-plot", id: `chart-${chart.id}`, role: "figure", "aria-label": `${chart.title}. ${chart.caption}`,
  });
  const variants = chart.variants || [];
  let chosen = variants[0];
  let one = null;
  const choose = variants.length
    ? labelled("coloured by", choice(variants.map((item) => [item.name, item.name]), chosen.name, (name) => {
      chosen = variants.find((item) => item.name === name);
      one.draw();
    }))
    : null;
  const traces = () => chart.traces.map((trace, at) => {
    const colours = chosen && chosen.colours[at];
    return colours ? { ...trace, marker: { ...trace.marker, color: colours } } : trace;
  });
  const box = element(
    "figure", { class: chart.wide ? "live-chart wide-chart" : "live-chart" },
    element("h3", {}, chart.title), choose, place, element("figcaption", {}, chart.caption),
  );
  return { box, show: () => { one = plot(place, () => ({ traces: traces(), layout: chart.layout }), heard); } };
}
