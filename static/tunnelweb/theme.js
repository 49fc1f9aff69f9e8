// Runs before the page is painted, so that a dark page never flashes light.
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("tunnelweb-theme");
    } catch {
      return null; // storage may be switched off
    }
  };
  const apply = () => {
    root.dataset.bsTheme = stored() || (dark.matches ? "dark" : "light");
  };
  apply();
  dark.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const theme = root.dataset.bsTheme === "dark" ? "light" : "dark";
    root.dataset.bsTheme = theme;
    try {
      localStorage.setItem("tunnelweb-theme", theme);
    } catch {
      // remembered for this page only
    }
  });
})();
