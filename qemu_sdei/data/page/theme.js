// Dark or light: the system's setting, or the reader's own.
const themes = ["auto", "dark", "light"];
const themeListeners = [];

const setTheme = (theme) => {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = "Theme: " + theme;
  themeListeners.forEach((listener) => listener());
};

const startTheme = () => {
  let theme = "auto";
  // Where a page of a file may keep nothing, it is asked for each time.
  try {
    const kept = localStorage.getItem("qemu-sdei-theme");
    if (themes.includes(kept)) theme = kept;
  } catch { /* not allowed here */ }
  const button = byId("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try {
      localStorage.setItem("qemu-sdei-theme", theme);
    } catch { /* not allowed here */ }
    setTheme(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(theme));
  setTheme(theme);
};

// The colours of page.css for a canvas.
const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const names = ["back", "card", "ink", "muted", "line", "soft", "accent", "normal", "critical", "on-slice", "pending"]
    .concat(["call", "entry", "refused", "masked", "off", "suspended", "mark"]);
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
};
