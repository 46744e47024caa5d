(function () {
"use strict";
const body = document.querySelector("#sites tbody");
const heads = [...document.querySelectorAll("#sites th")];
const find = document.getElementById("find"), state = document.getElementById("state");
const rows = [...body.rows];
const texts = rows.map((row) => row.textContent.toLowerCase());

function filter() {
  const wanted = find.value.toLowerCase();
  let shown = 0;
  rows.forEach((row, place) => {
    const fits = texts[place].includes(wanted) && (!state.value || row.classList.contains(state.value));
    row.hidden = !fits;
    shown += fits;
  });
  document.getElementById("shown").textContent = shown + " of " + rows.length + " sites";
}

function sortBy(column) {
  const down = heads[column].getAttribute("aria-sort") !== "descending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => {
    const cell = row.cells[column];
    return cell.dataset.number === undefined ? cell.textContent : Number(cell.dataset.number);
  };
  const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
  const sorted = [...rows].sort((one, other) => order(value(one), value(other)) * (down ? -1 : 1));
  body.append(...sorted);
}

heads.forEach((head, column) => head.firstChild.addEventListener("click", () => sortBy(column)));
find.addEventListener("input", filter);
state.addEventListener("change", filter);
filter();
// For whoever waits for the page.
document.documentElement.dataset.ready = "yes";
})();
