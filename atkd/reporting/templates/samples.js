"use strict";
const get = id => document.getElementById(id), bar = get("bar");
const articles = [...document.querySelectorAll("article")];
articles.forEach((a, i) => { a.place = i; a.words = a.textContent.toLowerCase(); });
const score = (a, m) => {
  const found = a.querySelector(`[data-model="${m}"]`);
  return found && found.dataset.score !== undefined ? Number(found.dataset.score) : NaN;
};
const gap = a => score(a, get("first").value) - score(a, get("second").value);
function sort() {
  const way = Number(get("order").value);
  const key = a => { const g = way * gap(a); return Number.isNaN(g) ? -Infinity : g; };
  const order = way ? (a, b) => key(b) - key(a) || a.place - b.place : (a, b) => a.place - b.place;
  for (const s of document.querySelectorAll("section"))
    s.append(...[...s.querySelectorAll("article")].sort(order));
}
function show() {
  const task = get("task").value, words = get("find").value.toLowerCase();
  const on = new Set([...bar.querySelectorAll("input:checked")].map(box => box.value));
  for (const s of document.querySelectorAll("section")) s.hidden = task && s.dataset.task !== task;
  for (const a of articles) a.hidden = !a.words.includes(words);
  for (const d of document.querySelectorAll("[data-model]")) d.hidden = !on.has(d.dataset.model);
  const seen = articles.filter(a => !a.hidden && !a.closest("section").hidden).length;
  bar.querySelector("output").textContent = seen + " documents shown";
}
bar.addEventListener("input", e => {
  if (["order", "first", "second"].includes(e.target.id)) sort();
  show();
});
bar.addEventListener("submit", e => e.preventDefault());
addEventListener("hashchange", () => {
  const task = decodeURIComponent(location.hash.slice(1));
  if ([...get("task").options].some(o => o.value === task)) { get("task").value = task; show(); }
});
if (location.hash) dispatchEvent(new Event("hashchange"));
bar.hidden = false;
show();
