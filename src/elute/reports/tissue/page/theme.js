// Light or dark: as the reader's system is, or as the switch said last. This runs before anything is drawn.
{
  const key = "elute-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const now = () => root.dataset.theme ?? (system.matches ? "dark" : "light");
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => {
      const other = now() === "dark" ? "light" : "dark";
      button.textContent = `${other[0].toUpperCase()}${other.slice(1)}`;
      button.setAttribute("aria-label", `Switch to the ${other} theme`);
      document.dispatchEvent(new CustomEvent("elute:theme"));
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = now() === "dark" ? "light" : "dark";
      try { localStorage.setItem(key, root.dataset.theme); } catch { /* a browser that keeps nothing */ }
      tell();
    });
    system.addEventListener("change", tell);
    tell();
  });
}
