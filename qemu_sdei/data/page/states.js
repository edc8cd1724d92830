// The state diagram: what all events visited, or one of them.
const showArrows = (event) => {
  const counts = {};
  for (const [name, visited] of Object.entries(trace.arrows)) {
    if (event && name !== event) continue;
    for (const [arrow, count] of Object.entries(visited)) counts[arrow] = (counts[arrow] || 0) + count;
  }
  const visitedStates = new Set(Object.keys(counts).flatMap((arrow) => arrow.split("-")));
  for (const arrow of document.querySelectorAll("#states [data-arrow]")) {
    const count = counts[arrow.dataset.arrow] || 0;
    arrow.classList.toggle("visited", count > 0);
    arrow.querySelector(".count").textContent = count ? " ×" + count : "";
  }
  for (const state of document.querySelectorAll("#states [data-state]")) {
    state.classList.toggle("visited", visitedStates.has(state.dataset.state));
    const resets = counts[state.dataset.state + "-reset"] || 0;
    state.querySelector("[data-reset]").textContent = resets ? "reset " + resets + " ×" : "";
  }
};

const startStates = () => byId("arrows-of").addEventListener("change", (change) => showArrows(change.target.value));
