"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("m");
  const group = (value) => value.toLocaleString("en-US");
  const at = (values, m) => values[Math.min(m, values.length - 1)];

  // Rounded down in integers, as in the tables: a certificate is never overstated.
  function share(count, total) {
    const tenths = Math.floor((1000 * count) / total);
    return count && !tenths ? "<0.1%" : `${Math.floor(tenths / 10)}.${tenths % 10}%`;
  }

  // What a curve is worth at m: [share in 0..1, text].
  function certified(row, m, key) {
    const count = at(row[key], m);
    return [count / data.total[key], share(count, data.total[key]), count];
  }
  function baseline(pair, m) {
    const value = m === 0 ? pair[0] : pair[1];
    return [value, `${(100 * value).toFixed(1)}%`];
  }

  function fillRow(tr, value, text) {
    tr.querySelector(".fill").setAttribute("width", `${100 * value}%`);
    tr.querySelector("[data-cell=main]").textContent = text;
  }

  function pixel(svg, m) {
    const { x0, x1, low, high } = svg.dataset;
    return +x0 + ((m - low) / (high - low)) * (x1 - x0);
  }

  function place(line, m) {
    const x = pixel(line.ownerSVGElement, m);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }

  function update() {
    const m = +slider.value;
    document.getElementById("m-value").textContent = group(m);
    document.getElementById("m-share").textContent = `${((100 * m) / data.clients).toFixed(1)}%`;
    slider.setAttribute("aria-valuetext", `${m} of ${data.clients}`);
    const key = data.labeled ? "correct" : "certified";
    data.rows.forEach((row, i) => {
      const tr = document.querySelector(`[data-row="${i}"]`);
      const [value, text, count] = certified(row, m, key);
      fillRow(tr, value, text);
      tr.querySelector("[data-cell=count]").textContent = group(count);
      if (data.labeled) tr.querySelector("[data-cell=rate]").textContent = certified(row, m, "certified")[1];
    });
    data.baselines.forEach((pair, i) => fillRow(document.querySelector(`[data-baseline="${i}"]`), ...baseline(pair, m)));
    for (const line of document.querySelectorAll(".crosshair")) place(line, m);
    for (const bar of document.querySelectorAll(".bar")) bar.classList.toggle("below", +bar.dataset.last < m);
  }

  function pointed(svg, event) {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const { x0, x1, low, high } = svg.dataset;
    const m = +low + ((x - x0) / (x1 - x0)) * (high - low);
    return Math.floor(Math.max(+low, Math.min(+high, m)) + 0.25); // steps hold from m on; a little slack on the left
  }

  function tip(figure, svg, m) {
    const box = figure.querySelector(".tip");
    const key = figure.dataset.chart === "accuracy" ? "correct" : "certified";
    const values = [...data.rows.map((row) => certified(row, m, key)), ...data.baselines.map((pair) => baseline(pair, m))];
    const lines = [...figure.querySelectorAll("[data-toggle]")]
      .filter((button) => button.getAttribute("aria-pressed") === "true")
      .map((button) => ({ button, value: values[+button.dataset.toggle] }))
      .sort((a, b) => b.value[0] - a.value[0]);
    const head = document.createElement("p");
    head.textContent = `m = ${group(m)}`;
    box.replaceChildren(head, ...lines.map(({ button, value }) => {
      const line = document.createElement("p");
      const dot = document.createElement("span");
      const number = document.createElement("b");
      dot.className = `dot ${button.className}`;
      number.textContent = value[1];
      line.append(dot, number, ` ${button.textContent}`);
      return line;
    }));
    place(svg.querySelector(".guide"), m);
    svg.querySelector(".guide").classList.add("on");
    box.hidden = false;
    const canvas = box.parentElement.clientWidth;
    const x = (pixel(svg, m) / svg.viewBox.baseVal.width) * canvas;
    box.style.left = `${Math.max(0, x + 14 + box.offsetWidth > canvas ? x - box.offsetWidth - 14 : x + 14)}px`;
  }

  for (const figure of document.querySelectorAll(".plot")) {
    for (const svg of figure.querySelectorAll(".line")) {
      svg.addEventListener("pointermove", (event) => tip(figure, svg, pointed(svg, event)));
      svg.addEventListener("pointerleave", () => {
        figure.querySelector(".tip").hidden = true;
        svg.querySelector(".guide").classList.remove("on");
      });
      svg.addEventListener("click", (event) => { slider.value = pointed(svg, event); update(); });
    }
    for (const button of figure.querySelectorAll("[data-toggle]")) {
      const mine = () => figure.querySelectorAll(`[data-series="${button.dataset.toggle}"]`);
      const light = (on) => {
        for (const curve of mine()) curve.classList.toggle("lit", on);
        for (const curves of figure.querySelectorAll(".curves")) curves.classList.toggle("one", on && button.getAttribute("aria-pressed") === "true");
      };
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", shown);
        for (const curve of mine()) curve.classList.toggle("off", !shown);
        light(shown);
      });
      button.addEventListener("pointerenter", () => light(true));
      button.addEventListener("pointerleave", () => light(false));
      button.addEventListener("focus", () => light(true));
      button.addEventListener("blur", () => light(false));
    }
  }

  document.documentElement.classList.add("ready");
  slider.addEventListener("input", update);
  update();
})();
