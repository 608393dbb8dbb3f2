"use strict";
const cohort = JSON.parse(document.getElementById("data").textContent);
const PAGE_SIZE = 100;
const BINS = 16;
const SVG = "http://www.w3.org/2000/svg";
const COLUMNS = [
  { key: "review_priority", title: "Priority", digits: 2 },
  { key: "thumbnail", title: "Axial and coronal" },
  { key: "scan_id", title: "Scan" },
  { key: "status", title: "Status" },
  { key: "expected_wrong_ml", title: "Expected wrong (mL)", digits: 1 },
  { key: "confidence", title: "Confidence (%)", digits: 0, factor: 100 },
  { key: "alarms", title: "Alarms", digits: 0 },
  { key: "max_volume_z", title: "Largest z", digits: 1 },
  { key: "note", title: "Look first at, or why there is no result" },
];
const view = { sort: "review_priority", falling: true, page: 0, status: "", search: "", scans: null };

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function number(value, column) {
  return value === null ? "" : ((column.factor || 1) * value).toFixed(column.digits);
}

function selected() {
  const words = view.search.toLowerCase();
  const rows = cohort.scans.filter(
    (scan) =>
      (!view.status || scan.status === view.status) &&
      (!view.scans || view.scans.has(scan.scan_id)) &&
      (!words || scan.text.includes(words))
  );
  const sign = view.falling ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [a[view.sort], b[view.sort]];
    if (x === y) return a.scan_id < b.scan_id ? -1 : 1;
    if (x === null) return 1;
    if (y === null) return -1;
    return x < y ? -sign : sign;
  });
}

function cell(scan, column) {
  if (column.key === "thumbnail") {
    const made = element("td");
    if (scan.status === "done") {
      const image = element("img");
      image.loading = "lazy";
      image.alt = "Axial and coronal slice with organs in colour";
      image.src = "thumbnails/" + scan.scan_id + ".png";
      made.append(image);
    }
    return made;
  }
  if (column.key === "scan_id") {
    const made = element("td");
    const link = element("a", scan.name);
    if (scan.status === "done") link.href = "scans/" + scan.scan_id + "/";
    made.append(link);
    return made;
  }
  if (column.digits !== undefined) return element("td", number(scan[column.key], column), "number");
  return element("td", scan[column.key] || "", column.key === "status" ? scan.status : "");
}

function showRows() {
  const rows = selected();
  const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE));
  view.page = Math.min(view.page, pages - 1);
  const body = document.getElementById("rows");
  body.replaceChildren();
  for (const scan of rows.slice(view.page * PAGE_SIZE, (view.page + 1) * PAGE_SIZE)) {
    const row = element("tr");
    row.dataset.scan = scan.scan_id;
    row.append(...COLUMNS.map((column) => cell(scan, column)));
    body.append(row);
  }
  document.getElementById("shown").textContent = rows.length + " of " + cohort.scans.length + " scans";
  document.getElementById("pages").textContent = "Page " + (view.page + 1) + " of " + pages;
  document.getElementById("previous").disabled = view.page === 0;
  document.getElementById("next").disabled = view.page === pages - 1;
}

function showHeadings() {
  for (const column of COLUMNS) {
    const heading = element("th");
    heading.scope = "col";
    if (column.key === "thumbnail") heading.textContent = column.title;
    else {
      const button = element("button", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        view.falling = view.sort === column.key ? !view.falling : true;
        view.sort = column.key;
        view.page = 0;
        showRows();
      });
      heading.append(button);
    }
    document.getElementById("headings").append(heading);
  }
}

function histogram(organ) {
  const [width, height] = [200, 70];
  const figure = element("figure");
  const svg = drawn("svg", { width, height: height + 14, role: "img", "aria-label": "Volumes of " + organ.title });
  const values = organ.volumes.map((entry) => entry[1]);
  figure.append(svg, element("figcaption", organ.title + ", n = " + values.length));
  svg.append(drawn("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }));
  if (!values.length) return figure;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const size = (high - low) / BINS || 1;
  const bins = Array.from({ length: BINS }, () => []);
  for (const [scan, value] of organ.volumes) bins[Math.min(BINS - 1, Math.floor((value - low) / size))].push(scan);
  const most = Math.max(...bins.map((bin) => bin.length));
  bins.forEach((bin, index) => {
    if (!bin.length) return;
    const tall = (height * bin.length) / most;
    const place = { x: (index * width) / BINS, y: height - tall, width: width / BINS - 1, height: tall };
    const bar = drawn("rect", { class: "bar", tabindex: 0, ...place });
    const title = drawn("title", {});
    const from = (low + index * size).toFixed(0);
    title.textContent = bin.length + " scans, " + from + " to " + (low + (index + 1) * size).toFixed(0) + " mL";
    bar.append(title);
    bar.addEventListener("click", () => choose(bar, bin));
    bar.addEventListener("keydown", (event) => event.key === "Enter" && choose(bar, bin));
    svg.append(bar);
  });
  const middle = high > low ? ((organ.median - low) / (high - low)) * width : width / BINS / 2;
  svg.append(drawn("line", { class: "median", x1: middle, x2: middle, y1: 0, y2: height }));
  for (const [x, anchor, value] of [[0, "start", low], [width, "end", high]]) {
    const tick = drawn("text", { class: "tick", x, y: height + 11, "text-anchor": anchor });
    tick.textContent = value.toFixed(0) + " mL";
    svg.append(tick);
  }
  return figure;
}

function choose(bar, scans) {
  document.querySelectorAll(".bar.chosen").forEach((other) => other.classList.remove("chosen"));
  bar.classList.add("chosen");
  view.scans = new Set(scans);
  view.page = 0;
  showRows();
}

function showAll() {
  document.querySelectorAll(".bar.chosen").forEach((other) => other.classList.remove("chosen"));
  Object.assign(view, { page: 0, status: "", search: "", scans: null });
  document.getElementById("status").value = "";
  document.getElementById("search").value = "";
  showRows();
}

function start() {
  document.getElementById("summary").textContent = cohort.summary;
  for (const status of [...new Set(cohort.scans.map((scan) => scan.status))].sort()) {
    const option = element("option", status);
    option.value = status;
    document.getElementById("status").append(option);
  }
  document.getElementById("histograms").append(...cohort.organs.map(histogram));
  showHeadings();
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all").addEventListener("click", showAll);
  document.getElementById("status").addEventListener("change", (event) => {
    Object.assign(view, { status: event.target.value, page: 0 });
    showRows();
  });
  document.getElementById("search").addEventListener("input", (event) => {
    Object.assign(view, { search: event.target.value, page: 0 });
    showRows();
  });
  for (const [id, step] of [["previous", -1], ["next", 1]])
    document.getElementById(id).addEventListener("click", () => {
      view.page += step;
      showRows();
    });
  showRows();
}

start();
