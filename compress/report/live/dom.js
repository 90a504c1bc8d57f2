// Elements, from text alone: nothing that a run's folder says becomes markup.

const data = JSON.parse(document.getElementById("paretune-data").textContent);

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") {
      for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    } else if (value === true) {
      made.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function labelled(text, control) {
  return element("label", { class: "control" }, element("span", {}, text), control);
}

function choice(options, chosen, heard) {
  const made = element("select", { on: { change: () => heard(made.value) } });
  for (const [value, text] of options) {
    made.append(element("option", { value, selected: value === chosen }, text));
  }
  return made;
}

function tick(text, checked, heard) {
  const box = element("input", {
    type: "checkbox", checked, on: { change: () => heard(box.checked) },
  });
  return element("label", { class: "control tick" }, box, element("span", {}, text));
}

function button(text, heard, more) {
  return element("button", { type: "button", on: { click: heard }, ...more }, text);
}

function download(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  URL.revokeObjectURL(address);
}

// A cell of CSV; a text that would begin a formula is quoted.
function cell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t]/.test(text)) text = "'" + text;
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function said(text) {
  const line = document.getElementById("paretune-said");
  line.textContent = "";
  line.textContent = text;
}
