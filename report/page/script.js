// What the page does beyond reading: marks that can be looked at, sliders, a citation to copy, details to print.
"use strict";

function fill(card, mark, study) {
  const list = card.querySelector("dl");
  list.replaceChildren(...JSON.parse(mark.dataset.said).map(([term, text]) => {
    const line = document.createElement("div");
    line.append(document.createElement("dt"), document.createElement("dd"));
    line.firstChild.textContent = term;
    line.lastChild.textContent = text;
    return line;
  }));
  const image = [...study.querySelectorAll("img[data-cell]")].find(one => one.dataset.cell === mark.dataset.cell);
  card.querySelector(".pictures").replaceChildren(...(image ? [image.cloneNode()] : []));
}

for (const figure of document.querySelectorAll(".figure")) {
  const card = figure.querySelector(".card"), study = figure.closest(".study");
  for (const box of figure.querySelectorAll("[role=listbox]")) {
    const marks = [...box.querySelectorAll("[role=option]")];
    const choose = mark => {
      for (const one of marks) {
        one.setAttribute("aria-selected", one === mark);
        one.setAttribute("tabindex", one === mark ? 0 : -1);
      }
      fill(card, mark, study);
    };
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -marks.length, End: marks.length };
    const svg = box.closest("svg");
    const far = (mark, x, y) => Math.hypot(mark.querySelector("circle").cx.baseVal.value - x, mark.querySelector("circle").cy.baseVal.value - y);
    for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, event => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const [nearest] = marks.map(mark => [far(mark, at.x, at.y), mark]).sort((a, b) => a[0] - b[0]);
      if (nearest[0] < 40 && nearest[1].getAttribute("aria-selected") !== "true") choose(nearest[1]);
    });
    for (const mark of marks) {
      mark.addEventListener("focus", () => choose(mark));
      mark.addEventListener("keydown", event => {
        if (!(event.key in moves)) return;
        event.preventDefault();
        const next = marks.indexOf(mark) + moves[event.key];
        marks[Math.min(Math.max(next, 0), marks.length - 1)].focus();
      });
    }
    fill(card, box.querySelector("[aria-selected=true]"), study);
  }
}

for (const views of document.querySelectorAll(".views")) {
  const buttons = [...views.querySelectorAll("button")];
  const show = chosen => buttons.forEach(button => {
    button.setAttribute("aria-pressed", button === chosen);
    document.getElementById(button.dataset.views).classList.toggle("hidden", button !== chosen);
  });
  buttons.forEach(button => button.addEventListener("click", () => show(button)));
  show(buttons[0]);
}

for (const slides of document.querySelectorAll(".slides")) {
  const input = slides.querySelector("input"), output = slides.querySelector("output");
  const figures = [...slides.querySelectorAll("figure")], stops = [...slides.querySelectorAll(".stops button")];
  const show = at => {
    input.value = at;
    output.textContent = stops[at].textContent;
    input.setAttribute("aria-valuetext", stops[at].dataset.words);
    figures.forEach((figure, i) => figure.classList.toggle("shown", i === at));
    stops.forEach((stop, i) => stop.setAttribute("aria-pressed", i === at));
  };
  input.addEventListener("input", () => show(Number(input.value)));
  stops.forEach((stop, i) => stop.addEventListener("click", () => show(i)));
  show(Number(input.value));
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const quoted = document.getElementById(button.dataset.copies);
    getSelection().selectAllChildren(quoted);
    try {
      await navigator.clipboard.writeText(quoted.textContent.trim() + button.dataset.ends);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: copy it with Ctrl-C";
    }
  });
}

// a link to a claim unfolds it, and the list it stands in
function unfold() {
  let there = document.getElementById(location.hash.slice(1));
  for (; there; there = there.parentElement) if (there.tagName === "DETAILS") there.open = true;
}
addEventListener("hashchange", unfold);
unfold();
