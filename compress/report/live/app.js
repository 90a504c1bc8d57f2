// The page: explorers, charts, the card; one selection for all of them.

const selection = { id: "", model: "" };

function theme(wanted) {
  const root = document.documentElement;
  root.dataset.theme = wanted;
  try {
    localStorage.setItem("paretune-theme", wanted);
  } catch (_) {
    // a page from a file may keep nothing
  }
  redraw();
}

function themeNow() {
  let kept = null;
  try {
    kept = localStorage.getItem("paretune-theme");
  } catch (_) {
    // nothing is kept
  }
  if (kept === "dark" || kept === "light") return kept;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function start() {
  const root = document.documentElement;
  root.dataset.theme = themeNow();
  const top = document.getElementById("paretune-live");
  const shownCard = element("div", { id: "paretune-card", "aria-live": "polite" });
  const explorers = [];

  function select(id) {
    const found = rowOf(id) || rowOf((data.sets.flatMap((set) => set.rows).find((row) => row.model === id) || {}).id);
    if (!found) return;
    selection.id = found.row.id;
    selection.model = found.row.model;
    const made = card(found.row.id, select);
    shownCard.replaceChildren(made.box);
    made.show();
    redraw();
    explorers.forEach((item) => item.mark());
    said(`${found.row.id} is selected`);
  }

  const toggle = button("", () => {
    theme(root.dataset.theme === "dark" ? "light" : "dark");
    name();
  }, { class: "theme" });
  const name = () => {
    toggle.textContent = root.dataset.theme === "dark" ? "light colours" : "dark colours";
  };
  name();
  document.getElementById("paretune-theme").replaceChildren(toggle);

  for (const set of data.sets) explorers.push(explorer(set, select));
  const wide = data.charts.filter((chart) => !chart.model).map((chart) => chartBox(chart, select));
  const [first, ...others] = explorers;
  top.append(
    first.box,
    element("section", { "aria-label": "What is selected" }, element("h2", {}, "What is selected"), shownCard),
    ...others.map((item) => item.box),
  );
  if (wide.length) {
    top.append(element("section", { "aria-label": "How it went" }, element("h2", {}, "How the search went"),
      element("div", { class: "charts" }, ...wide.map((item) => item.box))));
  }
  for (const item of [...explorers, ...wide]) item.show();
  select(data.selected || (bestOf() || {}).id || "");
  for (const box of document.querySelectorAll("[data-static]")) box.hidden = true;
  root.classList.add("live");
}

// The file that stands out, to begin with; of none the first.
function bestOf() {
  const rows = data.sets[0].rows;
  return rows.find((row) => row.tags.some((tag) => !tag.endsWith(" front"))) || rows[0];
}

start();
