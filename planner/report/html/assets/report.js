// The moving parts of the report: which plans count, which is shown, what is drawn over what.
// Observable Plot draws; texts and tables come from the template, so that the page reads without this.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const byId = new Map(data.plans.map((p) => [p.id, p]));
  const metric = new Map(data.metrics.map((m) => [m.key, m]));
  const modes = ["colocated", "disaggregated", "mixed"];
  const costUnit = data.priced ? "$/h" : "GPUs";
  const state = { a: data.plans.find((p) => p.recommended).id, b: null, limits: [] };

  // Numbers -------------------------------------------------------------------------------------

  const digits = (x, n = 3) => Number(x.toPrecision(n)).toLocaleString("en-US");
  const duration = (s) =>
    s < 1e-3 ? `${digits(s * 1e6)} µs` : s < 1 ? `${digits(s * 1e3)} ms` : `${digits(s)} s`;
  const inMilliseconds = (values) => Math.max(...values) < 1;
  const cost = (x) => (data.priced ? `$${x.toFixed(2)}/h` : `${x} GPUs`);

  // Which plans count ---------------------------------------------------------------------------

  const bounds = data.bounds.map((b, k) => ({
    name: b.name, most: b.limit, of: (p) => p.bounds[k], show: duration,
  }));
  const costKey = data.priced ? "usd" : "gpus";
  bounds.push({
    name: metric.get(costKey).label, most: Math.max(...data.plans.map((p) => p.values[costKey])),
    of: (p) => p.values[costKey], show: cost, whole: !data.priced,
  });

  const counts = (p) =>
    bounds.every((b, k) => {
      const value = b.of(p);
      return value !== null && value <= state.limits[k] * (1 + 1e-4);
    });

  function makeSliders() {
    bounds.forEach((b, k) => {
      const least = Math.min(...data.plans.map((p) => b.of(p) ?? b.most), b.most);
      const low = b.whole ? Math.max(0, least - 1) : 0.9 * least;
      const row = document.createElement("div");
      row.className = "limit";
      const label = document.createElement("label");
      label.textContent = `${b.name} at most`;
      label.htmlFor = `limit-${k}`;
      // not an <output>: the slider's own value text speaks, and a live region would say it again
      const output = document.createElement("b");
      const input = Object.assign(document.createElement("input"), {
        id: `limit-${k}`, type: "range", min: low, max: b.most,
        step: b.whole ? 1 : Math.max((b.most - low) / 200, Number.MIN_VALUE),
      });
      const read = () => {
        // the step may miss the end of the range: there, the limit is the one asked for
        const value = Number(input.value);
        state.limits[k] = b.most - value < (b.most - low) / 150 ? b.most : value;
        output.textContent = b.show(state.limits[k]);
        input.setAttribute("aria-valuetext", `at most ${output.textContent}`);
      };
      input.addEventListener("input", () => { read(); filter(); });
      row.append(label, output, input);
      $("limits").append(row);
      b.reset = () => { input.value = b.most; read(); };
      b.reset();
    });
    $("reset").addEventListener("click", () => { bounds.forEach((b) => b.reset()); filter(); });
  }

  function filter() {
    const inside = data.plans.filter(counts);
    for (const row of document.querySelectorAll("tr[data-plan]"))
      row.hidden = !counts(byId.get(row.dataset.plan));
    const best = inside.reduce(
      (x, p) => (x === null || p.values[costKey] < x.values[costKey] ? p : x), null);
    let text = `${inside.length} of ${data.plans.length} plans meet these limits`;
    if (best) text += `; ${data.priced ? "cheapest" : "fewest GPUs"}: ${best.id}, ${cost(best.values[costKey])}`;
    if (!counts(byId.get(state.a))) text += `; the plan shown, ${state.a}, does not`;
    $("count").textContent = `${text}.`;
    drawPareto();
  }

  // Pictures ------------------------------------------------------------------------------------

  const widthOf = (element) => Math.max(260, Math.floor(element.clientWidth));

  // Plot names its groups by kind of mark, in an attribute that readers expect on roles only
  function unnamed(svg) {
    for (const g of svg.querySelectorAll("g[aria-label]:not([role])")) {
      g.dataset.mark = g.getAttribute("aria-label");
      g.removeAttribute("aria-label");
    }
    return svg;
  }

  function front(plans, x, y) {
    // from the best in x on, only what gains in y
    const sign = (m) => (m.better === "lower" ? 1 : -1);
    const sorted = [...plans].sort((p, q) =>
      sign(x) * (p.values[x.key] - q.values[x.key]) || sign(y) * (p.values[y.key] - q.values[y.key]));
    let best = Infinity;
    return sorted.filter((p) => {
      const value = sign(y) * p.values[y.key];
      return value < best && ((best = value), true);
    });
  }

  const axisLabel = (m) => `${m.label}${m.label === m.unit ? "" : ` [${m.unit}]`}`;
  const said = (p, ...keys) =>
    `${p.id}: ${p.label}\n${keys.map((k) => `${metric.get(k).name}: ${p.texts[k]}`).join("\n")}`;

  function marksOfPoints(inside, outside, x, y) {
    const at = { x: (p) => p.values[x.key], y: (p) => p.values[y.key] };
    const named = inside.filter((p) => p.recommended || p.knee || p.id === state.a || p.id === state.b);
    const keys = [...new Set([x.key, y.key, costKey, "gpus", "goodput"])];
    return [
      Plot.line(front(inside, x, y), { ...at, stroke: "var(--soft)", strokeOpacity: 0.7, curve: x.better === "lower" ? "step-after" : "step-before" }),
      Plot.dot(outside, { ...at, symbol: "times", stroke: "var(--soft)", strokeOpacity: 0.6, r: 3.5 }),
      Plot.dot(inside.filter((p) => p.id === state.a), { ...at, r: 12, stroke: "var(--ink)", strokeWidth: 2 }),
      Plot.dot(inside.filter((p) => p.id === state.b), { ...at, r: 12, stroke: "var(--ink)", strokeWidth: 1.5, strokeDasharray: "3 3" }),
      Plot.dot(inside, {
        ...at, symbol: "mode", fill: "mode", r: 6.5, stroke: "var(--card)", strokeWidth: 1,
        render: (index, scales, values, dimensions, context, next) => {
          const g = next(index, scales, values, dimensions, context);
          g.classList.add("points");
          g.setAttribute("role", "group");
          g.setAttribute("aria-label", "Plans");
          [...g.children].forEach((point, k) => makeButton(point, inside[index[k]], x, y));
          return g;
        },
      }),
      Plot.text(named, { ...at, text: (p) => p.id + (p.recommended ? " recommended" : p.knee ? " knee" : ""), dy: -17, fontWeight: 600, stroke: "var(--card)", strokeWidth: 4, fill: "var(--ink)" }),
      Plot.tip(inside, Plot.pointer({ ...at, title: (p) => said(p, ...keys), fontSize: 12.5, lineHeight: 1.3, pathFilter: "none", stroke: "var(--soft)" })),
    ];
  }

  function makeButton(point, plan, x, y) {
    point.dataset.id = plan.id;
    point.setAttribute("role", "button");
    point.setAttribute("aria-pressed", String(plan.id === state.a));
    point.setAttribute("aria-label", said(plan, x.key, y.key).replaceAll("\n", ", "));
    point.setAttribute("tabindex", "-1");
  }

  // where all plans share a value, an axis from zero puts them in its middle
  function domainOf(m) {
    const values = data.plans.map((p) => p.values[m.key]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return high - low > 1e-3 * Math.abs(high) ? [low, high] : [0, 2 * high || 1];
  }

  function drawPareto() {
    const holder = $("pareto");
    const focused = holder.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    const [x, y] = [metric.get($("axis-x").value), metric.get($("axis-y").value)];
    const inside = data.plans.filter(counts);
    const outside = data.plans.filter((p) => !counts(p));
    const width = widthOf(holder);
    $("pareto-title").textContent = `${y.label} over ${x.label} of ${inside.length} plans`;
    const svg = Plot.plot({
      className: "chart", width, height: Math.min(460, Math.max(300, 0.58 * width)),
      marginLeft: 56, marginBottom: 42, marginTop: 34, marginRight: 24,
      ariaLabel: `${y.label} over ${x.label}`,
      x: { label: axisLabel(x), domain: domainOf(x), inset: 26, ticks: width / 90, grid: true, labelAnchor: "right", labelArrow: "none" },
      y: { label: axisLabel(y), domain: domainOf(y), inset: 20, ticks: 6, grid: true, labelArrow: "none" },
      color: { domain: modes, range: ["var(--both)", "var(--prefill)", "var(--decode)"] },
      symbol: { domain: modes, range: ["circle", "diamond", "square"] },
      marks: marksOfPoints(inside, outside, x, y),
    });
    svg.addEventListener("click", (event) => {
      const id = event.target.dataset?.id ?? svg.value?.id;
      if (id) select(id);
    });
    svg.addEventListener("keydown", (event) => moveAmong(svg, x, event));
    holder.replaceChildren(unnamed(svg));
    const points = pointsOf(svg, x);
    const home = points.find((p) => p.dataset.id === (focused ?? state.a)) ?? points[0];
    home?.setAttribute("tabindex", "0");
    if (focused && home) home.focus({ preventScroll: true });
  }

  const pointsOf = (svg, x) =>
    [...svg.querySelectorAll(".points > *")].sort(
      (p, q) => byId.get(p.dataset.id).values[x.key] - byId.get(q.dataset.id).values[x.key]);

  function moveAmong(svg, x, event) {
    const points = pointsOf(svg, x);
    const at = points.indexOf(event.target);
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (at < 0) return;
    if (event.key === "Enter" || event.key === " ") select(event.target.dataset.id);
    else if (event.key === "Home" || event.key === "End" || step) {
      const to = event.key === "Home" ? 0 : event.key === "End" ? points.length - 1 : at + step;
      const target = points[(to + points.length) % points.length];
      points.forEach((p) => p.setAttribute("tabindex", p === target ? "0" : "-1"));
      target.focus();
    } else return;
    event.preventDefault();
  }

  const colour = (k) => (k === 0 ? "var(--link)" : "var(--second)");
  const dash = (k) => (k === 0 ? null : "6 4");

  function keyOf(plans, figure) {
    if (plans.length < 2) return;
    const key = document.createElement("p");
    key.className = "key";
    plans.forEach((p, k) => {
      const item = document.createElement("span");
      const line = document.createElement("i");
      if (k) line.className = "second";
      line.style.borderColor = colour(k);
      item.append(line, `${p.id}: ${p.label}`);
      key.append(item);
    });
    figure.append(key);
  }

  function captioned(figure, text, svg, plans) {
    const caption = document.createElement("figcaption");
    caption.textContent = text;
    svg.setAttribute("role", "img");
    figure.replaceChildren(caption, unnamed(svg));
    keyOf(plans, figure);
  }

  function drawDistribution(figure, plans, name) {
    const curves = plans.map((p) => p.curves[name]).filter((c) => c && c.every((v) => v !== null));
    if (curves.length < plans.length || !curves.length) return figure.replaceChildren();
    const own = data.bounds.filter((b) => b.metric === name);
    const limits = own.map((b) => b.limit);
    const small = inMilliseconds(curves.flat()), factor = small ? 1e3 : 1;
    const longest = factor * Math.max(...curves.flat());
    // a limit far beyond the slowest request would squeeze the curve: it is then only named
    const shown = own.filter((b) => b.limit * factor <= 2.5 * longest);
    const rows = plans.flatMap((p, k) => curves[k].map((v, i) => ({ k, x: v * factor, y: 100 * data.shares[i] })));
    const required = own.filter((b) => b.statistic.startsWith("p")).map((b) => ({ x: b.limit * factor, y: Number(b.statistic.slice(1)) }));
    const inView = required.filter((r) => r.x <= 2.5 * longest);
    const svg = Plot.plot({
      className: "chart", width: widthOf(figure), height: 230, marginLeft: 44, marginRight: 30, marginTop: 30, marginBottom: 38,
      ariaLabel: `Share of requests by ${name.toUpperCase()}`,
      ariaDescription: own.length ? `Limits: ${own.map((b) => `${b.name} ${duration(b.limit)}`).join(", ")}` : undefined,
      x: { label: `${name.toUpperCase()} [${small ? "ms" : "s"}]`, grid: true, ticks: 6, zero: name === "ttft", nice: true, labelArrow: "none" },
      y: { label: "requests within [%]", domain: [0, 100], ticks: 5, grid: true, labelArrow: "none" },
      marks: [
        Plot.ruleX(shown, { x: (b) => b.limit * factor, stroke: "var(--fail)", strokeWidth: 1.5, strokeDasharray: "4 3" }),
        Plot.text(shown, { x: (b) => b.limit * factor, y: 100, text: (b) => `limit ${b.statistic}`, dy: -10, fill: "var(--fail)", textAnchor: "middle" }),
        Plot.dot(inView, { x: "x", y: "y", symbol: "plus", r: 5, stroke: "var(--fail)", strokeWidth: 2 }),
        ...plans.map((_, k) => Plot.line(rows.filter((r) => r.k === k), { x: "x", y: "y", curve: "monotone-x", stroke: colour(k), strokeWidth: 2.5, strokeDasharray: dash(k) })),
        Plot.tip(rows, Plot.pointerX({ x: "x", y: "y", title: (r) => `${plans[r.k].id}: ${r.y.toFixed(0)}% of requests\nwithin ${duration(r.x / factor)}`, fontSize: 12.5, pathFilter: "none", stroke: "var(--soft)" })),
      ],
    });
    const beyond = limits.length && !shown.length ? `; limit ${duration(Math.min(...limits))}, beyond the picture` : "";
    captioned(figure, `${name.toUpperCase()} of requests${beyond}`, svg, plans);
  }

  function drawStairs(figure, plans) {
    const rows = plans.flatMap((p, k) => p.stairs.map(([to, c], i) => ({ k, from: i ? p.stairs[i - 1][0] : 0, to, c })));
    const last = Math.max(...rows.map((r) => r.to));
    const line = (k) => rows.filter((r) => r.k === k).flatMap((r) => [{ x: r.from, c: r.c }, { x: r.to, c: r.c }]);
    const asked = data.rate === null ? [] : [data.rate];
    const full = plans.map((p, k) => ({ k, x: p.full, id: p.id })).filter((f) => f.x !== null && f.x < last);
    const svg = Plot.plot({
      className: "chart", width: widthOf(figure), height: 250, marginLeft: 52, marginRight: 20, marginTop: 30, marginBottom: 38,
      ariaLabel: `${data.priced ? "Cost" : "GPUs"} over the rate`,
      x: { label: "rate [requests/s]", grid: true, ticks: 6, domain: [0, last], labelArrow: "none" },
      y: { label: costUnit, grid: true, ticks: 5, zero: true, nice: true, labelArrow: "none" },
      marks: [
        Plot.ruleX(asked, { stroke: "var(--soft)", strokeDasharray: "2 3" }),
        Plot.text(asked, { x: (d) => d, text: () => "asked for", frameAnchor: "top", dy: -12, fill: "var(--soft)" }),
        Plot.ruleX(full, { x: "x", stroke: (f) => colour(f.k), strokeDasharray: "4 3" }),
        ...full.map((f, row) => Plot.text([f], { x: "x", text: () => (plans.length > 1 ? `${f.id}: inventory full` : "inventory full"), frameAnchor: "bottom", dy: -6 - 15 * row, dx: -5, textAnchor: "end", fill: "var(--ink)", stroke: "var(--card)", strokeWidth: 4 })),
        ...plans.map((_, k) => Plot.line(line(k), { x: "x", y: "c", stroke: colour(k), strokeWidth: 2.5, strokeDasharray: dash(k) })),
        Plot.tip(rows, Plot.pointerX({ x: "to", y: "c", title: (r) => `${plans[r.k].id}: ${cost(r.c)}\nup to ${digits(r.to)} requests/s`, fontSize: 12.5, pathFilter: "none", stroke: "var(--soft)" })),
      ],
    });
    captioned(figure, "With as many of these replicas as the rate needs", svg, plans);
  }

  function drawIn(place, plans) {
    for (const figure of place.querySelectorAll("[data-draw]")) {
      if (figure.dataset.draw === "stairs") drawStairs(figure, plans);
      else drawDistribution(figure, plans, figure.dataset.draw);
    }
  }

  // One plan, and two ---------------------------------------------------------------------------

  function select(id) {
    state.a = id;
    if (state.b === id) state.b = otherThan(id);
    history.replaceState(null, "", `#${id}`);
    showPlan();
    filter();
  }

  const otherThan = (id) =>
    (data.plans.find((p) => p.knee && p.id !== id) ?? data.plans.find((p) => p.id !== id))?.id ?? null;

  function showPlan() {
    for (const article of document.querySelectorAll("article.plan")) article.hidden = article.id !== state.a;
    for (const row of document.querySelectorAll("tr[data-plan]")) {
      row.classList.toggle("chosen", row.dataset.plan === state.a);
      const link = row.querySelector("[data-select]");
      if (row.dataset.plan === state.a) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    $("plan-a").value = state.a;
    drawIn($(state.a), [byId.get(state.a)]);
    showComparison();
  }

  function difference(m, a, b) {
    if (a === b) return "equal";
    if (!a) return "-";
    const change = b / a - 1;
    const size = Math.abs(change) >= 9.995 ? `${digits(b / a)} times` : `${(100 * Math.abs(change)).toFixed(Math.abs(change) < 0.0995 ? 1 : 0)}% ${change < 0 ? "less" : "more"}`;
    if (Math.abs(change) < 5e-4) return "equal";
    return `${size}, ${change < 0 === (m.better === "lower") ? "better" : "worse"}`;
  }

  function cell(tag, text, className = "") {
    const made = document.createElement(tag);
    if (tag === "th") made.scope = "row";
    made.textContent = text;
    made.className = className;
    return made;
  }

  function showComparison() {
    if (state.b === null) return; // one plan only
    const [a, b] = [byId.get(state.a), byId.get(state.b)];
    $("plan-b").value = state.b;
    for (const option of $("plan-b").options) option.disabled = option.value === state.a;
    for (const place of $("compare").querySelectorAll("[data-name]"))
      place.textContent = place.dataset.name === "a" ? a.id : b.id;
    const rows = data.metrics.map((m) => {
      const text = difference(m, a.values[m.key], b.values[m.key]);
      const row = document.createElement("tr");
      const style = text.endsWith("better") ? "pass" : text.endsWith("worse") ? "fail" : "";
      row.append(cell("th", m.name), cell("td", a.texts[m.key]), cell("td", b.texts[m.key]), cell("td", text, `text ${style}`));
      return row;
    });
    const pools = document.createElement("tr");
    pools.append(cell("th", "Pools"), cell("td", a.label), cell("td", b.label), cell("td", "", "text"));
    $("differences").replaceChildren(pools, ...rows);
    drawIn($("compare"), [a, b]);
  }

  // Start ---------------------------------------------------------------------------------------

  function listen() {
    for (const id of ["axis-x", "axis-y"]) $(id).addEventListener("change", drawPareto);
    $("plan-a").addEventListener("change", (event) => select(event.target.value));
    $("plan-b")?.addEventListener("change", (event) => { state.b = event.target.value; showComparison(); drawPareto(); });
    for (const row of document.querySelectorAll("tr[data-plan]")) {
      row.addEventListener("click", (event) => {
        const link = event.target.closest("[data-select]");
        if (link) event.preventDefault();
        select(row.dataset.plan);
        if (link) { $(state.a).scrollIntoView(); $(state.a).focus({ preventScroll: true }); }
      });
    }
    for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (e) => e.preventDefault());
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...$(state.a).querySelectorAll("details:not([open])")];
      opened.forEach((d) => { d.open = true; });
    });
    addEventListener("afterprint", () => opened.forEach((d) => { d.open = false; }));
    addEventListener("hashchange", () => { if (byId.has(location.hash.slice(1))) select(location.hash.slice(1)); });
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      drawPareto();
      showPlan();
    });
  }

  document.documentElement.classList.add("scripted");
  const wanted = location.hash.slice(1);
  if (byId.has(wanted)) state.a = wanted;
  state.b = otherThan(state.a);
  makeSliders();
  listen();
  showPlan();
  filter();
})();
