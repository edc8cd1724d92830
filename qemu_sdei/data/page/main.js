// Puts the parts together.
const startConsole = () => {
  const shown = byId("console");
  if (!shown) {
    byId("find").hidden = true;
    return;
  }
  const lines = shown.textContent.split("\n");
  shown.scrollTop = shown.scrollHeight;
  byId("find").addEventListener("input", (event) => {
    const word = event.target.value.toLowerCase();
    shown.textContent = (word ? lines.filter((line) => line.toLowerCase().includes(word)) : lines).join("\n");
    if (!word) shown.scrollTop = shown.scrollHeight;
  });
};

const start = () => {
  document.documentElement.classList.add("scripted");
  startTheme();
  themeListeners.push(redrawAll);
  viewListeners.push(redraw);
  startPointer(select);
  startOverview();
  startKeys(step);
  startList();
  startStates();
  startConsole();
  for (const button of document.querySelectorAll(".jump")) {
    const i = placeOfNumber(Number(button.dataset.n));
    button.disabled = i < 0;  // it is not among the newest
    button.addEventListener("click", () => {
      select(i);
      byId("records").scrollIntoView({ block: "start" });
      list.focus({ preventScroll: true });
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, select")) return;
    event.preventDefault();
    byId("search").focus();
  });
  new ResizeObserver(redrawAll).observe(frame);
  redrawAll();
};

start();
