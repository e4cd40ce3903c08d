"use strict";
const bar = document.getElementById("bar"), choice = document.getElementById("text");
const articles = [...document.querySelectorAll("article")];
const pairs = new Map(articles.map(a =>
  [a, [[...a.querySelectorAll("button.token")], [...a.querySelectorAll("details.token")]]]));
function open(article, place) {
  const [buttons, parts] = pairs.get(article);
  buttons.forEach((b, at) => {
    b.setAttribute("aria-expanded", at === place);
    b.tabIndex = at === place ? 0 : -1;
    parts[at].open = at === place;
  });
}
function show() {
  articles.forEach(a => { a.hidden = a.dataset.text !== choice.value; });
}
for (const [article, [buttons]] of pairs) {
  open(article, 0);
  buttons.forEach((b, at) => {
    b.addEventListener("click", () => open(article, at));
    b.addEventListener("keydown", event => {
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      const last = buttons.length - 1;
      const ends = { Home: 0, End: last };
      if (!(event.key in steps) && !(event.key in ends)) return;
      event.preventDefault();
      const to = event.key in ends ? ends[event.key] : Math.min(last, Math.max(0, at + steps[event.key]));
      open(article, to);
      buttons[to].focus();
    });
  });
}
document.body.classList.add("scripted");
choice.addEventListener("change", show);
bar.addEventListener("submit", e => e.preventDefault());
bar.hidden = false;
show();
