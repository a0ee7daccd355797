// @ts-check
// Sets the chosen theme before anything is painted, and changes it. Without a choice the page
// follows the system. Not a module: modules run too late for the first paint.

(() => {
  const KEY = "paddler-theme";
  const ORDER = ["system", "light", "dark"];
  const root = document.documentElement;

  function stored() {
    try {
      return localStorage.getItem(KEY) ?? "system";
    } catch {
      return "system"; // a browser that keeps nothing
    }
  }

  /** @param {string} theme */
  function show(theme) {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
    const button = document.getElementById("theme");
    if (button === null) return;
    button.textContent = `Theme: ${theme}`;
    button.title = "Follow the system, or always light or dark";
  }

  let theme = ORDER.includes(stored()) ? stored() : "system";
  show(theme);
  document.addEventListener("DOMContentLoaded", () => {
    show(theme);
    document.getElementById("theme")?.addEventListener("click", () => {
      theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // It holds for this page, then.
      }
      show(theme);
    });
  });
})();
