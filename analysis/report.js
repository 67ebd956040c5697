"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  // Tables: a click on a heading sorts by it, another click the other way round; what is no number comes last.
  const shown = (cell) => [...cell.childNodes].filter((n) => n.nodeName !== "SMALL").map((n) => n.textContent).join(" ").trim();
  const value = (text) => {
    const clock = text.match(/^(?:(\d+):)?(\d+):(\d\d)$/);
    if (clock) return 3600 * (clock[1] || 0) + 60 * clock[2] + 1 * clock[3];
    const found = text.replace(/,/g, "").match(/-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/i);
    return found ? Number(found[0]) - (text.startsWith("<") ? 1e-12 : 0) : NaN;
  };
  const sort = (table, at, words, down) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [shown(row.cells[at]), row]);
    const order = (a, b) => {
      if (words) return a[0].localeCompare(b[0], "en", { numeric: true });
      const [x, y] = [value(a[0]), value(b[0])];
      if (Number.isNaN(x) || Number.isNaN(y)) return down * (Number.isNaN(x) - Number.isNaN(y));
      return x - y;
    };
    rows.sort((a, b) => down * order(a, b)).forEach(([, row]) => body.append(row));
  };
  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.tBodies[0].rows.length > 1) heads.forEach((head, at) => {
      const button = document.createElement("span");  // a real button would be blank where a printed heading repeats
      button.tabIndex = 0;
      button.setAttribute("role", "button");
      button.append(...head.childNodes);
      head.append(button);
      const turn = () => {
        const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
        sort(table, at, head.classList.contains("word"), down);
      };
      button.addEventListener("click", turn);
      button.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); }
      });
    });
  }

  // Files: a figure is its own source; a table is read off the page. Text that a spreadsheet would run gets an apostrophe.
  const quoted = (text) => {
    const safe = /^[=+@\t\r-]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text;
    return /[",;\n']/.test(safe) ? '"' + safe.replace(/"/g, '""') + '"' : safe;
  };
  for (const link of document.querySelectorAll("a[data-image]")) {
    link.href = link.closest("figure").querySelector("img").src;
    link.hidden = false;
  }
  for (const link of document.querySelectorAll("a[data-table]")) {
    link.href = "#";
    link.hidden = false;
    link.addEventListener("click", () => {
      const rows = [...link.closest(".tabled").querySelectorAll("tr")];
      const text = rows.map((row) => [...row.cells].map((cell) => quoted(cell.innerText.replace(/\s*\n\s*/g, " | ").trim())).join(",")).join("\n");
      link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(text + "\n");
    });
  }

  // A passage is copied as plain text.
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      let done = false;
      try { await navigator.clipboard.writeText(source.innerText); done = true; } catch { done = document.execCommand("copy"); }
      button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    });
  }

  // The contents: folded on a phone, beside the text the section in view is marked.
  const contents = document.querySelector("nav details");
  if (contents && matchMedia("(min-width: 1100px)").matches) contents.open = true;
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "0px 0px -75% 0px" });
  document.querySelectorAll("main section[id]").forEach((section) => seen.observe(section));

  // On paper everything is open.
  addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((fold) => { fold.open = true; }));
})();
