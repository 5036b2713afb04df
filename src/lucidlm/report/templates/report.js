for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.parentElement, body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") === "descending";
    table.querySelectorAll("th[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const order = (a, b) => key(a) - key(b) || String(key(a)).localeCompare(key(b));
    body.append(...[...body.rows].sort((a, b) => down ? order(a, b) : order(b, a)));
  }));
}
for (const field of document.querySelectorAll(".filter input")) {
  const section = field.closest("section"), rows = [...section.querySelector("tbody").rows];
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    section.querySelector("output").textContent = rows.filter(row => !row.hidden).length;
  });
}
