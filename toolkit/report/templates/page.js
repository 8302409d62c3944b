"use strict";
(function () {
  var status = document.getElementById("sorted");

  function key(row, column) {
    var cell = row.cells[column];
    var value = cell.getAttribute("data-value");
    return value === null ? cell.textContent.trim() : Number(value);
  }

  // Numbers before texts; texts by code point, so that the order is the same everywhere.
  function compare(a, b) {
    if (typeof a !== typeof b) { return typeof a === "number" ? -1 : 1; }
    return a < b ? -1 : a > b ? 1 : 0;
  }

  function sort(table, column) {
    var heads = table.tHead.rows[0].cells;
    var body = table.tBodies[0];
    var descending = heads[column].getAttribute("aria-sort") === "ascending";
    var rows = Array.prototype.slice.call(body.rows).map(function (row, place) {
      return { row: row, key: key(row, column), place: place };
    });
    rows.sort(function (a, b) {
      var order = compare(a.key, b.key);
      return (descending ? -order : order) || a.place - b.place;
    });
    rows.forEach(function (each) { body.appendChild(each.row); });
    Array.prototype.forEach.call(heads, function (head, place) {
      var name = place !== column ? "none" : descending ? "descending" : "ascending";
      head.setAttribute("aria-sort", name);
    });
    status.textContent = "Sorted by " + heads[column].textContent.trim() +
      (descending ? ", descending." : ", ascending.");
  }

  // Without this script every matrix is shown, and no selector.
  document.querySelectorAll(".choice").forEach(function (choice) {
    var select = choice.querySelector("select");
    function show() {
      choice.querySelectorAll(":scope > div").forEach(function (each) {
        each.hidden = each.id !== select.value;
      });
    }
    select.addEventListener("change", show);
    select.closest("p").hidden = false;
    show();
  });

  document.querySelectorAll("table.sortable").forEach(function (table) {
    table.querySelectorAll("thead button").forEach(function (button, column) {
      button.addEventListener("click", function () { sort(table, column); });
    });
  });
})();
