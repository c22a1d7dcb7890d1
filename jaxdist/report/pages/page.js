"use strict";
(() => {
  // The library that draws is packed, since it would be most of the file.
  const load = async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };

  const charts = [...document.querySelectorAll(".chart")];
  const options = {
    responsive: true,
    displaylogo: false,
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  // What the switches say: the numbers that are on, by kind.
  const chosen = () => {
    const on = {};
    for (const input of document.querySelectorAll(".switches input")) {
      on[input.name] ??= new Set();
      if (input.checked) on[input.name].add(Number(input.value));
    }
    return on;
  };
  const isShown = (meta, on) =>
    Object.entries(meta ?? {}).every(([kind, number]) => !(kind in on) || on[kind].has(number));

  const apply = () => {
    const on = chosen();
    for (const chart of charts) {
      if (!chart.data) continue;
      Plotly.restyle(chart, { visible: chart.data.map((trace) => isShown(trace.meta, on)) });
    }
  };

  // A chart is drawn when it comes near the screen, so that a page with many opens at once.
  const draw = (chart) => {
    if (chart.data || chart.dataset.begun) return;
    chart.dataset.begun = "yes";
    const plot = JSON.parse(chart.nextElementSibling.textContent);
    const on = chosen();
    for (const trace of plot.data) trace.visible = isShown(trace.meta, on);
    const small = chart.closest(".small") !== null; // there is no room above its lines for buttons
    Plotly.newPlot(chart, plot.data, plot.layout, small ? { ...options, displayModeBar: false } : options);
  };
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        near.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "800px" },
  );
  const failed = () => {
    for (const chart of charts) chart.textContent = "This browser cannot draw the charts; a newer one can. The tables hold all.";
  };
  if (charts.length) load().then(() => charts.forEach((chart) => near.observe(chart)), failed);
  document.querySelector(".switches")?.addEventListener("change", apply);

  const value = (row, column) => {
    const cell = row.cells[column];
    if (!("key" in cell.dataset)) return cell.textContent;
    return cell.dataset.key === "" ? NaN : Number(cell.dataset.key);
  };
  const compare = (a, b) => {
    if (typeof a === "string" || typeof b === "string") return String(a).localeCompare(String(b), "en", { numeric: true });
    return a - b;
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = head.closest("table").tBodies[0];
      const rows = [...body.rows].map((row) => [value(row, head.cellIndex), row]);
      // What is missing stays last, whichever way the rest is sorted.
      const [there, missing] = [rows.filter(([key]) => key === key), rows.filter(([key]) => key !== key)];
      there.sort(([a], [b]) => (ascending ? compare(a, b) : compare(b, a)));
      body.append(...[...there, ...missing].map(([, row]) => row));
    });
  }

  // Paper shows everything: what is folded is opened, and what was not drawn yet is drawn.
  let folded = [];
  const forPaper = () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const details of folded) details.open = true;
    if (window.Plotly) charts.forEach(draw);
  };
  addEventListener("beforeprint", forPaper);
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));

  // A link to a section that is folded opens it.
  const unfold = () => {
    const details = document.getElementById(location.hash.slice(1))?.querySelector("details");
    if (details) details.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
})();
